"""The console's pages. ``main`` runs anew at every click; what was read is kept until a table's next commit.

Addresses: ?page=NAME&date=YYYY-MM-DD&advertiser=ID, for links from elsewhere. Texts from the tables are data: they
reach the browser in cells and tooltips, or quoted (``words.quoted``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import streamlit as st

from pipelines.config import Config, load_config
from pipelines.console import charts, readers, words
from pipelines.console.readers import ALL, FORECAST, PATH, REASON, TOGETHER, Moment, Tables
from pipelines.console.words import figure, percent, quoted
from pipelines.errors import ConfigError, DataError
from pipelines.warehouse.files import DataFile
from pipelines.warehouse.sequences import TABLE as SERIES_TABLE

SHOWN = 200  # rows of a table on a page; downloads have all
DAYS_SHOWN = {"8 weeks": 56, "13 weeks": 91, "all that is kept": 3660}
LARGE = {"index", "at_risk", "movers"}  # what grows with advertisers
ADDED_AT_ONCE = 3_000_000  # rows of weeks that are added up without being asked to
FILES_AT_ONCE = 4_000  # files that are looked at for holes without being asked to: about 2 s
NOT_MADE = "not made yet: run explain"


# --- What was read is kept: by reader, arguments and the snapshots of the tables that it reads


@st.cache_resource(show_spinner=False)
def _opened(path: str, home: str) -> Tables:
    return Tables(load_config(path))


@st.cache_resource(show_spinner=False, max_entries=256, ttl=600)  # whether a file is lost, no commit tells
def _kept(reader: str, of: tuple[Any, ...], arguments: tuple[Any, ...], _moment: Moment) -> Any:
    return getattr(readers, reader)(_moment, *arguments)


@st.cache_resource(show_spinner="Reading the day's advertisers; kept until the next forecast", max_entries=6)
def _kept_large(reader: str, of: tuple[Any, ...], arguments: tuple[Any, ...], _moment: Moment) -> Any:
    return getattr(readers, reader)(_moment, *arguments)


@st.cache_resource(show_spinner=False, max_entries=8192)
def _added_up(path: str, tasks: tuple[str, ...], _moment: Moment, _file: DataFile) -> pl.DataFrame:
    return readers.added_up(_moment, _file)


def ask(moment: Moment, reader: Callable[..., Any], *arguments: Any) -> Any:
    """What a reader finds, read once for the tables as they are."""
    name = reader.__name__
    of = (str(moment.config.home), *moment.snapshots(reader.tables))  # type: ignore[attr-defined]
    return (_kept_large if name in LARGE else _kept)(name, of, arguments, moment)


# --- Moving about


def go(**where: str | None) -> None:
    """To another page, or the same one about something else."""
    for key, value in where.items():
        if value is None:
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = value


def asked_day(days: list[date]) -> tuple[date | None, str]:
    """The day of the address, or the newest; and what to say where that is another one."""
    text = st.query_params.get("date") or os.environ.get("M2M_CONSOLE_DATE", "")
    newest = days[-1] if days else None
    if not text:
        return newest, ""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return newest, f"{quoted(text[:40])} is no day; this is the newest forecast."
    if day in days:
        return day, ""
    before = [known for known in days if known <= day]
    return (before[-1] if before else newest), f"There is no forecast as of {day}; this is the nearest one."


def choose(label: str, options: list[str], show: Callable[[str], str] = str) -> str:
    return st.selectbox(label, options, format_func=show) if len(options) > 1 else options[0]


def how_to_read(text: str) -> None:
    st.caption(f"**How to read this.** {text}")


def click_through(rows: pl.DataFrame, key: str, **columns: Any) -> None:
    """A table whose chosen row leads to its advertiser."""
    shown = rows.head(SHOWN)
    event = st.dataframe(
        shown, hide_index=True, on_select="rerun", selection_mode="single-row", key=key, column_config=columns
    )
    chosen = event.selection.rows
    if chosen and chosen[0] < shown.height:
        go(page="advertiser", advertiser=str(shown["advertiser_id"][chosen[0]]))
        st.rerun()
    more = f"The first {SHOWN} of {rows.height:,} rows. " if rows.height > SHOWN else ""
    st.caption(f"{more}Choose a row, by the box at its left, to open the advertiser.")


def downloads(rows: pl.DataFrame, name: str) -> None:
    """All rows as files, made when they are asked for."""
    left, right, _ = st.columns([1, 1, 4])
    left.download_button(
        f"CSV, {rows.height:,} rows", lambda: readers.to_csv(rows), f"{name}.csv", "text/csv", on_click="ignore"
    )
    right.download_button(
        f"Parquet, {rows.height:,} rows",
        lambda: readers.to_parquet(rows),
        f"{name}.parquet",
        "application/vnd.apache.parquet",
        on_click="ignore",
    )


DAY = st.column_config.DateColumn("as of", format="YYYY-MM-DD")
PERCENT = st.column_config.NumberColumn("probability", format="percent")


def amount(label: str) -> Any:
    return st.column_config.NumberColumn(label, format="localized")


WIDE = st.column_config.TextColumn("cause", width="large")
PEOPLE: dict[str, Any] = {"advertiser_id": "advertiser", "expected": amount("expected")}
FIGURE_LABELS: dict[str, Any] = {
    "horizon_days": st.column_config.NumberColumn("days ahead", width="small"),
    "mean": amount("expected"),
    "p05": st.column_config.NumberColumn("5 % below", format="localized", help="In one case of twenty it is less"),
    "median": st.column_config.NumberColumn("half below", format="localized", help="In half of all cases it is less"),
    "p95": st.column_config.NumberColumn("5 % above", format="localized", help="In one case of twenty it is more"),
    "point": st.column_config.NumberColumn(
        "best single figure", format="localized", help="The one to act on where only one can be used"
    ),
    "p_zero": st.column_config.NumberColumn("chance of 0", format="percent", width="small"),
    "made_by": "made by",
}


def rounded(rows: pl.DataFrame) -> pl.DataFrame:
    """Figures with as many digits as a person reads; probabilities and ratios are below 1, and stay."""
    numbers = [name for name, kind in rows.schema.items() if kind.is_float()]
    return rows.with_columns(
        pl.when(pl.col(name).abs() >= 10).then(pl.col(name).round(1)).otherwise(pl.col(name).round(3)).alias(name)
        for name in numbers
    )


# --- Pages


def front(moment: Moment, day: date) -> None:
    config = moment.config
    st.header(f"{config.dataset.name}: forecast as of {day}")
    how_to_read(
        "Each figure is what all advertisers together are expected to reach. The range below it holds nine times out "
        "of ten. Warnings come first; where there is none, there is nothing to do."
    )
    for line in warnings_of(moment, day):
        st.warning(line)
    days = moment.days(FORECAST)
    earlier = max((known for known in days if known < day), default=None)
    rows = ask(moment, readers.totals, tuple(filter(None, (earlier, day)))).filter(pl.col("level") == "platform")
    if rows.is_empty():
        st.info(f"No totals of {day}: homes of before have none. They come with the next `score`.")
        return
    for horizon in config.dataset.horizons:
        st.subheader(f"The next {horizon} days, {words.span(day, horizon)}")
        for place, task in zip(st.columns(len(config.task)), config.task, strict=True):
            of = rows.filter(pl.col("task") == task.name, pl.col("horizon_days") == horizon)
            now, then = (of.filter(pl.col("ds") == ds) for ds in (day, earlier))
            if now.is_empty():
                continue
            row = now.row(0, named=True)
            change = (
                f"{row['mean'] / then['mean'][0] - 1:+.1%} against {earlier}"
                if then.height and then["mean"][0]
                else None
            )
            title = words.titled(config, task.name)
            place.metric(quoted(title), figure(row["mean"]), change, border=True, delta_color="off")
            place.caption(
                f"90 %: {figure(row['p05'])} .. {figure(row['p95'])}; {row['series']:,} series (an advertiser in a "
                f"scenario)"
            )
    known = days[-60:]
    main, horizon = readers.main_task(config), config.dataset.horizon_days
    if len(known) > 2:
        over = ask(moment, readers.totals, tuple(known)).filter(
            pl.col("level") == "platform", pl.col("task") == main, pl.col("horizon_days") == horizon
        )
        st.subheader(f"How the forecast of {quoted(main)} went from day to day")
        st.altair_chart(charts.over_time(over, words.unit(config, main) or main, horizon))
        how_to_read("The line is what was expected of the platform, as of each day; the band its 90 % interval.")


def warnings_of(moment: Moment, day: date) -> list[str]:
    """What a person should know before believing the page."""
    config, found = moment.config, list[str]()
    newest, today = max(moment.days(FORECAST)), datetime.now(UTC).date()
    behind = (today - newest).days - 1
    if behind > 0:
        found.append(
            f"**The newest forecast is as of {newest}**, and yesterday ended {behind:,} days later. If data have ended "
            f"there, all is well. Else make the day: `python -m pipelines.day --config {config.path} --date "
            f"{today - timedelta(days=1)}`"
        )
    if moment.newest_history and moment.newest_history > newest:
        found.append(
            f"Data are there up to {moment.newest_history}, and were not forecast from: `python -m pipelines.score "
            f"--config {config.path} --date {moment.newest_history}`"
        )
    failed = ask(moment, readers.failed_checks, 7)
    if (critical := failed.filter(pl.col("severity") == "critical")).height:
        first = critical.row(0, named=True)
        found.append(
            f"Critical checks that failed in the last 7 checked days: {critical.height}, the newest of {first['ds']} "
            f"in {quoted(first['table'])}. See Operations."
        )
    decided = ask(moment, readers.decisions)
    if not decided.filter("promoted").height:
        found.append("No model has been promoted: the best simple rule makes the forecasts. See Operations.")
    return found


def advertiser(moment: Moment, day: date) -> None:
    config = moment.config
    known = ask(moment, readers.index, day)
    names = list(config.attributes.advertiser)
    chosen = st.query_params.get("advertiser", "")
    own = known.filter(pl.col("advertiser_id") == chosen) if chosen else known.head(0)
    if own.is_empty():
        st.header("Find an advertiser")
        if chosen:
            st.warning(
                f"There is no advertiser {quoted(chosen[:200])} as of {day}. Ids that have it as a part are below."
            )
        _search(known, names, chosen)
        return
    row = own.row(0, named=True)
    st.button("Find another advertiser", on_click=go, kwargs={"advertiser": None})
    st.header(quoted(chosen), anchor=False)
    ranked, place = readers.group(known, chosen, names)
    attributes = [f"{quoted(name)}: {quoted(row[name] if row[name] is not None else 'unknown')}" for name in names]
    task, horizon = readers.main_task(config), config.dataset.horizon_days
    alike = "with the same attributes" if names else "advertisers"
    attributes.append(f"{row['scenarios']} scenarios" if row["scenarios"] > 1 else "1 scenario")
    attributes.append(f"number {place:,} of the {ranked.height:,} {alike}, by expected {quoted(task)}")
    st.markdown("; ".join(attributes))
    bucket = int(row["bucket"])
    made = ask(moment, readers.forecasts, day, bucket, chosen)
    if made.is_empty():
        st.info(f"No forecast of it as of {day}: it has no recent row, or joined later.")
        return
    _risk(moment, day, bucket, chosen)
    tasks = [each.name for each in config.task if each.name in set(made["task"])]
    tasks.sort(key=lambda name: name != task)
    scenarios = [
        name for name in (TOGETHER, *sorted(set(made["scenario_id"]) - {TOGETHER})) if name in set(made["scenario_id"])
    ]
    left, middle, right, last = st.columns(4)
    with left:
        task = choose("Task", tasks, lambda name: words.titled(config, name))
    with middle:
        scenario = choose("Scenario", scenarios)
    with right:
        horizon = int(choose("Horizon, days", [str(days) for days in config.dataset.horizons[::-1]]))
    with last:
        shown = DAYS_SHOWN[choose("History", list(DAYS_SHOWN))]
    of = made.filter(pl.col("task") == task, pl.col("scenario_id") == scenario, pl.col("horizon_days") == horizon)
    if of.height:
        st.markdown(
            f"**{quoted(task)}, {quoted(scenario)}:** {quoted(words.expectation(of.row(0, named=True)))} Known at the "
            f"end of {day}."
        )
    _pictures(moment, day, bucket, chosen, scenario, task, horizon, shown, of)
    _reasons(moment, day, bucket, chosen)
    _all_forecasts(made)
    st.subheader("Who else is in its group")
    how_to_read(
        f"{'Advertisers with the same attributes' if names else 'All advertisers'}, by the "
        f"{quoted(readers.main_task(config))} that is expected of them: the largest, and those around place {place:,}."
    )
    around = ranked.filter((pl.col("place") <= 5) | (pl.col("place").cast(pl.Int64) - place).abs().le(3))
    click_through(rounded(around.drop("bucket")), f"group of {chosen}", **PEOPLE)


def _all_forecasts(made: pl.DataFrame) -> None:
    st.subheader("All its forecasts")
    who = pl.struct("method", "model_version", "reason").map_elements(
        lambda row: words.method(row["method"], row["model_version"], row["reason"]), pl.String
    )
    columns = ["scenario_id", "task", "horizon_days", "mean", "p05", "p95", "point", "p_zero"]
    st.dataframe(
        rounded(made.select(*columns, made_by=who)),
        hide_index=True,
        height="content" if made.height <= 20 else "auto",
        column_config=FIGURE_LABELS | {"scenario_id": st.column_config.TextColumn("scenario", width="medium")},
    )


def _search(known: pl.DataFrame, names: list[str], chosen: str) -> None:
    text = st.text_input("Id, or a part of it", value=chosen[:200], placeholder="any part of an id")
    wanted = {}
    if names:
        for place, name in zip(st.columns(len(names)), names, strict=True):
            values = known[name].unique().drop_nulls().cast(pl.String).sort().to_list()
            picked = place.selectbox(name, ["any", *values[:1000]])
            wanted[name] = "" if picked == "any" else picked
    found = readers.find(known, text, wanted)
    how_to_read(
        "The id itself comes first, then ids that begin with the text, then others that have it, the largest expected "
        "first."
    )
    st.markdown(f"{found.height:,} of {known.height:,} advertisers")
    if found.height:
        click_through(rounded(found.head(SHOWN).drop("bucket")), "found", **PEOPLE)


def _risk(moment: Moment, day: date, bucket: int, chosen: str) -> None:
    rows = ask(moment, readers.risk_of, day, bucket, chosen)
    for row in rows.filter(pl.col("probability") >= 0.2).sort("probability", descending=True).iter_rows(named=True):
        days = row["horizon_days"] or moment.config.dataset.horizon_days
        value = f", {figure(row['value_at_risk'])} at risk" if row["value_at_risk"] is not None else ""
        st.warning(
            f"May leave {quoted(row['scenario_id'])}: no active day in the next {days} days with "
            f"{percent(row['probability'])}{value}."
        )


def _pictures(
    moment: Moment,
    day: date,
    bucket: int,
    chosen: str,
    scenario: str,
    task: str,
    horizon: int,
    shown: int,
    of: pl.DataFrame,
) -> None:
    config, last = moment.config, moment.newest_history
    if last is None:
        return
    rows = ask(moment, readers.history, bucket, chosen, shown + (last - day).days)
    since = day - timedelta(days=shown - 1)
    first = max([since, *rows["day"].head(1)]) if rows.height else day  # rows are in order of days within a scenario
    unit = words.unit(config, task) or task
    amounts = readers.per_day(rows, scenario, task, first, min(last, day + timedelta(days=horizon)))
    ahead, pathed = _ahead(moment, day, bucket, chosen, scenario, task, horizon, of)
    st.subheader("Day by day")
    st.altair_chart(charts.daily(amounts, ahead, day, unit))
    if pathed is not None:
        by = "by the habits of its weekdays"
    else:
        by = "the total spread evenly, with its 90 % interval (its own days are not made yet: run score)"
    how_to_read(f"Bars are what it did. The orange line is what is expected of each day to come, {by}.")
    if pathed is not None and pathed.height:
        came = amounts.filter(pl.col("day") > day).with_columns(cumulated=pl.col("amount").cum_sum())
        st.subheader("Adding up through the horizon")
        st.altair_chart(charts.running(pathed, came, unit))
        how_to_read(
            "The orange line is what should have come together by each day; nine times out of ten it is within the "
            "band. Blue is what came."
        )
    st.subheader(f"Totals of {horizon} days, and what was forecast of them")
    earlier = readers.apart(moment.days(FORECAST), day, horizon, max(4, min(12, shown // horizon)))
    earlier = [ds for ds in earlier if ds >= first - timedelta(days=1)]
    past = ask(moment, readers.past_forecasts, tuple(earlier), bucket, chosen)
    every = pl.concat([past, of.select(past.columns)]).filter(
        pl.col("task") == task, pl.col("scenario_id") == scenario, pl.col("horizon_days") == horizon
    )
    every = every.with_columns(first=pl.col("ds") + timedelta(days=1), day=pl.col("ds") + timedelta(days=horizon))
    known = readers.per_day(rows, scenario, task, first, last)
    st.altair_chart(charts.blocks(readers.in_blocks(known, day, horizon), every, unit, horizon))
    how_to_read(
        f"Bars are totals of {horizon} days. Over them lies what was forecast of such days beforehand: the orange line "
        "is the expected total, the dark box holds half of all cases, the light one nine in ten. A bar that ends "
        "within the light box was foreseen."
    )
    _came(every, known, last)


def _ahead(
    moment: Moment, day: date, bucket: int, chosen: str, scenario: str, task: str, horizon: int, of: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """What is expected of each day to come; and the path, where it is known."""
    if moment.has(PATH):
        rows = ask(moment, readers.path, day, bucket, chosen)
        rows = rows.filter(pl.col("task") == task, pl.col("day") <= day + timedelta(days=horizon))
        if scenario != TOGETHER:
            rows = rows.filter(pl.col("scenario_id") == scenario)
        if rows.height:  # what is expected adds up over scenarios; intervals do not
            ahead = rows.group_by("day").agg(pl.sum("expected")).sort("day")
            none = pl.lit(None, pl.Float64)
            return ahead.with_columns(low=none, high=none), rows.sort("day") if scenario != TOGETHER else rows.head(0)
    if of.is_empty():
        return pl.DataFrame(
            schema={"day": pl.Date, "expected": pl.Float64, "low": pl.Float64, "high": pl.Float64}
        ), None
    row = of.row(0, named=True)
    days = [day + timedelta(days=n) for n in range(1, horizon + 1)]
    even = {"expected": row["mean"] / horizon, "low": row["p05"] / horizon, "high": row["p95"] / horizon}
    return pl.DataFrame({"day": days}).with_columns(**{name: pl.lit(value) for name, value in even.items()}), None


def _came(every: pl.DataFrame, known: pl.DataFrame, last: date) -> None:
    """Past forecasts beside what came of them."""
    over = every.filter(pl.col("day") <= last)
    if over.is_empty():
        st.caption("No earlier forecast of it has come to its end yet.")
        return
    rows = []
    for row in over.iter_rows(named=True):
        came = float(known.filter(pl.col("day").is_between(row["first"], row["day"]))["amount"].sum())
        within = row["p05"] <= came <= row["p95"]
        rows.append(
            {
                "forecast as of": row["ds"],
                "expected": row["mean"],
                "90 %": f"{figure(row['p05'])} .. {figure(row['p95'])}",
                "came": came,
                "within": "yes" if within else "no",
                "made by": words.method(row["method"], row["model_version"], row["reason"]),
            }
        )
    held = sum(row["within"] == "yes" for row in rows)
    st.markdown(f"{held} of {len(rows)} earlier forecasts held what came within their 90 % interval.")
    st.dataframe(rounded(pl.DataFrame(rows)), hide_index=True, column_config={"forecast as of": DAY})


def _reasons(moment: Moment, day: date, bucket: int, chosen: str) -> None:
    st.subheader("Reasons")
    if not moment.has(REASON):
        st.caption(f"Reasons: {NOT_MADE}.")
        return
    rows = ask(moment, readers.reasons, day, bucket, chosen)
    if rows.is_empty():
        st.caption("None for this one: reasons are made for the largest of those at risk, and for the biggest movers.")
        return
    how_to_read("Each line is a cause and what the forecast would lose (or gain) without it; the strongest first.")
    shown = rows.select("kind", "scenario_id", "task", "horizon_days", "rank", "words", "effect")
    shown = shown.with_columns(pl.col("kind").replace({"at_risk": "risk of leaving", "mover": "its change"}))
    labels: dict[str, Any] = {
        "kind": "about",
        "scenario_id": "scenario",
        "horizon_days": "days ahead",
        "words": WIDE,
    }
    st.dataframe(rounded(shown), hide_index=True, column_config=labels)


def movers(moment: Moment, day: date) -> None:
    config = moment.config
    days = moment.days(FORECAST)
    earlier = max((known for known in days if known < day), default=None)
    st.header("Whose forecast moved most")
    task, horizon = _task_and_horizon(config)
    rows = ask(moment, readers.movers, day, earlier, task, horizon)
    if rows.is_empty():
        st.info(
            f"Nothing to compare {day} with."
            if earlier is None
            else f"No forecast changed between {earlier} and {day}."
        )
        return
    unit = words.unit(config, task) or task
    by_cause = [name for name in readers.CAUSES if name in rows.columns]
    how_to_read(
        f"The change of what is expected in {horizon} days, as of {day} against {rows['compared_with'][0]}. "
        + (
            "It is split by cause: days that are new, earlier days that were corrected, another model, other "
            "calibration."
            if by_cause
            else f"By advertiser, over all its scenarios. The causes are {NOT_MADE}."
        )
    )
    names = [pl.col("advertiser_id"), *([pl.lit(" · "), pl.col("scenario_id")] if by_cause else [])]
    top = rows.head(15).with_columns(who=pl.concat_str(names))
    if by_cause:
        long = top.unpivot(by_cause, index="who", variable_name="cause", value_name="amount")
        long = long.with_columns(pl.col("cause").replace(readers.CAUSES))
    else:
        long = top.select("who", cause=pl.lit("all causes together"), amount="change")
    order = pl.DataFrame({"who": top["who"], "at": range(top.height)})
    st.altair_chart(charts.causes(long.join(order, on="who").sort("at").drop("at"), unit))
    columns = ["advertiser_id", *(["scenario_id"] if by_cause else []), "before", "after", "change", *by_cause]
    columns += [name for name in ("reason", "note") if name in rows.columns and rows[name].is_not_null().any()]
    labels = {"advertiser_id": "advertiser", "scenario_id": "scenario", **readers.CAUSES}
    shown = rows.select(columns)
    click_through(rounded(shown), "movers", **labels)
    downloads(shown, f"movers-{day}-{task}")


def _task_and_horizon(config: Config) -> tuple[str, int]:
    main = readers.main_task(config)
    tasks = sorted((each.name for each in config.task), key=lambda name: name != main)
    left, right, _ = st.columns([1, 1, 2])
    with left:
        task = choose("Task", tasks, lambda name: words.titled(config, name))
    with right:
        horizon = int(choose("Horizon, days", [str(days) for days in config.dataset.horizons[::-1]]))
    return task, horizon


def leaving(moment: Moment, day: date) -> None:
    config = moment.config
    st.header("Who may leave")
    horizon = int(choose("Horizon, days", [str(days) for days in config.dataset.horizons[::-1]]))
    rows = ask(moment, readers.at_risk, day, horizon, config.dataset.horizon_days)
    if rows.is_empty():
        st.info("Nobody is listed: no task counts active days, or the day was not scored.")
        return
    left, right, _ = st.columns([1, 1, 2])
    scenarios = ["all", *sorted(set(rows["scenario_id"].unique()))]
    scenario = left.selectbox("Scenario", scenarios)
    least = right.slider("At least this likely, %", 0, 100, 20, step=5) / 100
    chosen = rows.filter(pl.col("probability") >= least)
    if scenario != "all":
        chosen = chosen.filter(pl.col("scenario_id") == scenario)
    money = config.money_task
    unit = words.unit(config, money) if money else ""
    how_to_read(
        f"Probability: of not one active day in the scenario in the next {horizon} days. "
        + (
            f"Value at risk: that, times the {quoted(money)} that is expected"
            + (f" ({quoted(unit)})" if unit else "")
            + ". The largest comes first."
            if money
            else ""
        )
        + ("" if "reason" in rows.columns else f" Reasons: {NOT_MADE}.")
    )
    together = f", {figure(float(chosen['value_at_risk'].sum()))} {quoted(unit)} at risk together" if money else ""
    st.markdown(f"**{chosen.height:,}** of {rows.height:,} series{together}")
    shown = chosen.drop("bucket")
    click_through(
        rounded(shown.head(SHOWN)) if shown.height <= SHOWN else rounded_head(shown),
        "at risk",
        advertiser_id="advertiser",
        scenario_id="scenario",
        probability=PERCENT,
        value_at_risk=amount("value at risk"),
        reason=st.column_config.TextColumn("strongest reason", width="large"),
    )
    downloads(shown, f"may-leave-{day}")


def rounded_head(rows: pl.DataFrame) -> pl.DataFrame:
    """Only what is shown is rounded, the rest is counted."""
    return pl.concat([rounded(rows.head(SHOWN)), rows.slice(SHOWN)])


def totals(moment: Moment, day: date) -> None:
    config = moment.config
    st.header("Totals")
    task, horizon = _task_and_horizon(config)
    unit = words.unit(config, task) or task
    rows = ask(moment, readers.totals, (day,)).filter(pl.col("task") == task, pl.col("horizon_days") == horizon)
    if rows.is_empty():
        st.info(f"No totals of {day}: they come with `score`.")
        return
    how_to_read(
        "The line is what is expected, the dark bar holds half of all cases, the light one nine in ten. A total's "
        "interval is its own: narrower than its parts' added up, as far as these go wrong apart from each other."
    )
    platform = rows.filter(pl.col("level") == "platform")
    if platform.height:
        row = platform.row(0, named=True)
        st.markdown(f"**All together:** {quoted(words.expectation({**row, 'method': 'together'}))}")
    _totals_history(moment, day, task, unit, horizon)
    levels = {"Scenarios": rows.filter(pl.col("level") == "scenario")}
    for name in rows.filter(pl.col("level") == "attribute")["name"].unique().sort():
        levels[name] = rows.filter(pl.col("level") == "attribute", pl.col("name") == name)
    for title, part in levels.items():
        if part.is_empty():
            continue
        st.subheader(quoted(title))
        named = part.with_columns(who=pl.col("value").fill_null("unknown, or rare")).sort("mean", descending=True)
        st.altair_chart(charts.fans(named.head(20), unit, horizon))
        if named.height > 20:
            st.caption(f"The 20 largest of {named.height:,}; the table has all.")
    st.subheader("All of them")
    table = rows.select("level", "name", "value", "series", *readers.FIGURES)
    shown = table.select("level", "name", "value", "series", "mean", "p05", "median", "p95", "point", "p_zero")
    st.dataframe(rounded(shown), hide_index=True, column_config=FIGURE_LABELS | {"name": "attribute"})
    downloads(table, f"totals-{day}-{task}")


def _totals_history(moment: Moment, day: date, task: str, unit: str, horizon: int) -> None:
    st.subheader(f"History, and what was forecast of it: {quoted(task)} in {horizon} days")
    files = ask(moment, readers.history_files, 91)
    tasks = tuple(each.name for each in moment.config.task)
    size = sum(file.rows for file in files)
    asked = st.session_state.get("add up") == [file.path for file in files]
    if size > ADDED_AT_ONCE and not asked:
        st.caption(
            f"The history of all advertisers is {size:,} weeks of series; to add them up takes about "
            f"{size // 400_000 + 1} s, once."
        )
        if not st.button("Add up the history"):
            return
    bar, parts = st.empty(), []
    for number, file in enumerate(files):
        if size > ADDED_AT_ONCE:
            bar.progress((number + 1) / len(files), f"{number + 1} of {len(files)} files")
        parts.append(_added_up(file.path, tasks, moment, file))
    bar.empty()
    st.session_state["add up"] = [file.path for file in files]
    rows, last = readers.joined(parts, moment.config), moment.newest_history
    if rows.is_empty() or last is None:
        st.caption("No history is there.")
        return
    options = [TOGETHER, *sorted(rows["scenario_id"].unique())]
    scenario = choose("Of", options)
    first = rows["day"].min()
    known = readers.per_day(rows, scenario, task, first, last)  # type: ignore[arg-type]
    earlier = [*readers.apart(moment.days(FORECAST), day, horizon, 12), day]
    made = ask(moment, readers.totals, tuple(earlier)).filter(pl.col("task") == task, pl.col("horizon_days") == horizon)
    made = (
        made.filter(pl.col("level") == "platform")
        if scenario == TOGETHER
        else made.filter(pl.col("level") == "scenario", pl.col("value") == scenario)
    )
    made = made.with_columns(first=pl.col("ds") + timedelta(days=1), day=pl.col("ds") + timedelta(days=horizon))
    st.altair_chart(charts.blocks(readers.in_blocks(known, day, horizon), made, unit, horizon))
    how_to_read(
        "Bars are what came, boxes what was forecast of it beforehand: dark for half of all cases, light for nine in "
        "ten."
    )


def accuracy(moment: Moment, day: date) -> None:
    config = moment.config
    st.header("How good the forecasts were")
    task, horizon = _task_and_horizon(config)
    st.subheader("Published forecasts, once their days had passed")
    rows = ask(moment, readers.quality)
    of = rows.filter(pl.col("task") == task, pl.col("horizon_days").fill_null(config.dataset.horizon_days) == horizon)
    if of.is_empty():
        st.info(
            f"No published forecast has come to its end yet: that takes {config.dataset.label_days} days, and "
            f"`monitor` then judges it."
        )
    else:
        of = of.with_columns(day="ds")
        whole = of.filter(pl.col("scenario_id") == ALL)
        makers = whole.with_columns(
            by=pl.col("method").map_elements(
                lambda text: "all together" if text == ALL else words.method(text), pl.String
            )
        )
        st.altair_chart(charts.lines(makers, "nmae", "error: all misses / all that came", "by"))
        how_to_read(
            "The error is the sum of all misses over the sum of what came: 0.30 means that on average 30 % were "
            "missed. Lower is better."
        )
        levels = whole.filter(pl.col("method") == ALL).unpivot(
            ["coverage_50", "coverage_90"], index="day", variable_name="level", value_name="share"
        )
        levels = levels.with_columns(
            pl.col("level").replace({"coverage_50": "50 % interval", "coverage_90": "90 % interval"})
        )
        st.altair_chart(charts.lines(levels.drop_nulls("share"), "share", "share of cases within", "level", 0.9, True))
        how_to_read(
            "How often what came lay within the interval: the 50 % interval should hold half, the 90 % interval nine "
            "in ten (dashed). "
            "Where much is exactly 0, both hold more."
        )
    _backtest(moment, task, horizon)


def _backtest(moment: Moment, task: str, horizon: int) -> None:
    config = moment.config
    rows = ask(moment, readers.backtest)
    rows = rows.filter(pl.col("task") == task, pl.col("horizon_days").fill_null(config.dataset.horizon_days) == horizon)
    st.subheader("Against the alternatives, on days that nobody had seen")
    if rows.is_empty():
        st.info("No backtest yet: it comes with the first training (DAG m2m_training).")
        return
    st.caption(f"Newest backtest: as of {rows['ds'].max()}.")
    whole = rows.filter(pl.col("cutoff").is_null(), pl.col("scenario_id") == ALL)
    named = whole.with_columns(
        who=pl.col("forecaster").map_elements(_who, pl.String),
        ours=pl.col("forecaster").is_in(list(words.WHOSE)),
        error="nmae",
    ).drop_nulls("error")
    if named.height:
        st.altair_chart(charts.compared(named, "error: all misses / all that came"))
        best = named.sort("error").row(0, named=True)
        st.markdown(f"Least error: **{quoted(best['who'])}**, {best['error']:.3f}.")
        how_to_read(
            "All forecast the same series of the same days. Shorter is better; orange is M2M, the others are simple "
            "rules and LightGBM."
        )
    _worth(moment, task, horizon)
    calibration = rows.filter(pl.col("cutoff").is_null(), pl.col("forecaster").is_in(list(words.WHOSE)))
    if calibration.height:
        st.subheader("By scenario")
        shown = calibration.select("scenario_id", "forecaster", "n", "nmae", "bias", "coverage_50", "coverage_90")
        shown = shown.with_columns(
            pl.col("scenario_id").replace({ALL: "all together"}), pl.col("forecaster").replace(words.WHOSE)
        )
        labels = {
            "scenario_id": "scenario",
            "forecaster": "who",
            "n": "forecasts compared",
            "nmae": "error",
            "bias": "too high (+) or low (-)",
            "coverage_50": "within 50 % interval",
            "coverage_90": "within 90 % interval",
        }
        st.dataframe(rounded(shown), hide_index=True, column_config=labels)


def _who(name: str) -> str:
    """A forecaster of the backtest."""
    return words.WHOSE.get(name, f"{words.BASELINES.get(name, name)} ({name})")


def _worth(moment: Moment, task: str, horizon: int) -> None:
    config = moment.config
    figures = ask(moment, readers.backtest_value).filter(
        pl.col("scenario_id") == ALL,
        pl.col("part").is_null(),
        pl.col("horizon_days").fill_null(config.dataset.horizon_days) == horizon,
        (pl.col("task") == task) | pl.col("figure").str.starts_with("churn_"),
        pl.col("figure").is_in(list(VALUES)),
    )
    if figures.is_empty():
        return
    st.subheader("What it is worth")
    how_to_read(
        "Besides the error: does a forecast put the right advertisers first, and did it know who would leave? What a "
        "column means is said where you point at its name."
    )
    wide = figures.pivot("figure", index="forecaster", values="value", aggregate_function="first")
    named = wide.with_columns(who=pl.col("forecaster").map_elements(_who, pl.String))
    shown = named.select("who", *(name for name in VALUES if name in named.columns))
    labels = {name: st.column_config.NumberColumn(label, help=help) for name, (label, help) in VALUES.items()}
    st.dataframe(rounded(shown), hide_index=True, column_config=labels)


VALUES = {
    "gini": ("order", "Ranks advertisers as they then did: 1 = perfectly, 0 = by chance"),
    "top_decile_capture": ("top tenth", "Share of all that the tenth with the highest forecasts brought"),
    "churn_auc": ("leavers first", "Puts those who left before those who stayed: 1 = always, 0.5 = by chance"),
    "churn_brier": ("error of leaving", "Mean squared error of the probability of leaving: lower is better"),
    "churn_brier_base": ("with one rate", "The same error, had all been given the same probability"),
}


def operations(moment: Moment, day: date) -> None:
    config = moment.config
    st.header("Operations")
    how_to_read("What serves, what ran, what is missing, and the command that mends it: copy it into a terminal.")
    st.subheader("Models")
    decided = ask(moment, readers.decisions)
    promoted = decided.filter("promoted", ~pl.col("dry_run"))
    if promoted.is_empty():
        st.warning("No model has been promoted: the best simple rule makes the forecasts.")
    else:
        row = promoted.row(0, named=True)
        age = (datetime.now(UTC).replace(tzinfo=None) - row["decided_at"]).days
        learned = (day - row["ds"]).days
        st.markdown(
            f"Version **{quoted(row['challenger'])}** serves, promoted {age:,} days ago; it was judged as of "
            f"{row['ds']}, {learned:,} "
            f"days before this forecast."
        )
    if decided.height:
        st.dataframe(
            rounded(decided.select("decided_at", "ds", "challenger", "champion", "promoted", "dry_run", "reason")),
            hide_index=True,
            column_config={
                "decided_at": st.column_config.DatetimeColumn("decided (UTC)", format="YYYY-MM-DD HH:mm"),
                "ds": DAY,
                "challenger": "new version",
                "champion": "version before",
                "dry_run": "rehearsal",
            },
        )
    _holes(moment)
    st.subheader("Checks that did not hold, last 14 checked days")
    failed = ask(moment, readers.failed_checks, 14)
    if failed.is_empty():
        st.success("All held.")
    else:
        mend = pl.format(
            "python -m pipelines.{} --config {} --date {}", pl.col("stage"), pl.lit(str(config.path)), pl.col("ds")
        )
        shown = failed.with_columns(again=pl.when(pl.col("severity") == "critical").then(mend))
        shown = shown.select(
            "ds", "severity", "table", "check", "column", "scenario", "expected", "found", "example", "again"
        )
        st.dataframe(
            rounded(shown.head(SHOWN)), hide_index=True, column_config={"ds": DAY, "again": "after mending the data"}
        )
        st.caption("Critical checks stopped their run: nothing of it was published. Warnings let it go on.")
    st.subheader("Runs, the newest first")
    labels: dict[str, Any] = {
        "published_at": st.column_config.DatetimeColumn("published (UTC)", format="YYYY-MM-DD HH:mm"),
        "days": "of",
        "run_id": "run",
        "code": "code version",
    }
    st.dataframe(ask(moment, readers.runs), hide_index=True, column_config=labels)


def _holes(moment: Moment) -> None:
    st.subheader("Missing, stale and lost days")
    newest = [max(moment.days(name)) for name in (FORECAST, SERIES_TABLE) if moment.days(name)]
    if not newest:
        st.caption("Nothing was forecast yet.")
        return
    last = max(newest)
    first = max(moment.config.dataset.first_day, last - timedelta(days=27))
    files = readers.files_known(moment)
    if files > FILES_AT_ONCE and not st.button(f"Look through {files:,} files (about {files // 1500} s)"):
        return
    rows, mend = ask(moment, readers.holes, first, last)
    wrong = rows.filter((pl.col("missing") != "") | (pl.col("stale") != "") | (pl.col("lost") != ""))
    how_to_read(
        f"The 28 days up to {last}. Missing: never written. Stale: made from something that has changed since. Lost: "
        f"a file is gone."
    )
    if wrong.is_empty():
        st.success("Nothing is missing, stale or lost.")
        return
    st.dataframe(wrong, hide_index=True)
    if mend:
        st.markdown("To mend it, in this order:")
        st.code("\n".join(mend), language="bash", height=280 if len(mend) > 10 else "content")


PAGES: dict[str, tuple[str, Callable[[Moment, date], None]]] = {
    "front": ("Today", front),
    "advertiser": ("Advertiser", advertiser),
    "movers": ("Movers", movers),
    "leaving": ("Who may leave", leaving),
    "totals": ("Totals", totals),
    "accuracy": ("Accuracy", accuracy),
    "operations": ("Operations", operations),
}
SECTIONS = {"checks": "operations", "models": "operations"}  # links of messages name what they are about


def main() -> None:
    st.set_page_config("M2M forecasts", layout="wide")  # an icon of its own would be fetched from the network
    config_path = os.environ.get("M2M_CONFIG", "")
    try:
        moment = _opened(config_path, os.environ.get("M2M_HOME", "")).now()
        page(moment)
    except (ConfigError, DataError) as error:
        st.error(quoted(error))


def _find_wanted() -> None:
    go(page="advertiser", advertiser=st.session_state["wanted"].strip())


def page(moment: Moment) -> None:
    days = moment.days(FORECAST)
    day, note = asked_day(days)
    asked = st.query_params.get("page", "front")
    current = SECTIONS.get(asked, asked if asked in PAGES else "front")
    with st.sidebar:
        st.title("M2M forecasts")
        st.caption(quoted(moment.config.dataset.name))
        names = list(PAGES)
        chosen = st.radio("Page", names, names.index(current), format_func=lambda name: PAGES[name][0])
        if day is not None:
            newest_first = days[::-1]
            picked = st.selectbox("Forecast as of", newest_first, newest_first.index(day), format_func=str)
            if picked != day:
                go(date=str(picked))
                st.rerun()
        st.text_input("Find an advertiser", key="wanted", placeholder="id, or a part of it", on_change=_find_wanted)
        if chosen != current:
            go(page=chosen)
            st.rerun()
        st.caption("Reads the tables as they are now; changes nothing.")
    if asked not in PAGES | SECTIONS:
        st.warning(f"There is no page {quoted(asked[:40])}; this is the first one.")
    if note:
        st.warning(note)
    if day is None and current not in ("operations", "accuracy"):
        st.header("No forecast yet")
        st.info(
            f"Nothing was forecast in this home. A day is made with: `python -m pipelines.day --config "
            f"{moment.config.path} --date DAY`"
        )
        return
    PAGES[current][1](moment, day or date.min)
