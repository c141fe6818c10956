"""All rivals of a training run: fitted together, kept in one folder, judged as the model is.

N series, M tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.files import replaced_folder
from m2m_model.forecasts.calibration import ResidualQuantiles
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts, forecast_each
from m2m_model.rivals import MODULES

FORMAT_VERSION = 2
_LIST = "rivals.json"


class Rival(Protocol):
    """A learned baseline. Its module has ``fit(panels, inputs, held_out_from)``, rivals by name, and ``opened(parts)``,
    the inverse of ``parts``, which raises ValueError where it cannot."""

    def __call__(self, panel: Panel, cutoff: int, series: Ints) -> Floats:
        """(N, M) totals; ``cutoff`` is a day index, ``series`` row indices."""
        ...

    def parts(self) -> dict[str, bytes]:
        """All of it, as files by name."""
        ...


def fit_rivals(panels: Sequence[Panel], inputs: Inputs, held_out_from: date) -> dict[str, Rival]:
    """Every rival, from labels that end by ``held_out_from``."""
    found: dict[str, Rival] = {}
    for module in MODULES:
        found |= import_module(module).fit(panels, inputs, held_out_from)
    return found


def train_rivals(shards: Sequence[Path], inputs: Inputs, held_out_from: date, folder: Path) -> Path:
    """Fit on the panels of a training run and write ``folder``. Needs no rank: minutes at most, on one machine."""
    return save_rivals(fit_rivals([Panel.open(shard) for shard in shards], inputs, held_out_from), folder)


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


def rival_forecasts(
    name: str, rival: Rival, panel: Panel, cutoff: date, calibrations: Mapping[str, ResidualQuantiles]
) -> Forecasts:
    """``Forecaster.predict`` for a rival: points without a distribution, on the same series."""

    def forecast(day: int, series: Ints) -> tuple[Distribution, Strings]:
        own_NM = rival(panel, day, series)
        return Distribution.point(own_NM), np.full(own_NM.shape, f"baseline:{name}", object)

    return forecast_each(panel, cutoff, forecast, calibrations)
