"""A rank whose shards, checkpoints and model are in an object store."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from services import object_store

from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.forecasts import blend
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.rivals import NAMES as RIVALS
from m2m_model.rivals.artifact import load_rivals
from m2m_model.training import checkpoint, loop
from pipelines.spark.shards import CHECKPOINTS, MODEL, SHARDS, train_on_shards
from pipelines.stages.train import fit_rivals
from pipelines.warehouse.store import Folder, Store

MODEL_CONFIG = ModelConfig(width=8, heads=2, experts=2)
TRAIN = TrainConfig(epochs=2, min_steps=8, max_windows=300, batch_size=64, checkpoint_every_steps=3, blend=False)


class StoppedError(Exception):
    pass


@pytest.fixture
def arguments(inputs: Inputs, last_day: date) -> dict[str, Any]:
    """Of a rank, beside its folder."""
    return {
        "inputs": inputs,
        "model_config": MODEL_CONFIG,
        "train_config": TRAIN,
        "held_out_from": last_day - timedelta(days=14),
    }


def test_it_goes_on_from_the_store_to_the_weights_that_it_has_on_disk(
    panel: Panel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with object_store() as store:
        weights = []
        for run in (Folder(str(tmp_path / "run")), Folder("s3://m2m/run", Store.of(store.properties))):
            with (run / SHARDS).filling() as place:
                panel.save(place / "bucket=00000")
            step = loop.Trainer.step

            def stopped(trainer: loop.Trainer, step=step) -> None:
                if trainer.state.step == 7:
                    raise StoppedError
                step(trainer)

            with monkeypatch.context() as patch:
                patch.setattr(loop.Trainer, "step", stopped)
                with pytest.raises(StoppedError):
                    train_on_shards(run, **arguments)
            assert (run / CHECKPOINTS).names()[-1] == "step-00000006.pt"
            newest = checkpoint.newest(run / CHECKPOINTS)
            assert newest is not None
            assert train_on_shards(run, resume=True, **arguments).resumed_from_step == newest["state"]["step"] == 6
            with (run / MODEL).at_hand() as model:
                weights.append((model / "weights.safetensors").read_bytes())
        assert weights[0] == weights[1]
        copies = tmp_path / f"m2m-copies-{os.getuid()}"
        assert [path for path in copies.iterdir() if path.suffix != ".lock"] == []
        assert list(tmp_path.glob("m2m-[!c]*")) == []


def test_rivals_reach_the_ranks_through_the_store(
    panel: Panel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted where all shards are at hand; what serves is in the model, and what is judged is what was fitted last."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(blend, "SIMPLER", -100.0)  # the better ones serve, surely or not
    said = list[str]()
    run: Any = SimpleNamespace(config=SimpleNamespace(training=TRAIN), say=said.append)
    arguments |= {"train_config": replace(TRAIN, blend=True)}
    with object_store() as store:
        for folder in (Folder(str(tmp_path / "run")), Folder("s3://m2m/run", Store.of(store.properties))):
            with (folder / SHARDS).filling() as place:
                panel.save(place / "bucket=00000")
            late = fit_rivals(run, folder, arguments["inputs"], panel.first_day, arguments["held_out_from"])
            train_on_shards(folder, **arguments)
            with late.at_hand() as rivals, (folder / MODEL).at_hand() as model:
                assert set(load_rivals(rivals)) == set(RIVALS)
                kept = Forecaster.load(model).rivals
                assert kept
                for name in kept:
                    files = sorted((model / "rivals").glob(f"{name}-*.txt"))
                    assert files
                    assert all(file.read_bytes() == (rivals / file.name).read_bytes() for file in files)
    assert said == ["fitting LightGBM, which serves where validation says so"] * 2


RANK = """
import os, pickle, sys, time
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
from pipelines.spark.shards import train_on_shards
from pipelines.warehouse import store

address, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
folder, arguments = pickle.loads(Path(sys.argv[3]).read_bytes())
copy = store.copy_files
def copied(source, *others):
    print("fetched", source.rsplit("/", 1)[1], flush=True)
    copy(source, *others)
    time.sleep(8 * rank)
store.copy_files = copied
dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=timedelta(seconds=5))
train_on_shards(folder, say=print, **arguments)
"""


@pytest.mark.slow
def test_each_rank_fetches_its_own_shards_and_no_other(panel: Panel, arguments: dict[str, Any], tmp_path: Path) -> None:
    """And may take longer for it than a collective waits."""
    with object_store() as store:
        run = Folder("s3://m2m/run", Store.of(store.properties))
        with (run / SHARDS).filling() as place:
            for bucket in range(3):
                panel.save(place / f"bucket={bucket:05d}")
        (run / SHARDS / "bucket=00003.partial").write("performance.npy", b"of a worker that was killed")
        (tmp_path / "given").write_bytes(pickle.dumps((run, arguments)))
        command = [sys.executable, "-c", RANK, f"file://{tmp_path}/group"]
        started = [
            subprocess.Popen(
                [*command, str(rank), str(tmp_path / "given")],
                env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in started]
        assert [process.returncode for process in started] == [0, 0], outputs
        fetched = [[line[8:] for line in output.splitlines() if line.startswith("fetched b")] for output in outputs]
        assert fetched == [["bucket=00000", "bucket=00002"], ["bucket=00001"]]
        assert "weights.safetensors" in (run / MODEL).names()
        assert [path for path in (tmp_path / f"m2m-copies-{os.getuid()}").iterdir() if path.suffix != ".lock"] == []
