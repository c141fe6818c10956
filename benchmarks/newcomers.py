"""How much of what can be known of a newcomer is known? Made-up advertisers whose true rates are known.

    python -m benchmarks.newcomers [--seeds 3] [--futures 40]

The simulated advertisers of examples/simulated. Series under COLD_START_DAYS are forecast by the rule (what is
published of them without a champion), by the model as it serves them, and by an oracle that knows all that drives
each of them: it lets the same world go on from the cutoff in many other ways, and takes median and mean of these.
Writes docs/newcomers.md. Figures from made-up data.

N series, T days, M tasks, K futures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.measure import machine
from benchmarks.results import figures, table, train
from m2m_model.arrays import Floats, Ints
from m2m_model.data.panel import DayRows, Panel, days_of
from m2m_model.data.served_by import COLD_START, served_by
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline
from m2m_model.forecasts.metrics import cell_sums
from pipelines.config import load_config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "simulated"))
import simulation  # noqa: E402
from simulation import BEHAVIORS, INDUSTRIES, PERFORMANCE, TIERS, Block, Rows, Simulation  # noqa: E402

WORLD = Simulation(advertisers=simulation.BLOCK, days=126, seed=7)
CUTOFFS = 4  # a week apart, the newest a horizon before the last day


def panel_of(block: Block, spec: SequenceSpec) -> Panel:
    """The block as the stages would build it: the series with a row, and when their advertisers registered."""
    last_day = WORLD.first_day + timedelta(days=WORLD.days - 1)
    scenarios = [scenario.name for scenario in WORLD.scenarios]

    def joined(days: list[Rows]) -> Rows:
        rows = simulation.joined(days)
        return rows | {"day": np.repeat(np.arange(len(days)), [len(day["advertiser"]) for day in days])}

    achieved, acted = joined(block.performance), joined(block.behavior)
    code_R = achieved["advertiser"].astype(np.int64) * len(scenarios) + achieved["scenario"]
    code_N, series_R = np.unique(code_R, return_inverse=True)
    owner_N, scenario_N = np.divmod(code_N, len(scenarios))
    profile = block.profiles
    registered_N = days_of(WORLD.first_day) + profile["registered"][owner_N]
    placement, form = ([getattr(scenario, name) for scenario in WORLD.scenarios] for name in ("placement", "format"))
    keys = pa.table(
        {
            "advertiser_id": [f"a{owner:05d}" for owner in owner_N],
            "scenario_id": [scenarios[s] for s in scenario_N],
            "registered_on": pa.array(registered_N.astype(np.int32), pa.date32()),
            "industry": [INDUSTRIES[code] for code in profile["industry"][owner_N]],
            "tier": [TIERS[code] for code in profile["tier"][owner_N]],
            "placement": [placement[s] for s in scenario_N],
            "format": [form[s] for s in scenario_N],
        }
    )
    # What is done in no scenario is done in all of the advertiser's.
    acts = pl.DataFrame({name: acted[name] for name in ("advertiser", "scenario", "day", *BEHAVIORS)})
    series = pl.DataFrame({"series": np.arange(len(code_N)), "advertiser": owner_N, "own": scenario_N})
    acts = acts.with_columns(pl.col("advertiser", "scenario").cast(pl.Int64)).join(series, on="advertiser")
    acts = acts.filter((pl.col("scenario") == pl.col("own")) | (pl.col("scenario") == -1))
    acts = acts.group_by("series", "day").agg(pl.col(BEHAVIORS).sum().cast(pl.Float64)).sort("series", "day")
    return Panel.of_rows(
        spec,
        last_day,
        WORLD.days,
        keys,
        DayRows(series_R, achieved["day"], [achieved[name].astype(np.float64) for name in PERFORMANCE]),
        DayRows(acts["series"].to_numpy(), acts["day"].to_numpy(), [acts[name].to_numpy() for name in BEHAVIORS]),
    )


def oracle(panel: Panel, cutoff: date, series: Ints, futures: int) -> Distribution:
    """Median and mean of what each series does in ``futures`` other ways that the world could go on in."""
    spec, day, total_KNM = panel.spec, panel.index_of(cutoff), list[Floats]()
    names = {name: number for number, name in enumerate(scenario.name for scenario in WORLD.scenarios)}
    owner_N = np.array([int(name[1:]) for name in panel.advertiser_N[series]])
    scenario_N = np.array([names[name] for name in panel.scenario_N[series]])
    for future in range(futures):
        block = simulation.simulate_block(WORLD, 0, (day + 1, future))
        rows = simulation.joined(block.performance[day + 1 : day + 1 + spec.horizon_days])
        code_R = rows["advertiser"].astype(np.int64) * len(names) + rows["scenario"]
        active_R = np.any([rows[name] > 0 for name in PERFORMANCE], 0)
        values = [active_R if task.aggregate == "days" else rows[task.metric] for task in spec.tasks]
        totals = [np.bincount(code_R, value, WORLD.advertisers * len(names)) for value in values]
        total_KNM.append(np.stack([total[owner_N * len(names) + scenario_N] for total in totals], 1))
    every_KNM = np.stack(total_KNM)
    known = Distribution.point(np.median(every_KNM, 0))
    return replace(known, mean_NM=every_KNM.mean(0), p_zero_NM=(every_KNM == 0).mean(0))


def judged(forecasts: Forecasts, panel: Panel, name: str) -> pa.Table:
    """Error sums of the young series."""
    day = panel.index_of(forecasts.cutoff)
    young = forecasts[served_by(panel, day)[forecasts.series_N] == COLD_START]
    actual_NM = targets_Nm(panel, day, young.series_N)
    return cell_sums(young.distribution, actual_NM, young.scenario_N, panel.spec.targets, forecasts.cutoff, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--futures", type=int, default=40)
    arguments = parser.parse_args()
    started, parts = time.monotonic(), []
    config = load_config(ROOT / "examples" / "simulated" / "pipeline.toml")
    panel = panel_of(simulation.simulate_block(WORLD, 0), config.sequence_spec)
    latest = panel.last_day - timedelta(days=panel.spec.horizon_days)
    cutoffs = [latest - timedelta(days=7 * k) for k in range(CUTOFFS)]
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            forecaster, seconds = train(panel, cutoffs[-1], Path(folder), {}, {"seed": seed, "boosted": False})
        print(f"seed {seed}: {seconds:.0f} s", flush=True)
        parts += [judged(forecaster.predict(panel, cutoff), panel, f"m2m, seed {seed}") for cutoff in cutoffs]
    for cutoff in cutoffs:
        rule = forecast_baseline("last_h_days", panel, cutoff, forecaster.calibrations)
        young = rule[served_by(panel, panel.index_of(cutoff))[rule.series_N] == COLD_START]
        known = oracle(panel, cutoff, young.series_N, arguments.futures)
        parts += [judged(rule, panel, "the rule"), judged(replace(young, distribution=known), panel, "oracle")]
        print(f"oracle as of {cutoff}: {len(young.series_N)} series", flush=True)
    found = figures(pa.concat_tables(parts), ("task", "forecaster"))
    ends = {
        name: dict(found.filter(forecaster=name).select("task", "nmae").iter_rows()) for name in ("the rule", "oracle")
    }
    rule_X, best_X = (found["task"].replace_strict(ends[name]) for name in ("the rule", "oracle"))
    found = found.with_columns(way=(rule_X - pl.col("nmae")) / (rule_X - best_X))
    columns = ("n", "zeros", "zero_points", "p_zero", "nmae", "way", "bias", "mean_bias")
    shown = found.select("task", "forecaster", *columns)
    lines = [
        "# Newcomers whose true rates are known",
        "",
        f"Made by `python -m benchmarks.newcomers` on: {machine()}; {(time.monotonic() - started) / 60:.0f} minutes.",
        "",
        __doc__.split("\n\n")[2].replace("\n", " "),
        "",
        f"{WORLD.advertisers:,} advertisers, {len(panel):,} series, {WORLD.days} days, {CUTOFFS} held-out cutoffs, "
        f"{arguments.futures} futures of each. `way` is the share of the distance between rule and oracle that is "
        "covered; `bias` is that of the point, `mean_bias` that of the mean.",
        "",
        *table(shown),
    ]
    (ROOT / "docs" / "newcomers.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
