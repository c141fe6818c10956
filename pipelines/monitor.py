"""Stage: forecasts whose horizon has passed, against what happened -> marts.forecast_quality.

At --date D the forecasts made as of D minus the horizon and [dataset] mature_days are mature. Reads them from
marts.forecast_daily and the days of their horizon from staged.performance_daily. Writes that as-of date's
partition of marts.forecast_quality, per method x scenario x task x horizon; a published forecast with 90 % intervals
far from 90 % shows here first. Each of [dataset] horizons_days is judged when it is over: a run looks at one as-of
date a horizon.
Nothing matured is not an error. Fails (3) when a day of the horizon was never staged.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("monitor", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.monitor import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
