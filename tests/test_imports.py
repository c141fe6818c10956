"""Imports go one way: dags -> pipelines -> m2m_model, and each package knows only the libraries of its duty."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines.chain import STAGES

REPOSITORY = Path(__file__).resolve().parents[1]

FORBIDDEN = {
    "dags": {
        "pipelines",
        "m2m_model",
        "pyspark",
        "torch",
        "mlflow",
        "great_expectations",
        "pyiceberg",
        "polars",
        "pandas",
        "numpy",
    },
    "pipelines": {"airflow", "dags", "stages"},
    "m2m_model": {"airflow", "pipelines", "pyspark", "mlflow", "great_expectations", "pyiceberg", "polars", "pandas"},
}


def imported(source: str) -> set[str]:
    """Top-level names of every package that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_package_imports_only_what_its_duty_needs(package: str) -> None:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    broken = {
        str(file.relative_to(REPOSITORY)): sorted(imported(file.read_text(encoding="utf-8")) & FORBIDDEN[package])
        for file in files
    }
    assert {file: names for file, names in broken.items() if names} == {}


def test_imports_are_found_wherever_they_stand() -> None:
    assert imported("import a.b as c\ndef f():\n    from d.e import g\nfrom . import h\n") == {"a", "d"}


# A module may import its own room and those before it. The commands, modules of pipelines/ itself, may import all rooms
# of it.
ROOMS = {
    "pipelines": (
        *("errors", "failures", "paths", "meanwhile", "locks", "toml_tables", "catalog", "source_config"),
        *("costs", "config", "chain", "events", "cli", "asked"),
        *(
            "warehouse",
            "reading",
            "reports",
            "spark",
            "sources",
            "quality",
            "life",
            "trace",
            "kernels",
            "stages",
            "console",
        ),
    ),
    "m2m_model": (
        "arrays",
        "levels",
        "files",
        "config",
        "data",
        "network",
        "rivals",
        "forecasts",
        "judging",
        "causes",
        "paths",
        "totals",
        "training",
    ),
}


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_rooms_import_one_way(package: str) -> None:
    rooms, broken = ROOMS[package], []
    for place, room in enumerate(rooms):
        folder = REPOSITORY / package / room
        for file in sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
                    names = (node.module or "").split(".")[1:2] or [alias.name for alias in node.names]
                    broken += [f"{room}/{file.name} imports {name}" for name in names if name not in rooms[: place + 1]]
    assert broken == []
    folders = {path.name for path in (REPOSITORY / package).iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} <= set(rooms)


HEAVY = "m2m_model.rivals.boosted"


def test_lightgbm_is_imported_by_the_rivals_alone() -> None:
    for file in sorted((REPOSITORY / "m2m_model").rglob("*.py")):
        assert file.parent.name == "rivals" or "lightgbm" not in imported(file.read_text(encoding="utf-8")), file
    # Who scores with a model whose blend has none must not load it: it is imported where one is fitted or opened.
    for package in ("m2m_model", "pipelines"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            assert not [node for node in tree.body if getattr(node, "module", "") == HEAVY], file


def test_every_room_is_in_the_wheel() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    rooms = {
        ".".join(file.parent.relative_to(REPOSITORY).parts)
        for package in ROOMS
        for file in (REPOSITORY / package).rglob("__init__.py")
    }
    assert set(listed) - {"pipelines.sql"} == rooms


def test_a_room_is_seen_in_one_look() -> None:
    for room in (folder for package in ROOMS for folder in (REPOSITORY / package).iterdir() if folder.is_dir()):
        most = 15 if room.name == "stages" else 12  # and __init__
        assert len(list(room.glob("*.py"))) <= 1 + most, room


# What an import loads: how many modules at most, and which libraries not. Counts say the same on every machine; time is
# measured by `make bench-start`.
SPARK, MODEL = {"pyspark", "py4j"}, {"torch", "mlflow", "scipy", "safetensors"}
CATALOG = {"pyiceberg", "sqlalchemy", "pydantic"}
JUDGING = {"great_expectations", "matplotlib", "lightgbm", "sklearn"}
FRAMES = {"polars", "pyarrow", "pandas", "numpy"}
DAILY_STAGES = tuple(f"pipelines.stages.{name}" for name in ("stage_sources", "build_sequences", "monitor"))
LOADED: dict[str, tuple[tuple[str, ...], int, set[str]]] = {
    "commands": (tuple(f"pipelines.{name}" for name in STAGES), 250, SPARK | MODEL | CATALOG | JUDGING | FRAMES),
    "pages for people": (("pipelines.console.readers", "pipelines.console.words"), 1450, SPARK | MODEL | JUDGING),
    "a look": (
        (
            *("pipelines.reading.show", "pipelines.reading.export"),
            *("pipelines.stages.status", "pipelines.trace.lineage", "pipelines.life.incidents"),
        ),
        1400,
        SPARK | MODEL | JUDGING,
    ),
    "what somebody should know": (("pipelines.life.incidents",), 1400, SPARK | MODEL | JUDGING),
    "house-keeping of catalogs": (("pipelines.stages.move_catalog",), 1400, SPARK | MODEL | JUDGING),
    "stages without a model": (
        (*DAILY_STAGES, "pipelines.stages.restatements", "pipelines.stages.drift"),
        1600,
        MODEL | JUDGING,
    ),
    "scoring": (
        ("pipelines.stages.score", "pipelines.what_if", "pipelines.stages.explain", "pipelines.stages.replay"),
        3700,
        JUDGING,
    ),
    "workers that stage and build": (
        ("pipelines.kernels.staged", "pipelines.kernels.sequences", "pipelines.kernels.drift"),
        800,
        MODEL | CATALOG | JUDGING | {"pandas"},
    ),
    "workers that score": (
        tuple(f"pipelines.kernels.{name}" for name in ("scored", "explained", "replayed", "sound")),
        2300,
        {"mlflow"} | CATALOG | JUDGING,
    ),
}


@pytest.mark.parametrize("who", LOADED)
def test_what_is_not_needed_is_not_loaded(who: str) -> None:
    modules, most, without = LOADED[who]
    program = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert {name.split(".")[0] for name in loaded} & without == set()
    assert len(loaded) <= most


def test_every_command_and_every_kernel_has_such_a_limit() -> None:
    limited = {module for modules, _, _ in LOADED.values() for module in modules}
    kernels = {f"pipelines.kernels.{file.stem}" for file in (REPOSITORY / "pipelines" / "kernels").glob("[!_]*.py")}
    assert kernels - limited == {"pipelines.kernels.target"}  # which all others import
    # Models are opened by these, and nothing of them can be left out.
    with_model = {f"pipelines.stages.{name}" for name in ("train", "backtest", "promote", "maintain", "report")}
    stages = {f"pipelines.stages.{file.stem}" for file in (REPOSITORY / "pipelines" / "stages").glob("[!_]*.py")}
    assert stages - limited == with_model
