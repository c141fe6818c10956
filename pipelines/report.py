"""Stage: a page about the day, for who decides and who is on call -> reports/YYYY-MM-DD.html below the data set's home.

At --date D reads what the day's runs published and judged: which snapshots they read, checks and dirt, the platform's
and the scenarios' totals beside the last weeks, movers by cause, who may leave and why, the accuracy of matured
forecasts, the champion and the gate, what is new in the data, what each stage cost. Writes one self-contained HTML
file, which needs no network, and the same into MLflow, as the run `daily D` of the data set's experiment; both are
replaced when it runs again. Needs no Spark.
What is not there is said, with the command that makes it: a page with holes is no error.
Fails (2) where there is no catalog, (3) when a file of a table is gone.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("report", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.stages.report import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
