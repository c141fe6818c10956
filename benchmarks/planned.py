"""Is the effect of planned budgets found, and what does it bring? Made-up series whose response to a plan is known.

    python -m benchmarks.planned [--seeds 3]

`benchmarks.recovery` puts its section into docs/recovery.md. Each series has a budget for each week, announced ten days
ahead; three weeks in ten it is not the usual one, and a fifth of the announcements are changed late, from three days
before the week to two days into it. A day's clicks answer to its own budget, in each kind of scenario in another
measure. The oracle knows the process, its state, the measures, and of the budgets what was announced by the cutoff.

N series, W weeks, T days, C plans.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.results import train
from m2m_model.arrays import Floats
from m2m_model.config import ACTIVE, KnownFuture, Task
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.targets import targets_Nm
from m2m_model.rivals import boosted

SCENARIOS = ("feed_a", "feed_b", "search_a", "search_b", "display_a", "display_b")
EFFECTS = {"feed": 0.9, "search": 0.6, "display": 0.3}  # of the log of a budget, on the log of the week's clicks
ADVERTISERS, WEEKS, LAST_DAY = 250, 26, date(2024, 6, 30)
AHEAD_DAYS, HORIZON = 10, 7
CHANGED, LATE = 0.3, 0.2  # shares: weeks with another budget; announcements that are changed late
CLICK_PRICE, CUTOFFS, WINDOWS = 0.4, 3, 100_000
SPEC = SequenceSpec(
    metrics=("clicks", "spend"),
    behaviors=(),
    advertiser_attributes=(),
    scenario_attributes=(),
    tasks=(Task("clicks", "clicks", "sum"), Task("active_days", ACTIVE, "days")),
    horizons_days=(HORIZON,),
    window_days=56,
    known_future=(KnownFuture("planned_budget", "money", of="spend"),),
)


def world(seed: int) -> tuple[Panel, Floats]:
    """The panel, and what the oracle forecasts of each series' clicks of each week as of the evening before it."""
    random = np.random.default_rng(seed)
    scenario_N = np.tile(np.arange(len(SCENARIOS)), ADVERTISERS)
    effect_N1 = np.array([EFFECTS[name.split("_")[0]] for name in SCENARIOS])[scenario_N, None]
    shape = len(scenario_N), WEEKS
    size_N1 = np.exp(random.normal(2.5, 1.0, (len(scenario_N), 1)))

    def changes_NW() -> Floats:
        return np.where(random.random(shape) < CHANGED, random.normal(0, 0.7, shape), 0.0)

    final_NW, other_NW = changes_NW(), changes_NW()
    late_NW = random.random(shape) < LATE
    first_NW = np.where(late_NW, other_NW, final_NW)
    settled_NW = np.where(late_NW, random.integers(-3, 3, shape), -AHEAD_DAYS)  # day of the week on which it is final
    log_NW = np.zeros(shape)
    for week in range(1, WEEKS):
        log_NW[:, week] = 0.8 * log_NW[:, week - 1] + random.normal(0, 0.15, len(scenario_N))
    days = 7 * WEEKS
    day_T = np.arange(days)

    def known_NT(ahead: int) -> Floats:
        """The log of the budget of each day so many days later, as known at the end of each day."""
        week_T = np.minimum((day_T + ahead) // 7, WEEKS - 1)
        is_final_NT = settled_NW[:, week_T] <= day_T - 7 * week_T
        return np.where(is_final_NT, final_NW[:, week_T], first_NW[:, week_T])

    # What was known the evening before is what a day is run with.
    budget_NT = np.pad(known_NT(1)[:, :-1], ((0, 0), (1, 0)))
    rate_NT = size_N1 * np.exp(np.repeat(np.clip(log_NW, -3, 3), 7, axis=1) + effect_N1 * budget_NT) / 7
    clicks_NT = random.poisson(rate_NT).astype(np.float32)
    performance_NTP = np.stack([clicks_NT, clicks_NT * CLICK_PRICE], 2)
    performance_NTP[clicks_NT == 0] = np.nan

    planned_NT = sum(np.exp(known_NT(ahead)) for ahead in range(1, HORIZON + 1)) * size_N1 * CLICK_PRICE / 7
    as_known_NW = np.where(settled_NW < 0, final_NW, first_NW)
    before_NW = np.pad(0.8 * log_NW[:, :-1], ((0, 0), (1, 0)))
    oracle_NW = size_N1 * np.exp(np.clip(before_NW, -3, 3) + effect_N1 * as_known_NW)

    names = [SCENARIOS[k] for k in scenario_N]
    keys = pa.table({"advertiser_id": [f"a{n // len(SCENARIOS):04d}" for n in range(len(names))], "scenario_id": names})
    registered_N, no_behavior = np.zeros(len(names), np.int32), np.zeros((*clicks_NT.shape, 0))
    blocks = performance_NTP, no_behavior, registered_N, keys, planned_NT[:, :, None]
    return Panel.of_values(SPEC, LAST_DAY, *blocks), oracle_NW


def without_plans(panel: Panel) -> Panel:
    return replace(panel, spec=replace(panel.spec, known_future=()), future_XC=panel.future_XC[:, :0])


def lines(seeds: int) -> list[str]:
    """The section of the page."""
    errors: dict[str, list[float]] = {}
    for seed in range(1, seeds + 1):
        panel, oracle_NW = world(seed)
        cutoffs = [panel.last_day - timedelta(days=7 * (1 + k)) for k in range(CUTOFFS)]
        days = [panel.index_of(cutoff) for cutoff in cutoffs]
        judged = [np.flatnonzero(eligible(panel, day)) for day in days]
        said: dict[str, list[Floats]] = {
            "the oracle": [oracle_NW[series, (day + 1) // 7] for day, series in zip(days, judged, strict=True)],
            "last week": [
                targets_Nm(panel, day - HORIZON, series)[:, 0] for day, series in zip(days, judged, strict=True)
            ],
        }
        for seen, plans in ((panel, "with plans"), (without_plans(panel), "without")):
            with tempfile.TemporaryDirectory() as folder:
                settings = {"seed": seed, "boosted": False, "blend": False, "max_windows": WINDOWS}
                forecaster, _ = train(seen, cutoffs[-1], Path(folder), {}, settings)
            said[f"m2m, {plans}"] = [forecaster.predict(seen, c).distribution.point_NM[:, 0] for c in cutoffs]
            trees = boosted.refit([seen], forecaster.inputs, cutoffs[-1], {})["lightgbm_l1"]
            said[f"LightGBM L1, {plans}"] = [
                trees(seen, day, series)[:, 0] for day, series in zip(days, judged, strict=True)
            ]
        actual = [targets_Nm(panel, day, series)[:, 0] for day, series in zip(days, judged, strict=True)]
        for name, points in said.items():
            off = sum(np.abs(y_N - f_N).sum() for y_N, f_N in zip(actual, points, strict=True))
            errors.setdefault(name, []).append(off / sum(y_N.sum() for y_N in actual))
            print(f"seed {seed}, {name}: NMAE {errors[name][-1]:.4f}", flush=True)
    made = [
        "## Planned budgets",
        "",
        f"Clicks of the next week, {CUTOFFS} cutoffs. {CHANGED:.0%} of the weeks have another budget, announced ahead; "
        f"{LATE:.0%} of the announcements are changed late. The oracle knows the process and what was announced. "
        "Closed: how much of the way from the same model without plans to the oracle.",
        "",
        "| forecaster | NMAE, mean | seeds | closed |",
        "| --- | ---: | --- | ---: |",
    ]
    best = np.mean(errors["the oracle"])
    for name, of_seeds in sorted(errors.items(), key=lambda item: -float(np.mean(item[1]))):
        error, blind = np.mean(of_seeds), np.mean(errors.get(name.replace("with plans", "without"), of_seeds))
        closed = f"{(blind - error) / (blind - best):.0%}" if "with plans" in name else ""
        made.append(f"| {name} | {error:.4f} | {', '.join(f'{e:.4f}' for e in of_seeds)} | {closed} |")
    return [*made, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    print("\n".join(lines(parser.parse_args().seeds)))


if __name__ == "__main__":
    main()
