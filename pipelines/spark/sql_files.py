"""SQL lives in files, one statement each, named after the table it makes; this is the one place that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipelines.errors import ConfigError

_HERE = Path(__file__).resolve()
# Beside the packages in a checkout, inside them in a wheel.
SHARED = next(
    (path for path in (_HERE.parents[1] / "sql", _HERE.parents[2] / "sql") if path.is_dir()), _HERE.parents[2]
)


def run_sql(spark: SparkSession, path: Path, **parameters: Any) -> DataFrame:
    """Run the one statement of a SQL file with bound parameters (``:name``).

    Raises:
        ConfigError: the file is missing or empty.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such SQL file")
    text = path.read_text(encoding="utf-8").strip().rstrip(";")
    if not text:
        raise ConfigError(f"{path}: no SQL statement in it")
    return spark.sql(text, args=parameters)
