from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.training.calendar import train_end
from m2m_model.training.loop import train_rank

MODEL = ModelConfig(width=16, experts=2)
TRAIN = TrainConfig(epochs=3, min_steps=18, max_windows=1500, batch_size=64, checkpoint_every_steps=4)


@pytest.fixture(scope="module")
def held_out_from(last_day: date) -> date:
    return last_day - timedelta(days=14)


@pytest.fixture(scope="module")
def shards(take: Callable[[slice], Panel], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return [take(rows).save(folder / f"part-{k}") for k, rows in enumerate((slice(0, 30), slice(30, None)))]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return dict(Forecaster.load(run_dir / "model").model.state_dict())


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def trained(shards, inputs: Inputs, held_out_from: date, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    result = train_rank(shards, run_dir, inputs, MODEL, TRAIN, held_out_from)
    assert len(result.epochs) <= 3
    assert result.model_folder == run_dir / "model"
    assert result.epochs[result.best_epoch - 1].nmae == min(epoch.nmae for epoch in result.epochs)
    assert {(cell.scenario_id, cell.task) for cell in result.epochs[0].cells} == {
        (scenario, task) for scenario in ("search", "feed") for task in ("spend", "clicks", "active_days")
    }
    return run_dir


def test_same_seed_same_weights(trained: Path, shards, inputs: Inputs, held_out_from: date, tmp_path: Path) -> None:
    train_rank(shards, tmp_path / "again", inputs, MODEL, TRAIN, held_out_from)
    assert_same(weights(trained), weights(tmp_path / "again"))
    train_rank(shards, tmp_path / "other", inputs, MODEL, replace(TRAIN, seed=2), held_out_from)
    assert not torch.equal(weights(trained)["output_weight_MDX"], weights(tmp_path / "other")["output_weight_MDX"])


def test_labels_after_train_end_do_not_reach_the_weights(
    shards, panel: Panel, changed, inputs: Inputs, held_out_from: date, tmp_path: Path
) -> None:
    """Validation days choose the epoch and calibrate; with one epoch there is nothing to choose."""
    config = replace(TRAIN, epochs=1)
    end = train_end(panel.first_day, held_out_from, [7], config.validation_cutoffs)

    def absurd(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[:, panel.index_of(end) + 1 :] = 1e9

    part = changed(absurd).save(tmp_path / "p")
    clean = panel.save(tmp_path / "clean")
    train_rank([part], tmp_path / "one", inputs, MODEL, config, held_out_from)
    train_rank([clean], tmp_path / "two", inputs, MODEL, config, held_out_from)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_loss_falls_and_is_finite(trained: Path, shards, inputs: Inputs, held_out_from: date, tmp_path: Path) -> None:
    config = replace(TRAIN, epochs=4, max_windows=10_000, patience=4)
    result = train_rank(shards, tmp_path, inputs, MODEL, config, held_out_from)
    losses = [epoch.train_loss for epoch in result.epochs]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_nothing_to_train_on_says_so(shards, inputs: Inputs, panel: Panel, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nothing to train on: no series with 1?\d registered days .* 60 series over 2024"
    ):
        train_rank(shards, tmp_path, inputs, MODEL, TRAIN, panel.first_day + timedelta(days=10))
    with pytest.raises(ValueError, match="nothing to validate on: no eligible series at 2030-01-24, 2030-01-17"):
        train_rank(shards, tmp_path, inputs, MODEL, TRAIN, date(2030, 1, 31))


def test_an_empty_shard_among_others(shards, take, inputs: Inputs, held_out_from: date, tmp_path: Path) -> None:
    empty = take(slice(0)).save(tmp_path / "empty")
    config = replace(TRAIN, epochs=1, min_steps=2)
    result = train_rank([empty, *shards], tmp_path / "run", inputs, MODEL, config, held_out_from)
    assert Forecaster.load(result.model_folder).spec == inputs.spec
