"""Who serves a cell: literal figures of a backtest in, who serves and why out."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from m2m_model.data.spec import Target
from pipelines.config import Gate
from pipelines.life.cells import Cell, cells_of, in_cells, reason, with_unsound
from pipelines.life.fallback import of_gate, serving, told
from pipelines.life.gate import WORSE
from pipelines.quality.drift import doubted

DAY, BEFORE = date(2024, 3, 10), date(2024, 3, 3)
CELL_TYPES = {"scenario_id": pl.String, "task": pl.String, "horizon_days": pl.Int32}
NOTHING = pl.DataFrame(schema=CELL_TYPES | {"since": pl.Date})
CALM = pl.DataFrame(schema=CELL_TYPES | {"doubt": pl.String})


def pair(
    ratio: float | None,
    scenario: str = "search",
    task: str = "clicks",
    other: str = "mean_28",
    forecaster: str | None = "challenger",
    n: int = 1000,
    spread: float = 0.01,
) -> dict[str, object]:
    low, high = (None, None) if ratio is None else (ratio * np.exp(-1.96 * spread), ratio * np.exp(1.96 * spread))
    return {
        "forecaster": forecaster, "other": other, "scenario_id": scenario, "task": task, "horizon_days": 7, "n": n,
        "nmae": ratio and 0.4 * ratio, "other_nmae": 0.4, "ratio": ratio, "ratio_low": low, "ratio_high": high,
        "spread": spread,
    }  # fmt: skip


def pairs(*rows: dict[str, object]) -> pl.DataFrame:
    numbers = ["nmae", "other_nmae", "ratio", "ratio_low", "ratio_high", "spread"]
    types = dict.fromkeys(numbers, pl.Float64) | {"horizon_days": pl.Int32, "forecaster": pl.String}
    return pl.DataFrame(list(rows), schema_overrides=types)


def since(found: pl.DataFrame, scenario: str = "search") -> date | None:
    """From when a baseline has served; None: the model serves."""
    row = found.row(by_predicate=pl.col("scenario_id") == scenario, named=True)
    assert row["falls_back"] == (row["since"] is not None) == (row["reason"] is not None)
    return row["since"]  # type: ignore[no-any-return]


def test_a_cell_that_is_surely_lost_falls_back_and_another_does_not() -> None:
    found = serving(pairs(pair(1.3), pair(0.9, "feed")), "challenger", Gate(), NOTHING, DAY, CALM)
    assert (since(found), since(found, "feed")) == (DAY, None)
    words = found.filter(scenario_id="search")["reason"].item()
    assert words == "cell: loses to mean_28 in the backtest of 2024-03-10, ratio 1.30 (95 %: 1.27 .. 1.33)"
    cells = cells_of(found)
    assert cells["search", "clicks", 7] == Cell("mean_28", words)
    assert cells["feed", "clicks", 7] == Cell("mean_28", None)


@pytest.mark.parametrize(
    ("lost", "falls"),
    [
        (pair(1.3, spread=0.2), False),  # may be chance
        (pair(1.04), False),  # too small to matter
        (pair(None), False),
    ],
)
def test_what_is_not_sure_changes_nothing(lost: dict[str, object], falls: bool) -> None:
    assert (since(serving(pairs(lost), "challenger", Gate(), NOTHING, DAY, CALM)) is not None) == falls


@pytest.mark.parametrize(
    ("now", "back"),
    [(pair(1.3), False), (pair(1.01), False), (pair(None), False), (pair(1.0), True), (pair(0.9), True)],
)
def test_a_cell_comes_back_when_the_model_is_not_worse_at_all(now: dict[str, object], back: bool) -> None:
    fallen = serving(pairs(pair(1.3)), "challenger", Gate(), NOTHING, BEFORE, CALM)
    found = serving(pairs(now), "challenger", Gate(), fallen, DAY, CALM)
    assert since(found) == (None if back else BEFORE)
    if now["ratio"] == 1.01:
        assert found["reason"].item().startswith("cell: lost to a baseline since 2024-03-03, does not win from mean_28")


NARROW = "coverage of clicks: 71.0% over 3 days; expected 80.0% .. 95.0%"


@pytest.mark.parametrize(
    ("now", "falls"),
    [(pair(0.97, spread=0.05), True), (pair(1.02), True), (pair(0.8), False), (pair(None), False), (pair(1.3), True)],
)
def test_where_forecasts_drifted_the_model_serves_only_if_it_surely_wins(now: dict[str, object], falls: bool) -> None:
    drift = pl.DataFrame(
        [
            (DAY, "search", "coverage of clicks", "drift", NARROW),
            (BEFORE, "search", "expected error of clicks", "drift", "older"),
            (DAY, "feed", "coverage of clicks", "usual", "as ever"),
            (DAY, "feed", "level of clicks", "critical", "not of forecasts"),
        ],
        ["ds", "scenario_id", "signal", "verdict", "words"],
        orient="row",
    )
    rows = pairs(now, {**now, "scenario_id": "feed"})
    doubted_ = doubted(drift, rows, several=False)
    assert doubted_.rows() == [("search", "clicks", 7, f"{NARROW} on {DAY}")]
    found = serving(rows, "challenger", Gate(), NOTHING, DAY, doubted_)
    assert (since(found), since(found, "feed")) == (DAY if falls else None, DAY if now == pair(1.3) else None)
    if now["ratio"] == 0.97:
        words = f"cell: its forecasts drifted ({NARROW} on {DAY}), and it does not surely win from mean_28, ratio 0.97"
        assert found.filter(scenario_id="search")["reason"].item().startswith(words)
        later = serving(rows, "challenger", Gate(), found, DAY, doubted_)
        assert since(later) == DAY  # while it lasts
        assert since(serving(rows, "challenger", Gate(), found, DAY, CALM)) is None


def test_scenarios_with_few_rows_go_with_all_together() -> None:
    rows = pairs(pair(1.3, "*"), pair(1.3, "small", n=40), pair(0.9, "large"))
    found = serving(rows, "challenger", Gate(), NOTHING, DAY, CALM)
    assert found["scenario_id"].to_list() == ["*", "large"]
    who_NM, why_NM = in_cells(cells_of(found), np.array(["small", "large", "new"], object), TARGETS) or (None, None)
    assert who_NM is not None
    assert who_NM.tolist() == [["mean_28", None], [None, None], ["mean_28", None]]
    assert why_NM is not None
    assert why_NM[0, 0].startswith("cell: loses to mean_28")
    assert since(serving(pairs(pair(1.01, "small")), "challenger", Gate(), found, BEFORE, CALM), "small") == DAY
    assert (
        in_cells(cells_of(serving(pairs(pair(0.9)), "challenger", Gate(), NOTHING, DAY, CALM)), why_NM[:, 0], TARGETS)
        is None
    )


TARGETS = [Target("clicks", "clicks", "sum", 7), Target("spend", "spend", "sum", 7)]


def test_each_version_is_held_against_the_best_baseline_of_the_cell_and_the_gate_against_its_own() -> None:
    gates = [pair(0.9, "*", "*"), pair(0.9, "*", "*", "champion"), pair(1.1), pair(1.0, other="champion")]
    best = {**pair(1.4, other="tsb"), "other_nmae": 0.3}
    both = pairs(*gates, best, {**pair(0.8, forecaster="champion", other="tsb"), "other_nmae": 0.3})
    assert of_gate(both).height == 4
    assert of_gate(pairs(*gates).with_columns(forecaster=pl.lit(None, pl.String))).height == 4  # rows of before
    found = serving(both, "challenger", Gate(), NOTHING, DAY, CALM)
    assert found.select("baseline", "ratio", "falls_back").rows() == [("tsb", 1.4, True)]
    assert since(serving(both, "champion", Gate(), NOTHING, DAY, CALM)) is None
    judged = of_gate(both).with_columns(verdict=pl.Series(["passed", "passed", WORSE, "passed"]))
    assert told(judged, found)["verdict"].to_list() == ["passed", "passed", "served by tsb there", "passed"]


def test_every_row_has_a_reason() -> None:
    methods = ["m2m", "blend:tsb@0.3", "baseline:mean_28", "cold_start", "blend:cold_start@0.5", "silent"]
    rows = pl.DataFrame({"method": methods})
    young, silent = "young: under 7 days of history", "silent: no recent row"
    alone = "champion, which gives the network no part here"
    assert rows.select(reason(None)).to_series().to_list() == ["champion", "champion", alone, young, young, silent]
    cell_X = np.array([None, None, "cell: x", None, None, "cell: x"], object)
    found = rows.select(reason(None, cell_X)).to_series()
    assert found.to_list() == ["champion", "champion", "cell: x", young, young, silent]
    whole = rows.select(reason("no champion: 3 broke negative")).to_series().to_list()
    assert whole == ["no champion: 3 broke negative"] * 3 + [young, young, silent]


def test_a_cell_that_broke_a_rule_is_served_by_its_best_baseline_too() -> None:
    cells = {("search", "clicks", 7): Cell("tsb", None)}
    broken = pl.DataFrame(
        {"scenario_id": ["search", "feed"], "task": "clicks", "horizon_days": 7, "rule": "level_jump"}
    )
    found = with_unsound(cells, broken, "3")
    assert found["search", "clicks", 7] == Cell("tsb", "cell: champion 3 broke level_jump")
    assert found["feed", "clicks", 7].baseline == "mean_28"
