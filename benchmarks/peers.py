"""What a user would pick instead: neuralforecast's NHITS, TiDE and DeepAR on weekly totals, for benchmarks/results.py.

    .venv-peers/bin/python benchmarks/peers.py FOLDER

It runs in an environment of its own (benchmarks/peers-requirements.txt) and knows no more than the files in FOLDER:
``plan.json``, and ``AS_OF/CUTOFF.parquet``, for each held-out cutoff of each block the weeks of every series up to it.
A model is fitted for each task, on all series together. Its setting is the best of three at the validation cutoffs of
the earliest block; with it the model is fitted once a block, on the weeks up to the block's first held-out cutoff, and
forecasts the week after each of its cutoffs. FOLDER then holds ``forecasts.parquet`` and ``fits.json``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

STEPS = 600
SEED = 1
AT_ONCE = 2  # fits, on a core each: networks this small only lose time between threads
# Columns of a file of weeks, beside the tasks: row of the panel, scenario, number of the week, judged at its end.
SERIES, SCENARIO, WEEK, ELIGIBLE = "series", "scenario", "week", "eligible"


@dataclass(frozen=True)
class Setting:
    """How a peer is set up; what is not named is the library's default."""

    name: str
    weeks: int  # that it reads
    other_tasks: bool = False  # reads their weeks too
    log: bool = True  # totals as log(1 + total): a median stays a median
    loss: str = "mae"  # or a distribution of the library


# Median of the coming week of some series, by their rows, from their weeks.
Forecast = Callable[[pd.DataFrame], "pd.Series[float]"]
Fit = Callable[[str, Setting, str, Sequence[str], pd.DataFrame], Forecast]

SMALL: Mapping[str, Mapping[str, Any]] = {  # beside the library's defaults: a fit takes seconds
    "NHITS": {"mlp_units": [[128, 128]] * 3},
    "TiDE": {"hidden_size": 128},
    "DeepAR": {"lstm_hidden_size": 64, "lstm_n_layers": 1, "lstm_dropout": 0.0},
}
PEERS: Mapping[str, tuple[Setting, ...]] = {
    **dict.fromkeys(
        ("NHITS", "TiDE"),
        (
            Setting("13 weeks", 13),
            Setting("13 weeks, other tasks", 13, other_tasks=True),
            Setting("5 weeks", 5),
        ),
    ),
    "DeepAR": (
        Setting("13 weeks, Student's t", 13, loss="StudentT"),
        Setting("13 weeks, Student's t, other tasks", 13, other_tasks=True, loss="StudentT"),
        Setting("13 weeks, negative binomial", 13, log=False, loss="NegativeBinomial"),
    ),
}


def fit(peer: str, setting: Setting, task: str, tasks: Sequence[str], weeks: pd.DataFrame) -> Forecast:
    """A peer of the library, fitted on the weeks of all series for one task."""
    import torch
    from neuralforecast import NeuralForecast, models
    from neuralforecast.losses.pytorch import MAE, DistributionLoss

    torch.set_num_threads(1)
    scenarios = {name: code for code, name in enumerate(sorted(weeks[SCENARIO].unique()))}
    digits = 0 if (weeks[task] % 1 == 0).all() else 2  # counts and days are whole, money has cents
    others = [name for name in tasks if name != task] if setting.other_tasks else []

    def frames(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Weeks and scenarios as the library reads them; a scenario that it was not fitted on is the first."""
        scaled = {name: np.log1p(rows[name]) if setting.log else rows[name] for name in (task, *others)}
        frame = pd.DataFrame({"unique_id": rows[SERIES], "ds": rows[WEEK], "y": scaled.pop(task), **scaled})
        first = rows.drop_duplicates(SERIES)
        code = first[SCENARIO].map(scenarios).fillna(0).astype(int)
        return frame, pd.DataFrame({"unique_id": first[SERIES], SCENARIO: code})

    model = getattr(models, peer)(
        h=1,
        input_size=setting.weeks,
        loss=MAE() if setting.loss == "mae" else DistributionLoss(setting.loss, quantiles=[0.5]),
        stat_exog_list=[SCENARIO],
        cat_exog_list=[SCENARIO],
        categorical_cardinalities={SCENARIO: len(scenarios)},
        hist_exog_list=others or None,
        max_steps=STEPS,
        start_padding_enabled=True,
        random_seed=SEED,
        batch_size=64,
        windows_batch_size=256,
        **SMALL[peer],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    library = NeuralForecast([model], freq=1)
    frame, static = frames(weeks)
    library.fit(frame, static_df=static)

    def forecast(rows: pd.DataFrame) -> pd.Series[float]:
        frame, static = frames(rows)
        found = library.predict(frame, static_df=static).set_index("unique_id")
        median = found[peer if setting.loss == "mae" else f"{peer}-median"]
        return (np.expm1(median) if setting.log else median).clip(lower=0).round(digits)

    return forecast


def judged_weeks(weeks: pd.DataFrame, last: int) -> pd.DataFrame:
    """The weeks up to ``last`` of the series that are judged at its end."""
    judged = weeks.loc[(weeks[WEEK] == last) & weeks[ELIGIBLE], SERIES]
    return weeks[(weeks[WEEK] <= last) & weeks[SERIES].isin(judged)]


def validation_nmae(fitted: Callable[[pd.DataFrame], Forecast], task: str, weeks: pd.DataFrame, count: int) -> float:
    """NMAE over the last ``count`` weeks, by a model that was fitted on those before."""
    last = int(weeks[WEEK].max())
    forecast, error, total = fitted(weeks[weeks[WEEK] <= last - count]), 0.0, 0.0
    for week in range(last - count, last):
        actual = weeks[weeks[WEEK] == week + 1].set_index(SERIES)[task]
        made = forecast(judged_weeks(weeks, week))
        error += float((made - actual.loc[made.index]).abs().sum())
        total += float(actual.loc[made.index].sum())
    return error / total


def chosen_and_fitted(
    folder: Path, fit: Fit, job: tuple[str, Sequence[Setting], str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Of one peer and task the forecasts of all cutoffs; what was tried, what was chosen, and the seconds of both."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    blocks = {as_of: sorted(cutoffs) for as_of, cutoffs in plan["blocks"].items()}
    peer, settings, task = job

    def weeks_of(as_of: str, cutoff: str) -> pd.DataFrame:
        return pd.read_parquet(folder / as_of / f"{cutoff}.parquet")

    known, tried, started = weeks_of(min(blocks), blocks[min(blocks)][0]), {}, time.monotonic()
    for setting in settings:
        fitted = partial(fit, peer, setting, task, plan["tasks"])
        tried[setting.name] = validation_nmae(fitted, task, known, plan["validation_weeks"])
    best = min(settings, key=lambda setting: tried[setting.name])
    choosing_s, fitting_s, made = time.monotonic() - started, {}, []
    for as_of, cutoffs in blocks.items():
        weeks, started = weeks_of(as_of, cutoffs[0]), time.monotonic()
        forecast = fit(peer, best, task, plan["tasks"], weeks)
        fitting_s[as_of] = time.monotonic() - started
        for cutoff in cutoffs:
            weeks = weeks_of(as_of, cutoff)
            median = forecast(judged_weeks(weeks, int(weeks[WEEK].max())))
            columns = {"cutoff": cutoff, "peer": peer, "task": task, SERIES: median.index, "median": median}
            made.append(pd.DataFrame(columns))
    found = {"peer": peer, "task": task, "tried": tried, "best": best.name}
    return pd.concat(made), found | {"choosing_s": choosing_s, "fitting_s": fitting_s}


def run(
    folder: Path,
    fit: Fit = fit,
    peers: Mapping[str, Sequence[Setting]] = PEERS,
    each: Callable[..., Iterable[Any]] = map,
) -> None:
    """Choose, fit and forecast, as ``plan.json`` says; ``each`` may be the map of a pool."""
    tasks = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["tasks"]
    jobs = [(peer, settings, task) for peer, settings in peers.items() for task in tasks]
    made, fits = [], []
    for forecasts, found in each(partial(chosen_and_fitted, folder, fit), jobs):
        made.append(forecasts)
        fits.append(found)
        errors = ", ".join(f"{name} {nmae:.3f}" for name, nmae in found["tried"].items())
        took = ", ".join(f"{seconds:.0f}" for seconds in found["fitting_s"].values())
        print(f"{found['peer']}, {found['task']}: NMAE of {errors}; fitted in {took} s", flush=True)
    pd.concat(made).to_parquet(folder / "forecasts.parquet", index=False)
    (folder / "fits.json").write_text(json.dumps(fits), encoding="utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)  # Lightning's, a dozen lines a fit
    with ProcessPoolExecutor(AT_ONCE) as pool:
        run(Path(sys.argv[1]), each=pool.map)
