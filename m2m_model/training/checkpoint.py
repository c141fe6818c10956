"""Checkpoints that survive a kill; the two newest are kept."""

from __future__ import annotations

import io
import re
from typing import Any

import torch

from m2m_model.files import Files

KEPT = 2


def write(files: Files, step: int, state: dict[str, Any]) -> None:
    """Write ``state`` as the checkpoint of ``step`` and drop the older ones."""
    content = io.BytesIO()
    torch.save(state, content)
    files.write(f"step-{step:08d}.pt", content.getbuffer())
    for old in _names(files)[:-KEPT]:
        files.delete(old)


def newest(files: Files) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Only tensors and plain values are unpickled."""
    for name in reversed(_names(files)):
        content = io.BytesIO(files.read(name))
        try:
            state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - other bytes than were written may be taken for anything
            print(f"{name} cannot be read ({type(error).__name__}: {error}); trying the one before", flush=True)
            continue
        return state
    return None


def clear(files: Files) -> None:
    """Remove all checkpoints of an earlier run."""
    for name in _names(files):
        files.delete(name)


def _names(files: Files) -> list[str]:
    return sorted(name for name in files.names() if re.fullmatch(r"step-\d+\.pt", name))
