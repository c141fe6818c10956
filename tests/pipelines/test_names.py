"""No name that a data set may give collides with one of ours: the result is that of plain names, whatever they are."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deployment import SQL, TOML

from m2m_model.config import ACTIVE, Name, Task
from m2m_model.data.panel import Panel
from pipelines.config import RESERVED, Attributes, Behavior, Config, Performance, load_config
from pipelines.kernels.sequences import series_of, week_of
from pipelines.quality.rules import count_rows, counters_frame, row_rules
from pipelines.quality.sequences import rules_of_week
from pipelines.quality.turnover import Turnover
from pipelines.stages.restatements import Version, restated_in
from pipelines.warehouse.files import write_file
from pipelines.warehouse.sequences import SERIES, put_together
from pipelines.warehouse.store import Folder
from pipelines.warehouse.tables import known_future, performance_daily, sequence_columns, sequence_week

ROOT = Path(__file__).resolve().parents[2]
FIRST = date(2024, 1, 1)
MOST = 200  # of a kind


def names_of_the_code() -> list[str]:
    """Every word of the code that may name a column: texts, keyword arguments, what SQL says."""
    found: set[str] = set()
    for file in [*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "m2m_model").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value, *node.value.split()} if "\n" not in node.value else set()
            elif isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
    for file in (ROOT / "sql").rglob("*.sql"):
        found |= set(re.findall(r"[A-Za-z_]\w*", file.read_text(encoding="utf-8")))
    rule = typing.get_args(Name)[1]
    found |= {name.lstrip("_") for name in found}
    allowed = {name for name in found if not rule.fault(name) and name.lower() not in RESERVED | {ACTIVE}}
    return sorted({name.lower(): name for name in sorted(allowed)}.values())


def roles(names: list[str]) -> list[list[list[str]]]:
    """The names as metrics, behaviors and two kinds of attributes, each of them as each; and names that one of ours
    would be made of."""
    made = [f"clicks{suffix}" for suffix in ("", "_then", "_right", "_example", "_value", "_1")]
    turns = [[made, ["taps"], ["market"], ["format"]]]
    for start in range(0, len(names), 4 * MOST):
        part = names[start : start + 4 * MOST]
        quarters = [part[n::4] for n in range(4)]
        turns += [quarters[n:] + quarters[:n] for n in range(4)]
    return turns


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("names")
    (folder / "pipeline.toml").write_text(TOML)
    (folder / "performance_daily.sql").write_text(SQL)
    return load_config(folder / "pipeline.toml")


def configured(config: Config, names: list[list[str]]) -> Config:
    metrics, behaviors, advertiser, scenario = names
    tasks = tuple(Task(name, name, "sum") for name in metrics[:50])
    files = dataclasses.replace(
        config.staging, **dict.fromkeys(("behavior_daily", "advertiser", "scenario"), "performance_daily.sql")
    )
    return dataclasses.replace(
        config,
        staging=files,
        performance=tuple(Performance(name, "count") for name in metrics),
        behavior=tuple(Behavior(name) for name in behaviors),
        attributes=Attributes(tuple(advertiser), tuple(scenario)),
        task=tasks,
        checks=dataclasses.replace(config.checks, not_above=()),
    )


def results(config: Config, folder: Path) -> dict[str, Any]:
    """What the kernels make of the same numbers under the configuration's names."""
    metrics, behaviors = config.metric_names, config.behavior_names
    days = [FIRST + timedelta(days=n) for n in range(9)]
    keys = [(day, f"adv{a}", scenario) for day in days for a in range(2) for scenario in ("feed", "search")]
    staged = pl.DataFrame(keys, schema=["ds", *SERIES], orient="row")
    number = pl.int_range(pl.len()).cast(pl.Float64)
    performance = staged.with_columns((number * (m + 1)).alias(name) for m, name in enumerate(metrics))
    shared = pl.when(pl.col("scenario_id") == "feed").then("scenario_id").alias("scenario_id")
    behavior = staged.with_columns(shared, *((number + m).alias(name) for m, name in enumerate(behaviors)))
    behavior = behavior.unique(["ds", *SERIES], maintain_order=True)
    advertiser = pl.DataFrame(
        {"ds": FIRST, "bucket": 0, "advertiser_id": ["adv0"], "registered_on": [FIRST]}
        | {name: [str(n)] for n, name in enumerate(config.attributes.advertiser)}
    )
    scenario = pl.DataFrame(
        {"scenario_id": ["feed"]} | {name: [str(n)] for n, name in enumerate(config.attributes.scenario)}
    )

    parts = [
        week_of(rows(performance), rows(behavior), metrics, behaviors).with_columns(ds=pl.lit(end), bucket=pl.lit(0))
        for end, rows in (
            (days[6], lambda f: f.filter(pl.col("ds") <= days[6])),
            (days[8], lambda f: f.filter(pl.col("ds") > days[6])),
        )
    ]
    weeks = pl.concat(parts).select(column.name for column in sequence_week(config).columns)
    series = series_of(weeks.select("ds", *SERIES, "day"), FIRST, days[8], advertiser, scenario)
    whole = put_together(series, weeks, metrics, behaviors).select(c.name for c in sequence_columns(config))
    panel = Panel.from_sequences(whole.to_arrow(), config.sequence_spec, days[8], 9)
    blocks = panel.performance_XP, panel.behavior_XF, panel.daily_XM

    bad = performance.sort("ds", *SERIES).with_columns(-pl.col(name) for name in metrics)
    rules = row_rules(config, ("ds", *SERIES), FIRST, days[8], dict.fromkeys(metrics, "count"))
    counters = counters_frame(count_rows(0, bad, rules, ("ds", *SERIES)), [rule.check for rule in rules])
    broken = count_rows(0, parts[0], rules_of_week(config), ("ds", *SERIES))

    schema = pa.schema(
        [("ds", pa.date32()), *((key, pa.string()) for key in SERIES), *((m, pa.float64()) for m in metrics)]
    )
    first_day = performance.filter(ds=FIRST)
    looks = [
        Version(age, {0: write_file(rows, schema, Folder(str(folder / str(age))), FIRST, 0)})
        for age, rows in ((0, first_day), (2, first_day.with_columns(pl.col(metrics) + 1)))
    ]
    restated = restated_in(0, looks, schema, config.sequence_spec)
    turnover = Turnover(FIRST, days[8], metrics[0], {}, schema).count(0, performance)
    return {
        "turnover": turnover.sort(pl.all()).rows(),
        "whole": whole.rows(),
        "panel": (*(block.tolist() for block in blocks), panel.keys.num_columns),
        "found": [list(counters[f"negative.{name}"]) for name in metrics],
        "examples": [[re.sub(r"\) \w+=", ") =", x) for x in counters[f"negative.{name}!example"]] for name in metrics],
        "broken": broken.sort(pl.all()).rows(),
        "restated": restated.select("age", "scenario_id", "restated", "total").sort(pl.all()).rows(),
    }


@pytest.mark.slow
def test_any_name_gives_what_plain_names_give(config: Config, tmp_path: Path) -> None:
    names = names_of_the_code()
    assert {"place", "key", "first_row", "value", "example", "task", "count", "select"} <= set(names)
    expected: dict[tuple[int, ...], dict[str, Any]] = {}
    for turn, given in enumerate(roles(names)):
        lengths = tuple(map(len, given))
        if lengths not in expected:
            plain = [[f"plain{role}_{n}" for n in range(length)] for role, length in enumerate(lengths)]
            expected[lengths] = results(configured(config, plain), tmp_path / f"plain{turn}")
        found = results(configured(config, given), tmp_path / f"given{turn}")
        for what, value in expected[lengths].items():
            assert found[what] == value, (turn, what)


def test_reserved_are_the_columns_that_stand_beside_a_data_sets_own(config: Config) -> None:
    ours: set[str] = set()
    for declare in (performance_daily, known_future, sequence_week):
        ours |= {column.name for column in declare(config).columns} - set(config.metric_names)
    ours |= {column.name for column in sequence_columns(config)} - set(config.metric_names)
    assert ours | {"dirt", "source_rows", "plan_day"} == RESERVED
