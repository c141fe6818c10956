"""All rivals of a training run: fitted together, kept in one folder.

N series, M targets.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Protocol

from m2m_model.arrays import Floats, Ints
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.files import replaced_folder
from m2m_model.rivals import MODULES

FORMAT_VERSION = 3
_LIST = "rivals.json"


class Rival(Protocol):
    """A learned baseline. Its module has ``fit(panels, inputs, last_label, seen)`` and ``refit(panels, inputs,
    last_label, fitted)``, rivals by name, and ``opened(parts)``, the inverse of ``parts``, which raises ValueError
    where it cannot."""

    def __call__(self, panel: Panel, cutoff: int, series: Ints) -> Floats:
        """(N, M) totals; ``cutoff`` is a day index, ``series`` row indices."""
        ...

    @property
    def targets(self) -> int:
        """How many targets it tells of."""
        ...

    def parts(self) -> dict[str, bytes]:
        """All of it, as files by name."""
        ...

    def of_targets(self, targets: Collection[int]) -> Rival:
        """What forecasts some of the targets, by number; of the others it says 0."""
        ...


@dataclass(frozen=True)
class Rivals:
    """The same rivals twice: ``early`` learned from labels up to the same day as the network, so that validation may
    judge both; ``late`` from all up to the first held-out cutoff. The late ones are what a backtest judges, and serve
    where the early ones won."""

    early: Mapping[str, Rival]
    late: Mapping[str, Rival]


def fit_rivals(panels: Sequence[Panel], inputs: Inputs, validation: Sequence[date], held_out_from: date) -> Rivals:
    """Every rival, both ways. Early labels end by the first of the ``validation`` cutoffs; what is set beside labels,
    like where a forecast is nothing, is learned on these, whose horizons end by ``held_out_from``."""
    early: dict[str, Rival] = {}
    late: dict[str, Rival] = {}
    for name in MODULES:
        module = import_module(name)
        fitted = module.fit(panels, inputs, min(validation), validation)
        early |= fitted
        late |= module.refit(panels, inputs, held_out_from, fitted)
    return Rivals(early, late)


def save_rivals(found: Mapping[str, Rival], folder: Path) -> Path:
    """Write the folder that ``load_rivals`` opens: the files of each, and their digests."""
    with replaced_folder(folder) as partial:
        files: dict[str, dict[str, str]] = {}
        for name, rival in found.items():
            parts = rival.parts()
            for part, content in parts.items():
                (partial / f"{name}-{part}").write_bytes(content)
            files[name] = {part: sha256(content).hexdigest() for part, content in parts.items()}
        stored = {"format_version": FORMAT_VERSION, "files": files}
        (partial / _LIST).write_text(json.dumps(stored), encoding="utf-8")
    return folder


def load_rivals(folder: Path) -> dict[str, Rival]:
    """The inverse of ``save_rivals``.

    Raises:
        ValueError: a file is missing, damaged or of another format version; the message names it.
    """
    module_of = {name: module for module, names in MODULES.items() for name in names}
    try:
        stored = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        if stored["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {stored['format_version']}; this code reads {FORMAT_VERSION}")
        found = {}
        for name, digests in stored["files"].items():
            parts = {part: (folder / f"{name}-{part}").read_bytes() for part in digests}
            for part, content in parts.items():
                if sha256(content).hexdigest() != digests[part]:  # most damaged files open, and forecast
                    raise ValueError(f"{name}-{part} is not the file that was written")
            found[name] = import_module(module_of[name]).opened(parts)
        return found
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: {error}") from error
