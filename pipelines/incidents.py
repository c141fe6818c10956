"""What somebody should know of a day although nothing failed; the DAGs send it where [alerts] says to.

Reads ops.validation (warnings of the day's last runs), the lineage of marts.forecast_daily (a champion that serves no
more, or an older one than the day before), ops.serving_cell (cells that a baseline serves in its place),
marts.forecast_quality (drift of matured forecasts), ops.drift (of data) and ops.promotion (refusals of the gate, day
after day; an alias of MLflow that was moved outside it), as of --date, without Spark. --dag: of the stages of one DAG
alone. Each incident has since when, the command that shows more, and a section of docs/operations.md. Writes nothing.
Fails (2) on wrong use or where there is no catalog. An incident is no failure: the exit status is 0.
"""

from __future__ import annotations

import sys

from pipelines.chain import CHAIN
from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--dag", choices=sorted({stage.dag for stage in CHAIN if stage.dag}))
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args(argv)
    run = run_of("incidents", arguments)
    from pipelines.life.incidents import work

    work(run, arguments.dag, arguments.format)


if __name__ == "__main__":
    sys.exit(exit_status(main))
