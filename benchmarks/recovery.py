"""Does the meta part find what is there? Made-up scenarios whose responses are known.

    python -m benchmarks.recovery [--seeds 3]

Six scenarios, two each of three kinds. What a budget raise, a bid cut and last week's rise do to the next week differs
between kinds, in sign too; within a kind it is the same. In a second world all six respond alike. M2M must beat the
shared bottom in the first, must lose nothing in the second, and its generated weights must say which scenarios are
alike. Writes docs/recovery.md. Figures from made-up data: they say that the mechanism works, not how accurate it is on
real data.

N series, W weeks, T days, S scenarios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks import planned
from benchmarks.measure import machine
from benchmarks.results import judged, train
from m2m_model.arrays import Floats, Rows
from m2m_model.config import ACTIVE, Task
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.metrics import finish, mean_over_tasks
from m2m_model.network.model import M2M
from m2m_model.network.windows import Days, Windows

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = ("feed_a", "feed_b", "search_a", "search_b", "display_a", "display_b")  # twins stand side by side
# Of the log of the weekly level: to a budget raise, to a bid cut, to last week's rise.
RESPONSES = {"feed": (0.8, 0.0, 0.5), "search": (-0.6, 0.7, -0.5), "display": (0.0, -0.8, 0.0)}
ADVERTISERS, WEEKS, LAST_DAY = 250, 26, date(2024, 6, 30)
ARCHITECTURES = ("m2m", "mmoe", "shared_bottom")
CUTOFFS = 3
SPEC = SequenceSpec(
    metrics=("clicks", "spend"),
    behaviors=("budget_raise", "bid_cut"),
    advertiser_attributes=(),
    scenario_attributes=(),
    tasks=(Task("clicks", "clicks", "sum"), Task("active_days", ACTIVE, "days")),
    horizons_days=(7,),
    window_days=56,
)


@dataclass(frozen=True)
class World:
    """N series over W weeks: clicks of each day, events at the end of each week, the rates behind them, and what was to
    be expected of each week the evening before."""

    clicks_NT: Floats
    event_NWF: Floats  # budget raises, bid cuts: 1 where there is one
    rate_NW: Floats
    expected_NW: Floats


def simulated(response_N3: Floats, seed: int) -> World:
    """Each series starts at its own size; its log level moves by its response to the week before, reverts slowly and is
    shaken; days are Poisson."""
    random, series = np.random.default_rng(seed), len(response_N3)
    raise_N, cut_N, momentum_N = response_N3.T
    size_N1 = np.exp(random.normal(2.5, 1.0, series))[:, None]
    raised_NW, cut_NW = (random.random((series, WEEKS)) < 0.2 for _ in range(2))
    log_NW, expected_NW = np.zeros((series, WEEKS)), np.zeros((series, WEEKS))
    for week in range(2, WEEKS):
        before_N, rise_N = log_NW[:, week - 1], log_NW[:, week - 1] - log_NW[:, week - 2]
        answer_N = raise_N * raised_NW[:, week - 1] + cut_N * cut_NW[:, week - 1]
        expected_NW[:, week] = 0.8 * before_N + momentum_N * rise_N + answer_N
        log_NW[:, week] = expected_NW[:, week] + random.normal(0, 0.15, series)
    rate_NW, expected_NW = (size_N1 * np.exp(np.clip(level_NW, -3, 3)) for level_NW in (log_NW, expected_NW))
    clicks_NT = random.poisson(np.repeat(rate_NW / 7, 7, axis=1)).astype(np.float32)
    return World(clicks_NT, np.stack([raised_NW, cut_NW], 2).astype(np.float32), rate_NW, expected_NW)


def panel_of(world: World, spec: SequenceSpec, keys: pa.Table, rows: Rows = slice(None)) -> Panel:
    """Some of the series as a panel. Plans, where the spec has them, tell of the events of the last seven days."""
    clicks_NT, event_NWF = world.clicks_NT[rows], world.event_NWF[rows]
    performance_NTP = np.stack([clicks_NT, clicks_NT * 0.4], 2)
    performance_NTP[clicks_NT == 0] = np.nan  # a day without activity has no row
    behavior_NTF = np.zeros((*clicks_NT.shape, 2), np.float32)
    # An event falls on the last day of its week: it explains the next week, and is not yet seen in this one's clicks.
    behavior_NTF[:, 6::7] = event_NWF
    told_NTF = np.pad(np.repeat(event_NWF, 7, axis=1)[:, :-6], ((0, 0), (6, 0), (0, 0))) if spec.plans else None
    registered_N = np.zeros(len(clicks_NT), np.int32)
    return Panel.of_values(spec, LAST_DAY, performance_NTP, behavior_NTF, registered_N, keys, told_NTF)


def world(alike: bool, seed: int) -> Panel:
    """Every advertiser in every scenario."""
    scenario_N = np.tile(np.arange(len(SCENARIOS)), ADVERTISERS)
    response_S3 = np.array([RESPONSES["feed" if alike else name.split("_")[0]] for name in SCENARIOS])
    names = [SCENARIOS[k] for k in scenario_N]
    advertisers = [f"a{n // len(SCENARIOS):04d}" for n in range(len(scenario_N))]
    keys = pa.table({"advertiser_id": advertisers, "scenario_id": names})
    return panel_of(simulated(response_S3[scenario_N], seed), SPEC, keys)


def generated_SX(forecaster: Forecaster, panel: Panel, cutoff: date) -> NDArray[np.float64]:
    """The weights that each scenario generates, mean over the same series in turn put into every scenario."""
    model, inputs = forecaster.model, forecaster.inputs
    assert isinstance(model, M2M)
    series_B = torch.arange(0, len(panel), len(SCENARIOS), device=forecaster.device)
    days = Days.of(panel, inputs.profile(panel), forecaster.device)
    runs = days.runs(series_B, torch.full_like(series_B, panel.index_of(cutoff)))
    batch = Windows(inputs, forecaster.device).of(runs)
    rows = []
    with torch.inference_mode():
        for name in SCENARIOS:
            code_B = torch.full_like(batch.scenario_B, 1 + inputs.scenarios.index(name))
            knowledge_BD = model.knowledge(replace(batch, scenario_B=code_B))
            layers = (model.meta_attention.first, *model.meta_tower.layers)
            rows.append(np.concatenate([layer.generator(knowledge_BD).mean(0).numpy() for layer in layers]))
    return np.stack(rows).astype(np.float64)


def apart_SS(weights_SX: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances between scenarios' weights, over their mean."""
    apart = np.linalg.norm(weights_SX[:, None] - weights_SX[None], axis=2)
    return np.asarray(apart / apart[~np.eye(len(apart), dtype=bool)].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    started, lines, distances = time.monotonic(), [], []
    for alike in (False, True):
        errors: dict[str, list[float]] = {name: [] for name in ARCHITECTURES}
        for seed in range(1, arguments.seeds + 1):
            panel = world(alike, seed)
            cutoffs = [panel.last_day - timedelta(days=7 * (1 + k)) for k in range(CUTOFFS)]
            for name in ARCHITECTURES:
                with tempfile.TemporaryDirectory() as folder:
                    settings = {"seed": seed, "boosted": False, "blend": False, "max_windows": 100_000}
                    model = {"architecture": name, "scenario_dropout": 0.0}
                    forecaster, seconds = train(panel, cutoffs[-1], Path(folder), model, settings)
                parts = [judged(forecaster.predict(panel, cutoff), panel, cutoff, name) for cutoff in cutoffs]
                found = mean_over_tasks(finish(pa.concat_tables(parts)))
                error = dict(zip(found["forecaster"].to_pylist(), found["nmae"].to_pylist(), strict=True))[name]
                errors[name].append(error)
                print(f"alike {alike}, seed {seed}, {name}: NMAE {error:.4f}, {seconds:.0f} s", flush=True)
                if name == "m2m" and not alike:
                    distances.append(apart_SS(generated_SX(forecaster, panel, cutoffs[0])))
        lines += [
            "## All six scenarios respond alike" if alike else "## Three kinds of scenarios",
            "",
            "| network | NMAE, mean | seeds | over the shared bottom, mean (range over seeds) |",
            "| --- | ---: | --- | ---: |",
        ]
        for name in ARCHITECTURES:
            ratio = np.array(errors[name]) / np.array(errors["shared_bottom"])
            lines.append(
                f"| {name} | {np.mean(errors[name]):.4f} | {', '.join(f'{e:.4f}' for e in errors[name])} "
                f"| {ratio.mean():.3f} ({ratio.min():.3f} .. {ratio.max():.3f}) |"
            )
        lines.append("")
    mean_SS = np.mean(distances, 0)
    nearest = [[int(np.argsort(apart[s])[1]) for s in range(len(SCENARIOS))] for apart in distances]
    right = sum(near == s ^ 1 for found in nearest for s, near in enumerate(found))
    lines += [
        "## Which scenarios are alike",
        "",
        "Distance between the generated weights (1 = the mean distance), mean over seeds. Each scenario's nearest is "
        f"its twin in **{right} of {len(SCENARIOS) * len(distances)}** cases (chance: one in {len(SCENARIOS) - 1}).",
        "",
        f"| | {' | '.join(SCENARIOS)} |",
        f"| --- |{' ---: |' * len(SCENARIOS)}",
        *(f"| {name} | {' | '.join(f'{d:.2f}' for d in mean_SS[s])} |" for s, name in enumerate(SCENARIOS)),
        "",
        *planned.lines(arguments.seeds),
    ]
    head = [
        "# Recovery: does the meta part find what is there?",
        "",
        f"Made by `make recovery` on: {machine()}; {(time.monotonic() - started) / 60:.0f} minutes. Made-up data "
        "(`benchmarks/recovery.py` says how): it shows that the mechanism works, not how accurate it is on real data. "
        f"{ADVERTISERS} advertisers in {len(SCENARIOS)} scenarios over {WEEKS} weeks; networks alone, {CUTOFFS} "
        "cutoffs.",
        "",
    ]
    (ROOT / "docs" / "recovery.md").write_text("\n".join([*head, *lines]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
