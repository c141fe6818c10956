"""What a soak found, as a section of docs/reliability.md and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

BEGIN, END = "<!-- soak -->", "<!-- end of soak -->"
PICTURE = "images/soak.png"
COLORS = {"forecasts": "#1b6ca8", "last days": "#999999", "event": "#c0504d"}


def section(found: Mapping[str, Any]) -> list[str]:
    """The part of the page between its marks."""
    days, decided = found["lived"], found["decided"]
    happened = [(day["ds"], day["said"]) for day in days if day["events"]]
    lines = [
        BEGIN,
        f"Made by `make soak` on: {found['machine']}; code {found['code']}; {found['minutes']:.0f} minutes, load "
        f"before it {found['load']:.1f}. {len(days)} days after a first load of {found['first_load']}, "
        f"{found['advertisers']} advertisers, {found['trained']} trainings; the gate promoted {decided['promoted']} of "
        f"{decided['promoted'] + decided['refused']} challengers, {decided['by_hand']} moves were by hand.",
        "",
        f"![Champion, error and events]({PICTURE})",
        "",
        "| what must hold | looked at | found |",
        "| --- | --- | --- |",
        *(f"| {of['check']} | {of['looked_at']} | {'; '.join(of['wrong']) or 'holds'} |" for of in found["findings"]),
        "",
        "| day | what happened |",
        "| --- | --- |",
        *(f"| {ds} | {said} |" for ds, said in happened),
        "",
        "| stage | runs | s each | CPU s each |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {runs} | {wall / runs:.1f} | {cpu / runs:.1f} |"
            for name, (runs, wall, cpu) in found["stages"].items()
        ),
        END,
    ]
    return lines


def write(found: Mapping[str, Any], page: Path) -> None:
    """Put the section between its marks, and the picture beside the page.

    Raises:
        ValueError: the page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: expected the lines {BEGIN} and {END}")
    page.write_text(before + "\n".join(section(found)) + after, encoding="utf-8")
    page.with_name("soak.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    picture(found, page.parent / PICTURE)


def picture(found: Mapping[str, Any], path: Path) -> None:
    """Champion and error by day, with what happened."""
    days = found["lived"]
    at = [day["day"] for day in days]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(11, 5.4), sharex=True, layout="constrained", height_ratios=(1, 1.3)
    )
    version = [float("nan") if day["champion"] is None else int(day["champion"]) for day in days]
    top.step(at, version, where="post", color=COLORS["forecasts"])
    top.plot(at, version, ".", color=COLORS["forecasts"], markersize=4)
    top.set(ylabel="champion's version")
    judged = [day for day in days if day["nmae"] is not None]
    for name, label in (("baseline_nmae", "last days"), ("nmae", "forecasts")):
        bottom.plot([d["day"] for d in judged], [d[name] for d in judged], label=label, color=COLORS[label])
    bottom.set(xlabel="day", ylabel=f"NMAE of {found['task']}", ylim=(0, None))
    bottom.legend(loc="upper right", fontsize=8)
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
        for day in days:
            for _ in day["events"]:
                axis.axvline(day["day"], color=COLORS["event"], alpha=0.35, linewidth=1)
    for day in days:
        if day["events"]:
            where = top.get_xaxis_transform()
            top.text(day["day"], 1.02, ", ".join(day["events"]), rotation=60, fontsize=8, transform=where)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
