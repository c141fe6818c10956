"""Stage: features.advertiser_sequence -> marts.forecast_daily, a forecast for every series and task; marts.churn_risk.

Reads the sequences as of --date and the model with the alias `champion`. Writes the date's partition of
marts.forecast_daily in one commit, after the checks. Without a champion, when its files are lost, when it forecasts
other tasks than pipeline.toml declares, or when a forecast of it breaks a rule (missing, negative, not a number,
crossing quantiles, ...: a warning says which), the best baseline of the held-out cutoffs serves, and the column
`method` says so. Then writes marts.churn_risk from those forecasts: who may leave, and with how much; empty where no
task counts active days.
Fails (3) when there are no sequences, when the champion's files were changed, or when a forecast of the baseline
breaks a rule.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("score", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.score import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
