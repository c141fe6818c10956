"""Stage: features.advertiser_sequence -> marts.forecast_daily, a forecast for every series and task; marts.churn_risk.

Reads the sequences as of --date and the model with the alias `champion`. Writes the date's partition of
marts.forecast_daily in one commit, after the checks. Without a champion, when its files are lost, when it forecasts
other tasks than pipeline.toml declares, or when a forecast of it breaks a rule (missing, negative, not a number,
crossing quantiles, ...: a warning says which), the best baseline of the held-out cutoffs serves. In the cells
(scenario, task, horizon) of ops.serving_cell that fell back, and where a total jumps or intervals collapse against
the day before, that cell's best baseline does; where most cells do, it serves all. The columns `method` and
`reason` say it. Then writes marts.churn_risk from those forecasts: who may leave, and with how much; empty where no
task counts active days. marts.forecast_path: what each day of the horizon is expected to bring, and how sure the
sum up to it is. And marts.forecast_total: what series come to together, with intervals of their own.
With --what-if FILE it publishes nothing, starts no Spark, and prints in seconds what the champion would forecast as of
--date if the plans of some advertisers were others: FILE (CSV or Parquet) has advertiser_id, a column for each plan
that is changed ([[known_future]]), and if wanted scenario_id (else each scenario) and for_day (else each day of the
horizon). Plans that it does not name stay. --out keeps the table as CSV or Parquet.
Fails (3) when there are no sequences, when the champion's files were changed, or when a forecast of the baseline
breaks a rule.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.cli import exit_status, run_of, stage_parser
from pipelines.errors import ConfigError


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--what-if", type=Path, metavar="FILE", help="forecast with these plans, and publish nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="with --what-if: a .csv or .parquet file to keep")
    arguments = parser.parse_args(argv)
    if arguments.out and (not arguments.what_if or arguments.out.suffix not in (".csv", ".parquet")):
        raise ConfigError("--out: goes with --what-if, and names a file that ends in .csv or .parquet")
    run = run_of("score", arguments)
    if arguments.what_if:
        from pipelines import what_if

        what_if.work(run, arguments.what_if, arguments.out)
        return
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.score import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
