"""Checkpoints that survive a kill; the two newest are kept."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from m2m_model.files import replace_file

KEPT = 2


def write(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` as the checkpoint of ``step`` and drop the older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    stored = io.BytesIO()  # torch's own writer does not say that a disk is full
    torch.save(state, stored)
    replace_file(path, lambda partial: partial.write_bytes(stored.getbuffer()))
    for old in _paths(folder)[:-KEPT]:
        old.unlink()
    return path


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Only tensors and plain values are unpickled."""
    for path in reversed(_paths(folder)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            print(f"{path} cannot be read ({error}); trying the one before", flush=True)
            continue
        return state
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints of an earlier run."""
    for path in _paths(folder):
        path.unlink()


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
