"""Stage: what is unlike the weeks before -> ops.drift; the error that forecasts expect -> marts.forecast_expected.

Reads the sequences as of --date (the last 87 days of them, and the attributes of a week before), the forecasts of
marts.forecast_daily, and of marts.forecast_quality those of the last weeks. Of each scenario, and of all together, each
signal (rows, absent, gone and new advertisers, zeros and level of each metric, acts, new categories, the coverage of
matured forecasts, the error that today's expect) is held against the same scenario's own eight weeks: docs/drift.md has
the rules and what was measured of them. [drift] makes them wider, or leaves signals out.
Drift is no failure: `incidents` tells it, while it is critical the gate promotes nobody, and where forecasts drifted
`promote` lets the best baseline serve unless the model surely wins. Writes --date's partition of both tables.
Fails (3) when there are no sequences of --date.
"""

from __future__ import annotations

import sys

from pipelines.cli import exit_status, run_of, stage_parser


def main(argv: list[str] | None = None) -> None:
    run = run_of("drift", stage_parser(__doc__ or "").parse_args(argv))
    from pipelines.spark.session import java_ahead

    java_ahead(run.config, run.stage)
    from pipelines.stages.drift import work

    work(run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
