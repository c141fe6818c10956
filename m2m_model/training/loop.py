"""The training loop: every rank calls ``train_rank``; rank 0 writes.

Validation cutoffs are held_out_from - h and every 7 days before it; no training label ends after the earliest of them,
and nothing after ``held_out_from`` is read. What a step does follows from (seed, step, rank) alone, so a run that
resumes needs no sampler state. V validation windows, X any windows; other shapes as in data/.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import torch

from m2m_model.arrays import Floats
from m2m_model.config import ModelConfig, TrainConfig, to_dict
from m2m_model.data.features import Inputs
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forward import choose_device
from m2m_model.network.model import M2M, Batch, Learned
from m2m_model.training import checkpoint
from m2m_model.training.calendar import validation_cutoffs
from m2m_model.training.plan import Plan
from m2m_model.training.pool import Shards, WindowIndex, evenly
from m2m_model.training.progress import CellMetric, EpochMetrics, Progress, RunState, TrainResult, weights_of
from m2m_model.training.ranks import Ranks
from m2m_model.training.serving import fit_serving, residual_quantiles

LEARNED_FROM = 50_000  # training windows that edges and feature scales are taken from
WARM_UP = 0.05  # share of the steps


def train_rank(
    shards: list[Path],
    run_dir: Path,
    inputs: Inputs,
    model_config: ModelConfig,
    train_config: TrainConfig,
    held_out_from: date,
    resume: bool = False,
) -> TrainResult:
    """Train on the panels in ``shards`` (all of them, on every rank) and write ``run_dir``/model.

    Works alone or inside an initialised torch.distributed process group. With ``resume`` it goes on from the newest
    checkpoint in ``run_dir`` and ends at the same weights as a run that was never stopped.

    Raises:
        ValueError: there is no window to train on, or none to validate on (the message says which dates were looked
            at); or ``resume`` finds the checkpoint of a run with other settings.
    """
    ranks, device = Ranks(), choose_device()
    horizon, data = inputs.spec.horizon_days, Shards(shards, inputs)
    cutoffs = validation_cutoffs(data.first_day, held_out_from, horizon, train_config.validation_cutoffs)
    last_cutoff = cutoffs[-1] - timedelta(days=horizon)
    pool = data.training_windows(last_cutoff, train_config.min_history_days, train_config.max_windows)
    validation = data.windows_at(cutoffs, train_config.validation_windows)
    if not len(pool):
        raise ValueError(
            f"nothing to train on: no series with {train_config.min_history_days} registered days and a row in "
            f"{inputs.spec.eligible_days} days at a cutoff up to {last_cutoff} in {data.extent}"
        )
    if not len(validation):
        raise ValueError(
            f"nothing to validate on: no eligible series at {', '.join(map(str, cutoffs))} in {data.extent}"
        )
    actual_VM = data.targets(validation)

    sample = pool[evenly(len(pool), LEARNED_FROM)]
    learned = Learned.of(
        data.windows(sample), data.targets(sample) / np.asarray(inputs.task_scales), model_config.ratio_bins
    )
    torch.manual_seed(train_config.seed)
    model = M2M(model_config, inputs, learned).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), train_config.learning_rate, weight_decay=train_config.weight_decay, fused=True
    )
    plan = Plan.of(len(pool), train_config)
    settings = {"model": to_dict(model_config), "train": to_dict(train_config), "held_out_from": str(held_out_from)}
    fingerprint = json.dumps(settings | {"windows": len(pool), "scales": inputs.task_scales}, sort_keys=True)
    progress = Progress(ranks.rank == 0)
    state = RunState(best_weights=weights_of(model))
    if resume and (stored := ranks.share(checkpoint.newest(run_dir / "checkpoints") if ranks.rank == 0 else None)):
        if stored["fingerprint"] != fingerprint:
            raise ValueError(f"{run_dir}: the checkpoint is of a run with other settings or data; train without resume")
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        state = RunState.from_dict(stored["state"])
        progress.say(f"resuming at step {state.step}/{plan.steps}")
    elif ranks.rank == 0:
        checkpoint.clear(run_dir / "checkpoints")
    resumed_from, started = state.step, time.monotonic()

    def save() -> None:
        if ranks.rank == 0:
            stored = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "fingerprint": fingerprint}
            checkpoint.write(run_dir / "checkpoints", state.step, stored | {"state": asdict(state)})

    while state.step < plan.steps and not state.stopped:
        _seed(train_config.seed, state.step, ranks.rank)
        model.train()
        _set_learning_rate(optimizer, train_config.learning_rate, state.step / plan.steps)
        mine = plan.batch(state.step, train_config.seed)[ranks.rank :: ranks.world]
        state.loss_sum += _train_step(model, optimizer, data, pool[mine], plan.batch_size, train_config, ranks, device)
        state.step += 1
        progress.step(state, plan, resumed_from)
        if state.step % plan.steps_per_epoch == 0 or state.step == plan.steps:
            metrics = _validate(model, data, validation, actual_VM, state, plan, ranks, device)
            state.end_epoch(metrics, model, train_config.patience)
            best = "  best so far" if state.best_epoch == metrics.epoch else ""
            progress.say(
                f"epoch {metrics.epoch}/{plan.epochs} loss {metrics.train_loss:.3f} validation loss "
                f"{metrics.validation_loss:.3f} NMAE {metrics.nmae:.4f}{best}"
            )
            save()
        elif state.step % train_config.checkpoint_every_steps == 0:
            save()

    seconds = time.monotonic() - started
    model.load_state_dict(state.best_weights)
    raw, _ = data.forecast(model, validation, ranks, device)
    if ranks.rank == 0:
        levels, blend = fit_serving(data, validation, raw, actual_VM, train_config.blend)
        calibrations = residual_quantiles(data, cutoffs, train_config.validation_windows)
        metadata = {
            "held_out_from": str(held_out_from),
            "validation_cutoffs": [str(cutoff) for cutoff in cutoffs],
            "train_config": to_dict(train_config),
            "best_epoch": state.best_epoch,
            "validation_nmae": state.best_nmae,
            "steps": state.step,
            "training_windows": len(pool),
        }
        forecaster = Forecaster(model, model_config, inputs, calibrations, levels, blend, metadata, device)
        forecaster.save(run_dir / "model")
    ranks.wait()
    rows = (state.step - resumed_from) * plan.batch_size
    return TrainResult(
        model_folder=run_dir / "model",
        epochs=tuple(state.metrics()),
        best_epoch=state.best_epoch,
        steps=state.step,
        windows=len(pool),
        rows_per_second=rows / max(seconds, 1e-9),
        resumed_from_step=resumed_from,
        validation_cutoffs=cutoffs,
    )


def _train_step(
    model: M2M,
    optimizer: torch.optim.Optimizer,
    data: Shards,
    index: WindowIndex,
    batch_size: int,
    config: TrainConfig,
    ranks: Ranks,
    device: torch.device,
) -> float:
    """One step on this rank's share of the batch; the gradients of all ranks are added up."""
    index = index[np.argsort(index.shard_X, kind="stable")]
    batch = Batch.of(data.windows(index), device)
    scale_M = np.asarray(data.inputs.task_scales)
    target_BM = torch.from_numpy((data.targets(index) / scale_M).astype(np.float32)).to(device)
    optimizer.zero_grad(set_to_none=False)
    share = len(index) / batch_size
    loss = model.loss(batch, target_BM) * share
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = ranks.add(torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)]))
    if ranks.together:
        pieces = torch.split(flat[1:], [gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
    optimizer.step()
    return float(flat[0])


def _validate(
    model: M2M,
    data: Shards,
    index: WindowIndex,
    actual_VM: Floats,
    state: RunState,
    plan: Plan,
    ranks: Ranks,
    device: torch.device,
) -> EpochMetrics:
    """Loss and error of the network's own median. The same figures on every rank."""
    raw, loss = data.forecast(model, index, ranks, device, actual_VM)
    scenario_V = data.scenario_of(index)
    error_VM = np.abs(actual_VM - raw.median_NM)
    cells = []
    for scenario in sorted(set(scenario_V)):
        rows = scenario_V == scenario
        for m, task in enumerate(data.inputs.spec.tasks):
            nmae = error_VM[rows, m].sum() / max(actual_VM[rows, m].sum(), 1e-12)
            cells.append(CellMetric(str(scenario), task.name, int(rows.sum()), float(nmae)))
    sums_M = actual_VM.sum(0)
    nmae_M = error_VM.sum(0)[sums_M > 0] / sums_M[sums_M > 0]
    epoch = math.ceil(state.step / plan.steps_per_epoch)
    return EpochMetrics(epoch, state.train_loss, loss, float(nmae_M.mean()) if len(nmae_M) else 0.0, tuple(cells))


def _seed(seed: int, step: int, rank: int) -> None:
    """Dropout of a step depends on nothing but these three."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1))


def _set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    """Linear warm-up, then a half cosine down to a fiftieth."""
    factor = progress / WARM_UP if progress < WARM_UP else 0.02 + 0.49 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = peak * max(factor, 0.02)
