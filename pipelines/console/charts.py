"""The console's pictures: frames to Altair charts. Every axis says what it shows and in what."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, TypeAlias

import altair as alt
import polars as pl

Picture: TypeAlias = Any  # Altair says of its own methods no types

PAST, CAME, NEXT, FAN = "#8da0b6", "#4c78a8", "#e4761b", "#f2b27a"
HEIGHT = 300
_DAY = alt.Axis(format="%d %b", labelOverlap=True, title=None)


def _bars(days: pl.DataFrame, unit: str) -> Picture:
    """Days with ``amount`` and ``what``, one of "history" and "came after"."""
    names = {"history": PAST, "came after the forecast": CAME}
    there = [name for name in names if name in days["what"]]
    scale = alt.Scale(domain=there, range=[names[name] for name in there])
    return (
        alt.Chart(days)
        .mark_bar(width={"band": 0.8})
        .encode(
            x=alt.X("yearmonthdate(day):T", axis=_DAY),
            y=alt.Y("amount:Q", title=f"{unit} a day" if unit != "days" else "active scenarios a day"),
            color=alt.Color("what:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
            tooltip=[alt.Tooltip("day:T", title="day"), alt.Tooltip("amount:Q", title=unit, format=",.2f")],
        )
    )


def daily(days: pl.DataFrame, ahead: pl.DataFrame, as_of: date, unit: str) -> Picture:
    """Amounts day by day, and what is expected of each day of the horizon. ``ahead``: day, expected, low, high; where
    the days' own path is not known, the total spread evenly."""
    what = pl.when(pl.col("day") <= as_of).then(pl.lit("history")).otherwise(pl.lit("came after the forecast"))
    layers: list[Picture] = [_bars(days.with_columns(what=what), unit)]
    if ahead.height:
        base = alt.Chart(ahead).encode(x=alt.X("yearmonthdate(day):T"))
        if ahead["low"].is_not_null().any():
            layers.append(base.mark_area(color=FAN, opacity=0.45, interpolate="step").encode(y="low:Q", y2="high:Q"))
        tips = [
            alt.Tooltip("day:T", title="day"),
            alt.Tooltip("expected:Q", title="expected", format=",.2f"),
        ]
        layers.append(
            base.mark_line(color=NEXT, point=alt.OverlayMarkDef(color=NEXT)).encode(y="expected:Q", tooltip=tips)
        )
    return alt.layer(*layers).properties(height=HEIGHT)


def blocks(past: pl.DataFrame, forecasts: pl.DataFrame, unit: str, days: int) -> Picture:
    """Totals of ``days`` days, and the forecasts of such totals over them. ``past``: first, day, amount; ``forecasts``:
    ds, first, day, mean, point and quantiles."""
    layers: list[Picture] = []
    if past.height:
        bars = past.with_columns(end=pl.col("day") + timedelta(days=1), zero=pl.lit(0.0))
        layers.append(
            alt.Chart(bars)
            .mark_rect(color=PAST, stroke="white")
            .encode(
                x=alt.X("first:T", axis=_DAY),
                x2="end:T",
                y=alt.Y("amount:Q", title=f"{unit} in {days} days"),
                y2="zero:Q",
                tooltip=[
                    alt.Tooltip("first:T", title="from"),
                    alt.Tooltip("day:T", title="to"),
                    alt.Tooltip("amount:Q", title=f"{unit}, came", format=",.2f"),
                ],
            )
        )
    if forecasts.height:
        rows = forecasts.with_columns(end=pl.col("day") + timedelta(days=1))
        tips = [
            alt.Tooltip("ds:T", title="forecast as of"),
            alt.Tooltip("mean:Q", title="expected", format=",.2f"),
            alt.Tooltip("p05:Q", title="90 % from", format=",.2f"),
            alt.Tooltip("p95:Q", title="90 % to", format=",.2f"),
        ]
        base = alt.Chart(rows).encode(x=alt.X("first:T", axis=_DAY), x2="end:T", tooltip=tips)
        outer = base.mark_rect(color=FAN, opacity=0.4).encode(
            y=alt.Y("p05:Q", title=f"{unit} in {days} days"), y2="p95:Q"
        )
        inner = base.mark_rect(color=FAN, opacity=0.8).encode(y="p25:Q", y2="p75:Q")
        if past.height:  # over the boxes, where the bar's end would not be seen
            ends = alt.Chart(bars).mark_rule(color=CAME, strokeWidth=2)
            inner = inner + ends.encode(x="first:T", x2="end:T", y="amount:Q")
        layers += [outer, inner, base.mark_rule(color=NEXT, strokeWidth=3).encode(y="mean:Q")]
    return alt.layer(*layers).properties(height=HEIGHT)


def running(path: pl.DataFrame, came: pl.DataFrame, unit: str) -> Picture:
    """What has come together by each day of the horizon: the fan, and what came. ``path``: day, cumulated and its
    quantiles; ``came``: day, cumulated."""
    x = alt.X("yearmonthdate(day):T", axis=_DAY)
    base = alt.Chart(path).encode(x=x)
    fan = base.mark_area(color=FAN, opacity=0.45).encode(
        y=alt.Y("cumulated_p05:Q", title=f"{unit} from the first day on"), y2="cumulated_p95:Q"
    )
    tips = [
        alt.Tooltip("day:T", title="through"),
        alt.Tooltip("cumulated:Q", title="expected by then", format=",.2f"),
        alt.Tooltip("cumulated_p05:Q", title="90 % from", format=",.2f"),
        alt.Tooltip("cumulated_p95:Q", title="90 % to", format=",.2f"),
    ]
    layers = [
        fan,
        base.mark_line(color=NEXT, point=alt.OverlayMarkDef(color=NEXT)).encode(y="cumulated:Q", tooltip=tips),
    ]
    if came.height:
        layers.append(alt.Chart(came).mark_line(color=CAME, strokeWidth=3).encode(x=x, y="cumulated:Q"))
    return alt.layer(*layers).properties(height=HEIGHT)


def causes(rows: pl.DataFrame, unit: str) -> Picture:
    """Of each mover what every cause added. ``rows``: who, cause, amount; in the order in which they come."""
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            y=alt.Y("who:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            x=alt.X("amount:Q", title=f"change of the forecast, {unit}"),
            color=alt.Color(
                "cause:N",
                scale=alt.Scale(range=[CAME, NEXT, "#7b5ea7", PAST]),
                legend=alt.Legend(title="because of", orient="top"),
            ),
            tooltip=["who:N", "cause:N", alt.Tooltip("amount:Q", format="+,.2f")],
        )
        .properties(height=alt.Step(24))
    )


def lines(rows: pl.DataFrame, y: str, title: str, by: str, wanted: float | None = None, share: bool = False) -> Picture:
    """A figure over as-of days, a line each of ``by``; ``wanted`` is where it should be."""
    axis = alt.Axis(format=".0%") if share else alt.Axis()
    chart = (
        alt.Chart(rows)
        .mark_line(point=True)
        .encode(
            x=alt.X("yearmonthdate(day):T", axis=_DAY),
            y=alt.Y(f"{y}:Q", title=title, axis=axis, scale=alt.Scale(zero=share)),
            color=alt.Color(f"{by}:N", legend=alt.Legend(title=None, orient="top", labelLimit=0)),
            tooltip=[alt.Tooltip("day:T", title="as of"), f"{by}:N", alt.Tooltip(f"{y}:Q", format=".3f", title=title)],
        )
    )
    layers = [chart]
    if wanted is not None:
        rule = pl.DataFrame({"wanted": [wanted]})
        layers.append(alt.Chart(rule).mark_rule(strokeDash=[4, 4], color="gray").encode(y="wanted:Q"))
    return alt.layer(*layers).properties(height=HEIGHT)


def compared(rows: pl.DataFrame, title: str) -> Picture:
    """Errors side by side, the least first. ``rows``: who, error, ours."""
    scale = alt.Scale(domain=[True, False], range=[NEXT, PAST])
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            y=alt.Y("who:N", sort="x", title=None, axis=alt.Axis(labelLimit=320)),
            x=alt.X("error:Q", title=title),
            color=alt.Color("ours:N", scale=scale, legend=None),
            tooltip=["who:N", alt.Tooltip("error:Q", format=".3f")],
        )
        .properties(height=alt.Step(26))
    )


def fans(rows: pl.DataFrame, unit: str, days: int) -> Picture:
    """Totals side by side with their intervals. ``rows``: who, mean and quantiles."""
    y = alt.Y(
        "who:N", sort=alt.EncodingSortField("mean", order="descending"), title=None, axis=alt.Axis(labelLimit=260)
    )
    tips = [
        alt.Tooltip("who:N", title=" "),
        alt.Tooltip("mean:Q", title="expected", format=",.2f"),
        alt.Tooltip("p05:Q", title="90 % from", format=",.2f"),
        alt.Tooltip("p95:Q", title="90 % to", format=",.2f"),
    ]
    base = alt.Chart(rows).encode(y=y, tooltip=tips)
    title = f"{unit} in the next {days} days"
    outer = base.mark_bar(color=FAN, opacity=0.5, size=14).encode(x=alt.X("p05:Q", title=title), x2="p95:Q")
    inner = base.mark_bar(color=FAN, size=14).encode(x="p25:Q", x2="p75:Q")
    return alt.layer(outer, inner, base.mark_tick(color=NEXT, thickness=3, size=18).encode(x="mean:Q")).properties(
        height=alt.Step(26)
    )


def over_time(rows: pl.DataFrame, unit: str, days: int) -> Picture:
    """The forecast of a total as it was on each day. ``rows``: ds, mean and quantiles."""
    base = alt.Chart(rows).encode(x=alt.X("yearmonthdate(ds):T", axis=alt.Axis(format="%d %b", title="forecast as of")))
    fan = base.mark_errorband(color=FAN, opacity=0.45).encode(
        y=alt.Y("p05:Q", title=f"{unit} in {days} days"), y2="p95:Q"
    )
    tips = [alt.Tooltip("ds:T", title="as of"), alt.Tooltip("mean:Q", title="expected", format=",.2f")]
    line = base.mark_line(color=NEXT, point=alt.OverlayMarkDef(color=NEXT)).encode(y="mean:Q", tooltip=tips)
    return alt.layer(fan, line).properties(height=HEIGHT)
