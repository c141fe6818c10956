"""Weights that learned from all labels serve; those that did not are judged."""

import json
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
from m2m_model.forecasts.forecaster import REFITTED, Forecaster
from m2m_model.training import loop
from m2m_model.training.loop import train_rank

MODEL = ModelConfig(width=16, experts=2)
TRAIN = TrainConfig(epochs=2, min_steps=12, max_windows=700, batch_size=64, checkpoint_every_steps=3, refit=True)


@pytest.fixture(scope="module")
def held_out_from(last_day: date) -> date:
    return last_day - timedelta(days=14)


@pytest.fixture(scope="module")
def shard(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return panel.save(tmp_path_factory.mktemp("shards") / "all")


@pytest.fixture(scope="module")
def trained(shard: Path, inputs: Inputs, held_out_from: date, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    result = train_rank([shard], run_dir, inputs, MODEL, TRAIN, held_out_from)
    assert result.refit_nmae is not None
    assert (result.model_folder / REFITTED).exists()
    return run_dir


def weights(run_dir: Path, measured: bool = False) -> torch.Tensor:
    model = Forecaster.load(run_dir / "model", measured=measured).model
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


def test_what_is_judged_is_as_without(trained: Path, shard, inputs: Inputs, held_out_from: date, tmp_path) -> None:
    train_rank([shard], tmp_path, inputs, MODEL, replace(TRAIN, refit=False), held_out_from)
    assert not (tmp_path / "model" / REFITTED).exists()
    assert torch.equal(weights(trained, measured=True), weights(tmp_path))
    assert not torch.equal(weights(trained), weights(tmp_path))
    # Bins, scales and edges of classes are the same, so calibration and blend still fit; and so are those.
    one, other = (Forecaster.load(folder / "model") for folder in (trained, tmp_path))
    buffers = dict(other.model.named_buffers())
    assert buffers
    assert all(torch.equal(found, buffers[name]) for name, found in one.model.named_buffers())
    assert (one.levels, one.blend, one.calibrations) == (other.levels, other.blend, other.calibrations)


def test_only_what_serves_learns_from_late_labels(
    trained: Path, changed: Callable[..., Panel], panel: Panel, inputs: Inputs, held_out_from: date, tmp_path: Path
) -> None:
    def absurd(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[:, panel.index_of(held_out_from) + 1 :] *= 3

    train_rank([changed(absurd).save(tmp_path / "shard")], tmp_path, inputs, MODEL, TRAIN, held_out_from)
    assert torch.equal(weights(trained, measured=True), weights(tmp_path, measured=True))
    assert not torch.equal(weights(trained), weights(tmp_path))
    known, blind = (json.loads((at / "model" / "config.json").read_text()) for at in (trained, tmp_path))
    assert known["metadata"].pop("refit") != blind["metadata"].pop("refit")
    assert known == blind


@pytest.mark.parametrize("calls", [4, 14, 17])  # 12 steps, and then 6 more: the first epoch was the best
def test_goes_on_to_the_same_weights(
    calls: int, trained: Path, shard, inputs: Inputs, held_out_from: date, tmp_path: Path
) -> None:
    seen = []

    def killed(*at: float) -> None:
        seen.append(at)
        if len(seen) == calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rank([shard], tmp_path, inputs, MODEL, TRAIN, held_out_from, at=killed)
    train_rank([shard], tmp_path, inputs, MODEL, TRAIN, held_out_from, resume=True)
    assert torch.equal(weights(trained), weights(tmp_path))
    assert torch.equal(weights(trained, measured=True), weights(tmp_path, measured=True))


def test_the_windows_of_both_trainings_are_counted(shard, inputs: Inputs, held_out_from: date, tmp_path) -> None:
    rows_seen: list[int] = []
    train_rank(
        [shard], tmp_path, inputs, MODEL, TRAIN, held_out_from, at=lambda step, waited_s, rows: rows_seen.append(rows)
    )
    assert rows_seen == [TRAIN.batch_size * (k + 1) for k in range(len(rows_seen))]
    assert len(rows_seen) > TRAIN.min_steps


def test_weights_that_are_worse_do_not_serve(
    shard, inputs: Inputs, held_out_from: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REFIT_ALLOWED", 0.01)
    said: list[str] = []
    train_rank([shard], tmp_path, inputs, MODEL, TRAIN, held_out_from, say=said.append)
    assert any("the refitted weights are not served" in line for line in said)
    assert not (tmp_path / "model" / REFITTED).exists()
    told = json.loads((tmp_path / "model" / "config.json").read_text())["metadata"]["refit"]
    assert told["serves"] is False
    assert told["nmae"] > 0.01 * told["measured_nmae"]
