"""Checkpoints that survive a kill: written beside their name, synced, renamed; the two newest are kept."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

KEPT = 2


def write(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` as the checkpoint of ``step`` and drop the older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    replace_file(path, lambda partial: torch.save(state, partial))
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


def replace_file(path: Path, write_to: Any) -> None:
    """Write through ``write_to(partial path)``, sync it to disk, and give it its name in one step."""
    partial = path.with_name(path.name + ".partial")
    write_to(partial)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
