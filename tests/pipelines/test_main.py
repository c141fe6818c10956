"""`m2m` and `python -m pipelines`: every command of the chain with a line, at once and without its libraries."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from deployment import TOML

from pipelines.chain import STAGES, STATE

ROOT = Path(__file__).resolve().parents[2]
LISTED = """
import sys
sys.argv = ["m2m", "--help"]
from pipelines.__main__ import main
main()
print(sorted({name.split(".")[0] for name in sys.modules} & set(%r)))
"""
REFUSED = """
import importlib, sys
from pipelines.cli import exit_status
needed = {"show": ["ops.validation"], "export": ["ops.validation", "--out", "x.csv"], "move_catalog": ["--to", "x"]}
for name in %r:
    main = importlib.import_module("pipelines." + name).main
    for arguments in %r:
        try:
            status = exit_status(main, [*needed.get(name, []), *arguments])
        except SystemExit as ended:  # argparse
            status = ended.code
        assert status == (0 if arguments == ["--help"] else 2), (name, arguments, status)
print(sorted({name.split(".")[0] for name in sys.modules} & set(%r)))
"""
HEAVY = ["pyspark", "torch", "mlflow", "great_expectations", "polars", "pyarrow", "pyiceberg", "numpy", "pandas"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_lists_every_command_with_a_line_and_imports_nothing_heavy() -> None:
    found = run("-c", LISTED % HEAVY)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[-1] == "[]"
    assert [line.split()[0] for line in lines[2:-3]] == list(STAGES)
    assert all(len(line.split()) > 3 for line in lines[2:-3])
    assert lines[-2] == STATE


def test_what_is_refused_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(TOML.replace("keep_days = 60", "keep_days = 6"))
    refused = [
        ["--help"],
        ["--date", "2024-02-30"],
        ["--dat", "2024-02-03"],
        ["--config", str(tmp_path / "gone.toml"), "--date", "2024-02-03"],
        ["--config", str(tmp_path / "pipeline.toml"), "--date", "2024-02-03"],
    ]
    found = run("-c", REFUSED % (list(STAGES), refused, HEAVY))
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "usage: m2m COMMAND"),
        (["help"], 0, "usage: m2m COMMAND"),
        ([], 2, "no command; "),
        (["traim"], 2, 'no command "traim"; did you mean "train"?'),
        (["../show"], 2, 'no command "../show"'),
        (["status", "--help"], 0, "usage: status"),
    ],
)
def test_of_the_command_line(arguments: list[str], status: int, said: str) -> None:
    found = run("-m", "pipelines", *arguments)
    assert found.returncode == status
    assert said in (found.stderr if status else found.stdout)


def test_the_console_script_is_the_same() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, function = scripts["m2m"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_command_is_a_module_with_a_main_and_every_such_module_a_command() -> None:
    files = [*(ROOT / "pipelines").glob("*.py"), *(ROOT / "pipelines").glob("*/__main__.py")]
    found = [path for path in files if "exit_status(main)" in path.read_text("utf-8")]
    modules = {path.parent.name if path.name == "__main__.py" else path.stem for path in found}
    assert modules == set(STAGES)
