"""What goes into MLflow under a name that a data set gave."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, strategies
from mlflow.utils.validation import _validate_metric_name  # what MLflow's server asks of a name

from m2m_model.training.progress import CellMetric, EpochMetrics
from pipelines.life.plots import training_plots
from pipelines.life.registry import metric_name

AWKWARD = [
    "https://feed.example/",
    "https://feed.example",
    "/feed",
    "feed/",
    "feed//home",
    ".",
    "..",
    "./feed",
    "all",
    "*",
    " feed",
    "feed ",
    "广告",
    "搜索",
    "Žižkov",
    "$x_$",
    "a" * 250,
    "a" * 251,
    "a" * 2000,
    "a\nb",
    "\x00",
    "a#b",
    "a%2Fb",
    "",
    "-",
    "feed",
    "camp 1|High|160 x 600",
]


@pytest.mark.parametrize("scenario", AWKWARD)
def test_mlflow_takes_the_name_of_any_scenario(scenario: str) -> None:
    name = metric_name("backtest_coverage_90", "challenger", scenario, "t" * 64)
    _validate_metric_name(name)
    assert len(name) <= 250
    assert name.isprintable()


def test_no_two_scenarios_have_one_name() -> None:
    names = {metric_name("nmae", scenario, "spend") for scenario in AWKWARD}
    assert len(names) == len(AWKWARD)
    made = {metric_name(scenario) for scenario in AWKWARD if scenario != "*"}
    assert all(metric_name(name) != name for name in made - set(AWKWARD))  # an id that looks like a made name


@given(strategies.text(), strategies.text())
@example("all", "*")
@example("a/b", "a-b")
def test_other_scenarios_have_other_names(one: str, other: str) -> None:
    _validate_metric_name(metric_name("nmae", one))
    assert (metric_name(one) == metric_name(other)) == (one == other)


def test_plain_scenarios_keep_their_name() -> None:
    assert metric_name("validation_nmae", "search", "spend") == "validation_nmae/search/spend"
    assert metric_name("validation_nmae", "160 x 600", "spend") == "validation_nmae/160 x 600/spend"
    assert metric_name("backtest_nmae", "challenger", "*", "spend") == "backtest_nmae/challenger/all/spend"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_scenario_can_be_drawn(tmp_path: Path) -> None:
    cells = tuple(CellMetric(scenario, "spend", 1, 0.5) for scenario in AWKWARD if "\x00" not in scenario)
    epochs = [EpochMetrics(1, 1.0, 1.0, 0.5, cells)]
    assert all(picture.is_file() for picture in training_plots(epochs, tmp_path))
