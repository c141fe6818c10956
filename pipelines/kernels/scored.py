"""One bucket of the forecasts, of their paths, and of their totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from m2m_model.forecasts.forecasts import forecast_baseline
from m2m_model.paths.path import daily_path
from m2m_model.totals.sampler import Sampler
from m2m_model.totals.sums import add_up
from pipelines.kernels.target import Target
from pipelines.life.evaluation import Fallback, load_forecaster
from pipelines.quality.paths import count_against
from pipelines.spark import buckets
from pipelines.warehouse.sequences import SequenceFiles
from pipelines.warehouse.store import Folder, Packed

AT_RISK, TOTAL, PATH = "at_risk:", "total:", "path:"
ADDED = "added"  # counter: the forecasts that advertisers' totals are of


@dataclass(frozen=True)
class Scoring:
    """One scoring, as every bucket needs it: a champion's version and model, or what serves for want of one."""

    sequences: SequenceFiles
    champion: tuple[str, Packed] | None
    baseline: Fallback | None
    run_id: str
    target: Target
    risk: tuple[Target, str] | None  # where who may leave is written, and the query over the forecasts
    path: Target
    total: Target
    sums: Folder  # where each bucket leaves its part of the totals that no bucket has alone

    def marked(self, rows: pl.DataFrame, bucket: int) -> pl.DataFrame:
        """Rows of a bucket, with where they come from."""
        return rows.with_columns(
            ds=pl.lit(self.sequences.as_of),
            bucket=pl.lit(bucket, pl.Int32),
            model_version=pl.lit(self.champion[0] if self.champion else None, pl.String),
            sequence_snapshot_id=pl.lit(self.sequences.snapshot_id),
            run_id=pl.lit(self.run_id),
        )


def score_bucket(job: Scoring, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: forecast its series, count for the checks, write a file of forecasts, one of who may leave,
    one of the paths to them, one of advertisers' totals, and its part of all other totals."""
    sequences, champion = job.sequences, job.champion
    spec, ds = sequences.spec, sequences.as_of
    panel = sequences.panel(bucket, spec.lookback_days)
    if champion:
        forecaster = load_forecaster(champion[1])
        shared, pacing = forecaster.shared, forecaster.pacing
        known = dict[str, Sequence[str]](forecaster.inputs.attributes)
        forecasts = forecaster.predict(panel, ds, all_series=True)
    else:
        assert job.baseline is not None
        shared, pacing, known = job.baseline.shared, job.baseline.pacing, dict(job.baseline.attributes)
        forecasts = forecast_baseline(job.baseline.name, panel, ds, job.baseline.calibrations, all_series=True)
    rows = pl.from_arrow(forecasts.to_table(spec))
    assert isinstance(rows, pl.DataFrame)
    rows = job.marked(rows, bucket).sort(*job.target.key)
    reports = [job.target.count(bucket, rows)]
    if rows.height:
        reports.append(job.target.write(bucket, rows, ds))
    if rows.height and job.risk:
        target, query = job.risk
        risk = pl.SQLContext(forecast_daily=rows).execute(query, eager=True)
        risk = risk.with_columns(run_id=pl.lit(job.run_id)).sort(*target.key)
        reports.append(buckets.prefixed(AT_RISK, target.write(bucket, risk, ds)))
    if rows.height:
        paths = pl.from_arrow(daily_path(forecasts, panel, pacing))
        assert isinstance(paths, pl.DataFrame)
        paths = job.marked(paths, bucket)
        of_paths = [job.path.count(bucket, paths), count_against(bucket, paths, rows, ds)]
        reports.append(buckets.prefixed(PATH, buckets.concat([*of_paths, job.path.write(bucket, paths, ds)])))
    advertisers, sums = add_up(forecasts, panel, Sampler(shared), known)
    write_sums(job.sums, bucket, sums)
    if rows.height:
        totals = pl.from_arrow(advertisers)
        assert isinstance(totals, pl.DataFrame)
        totals = job.marked(totals, bucket).sort(*job.total.key)
        added = (bucket, ds, None, ADDED, float(totals["series"].sum()), None)
        of_totals = [job.total.count(bucket, totals), job.total.write(bucket, totals, ds)]
        of_totals.append(pl.DataFrame([added], schema=buckets.REPORT, orient="row"))
        reports.append(buckets.prefixed(TOTAL, buckets.concat(of_totals)))
    return buckets.concat(reports)


def write_sums(folder: Folder, bucket: int, sums: pa.Table) -> None:
    """Leave a bucket's part of the totals that no bucket has alone."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, sums.schema) as file:
        file.write_table(sums)
    folder.write(f"{bucket:05d}.arrow", memoryview(buffer.getvalue()))


def read_sums(folder: Folder, bucket: int) -> pa.Table:
    """What ``write_sums`` left."""
    return pa.ipc.open_file(folder.read(f"{bucket:05d}.arrow")).read_all()
