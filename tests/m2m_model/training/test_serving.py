import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from m2m_model.arrays import Floats, Ints
from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import BASELINES, mean_28
from m2m_model.forecasts.blend import Blend, Share
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.rivals.artifact import Rivals
from m2m_model.rivals.boosted import Boosted, fit_boosted, training_cutoffs
from m2m_model.training.loop import train_rank
from m2m_model.training.serving import blend_of_young, calibrate_baselines, serving_rivals


def test_baselines_calibrate_without_a_model(panel: Panel, inputs: Inputs, last_day: date, tmp_path: Path) -> None:
    calibrations, *others = calibrate_baselines([panel.save(tmp_path / "p")], inputs, last_day - timedelta(days=14))
    assert set(calibrations) == {*BASELINES, "cold_start", "silent"}
    assert all(set(learned) == set(BASELINES) for learned in others)


TRAIN = TrainConfig(epochs=1, min_steps=6, max_windows=500, batch_size=64)


class Told(Boosted):
    """A rival that knows what will come, or that is far off."""

    def __call__(self, panel: Panel, cutoff: int, series: Ints) -> Floats:
        return targets_Nm(panel, cutoff, series) * self.boosters.get(-1, 1)


@pytest.fixture(scope="module")
def late(panel: Panel, inputs: Inputs) -> Boosted:
    return fit_boosted([panel], inputs, {0: training_cutoffs(panel, 90)})["lightgbm_level"]


def train(panel: Panel, inputs: Inputs, last_day: date, late: Boosted, early: Boosted, folder: Path) -> Path:
    rivals = Rivals({"lightgbm_level": early}, {"lightgbm_level": late})
    held_out_from = last_day - timedelta(days=14)
    shard = panel.save(folder / "p")
    return train_rank([shard], folder, inputs, ModelConfig(width=16), TRAIN, held_out_from, rivals=rivals).model_folder


def test_a_rival_that_wins_on_validation_serves(
    panel: Panel, inputs: Inputs, last_day: date, late: Boosted, tmp_path: Path
) -> None:
    model = train(panel, inputs, last_day, late, Told({}, inputs.scenarios, (0.0,) * 3, (0.0,) * 3), tmp_path)
    forecaster = Forecaster.load(model)
    assert forecaster.blend is not None
    assert {share.method for share in forecaster.blend.tasks} == {"baseline:lightgbm_level"}
    found = forecaster.predict(panel, last_day)
    # Young series are the network's; without an active day there is no total.
    old_N = (found.method_NM[:, 0] != "m2m") & (found.distribution.point_NM[:, 2] > 0)
    own_NM = late(panel, panel.index_of(last_day), found.series_N)
    np.testing.assert_allclose(found.distribution.point_NM[old_N, 1], own_NM[old_N, 1])
    assert (found.distribution.p95_NM[old_N, 1] > found.distribution.p05_NM[old_N, 1]).any()


def test_a_model_without_a_rival_neither_holds_nor_loads_one(
    panel: Panel, inputs: Inputs, last_day: date, late: Boosted, tmp_path: Path
) -> None:
    far_off = Told({-1: 9}, inputs.scenarios, (0.0,) * 3, (0.0,) * 3)
    model = train(panel, inputs, last_day, late, far_off, tmp_path)
    assert sorted(path.name for path in model.rglob("*")) == ["config.json", "weights.safetensors"]
    program = (
        "import sys; from datetime import date; from m2m_model.forecasts.forecaster import Forecaster; "
        f"from m2m_model.data.panel import Panel; panel = Panel.open({str(tmp_path / 'p')!r}); "
        f"Forecaster.load({str(model)!r}).predict(panel, panel.last_day); print('lightgbm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_only_boosters_of_tasks_that_serve_are_kept(
    panel: Panel, inputs: Inputs, last_day: date, late: Boosted, tmp_path: Path
) -> None:
    model = train(panel, inputs, last_day, late, Told({-1: 9}, inputs.scenarios, (0.0,) * 3, (0.0,) * 3), tmp_path)
    blend = Blend((Share("lightgbm_level", 0.3), Share("mean_28", 0.5), Share("lightgbm_level", 1.0)), {})
    rivals = serving_rivals(blend, {"lightgbm_level": late})
    served = replace(Forecaster.load(model), blend=blend, rivals=rivals)
    folder = served.save(tmp_path / "served")
    assert sorted(path.name for path in (folder / "rivals").iterdir()) == [
        "lightgbm_level-0.txt",
        "lightgbm_level-known.json",
        "rivals.json",
    ]
    found, opened = (each.predict(panel, last_day) for each in (served, Forecaster.load(folder)))
    assert found.method_NM[0].tolist() == ["blend:lightgbm_level@0.3", "blend:mean_28@0.5", "m2m"]
    np.testing.assert_array_equal(found.distribution.level_GNM, opened.distribution.level_GNM)
    shutil.rmtree(folder / "rivals")
    with pytest.raises(ValueError, match="lightgbm_level is missing"):
        Forecaster.load(folder)


def test_a_rival_of_some_targets_leaves_the_others_as_they_are(
    panel: Panel, inputs: Inputs, last_day: date, late: Boosted, tmp_path: Path
) -> None:
    """It says nothing of active days, which must not count as none: without an active day there would be no clicks."""
    model = train(panel, inputs, last_day, late, Told({-1: 9}, inputs.scenarios, (0.0,) * 3, (0.0,) * 3), tmp_path)
    blend = Blend((Share("mean_28", 0.0), Share("lightgbm_level", 0.0), Share("mean_28", 0.0)), {})
    forecaster = Forecaster.load(model)
    alone, served = (
        replace(forecaster, blend=blend, rivals=serving_rivals(blend, {"lightgbm_level": late}), calibrations=known)
        for known in ({}, forecaster.calibrations)
    )
    for found in (alone.predict(panel, last_day), served.predict(panel, last_day)):
        point_NM = found.distribution.point_NM
        old_N = (found.method_NM[:, 1] == "baseline:lightgbm_level") & (point_NM[:, 2] > 0)
        own_NM = late(panel, panel.index_of(last_day), found.series_N)
        assert (own_NM[old_N, 1] > 0).any()
        np.testing.assert_allclose(point_NM[old_N, 1], own_NM[old_N, 1])
        np.testing.assert_allclose(
            point_NM[old_N, 0], mean_28(panel, panel.index_of(last_day), found.series_N)[old_N, 0]
        )


def test_young_series_get_of_the_network_and_the_rule_what_is_nearer() -> None:
    actual_XM = np.tile([[4.0, 4.0, 0.0, 4.0]], (5, 1))
    network_XM = np.tile([[4.0, 9.0, 0.0, 6.0]], (5, 1))
    rule_XM = np.tile([[9.0, 4.0, 0.0, 2.0]], (5, 1))
    found = blend_of_young(network_XM, rule_XM, actual_XM, [False] * 4)
    # Where both say the same the network serves.
    assert found.tasks == tuple(Share("cold_start", weight) for weight in (1.0, 0.0, 1.0, 0.5))
    assert found.scenarios == {}
    whole = blend_of_young(network_XM[:, 3:], rule_XM[:, 3:], actual_XM[:, 3:], [True])
    assert whole.tasks == (Share("cold_start", 0.6),)  # 4.4 days are published as 4
