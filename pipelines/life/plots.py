"""The pictures that go with a run into MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import polars as pl

mpl.use("Agg")  # no screen where this runs
mpl.rcParams["text.parse_math"] = False  # a scenario may be named $x$

from matplotlib import pyplot as plt

from m2m_model.training.progress import EpochMetrics


def training_plots(epochs: Sequence[EpochMetrics], folder: Path) -> list[Path]:
    """Loss by epoch, and validation NMAE per scenario x task at the last epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    steps = [epoch.epoch for epoch in epochs]
    axes.plot(steps, [epoch.train_loss for epoch in epochs], marker="o", label="training")
    axes.plot(steps, [epoch.validation_loss for epoch in epochs], marker="o", label="validation")
    axes.set(xlabel="epoch", ylabel="loss", title="Loss")
    axes.legend()
    loss = _save(figure, folder / "loss.png")
    cells = {(cell.scenario_id, cell.task): cell.nmae for cell in epochs[-1].cells}
    scenarios, tasks = sorted({s for s, _ in cells})[:40], sorted({t for _, t in cells})
    figure, axes = plt.subplots(figsize=(2 + 1.5 * len(tasks), 1.5 + 0.4 * len(scenarios)), layout="constrained")
    grid = [[cells.get((scenario, task), float("nan")) for task in tasks] for scenario in scenarios]
    axes.imshow(grid, aspect="auto", cmap="viridis_r")
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_yticks(range(len(scenarios)), [scenario[:40] for scenario in scenarios])
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white")
    axes.set_title(f"Validation NMAE, epoch {epochs[-1].epoch}")
    return [loss, _save(figure, folder / "validation_nmae.png")]


def forecast_plot(pairs: pl.DataFrame, folder: Path) -> Path:
    """Forecast against actual, a panel a task; ``pairs`` holds task, actual and forecast of a sample of series."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = sorted(pairs["task"].unique())
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 4.2), layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        part = pairs.filter(task=task)
        axis.scatter(part["actual"], part["forecast"], s=8, alpha=0.4, edgecolors="none")
        top = max(part["actual"].max() or 0, part["forecast"].max() or 0, 1)
        axis.plot([0, top], [0, top], color="grey", linewidth=1)
        axis.set_xscale("symlog")
        axis.set_yscale("symlog")
        axis.set(title=task, xlabel="actual", ylabel="forecast")
    return _save(figure, folder / "forecast_against_actual.png")


def reliability_plot(bins: pl.DataFrame, folder: Path) -> Path:
    """Share that left against forecast probability; ``bins`` holds n, churn_predicted and churn_observed."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter(bins["churn_predicted"], bins["churn_observed"], s=4 + 200 * bins["n"] / bins["n"].max(), alpha=0.6)
    axes.set(
        xlabel="forecast probability of leaving", ylabel="share that left", title="Leaving, challenger; size = number"
    )
    return _save(figure, folder / "reliability.png")


def decile_plot(deciles: pl.DataFrame, drawn_bold: str, folder: Path) -> Path:
    """NMAE by advertiser size, a panel a task and a line a forecaster; ``deciles`` holds forecaster, task, part (1 =
    the smallest tenth) and value."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = sorted(deciles["task"].unique())
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 4.2), layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        lines = deciles.filter(task=task).sort("forecaster", "part").group_by("forecaster", maintain_order=True)
        for (forecaster,), line in lines:
            width = 2.5 if forecaster == drawn_bold else 1
            axis.plot(line["part"], line["value"], marker="o", markersize=3, linewidth=width, label=forecaster)
        axis.set_xticks(range(1, 11))  # a decile where nothing happened has no figure, and keeps its place
        if (deciles.filter(task=task)["value"] > 0).any():  # small advertisers' errors are many times large ones'
            axis.set_yscale("log")
        axis.set(title=task, xlabel="decile of the 28-day mean, 1 = smallest", ylabel="NMAE of the mean")
    axes[0, -1].legend(fontsize="small")
    return _save(figure, folder / "error_by_size.png")


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
