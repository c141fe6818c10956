"""Stage: the gate. The challenger's backtest -> a line in ops.promotion, and the aliases `champion` and `previous`.

Reads marts.backtest of --date and its pairs, and ops.drift of the last days: where a cell's forecasts drifted, a
version serves it only if it surely wins. The challenger is promoted when its NMAE, averaged over tasks, is not above
the best single baseline's and not surely above the champion's, and no scenario's task is surely and much worse than the
champion's ([gate]; docs/operations.md, 'The gate refuses'). Writes every decision to ops.promotion, with its figures,
and to ops.serving_cell in which cells a baseline serves in a version's place; --dry-run only records the decision. A
version that was champion and was replaced, by hand or by a later one, is not promoted again; one that was trained
before somebody chose the champion by hand does not replace it; nor is one promoted whose forecasts broke a rule in the
backtest. A rejected challenger is not an error: yesterday's champion, or the best baseline, goes on
serving. What the gate found of every cell is in ops.promotion_cell and with the challenger's run in MLflow
(gate/DAY.csv); what failed is printed. With [gate] approval_hours nothing is promoted that nobody approved
(--approved-by).
A promoted version gets its model card, as its description in MLflow and beside its run's files.
With --to VERSION --reason TEXT no gate is asked: that version becomes champion, as a roll back or by hand, and the
ledger says who did it and why. A challenger that is trained later may replace it.
Fails (3) when the date has no backtest of the present challenger and champion: one that has changed since is judged
anew; when the challenger's files are not those that were registered; or when another promotion was first. Fails (2)
when --to names no version.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from pipelines.cli import exit_status, run_of, stage_parser
from pipelines.errors import ConfigError


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--dry-run", action="store_true", help="decide and record, but do not move the alias")
    parser.add_argument("--to", metavar="VERSION", help="make this version champion, whatever the gate would say")
    parser.add_argument("--reason", metavar="TEXT", help="with --to: why; it stands in ops.promotion")
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--approved-by", metavar="WHO", help="who said yes, where [gate] approval_hours asks for it")
    said.add_argument("--rejected-by", metavar="WHO", help="who said no: it is not promoted, and that is recorded")
    parser.add_argument("--challenger", metavar="VERSION", help="fail (3) if the challenger is another one by now")
    arguments = parser.parse_args(argv)
    if bool(arguments.to) != bool((arguments.reason or "").strip()) or (arguments.to and arguments.dry_run):
        raise ConfigError("--to VERSION needs --reason TEXT, and both go without --dry-run")
    answer = {name: getattr(arguments, name) for name in ("approved_by", "rejected_by", "challenger")}
    if any(answer.values()) and (arguments.to or arguments.dry_run):
        raise ConfigError("--approved-by, --rejected-by and --challenger go without --to and --dry-run")
    if arguments.to and not arguments.date:
        arguments.date = datetime.now(UTC).date()
    run = run_of("promote", arguments)
    from pipelines.stages.promote import Answer, by_hand, work

    if arguments.to:
        by_hand(run, arguments.to, arguments.reason.strip())
    else:
        work(run, arguments.dry_run, Answer(**answer))


if __name__ == "__main__":
    sys.exit(exit_status(main))
