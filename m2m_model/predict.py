"""Forecasts from a model folder: weights.safetensors + config.json, nothing unpickled."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from m2m_model import baselines, likelihoods
from m2m_model.calibration import Distribution, ResidualQuantiles
from m2m_model.checkpoint import replace_file
from m2m_model.config import ModelConfig, from_dict, to_dict
from m2m_model.inputs import COLD_START_DAYS, Inputs, Panel, Profile, SequenceSpec, eligible, history_days, silent
from m2m_model.model import M2M, Batch

Floats = NDArray[Any]
Ints = NDArray[Any]

FORMAT_VERSION = 1
M2M_METHOD, COLD_START_METHOD, SILENT_METHOD = "m2m", "cold_start", "silent"
FORECAST_SCHEMA = pa.schema(
    [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("task", pa.string()), ("horizon_days", pa.int32())]
    + [(name, pa.float64()) for name in ("mean", "median", "p05", "p25", "p75", "p95")]
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
        for name in ("mean", "median", "p05", "p25", "p75", "p95"):
            columns[name] = getattr(self.distribution, f"{name}_NM").astype(np.float64).ravel()
        columns["method"] = np.repeat(self.method_N, tasks).tolist()
        return pa.table(columns, FORECAST_SCHEMA)


@dataclass(frozen=True)
class Forecaster:
    """A trained model with its inputs and calibrations (m2m, cold_start, silent, and each baseline's name).

    Safe to share between threads; one per worker process is enough.
    """

    model: M2M
    model_config: ModelConfig
    inputs: Inputs
    calibrations: Mapping[str, ResidualQuantiles]
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
        return cls(model.to(device).eval(), config, inputs, calibrations, stored["metadata"], device)

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
            "metadata": dict(self.metadata),
            "versions": {"python": platform.python_version()}
            | {name: packages.version(name) for name in ("torch", "numpy", "pyarrow", "safetensors")},
        }
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        replace_file(partial / "weights.safetensors", lambda path: save_file(weights, path))
        replace_file(partial / "config.json", lambda path: path.write_text(json.dumps(stored), encoding="utf-8"))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return folder

    def predict(self, panel: Panel, cutoff: date, *, all_series: bool = False, batch_size: int = 4096) -> Forecasts:
        """Forecasts of the eligible series (a row in eligible_days): m2m, or cold_start when younger than 7 days.

        With ``all_series`` also the silent ones (registered, no row in eligible_days). Each row is independent of the
        rest of its batch and panel. A panel without such a series gives zero rows.

        Raises:
            ValueError: the cutoff is outside the panel, or the panel was made for another data set.
        """
        if panel.spec != self.spec:
            raise ValueError("the panel's metrics, attributes, tasks or lengths are not those the model was trained on")
        profile = self.inputs.profile(panel)

        def network(day: int, series: Ints) -> Floats:
            cutoffs = np.full(len(series), day)
            return point_forecasts(self.model, self.inputs, panel, profile, series, cutoffs, self.device, batch_size)

        return _forecasts(panel, cutoff, all_series, M2M_METHOD, network, self.calibrations)


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
    forecast = baselines.BASELINES[name]
    known, method = dict(calibrations or {}), f"baseline:{name}"
    if name in known:
        known[method] = known[name]
    result = _forecasts(panel, cutoff, all_series, method, lambda day, series: forecast(panel, day, series), known)
    own_NM = forecast(panel, panel.index_of(cutoff), result.series_N)
    median_NM = np.where((result.method_N == method)[:, None], own_NM, result.distribution.median_NM)
    return replace(result, distribution=result.distribution.with_median(median_NM))


def choose_device() -> torch.device:
    """The accelerator of this process when there is one; else the CPU. The only place that decides."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def point_forecasts(
    model: M2M,
    inputs: Inputs,
    panel: Panel,
    profile: Profile,
    series_N: Ints,
    cutoff_N: Ints,
    device: torch.device,
    batch_size: int = 4096,
) -> Floats:
    """Expected totals (N, M) in the metrics' own units, of windows given by (series, cutoff) indices."""
    forecast_NM = np.zeros((len(series_N), len(inputs.spec.tasks)))
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(series_N), batch_size):
            part = slice(start, start + batch_size)
            windows = inputs.windows(panel, profile, series_N[part], cutoff_N[part])
            mean_BM = likelihoods.mean(model(Batch.of(windows, device)))
            forecast_NM[part] = mean_BM.double().cpu().numpy()
    forecast_NM *= np.asarray(inputs.task_scales)
    for m, task in enumerate(inputs.spec.tasks):
        if task.aggregate == "days":
            forecast_NM[:, m] = np.minimum(forecast_NM[:, m], inputs.spec.horizon_days)
    return forecast_NM


def _forecasts(
    panel: Panel,
    cutoff: date,
    all_series: bool,
    main_method: str,
    main_forecast: Any,
    calibrations: Mapping[str, ResidualQuantiles],
) -> Forecasts:
    """Each series by the method that serves it, put together in panel order."""
    day = panel.index_of(cutoff)
    eligible_N, young_N = eligible(panel, day), history_days(panel, day) < COLD_START_DAYS
    methods = [
        (main_method, eligible_N & ~young_N, main_forecast),
        (COLD_START_METHOD, eligible_N & young_N, lambda day, series: baselines.cold_start(panel, day, series)),
    ]
    if all_series:
        methods.append((SILENT_METHOD, silent(panel, day), lambda day, series: baselines.silent(panel, day, series)))
    scenario_N = panel.scenario_N
    parts, rows, names = [], [], []
    for name, mask_N, forecast in methods:
        series = np.flatnonzero(mask_N)
        point_XM = forecast(day, series)
        calibration = calibrations.get(name)
        parts.append(calibration.apply(point_XM, scenario_N[series]) if calibration else Distribution.point(point_XM))
        rows.append(series)
        names.append(np.full(len(series), name, object))
    series_N = np.concatenate(rows)
    order = np.argsort(series_N, kind="stable")
    figures = zip(*(vars(part).values() for part in parts), strict=True)
    distribution = Distribution(*(np.concatenate(figure)[order] for figure in figures))
    series_N = series_N[order]
    return Forecasts(
        cutoff, series_N, panel.advertiser_N[series_N], scenario_N[series_N], np.concatenate(names)[order], distribution
    )
