"""The GPU's benchmark, small, on whatever this machine has: every part runs, and the page says what was measured."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_bed
from m2m_model.config import ModelConfig
from m2m_model.data.features import fit_inputs
from m2m_model.data.grid import to_grid
from m2m_model.data.statistics import PanelStatistics
from m2m_model.network.windows import Days


@pytest.mark.slow
def test_every_part_runs_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "ModelConfig", partial(ModelConfig, width=16, experts=2))
    page, raw = tmp_path / "gpu.md", tmp_path / "gpu.json"
    gpu.main(f"--device cpu --series 240 --days 90 --batches 16 --out {page} --json {raw}".split())
    found = json.loads(raw.read_text())
    assert found["notes"] == []
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found["summary"]
    assert found["summary"]["train_windows_per_s"] > 0
    assert found["summary"]["score_windows_per_s"] > 0
    assert not [row for row in found["rows"] if "failed" in row]
    assert "## Beside plain networks of the same size" in page.read_text()
    assert list(found["losses"]) == ["fp32", "tf32", "bf16"]

    gpu.main(f"--device cpu --series 240 --days 90 --batches 16 --only medians --base {raw} --json {raw}".split())
    both = json.loads(raw.read_text())
    assert len(both["runs"]) == 2
    assert [both[kept] for kept in ("rows", "sections", "losses")] == [found[k] for k in ("rows", "sections", "losses")]


def test_days_made_on_the_device_are_those_of_a_panel() -> None:
    """Of the same values: points, totals, advertisers and whose each series is."""
    cpu = torch.device("cpu")
    torch.manual_seed(3)
    panel = gpu_bed.made_panel(42, 90)
    torch.manual_seed(3)
    made = gpu_bed.made_days(42, 90, cpu)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day))
    expected = Days.of(panel, inputs.profile(panel), cpu)
    for name, value in vars(expected).items():
        found = getattr(made, name)
        if name in ("scenario_N", "scenario_attributes_NS", "advertiser_attributes_NA"):
            continue  # codes of a vocabulary, which is sorted by frequency
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found, value, msg=name)
        else:
            assert found == value, name
    odd = np.array([0.0, -0.0, -3.0, np.nan, -np.nan, np.inf, -np.inf, 1e31, 1e-40, 0.1, 1.0, 7.9], np.float32)
    assert gpu_bed.to_grid(torch.from_numpy(odd)).tolist() == to_grid(odd).tolist()


def test_a_headline_takes_no_form_that_learns_or_forecasts_something_else() -> None:
    run = gpu.Run(torch.device("cpu"), True, 60, None, None)
    for what in gpu.GOALS:
        for speed, (number, how) in enumerate([("fp32", "eager"), ("bf16", "CUDA graph"), ("bf16", "compiled")], 1):
            row = {"what": what, "network": "M2M", "batch": 8, "precision": number, "how": how, "run": 1}
            run.rows.append({**row, "ms": 1.0, "windows_per_s": speed})
    assert [run.summary()[f"{key}_windows_per_s"] for key in ("train", "score")] == [1, 1]
    run.raw["losses"] = {"fp32": [6.2, 6.0, 6.0], "bf16": [6.2, 6.01, 6.0], "bf16 compiled": [6.1, 6.02, 6.0]}
    run.raw["median_apart"] = {"bf16": 0.001, "bf16 compiled": 0.0011}
    assert [run.summary()[f"{key}_windows_per_s"] for key in ("train", "score")] == [2, 3]


def test_a_part_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = gpu.Run(torch.device("cpu"), True, 60, tmp_path / "gpu.md", None)
    run.part("broken", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    run.part("long", lambda: None, needs=100)
    page = (tmp_path / "gpu.md").read_text()
    assert "broken: failed, ZeroDivisionError" in page
    assert run.notes[1].startswith("long: skipped")
