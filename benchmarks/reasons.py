"""Are the reasons true? Delete what is named, and see whether the forecast moves; on made-up data, ask what was done.

    M2M_HOME=... python -m benchmarks.reasons --config examples/online_ads/pipeline.toml --date 2020-06-20

Reads the sequences of a day and its champion, writes nothing, and prints a section of docs/reliability.md. A cause is
chosen by what `explain` takes away, so taking the same away again would prove nothing: here it is replaced by something
that the choice has never seen. Last days become those of the weeks 5 to 8 before; weeks before, behaviors, attributes
and plans another advertiser's of the scenario; the scenario another one.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from m2m_model.causes.changes import Means, by_model
from m2m_model.causes.reasons import Amounts, Series, as_before, causes_of, panel_of, rate, series_of
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import NETWORK, served_by
from pipelines.config import load_config
from pipelines.life.evaluation import load_forecaster
from pipelines.life.registry import Registry
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.sequences import SequenceFiles, open_sequences

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "simulated"))
import simulation

ACTS = {"budget_raised": 0, "budget_cut": 1, "bid_changed": 2}  # the simulator's, by their place in its response
DONORS = 8  # other advertisers whose thing takes a cause's place, one after the other
FELT = 0.05  # of the log of impressions yet to come: less is not looked for


def deleted(cause: str, series: Series, donors: Sequence[Series], elsewhere: Sequence[Series]) -> list[Series]:
    """The series with other things in the cause's place; none where there is nothing else."""
    days, (kind, _, name) = len(series.performance_TP), cause.partition(":")
    if kind in ("silence", "last_days"):
        column = slice(None) if kind == "silence" else METRICS[name]
        above_T = np.asarray((series.performance_TP[:, column] > 0).any(1))
        recent = max(7, int(above_T[::-1].argmax()) if above_T.any() else days)
        weeks = [days - recent - 7 * week for week in (5, 6, 7, 8)]
        return [as_before(series, recent, week, column) for week in weeks if week >= series.begun]
    copies = []
    for other in elsewhere if kind == "scenario" else donors:
        copy = series.copy()
        if kind == "weeks_before":
            own, theirs = (rate(of.performance_TP[-7:, METRICS[name]]) for of in (series, other))
            before_T = other.performance_TP[:-7, METRICS[name]]
            copy.performance_TP[:-7, METRICS[name]] = before_T * (own / theirs if own and theirs else 1.0)
        elif kind == "behavior":
            copy.behavior_TF[:, BEHAVIORS[name]] = other.behavior_TF[:, BEHAVIORS[name]]
        elif kind == "plan":
            copy.future_TC[-1] = other.future_TC[-1]
        elif kind == "attribute":
            copy.profile[name] = other.profile[name]
        else:
            copy.profile |= {name: other.profile[name] for name in ("scenario_id", *SCENARIO_ATTRIBUTES)}
        copies.append(copy)
    return copies


def deletion(
    panel: Panel, amounts: Amounts, means: Means, asked: Sequence[int], m: int
) -> list[tuple[str, float, float]]:
    """Of each series: its strongest cause, and by how much of the forecast deleting it moves that, and deleting one of
    the other causes at random."""
    scenario_N = panel.scenario_N
    series = {n: series_of(panel, amounts, n) for n in asked}
    causes = {n: causes_of(series[n], panel) for n in asked}

    def forecast(groups: Sequence[Sequence[tuple[int, Series]]]) -> list[float]:
        """The mean over each group of copies."""
        copies = [copy for group in groups for copy in group]
        mean_X = means(panel_of(panel, copies), panel.last_day)[:, m]
        ends = np.cumsum([len(group) for group in groups])[:-1]
        return [float(part.mean()) for part in np.split(mean_X, ends)]

    whole = dict(zip(asked, forecast([[(n, series[n])] for n in asked]), strict=True))
    said = iter(forecast([[(n, copy) for copy in cause.without] for n in asked for cause in causes[n]]))
    found, groups = list[tuple[int, str]](), list[list[tuple[int, Series]]]()
    for n in asked:
        size_K = np.array([abs(whole[n] - next(said)) for _ in causes[n]])
        if whole[n] <= 0 or len(size_K) < 2:
            continue
        top = int(size_K.argmax())
        other = RANDOM.choice([k for k in range(len(size_K)) if k != top])
        same, apart = (
            [o for o in asked if (scenario_N[o] == scenario_N[n]) == alike and o != n] for alike in (True, False)
        )
        donors, elsewhere = ([series[o] for o in RANDOM.permutation(of)[:DONORS].tolist()] for of in (same, apart))
        both = [deleted(causes[n][k].name, series[n], donors, elsewhere) for k in (top, other)]
        if all(both):
            found.append((n, causes[n][top].name))
            groups += [[(n, copy) for copy in copies] for copies in both]
    moved = iter(forecast(groups))
    return [(name, abs(next(moved) - whole[n]) / whole[n], abs(next(moved) - whole[n]) / whole[n]) for n, name in found]


def true_drivers(panel: Panel, amounts: Amounts, means: Means, m: int) -> None:
    """On the simulator's data: what each act will yet do to the log of impressions is known (a third of what is pending
    arrives a day), and `explain` says what it does to the log of clicks."""
    response = {scenario.name: scenario.response for scenario in simulation.SCENARIOS}
    served_N = served_by(panel, panel.days - 1)
    copies, truth = [], []
    for n in np.flatnonzero(served_N == NETWORK).tolist():
        series = series_of(panel, amounts, n)
        for cause in causes_of(series, panel):
            name = cause.name.removeprefix("behavior:")
            if name in ACTS:
                done_T = np.nan_to_num(series.behavior_TF[-21:, BEHAVIORS[name]])[::-1]
                to_come = float((done_T * (2 / 3) ** (1 + np.arange(len(done_T)))).sum())
                effect = response[panel.scenario_N[n]][ACTS[name]] * to_come
                if abs(effect) >= FELT:
                    copies += [(n, series), (n, cause.without[0])]
                    truth.append((panel.scenario_N[n], name, effect))
    if not truth:
        return
    mean_X = np.maximum(means(panel_of(panel, copies), panel.last_day)[:, m], 1e-3)
    said_K = np.log(mean_X[0::2] / mean_X[1::2])
    rows = pl.DataFrame(truth, {"scenario": pl.String, "act": pl.String, "true": pl.Float64}, orient="row")
    rows = rows.with_columns(said=pl.Series(said_K))
    right, rank = ((pl.col("true") > 0) == (pl.col("said") > 0)).mean(), pl.corr("true", "said", method="spearman")
    print(
        f"\nOf {rows.height:,} acts whose effect is yet to come, the sign is right in {rows.select(right).item():.0%};"
    )
    print(f"rank correlation of said and true: {rows.select(rank).item():.2f}.\n")
    print("| scenario | act | acts | true, mean | said, mean | sign right |\n| --- | --- | ---: | ---: | ---: | ---: |")
    cells = rows.group_by("scenario", "act").agg(pl.len(), pl.mean("true"), pl.mean("said"), right=right)
    for scenario, act, count, true, said, share in cells.sort("scenario", "act").iter_rows():
        print(f"| {scenario} | {act} | {count} | {true:+.2f} | {said:+.2f} | {share:.0%} |")


def of_some(sequences: SequenceFiles, most: int) -> tuple[Panel, Amounts]:
    """The series of as many buckets as it takes."""
    days, rows = sequences.spec.lookback_days + 14, list[pl.DataFrame]()
    for bucket in sequences.buckets:
        rows.append(sequences.rows(bucket, days))
        if sum(part.height for part in rows) >= most:
            break
    table = pl.concat(rows).to_arrow()
    panel = Panel.from_sequences(table, sequences.spec, sequences.as_of, days)
    return panel, Amounts.of(table, panel)


def main(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config)
    champion = Registry(config).get("champion")
    assert champion
    sequences = open_sequences(config, Warehouse.existing(config), arguments.date)
    panel, amounts = of_some(sequences, 8 * arguments.series)
    spec, means = panel.spec, by_model(load_forecaster(champion.packed))
    METRICS.update({name: slice(p, p + 1) for p, name in enumerate(spec.metrics)})
    BEHAVIORS.update({name: f for f, name in enumerate(spec.behaviors)})
    SCENARIO_ATTRIBUTES.extend(spec.scenario_attributes)
    network_N = np.flatnonzero(served_by(panel, panel.days - 1) == NETWORK)
    asked = sorted(RANDOM.permutation(network_N)[: arguments.series].tolist())
    print(f"\n{config.dataset.name}, as of {arguments.date}, {len(asked)} series, champion {champion.version}:\n")
    print("| forecast | series | deleting the top cause moves it | a random other | top moves it more | top causes |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for m, title in enumerate(spec.titles):
        found = deletion(panel, amounts, means, asked, m)
        top_X, other_X = (np.array([row[k] for row in found]) for k in (1, 2))
        more = np.mean(np.where(top_X == other_X, 0.5, top_X > other_X))
        error = np.sqrt(more * (1 - more) / len(found))
        kinds = Counter(name.partition(":")[0] for name, _, _ in found).most_common(3)
        words = ", ".join(f"{kind} {count / len(found):.0%}" for kind, count in kinds)
        moves = [f"{np.median(moved_X):.1%}" for moved_X in (top_X, other_X)]
        print(f"| {title} | {len(found)} | {moves[0]} | {moves[1]} | {more:.0%} ± {error:.0%} | {words} |")
    if config.dataset.name == "simulated":
        true_drivers(panel, amounts, means, spec.titles.index("clicks"))


METRICS: dict[str, slice] = {}
BEHAVIORS: dict[str, int] = {}
SCENARIO_ATTRIBUTES: list[str] = []
RANDOM = np.random.default_rng(1)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--date", type=date.fromisoformat, required=True)
    parser.add_argument("--series", type=int, default=400)
    main(parser.parse_args())
