"""Seconds that every page of the console takes, over random advertisers of a made-up warehouse.

    python -m benchmarks.console --advertisers 1000000 [--bed FOLDER] [--out docs/console_speed.md]

A page is run as Streamlit runs it for a browser, by its own AppTest: from the address to all that is sent to the
browser. *First*: in a process that has read nothing yet. *After a commit*: in a process that runs for long, when the
next
day has just been published: what it kept of the day before is of no use. *Then*: everybody's next clicks. The
advertiser's page is opened for 200 advertisers, another one each time; the other pages 20 times. The machine's file
cache is warm throughout.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import streamlit as st
from streamlit.testing.v1 import AppTest

from benchmarks import console_bed
from benchmarks.measure import ROOT, machine
from pipelines.config import load_config
from pipelines.console import readers
from pipelines.console.readers import Tables
from pipelines.warehouse import pins
from pipelines.warehouse.sequences import TABLE as SERIES_TABLE

APP = ROOT / "pipelines" / "console" / "app.py"
ADVERTISERS, TURNS = 200, 20
LIMIT_S = 2.0
PAGES = ("front", "advertiser", "search", "movers", "leaving", "totals", "accuracy", "operations")


def seconds(page: str, where: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one visit; the CPU's are of all threads, and say the same on a machine with company.

    Raises:
        SystemExit: the page failed.
    """
    app = AppTest.from_file(str(APP), default_timeout=600)
    for key, value in {"page": page, **where}.items():
        app.query_params[key] = value
    started, before = time.perf_counter(), time.process_time()
    app.run()
    taken = time.perf_counter() - started, time.process_time() - before
    if app.exception or app.error:
        raise SystemExit(f"{page} {where}: {[*app.exception, *app.error]}")
    return taken


def forget() -> None:
    """As a process that has read nothing yet."""
    st.cache_resource.clear()
    pins._LISTED.clear()


def where_of(page: str, ids: Sequence[str]) -> Callable[[int], tuple[str, dict[str, str]]]:
    """The address of each visit to a page."""

    def address(turn: int) -> tuple[str, dict[str, str]]:
        if page == "search":
            return "advertiser", {"advertiser": ids[turn % len(ids)][-5:]}
        return page, {"advertiser": ids[turn % len(ids)]} if page == "advertiser" else {}

    return address


def measure(config_path: Path, count: int) -> dict[str, dict[str, float]]:
    """Of each page its first visit, that after a commit, and the spread of those after it."""
    os.environ["M2M_CONFIG"] = str(config_path)
    tables = Tables(load_config(config_path))
    day = tables.now().days(readers.FORECAST)[-1]
    known = readers.index(tables.now(), day)["advertiser_id"]
    ids = known.sample(min(count, len(known)), seed=1).to_list()
    seconds("operations", {})  # Streamlit itself
    found = {}
    for page in PAGES:
        address = where_of(page, ids)
        forget()
        first = seconds(*address(0))
        st.cache_resource.clear()
        again = seconds(*address(0))
        turns = len(ids) if page == "advertiser" else TURNS
        later, cpu = np.array([seconds(*address(turn + 1)) for turn in range(turns)]).T
        found[page] = {
            "first": first[0],
            "first, CPU": first[1],
            "after a commit": again[0],
            "p50": float(np.quantile(later, 0.5)),
            "p95": float(np.quantile(later, 0.95)),
            "worst": float(later.max()),
            "p95, CPU": float(np.quantile(cpu, 0.95)),
        }
        print(page, {name: round(value, 2) for name, value in found[page].items()}, flush=True)
    found["memory"] = {"MiB": psutil.Process().memory_info().rss / 2**20}
    return found


def page_of(found: dict[str, dict[str, float]], advertisers: int, rows: dict[str, int], size_mib: float) -> str:
    lines = [
        f"## {advertisers:,} advertisers",
        "",
        f"{machine()}, load {os.getloadavg()[2]:.0f}.",
        f"{rows[SERIES_TABLE]:,} series, {rows[readers.FORECAST]:,} forecasts a day, {size_mib:,.0f} MiB of tables.",
        "",
        "| page | first visit s | its CPU s | after a commit s | then p50 s | p95 s | worst s | CPU p95 s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for page in PAGES:
        figures = found[page].values()
        lines.append(f"| {page} | " + " | ".join(f"{value:.2f}" for value in figures) + " |")
    over = [page for page in PAGES if found[page]["p95"] > LIMIT_S]
    lines += ["", f"Memory of the process at the end: {found['memory']['MiB']:,.0f} MiB."]
    lines.append(f"Over {LIMIT_S:.0f} s at the 95th percentile: {', '.join(over) or 'none'}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advertisers", type=int, default=20_000)
    parser.add_argument("--visits", type=int, default=ADVERTISERS, help="advertisers whose page is opened")
    parser.add_argument("--bed", type=Path, help="a folder with such a warehouse, or to make it in and keep")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # AppTest has no browser, and says so
    with tempfile.TemporaryDirectory() as folder:
        bed = arguments.bed or Path(folder) / "bed"
        config_path = bed / "simulated" / "pipeline.toml"
        os.environ["M2M_HOME"] = str(bed / "home")
        if not config_path.exists():
            console_bed.make(bed, console_bed.sized(arguments.advertisers), os.cpu_count() or 1)
        found = measure(config_path, arguments.visits)
        moment = Tables(load_config(config_path)).now()
        rows = {
            name: sum(file.rows for file in moment.pin(name).files_on(moment.days(name)[-1:]))
            for name in (readers.FORECAST, SERIES_TABLE)
        }
        size = sum(file.stat().st_size for file in (bed / "home").rglob("*.parquet")) / 2**20
    page = page_of(found, arguments.advertisers, rows, size)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")
    print(page)
    print(json.dumps({page: found[page]["p95"] for page in PAGES}))


if __name__ == "__main__":
    main()
