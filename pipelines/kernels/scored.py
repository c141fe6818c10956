"""One bucket of the forecasts, of their paths, and of their totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from m2m_model.data.panel import Panel
from m2m_model.forecasts.calibration import Dependence, Pacing
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline, with_baselines
from m2m_model.paths.path import daily_path
from m2m_model.totals.sampler import Sampler
from m2m_model.totals.sums import add_up
from pipelines.kernels.sound import DayBefore
from pipelines.kernels.target import Target
from pipelines.life.cells import Cells, in_cells, reason
from pipelines.life.evaluation import Fallback, load_forecaster
from pipelines.quality.paths import count_against
from pipelines.spark import buckets
from pipelines.warehouse.sequences import SequenceFiles
from pipelines.warehouse.store import Folder, Packed

AT_RISK, TOTAL, PATH = "at_risk:", "total:", "path:"
BESIDE = "beside-"  # sums for the rules against the day before
ADDED = "added"  # counter: the forecasts that advertisers' totals are of


@dataclass(frozen=True)
class Serving:
    """What forecasts a day, to publish it and to make it again: its sequences, and a champion's version and model, or
    what serves for want of one, and why; ``run_id`` is that of the run that publishes. ``cells``: where a baseline
    serves in the champion's place."""

    sequences: SequenceFiles
    champion: tuple[str, Packed] | None
    baseline: Fallback | None
    run_id: str
    no_champion: str | None = None
    cells: Cells = field(default_factory=dict)

    @property
    def by(self) -> str:
        """Who forecasts, in words."""
        if self.champion:
            return f"version {self.champion[0]}"
        return f"baseline {self.baseline.name}" if self.baseline else ""

    def panel(self, bucket: int) -> Panel:
        return self.sequences.panel(bucket, self.sequences.spec.lookback_days)

    def forecasts(self, panel: Panel) -> Forecasts:
        """Of every series of a panel."""
        ds = self.sequences.as_of
        if self.champion:
            forecaster = load_forecaster(self.champion[1])
            made = forecaster.predict(panel, ds, all_series=True)
            found = in_cells(self.cells, made.scenario_N, self.sequences.spec.targets)
            return made if found is None else with_baselines(made, panel, forecaster.calibrations, found[0])
        assert self.baseline is not None
        return forecast_baseline(self.baseline.name, panel, ds, self.baseline.calibrations, all_series=True)

    def rows(self, forecasts: Forecasts, bucket: int) -> pl.DataFrame:
        """Forecasts of a bucket as rows of marts.forecast_daily."""
        rows = pl.from_arrow(forecasts.to_table(self.sequences.spec))
        assert isinstance(rows, pl.DataFrame)
        found = in_cells(self.cells, forecasts.scenario_N, self.sequences.spec.targets)
        why = reason(self.no_champion, found and found[1].ravel())
        return self.marked(rows.with_columns(reason=why), bucket)

    def joined(self) -> tuple[Dependence, Pacing, dict[str, Sequence[str]]]:
        """What its totals and paths are made with: what series share, how totals come day by day, and the values of
        attributes that have totals."""
        if self.champion:
            forecaster = load_forecaster(self.champion[1])
            return forecaster.shared, forecaster.pacing, dict(forecaster.inputs.attributes)
        assert self.baseline is not None
        return self.baseline.shared, self.baseline.pacing, dict(self.baseline.attributes)

    def marked(self, rows: pl.DataFrame, bucket: int) -> pl.DataFrame:
        """Rows of a bucket, with where they come from."""
        return rows.with_columns(
            ds=pl.lit(self.sequences.as_of),
            bucket=pl.lit(bucket, pl.Int32),
            model_version=pl.lit(self.champion[0] if self.champion else None, pl.String),
            sequence_snapshot_id=pl.lit(self.sequences.snapshot_id),
            run_id=pl.lit(self.run_id),
        )


@dataclass(frozen=True)
class Scoring:
    """One scoring, as every bucket needs it: what forecasts, where its tables are written, and the day before, if it
    is held against that."""

    serving: Serving
    target: Target
    risk: tuple[Target, str] | None  # where who may leave is written, and the query over the forecasts
    path: Target
    total: Target
    sums: Folder  # where each bucket leaves its part of the totals that no bucket has alone
    before: DayBefore | None = None


def score_bucket(job: Scoring, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: forecast its series, count for the checks, write a file of forecasts, one of who may leave,
    one of the paths to them, one of advertisers' totals, and its part of all other totals."""
    serving, ds = job.serving, job.serving.sequences.as_of
    panel = serving.panel(bucket)
    forecasts, (shared, pacing, known) = serving.forecasts(panel), serving.joined()
    rows = serving.rows(forecasts, bucket)
    if job.before:
        beside = job.before.beside(bucket, rows, forecasts, panel)
        write_sums(job.sums, bucket, beside.to_arrow(), BESIDE)
    rows = rows.sort(*job.target.key)
    reports = [job.target.count(bucket, rows)]
    if rows.height:
        reports.append(job.target.write(bucket, rows, ds))
    if rows.height and job.risk:
        target, query = job.risk
        risk = pl.SQLContext(forecast_daily=rows).execute(query, eager=True)
        risk = risk.with_columns(run_id=pl.lit(serving.run_id)).sort(*target.key)
        reports.append(buckets.prefixed(AT_RISK, target.write(bucket, risk, ds)))
    if rows.height:
        paths = pl.from_arrow(daily_path(forecasts, panel, pacing))
        assert isinstance(paths, pl.DataFrame)
        paths = serving.marked(paths, bucket)
        of_paths = [job.path.count(bucket, paths), count_against(bucket, paths, rows, ds)]
        reports.append(buckets.prefixed(PATH, buckets.concat([*of_paths, job.path.write(bucket, paths, ds)])))
    advertisers, sums = add_up(forecasts, panel, Sampler(shared), known)
    write_sums(job.sums, bucket, sums)
    if rows.height:
        totals = pl.from_arrow(advertisers)
        assert isinstance(totals, pl.DataFrame)
        totals = serving.marked(totals, bucket).sort(*job.total.key)
        added = (bucket, ds, None, ADDED, float(totals["series"].sum()), None)
        of_totals = [job.total.count(bucket, totals), job.total.write(bucket, totals, ds)]
        of_totals.append(pl.DataFrame([added], schema=buckets.REPORT, orient="row"))
        reports.append(buckets.prefixed(TOTAL, buckets.concat(of_totals)))
    return buckets.concat(reports)


def write_sums(folder: Folder, bucket: int, sums: pa.Table, name: str = "") -> None:
    """Leave a bucket's part of the totals that no bucket has alone, or of other sums by their name."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, sums.schema) as file:
        file.write_table(sums)
    folder.write(f"{name}{bucket:05d}.arrow", memoryview(buffer.getvalue()))


def read_sums(folder: Folder, bucket: int, name: str = "") -> pa.Table:
    """What ``write_sums`` left."""
    return pa.ipc.open_file(folder.read(f"{name}{bucket:05d}.arrow")).read_all()
