import json
import os
import subprocess
import sys
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
def shards(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return [split(panel, rows).save(folder / f"part-{k}") for k, rows in enumerate((slice(0, 30), slice(30, None)))]


def split(panel: Panel, rows: slice) -> Panel:
    return replace(
        panel,
        performance_NTP=panel.performance_NTP[rows],
        behavior_NTF=panel.behavior_NTF[rows],
        registered_N=panel.registered_N[rows],
        keys=panel.keys.take(np.arange(len(panel))[rows]),
    )


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
    assert not torch.equal(weights(trained)["output_weight_MDQ"], weights(tmp_path / "other")["output_weight_MDQ"])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(
    trained: Path, shards, inputs: Inputs, held_out_from: date, tmp_path: Path
) -> None:
    """Kill it for real, between checkpoints, in a process of its own."""
    (tmp_path / "arguments.json").write_text(
        json.dumps({"shards": list(map(str, shards)), "inputs": inputs.to_dict(), "held_out_from": str(held_out_from)})
    )
    killed = start_ranks(tmp_path, tmp_path / "run", world=1, die_at=10)[0]
    assert killed[0] == 9, killed[1]
    resumed = train_rank(shards, tmp_path / "run", inputs, MODEL, TRAIN, held_out_from, resume=True)
    assert resumed.resumed_from_step == 8
    assert_same(weights(trained), weights(tmp_path / "run"))
    other = replace(TRAIN, learning_rate=0.5)
    with pytest.raises(ValueError, match="other settings, data or code; train --from-scratch"):
        train_rank(shards, tmp_path / "run", inputs, MODEL, other, held_out_from, resume=True)


@pytest.mark.slow
def test_two_processes_agree_and_equal_one(
    trained: Path, shards, inputs: Inputs, held_out_from: date, tmp_path: Path
) -> None:
    (tmp_path / "arguments.json").write_text(
        json.dumps({"shards": list(map(str, shards)), "inputs": inputs.to_dict(), "held_out_from": str(held_out_from)})
    )
    outputs = start_ranks(tmp_path, tmp_path / "run", world=2, dropout=0.0)
    assert [code for code, _ in outputs] == [0, 0], outputs
    first, second = (json.loads(text.splitlines()[-1]) for _, text in outputs)
    assert first == second
    assert first["steps"] > 0
    config = replace(MODEL, dropout=0.0, scenario_dropout=0.0)
    train_rank(shards, tmp_path / "alone", inputs, config, TRAIN, held_out_from)
    # A machine is lost or found on the way: what one began, two end.
    killed = start_ranks(tmp_path, tmp_path / "grown", world=1, die_at=10, dropout=0.0)[0]
    assert killed[0] == 9, killed[1]
    outputs = start_ranks(tmp_path, tmp_path / "grown", world=2, dropout=0.0, resume=True)
    assert [code for code, _ in outputs] == [0, 0], outputs
    assert json.loads(outputs[0][1].splitlines()[-1])["resumed"] == 8
    alone = weights(tmp_path / "alone")
    for together in (weights(tmp_path / "run"), weights(tmp_path / "grown")):
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name], tensor, atol=5e-3, rtol=5e-2)


RANK = """
import json, os, sys
from datetime import date
from pathlib import Path
import torch, torch.distributed as dist
from m2m_model.training import loop
from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs

given = json.loads(Path(sys.argv[1]).read_text())
run_dir, options = Path(sys.argv[2]), json.loads(sys.argv[3])
if options["world"] > 1:
    dist.init_process_group("gloo", init_method=options["store"], rank=int(sys.argv[4]), world_size=options["world"])
fit = loop.fit_serving
def fit_alone(*arguments):
    assert not dist.is_initialized()  # it may take longer than a collective waits: nobody waits for it in one
    return fit(*arguments)
loop.fit_serving = fit_alone
if options["die_at"]:
    take_step, taken = loop.Trainer.step, []
    def step_or_die(trainer):
        if len(taken) == options["die_at"]:
            os.kill(os.getpid(), 9)
        taken.append(1)
        return take_step(trainer)
    loop.Trainer.step = step_or_die
result = loop.train_rank(
    [Path(s) for s in given["shards"]], run_dir, Inputs.from_dict(given["inputs"]), ModelConfig(**options["model"]),
    TrainConfig(**options["train"]), date.fromisoformat(given["held_out_from"]),
    resume=options["resume"],
)
print(json.dumps({"steps": result.steps, "best": result.best_epoch, "resumed": result.resumed_from_step,
                  "nmae": [e.nmae for e in result.epochs],
                  "loss": [e.train_loss for e in result.epochs]}))
"""


def start_ranks(
    folder: Path, run_dir: Path, world: int, die_at: int = 0, dropout: float | None = None, resume: bool = False
) -> list[tuple[int, str]]:
    """(exit status or signal, output) of each rank."""
    from m2m_model.config import to_dict

    model = MODEL if dropout is None else replace(MODEL, dropout=dropout, scenario_dropout=dropout)
    store = f"file://{folder}/store-{run_dir.name}"
    options = {"world": world, "die_at": die_at, "resume": resume, "store": store}
    options |= {"model": to_dict(model), "train": to_dict(TRAIN)}
    command = [sys.executable, "-c", RANK, str(folder / "arguments.json"), str(run_dir), json.dumps(options)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = [
        subprocess.Popen(
            [*command, str(rank)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(world)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in started]
    return [(abs(process.returncode), output) for process, output in zip(started, outputs, strict=True)]


def test_labels_after_train_end_do_not_reach_the_weights(
    shards, panel: Panel, inputs: Inputs, held_out_from: date, tmp_path: Path
) -> None:
    """Validation days choose the epoch and calibrate; with one epoch there is nothing to choose."""
    config = replace(TRAIN, epochs=1)
    end = train_end(panel.first_day, held_out_from, 7, config.validation_cutoffs)
    absurd = panel.performance_NTP.copy()
    absurd[:, panel.index_of(end) + 1 :] = 1e9
    part = replace(panel, performance_NTP=absurd).save(tmp_path / "p")
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
        ValueError, match=r"nothing to train on: no series with 14 registered days .* 60 series over 2024"
    ):
        train_rank(shards, tmp_path, inputs, MODEL, TRAIN, panel.first_day + timedelta(days=10))
    with pytest.raises(ValueError, match="nothing to validate on: no eligible series at 2030-01-24, 2030-01-17"):
        train_rank(shards, tmp_path, inputs, MODEL, TRAIN, date(2030, 1, 31))


def test_an_empty_shard_among_others(shards, panel: Panel, inputs: Inputs, held_out_from: date, tmp_path: Path) -> None:
    empty = split(panel, slice(0, 0)).save(tmp_path / "empty")
    config = replace(TRAIN, epochs=1, min_steps=2)
    result = train_rank([empty, *shards], tmp_path / "run", inputs, MODEL, config, held_out_from)
    assert Forecaster.load(result.model_folder).spec == inputs.spec
