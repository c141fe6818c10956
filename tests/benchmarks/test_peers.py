"""What a user would pick instead: what it is given and gives back, without neuralforecast."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import peers
from benchmarks.peers import Forecast, Setting
from benchmarks.results import SEEDS, figures, give_weeks, judged, judged_peers, peer_report, weeks_of
from m2m_model.config import Task
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.forecasts import forecast_baseline

FIRST_DAY, DAYS = date(2024, 1, 1), 100
SPEC = SequenceSpec(
    metrics=("clicks",),
    behaviors=(),
    advertiser_attributes=(),
    scenario_attributes=(),
    tasks=(Task("clicks", "clicks", "sum"), Task("active_days", "active", "days")),
    horizons_days=(7,),
    window_days=28,
    eligible_days=28,
)
CUTOFF = FIRST_DAY + timedelta(days=80)


def panel_of(clicks_NT: np.ndarray, registered_N: Sequence[int] = (0, 0, 0)) -> Panel:
    """Of three series, NaN where there is no row."""
    names = [f"a{number}" for number in range(len(clicks_NT))]
    keys = pd.DataFrame({"advertiser_id": names, "scenario_id": ["feed", "search", "feed"]})
    nothing = np.zeros((*clicks_NT.shape, 0))
    last_day = FIRST_DAY + timedelta(days=DAYS - 1)
    registered = np.array(registered_N, np.int32)
    return Panel.of_values(SPEC, last_day, clicks_NT[:, :, None], nothing, registered, pa.Table.from_pandas(keys))


@pytest.fixture
def clicks_NT() -> np.ndarray:
    """Steady; from day 50 on; silent since day 30."""
    clicks_NT = np.random.default_rng(1).poisson(5, (3, DAYS)).astype(float)
    clicks_NT[1, :50] = clicks_NT[2, 30:] = np.nan
    return clicks_NT


def test_weeks_end_at_the_cutoff(clicks_NT: np.ndarray) -> None:
    weeks = weeks_of(panel_of(clicks_NT, (0, 50, 0)), CUTOFF).to_pandas()
    steady, late, silent = (weeks[weeks["series"] == series] for series in range(3))
    assert steady["week"].tolist() == list(range(11))  # 81 days
    assert steady["clicks"].tolist() == clicks_NT[0, 4:81].reshape(11, 7).sum(1).tolist()
    assert late["week"].tolist() == [6, 7, 8, 9, 10]  # registered on day 50, in the week of days 46 .. 52
    assert late["clicks"].tolist()[:2] == [clicks_NT[1, 50:53].sum(), clicks_NT[1, 53:60].sum()]
    assert silent["eligible"].tolist() == [True] * 7 + [False] * 4
    assert late["scenario"].tolist() == ["search"] * 5


def test_no_file_holds_what_follows_its_cutoff(clicks_NT: np.ndarray, tmp_path: Path) -> None:
    """Other rows after a cutoff, and a series that begins after it: the files of that cutoff stay as they were."""
    changed_NT, known = clicks_NT.copy(), 81
    changed_NT[:, known:] = 1e6
    cutoffs = [CUTOFF, CUTOFF - timedelta(days=7)]
    give_weeks({"block": (panel_of(clicks_NT, (0, 50, 0)), cutoffs)}, tmp_path / "as it is")
    give_weeks({"block": (panel_of(changed_NT, (0, 50, 0)), cutoffs)}, tmp_path / "changed")
    written = sorted(path.relative_to(tmp_path / "changed") for path in (tmp_path / "changed").rglob("*.*"))
    assert len(written) == 3
    for path in written:
        assert (tmp_path / "as it is" / path).read_bytes() == (tmp_path / "changed" / path).read_bytes()
    changed_NT[:, known - 1] = 1e6
    give_weeks({"block": (panel_of(changed_NT, (0, 50, 0)), cutoffs)}, tmp_path / "leaks")
    of_cutoff = [pq.read_table(tmp_path / name / "block" / f"{CUTOFF}.parquet") for name in ("as it is", "leaks")]
    assert not of_cutoff[0].equals(of_cutoff[1])


def test_the_best_setting_forecasts_and_is_judged(clicks_NT: np.ndarray, tmp_path: Path) -> None:
    fitted_weeks = []

    def fit(peer: str, setting: Setting, task: str, tasks: Sequence[str], weeks: pd.DataFrame) -> Forecast:
        """The last week times a number: of 1 and 9, 1 is better."""
        fitted_weeks.append(int(weeks["week"].max()))
        return lambda rows: rows.groupby("series")[task].last() * setting.weeks

    panel = panel_of(clicks_NT, (0, 50, 0))
    blocks = {"2024-03-28": (panel, [CUTOFF, CUTOFF - timedelta(days=7)]), "2024-03-15": (panel, [date(2024, 3, 8)])}
    give_weeks(blocks, tmp_path)
    peers.run(tmp_path, fit, {"LAST": [Setting("ninefold", 9), Setting("once", 1)]})
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert [(fit["task"], fit["best"]) for fit in fits] == [("clicks", "once"), ("active_days", "once")]
    assert all(fit["tried"]["once"] < fit["tried"]["ninefold"] for fit in fits)
    # Chosen without the last three weeks before the earlier block's cutoff, in week 8 of 0 .. 8; then fitted a block.
    assert fitted_weeks == [5, 5, 9, 8] * 2
    found = figures(pa.concat_tables(judged_peers(blocks, tmp_path)), ("cutoff", "task"))
    known = [
        judged(forecast_baseline("last_h_days", panel, cutoff), panel, cutoff, "LAST")
        for _, cutoffs in blocks.values()
        for cutoff in cutoffs
    ]
    assert found.equals(figures(pa.concat_tables(known), ("cutoff", "task")))


def test_the_chapter_says_where_a_peer_is_ahead(clicks_NT: np.ndarray) -> None:
    panel = panel_of(clicks_NT, (0, 50, 0))

    def sums(name: str, baseline: str) -> pa.Table:
        return judged(forecast_baseline(baseline, panel, CUTOFF), panel, CUTOFF, name)

    mine = [sums(f"m2m, seed {seed}", "tsb") for seed in SEEDS]
    fits = [
        {"peer": "LAST", "task": task.name, "tried": {"once": 0.4, "ninefold": 6.7}, "best": "once"}
        | {"choosing_s": 10.0, "fitting_s": {"2024-03-28": 2.0, "2024-03-15": 4.0}}
        for task in SPEC.tasks
    ]
    found: dict[str, Any] = {}
    known = pa.concat_tables([*mine, *(sums(name, name) for name in BASELINES)])
    page = "\n".join(peer_report(known, sums("LAST", "last_h_days"), fits, [50.0, 70.0], found))
    seconds = {row["forecaster"]: row["fit_s"] for row in found["peers"]["forecasters"]}
    assert seconds == {**dict.fromkeys((f"m2m, seed {seed}" for seed in SEEDS), 60), "LAST": 6}
    behind = [row["m2m_nmae"] > row["peer_nmae"] for row in found["peers"]["losing"]]
    assert all(behind)
    assert f"A peer is ahead of m2m, seed 1 in {len(behind)} of 2" in page
    assert "the settings took 20 s more" in page
    assert "| LAST | clicks | once | 0.400 | chosen |" in page


def test_a_series_without_a_forecast_is_named(clicks_NT: np.ndarray, tmp_path: Path) -> None:
    blocks = {"2024-03-28": (panel_of(clicks_NT, (0, 50, 0)), [CUTOFF])}
    made = pd.DataFrame(
        {"cutoff": str(CUTOFF), "peer": "P", "task": [task.name for task in SPEC.tasks], "series": 0, "median": 1.0}
    )
    made.to_parquet(tmp_path / "forecasts.parquet")
    with pytest.raises(ValueError, match=r"2024-03-21: P has no forecast of 1 of 2 series"):
        judged_peers(blocks, tmp_path)
