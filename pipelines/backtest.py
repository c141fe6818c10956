"""Stage: challenger, champion and baselines at held-out cutoffs -> marts.backtest, marts.backtest_value, and MLflow.

Reads the sequences as of --date and the aliases `challenger` and `champion`. Every forecaster is judged on
the same series at the same cutoffs: the last one whose label is final, then every [backtest] every_days back. Writes
the date's partition of marts.backtest, per cutoff x scenario x task, with * for all scenarios and a null
cutoff for all cutoffs; and of marts.backtest_value: ranking, errors by size, who will leave. Logs the figures,
with plots of reliability and of errors by size, to the challenger's MLflow run.
Fails (3) when there are no sequences or no challenger, the data starts too late for the cutoffs, or a model was trained
on one of them.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("backtest", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.backtest import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
