"""How often the gate errs: A/A, and challengers that are planted worse or better. Writes docs/gate.md.

    python -m benchmarks.gate [--decisions 200]

Two networks of online_retail that differ by their seed alone are judged on four held-out cutoffs. A world is a draw of
its advertisers with replacement, each as a new one; in every world the gate decides by its rules, as `promote` does,
from absolute errors by series and task. A planted challenger has those of the second seed, times a factor.

Which cells a baseline serves is decided in the same worlds, where the first seed stands for the best baseline: it is
as good as the model, which no baseline at hand is, and so the hardest case.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import machine
from benchmarks.results import DATA, block_of, sequences, table, train
from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.forecasts import forecast_baseline
from m2m_model.judging.paired import replicate_sums
from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.config import Gate
from pipelines.life.cells import CELL
from pipelines.life.fallback import serving
from pipelines.life.gate import FAILED, decide
from pipelines.life.pairs import ACTUAL, compared, replicate_rows

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "same_weekdays"
WINDOWS = 100_000
DAY = date(2024, 1, 1)  # any
_NO_CELLS = pl.DataFrame(schema=dict.fromkeys(CELL, pl.String)).with_columns(horizon_days=pl.lit(0, pl.Int32))
NOTHING_FELL = _NO_CELLS.with_columns(since=pl.lit(DAY))
NO_DRIFT = _NO_CELLS.with_columns(doubt=pl.lit(""))


def everywhere(factor: float) -> Callable[[Floats, Panel], Floats]:
    return lambda error_NM, panel: error_NM * factor


def in_one(scenario: str, task: int, factor: float) -> Callable[[Floats, Panel], Floats]:
    def plant(error_NM: Floats, panel: Panel) -> Floats:
        planted = error_NM.copy()
        planted[panel.scenario_N == scenario, task] *= factor
        return planted

    return plant


CASES: dict[str, tuple[Callable[[Floats, Panel], Floats], str]] = {
    "A/A: the same network, another seed": (everywhere(1.0), "promoted"),
    "2 % worse everywhere": (everywhere(1.02), "either"),
    "5 % worse everywhere": (everywhere(1.05), "refused"),
    "10 % worse everywhere": (everywhere(1.10), "refused"),
    "30 % worse in Germany's orders": (in_one("Germany", 1, 1.3), "refused"),
    "30 % worse in UK's orders": (in_one("UK", 1, 1.3), "refused"),
    "5 % better everywhere": (everywhere(0.95), "promoted"),
}


# Of the model beside a baseline that is as good: what is planted, and of which cell; None: of all.
BESIDE_BASELINE: dict[str, tuple[Callable[[Floats, Panel], Floats], tuple[str, str] | None]] = {
    "as good as the baseline": (everywhere(1.0), None),
    "5 % worse everywhere": (everywhere(1.05), None),
    "10 % worse everywhere": (everywhere(1.10), None),
    "30 % worse in UK's orders": (in_one("UK", 1, 1.3), ("UK", "orders")),
    "5 % better everywhere": (everywhere(0.95), None),
}


def errors_of(panel: Panel, cutoffs: list, forecast: Callable) -> Floats:  # type: ignore[type-arg]
    """(N, M): absolute errors, added up over cutoffs."""
    total_NM = np.zeros((len(panel), len(panel.spec.targets)))
    for cutoff in cutoffs:
        made = forecast(cutoff)
        actual_NM = targets_Nm(panel, panel.index_of(cutoff), made.series_N)
        total_NM[made.series_N] += np.abs(actual_NM - made.distribution.point_NM)
    return total_NM


def world(rng: np.random.Generator, advertiser_N: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Series of advertisers drawn with replacement, and the names that they have there."""
    names, of_N = np.unique(advertiser_N.astype(str), return_inverse=True)
    order = np.argsort(of_N, kind="stable")
    starts = np.searchsorted(of_N[order], np.arange(len(names) + 1))
    drawn = rng.integers(0, len(names), len(names))
    rows = [order[starts[a] : starts[a + 1]] for a in drawn]
    new = np.repeat([f"{number}-{place}" for place in range(len(drawn))], [len(part) for part in rows])
    return np.concatenate(rows), new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=200)
    decisions, started = parser.parse_args().decisions, time.monotonic()
    data = DATA["online_retail"]
    with tempfile.TemporaryDirectory() as home:
        rows, config = sequences(data, Path(home))
        panel, cutoffs = block_of(data, rows, config, 0)
        made = [
            train(
                panel, cutoffs[-1], Path(home) / str(seed), {}, {"seed": seed, "boosted": False, "max_windows": WINDOWS}
            )[0]
            for seed in (1, 2)
        ]
    champion_NM, own_NM = (errors_of(panel, cutoffs, lambda c, f=f: f.predict(panel, c)) for f in made)
    simple_NM = errors_of(panel, cutoffs, lambda c: forecast_baseline(BASELINE, panel, c))
    actual_NM, judged_N = np.zeros_like(own_NM), np.zeros(len(panel), np.int64)
    for cutoff in cutoffs:
        seen = eligible(panel, panel.index_of(cutoff))
        actual_NM[seen] += targets_Nm(panel, panel.index_of(cutoff))[seen]
        judged_N += seen
    found, served, rng = [], list[pl.DataFrame](), np.random.default_rng(1)
    for number in range(decisions):
        series, names = world(rng, panel.advertiser_N, number)
        scenario = panel.scenario_N[series].astype(str)
        counted = (
            pl.DataFrame({"scenario_id": scenario, "n": judged_N[series]}).group_by("scenario_id").agg(pl.sum("n"))
        )
        tasks = pl.DataFrame(
            {"task": [t.name for t in panel.spec.targets], "horizon_days": 7},
            {"task": pl.String, "horizon_days": pl.Int32},
        )
        counted = counted.join(tasks, how="cross")

        def sums_of(sides: dict[str, Floats], series: Ints = series, names: Strings = names) -> pl.DataFrame:
            stacked = np.concatenate([side[series] for side in sides.values()], 1)
            scenario = panel.scenario_N[series].astype(str)
            return replicate_rows(list(sides), *replicate_sums(stacked, names, scenario), panel.spec.targets)

        for case, (plant, wanted) in CASES.items():
            sides = {CHALLENGER: plant(own_NM, panel), CHAMPION: champion_NM, BASELINE: simple_NM, ACTUAL: actual_NM}
            pairs = compared(sums_of(sides), counted, panel.spec, [CHAMPION, BASELINE])
            decision = decide(pairs, Gate())
            plain = pairs.filter(task="*")
            before = bool((plain["nmae"] <= plain["other_nmae"]).all())
            cells = decision.cells.filter(pl.col("task") != "*", other=CHAMPION)
            found.append((case, wanted, decision.promoted, before, int((cells["verdict"] == FAILED).sum()), len(cells)))
        for case, (plant, place) in BESIDE_BASELINE.items():
            sides = {CHALLENGER: plant(own_NM, panel), BASELINE: champion_NM, ACTUAL: actual_NM}
            pairs = compared(sums_of(sides), counted, panel.spec, [BASELINE])
            of = serving(pairs, CHALLENGER, Gate(), NOTHING_FELL, DAY, NO_DRIFT)
            after = serving(pairs, CHALLENGER, Gate(), of.with_columns(since=pl.lit(DAY)), DAY, NO_DRIFT)
            here = () if place is None else (pl.col("scenario_id") == place[0], pl.col("task") == place[1])
            meant = pl.all_horizontal(pl.lit(True), *here)
            served.append(
                of.select(meant.alias("meant"), fell=pl.col("falls_back"), stays=after["falls_back"], case=pl.lit(case))
            )
        if number % 20 == 19:
            print(f"{number + 1} worlds, {time.monotonic() - started:.0f} s", flush=True)
    rows = pl.DataFrame(found, ["case", "right", "promoted", "by_points", "failed", "cells"], orient="row")
    shown = rows.group_by("case", "right", maintain_order=True).agg(
        pl.mean("promoted"), pl.mean("by_points"), failed=pl.sum("failed") / pl.sum("cells")
    )
    shown = shown.select(
        pl.col("case").alias("challenger"),
        "right",
        pl.format("{} %", (100 * pl.col("promoted")).round(1)).alias("promoted"),
        pl.format("{} %", (100 * pl.col("by_points")).round(1)).alias("promoted by points alone"),
        pl.format("{} %", (100 * pl.col("failed")).round(1)).alias("cells that failed"),
    )
    meant, fell = pl.col("meant"), pl.col("fell")
    cells = (
        pl.concat(served)
        .group_by("case", maintain_order=True)
        .agg(
            fell.filter(meant).mean().alias("fall back"),
            fell.filter(~meant).mean().alias("of the others"),
            (~pl.col("stays")).filter(meant).mean().alias("come back"),
        )
    )
    percent = [pl.format("{} %", (100 * pl.col(name)).round(1)).alias(name) for name in cells.columns[1:]]
    cells = cells.select(pl.col("case").alias("model"), *percent).fill_null("-")
    lines = [
        "# How often the gate errs",
        "",
        f"Made by `make bench-gate` on: {machine()}; {(time.monotonic() - started) / 60:.0f} minutes; online_retail, "
        f"four cutoffs, {len(panel):,} series, {decisions} worlds of advertisers drawn with replacement, default rules "
        f"(`[gate]`), {WINDOWS:,} windows a training.",
        "",
        " ".join((__doc__ or "").split("\n\n")[2].split()),
        "",
        "*By points alone* is the rule of before: the mean error is at most the champion's and the best baseline's, "
        "whatever chance there is in it. *Cells* are scenarios' and all scenarios' tasks beside the champion's.",
        "",
        *table(shown),
        "## Cells that a baseline serves",
        "",
        " ".join((__doc__ or "").split("\n\n")[3].split()),
        "",
        "*Fall back*: of the cells where it was planted, those that one backtest gives to the baseline. *Come back*: "
        "of such cells that had fallen before, those that one backtest gives back to the model.",
        "",
        *table(cells),
        "",
    ]
    (ROOT / "docs" / "gate.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
