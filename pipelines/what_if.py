"""The work of `score --what-if`: pipelines/score.py says what it reads, and when it fails. It publishes nothing, and
starts no Spark: the files of the advertisers that are asked for are read here."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from m2m_model.data.grid import to_grid
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from pipelines.cli import Run
from pipelines.errors import ConfigError, plain
from pipelines.kernels.scored import Serving
from pipelines.kernels.sequences import known_ahead
from pipelines.life.cells import TABLE as CELLS
from pipelines.life.cells import cells_of, newest
from pipelines.life.evaluation import titled
from pipelines.life.registry import Registry
from pipelines.stages.score import usable_champion
from pipelines.toml_tables import nearest
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import read_files
from pipelines.warehouse.sequences import SERIES, TABLE, SequenceFiles, open_sequences, plans_of

STAGED = "staged.known_future"
KEY = [*SERIES, "for_day"]
FIGURES = ("point", "p05", "p95")
SHOWN = 50  # rows that are printed; --out has all


def read_changes(file: Path, spec: SequenceSpec, as_of: date) -> pl.DataFrame:
    """The plans of a CSV or Parquet file: advertiser_id, scenario_id (null: each of the advertiser's), for_day, a
    column a covariate (null: as it was). A row without a day is there for each day of the horizon.

    Raises:
        ConfigError: the file cannot be read; a column is missing or unknown; a value or day is none that it may be.
    """
    known = list(dict.fromkeys(plan.covariate.name for plan in spec.listed_plans))
    try:
        rows = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None
    for name in rows.columns:
        if name not in (*KEY, *known):
            raise ConfigError(f'{file}: unknown column "{plain(name)}"; {nearest(name, [*KEY, *known])}')
    given = [name for name in known if name in rows.columns]
    if "advertiser_id" not in rows.columns or not given:
        raise ConfigError(f"{file}: expected advertiser_id and {' or '.join(known)}; found {', '.join(rows.columns)}")
    first, last = (as_of + timedelta(days=days) for days in (1, max(plan.days for plan in spec.listed_plans)))
    said = rows.select(
        pl.col(name).cast(pl.String) if name in rows.columns else pl.lit(None, pl.String).alias(name)
        for name in (*KEY, *given)
    )
    made = said.with_columns(
        pl.col("for_day").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False),
        *(pl.col(name).cast(pl.Float64, strict=False) for name in given),
    )
    horizon = pl.lit(pl.date_range(first, last, eager=True).implode())
    wrong = {
        "without an advertiser_id": made["advertiser_id"].is_null(),
        "whose for_day is no day, YYYY-MM-DD": made["for_day"].is_null() & said["for_day"].is_not_null(),
        f"whose for_day is outside the horizon, {first}..{last}": ~made["for_day"].is_between(first, last),
        **{
            f"whose {name} is not a number of 0 or more": said[name].is_not_null()
            & ~(made[name].is_finite() & (made[name] >= 0)).fill_null(False)
            for name in given
        },
    }
    days = pl.when(pl.col("for_day").is_null()).then(horizon).otherwise(pl.concat_list("for_day"))
    wrong["that name a day twice"] = said.select(KEY).is_duplicated()
    for why, mask in wrong.items():
        if (found := said.filter(mask.fill_null(False))).height:
            example = ", ".join(f"{name}={value}" for name, value in found.row(0, named=True).items())
            raise ConfigError(f"{file}: {found.height} rows {why}; expected 0. First: {plain(example)}")
    return made.with_columns(every=pl.col("for_day").is_null(), for_day=days).explode("for_day")


def replan(panel: Panel, staged: pl.DataFrame, changes: pl.DataFrame) -> Panel:
    """The panel with other plans as of its last day.

    What is said of one scenario counts before what is said of all, and of one day before what is said of each. Days
    that nothing is said of keep what was planned for them.

    Args:
        staged: the day's rows of ``STAGED``.
        changes: as ``read_changes`` gives them.
    """
    spec, day = panel.spec, panel.days - 1
    last = panel.last_day + timedelta(days=max(plan.days for plan in spec.listed_plans))
    places = pl.DataFrame({"advertiser_id": panel.advertiser_N.tolist(), "scenario_id": panel.scenario_N.tolist()})
    places = places.with_row_index("place")

    def of_days(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
        """(place, for_day, name, value, rank): a row for each series; lower ranks count before higher ones."""
        found = plans_of(places, rows.select(*KEY, "rank", *names)).with_columns(pl.col("rank") + pl.col("level"))
        return found.unpivot(names, index=["place", "for_day", "rank"], variable_name="name").drop_nulls("value")

    names = [name for name in changes.columns if name not in (*KEY, "every")]
    new = of_days(changes.with_columns(rank=pl.col("every").cast(pl.Int32) * 10), names)
    old = of_days(staged.filter(pl.col("for_day") <= last).with_columns(rank=pl.lit(20, pl.Int32)), names)
    old = old.filter(pl.col("rank") == pl.col("rank").min().over("place", "name"))
    old = old.join(new, on=["place", "name"], how="semi")
    planned = pl.concat([new, old]).sort("rank").unique(["place", "name", "for_day"], keep="first", maintain_order=True)
    panel = replace(panel, future_XC=panel.future_XC.copy())
    for c, plan in enumerate(spec.plans):
        of_plan = planned.filter(name=plan.covariate.name).join(places, on="place")
        amounts = of_plan.select(
            "place", *SERIES, "for_day", ds=pl.lit(panel.last_day), **{plan.covariate.name: "value"}
        )
        found = places.join(known_ahead(amounts, [plan]), on=SERIES)
        panel.future_NTC[found["place"].to_numpy(), day, c] = to_grid(found[plan.column].to_numpy())
    return panel


def compared(run: Run, file: Path) -> pl.DataFrame:
    """A row for each series and task of the file's advertisers: what is forecast with the plans as they are, and with
    the file's.

    Raises:
        ConfigError: nothing is planned here; the file is wrong; no champion that reads plans serves.
    """
    config, ds = run.config, run.ds
    if not config.planned:
        raise ConfigError("--what-if: pipeline.toml declares no plans to change; see [[known_future]]")
    changes, warehouse = read_changes(file, config.sequence_spec, ds), Warehouse.existing(config, ds)
    sequences = open_sequences(config, warehouse, ds)
    champion, _why = usable_champion(run, Registry(config), sequences)
    if champion is None:
        raise ConfigError(
            "--what-if: no champion serves, and a baseline reads no plans; train and promote a model first"
        )
    cells, parts = cells_of(newest(warehouse.pin(CELLS), champion.version)), []
    serving = Serving(sequences, (champion.version, champion.packed), None, run.run_id, cells=cells)
    wanted = set(changes["advertiser_id"])
    known, key = known_series(sequences, wanted), [*SERIES, "task", "horizon_days"]
    _refuse_unknown(file, changes, known, ds)
    for bucket, advertisers in known.group_by("bucket").agg("advertiser_id").iter_rows():
        panel = sequences.panel(bucket, sequences.spec.lookback_days, set(advertisers))
        files = [file for file in warehouse.files(STAGED, ds, ds) if file.bucket == bucket]
        staged = read_files(files, warehouse.arrow_schema(STAGED))
        made = [serving.forecasts(p) for p in (panel, replan(panel, staged, changes))]
        before, after = (pl.DataFrame(pl.from_arrow(forecasts.to_table(sequences.spec))) for forecasts in made)
        after = after.select(*key, *FIGURES)
        parts.append(before.select(*key, "method", *FIGURES).join(after, on=key, suffix="_what_if"))
    everywhere = changes.filter(pl.col("scenario_id").is_null())
    asked = pl.concat(
        [known.join(changes, on=SERIES, how="semi"), known.join(everywhere, on="advertiser_id", how="semi")]
    )
    return pl.concat(parts).join(asked, on=SERIES, how="semi").sort(key)


def known_series(sequences: SequenceFiles, advertisers: set[str]) -> pl.DataFrame:
    """Bucket, advertiser and scenario of the series of some advertisers."""
    parts = [
        read_files(files, sequences.schema, ["bucket", *SERIES]).filter(pl.col("advertiser_id").is_in(advertisers))
        for files in sequences.files.values()
    ]
    return pl.concat(parts)


def _refuse_unknown(file: Path, changes: pl.DataFrame, known: pl.DataFrame, ds: date) -> None:
    for on in (["advertiser_id"], SERIES):
        asked = changes.select(on).unique(maintain_order=True).drop_nulls()
        if (unknown := asked.join(known, on=on, how="anti")).height:
            words = ", ".join(unknown.row(0))
            raise ConfigError(
                f"{file}: {unknown.height} of {asked.height} ({', '.join(on)}) have no sequence in {TABLE} ds={ds}; "
                f"expected 0. First: ({plain(words)})"
            )


def work(run: Run, file: Path, out: Path | None) -> None:
    """Print what would change, and keep all of it in ``out``."""
    found = compared(run, file)
    if out:
        part = out.with_name(f"{out.name}.part")
        found.write_parquet(part) if out.suffix == ".parquet" else found.write_csv(part)
        part.replace(out)
    print(f"{'advertiser':20} {'scenario':16} {'task':16} {'as planned (90 %)':>32}    what if")
    widths = {"advertiser_id": 20, "scenario_id": 16, "task": 16}
    for row in titled(found.head(SHOWN), run.config.sequence_spec).iter_rows(named=True):
        sides = [f"{row['point' + s]:,.4g} ({row['p05' + s]:,.4g} .. {row['p95' + s]:,.4g})" for s in ("", "_what_if")]
        row["task"] = f"{row['task']} {row['horizon_days']}d"
        names = " ".join(f"{plain(row[name]):{width}}" for name, width in widths.items())
        print(f"{names} {sides[0]:>32} -> {sides[1]}")
    if found.height > SHOWN:
        print(f"... and {found.height - SHOWN:,} rows more" + ("" if out else "; --out FILE keeps all"))
    moves = pl.any_horizontal(pl.col(figure) != pl.col(f"{figure}_what_if") for figure in FIGURES)
    still = found.filter(~moves)
    by = f"; {still.height:,} do not, by {', '.join(sorted(set(still['method'])))}" if still.height else ""
    run.say(f"{found.height - still.height:,} of {found.height:,} forecasts move{by}; nothing was published")
