"""``m2m STAGE ...``, ``python -m pipelines STAGE ...`` and ``python -m pipelines.STAGE ...`` are the same.

spark-submit needs a file to start, which is this one.
"""

import difflib
import runpy
import sys
from pathlib import Path

USAGE = "usage: m2m COMMAND ...    (m2m COMMAND --help says what it reads and writes, and when it fails)"


def main() -> None:
    # spark-submit puts this folder first on sys.path, where `show` or `status` would hide other packages; the folder
    # above it has the packages that belong to this file.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent) if Path(path or ".").resolve() == here else path for path in sys.path]
    from pipelines.chain import STAGES, STATE, commands

    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    if asked in ("-h", "--help", "help"):
        print(f"{USAGE}\n\n{commands()}\n\n{STATE}")
        return
    if asked not in STAGES:
        nearest = difflib.get_close_matches(asked, STAGES, n=1)
        wrong = f'no command "{asked}"' if asked else "no command"
        hint = f'did you mean "{nearest[0]}"?' if nearest else "they are:"
        print(f"{USAGE}\n{wrong}; {hint}\n\n{commands()}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    runpy.run_module(f"pipelines.{asked}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
