"""Lineage both ways on commits that are made up: no Spark, no tables. On real ones: test_chain.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from deployment import SQL, TOML, Deployment, day

from pipelines.config import Config, load_config
from pipelines.sources import origins
from pipelines.sources.origins import Origin
from pipelines.trace.graph import EXPIRED, Commit, Node, Traces, Version
from pipelines.trace.lineage import of_days
from pipelines.warehouse.store import Folder, Store

STAGED, SEQUENCES, FORECASTS = "staged.performance_daily", "features.advertiser_sequence", "marts.forecast_daily"
RISK, JUDGED = "marts.churn_risk", "marts.forecast_quality"
STAGE = {STAGED: "stage_sources", SEQUENCES: "build_sequences", FORECASTS: "score", RISK: "score", JUDGED: "monitor"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "pipeline.toml").write_text(TOML)
    (tmp_path / "performance_daily.sql").write_text(SQL)
    return load_config(tmp_path / "pipeline.toml")


class Story:
    """Commits and versions in the order in which they are told; a snapshot's id is its place in time."""

    def __init__(self, config: Config) -> None:
        self.config, self.commits, self.versions = config, list[Commit](), list[Version]()

    @property
    def _now(self) -> int:
        return len(self.commits) + len(self.versions) + 1

    def commit(self, table: str, *days: int, **inputs: object) -> int:
        """``inputs``: by the last part of a table's name, or ``champion``."""
        names = {name.rpartition(".")[2]: name for name in STAGE} | {"champion": "model.champion"}
        said = {f"m2m.input.{names[name]}": str(value) for name, value in inputs.items()}
        said |= {"m2m.stage": STAGE[table], "m2m.run-id": f"run-{self._now}"}
        self.commits.append(Commit(table, self._now, self._now, tuple(map(day, days)), said))
        return self.commits[-1].snapshot_id

    def train(self, number: str, on: int, sequences: int) -> None:
        said = {f"m2m.input.{SEQUENCES}": str(sequences), "m2m.input.model.champion": "None"}
        self.versions.append(Version(number, f"mlflow-{number}", day(on), self._now, said))

    def a_day(self, number: int, champion: str | None = None) -> int:
        """Staged, sequences, forecasts; returns the snapshot of the sequences."""
        staged = self.commit(STAGED, number)
        sequences = self.commit(SEQUENCES, number, performance_daily=staged)
        self.commit(FORECASTS, number, advertiser_sequence=sequences, champion=champion)
        return sequences

    @property
    def traces(self) -> Traces:
        return Traces(self.config, self.commits, self.versions)

    def wrong(self, *days: int) -> set[tuple[str, int, date]]:
        """The first staging of some days."""
        first = {c.days[0]: c for c in reversed(self.commits) if c.table == STAGED}
        return {(STAGED, first[day(n)].snapshot_id, day(n)) for n in days}


@pytest.fixture
def story(config: Config) -> Story:
    """Ten days; version 1 trained on day 3, version 2 on day 7, which serves day 8 and 9."""
    told = Story(config)
    for number in range(10):
        sequences = told.a_day(number, "2" if number > 7 else "1" if number > 3 else None)
        if number in (3, 7):
            told.train("1" if number == 3 else "2", number, sequences)
    return told


def test_a_bad_day_is_followed_to_all_that_was_made_from_it(story: Story) -> None:
    reached = story.traces.forward(story.wrong(5))
    later = [day(n) for n in range(5, 10)]
    assert reached.now == {STAGED: [day(5)], SEQUENCES: later, FORECASTS: later}
    assert [version.number for version in reached.versions] == ["2"]
    assert (reached.mended, reached.unknown) == ({}, {})


def test_what_was_made_again_without_it_is_no_longer_reached(story: Story) -> None:
    staged = story.commit(STAGED, 5)  # the right file
    sequences = story.commit(SEQUENCES, 9, performance_daily=staged)
    story.commit(FORECASTS, 9, advertiser_sequence=sequences, champion="1")
    reached = story.traces.forward(story.wrong(5))
    assert reached.now[FORECASTS] == [day(n) for n in range(5, 9)]
    assert reached.mended == {STAGED: [day(5)], SEQUENCES: [day(9)], FORECASTS: [day(9)]}


def test_a_version_that_learnt_from_it_carries_it_on_whatever_it_reads(story: Story) -> None:
    staged = story.commit(STAGED, 5)
    sequences = story.commit(SEQUENCES, 9, performance_daily=staged)
    story.commit(FORECASTS, 9, advertiser_sequence=sequences, champion="2")
    reached = story.traces.forward(story.wrong(5))
    assert day(9) in reached.now[FORECASTS]
    assert day(9) not in reached.now[SEQUENCES]


def test_a_day_leaves_the_history_in_the_end(config: Config) -> None:
    story = Story(config)
    for number in range(75):
        story.a_day(number)
    reached = story.traces.forward(story.wrong(5))
    assert reached.now[FORECASTS] == [day(n) for n in range(5, 65)]  # keep_days = 60


def test_forecasts_scored_again_are_not_what_they_were_before(story: Story) -> None:
    """`score` records the forecasts that it found: it reads none of them for its own new ones."""
    before = next(c for c in story.commits if c.table == FORECASTS and c.days == (day(5),)).snapshot_id
    staged = story.commit(STAGED, 5)
    sequences = story.commit(SEQUENCES, 5, performance_daily=staged)
    again = story.commit(FORECASTS, 5, advertiser_sequence=sequences, champion="1", forecast_daily=before)
    story.commit(RISK, 5, advertiser_sequence=sequences, champion="1", forecast_daily=again)
    reached = story.traces.forward(story.wrong(5))
    assert day(5) not in reached.now[FORECASTS]
    assert RISK not in reached.now
    assert reached.mended[FORECASTS] == [day(5)]


def test_who_may_leave_is_told_from_the_forecasts_of_the_day_alone(story: Story) -> None:
    """`score` looks at those of the day before, too: a jump from them is not published."""
    forecasts = max(c.snapshot_id for c in story.commits if c.table == FORECASTS)
    story.commit(RISK, 9, champion="1", forecast_daily=forecasts)
    bad = next(c for c in story.commits if c.table == FORECASTS and c.days == (day(8),))
    assert story.traces.forward({(FORECASTS, bad.snapshot_id, day(8))}).now == {FORECASTS: [day(8)]}


def test_what_happened_later_judges_forecasts_and_is_followed_too(story: Story) -> None:
    staged = max(c.snapshot_id for c in story.commits if c.table == STAGED)
    forecasts = max(c.snapshot_id for c in story.commits if c.table == FORECASTS)
    story.commit(JUDGED, 2, performance_daily=staged, forecast_daily=forecasts)  # over days 3 to 9
    story.commit(JUDGED, 0, performance_daily=staged, forecast_daily=forecasts)  # over days 1 to 7
    assert story.traces.forward(story.wrong(9)).now[JUDGED] == [day(2)]
    assert story.traces.forward(story.wrong(1)).now[JUDGED] == [day(0), day(2)]


def test_clocks_that_differ_hide_nothing(story: Story) -> None:
    """The machine that staged was an hour ahead."""
    story.commits = [
        Commit(c.table, c.snapshot_id, c.at_ms + 10**6, c.days, c.said) if c.table == STAGED else c
        for c in story.commits
    ]
    assert story.traces.forward(story.wrong(5)).now[FORECASTS] == [day(n) for n in range(5, 10)]


def test_what_has_expired_is_said_to_be_unknown(story: Story) -> None:
    wrong = story.wrong(4)
    gone = {c.snapshot_id for c in story.commits if c.table == SEQUENCES and c.days[0] in (day(4), day(6))}
    kept = [commit for commit in story.commits if commit.snapshot_id not in gone]
    traces = Traces(story.config, kept, story.versions, {SEQUENCES: [day(n) for n in range(10)]})
    assert traces.forward(wrong).unknown == {SEQUENCES: [day(4), day(6)], FORECASTS: [day(4), day(6)]}
    tree = traces.back(FORECASTS, day(4))
    assert "expired" in tree.made_from[0].lost
    assert traces.forward(wrong).unknown_versions == []


def test_a_day_whose_commit_has_expired_is_followed_from_what_read_it(story: Story) -> None:
    gone = {c.snapshot_id for c in story.commits if c.table == STAGED and c.days[0] < day(5)}
    kept = [commit for commit in story.commits if commit.snapshot_id not in gone]
    days = {STAGED: [day(n) for n in range(10)]}
    reached = Traces(story.config, kept, story.versions, days).forward({(STAGED, EXPIRED, day(2))})
    assert reached.now[STAGED] == [day(2)]
    assert reached.now[SEQUENCES] == [day(n) for n in range(5, 10)]
    assert reached.unknown[SEQUENCES] == [day(n) for n in range(2, 5)]


def _of(node: Node, table: str) -> list[Node]:
    return [child for child in node.made_from if child.part and child.part.table == table]


def test_a_forecast_leads_back_to_staged_days_and_to_what_its_model_learnt_from(story: Story) -> None:
    tree = story.traces.back(FORECASTS, day(9))
    (sequences,) = _of(tree, SEQUENCES)
    assert sequences.part
    assert sequences.part.days == (day(9),)
    assert [child.part.days for child in _of(sequences, STAGED) if child.part] == [(day(n),) for n in range(10)]
    (model,) = [child for child in tree.made_from if child.version]
    assert model.version
    assert model.version.number == "2"
    (learnt,) = _of(model, SEQUENCES)
    assert learnt.part
    assert learnt.part.days == (day(7),)
    assert all(child.again for child in _of(learnt, STAGED))  # told already
    assert len(_of(learnt, STAGED)) == 8


def test_days_that_one_commit_wrote_stand_together(config: Config) -> None:
    story = Story(config)
    story.commit(STAGED, 0, 1, 2, 3)
    staged = story.commit(STAGED, 2)
    story.commit(SEQUENCES, 3, performance_daily=staged)
    parts = [child.part for child in story.traces.back(SEQUENCES, day(3)).made_from]
    assert [part.days for part in parts if part] == [(day(0), day(1), day(3)), (day(2),)]


def test_a_model_version_that_nobody_knows_is_said(story: Story) -> None:
    sequences = story.a_day(10)
    story.commit(FORECASTS, 10, advertiser_sequence=sequences, champion="77")
    assert story.traces.back(FORECASTS, day(10)).made_from[-1].lost == "model version 77: not in the registry"


def test_a_file_stands_for_the_day_that_its_path_names() -> None:
    run = Commit(STAGED, 1, 1, (day(1), day(2)))
    files = [Origin("raw", f"raw/{n}", ds, 1, "") for n, ds in enumerate((day(1), day(2), None, day(0)))]
    assert [origin.path for origin in of_days(files, run, [day(2)])] == ["raw/1", "raw/2", "raw/3"]


def test_the_list_of_a_run_is_beside_its_data_whatever_its_length(tmp_path: Path) -> None:
    folder, many = Folder(str(tmp_path / "table" / "data" / "run=r"), Store()), 10_000
    said = origins.kept(folder, [_view(tmp_path, [f"raw/part-{n}" for n in range(many)])])  # type: ignore[list-item]
    assert len(said[origins.SOURCES]) < 200
    commit = {f"m2m.{key}": value for key, value in said.items()} | {"m2m.run-id": "r"}
    path = origins.list_path(commit, str(tmp_path / "table"))
    assert path
    assert len(origins.read_list(Store(), path)) == many
    again = origins.kept(folder, [_view(tmp_path, [f"raw/part-{n}" for n in reversed(range(many))])])  # type: ignore[list-item]
    assert again == said
    other = origins.kept(folder, [_view(tmp_path, [f"raw/part-{n}" for n in range(many)], size=2)])  # type: ignore[list-item]
    assert other != said


class _view:  # noqa: N801 - stands for a View, which needs Spark
    def __init__(self, folder: Path, paths: list[str], size: int = 1) -> None:
        from pipelines.source_config import Source
        from pipelines.sources.files import RawFile
        from pipelines.toml_tables import Text

        self.source = Source("raw", "parquet", Text("raw"), columns={"a": "string"})
        self.files = tuple(RawFile(f"{folder}/{path}", path, None, size, (), str(folder), 0.0) for path in paths)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("select * from raw", ["raw"]),
        ("select * from raw_day join RAW", ["raw", "raw_day"]),
        ("select 1 -- raw\n from raw_day /* raw */", ["raw_day"]),
    ],
)
def test_a_table_is_made_from_the_sources_that_its_query_names(query: str, found: list[str], tmp_path: Path) -> None:
    views = [_view(tmp_path, []), _view(tmp_path, [])]
    object.__setattr__(views[1].source, "name", "raw_day")
    assert [view.source.name for view in origins.named(query, views)] == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a table and --date, or --source"),
        (["marts.forecast"], 'unknown table "marts.forecast"'),
        (["ops.validation", "--date", "2024-01-02"], "unknown table"),
        (["marts.forecast_daily"], "of which day?"),
        (["marts.forecast_daily", "--date", "2024-01-02", "--source", "x"], "give a table and --date, or --source"),
        (["--source", "x", "--advertiser", "adv1"], "--advertiser"),
        (["marts.forecast_daily", "--date", "2024-01-02", "--run", "r"], "--run: give --source too"),
        (["marts.forecast_daily", "--date", "2024-01-02", "--scenario", "feed"], "give --advertiser too"),
        (["marts.forecast_daily", "--date", "2024-01-02"], "nothing was ever staged"),
    ],
)
def test_wrong_use_says_what_to_write(
    config: Config,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("M2M_HOME", str(config.path.parent / "home"))

    def told() -> str:
        out, err = capsys.readouterr()
        return out + err

    capture: Callable[[], str] = told
    status, text = Deployment(config.path.parent, capture).run("lineage", *arguments, spark=False)
    assert status == 2
    assert words in text
