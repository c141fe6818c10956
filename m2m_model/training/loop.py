"""The training loop: every rank calls ``train_rank``; rank 0 writes.

Validation cutoffs are held_out_from - h, h the longest horizon, and some before it (``calendar``); no training label
ends after the earliest of them, and nothing after ``held_out_from`` is read. A rank holds its own of the shards, and
takes of each batch the windows in them. A batch follows from (seed, step) alone, however many ranks there are, and
dropout from (seed, step, rank), so a run that resumes needs no sampler state. V validation windows, X any windows;
other shapes as in data/.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from torch.optim.lr_scheduler import LambdaLR

from m2m_model.config import ModelConfig, TrainConfig, to_dict
from m2m_model.data.features import Inputs
from m2m_model.data.served_by import COLD_START, NETWORK, settled_days
from m2m_model.files import Files, LocalFiles
from m2m_model.forecasts.baselines import Baseline
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forward import choose_device, network_outputs, quick, to_distribution
from m2m_model.levels import LEVELS, MEDIAN
from m2m_model.network.model import M2M, Batch, Learned
from m2m_model.rivals.artifact import Rivals
from m2m_model.totals.dependence import fit_dependence
from m2m_model.training import checkpoint
from m2m_model.training.calendar import days_between, validation_cutoffs
from m2m_model.training.pacing import Followed, fit_pacing
from m2m_model.training.plan import Plan
from m2m_model.training.pool import Columns, Shards, WindowIndex, evenly
from m2m_model.training.progress import (
    At,
    CellMetric,
    Ended,
    EpochMetrics,
    Progress,
    RunState,
    Say,
    TrainResult,
    printed,
    unheard,
    weights_of,
)
from m2m_model.training.ranks import Ranks
from m2m_model.training.serving import (
    SIMPLE,
    Seen,
    as_served,
    best_simple,
    fit_serving,
    residual_quantiles,
    seen_by_rule,
    serving_rivals,
)

LEARNED_FROM = 50_000  # training windows that edges and feature scales are taken from
WARM_UP = 0.05  # share of the steps
REFIT_ALLOWED = 1.02  # times the measured network's error in the last week, which the refitted one has learned from
UNEVEN = 1.25  # times as many windows as a rank would have if all had the same
CHECKPOINT_VERSION = 4


class NotTrainableError(ValueError):
    """Data or settings cannot be trained on, however often it is tried."""


def train_rank(
    shards: list[Path],
    run_dir: Path,
    inputs: Inputs,
    model_config: ModelConfig,
    train_config: TrainConfig,
    held_out_from: date,
    resume: bool = False,
    say: Say = printed,
    at: At = unheard,
    epoch_ended: Ended = unheard,
    checkpoints: Files | None = None,
    rivals: Rivals | None = None,
) -> TrainResult:
    """Train on the panels in ``shards`` (this rank's own, see ``pool.shares``) and write ``run_dir``/model.

    Works alone or inside an initialised torch.distributed process group, which it leaves after the last step: what is
    fitted then is rank 0's work alone, needs no shard, and may take longer than a collective waits. With ``resume`` it
    goes on from the newest of ``checkpoints`` (by default in ``run_dir``) and ends at the same weights as a run that
    was never stopped. ``rivals`` are learned baselines that may serve where they win; the model folder holds those that
    do. ``say`` takes rank 0's lines of progress, ``at`` every rank's step, the seconds that it has
    waited for the others and the windows that it has trained on, ``epoch_ended`` rank 0's figures of each epoch.

    Raises:
        NotTrainableError: there is no window to train on, or none to validate on (the message says which dates were
            looked at); or ``resume`` finds the checkpoint of a run with other settings.
    """
    device = choose_device()
    data = Shards(shards, inputs, device)
    ranks = data.ranks
    cutoffs = validation_cutoffs(
        data.first_day, held_out_from, inputs.spec.horizons_days, train_config.validation_cutoffs
    )
    pool, validation = windows_of(data, cutoffs, train_config)
    learned = learn(data, pool, model_config.ratio_bins)
    torch.manual_seed(train_config.seed)
    model = M2M(model_config, inputs, learned).to(device)
    settings = {
        "format_version": CHECKPOINT_VERSION,
        "model": to_dict(model_config),
        "train": to_dict(train_config),
        "held_out_from": str(held_out_from),
        "windows": len(pool),
        "scales": inputs.target_scales,
    }
    progress = Progress(ranks.rank == 0, say, at, epoch_ended)
    if uneven := unevenness(data, pool):
        progress.say(uneven)
    rivals = rivals if rivals and train_config.blend else Rivals({}, {})
    others: dict[str, Baseline] = {**SIMPLE, **rivals.early} if train_config.blend else {}
    trainer = Trainer(data, pool, validation, others, train_config, model, ranks, device, progress)
    kept = checkpoints or LocalFiles(run_dir / "checkpoints")
    fingerprint = json.dumps(settings, sort_keys=True)
    seconds, resumed_from = trainer.run(kept, fingerprint, resume)

    state, plan = trainer.state, trainer.plan
    model.load_state_dict(state.best_weights)
    raw, _ = trainer.forecast(validation, trainer.seen)
    looked_at, said = trainer.looked_at(cutoffs, raw)
    fresh = refit(trainer, model_config, learned, kept, fingerprint, resume) if train_config.refit else None
    seen = seen_by_rule(data, cutoffs, train_config.validation_windows)
    followed = Followed.of(data, validation, held_out_from)
    ranks.leave()
    if ranks.rank == 0:
        progress.say(f"calibrating on {len(validation):,} validation windows")
        calibrations = residual_quantiles(inputs.spec, seen)
        old = trainer.seen[~trainer.seen.young_X]
        by_rivals = replace(old, simple={name: old.simple[name] for name in rivals.early})
        calibrations |= residual_quantiles(inputs.spec, [by_rivals])
        served = fit_serving(inputs.spec, looked_at, said, calibrations, train_config.blend, rivals.early)
        known, published = trainer.seen, as_served(inputs.spec, trainer.seen, raw, calibrations, *served)
        who = known.advertiser_X, known.scenario_X, known.cutoff_X
        shared = fit_dependence(published, known.actual_XM, *who)
        pacing = fit_pacing(inputs, followed, known.scenario_X, known.group_XM, published)
        serving = serving_rivals(served[1], rivals.late)
        for name in rivals.early.keys() - serving.keys():
            del calibrations[name]
        metadata = {
            "held_out_from": str(held_out_from),
            "validation_cutoffs": [str(cutoff) for cutoff in cutoffs],
            "train_config": to_dict(train_config),
            "best_epoch": state.best_epoch,
            "validation_nmae": state.best_nmae,
            "steps": state.step,
            "training_windows": len(pool),
            "refit": fresh.told if fresh else None,
            "simple": best_simple(inputs.spec, old),
        }
        fitted = (calibrations, *served, shared, pacing)
        forecaster = Forecaster(model, model_config, inputs, *fitted, metadata, device, serving)
        forecaster.save(run_dir / "model", fresh.weights if fresh else None)
    rows = (state.step - resumed_from) * plan.batch_size
    return TrainResult(
        model_folder=run_dir / "model",
        epochs=tuple(state.metrics()),
        best_epoch=state.best_epoch,
        steps=state.step,
        windows=len(pool),
        rows_per_second=rows / max(seconds, 1e-9),
        resumed_from_step=resumed_from,
        refit_nmae=(fresh.nmae, fresh.measured_nmae) if fresh else None,
        validation_cutoffs=cutoffs,
    )


@dataclass(frozen=True)
class Refit:
    """What came of a refit; ``weights`` is None where they are not to be served."""

    labels_to: date
    measured_nmae: float  # of the network's median in the last week that is over, by the weights that are judged
    nmae: float  # there, by the new ones
    weights: dict[str, Tensor] | None

    @property
    def told(self) -> dict[str, Any]:
        return {
            "labels_to": str(self.labels_to),
            "measured_nmae": self.measured_nmae,
            "nmae": self.nmae,
            "serves": self.weights is not None,
        }


def refit(
    measured: Trainer, model_config: ModelConfig, learned: Learned, checkpoints: Files, fingerprint: str, resume: bool
) -> Refit | None:
    """Train once more as ``measured`` was, its best epoch's steps with its seed, bins and scales, on the labels of all
    days: what is judged ends weeks before what is served begins. Nothing is left to choose or to calibrate by.

    The last week that is over is a check alone, for the new weights have learned from it: where they are worse there
    by more than ``REFIT_ALLOWED``, or say no number, they are not served.
    """
    data, config, spec = measured.data, measured.config, measured.data.inputs.spec
    last_cutoff = data.last_day - timedelta(days=spec.horizon_days)
    pool = data.training_windows(last_cutoff, config.min_history_days, config.max_windows)
    week = data.windows_at([last_cutoff], config.validation_windows, (NETWORK, COLD_START))
    if not len(week):
        measured.progress.say(f"not refitted: no eligible series at {last_cutoff} to check it by")
        return None
    measured.progress.say(f"refitting on labels to {data.last_day}")
    torch.manual_seed(config.seed)
    model = M2M(model_config, data.inputs, learned).to(measured.device)
    again = Trainer(data, pool, week, {}, config, model, measured.ranks, measured.device, measured.progress)
    steps = min(measured.state.best_epoch * measured.plan.steps_per_epoch, measured.plan.steps)
    again.plan, again.rows = replace(measured.plan, pool=len(pool)), measured.rows
    again.run(checkpoints, fingerprint, resume, checkpoint.REFIT, steps)
    weights, nmae = weights_of(model), again.validate().nmae
    model.load_state_dict(measured.state.best_weights)
    before = again.validate().nmae
    serves = nmae <= REFIT_ALLOWED * before
    measured.progress.say(
        f"NMAE of the week after {last_cutoff}: {nmae:.4f} refitted, {before:.4f} as measured"
        + ("" if serves else ": the refitted weights are not served")
    )
    return Refit(data.last_day, before, nmae, weights if serves else None)


def windows_of(data: Shards, cutoffs: Sequence[date], config: TrainConfig) -> tuple[WindowIndex, WindowIndex]:
    """The windows to train on, whose labels end before the validation cutoffs, and those to validate on.

    Raises:
        NotTrainableError: there are none.
    """
    spec = data.inputs.spec
    last_cutoff = cutoffs[-1] - timedelta(days=spec.horizon_days)
    pool = data.training_windows(last_cutoff, config.min_history_days, config.max_windows)
    validation = data.windows_at(cutoffs, config.validation_windows, (NETWORK, COLD_START))
    if not len(pool):
        raise NotTrainableError(
            f"nothing to train on: no series with {config.min_history_days} registered days "
            f"({settled_days(config.min_history_days)} if it begins with the history) and a row in "
            f"{spec.eligible_days} days at a cutoff up to {last_cutoff} in {data.extent}"
        )
    if not len(validation):
        raise NotTrainableError(
            f"nothing to validate on: no eligible series at {', '.join(map(str, cutoffs))} in {data.extent}"
        )
    return pool, validation


def learn(data: Shards, pool: WindowIndex, bins: int) -> Learned:
    """From a sample of the windows of all ranks, as rank 0 sees it."""

    def look(own: WindowIndex) -> list[Columns]:
        batch, target_BM = data.examples(own)
        return [tensor.cpu().numpy() for tensor in (batch.dense_BD, batch.level_BM, target_BM)]

    dense_XD, level_XM, target_XM = data.everywhere(look, pool[evenly(len(pool), LEARNED_FROM)])
    learned: Learned = data.ranks.share(Learned.of(dense_XD, level_XM, target_XM, bins))
    return learned


def unevenness(data: Shards, pool: WindowIndex) -> str:
    """What there is to say of a rank that has so many more windows than the others that they wait for it."""
    world, share_R = data.ranks.world, np.bincount(data.owner_S[pool.shard_X], minlength=data.ranks.world) / len(pool)
    if share_R.max() * world < UNEVEN:
        return ""
    return (
        f"rank {share_R.argmax()} has {share_R.max():.0%} of the windows, and every step waits for it: {world} ranks "
        f"hold {len(data.owner_S)} shards, one a bucket. Use fewer ranks ([distributor] processes), or in a new load "
        "more [dataset] buckets"
    )


@dataclass
class Trainer:
    """One rank's part of a run: what it learns from, the model, and where it stands."""

    data: Shards
    pool: WindowIndex
    validation: WindowIndex
    others: Mapping[str, Baseline]  # what the network may be blended with
    config: TrainConfig
    model: M2M
    ranks: Ranks
    device: torch.device
    progress: Progress

    def __post_init__(self) -> None:
        config = self.config
        self.plan = Plan.of(len(self.pool), config)
        self.seen = Seen.of(self.data, self.validation, self.others)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = LambdaLR(self.optimizer, lambda step: rate_at(step / self.plan.steps))
        self.state = RunState(best_weights=weights_of(self.model))
        self.rows = 0  # windows of this rank so far

    def run(
        self,
        checkpoints: Files,
        fingerprint: str,
        resume: bool,
        phase: str = checkpoint.TRAINING,
        steps: int | None = None,
    ) -> tuple[float, int]:
        """All steps that are left; how many seconds they took, and the step that they began at. With ``steps`` so many
        of them, whatever validation would say.

        Raises:
            NotTrainableError: the checkpoint to resume from is of another ``fingerprint``.
        """
        state, plan, patience = self.state, self.plan, self.config.patience
        last_step = plan.steps if steps is None else steps
        mine = checkpoint.newest(checkpoints, phase) if resume and self.ranks.rank == 0 else None
        if stored := self.ranks.share(mine):
            if stored["fingerprint"] != fingerprint:
                raise NotTrainableError(
                    "the checkpoint is of a run with other settings, data or code; train --from-scratch"
                )
            self.model.load_state_dict(stored["model"])
            self.optimizer.load_state_dict(stored["optimizer"])
            self.schedule.load_state_dict(stored["schedule"])
            state = self.state = RunState.from_dict(stored["state"])
            self.progress.say(f"resuming at step {state.step}/{last_step}")
        elif self.ranks.rank == 0:
            checkpoint.clear(checkpoints, phase)
        self.progress.begin()
        resumed_from, started = state.step, time.monotonic()
        while state.step < last_step and not state.stopped:
            self.step()
            self.progress.step(state, plan, resumed_from, last_step, self.ranks.waited_s, self.rows)
            ends_epoch = state.step % plan.steps_per_epoch == 0 or state.step == last_step
            if ends_epoch and steps is None:
                metrics = self.validate()
                state.end_epoch(metrics, self.model, patience)
                self.progress.epoch(metrics, plan, best=state.best_epoch == metrics.epoch)
            if self.ranks.rank == 0 and (ends_epoch or state.step % self.config.checkpoint_every_steps == 0):
                parts = {
                    "fingerprint": fingerprint,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "state": asdict(state),
                }
                checkpoint.write(checkpoints, state.step, parts, phase)
        return time.monotonic() - started, resumed_from

    def step(self) -> None:
        """One step on this rank's share of the batch.

        The loss travels with the gradients, in one message. Shares may differ in size, so the ranks' gradients are
        weighted and added up, where DistributedDataParallel would take their plain mean.
        """
        seed, state, plan, model = self.config.seed, self.state, self.plan, self.model
        # Dropout of a step depends on nothing but these three.
        random = np.random.SeedSequence([seed, state.step, self.ranks.rank])
        torch.manual_seed(int(random.generate_state(1, np.uint64)[0] >> 1))
        model.train()
        index = self.pool[plan.batch(state.step, seed)]
        index = index[self.data.own(index)]
        index = index[np.argsort(index.shard_X, kind="stable")]
        if len(index):
            batch, target_BM = self.data.examples(index)
        else:  # a window of no weight: gradients of 0, in the places where the others have theirs
            batch = self.data.cut.blank(1)
            target_BM = torch.zeros_like(batch.level_BM)
        self.optimizer.zero_grad(set_to_none=False)
        with quick(self.device):
            loss = model.loss(batch, target_BM) * (len(index) / plan.batch_size)
        loss.backward()  # type: ignore[no-untyped-call]
        found = [loss.detach().view(1), *(p.grad for p in model.parameters() if p.grad is not None)]
        if self.ranks.together:
            vector_to_parameters(self.ranks.add(parameters_to_vector(found)), found)
        clip_grad_norm_(model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        state.loss_sum += float(found[0])
        state.step += 1
        self.rows += len(index)

    def validate(self) -> EpochMetrics:
        """Loss and error of the network's own median. The same figures on every rank."""
        raw, loss = self.forecast(self.validation, self.seen)
        actual_VM, scenario_V = self.seen.actual_XM, self.seen.scenario_X
        error_VM = np.abs(actual_VM - raw.median_NM)
        cells = []
        for scenario in sorted(set(scenario_V)):
            rows = scenario_V == scenario
            for m, title in enumerate(self.data.inputs.spec.titles):
                nmae = error_VM[rows, m].sum() / max(actual_VM[rows, m].sum(), 1e-12)
                cells.append(CellMetric(str(scenario), title, int(rows.sum()), float(nmae)))
        sums_M = actual_VM.sum(0)
        nmae_M = error_VM.sum(0)[sums_M > 0] / sums_M[sums_M > 0]
        nmae = float(nmae_M.mean()) if len(nmae_M) else 0.0
        epoch = math.ceil(self.state.step / self.plan.steps_per_epoch)
        return EpochMetrics(epoch, self.state.train_loss, loss, nmae, tuple(cells))

    def looked_at(self, cutoffs: Sequence[date], raw: Distribution) -> tuple[Seen, Distribution]:
        """What calibration and blend are fitted on, and the network's own distributions of it: the validation windows,
        of which ``raw`` is known, save that series are looked at on every day while they are young."""
        days, limit = days_between(cutoffs), self.config.validation_windows
        index = self.data.windows_at(days, limit, (COLD_START,))
        young = Seen.of(self.data, index, self.others)
        # A young window counts at the cutoff that is nearest: days of a week share what happens.
        known_C = np.unique(self.seen.cutoff_X)
        young = replace(young, cutoff_X=known_C[np.abs(young.cutoff_X[:, None] - known_C).argmin(1)])
        older_V = ~self.seen.young_X
        said = Distribution.concatenate([raw[older_V], self.forecast(index, young)[0]])
        return Seen.concatenate([self.seen[older_V], young]), said

    def forecast(self, index: WindowIndex, seen: Seen) -> tuple[Distribution, float]:
        """The network's own distributions on windows, of which ``seen`` says what came, and its mean loss. Each rank
        forecasts its own and hears of the others'."""
        inputs, ranks = self.data.inputs, self.ranks
        result = torch.zeros((2 + len(LEVELS), *seen.actual_XM.shape), dtype=torch.float32)
        loss_sum, scale_M = 0.0, np.asarray(inputs.target_scales)
        mine = self.data.own(index)

        def cut(rows: slice) -> Batch:
            return self.data.windows(index[mine[rows]])

        for rows, batch, output_BMQ in network_outputs(self.model, cut, len(mine)):
            found = to_distribution(self.model, inputs, batch, output_BMQ)
            stacked = np.concatenate([[found.mean_NM, found.p_zero_NM], found.level_GNM])
            result[:, torch.from_numpy(mine[rows])] = torch.from_numpy(stacked.astype(np.float32))
            actual_BM = torch.from_numpy((seen.actual_XM[mine[rows]] / scale_M).astype(np.float32))
            loss = self.model.loss_of(output_BMQ, batch.level_BM, actual_BM.to(self.device))
            loss_sum += float(loss) * len(actual_BM)
        total = ranks.add(torch.cat([torch.tensor([loss_sum]), result.flatten()]).to(self.device)).cpu().numpy()
        figures = total[1:].reshape(result.shape).astype(np.float64)
        level_GVM = figures[2:]
        return Distribution(level_GVM[MEDIAN], figures[0], figures[1], level_GVM), float(total[0]) / max(len(index), 1)


def rate_at(progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a half cosine down to a fiftieth."""
    factor = progress / WARM_UP if progress < WARM_UP else 0.02 + 0.49 * (1 + math.cos(math.pi * progress))
    return max(factor, 0.02)
