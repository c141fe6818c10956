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
