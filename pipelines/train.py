"""Stage: features.advertiser_sequence -> an MLflow run and a registered model version, alias `challenger`.

Reads the sequences as of --date. Trains M2M through TorchDistributor on rows up to the first held-out cutoff,
so that the backtest judges what will be promoted. Logs parameters, metrics per epoch, input snapshots,
configuration, code version, installed packages, plots and the model to MLflow. Writes no table.
A run that was interrupted goes on from its last checkpoint, unless --from-scratch. The same seed gives the
same weights. --snapshot trains on the date's sequences as an earlier build left them, whatever was restated since.
Fails (3) when there are no sequences, or too few days to train and validate on; (1) when a rank keeps
failing.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, snapshot, stage_parser


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--from-scratch", action="store_true", help="ignore the checkpoint of an interrupted run")
    parser.add_argument(
        "--snapshot",
        type=snapshot,
        help="train on what was known then: the sequences' snapshot or the run that built them",
    )
    arguments = parser.parse_args(argv)
    run = run_of("train", arguments)
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.train import work

    work(run, arguments.from_scratch, arguments.snapshot)


if __name__ == "__main__":
    sys.exit(exit_status(main))
