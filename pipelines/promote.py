"""Stage: the gate. The challenger's backtest -> alias `champion`, and a line in ops.promotion.

Reads marts.backtest of --date. The challenger is promoted when its NMAE, averaged over tasks, is not above
the champion's and not above the best single baseline's ([gate] sets both ratios). Writes every decision
to ops.promotion, with its figures; --dry-run only records it. A version that was champion and was replaced, by
hand or by a later one, is not promoted again. A rejected challenger is not an error: yesterday's champion, or the
best baseline, goes on serving. Neither is one promoted whose forecasts broke a rule in the backtest.
Fails (3) when the date has no backtest of the present challenger and champion: one that has changed since is judged
anew; or when the challenger's files are not those that were registered.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--dry-run", action="store_true", help="decide and record, but do not move the alias")
    arguments = parser.parse_args(argv)
    run = run_of("promote", arguments)
    from pipelines.stages.promote import work

    work(run, arguments.dry_run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
