"""Imports go one way: dags -> pipelines -> m2m_model, and each package knows only the libraries of its duty."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

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


# A module may import its own room and those before it; the stages, modules of pipelines/ itself, may import all.
ROOMS = ("errors", "config", "cli", "warehouse", "spark", "quality", "life")


def test_rooms_import_one_way() -> None:
    broken = []
    for place, room in enumerate(ROOMS):
        folder = REPOSITORY / "pipelines" / room
        for file in sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipelines"):
                    names = (node.module or "").split(".")[1:2] or [alias.name for alias in node.names]
                    broken += [f"{room}/{file.name} imports {name}" for name in names if name not in ROOMS[: place + 1]]
    assert broken == []


def test_a_room_is_seen_in_one_look() -> None:
    for room in (folder for folder in (REPOSITORY / "pipelines").iterdir() if folder.is_dir()):
        assert len(list(room.glob("*.py"))) <= 13, room  # a dozen, and __init__
