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

AT_RISK = "at_risk:"


@dataclass(frozen=True)
class Scoring:
    """One scoring, as every bucket needs it: a champion's version and model, or a baseline's name with the calibrations
    of all."""

    sequences: SequenceFiles
    champion: tuple[str, Packed] | None
    baseline: tuple[str, dict[str, ResidualQuantiles]] | None
    run_id: str
    target: Target
    risk: tuple[Target, str] | None  # where who may leave is written, and the query over the forecasts


def score_bucket(job: Scoring, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: forecast its series, count for the checks, write a file of forecasts and one of who may
    leave."""
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
    if rows.height and job.risk:
        target, query = job.risk
        risk = pl.SQLContext(forecast_daily=rows).execute(query, eager=True)
        risk = risk.with_columns(run_id=pl.lit(job.run_id)).sort(*target.key)
        reports.append(buckets.prefixed(AT_RISK, target.write(bucket, risk, ds)))
    return buckets.concat(reports)
