"""The GPU's benchmark, small, on whatever this machine has: every part runs, and the page says what was measured."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_every_part_runs_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, raw = tmp_path / "gpu.md", tmp_path / "gpu.json"
    gpu.main(f"--device cpu --series 240 --days 90 --batches 16 --out {page} --json {raw}".split())
    found = json.loads(raw.read_text())
    assert found["notes"] == []
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found["summary"]
    assert found["summary"]["train_windows_per_s"] > 0
    assert found["summary"]["score_windows_per_s"] > 0
    assert not [row for row in found["rows"] if "failed" in row]
    assert "## Beside plain networks of the same size" in page.read_text()


def test_a_part_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = gpu.Run(torch.device("cpu"), True, 60, tmp_path / "gpu.md", None)
    run.part("broken", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    run.part("long", lambda: None, needs=100)
    page = (tmp_path / "gpu.md").read_text()
    assert "broken: failed, ZeroDivisionError" in page
    assert run.notes[1].startswith("long: skipped")
