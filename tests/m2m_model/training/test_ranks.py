"""Ranks that train together, each a process of its own over gloo, beside one process alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from m2m_model.config import ModelConfig, TrainConfig, to_dict
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.files import LocalFiles
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.training import checkpoint
from m2m_model.training.loop import Trainer, train_rank
from m2m_model.training.pool import WindowIndex

MODEL = ModelConfig(width=16, experts=2)
PLAIN = replace(MODEL, dropout=0.0, scenario_dropout=0.0)
STEPS = 24
TRAIN = TrainConfig(epochs=3, min_steps=STEPS, max_windows=1500, batch_size=64, checkpoint_every_steps=4)
SUMS = {"atol": 1e-4, "rtol": 1e-3}  # what the order of float32 sums does to weights in so many steps

pytestmark = pytest.mark.slow

# One rank of the given runs, one after the other; says of each what it did, which shards it opened, and each step's
# windows.
RANK = """
import json, os, sys
from datetime import date
from pathlib import Path
import torch, torch.distributed as dist
from m2m_model.training import loop, pool
from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs

given, rank = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
torch.set_num_threads(1)
opened, steps = set(), []

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".npy"):
        opened.add(Path(arguments[0]).parent.name)
sys.addaudithook(note)

fit = loop.fit_serving
def fit_alone(*arguments):
    assert not dist.is_initialized()  # it may take longer than a collective waits: nobody waits for it in one
    return fit(*arguments)
loop.fit_serving = fit_alone

class Stopped(Exception):
    pass

take_step, cut = loop.Trainer.step, pool.Shards.examples
def step(trainer):
    if trainer.state.step == run["die_at"]:
        if not run["kill"]:
            raise Stopped
        if rank == given["world"] - 1:
            os.kill(os.getpid(), 9)
    steps.append([])
    def noted(data, index):
        steps[-1] += zip(index.shard_X.tolist(), index.series_X.tolist(), index.cutoff_X.tolist())
        return cut(data, index)
    pool.Shards.examples = noted
    try:
        take_step(trainer)
    finally:
        pool.Shards.examples = cut
loop.Trainer.step = step

for number, run in enumerate(given["runs"]):
    if given["world"] > 1:
        store = f"{given['store']}-{number}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=given["world"])
    opened.clear(), steps.clear()
    shards = [Path(shard) for shard in run["shards"]]
    sizes = [sum(file.stat().st_size for file in shard.iterdir()) for shard in shards]
    own = [shards[k] for k in pool.shares(sizes, given["world"])[rank]]
    lines = []
    try:
        result = loop.train_rank(
            own, Path(run["dir"]), Inputs.from_dict(given["inputs"]), ModelConfig(**run["model"]),
            TrainConfig(**given["train"]), date.fromisoformat(given["held_out_from"]), resume=run["resume"],
            say=lines.append,
        )
    except Stopped:
        dist.destroy_process_group()
        print(json.dumps({}), flush=True)
        continue
    print(json.dumps({
        "own": [shard.name for shard in own], "opened": sorted(opened), "steps": steps, "lines": lines,
        "result": [result.steps, result.best_epoch, result.resumed_from_step, result.windows,
                   [epoch.nmae for epoch in result.epochs], [epoch.train_loss for epoch in result.epochs]],
    }), flush=True)
"""


class StoppedError(Exception):
    pass


def a_run(
    folder: Path, shards: Sequence[Path], model: ModelConfig = PLAIN, die_at: int = -1, kill: bool = False
) -> dict[str, Any]:
    return {
        "dir": str(folder),
        "shards": list(map(str, shards)),
        "model": to_dict(model),
        "die_at": die_at,
        "kill": kill,
        "resume": (folder / "checkpoints").exists(),
    }


class Given:
    """What all runs of this module share."""

    def __init__(self, folder: Path, inputs: Inputs, held_out_from: date) -> None:
        self.folder, self.inputs, self.held_out_from, self.started = folder, inputs, held_out_from, 0

    def ranks(self, world: int, *runs: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]], str]]:
        """Of each rank its exit status or signal, what it said of each run, and all that it wrote."""
        self.started += 1
        arguments = self.folder / f"arguments-{self.started}.json"
        given = {"world": world, "store": f"file://{self.folder}/store-{self.started}", "runs": runs}
        given |= {"inputs": self.inputs.to_dict(), "train": to_dict(TRAIN), "held_out_from": str(self.held_out_from)}
        arguments.write_text(json.dumps(given))
        command = [sys.executable, "-c", RANK, str(arguments)]
        started = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for rank in range(world)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in started]
        return [
            (abs(process.returncode), [json.loads(line) for line in output.splitlines() if line[:1] == "{"], output)
            for process, output in zip(started, outputs, strict=True)
        ]

    def alone(
        self, folder: Path, shards: Sequence[Path], model: ModelConfig = PLAIN, die_at: int = -1
    ) -> list[WindowIndex]:
        """Train in this process; the windows of each step."""
        batches, take_step = [], Trainer.step

        def step(trainer: Trainer) -> None:
            if trainer.state.step == die_at:
                raise StoppedError
            batches.append(trainer.pool[trainer.plan.batch(trainer.state.step, TRAIN.seed)])
            take_step(trainer)

        with pytest.MonkeyPatch.context() as patch, suppress(StoppedError):
            patch.setattr(Trainer, "step", step)
            resume = (folder / "checkpoints").exists()
            train_rank(list(shards), folder, self.inputs, model, TRAIN, self.held_out_from, resume=resume)
        return batches


@pytest.fixture(scope="module")
def given(inputs: Inputs, last_day: date, tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("ranks"), inputs, last_day - timedelta(days=14))


def cut(take: Callable[[slice], Panel], folder: Path, *ends: int) -> list[Path]:
    """Shards of the panel's series up to each of ``ends``."""
    parts = [slice(start, end) for start, end in zip((0, *ends), ends, strict=False)]
    return [take(rows).save(folder / f"bucket={k:05d}") for k, rows in enumerate(parts)]


@pytest.fixture(scope="module")
def shards(take: Callable[[slice], Panel], given: Given) -> list[Path]:
    return cut(take, given.folder / "shards", 11, 13, 30, 45, 60)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return dict(Forecaster.load(run_dir / "model").model.state_dict())


def assert_close(one: Path, other: Path) -> None:
    """Weights, and what is fitted from forecasts; what the network learned of a sample to the bit."""
    ours, theirs = weights(one), weights(other)
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, **SUMS)
    for name in ("dense_mean_D", "dense_deviation_D"):
        assert torch.equal(ours[name], theirs[name])
    said, heard = (json.loads((run_dir / "model" / "config.json").read_text()) for run_dir in (one, other))
    # No network has a part in these.
    assert said["calibrations"] == heard["calibrations"]
    assert said["metadata"]["training_windows"] == heard["metadata"]["training_windows"]


def assert_same(one: Path, other: Path) -> None:
    assert (one / "model/weights.safetensors").read_bytes() == (other / "model/weights.safetensors").read_bytes()


def assert_divided(said: Sequence[dict[str, Any]], shards: Sequence[Path], batches: Sequence[WindowIndex]) -> None:
    """Each rank opened its own shards and no other, from the first line to the last; every window of every batch was
    one rank's."""
    assert sorted(name for rank in said for name in rank["own"]) == [shard.name for shard in shards]
    for rank in said:
        assert rank["opened"] == sorted(rank["own"])
        assert rank["result"] == said[0]["result"]
    for step, batch in enumerate(batches):
        taken = sorted(tuple(window) for rank in said for window in rank["steps"][step])
        columns = (batch.shard_X.tolist(), batch.series_X.tolist(), batch.cutoff_X.tolist())
        assert taken == sorted(zip(*columns, strict=True))


@pytest.fixture(scope="module")
def whole(given: Given, shards: list[Path]) -> Path:
    """One process, never stopped, with dropout."""
    given.alone(given.folder / "whole", shards, MODEL)
    return given.folder / "whole"


def test_two_ranks_divide_every_batch_and_equal_one(given: Given, shards: list[Path], whole: Path) -> None:
    """Whatever step a run is stopped at, and whoever goes on."""
    batches = given.alone(alone := given.folder / "alone", shards)
    stop, kill = random.randint(4, STEPS - 1), random.randint(4, STEPS - 1)
    print(f"stopped before step {stop}, killed before step {kill}")
    both, stopped, dropped, killed = (given.folder / name for name in ("both", "stopped", "dropped", "killed"))
    ranks = given.ranks(
        2,
        a_run(both, shards),
        a_run(stopped, shards, die_at=stop),
        a_run(dropped, shards, MODEL),
        a_run(killed, shards, MODEL, die_at=kill, kill=True),
    )
    assert [len(said) for _, said, _ in ranks] == [3, 3], ranks
    assert ranks[1][0] == 9
    assert ranks[0][0] == 1  # its neighbor is gone
    assert_divided([said[0] for _, said, _ in ranks], shards, batches)
    assert_close(alone, both)
    # Dropout depends on the rank: as good a model, and not the same.
    one, two = (Forecaster.load(run_dir / "model").metadata["validation_nmae"] for run_dir in (whole, dropped))
    assert two == pytest.approx(one, abs=0.01)

    # A machine is lost: one goes on where two were. Another time, one is found.
    given.alone(stopped, shards)
    assert_close(alone, stopped)
    grown = given.folder / "grown"
    given.alone(grown, shards, die_at=stop)
    ranks = given.ranks(2, a_run(killed, shards, MODEL), a_run(grown, shards))
    assert [code for code, _, _ in ranks] == [0, 0], ranks
    assert_same(dropped, killed)
    resumed = [[run["result"][2] for run in said] for _, said, _ in ranks]
    assert resumed == [[kill // 4 * 4, stop // 4 * 4]] * 2
    assert_close(alone, grown)


def test_ranks_without_a_window_of_a_batch_or_without_a_shard_take_part(
    given: Given, take: Callable[[slice], Panel]
) -> None:
    """Two series alone in a shard are in few batches; a third rank of two shards has nothing at all."""
    shards = cut(take, given.folder / "few", 2, 60)
    batches = given.alone(given.folder / "few-alone", shards)
    ranks = given.ranks(3, a_run(given.folder / "few-ranks", shards))
    assert [code for code, _, _ in ranks] == [0, 0, 0], ranks
    said = [said[0] for _, said, _ in ranks]
    assert_divided(said, shards, batches)
    taken = [[len(step) for step in rank["steps"]] for rank in said]
    assert min(taken[0]) > 0
    assert (min(taken[1]), max(taken[2])) == (0, 0)
    assert max(taken[1]) > 0
    assert_close(given.folder / "few-alone", given.folder / "few-ranks")
    assert "rank 0 has 97% of the windows" in said[0]["lines"][0]


def test_a_killed_run_resumes_to_the_same_weights(given: Given, shards: list[Path], whole: Path) -> None:
    """Alone, between checkpoints."""
    killed = given.folder / "killed-alone"
    ((code, said, output),) = given.ranks(1, a_run(killed, shards, MODEL, die_at=10, kill=True))
    assert (code, said) == (9, []), output
    newest = checkpoint.newest(LocalFiles(killed / "checkpoints"))
    assert newest is not None
    assert newest["state"]["step"] == 8
    given.alone(killed, shards, MODEL)
    assert_same(whole, killed)
    other = replace(TRAIN, learning_rate=0.5)
    with pytest.raises(ValueError, match="other settings, data or code; train --from-scratch"):
        train_rank(shards, killed, given.inputs, MODEL, other, given.held_out_from, resume=True)
