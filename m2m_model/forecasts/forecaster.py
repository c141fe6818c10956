"""Forecasts from a model folder: safetensors + config.json, nothing unpickled."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from m2m_model.arrays import Ints, Strings
from m2m_model.config import ModelConfig, from_dict, to_dict
from m2m_model.data.activity import activity_NM
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.files import replaced_folder
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.blend import Blend
from m2m_model.forecasts.calibration import Dependence, LevelCalibration, Pacing, ResidualQuantiles
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecast, Forecasts, forecast_each, simple_distribution
from m2m_model.forecasts.forward import BATCH_SIZE, choose_device, network_outputs, nothing, to_distribution
from m2m_model.forecasts.methods import COLD_START
from m2m_model.forecasts.methods import M2M as M2M_METHOD
from m2m_model.network.model import M2M, Batch
from m2m_model.network.windows import Days, Windows

if TYPE_CHECKING:
    from m2m_model.rivals.artifact import Rival

FORMAT_VERSION = 5
WEIGHTS, REFITTED = "weights.safetensors", "refitted.safetensors"
_RIVALS = "rivals"


@dataclass(frozen=True)
class Forecaster:
    """A trained model with its inputs, the calibration of its levels, its blend with simple forecasts and learned
    baselines, and the residuals of those (cold_start, silent, and each one's name).

    Safe to share between threads; one per worker process is enough.
    """

    model: M2M
    model_config: ModelConfig
    inputs: Inputs
    calibrations: Mapping[str, ResidualQuantiles]
    levels: LevelCalibration
    blend: Blend | None  # None: the network alone
    young_blend: Blend | None  # the same for series with less than COLD_START_DAYS of history
    shared: Dependence  # how series go wrong together: for totals
    pacing: Pacing  # how totals come, day by day
    metadata: Mapping[str, Any]  # versions, held_out_from, validation cutoffs, best epoch
    device: torch.device
    rivals: Mapping[str, Rival] = field(default_factory=dict)  # of the blend's anchors, those that were learned

    @property
    def spec(self) -> SequenceSpec:
        return self.inputs.spec

    @cached_property
    def windows(self) -> Windows:
        return Windows(self.inputs, self.device)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | None = None, *, measured: bool = False) -> Forecaster:
        """Open a model folder, with the weights that were refitted for serving if there are such; ``measured``: with
        those that a backtest may judge, whose labels end before the held-out cutoffs.

        Raises:
            ValueError: the folder was written by another format version, its parts do not fit together, or a learned
                baseline that serves is missing or damaged.
        """
        folder = Path(folder)
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if stored.get("format_version") != FORMAT_VERSION:
            found = stored.get("format_version")
            raise ValueError(f"{folder}: format_version {found}; this code reads {FORMAT_VERSION}")
        device = device or choose_device()
        inputs = Inputs.from_dict(stored["inputs"])
        config = from_dict(ModelConfig, stored["model_config"])
        model = M2M(config, inputs)
        weights = REFITTED if (folder / REFITTED).exists() and not measured else WEIGHTS
        try:
            model.load_state_dict(load_file(folder / weights))
        except RuntimeError as error:
            raise ValueError(f"{folder}: {weights} does not fit config.json: {error}") from error
        calibrations = {name: ResidualQuantiles.from_dict(cells) for name, cells in stored["calibrations"].items()}
        levels = LevelCalibration.from_dict(stored["levels"])
        blend, young_blend = (blend and Blend.from_dict(blend) for blend in (stored["blend"], stored["young_blend"]))
        model = model.to(device).eval()
        shared = Dependence.from_dict(stored["shared"])
        # A model of before there were paths has none of its own.
        pacing = Pacing.from_dict(stored["pacing"]) if "pacing" in stored else Pacing.even(inputs.spec)
        rivals: Mapping[str, Rival] = {}
        if (folder / _RIVALS).exists():
            from m2m_model.rivals import artifact  # with what it takes to open them: where none serves, not loaded

            rivals = artifact.load_rivals(folder / _RIVALS)
        if missing := sorted(set(stored["rivals"]) - rivals.keys()):
            raise ValueError(f"{folder / _RIVALS}: {', '.join(missing)} is missing")
        served = (calibrations, levels, blend, young_blend, shared, pacing)
        found = cls(model, config, inputs, *served, stored["metadata"], device, rivals)
        if misfits := found.misfits():
            raise ValueError(f"{folder}: its parts do not fit together: {'; '.join(misfits[:3])}")
        return found

    def misfits(self) -> list[str]:
        """What is not there once for each target or task, or is not known, in words."""
        spec, levels, pacing = self.spec, self.levels, self.pacing
        blends = {"blend": self.blend, "young_blend": self.young_blend}
        of_targets: dict[str, list[Sized]] = {
            "target_scales": [self.inputs.target_scales],
            "levels": [
                levels.mean_ratio_M,
                levels.young_ratio_M,
                levels.cells.pooled_MK,
                *levels.cells.scenarios.values(),
            ],
            "shared": [self.shared.targets],
            "pacing": [pacing.clock_MK],
            **{name: [blend.tasks, *blend.scenarios.values()] for name, blend in blends.items() if blend},
            **{f"rival {name}": [range(rival.targets)] for name, rival in self.rivals.items()},
        }
        for name, found in self.calibrations.items():
            cells = [found.cells.pooled_MK, *found.cells.scenarios.values()] if found.cells else []
            of_targets[f"calibration {name}"] = [found.targets, found.floor_M, found.mean_scale_M, *cells]
        of_tasks = {"pacing by weekday": [pacing.weekday_TW, pacing.own_T, *pacing.scenarios.values()]}
        words = [
            f"{name} is of {len(part)} {kind}, not {count}"
            for kind, count, parts in (("targets", len(spec.targets), of_targets), ("tasks", len(spec.tasks), of_tasks))
            for name, sized in parts.items()
            for part in sized
            if len(part) != count
        ]
        known = {*BASELINES, COLD_START, *self.rivals}
        unknown = {name: {*blend.anchors} - known for name, blend in blends.items() if blend}
        return words + [f"{name} takes from {', '.join(sorted(others))}" for name, others in unknown.items() if others]

    def save(self, folder: Path | str, refitted: Mapping[str, torch.Tensor] | None = None) -> Path:
        """Write the model folder; it appears whole or not at all, and replaces an older one. ``refitted`` are weights
        that serve in the place of this one's own."""
        folder = Path(folder)
        stored = {
            "format_version": FORMAT_VERSION,
            "model_config": to_dict(self.model_config),
            "spec": self.spec.to_dict(),
            "inputs": self.inputs.to_dict(),
            "calibrations": {name: calibration.to_dict() for name, calibration in self.calibrations.items()},
            "levels": self.levels.to_dict(),
            "blend": self.blend and self.blend.to_dict(),
            "young_blend": self.young_blend and self.young_blend.to_dict(),
            "shared": self.shared.to_dict(),
            "pacing": self.pacing.to_dict(),
            "rivals": list(self.rivals),
            "metadata": dict(self.metadata),
            "versions": {"python": platform.python_version()}
            | {name: packages.version(name) for name in ("torch", "numpy", "pyarrow", "safetensors")},
        }
        with replaced_folder(folder) as partial:
            for name, weights in ((WEIGHTS, self.model.state_dict()), (REFITTED, refitted or {})):
                if weights:
                    save_file({key: tensor.cpu().contiguous() for key, tensor in weights.items()}, partial / name)
            (partial / "config.json").write_text(json.dumps(stored), encoding="utf-8")
            if self.rivals:
                from m2m_model.rivals import artifact

                artifact.save_rivals(self.rivals, partial / _RIVALS)
        return folder

    def predict(
        self, panel: Panel, cutoff: date, *, all_series: bool = False, batch_size: int = BATCH_SIZE
    ) -> Forecasts:
        """Forecasts of the eligible series (a row in eligible_days), by the network, the blend or its anchor.

        With ``all_series`` also the silent ones (registered, no row in eligible_days). Each row is independent of the
        rest of its batch and panel. A panel without such a series gives zero rows.

        Raises:
            ValueError: the cutoff is outside the panel, or the panel was made for another data set.
        """
        if panel.spec != self.spec:
            raise ValueError("the panel's metrics, attributes, tasks or lengths are not those the model was trained on")
        days = Days.of(panel, self.inputs.profile(panel), self.device)

        def by_network(blend: Blend | None) -> Forecast:
            def forecast(day: int, series: Ints) -> tuple[Distribution, Strings]:
                series_X = torch.from_numpy(series.astype(np.int64)).to(self.device)
                day_X = torch.full_like(series_X, day)

                def cut(rows: slice) -> Batch:
                    return self.windows.of(days.runs(series_X[rows], day_X[rows]))

                # Batch by batch to the end: what a batch needs stays in the cache.
                made = [self.serve(nothing(self.spec), panel, day, series[:0], blend)]
                for rows, batch, output_BMQ in network_outputs(self.model, cut, len(series), batch_size):
                    raw = to_distribution(self.model, self.inputs, batch, output_BMQ)
                    made.append(self.serve(raw, panel, day, series[rows], blend))
                distributions, methods = zip(*made, strict=True)
                return Distribution.concatenate(distributions), np.concatenate(methods)

            return forecast

        network, young = by_network(self.blend), by_network(self.young_blend)
        return forecast_each(panel, cutoff, network, self.calibrations, young=young, all_series=all_series)

    def methods(self, scenario: str) -> tuple[str, ...]:
        """Who makes the figures of a scenario's series with COLD_START_DAYS of history, per target."""
        if self.blend is None:
            return (M2M_METHOD,) * len(self.spec.targets)
        return tuple(share.method for share in self.blend.scenarios.get(scenario, self.blend.tasks))

    def serve(
        self, raw: Distribution, panel: Panel, day: int, series: Ints, blend: Blend | None
    ) -> tuple[Distribution, Strings]:
        """The network's own distribution of some series, calibrated, blended and made coherent; and who made what."""
        scenario_N = panel.scenario_N[series]
        served = self.levels.apply(raw, scenario_N, activity_NM(panel, day, series))
        method_NM = np.full(served.mean_NM.shape, M2M_METHOD, object)
        if blend is not None:
            simple = {
                name: simple_distribution(name, panel, day, series, self.calibrations.get(name), self.rivals)
                for name in blend.anchors
            }
            served, method_NM = blend.apply(served, simple, scenario_N), blend.methods(scenario_N)
        return coherent(served, panel.spec), method_NM
