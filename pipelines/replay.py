"""Make a published day of marts.forecast_daily again, from what its commit recorded, and compare.

Reads the recorded snapshots of the sequences, the recorded version of the model (its files proven by their digests)
and the recorded configuration, forecasts as `score` did, and compares every column of every row with what is published.
Writes nothing. --from and --to replay each day that was forecast between them. --advertiser reads its bucket alone;
--scenario and --task compare some rows. Spark starts for large data sets, and for days that a baseline served: what it
learned is learned again.
Says `identical`, and whether to the last bit: another processor may add up in another order, so a relative difference
of 1e-5 is let pass, and said. Or it names what differs: the commit or an input has expired, the model version is gone
or altered, published rows are altered, missing or too many, values differ (which column, in how many rows, by how
much); and beside these, whether the code or the configuration is another than then, and which settings.
Ends with 0 when all is identical. Fails (3) when something differs; (2) on wrong use, or when no such forecast was
published.
"""

from __future__ import annotations

import sys

from pipelines.asked import text
from pipelines.cli import day, exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> int:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--from", dest="from_date", type=day, metavar="DAY", help="first of several days")
    parser.add_argument("--to", dest="to_date", type=day, metavar="DAY", help="last of several days")
    parser.add_argument("--advertiser", type=text, metavar="ID", help="forecasts of one advertiser")
    parser.add_argument("--scenario", type=text, metavar="ID", help="forecasts of one scenario")
    parser.add_argument("--task", type=text, metavar="NAME", help="forecasts of one task")
    arguments = parser.parse_args(argv)
    run = run_of("replay", arguments)
    from pipelines.stages.replay import work

    return work(run, arguments.advertiser, arguments.scenario, arguments.task)


if __name__ == "__main__":
    sys.exit(exit_status(main))
