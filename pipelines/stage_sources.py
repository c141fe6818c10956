"""Stage: raw sources -> staged.performance_daily, behavior_daily, advertiser, scenario.

Reads the [[source]]s of pipeline.toml through the data set's own SQL, for one day (--date) and the [dataset]
late_days before it that were staged already, or for a range (--from/--to), in one pass. Writes those days of the
staged tables, each in one commit, after the checks; a day whose rows are the same stays as it is.
Fails (3) when a source is missing, unreadable or has lost a column; a value does not fit its type; a day is
empty or far below its usual volume; a key is null, empty, too long or double; a metric is null, negative, NaN
or infinite; a scenario is unknown. Nothing is published then. What the SQL dropped, merged or repaired is
counted in ops.validation.
"""

from __future__ import annotations

import sys

from pipelines.cli import day, exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--from", dest="from_date", type=day, help="first day of a range (instead of --date)")
    parser.add_argument("--to", dest="to_date", type=day, help="last day of a range")
    arguments = parser.parse_args(argv)
    run = run_of("stage_sources", arguments)
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.stage_sources import work

    work(run, late=arguments.from_date is None)


if __name__ == "__main__":
    sys.exit(exit_status(main))
