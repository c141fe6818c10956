"""
### Forecasts of the day, as soon as its sequences are there

`score` forecasts every eligible advertiser and scenario with the `champion` model, or with the best baseline while
there is none; `monitor` compares the forecasts that have matured with what happened; `explain` says why forecasts moved
and what speaks for those who may leave; `drift`
holds the day against the weeks before; `report` makes a page of the day, to which its task has a link. Training is not
waited for: the champion is the one of that moment.

- **Date**: the partition of `features.advertiser_sequence` that was written. A run started by hand takes it from the
  form.
- **Followed by** whoever waits for an asset of it, as `marts.forecast_daily`; the partition is the date.
- **Again**: clear the run, or trigger it with the same date; the day's forecasts are replaced in one commit.

What to do when it fails: docs/operations.md
"""

from datetime import timedelta

from airflow.sdk import DAG, IdentityMapper, PartitionedAssetTimetable
from alerts import deadline
from stages import DATE, DEFAULT_ARGS, MACROS, SEQUENCES, ReportOperator, StageOperator, incidents

with DAG(
    "advertiser_forecasts",
    description="Score with the champion, then compare matured forecasts with what happened",
    schedule=PartitionedAssetTimetable(assets=SEQUENCES, default_partition_mapper=IdentityMapper()),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    deadline=deadline(),
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    params={"date": DATE},
    tags=["m2m", "daily"],
    doc_md=__doc__,
) as dag:
    score, monitor, explain, drift = (StageOperator(stage=name) for name in ("score", "monitor", "explain", "drift"))

    score >> monitor >> drift >> incidents()
    score >> explain
    [drift, explain] >> ReportOperator(stage="report")
