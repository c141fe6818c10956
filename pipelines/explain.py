"""Stage: why forecasts moved, and what speaks for those who may leave -> marts.forecast_change, marts.forecast_reason.

Reads the means of marts.forecast_daily of --date and of the newest day before (31 days back at most), and takes the
[explain] top movers of each task and horizon. Each change is split: what was restated, the new days, another
network, its calibration; for that the model that served then forecasts these series once more. Of the movers, and of
as many most valuable rows of marts.churn_risk, it takes away one cause after the other (a metric's last days, the
weeks before, a behavior, an attribute, the scenario, a plan) and says what the forecast would be without it. Writes
--date's partition of both tables, after the checks.
Nothing waits for it: the day's forecasts are published before, and whatever ends it changes nothing of them. Where a
model that served is gone, `note` says how the change was split without it, and there are no reasons.
Fails (3) when there are no forecasts or no sequences of --date, or when a row breaks a rule.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("explain", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.explain import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
