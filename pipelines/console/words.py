"""How the console says things: figures, who made a forecast, and texts from outside, which never become markup."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from pipelines.config import Config
from pipelines.errors import plain
from pipelines.life.cells import IN_CELL, NO_CHAMPION

BASELINES = {
    "last_h_days": "the last days once more",
    "mean_28": "the average of the last 28 days",
    "same_weekdays": "the average of the same weekdays",
    "tsb": "TSB smoothing, for series with many empty days",
    "lightgbm_l1": "LightGBM (gradient-boosted trees)",
    "lightgbm_tweedie": "LightGBM (trees for amounts with many zeros)",
    "lightgbm_level": "LightGBM (trees relative to the recent level)",
    "cold_start": "the rule for newcomers",
}
WHOSE = {"challenger": "new model", "champion": "serving model"}


def figure(value: float | None) -> str:
    """A number as a person writes it: three digits that count."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    for unit, name in ((1e9, " bn"), (1e6, " m")):
        if size >= unit:
            return f"{value / unit:,.2f}{name}"
    return f"{value:,.0f}" if size >= 100 else f"{value:,.1f}" if size >= 10 or size == 0 else f"{value:,.2f}"


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def method(text: str | None, version: str | None = None, reason: str | None = None) -> str:
    """Who made a forecast, in words; see ``method`` and ``reason`` of marts.forecast_daily."""
    name, _, weight = (text or "").partition("@")
    kind, _, of = name.partition(":")
    other = BASELINES.get(of, of)
    by = f", version {version}" if version else ""
    if kind == "m2m":
        return f"the M2M network{by}"
    if kind == "blend":
        if not re.fullmatch(r"\d*\.?\d+", weight):
            return f"the M2M network{by} with {other}"
        return f"{percent(float(weight))} the M2M network{by}, the rest {other}"
    if kind == "baseline":
        why = f"model version {version} leaves it to that" if version else "no model serves"
        if reason and reason.startswith((IN_CELL, NO_CHAMPION)):
            why = reason.removeprefix(IN_CELL)
        return f"{other} alone ({why})"
    if kind == "together":
        return "its scenarios added up, as they are known to go wrong together"
    if kind == "single":
        return "its only scenario"
    plain_words = {
        "cold_start": "the rule for newcomers (under 7 days of history)",
        "silent": "the rule for those without a recent row",
    }
    return plain_words.get(kind, text or "unknown")


def unit(config: Config, task: str) -> str:
    """What a task's figures are in."""
    of = next((each for each in config.task if each.name == task), None)
    if of is None:
        return ""
    if of.aggregate == "days":
        return "days"
    return next((metric.unit for metric in config.performance if metric.name == of.metric), "") or ""


def titled(config: Config, task: str) -> str:
    of = unit(config, task)
    return task if not of or of == task or task.endswith("days") else f"{task} ({of})"


def expectation(row: Mapping[str, Any]) -> str:
    """A forecast in a sentence."""
    days, by = row["horizon_days"], method(row["method"], row.get("model_version"), row.get("reason"))
    low, high = figure(row["p05"]), figure(row["p95"])
    lines = f"next {days} days: {figure(row['mean'])} expected, 90 %: {low} .. {high}"
    if row["p_zero"] >= 0.005:
        lines += f"; nothing at all with {percent(row['p_zero'])}"
    return f"{lines}. Best single figure: {figure(row['point'])}. Made by {by}."


def span(first: date, days: int) -> str:
    """The days that a forecast is about."""
    return f"{first + timedelta(days=1)} to {first + timedelta(days=days)}"


_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|$~:&^=\"'@/])")


def quoted(text: object) -> str:
    """A text from outside within markup, as it is: nothing of it is a link, a picture, a heading or a formula."""
    return _MARKUP.sub(r"\\\1", plain(text))
