"""How much a day's rows still change after it, per scenario and task, and from what age on they count as final.

Reads the versions of staged.performance_daily that its snapshots still hold, for the [history] keep_days up to --date:
a day that was staged again ([dataset] late_days, or by hand) has one for each time. A day's age is counted to the
newest day that was staged then. Restated is the sum over advertisers of |as known then - as known now|; a label is a
sum of days. Prints the share at each age, and the age from which no cell changes by over 1 %: the [dataset] mature_days
to set. Writes nothing. A day that was staged once says nothing; none staged twice is not an error.
Fails (2) on wrong use.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("restatements", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.restatements import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
