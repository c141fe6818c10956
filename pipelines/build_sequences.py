"""Stage: staged tables -> features.sequence_week, features.advertiser_sequence as of --date.

Reads the last [history] keep_days of staged.performance_daily and behavior_daily, the newest profiles and
scenarios up to the date. Writes the parts of weeks whose staged rows are new or were restated, and the list of all
series of that history with their attributes; each table in one commit, after the checks.
Fails (3) when a day of that history was never staged, when the date itself is missing, or when the number of
series falls far below the last days'. Nothing is published then.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("build_sequences", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.build_sequences import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
