"""Every page, run by Streamlit's own AppTest: with tables, without, with what nobody should have typed."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deployment import SQL, TOML
from streamlit.testing.v1 import AppTest

import pipelines.console
from pipelines.config import load_config
from pipelines.console import readers
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import write_file
from pipelines.warehouse.sequences import TABLE as SERIES_TABLE

PAGES = ("front", "advertiser", "movers", "leaving", "totals", "accuracy", "operations")
HOSTILE = ("<script>alert(1)</script>", "![x](http://evil.example/x.png)", "=cmd|' /C calc'!A0", "'; drop table x; --")
Look = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_drawn_and_says_how_to_read_it(home: Path, look: Look, said: Said, page: str) -> None:
    app = look(page=page)
    assert not app.exception
    assert not app.error
    assert "How to read this" in said(app)


def test_an_advertiser_is_told_in_words_with_its_past(home: Path, look: Look, said: Said) -> None:
    app = look(page="advertiser", advertiser="adv_0000007", date="2024-04-01")
    words = said(app)
    assert not app.exception
    for part in (
        "adv_0000007",
        "next 7 days: ",
        "90 %: ",
        "Known at the end of 2024-04-01",
        "earlier forecasts held what came",
        "with the same attributes",
        "Reasons",
    ):
        assert part in words, part
    assert len(app.get("vega_lite_chart")) >= 2
    made = next(frame.value for frame in app.dataframe if "made_by" in frame.value.columns)
    assert made["made_by"].str.contains("M2M network, version 3").any()
    task = next(box for box in app.selectbox if box.label == "Task")
    task.set_value("active_days").run()
    assert not app.exception
    assert "active_days, all scenarios together" in said(app)


def test_a_scenario_of_an_advertiser_can_be_chosen(home: Path, look: Look, said: Said) -> None:
    app = look(page="advertiser", advertiser="adv_0000007")
    box = next(box for box in app.selectbox if box.label == "Scenario")
    box.set_value(box.options[-1]).run()
    assert not app.exception
    assert f"spend, {box.options[-1]}: next 7 days" in said(app).replace("*", "")


def test_an_earlier_day_shows_what_came_after_it(home: Path, look: Look, said: Said) -> None:
    app = look(page="advertiser", advertiser="adv_0000007", date="2024-03-25")
    assert not app.exception
    assert "Known at the end of 2024-03-25" in said(app)


def test_a_part_of_an_id_finds_those_that_have_it(home: Path, look: Look, said: Said) -> None:
    app = look(page="advertiser")
    next(box for box in app.text_input if box.label == "Id, or a part of it").set_value("adv_000001").run()
    words = said(app)
    assert "10 of 60 advertisers" in words
    nobody = said(look(page="advertiser", advertiser="nobody"))
    assert "There is no advertiser nobody as of 2024-04-01" in nobody
    assert "0 of 60 advertisers" in nobody


@pytest.mark.parametrize("text", [*HOSTILE, "a" * 5000, "\0", "\n# x"])
def test_whatever_stands_in_the_address_is_told_and_harms_nothing(home: Path, look: Look, text: str) -> None:
    for where in ({"advertiser": text, "page": "advertiser"}, {"page": text}, {"date": text}):
        app = look(**where)
        assert not app.exception
        assert not app.error
        assert not any("](http" in str(element.value) for element in (*app.warning, *app.markdown, *app.header))


def test_hostile_ids_of_the_tables_stay_text(
    bed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look
) -> None:
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("M2M_CONFIG", str(bed))
    config = load_config(bed)
    warehouse = Warehouse(config)
    figures = ("point", "mean", "median", "p05", "p25", "p75", "p95")
    row = {name: float(place) for place, name in enumerate(figures)} | {"p_zero": 0.9, "horizon_days": 7, "bucket": 0}
    row |= {
        "scenario_id": HOSTILE[1],
        "task": "spend",
        "method": HOSTILE[1],
        "model_version": "1",
        "run_id": "x",
        "reason": HOSTILE[1],
    }
    day = config.dataset.first_day
    for name, extra in (
        (readers.FORECAST, {}),
        (readers.RISK, {"probability": 0.9, "value_at_risk": 1.0}),
        (
            SERIES_TABLE,
            {"registered_on": day, "industry": HOSTILE[0], "tier": None, "placement": None, "format": None},
        ),
    ):
        folder, schema = warehouse.folder(name, "x"), warehouse.arrow_schema(name)
        rows = pl.DataFrame(
            [
                {**row, **extra, "ds": day, "advertiser_id": name_, "sequence_snapshot_id": 1}
                for name_ in sorted(HOSTILE)
            ]
        )
        warehouse.commit(name, [day], [write_file(rows, schema, folder, day, 0)], {"run-id": "x"})
    for text in HOSTILE:
        app = look(page="advertiser", advertiser=text)
        assert not app.exception
        words = [str(element.value) for kind in ("header", "markdown", "warning") for element in app.get(kind)]
        assert any(text.replace("\\", "") in each.replace("\\", "") for each in words)
        assert not any(re.search(r"[^\\](<script|\]\(http)", each) for each in words)
    assert not look(page="leaving").exception


def test_an_empty_home_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look, said: Said
) -> None:
    (tmp_path / "pipeline.toml").write_text(TOML)
    (tmp_path / "performance_daily.sql").write_text(SQL)
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("M2M_CONFIG", str(tmp_path / "pipeline.toml"))
    app = look()
    assert not app.exception
    assert "nothing was ever staged" in said(app)
    assert not (tmp_path / "home").exists()
    Warehouse(load_config(tmp_path / "pipeline.toml"))  # a catalog without a table
    for page in PAGES:
        app = look(page=page)
        assert not app.exception
        assert not app.error
    assert "Nothing was forecast in this home" in said(look())


def test_a_home_without_the_newer_tables_says_what_makes_them(
    bed: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look, said: Said
) -> None:
    newer = (readers.PATH, readers.CHANGE, readers.REASON)
    monkeypatch.setattr(readers, "DECLARATIONS", {k: v for k, v in readers.DECLARATIONS.items() if k not in newer})
    words = said(look(page="advertiser", advertiser="adv_0000009"))
    assert "not made yet: run explain" in words
    assert "not made yet: run explain" in said(look(page="movers"))


def test_a_lost_file_is_told_with_what_mends_it(
    bed: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look, said: Said
) -> None:
    tables = readers.Tables(load_config(bed))
    gone = next(file for file in tables.now().pin(readers.FORECAST).files_on([tables.now().days(readers.FORECAST)[0]]))
    kept = tmp_path / "kept"
    shutil.move(gone.path.removeprefix("file://"), kept)
    try:
        bad = f"adv_{gone.bucket:07d}"
        words = said(look(page="advertiser", advertiser=bad, date=str(gone.ds)))
        assert "is gone" in words
        assert "make the day again: python -m pipelines.score --date" in words
    finally:
        shutil.move(kept, gone.path.removeprefix("file://"))


def test_no_page_passes_html_or_fetches_from_elsewhere() -> None:
    for file in Path(pipelines.console.__file__).parent.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "unsafe_allow_html" not in text
        assert "components" not in text
        names = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
        assert not [name for name in names if isinstance(name, str) and name.startswith(("https://", ":material"))]


def test_the_server_tells_nobody_and_listens_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert pipelines.console.SETTINGS["browser.gatherUsageStats"] is False
    with pytest.raises(SystemExit):
        pipelines.console.main(["--help"])
    assert "default 127.0.0.1" in capsys.readouterr().out
