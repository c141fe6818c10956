"""
### Train, backtest, promote

`train` fits a challenger on the sequences of the day, `backtest` measures it, the champion and the baselines on
held-out cutoffs, `promote` makes it champion if it passes the gate. The forecasts of the day do not wait for this.
With `[gate] approval_hours` in pipeline.toml, `approve` asks a person before it; no answer in time is a no.

- **Date**: the partition of `features.advertiser_sequence` that was written. A run started by hand takes it from the
  form.
- **Train from scratch**: do not go on from a checkpoint that an interrupted run of this date left.
- **Gate dry run**: say what the gate decides and why, without moving the `champion` alias.
- **Pool**: `train` takes a slot of `gpu` (`airflow pools set gpu 1 "training"`); give it as many slots as there are
  GPUs.

What to do when it fails: docs/operations.md
"""

from datetime import timedelta

from airflow.sdk import DAG, IdentityMapper, Param, PartitionedAssetTimetable, chain
from approvals import ANSWER, approval, hours
from stages import DATE, DEFAULT_ARGS, MACROS, SEQUENCES, StageOperator, incidents

DATE_ARGUMENTS = ["--date", "{{ as_of() }}"]

with DAG(
    "m2m_training",
    description="Fit a challenger, measure it against the champion and the baselines, promote it if it is better",
    schedule=PartitionedAssetTimetable(assets=SEQUENCES, default_partition_mapper=IdentityMapper()),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=20 + hours()),
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    params={
        "date": DATE,
        "gate_dry_run": Param(False, type="boolean", title="Gate dry run", description="Decide, but promote nothing."),
        "from_scratch": Param(False, type="boolean", title="Train from scratch", description="Ignore a checkpoint."),
    },
    tags=["m2m", "training"],
    doc_md=__doc__,
) as dag:
    train = StageOperator(
        stage="train",
        arguments=[*DATE_ARGUMENTS, "{{ '--from-scratch' if params.from_scratch else '' }}"],
        pool="gpu",
        execution_timeout=timedelta(hours=12),
    )
    backtest = StageOperator(stage="backtest", execution_timeout=timedelta(hours=3))
    promote = StageOperator(
        stage="promote", arguments=[*DATE_ARGUMENTS, "{{ '--dry-run' if params.gate_dry_run else '' }}", *ANSWER]
    )

    chain(train, backtest, *approval(), promote, incidents())
