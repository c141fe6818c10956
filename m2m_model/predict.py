"""Forecasts from a model folder: weights.safetensors + config.json, nothing unpickled."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from m2m_model import baselines
from m2m_model.blend import Blend
from m2m_model.boosted import Boosted
from m2m_model.calibration import LevelCalibration, ResidualQuantiles
from m2m_model.checkpoint import replace_file
from m2m_model.config import ModelConfig, from_dict, to_dict
from m2m_model.distribution import Distribution, coherent
from m2m_model.inputs import COLD_START_DAYS, Inputs, Panel, Profile, SequenceSpec, eligible, history_days, silent
from m2m_model.likelihoods import to_distribution
from m2m_model.model import M2M, Batch

Floats = NDArray[Any]
Ints = NDArray[Any]

FORMAT_VERSION = 2
BATCH_SIZE = 1024  # windows the network sees at once; more leave the cache (docs/scoring.md)
M2M_METHOD, COLD_START_METHOD, SILENT_METHOD = "m2m", "cold_start", "silent"
FIGURES = ("point", "mean", "p_zero", "median", "p05", "p25", "p75", "p95")
FORECAST_SCHEMA = pa.schema(
    [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("task", pa.string()), ("horizon_days", pa.int32())]
    + [(name, pa.float64()) for name in FIGURES]
    + [("method", pa.string())]
)


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of N series of a panel as of the end of ``cutoff``, in panel order.

    ``series_N`` are row indices of the panel; ``method_N`` is m2m, cold_start, silent or baseline:<name>.
    """

    cutoff: date
    series_N: Ints
    advertiser_N: NDArray[Any]
    scenario_N: NDArray[Any]
    method_N: NDArray[Any]
    distribution: Distribution

    def to_table(self, spec: SequenceSpec) -> pa.Table:
        """Long form, one row per series and task; see ``FORECAST_SCHEMA``."""
        rows, tasks = len(self.series_N), len(spec.tasks)
        columns: dict[str, Any] = {
            "advertiser_id": np.repeat(self.advertiser_N, tasks).tolist(),
            "scenario_id": np.repeat(self.scenario_N, tasks).tolist(),
            "task": [task.name for task in spec.tasks] * rows,
            "horizon_days": np.full(rows * tasks, spec.horizon_days, np.int32),
        }
        for name in FIGURES:
            figure_NM = getattr(self.distribution, f"{name}_NM")
            columns[name] = figure_NM.astype(np.float64).ravel()
        columns["method"] = np.repeat(self.method_N, tasks).tolist()
        return pa.table(columns, FORECAST_SCHEMA)


@dataclass(frozen=True)
class Forecaster:
    """A trained model with its inputs, the calibration of its levels, its blend with the simple forecasts, and the
    residuals of those (cold_start, silent, and each baseline's name).

    Safe to share between threads; one per worker process is enough.
    """

    model: M2M
    model_config: ModelConfig
    inputs: Inputs
    calibrations: Mapping[str, ResidualQuantiles]
    levels: LevelCalibration
    blend: Blend | None
    boosted: Mapping[str, Boosted]  # judged beside it, never served
    metadata: Mapping[str, Any]  # versions, held_out_from, validation cutoffs, best epoch
    device: torch.device

    @property
    def spec(self) -> SequenceSpec:
        return self.inputs.spec

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | None = None) -> Forecaster:
        """Open a model folder.

        Raises:
            ValueError: the folder was written by another format version, or weights and config.json do not fit.
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
        try:
            model.load_state_dict(load_file(folder / "weights.safetensors"))
        except RuntimeError as error:
            raise ValueError(f"{folder}: weights.safetensors does not fit config.json: {error}") from error
        calibrations = {name: ResidualQuantiles.from_dict(cells) for name, cells in stored["calibrations"].items()}
        levels, blend = (
            LevelCalibration.from_dict(stored["levels"]),
            stored["blend"] and Blend.from_dict(stored["blend"]),
        )
        boosted = {name: Boosted.load(folder / name) for name in stored["boosted"]}
        return cls(
            model.to(device).eval(), config, inputs, calibrations, levels, blend, boosted, stored["metadata"], device
        )

    def save(self, folder: Path | str) -> Path:
        """Write the model folder; it appears whole or not at all, and replaces an older one."""
        folder = Path(folder)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        stored = {
            "format_version": FORMAT_VERSION,
            "model_config": to_dict(self.model_config),
            "spec": self.spec.to_dict(),
            "inputs": self.inputs.to_dict(),
            "calibrations": {name: calibration.to_dict() for name, calibration in self.calibrations.items()},
            "levels": self.levels.to_dict(),
            "blend": self.blend and self.blend.to_dict(),
            "boosted": sorted(self.boosted),
            "metadata": dict(self.metadata),
            "versions": {"python": platform.python_version()}
            | {name: packages.version(name) for name in ("torch", "numpy", "pyarrow", "safetensors")},
        }
        for name, boosted in self.boosted.items():
            boosted.save(partial / name)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        replace_file(partial / "weights.safetensors", lambda path: save_file(weights, path))
        replace_file(partial / "config.json", lambda path: path.write_text(json.dumps(stored), encoding="utf-8"))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return folder

    def predict(
        self, panel: Panel, cutoff: date, *, all_series: bool = False, batch_size: int = BATCH_SIZE
    ) -> Forecasts:
        """Forecasts of the eligible series (a row in eligible_days): m2m, or cold_start when younger than 7 days.

        With ``all_series`` also the silent ones (registered, no row in eligible_days). Each row is independent of the
        rest of its batch and panel. A panel without such a series gives zero rows.

        Raises:
            ValueError: the cutoff is outside the panel, or the panel was made for another data set.
        """
        if panel.spec != self.spec:
            raise ValueError("the panel's metrics, attributes, tasks or lengths are not those the model was trained on")
        profile = self.inputs.profile(panel)

        def network(day: int, series: Ints) -> Distribution:
            cutoffs = np.full(len(series), day)
            raw = network_distribution(
                self.model, self.inputs, panel, profile, series, cutoffs, self.device, batch_size
            )
            return self.serve(raw, panel, day, series)

        return _forecasts(panel, cutoff, all_series, M2M_METHOD, network, self.calibrations)

    def serve(self, raw: Distribution, panel: Panel, day: int, series: Ints) -> Distribution:
        """The network's own distribution of some series, calibrated, blended and made coherent."""
        scenario_N = panel.scenario_N[series]
        served = self.levels.apply(raw, scenario_N)
        if self.blend is not None:
            simple = {
                name: baseline_distribution(name, panel, day, series, self.calibrations.get(name))
                for name in self.blend.anchors
            }
            served = self.blend.apply(served, simple, scenario_N)
        return coherent(served, self.spec.tasks, self.spec.horizon_days)


def forecast_baseline(
    name: str,
    panel: Panel,
    cutoff: date,
    calibrations: Mapping[str, ResidualQuantiles] | None = None,
    *,
    all_series: bool = False,
) -> Forecasts:
    """``Forecaster.predict`` for a baseline: its own forecast stays the median, ``calibrations`` add the interval.

    Raises:
        KeyError: no such baseline.
    """
    known = dict(calibrations or {})

    def forecast(day: int, series: Ints) -> Distribution:
        own = baseline_distribution(name, panel, day, series, known.get(name))
        return coherent(own, panel.spec.tasks, panel.spec.horizon_days)

    return _forecasts(panel, cutoff, all_series, f"baseline:{name}", forecast, known)


def forecast_boosted(
    boosted: Boosted, panel: Panel, cutoff: date, calibrations: Mapping[str, ResidualQuantiles]
) -> Forecasts:
    """``Forecaster.predict`` for a LightGBM baseline: points without a distribution, on the same series."""

    def forecast(day: int, series: Ints) -> Distribution:
        return Distribution.point(boosted(panel, day, series))

    return _forecasts(panel, cutoff, False, "baseline:lightgbm", forecast, calibrations)


def baseline_distribution(
    name: str, panel: Panel, day: int, series: Ints, calibration: ResidualQuantiles | None
) -> Distribution:
    """A baseline's own forecast as the median, its residuals around it."""
    own_NM = baselines.BASELINES[name](panel, day, series)
    return _around(own_NM, panel.scenario_N[series], calibration).around(own_NM)


def _around(point_NM: Floats, scenario_N: NDArray[Any], calibration: ResidualQuantiles | None) -> Distribution:
    return calibration.apply(point_NM, scenario_N) if calibration else Distribution.point(point_NM)


def choose_device() -> torch.device:
    """The accelerator of this process when there is one; else the CPU. The only place that decides."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def network_distribution(
    model: M2M,
    inputs: Inputs,
    panel: Panel,
    profile: Profile,
    series_N: Ints,
    cutoff_N: Ints,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
) -> Distribution:
    """What the network itself says of windows given by (series, cutoff) indices, in the metrics' own units."""
    tasks = len(inputs.spec.tasks)
    parts = [Distribution.point(np.zeros((0, tasks)))]
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(series_N), batch_size):
            part = slice(start, start + batch_size)
            batch = Batch.of(inputs.windows(panel, profile, series_N[part], cutoff_N[part]), device)
            laws = model.likelihood.distribution(model(batch), batch.level_BM)
            parts.append(to_distribution(laws, inputs.task_scales))
    return Distribution.concatenate(parts)


def _forecasts(
    panel: Panel,
    cutoff: date,
    all_series: bool,
    main_method: str,
    main_forecast: Any,
    calibrations: Mapping[str, ResidualQuantiles],
) -> Forecasts:
    """Each series by the method that serves it, put together in panel order."""
    day, scenario_N = panel.index_of(cutoff), panel.scenario_N

    def rule(name: str, forecast: Any) -> Any:
        def served(day: int, series: Ints) -> Distribution:
            own = _around(forecast(panel, day, series), scenario_N[series], calibrations.get(name))
            return coherent(own, panel.spec.tasks, panel.spec.horizon_days)

        return served

    eligible_N, young_N = eligible(panel, day), history_days(panel, day) < COLD_START_DAYS
    methods = [
        (main_method, eligible_N & ~young_N, main_forecast),
        (COLD_START_METHOD, eligible_N & young_N, rule(COLD_START_METHOD, baselines.cold_start)),
    ]
    if all_series:
        methods.append((SILENT_METHOD, silent(panel, day), rule(SILENT_METHOD, baselines.silent)))
    parts, rows, names = [], [], []
    for name, mask_N, forecast in methods:
        series = np.flatnonzero(mask_N)
        parts.append(forecast(day, series))
        rows.append(series)
        names.append(np.full(len(series), name, object))
    series_N = np.concatenate(rows)
    order = np.argsort(series_N, kind="stable")
    distribution = Distribution.concatenate(parts)[order]
    series_N = series_N[order]
    return Forecasts(
        cutoff, series_N, panel.advertiser_N[series_N], scenario_N[series_N], np.concatenate(names)[order], distribution
    )
