"""A model whose forecasts break the rules of forecasts: the backtest sees it, the gate refuses it, and where it serves
all the same, the best baseline steps in."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname
from uuid import uuid4

import polars as pl
import pytest
from deployment import AS_OF, Deployment

import pipelines.kernels.sound
import pipelines.stages.score
from m2m_model.forecasts.forecaster import FORMAT_VERSION
from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.cli import Run
from pipelines.errors import DataError
from pipelines.life.registry import LostModelError, ModelVersion, Registry
from pipelines.quality.rules import critical_rules
from pipelines.stages.backtest import usable_rivals


def registered(
    deployment: Deployment,
    tmp_path: Path,
    mean_ratio: float = 1.0,
    change: Callable[[Path], object] = lambda folder: None,
    **changed: Any,
) -> ModelVersion:
    """The champion once more, as a challenger of its own whose means of the first task are so many times too large, or
    with another key of its config.json, or another change of its folder."""
    registry = Registry(deployment.config)
    sound = registry.get(CHAMPION)
    assert sound is not None
    folder = tmp_path / uuid4().hex / "model"
    shutil.copytree(sound.folder, folder)
    stored = json.loads((folder / "config.json").read_text())
    stored["levels"]["mean_ratio_M"][0] *= mean_ratio
    (folder / "config.json").write_text(json.dumps(stored | {"blend": None} | changed))
    change(folder)
    with registry.new_run("faulty", {}, {}) as run_id:
        return registry.register(run_id, folder)


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """A file with other bytes for a while."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def forecasts(deployment: Deployment) -> pl.DataFrame:
    return deployment.rows("marts.forecast_daily").filter(ds=AS_OF)


@pytest.fixture(scope="module")
def day_before(trained: Deployment) -> date:
    """A day that the champion forecast before."""
    day = AS_OF - timedelta(days=1)
    for stage in ("build_sequences", "score"):
        assert trained.run(stage, "--date", day)[0] == 0
    return day


@pytest.mark.parametrize(("mean_ratio", "rule"), [(-1.0, "negative"), (float("nan"), "not_finite")])
def test_the_gate_refuses_what_score_would_refuse(
    said: Deployment, tmp_path: Path, mean_ratio: float, rule: str
) -> None:
    champion = Registry(said.config).version_of(CHAMPION)
    faulty = registered(said, tmp_path, mean_ratio)
    status, text = said.run("backtest", "--date", AS_OF)
    assert status == 0, text
    assert f"warning: challenger {faulty.version} will not be promoted: {rule} in " in text
    rows = said.rows("marts.backtest").filter(pl.col("broken").is_not_null())
    assert rows.select("forecaster", "scenario_id", "cutoff").unique().rows() == [(CHALLENGER, "*", None)]
    assert rows["broken"].str.contains(rf"^{rule} in \d+ forecasts, expected .*, first \(adv").all()
    status, text = said.run("promote", "--date", AS_OF)
    assert status == 0
    assert f"version {faulty.version} not promoted: its forecasts break rules" in text
    line = said.rows("ops.promotion").filter(challenger=faulty.version)
    assert line["promoted"].to_list() == [False]
    assert line["reason"].str.contains(f"{rule} in ").all()
    assert Registry(said.config).version_of(CHAMPION) == champion


def test_a_champion_that_breaks_a_rule_steps_back_for_the_baseline(said: Deployment, tmp_path: Path) -> None:
    registry = Registry(said.config)
    sound = registry.version_of(CHAMPION)
    assert sound is not None
    faulty = registered(said, tmp_path, -1.0)
    registry.promote(faulty.version)
    try:
        status, text = said.run("score", "--date", AS_OF)
        assert status == 0, text
        assert text.count("warning: ") == 1
        assert f"marts.forecast_daily ds={AS_OF}: negative: found " in text
        assert f"A fault of champion {faulty.version}, not of the data" in text
        assert "the best baseline serves" in text
        rows = forecasts(said)
        assert rows.height == said.rows("features.advertiser_sequence").filter(ds=AS_OF).height * 2
        assert rows["method"].str.starts_with("baseline:").all()
        assert rows["model_version"].null_count() == rows.height
        assert (rows["mean"] >= 0).all()
        kept = said.rows("ops.validation").filter(check="negative", passed=False, table="marts.forecast_daily")
        assert kept["severity"].to_list() == ["warning"]
        lineage = said.warehouse.lineage("marts.forecast_daily")[AS_OF]
        assert lineage["m2m.input.model.champion"] == "None"
    finally:
        registry.promote(sound)
    assert said.run("score", "--date", AS_OF)[0] == 0
    assert set(forecasts(said)["model_version"]) == {sound}


def test_a_champion_whose_paths_break_a_rule_steps_back_too(said: Deployment, tmp_path: Path) -> None:
    registry = Registry(said.config)
    sound = registry.get(CHAMPION)
    assert sound is not None
    pacing = json.loads((sound.folder / "config.json").read_text())["pacing"]
    for clock in (clock for clocks in pacing["clock_MK"] for clock in clocks):
        clock["ratio_SV"] = [[float("nan")] * len(ratio_V) for ratio_V in clock["ratio_SV"]]
    faulty = registered(said, tmp_path, pacing=pacing)
    registry.promote(faulty.version)
    try:
        status, text = said.run("score", "--date", AS_OF)
        assert status == 0, text
        assert f"marts.forecast_path ds={AS_OF}: not_finite: found " in text
        assert f"A fault of champion {faulty.version}, not of the data" in text
        assert forecasts(said)["method"].str.starts_with("baseline:").all()
        assert said.rows("marts.forecast_path").filter(ds=AS_OF)["cumulated_p95"].is_finite().all()
    finally:
        registry.promote(sound.version)


def test_a_champion_that_breaks_a_rule_is_no_bar_for_a_sound_challenger(said: Deployment, tmp_path: Path) -> None:
    registry = Registry(said.config)
    sound = registry.version_of(CHAMPION)
    assert sound is not None
    faulty, challenger = registered(said, tmp_path, float("nan")), registered(said, tmp_path)
    registry.promote(faulty.version)
    try:
        status, text = said.run("backtest", "--date", AS_OF)
        assert status == 0, text
        assert f"warning: champion {faulty.version} is no bar to pass: not_finite in " in text
        rows = said.rows("marts.backtest").filter(pl.col("broken").is_not_null())
        assert set(rows["forecaster"]) == {CHAMPION}
        status, text = said.run("promote", "--date", AS_OF, "--dry-run", spark=False)
        assert f"version {challenger.version} promoted (dry run)" in text
        assert "champion" not in text.partition("promoted (dry run)")[2]
    finally:
        registry.promote(sound)


def test_a_champion_of_another_horizon_is_not_compared_and_does_not_serve(said: Deployment, tmp_path: Path) -> None:
    registry = Registry(said.config)
    sound = registry.get(CHAMPION)
    assert sound is not None
    inputs = json.loads((sound.folder / "config.json").read_text())["inputs"]
    inputs["spec"]["horizons_days"][0] += 1
    other = registered(said, tmp_path, inputs=inputs)
    status, text = said.run("backtest", "--date", AS_OF)
    assert status == 3, text
    assert f"challenger {other.version} was trained with other horizons_days than pipeline.toml has now" in text
    challenger = registered(said, tmp_path)
    registry.promote(other.version)
    try:
        status, text = said.run("backtest", "--date", AS_OF)
        assert status == 0, text
        assert f"champion {other.version} was trained with other horizons_days; it is not compared" in text
        assert set(said.rows("marts.backtest")["model_version"].drop_nulls()) == {challenger.version}
        status, text = said.run("score", "--date", AS_OF)
        assert status == 0, text
        assert f"champion {other.version} was trained with other horizons_days; the best baseline serves" in text
    finally:
        registry.promote(sound.version)


def test_a_champion_of_another_version_of_the_code_steps_back(said: Deployment, tmp_path: Path) -> None:
    registry = Registry(said.config)
    sound = registry.version_of(CHAMPION)
    assert sound is not None
    with pytest.raises(LostModelError, match="made by another version of this code"):
        registered(said, tmp_path, format_version=FORMAT_VERSION - 1)  # of the code before
    other = newest(registry)
    assert other != registry.version_of(CHALLENGER)
    registry.promote(other)
    try:
        status, text = said.run("score", "--date", AS_OF)
        assert status == 0, text
        assert f"version {other}: it was made by another version of this code: " in text
        assert f"format_version {FORMAT_VERSION - 1}; this code reads {FORMAT_VERSION}" in text
        assert forecasts(said)["method"].str.starts_with("baseline:").all()
    finally:
        registry.promote(sound)


def newest(registry: Registry) -> str:
    return max((one.version for one in registry.client.search_model_versions(f"name = '{registry.name}'")), key=int)


class Opened:
    """A pickle that says so when it is opened."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.told,)


def shorter(part: str, *names: str) -> Callable[[Path], object]:
    """A part of config.json of one target less than the data set has."""

    def change(folder: Path) -> None:
        stored = json.loads((folder / "config.json").read_text())
        if part == "blend":
            stored[part] = {"tasks": [{"anchor": "tsb", "network": 0.5}], "scenarios": {}}
        for name in names:
            stored[part][name].pop()
        (folder / "config.json").write_text(json.dumps(stored))

    return change


def pickled_list(folder: Path) -> None:
    """In the place of the list of the learned baselines that serve."""
    (folder / "rivals").mkdir(exist_ok=True)
    (folder / "rivals" / "rivals.json").write_bytes(pickle.dumps(Opened(folder / "opened")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shorter("levels", "mean_ratio_M"), "levels is of 1 targets, not 2"),
        (shorter("blend"), "blend is of 1 targets, not 2"),
        (pickled_list, "rivals: "),
    ],
)
def test_parts_that_do_not_fit_are_refused_though_they_are_registered(
    said: Deployment, tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    registry = Registry(said.config)
    before = registry.aliases()
    with pytest.raises(LostModelError, match=f"it cannot be opened, though its files are .* registered: .*{words}"):
        registered(said, tmp_path, change=change)
    assert registry.aliases() == before


def test_other_dimensions_than_the_weights_have_are_refused(said: Deployment, tmp_path: Path) -> None:
    sound = Registry(said.config).get(CHAMPION)
    assert sound is not None
    other = json.loads((sound.folder / "config.json").read_text())["model_config"] | {"width": 16}
    with pytest.raises(LostModelError, match=r"weights\.safetensors does not fit config\.json: .*size mismatch"):
        registered(said, tmp_path, model_config=other)


@pytest.mark.parametrize("name", ["weights.safetensors", "refitted.safetensors", "config.json"])
def test_a_pickle_in_the_place_of_a_file_is_not_opened(said: Deployment, tmp_path: Path, name: str) -> None:
    told = tmp_path / "opened"
    pickled = pickle.dumps(Opened(told))
    with pytest.raises(LostModelError, match="it cannot be opened, though its files are those that were registered"):
        registered(said, tmp_path, change=lambda folder: (folder / name).write_bytes(pickled))
    assert not told.exists()


@pytest.mark.parametrize("name", ["refitted.safetensors", "weights.pkl", "rivals/other.txt"])
def test_a_file_that_nobody_registered_is_refused_by_name(said: Deployment, name: str) -> None:
    registry = Registry(said.config)
    sound = registry.get(CHAMPION)
    assert sound is not None
    added = sound.folder / name
    there = added.parent.is_dir()
    added.parent.mkdir(exist_ok=True)
    shutil.copy(sound.folder / "weights.safetensors", added)
    try:
        for stage in ("score", "backtest"):
            status, text = said.run(stage, "--date", AS_OF)
            assert (status, f"version {sound.version}: {name} in {sound.folder} was not registered" in text) == (
                3,
                True,
            )
    finally:
        added.unlink()
        if not there:
            added.parent.rmdir()


@pytest.mark.parametrize("tag", ["{}", "[1]", "no digests"])
def test_a_version_registered_by_hand_without_digests_that_can_be_read_is_refused(
    said: Deployment, tmp_path: Path, tag: str
) -> None:
    registry = Registry(said.config)
    version = registered(said, tmp_path).version
    registry.client.set_model_version_tag(registry.name, version, "m2m.sha256", tag)
    with pytest.raises(DataError, match=r"was not registered|its tag m2m\.sha256 is no list of digests"):
        registry.version(version)


def test_rivals_of_other_targets_are_not_judged(said: Deployment, capfd: pytest.CaptureFixture[str]) -> None:
    registry = Registry(said.config)
    champion = registry.get(CHAMPION)
    assert champion is not None
    stored = registry.client.get_run(champion.run_id).info.artifact_uri
    folder = Path(url2pathname(urlparse(stored).path)) / "rivals"
    run = Run("run", "backtest", said.config, AS_OF, AS_OF)
    assert usable_rivals(run, registry, champion) is not None
    known = next(folder.glob("*-known.json"))
    values = {name: value[:-1] for name, value in json.loads(known.read_bytes()).items()}
    listed = json.loads((folder / "rivals.json").read_bytes())
    short = json.dumps(values).encode()
    listed["files"][known.name.removesuffix("-known.json")]["known.json"] = hashlib.sha256(short).hexdigest()
    with changed(known, short):
        assert usable_rivals(run, registry, champion) is None
        assert f"{known.name} is not the file that was written" in capfd.readouterr().out
        with changed(folder / "rivals.json", json.dumps(listed).encode()):
            assert usable_rivals(run, registry, champion) is None
            assert "boosters and thresholds are of others" in capfd.readouterr().out
    with changed(folder / "rivals.json", pickle.dumps(Opened(folder / "opened"))):
        assert usable_rivals(run, registry, champion) is None
    assert not (folder / "opened").exists()


@pytest.mark.parametrize("alias", [CHALLENGER, CHAMPION])
def test_nobody_is_judged_on_days_that_he_may_have_seen(said: Deployment, tmp_path: Path, alias: str) -> None:
    """As a champion that was trained for a later day, and one that does not say."""
    registry = Registry(said.config)
    sound = registry.get(CHAMPION)
    assert sound is not None
    metadata = json.loads((sound.folder / "config.json").read_text())["metadata"]
    try:
        for held_out_from, words in (
            (str(AS_OF), f"has seen the days up to {AS_OF}, so 2 of 2 cutoffs are no test of it"),
            (None, "does not say up to which day it has seen the data"),
        ):
            late = registered(said, tmp_path, metadata=metadata | {"held_out_from": held_out_from})
            if alias == CHAMPION:
                registered(said, tmp_path)  # a challenger that has not
                registry.promote(late.version)
            status, text = said.run("backtest", "--date", AS_OF)
            registry.promote(sound.version)
            assert (status, f"marts.backtest ds={AS_OF}: {alias} {late.version} {words}" in text) == (3, True), text
    finally:
        registry.promote(sound.version)


def test_a_baseline_that_breaks_a_rule_too_ends_with_3_and_says_whose_fault_it_is(
    said: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = forecasts(said).drop("run_id")
    impossible = critical_rules({"impossible": ("no forecast", pl.col("point") >= 0)})
    monkeypatch.setattr(pipelines.stages.score, "forecast_rules", lambda spec: impossible)
    status, text = said.run("score", "--date", AS_OF)
    assert status == 3
    assert "forecasts broke their own rules, by no fault of the data, nothing was published:" in text
    assert "data error" not in text
    assert f"marts.forecast_daily ds={AS_OF} scenario=feed: impossible: found " in text
    assert forecasts(said).drop("run_id").equals(before)


def test_a_cell_that_the_model_loses_is_served_by_the_baseline_and_no_other(said: Deployment, tmp_path: Path) -> None:
    registry, before = Registry(said.config), said.toml.read_text()
    sound = registry.get(CHAMPION)
    assert sound is not None
    # What other tests did with the alias is over.
    assert said.run("promote", "--to", sound.version, "--reason", "a test", spark=False)[0] == 0
    stored = json.loads((sound.folder / "config.json").read_text())
    levels, blend = stored["levels"], stored["blend"]
    spend, days = levels["cells"]["pooled_MK"]
    # In feed it says of spend what is hardly ever exceeded.
    levels["cells"]["scenarios"]["feed"] = [[[0.99] * len(level_G) for level_G in spend], [None] * len(days)]
    blend["scenarios"]["feed"] = [{"anchor": "mean_28", "network": 1.0}, blend["tasks"][1]]
    bad = registered(said, tmp_path, levels=levels, blend=blend)
    said.edit("[gate]", "[gate]\ncell_rows = 20")
    try:
        assert said.run("score", "--date", AS_OF)[0] == 0
        by_sound = forecasts(said)
        assert said.run("backtest", "--date", AS_OF)[0] == 0
        status, text = said.run("promote", "--date", AS_OF, spark=False)
        assert status == 0, text
        cells = said.rows("ops.serving_cell").filter("falls_back", model_version=bad.version)
        assert [*cells.select("scenario_id", "task").iter_rows()][-1] == ("feed", "spend")
        assert said.rows("ops.serving_cell").filter(model_version=sound.version).height == 6
        assert set(said.rows("marts.backtest_pair")["forecaster"]) == {CHALLENGER, CHAMPION}
        served_by_doubt(said, sound.version)
        registry.promote(bad.version)
        for stage in ("score", "explain", "replay"):
            status, text = said.run(stage, "--date", AS_OF)
            assert status == 0, text
    finally:
        registry.promote(sound.version)
        said.toml.write_text(before)
    rows, here = forecasts(said), (pl.col("scenario_id") == "feed") & (pl.col("task") == "spend")
    fallen = rows.filter(here)
    assert set(fallen["method"]) == {f"baseline:{cells['baseline'][-1]}"}
    assert set(fallen["reason"]) == {cells["reason"][-1]}
    assert cells["reason"].str.contains(f"^cell: loses to .* in the backtest of {AS_OF}, ratio ").all()
    elsewhere = rows.filter(scenario_id="search").drop("run_id", "model_version")
    assert elsewhere.equals(by_sound.filter(scenario_id="search").drop("run_id", "model_version"))
    assert elsewhere["reason"].str.starts_with("champion").all()
    total = said.rows("marts.forecast_total").filter(ds=AS_OF, value="feed", task="spend")
    assert total["mean"].item() == pytest.approx(fallen["mean"].sum())
    risk = said.rows("marts.churn_risk").filter(ds=AS_OF, scenario_id="feed")
    assert risk["value_at_risk"].sum() == pytest.approx((risk["probability"] * fallen["mean"]).sum())
    words = said.rows("marts.forecast_reason").filter(ds=AS_OF, scenario_id="feed", task="spend")["words"]
    assert words.is_empty() or words.str.contains("mean|last|weekday|day").all()


def served_by_doubt(said: Deployment, version: str) -> None:
    """The champion's forecasts drift in a cell where it does not surely win, a baseline serves there; and when it is
    over, the champion does."""
    scenario, task = "search", "spend"
    here = (pl.col("scenario_id") == scenario) & (pl.col("task") == task)

    def written(table: str, rows: pl.DataFrame, run_id: str) -> None:
        files = said.warehouse.write_rows(table, rows.select(said.warehouse.arrow_schema(table).names), run_id)
        said.warehouse.commit(table, [AS_OF], files, {"run-id": run_id})

    pairs = said.rows("marts.backtest_pair").filter(ds=AS_OF)
    may_lose = pl.when(here, forecaster=CHAMPION).then(1.1).otherwise("ratio_high")
    written("marts.backtest_pair", pairs.with_columns(ratio_high=may_lose), "pairs")
    for verdict in ("drift", "usual"):
        words = {"signal": f"coverage of {task}", "verdict": verdict, "words": "coverage: 50.0%"}
        row = {"ds": AS_OF, "scenario_id": scenario, **words, "run_id": f"drift-{verdict}"}
        figures = [pl.lit(None, pl.Float64).alias(name) for name in ("found", "usual", "low", "high")]
        written("ops.drift", pl.DataFrame([row]).with_columns(figures), f"drift-{verdict}")
        for stage in ("promote", "score"):
            assert said.run(stage, "--date", AS_OF)[0] == 0
        reasons = set(forecasts(said).filter(here, ~pl.col("method").str.contains("cold_start|silent"))["reason"])
        told = "a baseline serves 1 of the champion's 6 cells" in said.run("incidents", "--date", AS_OF)[1]
        assert told == (verdict == "drift")
        if verdict == "usual":
            assert all(reason.startswith("champion") for reason in reasons)
            return
        (reason,) = reasons
        assert reason.startswith(
            f"cell: its forecasts drifted (coverage: 50.0% on {AS_OF}), and it does not surely win"
        )


@pytest.mark.parametrize(
    ("wrong", "rule", "serves"),
    [("jump", "level_jump", "cells"), ("collapse", "interval_collapse", "cells"), ("both", "level_jump", "all")],
)
def test_a_champion_that_breaks_with_the_day_before_is_not_served(
    said: Deployment,
    day_before: date,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
    rule: str,
    serves: str,
) -> None:
    monkeypatch.setattr(pipelines.kernels.sound, "SERIES", 10)
    monkeypatch.setattr(pipelines.kernels.sound, "WIDTH", 0.01)
    registry = Registry(said.config)
    sound = registry.get(CHAMPION)
    assert sound is not None
    stored = json.loads((sound.folder / "config.json").read_text())
    levels = stored["levels"]
    if wrong == "jump":
        levels["mean_ratio_M"][0] *= 10
    elif wrong == "both":
        levels["mean_ratio_M"] = [ratio / 50 for ratio in levels["mean_ratio_M"]]
    else:
        levels["cells"]["pooled_MK"][0] = [[0.5] * len(level_G) for level_G in levels["cells"]["pooled_MK"][0]]
    wild = registered(said, tmp_path, levels=levels)
    registry.promote(wild.version)
    try:
        status, text = said.run("score", "--date", AS_OF)
        assert status == 0, text
        if serves == "cells":
            replayed = said.run("replay", "--date", AS_OF)
            assert replayed[0] == 0, replayed[1]
    finally:
        registry.promote(sound.version)
    assert text.count("warning: ") == 1
    assert f"marts.forecast_daily ds={AS_OF} scenario=feed: {rule}: found " in text
    assert f"A fault of champion {wild.version} in " in text
    rows, spend = forecasts(said), pl.col("task") == "spend"
    kept = said.rows("ops.validation").filter(check=rule, ds=AS_OF, passed=False)
    assert set(kept["severity"]) == {"warning"}
    assert kept["example"].str.contains(r"^\w+ over 7 days, 12 series: ").all()
    if serves == "all":
        assert set(rows["reason"]) == {f"no champion: {wild.version} broke {rule}"}
        assert rows["model_version"].null_count() == rows.height
    else:
        assert set(rows.filter(spend)["reason"]) == {f"cell: champion {wild.version} broke {rule}"}
        assert rows.filter(spend)["method"].str.starts_with("baseline:").all()
        assert rows.filter(~spend)["reason"].str.starts_with("champion").all()
        assert set(rows["model_version"]) == {wild.version}


def test_the_backtest_names_who_makes_the_points_and_is_judged_by_group(trained: Deployment) -> None:
    assert trained.run("train", "--date", AS_OF, "--from-scratch")[0] == 0
    assert trained.run("backtest", "--date", AS_OF)[0] == 0
    rows = trained.rows("marts.backtest")
    assert rows.filter(pl.col("broken").is_not_null()).is_empty()
    models = rows.filter(pl.col("forecaster").is_in([CHALLENGER, CHAMPION]))
    assert models["method"].str.contains(r"^(m2m|blend:\w+(@0\.\d)?|baseline:\w+)(, |$)").all()
    assert models.filter(scenario_id="*")["method"].str.contains("@").sum() == 0
    assert (
        rows.filter(~pl.col("forecaster").is_in([CHALLENGER, CHAMPION]))["method"].null_count()
        == rows.height - models.height
    )
    groups = trained.rows("marts.backtest_value").filter(pl.col("figure").str.starts_with("group_"))
    mine = groups.filter(forecaster=CHALLENGER, task="spend")
    assert set(mine["scenario_id"]) == {"*"}
    # Every series is active on four of five days: the fifth group, of two sizes.
    assert set(mine["part"]) <= {51, 52, 53}
    assert len(set(mine["part"])) > 1
    overall = rows.filter(pl.col("cutoff").is_null(), forecaster=CHALLENGER, scenario_id="*", task="spend")
    level = mine.filter(figure="group_level_90")
    assert (level["value"] * level["n"]).sum() / level["n"].sum() == pytest.approx(overall["level_90"].item())
    assert level["n"].sum() == overall["n"].item()
    zeros = mine.filter(figure="group_zeros").join(mine.filter(figure="group_zero_points"), on="part")
    assert zeros.height == len(set(mine["part"]))
