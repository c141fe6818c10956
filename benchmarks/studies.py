"""The paper's studies on real data: history length, width, depth of the meta unit, number of experts.

    python -m benchmarks.studies [--data online_retail] [--seeds 2]

One setting moves at a time, the others stay at the defaults but for the length of a training: a third of the windows,
so that all points take minutes. Each point is a training a seed, judged as the network alone (without the blend) at the
held-out cutoffs of benchmarks/results.py's newest block. Writes docs/studies.md and docs/images/studies.png. History is
studied with and without the window features, which see 56 days whatever the sequence's length.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa

from benchmarks.measure import machine
from benchmarks.results import CUTOFFS_A_BLOCK, DATA, judged, sequences, train
from m2m_model.data.panel import Panel
from m2m_model.forecasts.metrics import finish, mean_over_tasks

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = 100_000


@dataclass(frozen=True)
class Study:
    """One setting and its values; ``window_days`` is the data set's, the others are the model's."""

    title: str
    setting: str
    values: tuple[int, ...]
    also: Mapping[str, object]


STUDIES = (
    Study("History length (days), sequence alone", "window_days", (7, 14, 28, 56, 84), {"window_features": False}),
    Study("History length (days), with window features", "window_days", (7, 14, 28, 56, 84), {}),
    Study("Width", "width", (8, 16, 32, 64, 128), {}),
    Study("Depth of the meta unit", "meta_depth", (1, 2, 3), {}),
    Study("Experts", "experts", (1, 2, 4, 8), {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="online_retail", choices=list(DATA))
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    data, started = DATA[arguments.data], time.monotonic()
    as_of, every = data.blocks[0]
    known: dict[str, float] = {}  # a point that two studies share is trained once

    with tempfile.TemporaryDirectory() as home:
        rows, config = sequences(data, Path(home))
        spec, first_day = config.sequence_spec, config.dataset.first_day
        latest = as_of - timedelta(days=spec.horizon_days)
        cutoffs = [latest - timedelta(days=every * k) for k in range(CUTOFFS_A_BLOCK)]

        def error(study: Study, value: int, seed: int) -> float:
            """Mean NMAE over tasks, all cutoffs together."""
            days = value if study.setting == "window_days" else spec.window_days
            model = dict(study.also) | ({} if study.setting == "window_days" else {study.setting: value})
            defaults = {"width": 64, "meta_depth": 1, "experts": 4}
            key = f"{days} {sorted({**defaults, **model}.items())} {seed}"
            if key not in known:
                span = (as_of - first_day).days + 1
                panel = Panel.from_sequences(rows, replace(spec, window_days=days), as_of, span)
                settings = {"seed": seed, "boosted": False, "blend": False, "max_windows": WINDOWS}
                forecaster, seconds = train(panel, cutoffs[-1], Path(home), model, settings)
                parts = [judged(forecaster.predict(panel, cutoff), panel, cutoff, "m2m") for cutoff in cutoffs]
                mean = mean_over_tasks(finish(pa.concat_tables(parts)))
                known[key] = dict(zip(mean["forecaster"].to_pylist(), mean["nmae"].to_pylist(), strict=True))["m2m"]
                print(f"{study.title} {value}, seed {seed}: NMAE {known[key]:.4f}, {seconds:.0f} s", flush=True)
            return known[key]

        seeds = range(1, arguments.seeds + 1)
        found = {
            study.title: np.array([[error(study, value, seed) for value in study.values] for seed in seeds])
            for study in STUDIES
        }

    figure, axes = plt.subplots(1, len(STUDIES), figsize=(3.4 * len(STUDIES), 3.2), sharey=True, layout="constrained")
    for axis, study in zip(axes, STUDIES, strict=True):
        error_SV = found[study.title]
        at = np.arange(len(study.values))
        axis.plot(at, error_SV.mean(0), "o-", color="#1b6ca8")
        axis.fill_between(at, error_SV.min(0), error_SV.max(0), color="#1b6ca8", alpha=0.2)
        axis.set_xticks(at, [str(value) for value in study.values])
        axis.set_title(study.title, fontsize=9)
    axes[0].set_ylabel("NMAE, mean over tasks")
    figure.savefig(ROOT / "docs" / "images" / "studies.png", dpi=90)
    plt.close(figure)

    minutes = (time.monotonic() - started) / 60
    spread = "the band is the seeds' range. A difference smaller than the band is chance."
    if arguments.seeds == 1:
        spread = "with one seed there is no band, and nothing here says which differences are chance."
    lines = [
        "# Studies",
        "",
        f"Made by `make studies` on: {machine()}; {minutes:.0f} minutes; {data.name}, {len(cutoffs)} cutoffs "
        f"{cutoffs[-1]} .. {cutoffs[0]}, {arguments.seeds} seed{'s' * (arguments.seeds > 1)}, {WINDOWS:,} windows a "
        "training. NMAE is the mean "
        f"over tasks of the network alone; {spread}",
        "",
        "![Studies](images/studies.png)",
        "",
    ]
    for study in STUDIES:
        error_SV = found[study.title]
        lines += [
            f"## {study.title}",
            "",
            f"| `{study.setting}` | NMAE | seeds |",
            "| ---: | ---: | --- |",
            *(
                f"| {value} | {error_S.mean():.4f} | {', '.join(f'{e:.4f}' for e in error_S)} |"
                for value, error_S in zip(study.values, error_SV.T, strict=True)
            ),
            "",
        ]
    (ROOT / "docs" / "studies.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
