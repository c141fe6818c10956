"""One bucket of the forecasts."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from m2m_model.forecasts.calibration import ResidualQuantiles
from m2m_model.forecasts.forecasts import forecast_baseline
from pipelines.kernels.target import Target
from pipelines.life.evaluation import load_forecaster
from pipelines.spark import buckets
from pipelines.warehouse.sequences import SequenceFiles
from pipelines.warehouse.store import Packed


@dataclass(frozen=True)
class Scoring:
    """One scoring, as every bucket needs it: a champion's version and model, or a baseline's name with the calibrations
    of all."""

    sequences: SequenceFiles
    champion: tuple[str, Packed] | None
    baseline: tuple[str, dict[str, ResidualQuantiles]] | None
    run_id: str
    target: Target


def score_bucket(job: Scoring, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: forecast its series, write one file, count for the checks."""
    sequences, champion = job.sequences, job.champion
    spec, ds = sequences.spec, sequences.as_of
    panel = sequences.panel(bucket, spec.lookback_days)
    if champion:
        forecasts = load_forecaster(champion[1]).predict(panel, ds, all_series=True)
    else:
        assert job.baseline is not None
        name, calibrations = job.baseline
        forecasts = forecast_baseline(name, panel, ds, calibrations, all_series=True)
    rows = pl.from_arrow(forecasts.to_table(spec))
    assert isinstance(rows, pl.DataFrame)
    rows = rows.with_columns(
        ds=pl.lit(ds),
        bucket=pl.lit(bucket, pl.Int32),
        model_version=pl.lit(champion[0] if champion else None, pl.String),
        sequence_snapshot_id=pl.lit(sequences.snapshot_id),
        run_id=pl.lit(job.run_id),
    ).sort(*job.target.key)
    reports = [job.target.count(bucket, rows)]
    if rows.height:
        reports.append(job.target.write(bucket, rows, ds))
    return buckets.concat(reports)
