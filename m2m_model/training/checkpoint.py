"""Checkpoints that survive a kill; the two newest are kept."""

from __future__ import annotations

import io
import re
from typing import Any

import torch

from m2m_model.files import Files

KEPT = 2
TRAINING, REFIT = "step", "refit"  # phases of a run


def write(files: Files, step: int, state: dict[str, Any], phase: str = TRAINING) -> None:
    """Write ``state`` as the checkpoint of ``step`` of a ``phase`` and drop the older ones of it."""
    content = io.BytesIO()
    torch.save(state, content)
    files.write(f"{phase}-{step:08d}.pt", content.getbuffer())
    for old in _names(files, phase)[:-KEPT]:
        files.delete(old)


def newest(files: Files, phase: str = TRAINING) -> dict[str, Any] | None:
    """The newest checkpoint of a phase that can be read, or None. Only tensors and plain values are unpickled."""
    for name in reversed(_names(files, phase)):
        content = io.BytesIO(files.read(name))
        try:
            state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - other bytes than were written may be taken for anything
            print(f"{name} cannot be read ({type(error).__name__}: {error}); trying the one before", flush=True)
            continue
        return state
    return None


def clear(files: Files, phase: str = TRAINING) -> None:
    """Remove all checkpoints that an earlier run left of a phase."""
    for name in _names(files, phase):
        files.delete(name)


def _names(files: Files, phase: str) -> list[str]:
    return sorted(name for name in files.names() if re.fullmatch(rf"{phase}-\d+\.pt", name))
