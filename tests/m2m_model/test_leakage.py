"""The leakage proof: every row after a date is replaced by an absurd one, and not a bit moves of what is said as of it.

Each leak that is planted here must break the proof.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from m2m_model.config import KnownFuture, ModelConfig, TrainConfig
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts import baselines
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline, rival_forecasts
from m2m_model.forecasts.metrics import cell_sums
from m2m_model.network.windows import Days, Runs, Windows
from m2m_model.paths import path
from m2m_model.paths.path import daily_path
from m2m_model.rivals import boosted
from m2m_model.rivals.artifact import Rival, fit_rivals, load_rivals, save_rivals
from m2m_model.totals.sampler import Sampler
from m2m_model.totals.sums import add_up
from m2m_model.training import loop, pacing
from m2m_model.training.calendar import train_end, validation_cutoffs
from m2m_model.training.loop import train_rank

MODEL = ModelConfig(width=16, experts=2)
TRAIN = TrainConfig(epochs=2, min_steps=12, max_windows=800, batch_size=64)
Absurd = Callable[[date], Panel]


@pytest.fixture(scope="module")
def held_out_from(last_day: date) -> date:
    return last_day - timedelta(days=14)


@pytest.fixture(scope="module")
def absurd_after(panel: Panel, changed: Callable[..., Panel]) -> Absurd:
    """Each series is enormous on every later day, the empty ones too."""

    def build(day: date) -> Panel:
        known = panel.index_of(day) + 1

        def enormous(performance_NTP: np.ndarray, behavior_NTF: np.ndarray) -> None:
            performance_NTP[:, known:], behavior_NTF[:, known:] = 1e9, 1e6

        return changed(enormous)

    return build


@pytest.fixture
def planned(panel: Panel, values: tuple[np.ndarray, np.ndarray]) -> Callable[[date | None], Panel]:
    """The panel with budgets that are known a week ahead, about what will be spent; with a day given, what is achieved
    after it and what is planned later on is absurd."""
    horizon, (performance_NTP, behavior_NTF) = panel.spec.horizon_days, values
    spec = replace(panel.spec, known_future=(KnownFuture("budget", "money", of="spend"),))
    padded_NT = np.pad(np.nan_to_num(performance_NTP[:, :, 1]), ((0, 0), (0, horizon)))
    running_NT = np.pad(np.cumsum(padded_NT, 1), ((0, 0), (1, 0)))
    total_NT = running_NT[:, 1 + horizon :] - running_NT[:, 1:-horizon]
    total_NT[::5] = np.nan

    def build(day: date | None) -> Panel:
        blocks = [performance_NTP.copy(), behavior_NTF.copy(), total_NT[:, :, None].copy()]
        for block_NTc, absurd in zip(blocks, (1e9, 1e6, 1e8), strict=True):
            block_NTc[:, panel.index_of(day) + 1 if day else panel.days :] = absurd
        achieved, acted, future = blocks
        return Panel.of_values(spec, panel.last_day, achieved, acted, panel.registered_N, panel.keys, future)

    return build


def model_files(panel: Panel, held_out_from: date, folder: Path) -> dict[str, bytes]:
    """Bins, scales, vocabularies, weights, calibration, blend, LightGBM: every byte of the artifact, by file."""
    end = train_end(panel.first_day, held_out_from, panel.spec.horizons_days, TRAIN.validation_cutoffs)
    inputs = fit_inputs(PanelStatistics.of(panel, end), bins=8)
    cutoffs = validation_cutoffs(panel.first_day, held_out_from, panel.spec.horizons_days, TRAIN.validation_cutoffs)
    rivals = fit_rivals([panel], inputs, cutoffs, held_out_from)
    late = save_rivals(rivals.late, folder / "rivals")
    shard = panel.save(folder / "shard")
    result = train_rank([shard], folder, inputs, MODEL, TRAIN, held_out_from, rivals=rivals)
    files = [file for part in (result.model_folder, late) for file in part.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def said(forecaster: Forecaster, rivals: dict[str, Rival], panel: Panel, truth: Panel, cutoff: date) -> list[pa.Table]:
    """Features, forecasts, paths, totals and errors of a cutoff; what happened afterwards is ``truth``'s."""
    series = np.arange(len(panel))
    days = Days.of(panel, forecaster.inputs.profile(panel), torch.device("cpu"))
    runs = days.runs(torch.from_numpy(series), torch.full((len(series),), panel.index_of(cutoff)))
    cut = Windows(forecaster.inputs, torch.device("cpu")).of(runs)
    features = pa.table({name: [tensor.numpy().tobytes()] for name, tensor in vars(cut).items()})
    forecasts: dict[str, Forecasts] = {"m2m": forecaster.predict(panel, cutoff, all_series=True)}
    for name in BASELINES:
        forecasts[name] = forecast_baseline(name, panel, cutoff, forecaster.calibrations)
    for name, rival in rivals.items():
        forecasts[name] = rival_forecasts(name, rival, panel, cutoff, forecaster.calibrations)
    totals = add_up(forecasts["m2m"], panel, Sampler(forecaster.shared), forecaster.inputs.attributes)
    tables = [features, *totals, daily_path(forecasts["m2m"], panel, forecaster.pacing)]
    for name, found in forecasts.items():
        actual_NM = targets_Nm(truth, truth.index_of(cutoff), found.series_N)
        errors = cell_sums(found.distribution, actual_NM, found.scenario_N, panel.spec.targets, cutoff, name)
        tables += [found.to_table(panel.spec), errors]
    return tables


def prove(panel: Panel, absurd_after: Absurd, held_out_from: date, folder: Path) -> None:
    """Raises AssertionError where the future shows through."""
    prove_of_artifact(panel, absurd_after, held_out_from, folder)
    prove_of_what_is_said(panel, absurd_after, held_out_from, folder)


def prove_of_artifact(panel: Panel, absurd_after: Absurd, held_out_from: date, folder: Path) -> None:
    known = model_files(panel, held_out_from, folder / "known")
    blind = model_files(absurd_after(held_out_from), held_out_from, folder / "blind")
    differ = [name for name in known if known[name] != blind.get(name)]
    assert not differ, f"the artifact knows what came after {held_out_from}: {differ}"


def prove_of_what_is_said(panel: Panel, absurd_after: Absurd, held_out_from: date, folder: Path) -> None:
    forecaster, rivals = Forecaster.load(folder / "known" / "model"), load_rivals(folder / "known" / "rivals")
    for cutoff in (held_out_from, held_out_from + timedelta(days=7)):
        now = said(forecaster, rivals, panel, panel, cutoff)
        then = said(forecaster, rivals, absurd_after(cutoff), panel, cutoff)
        moved = [number for number, (one, other) in enumerate(zip(now, then, strict=True)) if not one.equals(other)]
        assert not moved, f"as of {cutoff}: tables {moved} know what came after"


@pytest.fixture(scope="module")
def honest(panel: Panel, absurd_after: Absurd, held_out_from: date, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a proven artifact is."""
    folder = tmp_path_factory.mktemp("honest")
    prove_of_artifact(panel, absurd_after, held_out_from, folder)
    return folder


def test_nothing_shows_through(panel: Panel, absurd_after: Absurd, held_out_from: date, honest: Path) -> None:
    prove_of_what_is_said(panel, absurd_after, held_out_from, honest)


def test_plans_that_become_known_later_do_not_show_through(
    planned: Callable[[date | None], Panel], held_out_from: date, tmp_path: Path
) -> None:
    """Today's plans say a lot of the days to come, and are read; tomorrow's are not."""
    prove(planned(None), planned, held_out_from, tmp_path)


def over_two_and_seven_days(panel: Panel, absurd_after: Absurd) -> tuple[Panel, Absurd]:
    """The same with a second, shorter horizon."""
    spec = replace(panel.spec, horizons_days=(2, 7))
    return replace(panel, spec=spec), lambda day: replace(absurd_after(day), spec=spec)


def test_nothing_shows_through_several_horizons(
    panel: Panel, absurd_after: Absurd, held_out_from: date, tmp_path: Path
) -> None:
    prove(*over_two_and_seven_days(panel, absurd_after), held_out_from, tmp_path)


@pytest.mark.slow
def test_labels_that_end_with_the_shortest_horizon_break_the_proof(
    panel: Panel, absurd_after: Absurd, held_out_from: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = loop.validation_cutoffs
    monkeypatch.setattr(loop, "validation_cutoffs", lambda first, day, days, most: honest(first, day, days[:1], most))
    with pytest.raises(AssertionError, match="what came after"):
        prove_of_artifact(*over_two_and_seven_days(panel, absurd_after), held_out_from, tmp_path)


def tomorrow_in_the_features(patch: pytest.MonkeyPatch) -> None:
    honest = Days.runs

    def leaking(self: Days, series_B: Tensor, cutoff_B: Tensor) -> Runs:
        return honest(self, series_B, (cutoff_B + 1).clamp_max(self.days - 1))

    patch.setattr(Days, "runs", leaking)


def unripe_labels(patch: pytest.MonkeyPatch) -> None:
    honest = loop.validation_cutoffs
    patch.setattr(loop, "validation_cutoffs", lambda first, day, *rest: honest(first, day + timedelta(days=7), *rest))


def unripe_labels_of_young_series(patch: pytest.MonkeyPatch) -> None:
    honest = loop.days_between
    patch.setattr(loop, "days_between", lambda cutoffs: [day + timedelta(days=7) for day in honest(cutoffs)])


def unripe_labels_of_lightgbm(patch: pytest.MonkeyPatch) -> None:
    honest = boosted.training_cutoffs
    patch.setattr(boosted, "training_cutoffs", lambda panel, last_label: honest(panel, last_label + 1))


def weekdays_of_the_future(patch: pytest.MonkeyPatch) -> None:
    honest = pacing._weeks
    patch.setattr(pacing, "_weeks", lambda panel, scenarios, last: honest(panel, scenarios, panel.last_day))


def tomorrow_in_a_habit(patch: pytest.MonkeyPatch) -> None:
    honest = path.recent
    patch.setattr(path, "recent", lambda panel, day, *rest: honest(panel, min(day + 1, panel.days - 1), *rest))


def bins_of_the_future(patch: pytest.MonkeyPatch) -> None:
    honest = PanelStatistics.of
    patch.setattr(PanelStatistics, "of", lambda panel, end: honest(panel, panel.last_day))


def tomorrow_in_a_baseline(patch: pytest.MonkeyPatch) -> None:
    honest = baselines.recent
    patch.setattr(
        baselines, "recent", lambda panel, cutoff, *rest: honest(panel, min(cutoff + 1, panel.days - 1), *rest)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant",
    [
        unripe_labels,
        unripe_labels_of_young_series,
        unripe_labels_of_lightgbm,
        bins_of_the_future,
        weekdays_of_the_future,
    ],
)
def test_a_leak_that_is_planted_in_training_breaks_the_proof(
    plant: Callable[[pytest.MonkeyPatch], None],
    panel: Panel,
    absurd_after: Absurd,
    held_out_from: date,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="what came after"):
        prove_of_artifact(panel, absurd_after, held_out_from, tmp_path)


@pytest.mark.parametrize("plant", [tomorrow_in_the_features, tomorrow_in_a_habit, tomorrow_in_a_baseline])
def test_a_leak_that_is_planted_in_forecasting_breaks_the_proof(
    plant: Callable[[pytest.MonkeyPatch], None],
    panel: Panel,
    absurd_after: Absurd,
    held_out_from: date,
    honest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="what came after"):
        prove_of_what_is_said(panel, absurd_after, held_out_from, honest)
