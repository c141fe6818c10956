"""``python -m pipelines.console``."""

import sys

from pipelines.cli import exit_status
from pipelines.console import main

if __name__ == "__main__":
    sys.exit(exit_status(main))
