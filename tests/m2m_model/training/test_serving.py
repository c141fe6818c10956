from datetime import date, timedelta
from pathlib import Path

from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.training.serving import calibrate_baselines


def test_baselines_calibrate_without_a_model(panel: Panel, inputs: Inputs, last_day: date, tmp_path: Path) -> None:
    calibrations, shared = calibrate_baselines([panel.save(tmp_path / "p")], inputs, last_day - timedelta(days=14))
    assert set(calibrations) == {*BASELINES, "cold_start", "silent"}
    assert set(shared) == set(BASELINES)
