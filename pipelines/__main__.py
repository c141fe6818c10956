"""``python -m pipelines STAGE ...`` is ``python -m pipelines.STAGE ...``; spark-submit needs a file to start."""

import runpy
import sys
from pathlib import Path

STAGES = (
    "stage_sources",
    "build_sequences",
    "train",
    "backtest",
    "promote",
    "score",
    "monitor",
    "show",
    "status",
    "restatements",
    "maintain",
)


def main() -> None:
    # spark-submit puts this folder first on sys.path, where `show` or `tables` would hide other packages.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [path for path in sys.path if str(Path(path or ".").resolve()) != here]
    if len(sys.argv) < 2 or sys.argv[1] not in STAGES:
        sys.exit(f"usage: python -m pipelines STAGE ...; stages: {', '.join(STAGES)}")
    stage = sys.argv.pop(1)
    runpy.run_module(f"pipelines.{stage}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
