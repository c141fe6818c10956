"""
### Raw rows to sequences, every day at 05:00 UTC

`stage_sources` maps the source's rows of the day to the canonical tables and counts the dirt; `build_sequences` makes
one row per advertiser and scenario, as of the end of the day. Each writes files, checks them and commits once: a
reader sees yesterday's table or today's.

- **Date**: the partition, which is the day before the run. A run started by hand takes it from the form.
- **Late rows**: with `[dataset] late_days`, a run stages the days before its own again, and builds what changed again.
- **First load**: trigger with `from_date` set to the first day of the history and `date` to its last.
- **Missed days**: `airflow backfill create --dag-id advertiser_sequences --from-date ... --to-date ...`; runs do not
  catch up by themselves, so that a long pause does not start a hundred of them.
- **Followed by** `advertiser_forecasts` and `m2m_training`, for the same date.

What to do when it fails: docs/operations.md
"""

from datetime import timedelta

from airflow.sdk import DAG, CronPartitionTimetable, Param
from alerts import deadline
from stages import DATE, DEFAULT_ARGS, MACROS, StageOperator, incidents

with DAG(
    "advertiser_sequences",
    description="Raw rows to checked daily tables and sequences",
    # No start_date: a run for a date before it would succeed without running a task.
    schedule=CronPartitionTimetable("0 5 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    deadline=deadline(),
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    params={
        "date": DATE,
        "from_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="From date",
            description="First day to stage, up to the date: for the first load of the history, or for late days.",
        ),
    },
    tags=["m2m", "daily"],
    doc_md=__doc__,
) as dag:
    stage_sources = StageOperator(
        stage="stage_sources",
        arguments=["--date", "{{ as_of() }}", "{{ '--from=' ~ params.from_date if params.from_date else '' }}"],
        execution_timeout=timedelta(hours=3),
    )

    stage_sources >> StageOperator(stage="build_sequences") >> incidents()
