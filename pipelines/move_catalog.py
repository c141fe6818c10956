"""The tables of a data set into another catalog: their metadata is registered there, every file stays where it is.

Reads the tables of --config's catalog and registers them in that of --to, a pipeline.toml of the same data set
with another [warehouse]; then the old catalog forgets them, since two catalogs of one table would write over each
other. Writes no row and no file, and without --apply only shows what it would do. Stop the DAGs first; afterwards
go on with the new file.
Fails (2) when the new catalog has another table of that name, cannot read the files, or is the old one.
"""

from __future__ import annotations

import sys

from pipelines.cli import config_of, exit_status, stage_parser
from pipelines.config import load_config
from pipelines.errors import ConfigError


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--to", required=True, metavar="FILE", help="pipeline.toml with the new [warehouse]")
    parser.add_argument("--apply", action="store_true", help="move them (default: only show it)")
    arguments = parser.parse_args(argv)
    config, target = config_of(arguments), load_config(arguments.to)
    if config.dataset.name != target.dataset.name:
        raise ConfigError(f"{target.path}: is of data set {target.dataset.name}, and not of {config.dataset.name}")
    from pipelines.stages.move_catalog import work

    work(config, target, arguments.apply)


if __name__ == "__main__":
    sys.exit(exit_status(main))
