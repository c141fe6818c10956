"""A small deployment made on the spot: its own pipeline.toml, SQL and one Parquet file a day."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipelines.cli import exit_status
from pipelines.config import Config, load_config
from pipelines.warehouse.commits import Warehouse

FIRST_DAY = date(2024, 1, 1)


def day(number: int) -> date:
    """The day that many days after the first."""
    return FIRST_DAY + timedelta(days=number)


TOML = """
[dataset]
name = "tiny"
first_day = 2024-01-01
buckets = 2

[[source]]
name = "raw_day"
format = "parquet"
path = "raw/ds={ds}.parquet"
columns = { day = "date", who = "string", place = "string", views = "double", taps = "double", cost = "double" }

[staging]
performance_daily = "performance_daily.sql"

[[performance]]
name = "views"
kind = "count"

[[performance]]
name = "taps"
kind = "count"

[[performance]]
name = "spend"
kind = "money"
unit = "eur"

[[task]]
name = "spend"
metric = "spend"
aggregate = "sum"

[[task]]
name = "active_days"
metric = "active"
aggregate = "days"

[history]
window_days = 14
keep_days = 60

[checks]
not_above = [["taps", "views"]]

[model]
width = 8
heads = 2
experts = 2
bins = 4

[training]
epochs = 2
min_steps = 4
max_windows = 400
batch_size = 64
min_history_days = 7

[backtest]
cutoffs = 2

[spark]
master = "local[2]"
"""

SQL = """
-- Rows marked "test" are dropped, and counted.
select
    day as ds, who as advertiser_id, place as scenario_id, views, taps, cost as spend,
    1L as source_rows,
    if(who = 'test', 'drop:test_account', null) as dirt
from raw_day
"""


def rows_of_day(ds: date, advertisers: int = 12, scenarios: tuple[str, ...] = ("search", "feed")) -> pl.DataFrame:
    """Raw rows of one day: each advertiser skips one day in five."""
    number = (ds - FIRST_DAY).days
    rows = [
        (ds, f"adv{i}", scenario, 100.0 + 10 * i + number, float(i % 5 + number % 7), 1.5 * (i + 1) + (number % 7))
        for i in range(advertisers)
        for scenario in scenarios
        if (number + i) % 5 != 1
    ]
    return pl.DataFrame(rows, schema=["day", "who", "place", "views", "taps", "cost"], orient="row")


@dataclass
class Deployment:
    """One data set in a folder, and its stages as a person would run them."""

    folder: Path
    capture: Callable[[], str]
    start_spark: Callable[[], object] = object  # by default each stage starts its own

    @property
    def toml(self) -> Path:
        return self.folder / "pipeline.toml"

    @property
    def config(self) -> Config:
        return load_config(self.toml)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.config)

    def edit(self, old: str, new: str) -> None:
        """Replace text in pipeline.toml."""
        text = self.toml.read_text()
        assert old in text
        self.toml.write_text(text.replace(old, new))

    def write_profiles(self, tier: str = "gold", form: str = "text") -> None:
        """Profiles and scenarios, of which all have the same attribute; every advertiser joined a year before."""
        (self.folder / "advertiser.sql").write_text(
            "select concat('adv', id) as advertiser_id, date '2023-01-01' as registered_on, "
            f"'{tier}' as tier from range(20)"
        )
        (self.folder / "scenario.sql").write_text(
            f"select scenario_id, '{form}' as form from values ('search'), ('feed') as s (scenario_id)"
        )
        if "[attributes]" not in self.toml.read_text():
            self.edit(
                'performance_daily = "performance_daily.sql"',
                'performance_daily = "performance_daily.sql"\nadvertiser = "advertiser.sql"\nscenario = "scenario.sql"'
                '\n\n[attributes]\nadvertiser = ["tier"]\nscenario = ["form"]',
            )

    def write_day(self, ds: date, rows: pl.DataFrame | None = None) -> Path:
        path = self.folder / "raw" / f"ds={ds}.parquet"
        path.parent.mkdir(exist_ok=True)
        (rows_of_day(ds) if rows is None else rows).write_parquet(path)
        return path

    def write_days(self, first: date, count: int) -> date:
        """Write ``count`` days and return the last."""
        for i in range(count):
            self.write_day(first + timedelta(days=i))
        return first + timedelta(days=count - 1)

    def run(self, stage: str, *arguments: object, spark: bool = True) -> tuple[int, str]:
        """Exit status and everything that was printed. Without ``spark`` none is started."""
        if spark:
            self.start_spark()
        self.capture()
        main = importlib.import_module(f"pipelines.{stage}").main
        try:
            status = exit_status(main, ["--config", str(self.toml), *map(str, arguments)])
        except SystemExit as stopped:  # argparse
            status = int(stopped.code or 0)
        except Exception:  # noqa: BLE001 - what the interpreter does with it: print it, and end with 1
            traceback.print_exc()
            status = 1
        return status, self.capture()

    def rows(self, table: str) -> pl.DataFrame:
        """The whole table, in key order."""
        declared = self.warehouse.declared(table)
        return self.warehouse.scan(table).sort(*declared.key, nulls_last=True)


AS_OF = day(69)


@contextmanager
def seventy_days(
    folder: Path, start_spark: Callable[[], object], rows_of: Callable[[date], pl.DataFrame] = rows_of_day
) -> Iterator[Deployment]:
    """Up to ``AS_OF`` staged and their sequences built, in a home of its own; a week more is delivered.

    The gate is open: what is tested is the way of a model, not the luck of a tiny one.
    """
    folder.mkdir()
    (folder / "pipeline.toml").write_text(
        TOML + "\n[gate]\nmax_ratio_to_baseline = 100.0\nmax_ratio_to_champion = 100.0\n"
    )
    (folder / "performance_daily.sql").write_text(SQL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2M_HOME", str(folder.parent / "home"))
        deployment = Deployment(folder, str, start_spark)
        for number in range(77):
            deployment.write_day(day(number), rows_of(day(number)))
        assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", AS_OF)[0] == 0
        assert deployment.run("build_sequences", "--date", AS_OF)[0] == 0
        yield deployment
