"""A small warehouse of made-up rows, made once; and the console's pages over it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import pipelines.console
from benchmarks import console_bed
from pipelines.config import load_config
from pipelines.console.readers import Tables

APP = Path(pipelines.console.__file__).with_name("app.py")


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its pipeline.toml; the home lies beside."""
    before = os.environ.get("M2M_HOME")
    try:
        return console_bed.make(tmp_path_factory.mktemp("bed"), console_bed.sized(60, weeks=8))
    finally:
        os.environ.pop("M2M_HOME", None)
        if before is not None:
            os.environ["M2M_HOME"] = before


@pytest.fixture
def home(bed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M2M_HOME", str(bed.parents[1] / "home"))
    monkeypatch.setenv("M2M_CONFIG", str(bed))
    return bed.parents[1] / "home"


@pytest.fixture
def tables(bed: Path, home: Path) -> Tables:
    return Tables(load_config(bed))


@pytest.fixture
def look() -> Callable[..., AppTest]:
    """A page as its address has it, of the home of the environment."""

    def open_page(**where: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=60)
        for key, value in where.items():
            app.query_params[key] = value
        return app.run()

    return open_page


@pytest.fixture
def said() -> Callable[[AppTest], str]:
    """All words of a page, without the marks that keep them from being markup."""

    def words(app: AppTest) -> str:
        kinds = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "success", "code")
        found = [str(element.value) for kind in kinds for element in app.get(kind)]
        return "\n".join([*found, *(f"{metric.label} {metric.value}" for metric in app.metric)]).replace("\\", "")

    return words
