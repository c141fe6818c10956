"""SQL of a data set that cannot work, and what its data makes of it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from bad_input.corpus import Case, attempt
from deployment import FIRST_DAY, Deployment, rows_of_day

pytestmark = pytest.mark.spark

STAGE = f"stage_sources --date {FIRST_DAY}"
FILE = "performance_daily.sql"
GOOD = "day as ds, who as advertiser_id, place as scenario_id, views, taps, cost as spend"


def _parquet(rows: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    rows.write_parquet(content)
    return content.getvalue()


RAW = {f"raw/ds={FIRST_DAY}.parquet": _parquet(rows_of_day(FIRST_DAY))}


def wrong(sql: str | bytes, *words: str, status: int = 2, name: str = FILE) -> Case:
    """A whole file that cannot work; its name is always said."""
    return Case((name, *words), STAGE, status, files={**RAW, name: sql}, spark=True)


def returning(old: str, new: str, *words: str, status: int = 2) -> Case:
    """The good query with one column otherwise."""
    assert old in GOOD
    return wrong(f"select\n{GOOD.replace(old, new)}\nfrom raw_day", *words, status=status)


def also(new: str, *words: str, status: int = 2) -> Case:
    """The good query with one column more."""
    return wrong(f"select\n{GOOD},\n{new}\nfrom raw_day", *words, status=status)


def beside(table: str, sql: str, *words: str, attributes: str = "", status: int = 2) -> Case:
    """A second file beside the good one."""
    old = 'performance_daily = "performance_daily.sql"'
    edit = (old, f'{old}\n{table} = "{table}.sql"\n{attributes}')
    return Case((table, *words), STAGE, status, edit, files={**RAW, f"{table}.sql": sql}, spark=True)


COMMAND = "is a command, and was not run; the file must hold one SELECT"
BEHAVIOR = '\n[[behavior]]\nname = "logins"\n'
PROFILE = '\n[attributes]\nadvertiser = ["band"]\n'

CASES = {
    "not SQL": wrong("selec 1", "line 1: cannot be parsed at selec"),
    "a word too many": wrong(f"select\n{GOOD}\nfrom raw_day where day is is", "line 3: cannot be parsed at is"),
    "a bracket left open": wrong(f"select {GOOD}\nfrom raw_day where (views > 1", "line 2: cannot be parsed at end"),
    "two statements": wrong(f"select {GOOD} from raw_day;\nselect 1", "line 2: a second statement begins"),
    "a comment alone": wrong("-- select later\n/* or never */ ;", "no query in it; write one SELECT"),
    "nothing": wrong("", "no query in it"),
    "latin-1": wrong(b"select 1,\n'caf\xe9'", "line 2: not UTF-8: byte 0xE9"),
    "UTF-16": wrong("select 1".encode("utf-16"), "line 1: not UTF-8: byte 0xFF"),
    "unknown column": returning("cost as", "costt as", 'line 2: no column "costt"; did you mean "cost"?'),
    "unknown source": wrong(f"select {GOOD}\nfrom raw_dya", 'line 2: no source "raw_dya"; did you mean "raw_day"?'),
    "another database": wrong(f"select {GOOD} from lake.raw", 'no source "lake.raw"; known are raw_day'),
    "unknown function": returning("cost as", "rounded(cost) as", 'no function "rounded"; did you mean "round"?'),
    "unbound parameter": wrong(
        f"select {GOOD} from raw_day where day = :ds", 'nothing is bound to :"ds"; did you mean "to_ds"?'
    ),
    "a question mark": wrong(f"select {GOOD} from raw_day where day = ?", 'bound to "?"; known are from_ds, to_ds'),
    "a parameter without its colon": wrong(
        f"select {GOOD.replace('day as', 'to_ds as')} from raw_day", 'no column "to_ds"; did you mean ":to_ds"?'
    ),
    "brackets in brackets": returning("cost as", f"{'(' * 3000}cost{')' * 3000} as", "divide the query"),
    "a template": wrong(
        f"select {GOOD} from raw_day\nwhere day > '{{{{ ds }}}}'", "line 2: {{ ds }} is filled in by nobody"
    ),
    "a variable of Spark": wrong(f"select {GOOD} from raw_day where who <> '${{x}}'", "${x} is filled in", ":from_ds"),
    "chance": returning("cost as", "cost * rand(1) as", "line 2: rand gives other values whenever it is run"),
    "an id of each run": returning("who as", "UUID () as", "UUID gives other values"),
    "the clock": returning("cost as", "datediff(current_date, day) as", "current_date gives other values"),
    "unknown type": returning("cost as", "cast(cost as doubel) as", "line 2", "DOUBEL"),
    "no group by": returning("cost as", "sum(cost) as", "GROUP BY"),
    "ambiguous": wrong(f"select {GOOD} from raw_day join raw_day as b on true", "line 1", "ambiguous"),
    "a wrong number of arguments": returning("day as", "date_add(day) as", "date_add requires 2 parameters"),
    "types that do not go together": returning("cost as", "cost + day as", "line 2", "data type mismatch"),
    "a regular expression": also("if(who rlike '(', 'drop:x', null) as dirt", "regular expression", "Unclosed group"),
    "a week-based pattern": returning("day as", "to_date(string(day), 'YYYY-MM-dd') as", "pattern", "YYYY-MM-dd"),
    "create table": wrong(f"create table t as select {GOOD} from raw_day", f"line 1: CREATE {COMMAND}"),
    "drop": wrong("-- clean\ndrop table raw_day", f"line 2: DROP {COMMAND}"),
    "set": wrong("set spark.sql.ansi.enabled = false", f"SET {COMMAND}"),
    "cache": wrong("cache table raw_day", f"CACHE {COMMAND}"),
    "insert behind a with": wrong("with a as (select 1)\ninsert into t select * from a", f"line 2: INSERT {COMMAND}"),
    "insert behind a from": wrong("from raw_day insert into t select *", f"INSERT {COMMAND}"),
    "a script": wrong("begin select 1; end", f"BEGIN {COMMAND}"),
    "SQL in SQL": wrong("execute immediate 'drop table raw_day'", f"EXECUTE {COMMAND}"),
    "explain": wrong(f"explain select {GOOD} from raw_day", f"EXPLAIN {COMMAND}"),
    "an id as a number": returning(
        "who as", "length(who) as", "advertiser_id is int, expected string; write cast(... as string) as advertiser_id"
    ),
    "an id as a double": returning("who as", "cost as", "advertiser_id is double, expected string"),
    "a scenario as a flag": returning("place as", "(place = 'feed') as", "scenario_id is boolean, expected string"),
    "a day as text": returning(
        "day as", "string(day) as", "ds is string, expected date; write to_date(..., 'yyyy-MM-dd') as ds"
    ),
    "a day as a number": returning("day as", "int(date_format(day, 'yyyyMMdd')) as", "ds is int", "yyyyMMdd"),
    "a day with a time": returning(
        "day as",
        "(timestamp(day) + interval 7 hours) as",
        "ds is a timestamp with a time of day",
        "2024-01-01 07:00:00",
        "cast(... as date) as ds",
    ),
    "a metric as text": returning("cost as", "string(cost) as", "spend is string, expected double"),
    "a metric as a flag": returning("taps", "(taps > 0) as taps", "taps is boolean, expected double"),
    "a metric as a struct": returning("cost as", "struct(cost) as", "spend is struct<cost:double>, expected double"),
    "two wrong types": returning("views, taps", "string(views) as views, date(day) as taps", "views is", "taps is"),
    "a metric left out": returning(", cost as spend", "", "must return a column spend; it returns ds, advert"),
    "a mistyped metric": returning("as spend", "as spent", 'must return a column spend; did you mean "spent"?'),
    "a column twice": also("cost as spend", "returns the column spend 2 times"),
    "a column twice, once in capitals": also("cost as Spend", "returns the column spend 2 times"),
    "its own bucket": also("1 as bucket", "returns a column bucket, which is made here"),
    "mistyped dirt": also("'drop:x' as dirts", 'returns a column dirts that is not declared; did you mean "dirt"?'),
    "dirt as a flag": also("true as dirt", "dirt is boolean, expected string"),
    "source_rows as text": also("'1' as source_rows", "source_rows is string, expected bigint"),
    "an action that there is not": also("'delete:x' as dirt", "dirt of 18 rows", '"delete:x" of (adv10, feed)'),
    "an action in capitals": also("'DROP:x' as dirt", 'did you mean "drop:x"?', "dirt of 18 rows"),
    "an action with a blank": also(
        "if(who = 'adv3', 'drop :x', null) as dirt", "dirt of 2 rows", 'did you mean "drop:x"?'
    ),
    "a blank before an action": also("' drop:x' as dirt", 'did you mean "drop:x"?'),
    "a blank behind a rule": also("'drop:x ' as dirt", 'did you mean "drop:x"?'),
    "a mistyped action": also("'dropped:test' as dirt", 'did you mean "drop:test"?'),
    "an action without a rule": also("'merge:' as dirt", 'did you mean "merge:<rule>"?'),
    "an empty dirt": also("'' as dirt", "may be: null, drop:<rule>"),
    "a negative count": also("if(who = 'adv3', -1, 1) as source_rows", "source_rows of 2 rows", '"-1" of (adv3'),
    "a count beyond all sums": also(
        "9223372036854775807 as source_rows", "source_rows of 18 rows", "1,000,000,000,000"
    ),
    "a rule of two lines": also("'drop:a\\nb' as dirt", 'First: "drop:a\\nb" of (adv10, feed)'),
    "no count": also("nullif(1, 1) as source_rows", "may be: a number, 0 or more", '"null" of (adv10, feed)'),
    "null in scenario.sql": beside("scenario", "values ('search'), (null) as s (scenario_id)", "1 of 2 rows"),
    "scenarios as numbers": beside("scenario", "select 1 as scenario_id", "scenario_id is int, expected string"),
    "scenario.sql with a day": beside("scenario", "select 'a' as scenario_id, :to_ds as ds", "ds, which is made here"),
    "advertiser.sql without a date": beside(
        "advertiser", "select who as advertiser_id from raw_day", "must return a column registered_on"
    ),
    "a date of registration as text": beside(
        "advertiser", "select who as advertiser_id, '2020-01-01' as registered_on from raw_day", "is string, expected"
    ),
    "an attribute as a number": beside(
        "advertiser",
        "select who as advertiser_id, null as registered_on, 3 as band from raw_day",
        "band is int, expected string; write cast(... as string) as band",
        attributes=PROFILE,
    ),
    "control characters in an attribute": beside(
        "advertiser",
        r"select distinct who as advertiser_id, null as registered_on, 'a\nb' as band from raw_day",
        "control_characters band: found 9; expected no control characters. First: (adv10) band=a\\nb",
        attributes=PROFILE,
        status=3,
    ),
    "an attribute of a megabyte": beside(
        "advertiser",
        "select distinct who as advertiser_id, null as registered_on, repeat('x', 1000000) as band from raw_day",
        "long_attribute band",
        f"band={'x' * 60}",
        attributes=PROFILE,
        status=3,
    ),
    "a rule an advertiser": wrong(
        f"select {GOOD}, concat('drop:', who, place, id) as dirt from raw_day, range(20)",
        "dirt of 360 rows",
        "at most 100 rules",
    ),
    "behavior as text": beside(
        "behavior_daily",
        "select day as ds, who as advertiser_id, null as scenario_id, '1' as logins from raw_day",
        "logins is string, expected double",
        attributes=BEHAVIOR,
    ),
    "division by zero": returning(
        "cost as", "cost / (taps - taps) as", "line 2: Division by zero", "try_divide", "In: cost / (taps - t", status=3
    ),
    "a remainder by zero": returning("cost as", "1 % int(cost - cost) as", "try_mod", "line 2", status=3),
    "a cast of text": returning("cost as", "double(who) as", "line 2", "'adv0'", "DOUBLE", "try_cast", status=3),
    "a cast nobody wrote": returning("cost as", "who + 1 as", "'adv0'", "BIGINT", "In: who + 1", status=3),
    "a cast beyond its range": returning("cost as", "tinyint(views * 100) as", "TINYINT", "try_cast", status=3),
    "text that is no date": returning("day as", "to_date(who, 'yyyy-MM-dd') as", "'adv0' could not be", status=3),
    "an overflow": returning("cost as", "int(views) * 2147483647 as", "overflow", "try_multiply", status=3),
    "a list beyond all limits": returning(
        "cost as", "size(sequence(1, 10000000000)) as", "Can't create array with 10000000000", status=3
    ),
    "bytes that are no text": Case(
        ("lost_characters advertiser_id: found 9", "not UTF-8"),
        STAGE,
        3,
        files={**RAW, FILE: "select " + GOOD.replace("who as", "cast(unhex('61ff') as string) as") + " from raw_day"},
        spark=True,
    ),
    "an element beyond the end": returning(
        "cost as", "element_at(array(cost), 4) as", "index 4 is out of bounds", status=3
    ),
    "several rows for one": returning(
        "cost as", "(select cost from raw_day) as", "More than one row returned by a subquery", status=3
    ),
    "what the query itself refuses": returning(
        "cost as", "if(cost > 0, raise_error('no rate for EUR'), 1) as", "no rate for EUR", status=3
    ),
    "a reserved scenario": Case(
        ("staged.performance_daily ds=2024-01-01", "reserved_id scenario_id: found 18", "not *, which", "(adv10, *)"),
        STAGE,
        3,
        files={**RAW, FILE: "select " + GOOD.replace("place as", "'*' as") + " from raw_day"},
        spark=True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sql_that_cannot_work_is_named(refuse: Callable[[Case], None], name: str) -> None:
    refuse(CASES[name])


def test_a_command_is_refused_before_it_runs(deployment: Deployment, tmp_path: Path) -> None:
    there = tmp_path / "there"
    case = wrong(f"insert overwrite directory '{there}' using csv select * from raw_day", f"INSERT {COMMAND}")
    outcome = attempt(case, deployment, tmp_path / "home")
    assert outcome.status == 2
    assert outcome.line
    assert not there.exists()


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("unknown column", []),
        (
            "division by zero",
            [r"data error, nothing was published:", r"  what to do: docs/operations\.md#\S+; .*\.log"],
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    deployment: Deployment, tmp_path: Path, name: str, others: list[str]
) -> None:
    outcome = attempt(CASES[name], deployment, tmp_path / "home")
    lines = outcome.said.splitlines()
    lines.remove(outcome.line)
    assert len(lines) == len(others), outcome.said
    assert all(map(re.fullmatch, others, lines)), outcome.said


FORGIVEN = {
    "a decimal": "taps / 100.0 as spend",
    "a whole number": "bigint(cost) as spend",
    "a float": "float(cost) as spend",
    "a day at midnight": "timestamp(day) as ds",
    "a day at midnight without a zone": "to_timestamp_ntz(day) as ds",
    "capitals": "place as Scenario_ID",
    "no dirt": "taps, null as dirt, 1 as source_rows",
    "any rule of a known action": "taps, if(who = 'adv3', 'drop:Test account, old', 'repair:x') as dirt",
    "a decimal count": "taps, cast(1 as decimal(20, 0)) as source_rows",
}


@pytest.mark.parametrize("name", FORGIVEN)
def test_types_that_lose_nothing_are_cast(deployment: Deployment, name: str) -> None:
    new = FORGIVEN[name]
    alias = "taps" if new.startswith("taps,") else new.lower().rsplit(" as ", 1)[1]
    columns = [part for part in GOOD.split(", ") if part.split(" as ")[-1] != alias]
    text = f"\ufeff-- Lines of an old Mac.\rselect {', '.join([*columns, new])} from raw_day ;\r\n;-- the end\n"
    (deployment.folder / FILE).write_text(text, encoding="utf-8")
    deployment.write_day(FIRST_DAY)
    status, said = deployment.run("stage_sources", "--date", FIRST_DAY)
    assert status == 0, said
    assert "warning" not in said
    expected = rows_of_day(FIRST_DAY).height - (2 if "drop:" in new else 0)
    assert deployment.rows("staged.performance_daily").height == expected


def test_a_column_that_nobody_declared_is_ignored_and_said(deployment: Deployment) -> None:
    (deployment.folder / FILE).write_text(f"select {GOOD}, taps / views as rate from raw_day")
    deployment.write_day(FIRST_DAY)
    status, said = deployment.run("stage_sources", "--date", FIRST_DAY)
    assert status == 0
    assert "warning: performance_daily.sql" in said
    assert "new_column rate" in said


def test_sql_is_parsed_before_a_source_is_looked_for(deployment: Deployment) -> None:
    (deployment.folder / FILE).write_text("drop table raw_day")
    status, said = deployment.run("stage_sources", "--date", FIRST_DAY + timedelta(days=1))
    assert status == 2, said
