"""Is the newest month of labels worth a second training? Walked forward over twelve weeks of online_retail.

    python -m benchmarks.refit [--weeks 12]

Every week as the pipeline would: the network is trained on what was known that day, measured as far as validation and
held-out cutoffs leave it (labels that are eight weeks old), refitted on all labels with the same steps and seed, and
both forecast the week to come, with the same calibration and blend. A third of the windows of a usual training. Writes
docs/refit.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from benchmarks.measure import machine
from benchmarks.results import CUTOFFS_A_BLOCK, DATA, judged, sequences, table
from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.statistics import PanelStatistics
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.metrics import finish, mean_over_tasks
from m2m_model.training.calendar import train_end
from m2m_model.training.loop import train_rank

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = 100_000
MEASURED, REFITTED, ALONE = "as measured", "refitted", "network alone, "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=12)
    weeks, started = parser.parse_args().weeks, time.monotonic()
    data, settings, parts = DATA["online_retail"], TrainConfig(max_windows=WINDOWS, refit=True), []
    with tempfile.TemporaryDirectory() as home:
        rows, config = sequences(data, Path(home))
        spec, first_day = config.sequence_spec, config.dataset.first_day
        horizon = timedelta(days=spec.horizon_days)
        for back in range(weeks):
            as_of = data.last_day - horizon - timedelta(days=7 * back)
            held_out_from = as_of - horizon - timedelta(days=7 * (CUTOFFS_A_BLOCK - 1))
            panel = Panel.from_sequences(rows, spec, as_of, (as_of - first_day).days + 1)
            end = train_end(first_day, held_out_from, spec.horizons_days, settings.validation_cutoffs)
            inputs = fit_inputs(PanelStatistics.of(panel, end))
            folder = Path(home) / str(as_of)
            shard = panel.save(folder / "shard")
            made = train_rank([shard], folder, inputs, ModelConfig(), settings, held_out_from).model_folder
            later = Panel.from_sequences(rows, spec, as_of + horizon, (as_of + horizon - first_day).days + 1)
            for name, measured in ((MEASURED, True), (REFITTED, False)):
                served = Forecaster.load(made, measured=measured)
                alone = replace(served, blend=None, young_blend=None)
                for label, forecaster in ((name, served), (ALONE + name, alone)):
                    parts.append(judged(forecaster.predict(later, as_of), later, as_of, label))
    sums = pa.concat_tables(parts)
    found = pl.from_arrow(mean_over_tasks(finish(sums, ("forecaster", "cutoff", "task"))))
    assert isinstance(found, pl.DataFrame)
    found = found.filter(~pl.col("forecaster").str.ends_with("cold start"))
    by_week = found.pivot("forecaster", index="cutoff", values="nmae").sort("cutoff")
    means = found.group_by("forecaster").agg(pl.mean("nmae", "smape", "level_50", "level_90")).sort("forecaster")
    nmae = dict(means.select("forecaster", "nmae").iter_rows())
    won = int((by_week[REFITTED] < by_week[MEASURED]).sum())
    lines = [
        "# Refitting on all labels",
        "",
        f"Made by `make refit` on: {machine()}; {(time.monotonic() - started) / 60:.0f} minutes; online_retail, "
        f"{weeks} weeks, one seed, {WINDOWS:,} windows a training. NMAE is the mean over tasks in the week after each "
        "day.",
        "",
        f"Over the weights that were measured, refitted ones have **{nmae[REFITTED] / nmae[MEASURED]:.3f}** of the "
        f"error, and are ahead in {won} of {weeks} weeks; the network alone "
        f"{nmae[ALONE + REFITTED] / nmae[ALONE + MEASURED]:.3f}. By default `[training] refit` is "
        f"{str(TrainConfig().refit).lower()}.",
        "",
        *table(means, 4),
        *table(by_week, 4),
    ]
    (ROOT / "docs" / "refit.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
