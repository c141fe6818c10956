"""Are intervals of totals right? Totals of advertisers, scenarios, attributes and the platform against what happened.

    python -m benchmarks.totals [--seeds 1]

Three ways to join the same series: as validation saw them go wrong together (what is published), each on its own, and
all together, which adds up quantiles. On online_retail, by M2M at its eight held-out cutoffs, and by a baseline walking
forward week by week, each time calibrated on the four cutoffs before: those need no training, so there are many. In a
made-up world series share nothing. Writes docs/totals.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.measure import machine
from benchmarks.recovery import world
from benchmarks.results import CUTOFFS_A_BLOCK, DATA, sequences, table, train
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.calibration import Dependence, Shared
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline
from m2m_model.levels import QUANTILES
from m2m_model.totals.sampler import Sampler
from m2m_model.totals.sums import GROUP, add_up, added, finish
from m2m_model.training.calendar import train_end
from m2m_model.training.serving import calibrate_baselines

ROOT = Path(__file__).resolve().parents[1]
JOINED, APART, TOGETHER = "as seen together", "each on its own", "quantiles added up"
BASELINES = ("mean_28", "last_h_days")
FIRST_WEEK = 12  # of the walk: histories before are too short for four cutoffs


def totals(forecasts: Forecasts, panel: Panel, shared: Dependence, known: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    advertisers, sums = add_up(forecasts, panel, Sampler(shared), known)
    found = pl.from_arrow(pa.concat_tables([advertisers, finish(added([sums]), panel.spec)]))
    assert isinstance(found, pl.DataFrame)
    # An advertiser in one scenario has that series' own interval: nothing is joined.
    return found.filter((pl.col("level") != "advertiser") | (pl.col("series") > 1))


def judged(forecasts: Forecasts, panel: Panel, shared: Dependence) -> pl.DataFrame:
    """Each total as each way joins it, with what happened."""
    targets = len(panel.spec.targets)
    ways = {
        JOINED: shared,
        APART: Dependence((Shared(0.0, 0.0, {}, 0.0, 10**6),) * targets),
        TOGETHER: Dependence((Shared(1.0, 0.0, {}, 0.0, 10**6),) * targets),
    }
    names = (*panel.spec.advertiser_attributes, *panel.spec.scenario_attributes)
    known = {name: pc.unique(panel.keys[name].drop_null()).to_pylist() for name in names}
    happened_NM = targets_Nm(panel, panel.index_of(forecasts.cutoff), forecasts.series_N)
    happened = totals(replace(forecasts, distribution=Distribution.point(happened_NM)), panel, shared, known)
    actual = happened.select(*GROUP, actual="mean")
    found = [totals(forecasts, panel, way, known).with_columns(way=pl.lit(name)) for name, way in ways.items()]
    return pl.concat(found).join(actual, on=GROUP, nulls_equal=True)


def figures(found: pl.DataFrame) -> pl.DataFrame:
    """Per level and way: share of totals in both intervals, their width and pinball loss over what happened."""
    quantiles = ("p05", "p25", "median", "p75", "p95")
    gaps = [(pl.col("actual") - pl.col(name), level) for name, level in zip(quantiles, QUANTILES, strict=True)]
    pinball = pl.mean_horizontal(pl.max_horizontal(level * gap, (level - 1) * gap) for gap, level in gaps)
    level = pl.when(pl.col("level") == "attribute").then(pl.col("name")).otherwise(pl.col("level")).alias("of")
    each = found.group_by(level, "way", "task").agg(
        totals=pl.len(),
        inside_50=pl.col("actual").is_between(pl.col("p25"), pl.col("p75")).mean(),
        inside_90=pl.col("actual").is_between(pl.col("p05"), pl.col("p95")).mean(),
        width_90=(pl.col("p95") - pl.col("p05")).sum() / pl.sum("actual"),
        pinball=pinball.sum() / pl.sum("actual"),
    )
    return each.group_by("of", "way").agg(pl.sum("totals"), pl.exclude("totals", "task").mean()).sort("of", "way")


def walk(panel: Panel, folder: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Baselines week by week, calibrated on the four cutoffs before."""
    horizon, shard = panel.spec.horizon_days, [panel.save(folder / "shard")]
    inputs = fit_inputs(PanelStatistics.of(panel, train_end(panel.first_day, panel.last_day, [horizon], 4)))
    for cutoff in range(panel.days - 1 - horizon, 7 * FIRST_WEEK, -7):
        as_of = panel.day_of(cutoff)
        calibrations, shared, _ = calibrate_baselines(shard, inputs, as_of)
        for name in BASELINES:
            yield name, judged(forecast_baseline(name, panel, as_of, calibrations), panel, shared[name])


def by_m2m(rows: pa.Table, block: int, seed: int, panel: Panel, folder: Path) -> Iterator[pl.DataFrame]:
    """The trained model at the held-out cutoffs of a block."""
    as_of, every = DATA["online_retail"].blocks[block]
    known = Panel.from_sequences(rows, panel.spec, as_of, (as_of - panel.first_day).days + 1)
    latest = as_of - timedelta(days=panel.spec.horizon_days)
    cutoffs = [latest - timedelta(days=every * k) for k in range(CUTOFFS_A_BLOCK)]
    forecaster, _ = train(known, cutoffs[-1], folder, {}, {"seed": seed, "boosted": False})
    for cutoff in cutoffs:
        yield judged(forecaster.predict(known, cutoff), known, forecaster.shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="trainings a block")
    arguments = parser.parse_args()
    chapters: dict[str, pl.DataFrame] = {}
    with tempfile.TemporaryDirectory() as home:
        data, folder = DATA["online_retail"], Path(home)
        rows, config = sequences(data, folder)
        days = (data.last_day - config.dataset.first_day).days + 1
        panel = Panel.from_sequences(rows, config.sequence_spec, data.last_day, days)
        trainings = [(block, seed) for block in range(len(data.blocks)) for seed in range(1, arguments.seeds + 1)]
        found = [part for block, seed in trainings for part in by_m2m(rows, block, seed, panel, folder)]
        chapters[f"online_retail: M2M, {len(found)} cutoffs"] = figures(pl.concat(found))
        made_up = ("made-up data, nothing shared", world(alike=False, seed=1))
        for title, walked in (("online_retail", panel), made_up):
            by_name = list(walk(walked, folder / title))
            for name in BASELINES:
                found = [part for who, part in by_name if who == name]
                chapters[f"{title}: {name}, {len(found)} cutoffs one after the other"] = figures(pl.concat(found))
    write(chapters)


def write(chapters: Mapping[str, pl.DataFrame]) -> None:
    """docs/totals.md."""
    lines = ["# Totals", "", *str(__doc__).split("\n\n")[2].splitlines(), ""]
    lines += ["An honest interval holds 0.5 and 0.9 of the totals. Width and pinball loss are over what happened, all"]
    lines += ["tasks alike; `advertiser` are those in several scenarios. Made by `make totals`,", f"{machine()}.", ""]
    for title, found in chapters.items():
        lines += [f"## {title}", "", *table(found), ""]
    (ROOT / "docs" / "totals.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
