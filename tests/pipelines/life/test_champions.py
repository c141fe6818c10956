"""Moves of the champion: one of two promoters wins, ledger and aliases agree, and what was moved outside is told."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment

import pipelines
from pipelines.chain import CHAMPION, PREVIOUS
from pipelines.cli import Run
from pipelines.life import champions
from pipelines.life.champions import (
    BY_HAND,
    TABLE,
    Ledger,
    LostRaceError,
    aliases,
    follow,
    looked_at,
    outside,
    settled,
    write_line,
)
from pipelines.life.registry import Registry
from pipelines.stages.maintain import pinned_by_models
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads


class Promoter:
    """One of several, with connections of its own."""

    def __init__(self, deployment: Deployment, name: str) -> None:
        self.run = Run(name, "promote", deployment.config, FIRST_DAY, FIRST_DAY)
        self.warehouse, self.registry = Warehouse(deployment.config), Registry(deployment.config)
        self.reads = Reads("promote", self.warehouse)

    def settled(self) -> Ledger:
        return settled(self.run, self.warehouse, self.registry, self.reads)

    def write(self, version: str, ledger: Ledger | None, **line: Any) -> None:
        moved = {"challenger": version, "promoted": True, "reason": "better"} | line
        if ledger:
            moved["champion"] = ledger.champion
        write_line(self.run, self.warehouse, self.reads, moved, ledger)

    def move(self, version: str, ledger: Ledger) -> None:
        self.write(version, ledger)
        follow(self.warehouse, self.registry)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow for all tests here: to make its database takes longer than all that they do."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def promoter(deployment: Deployment, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Promoter]:
    """Promoters of a model with five versions, whose files nobody opens here."""
    monkeypatch.setenv("M2M_HOME", str(home))
    deployment.edit('name = "tiny"', f'name = "tiny{len(list(home.iterdir()))}"')
    registry = Registry(deployment.config)
    registry.client.create_registered_model(registry.name)
    for _ in range(5):
        registry.client.create_model_version(registry.name, "file:///nowhere")
    return lambda name: Promoter(deployment, name)


def test_of_two_promoters_at_once_exactly_one_wins(deployment: Deployment, promoter: Callable[[str], Promoter]) -> None:
    promoter("first").move("1", promoter("first").settled())
    both, told = threading.Barrier(2), dict[str, str]()

    def promote(version: str) -> None:
        own = promoter(f"run-{version}")
        ledger = own.settled()
        both.wait()  # both have decided by the same ledger
        try:
            own.move(version, ledger)
            told[version] = "won"
        except LostRaceError as error:
            told[version] = str(error)

    threads = [threading.Thread(target=promote, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (winner,) = (version for version, words in told.items() if words == "won")
    (loser,) = {"2", "3"} - {winner}
    assert f"version {winner} was promoted first, at " in told[loser]
    assert f"by the gate (run run-{winner}), so version {loser} was not" in told[loser]
    assert f"python -m pipelines.promote --to {loser} --reason TEXT" in told[loser]
    moves = deployment.rows(TABLE).filter("promoted").sort("decided_at").select("champion", "challenger").rows()
    assert moves == [(None, "1"), ("1", winner)]
    assert aliases(deployment.config) == {CHAMPION: winner, PREVIOUS: "1"} == Registry(deployment.config).aliases()


def test_a_line_that_moves_nothing_is_no_rival(deployment: Deployment, promoter: Callable[[str], Promoter]) -> None:
    one, other = promoter("one"), promoter("other")
    ledger = one.settled()
    other.write("2", None, promoted=False)
    one.move("1", ledger)
    assert deployment.rows(TABLE)["challenger"].sort().to_list() == ["1", "2"]
    assert aliases(deployment.config) == {CHAMPION: "1"}


def test_who_is_overtaken_sets_the_aliases_to_what_is_right_by_then(
    deployment: Deployment, promoter: Callable[[str], Promoter], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = promoter("slow"), promoter("fast")
    slow.move("1", slow.settled())
    promote = Registry.promote

    def stopped(registry: Registry, *to: Any) -> None:
        monkeypatch.setattr(Registry, "promote", promote)
        fast.move("3", Ledger.read(fast.warehouse))
        promote(registry, *to)  # what was right before

    monkeypatch.setattr(Registry, "promote", stopped)
    slow.move("2", Ledger.read(slow.warehouse))
    assert aliases(deployment.config) == {CHAMPION: "3", PREVIOUS: "2"}


def test_a_promotion_killed_before_its_alias_is_ended_by_the_next_run(
    deployment: Deployment, promoter: Callable[[str], Promoter]
) -> None:
    promoter("first").move("1", Ledger.read(deployment.warehouse))
    one = promoter("one")
    one.write("2", Ledger.read(one.warehouse))  # and no alias
    assert outside(Ledger.read(one.warehouse), aliases(deployment.config))
    settled(one.run, one.warehouse, one.registry, one.reads, dry_run=True)
    assert aliases(deployment.config) == {CHAMPION: "1"}
    assert promoter("next").settled().champion == "2"
    assert aliases(deployment.config) == {CHAMPION: "2", PREVIOUS: "1"}
    assert deployment.rows(TABLE).height == 2


def test_an_alias_moved_outside_is_told_and_gets_its_line(
    deployment: Deployment, promoter: Callable[[str], Promoter]
) -> None:
    one = promoter("one")
    for version in ("1", "2"):
        one.move(version, Ledger.read(one.warehouse))
    one.registry.promote("1")  # back, as a killed promotion would leave it, but this one was not killed
    (words,) = outside(Ledger.read(one.warehouse), aliases(deployment.config))
    assert words.startswith("alias champion names version 1, ops.promotion tells version 2 since 20")
    assert promoter("next").settled().champion == "1"
    last = deployment.rows(TABLE).sort("decided_at").row(-1, named=True)
    assert (last["champion"], last["challenger"], last["decided_by"]) == ("2", "1", "outside the ledger")
    assert aliases(deployment.config) == {CHAMPION: "1", PREVIOUS: "2"}
    one.registry.client.set_registered_model_alias(one.registry.name, PREVIOUS, "4")
    assert outside(Ledger.read(one.warehouse), aliases(deployment.config)) == [
        "alias previous names version 4, ops.promotion tells 2; the next promote sets it"
    ]
    assert promoter("third").settled().previous == "2"
    assert aliases(deployment.config) == {CHAMPION: "1", PREVIOUS: "2"}


@pytest.mark.parametrize("lost", [{0}, {1}, {2}, {3}, {2, 3}, {0, 1, 2}, {0, 1, 2, 3}])
def test_aliases_follow_a_ledger_that_has_lost_lines(
    deployment: Deployment, promoter: Callable[[str], Promoter], lost: set[int]
) -> None:
    one, files = promoter("one"), list[Path]()
    for version in ("1", "2", "1", "3"):
        known = {file.path for file in one.warehouse.files(TABLE)} if files else set()
        one.move(version, Ledger.read(one.warehouse))
        files += [Path(file.path) for file in one.warehouse.files(TABLE) if file.path not in known]
    for number in lost:
        files[number].unlink()
    assert deployment.run("maintain", "--restore", TABLE, spark=False)[0] == 0
    next_ = promoter("next")
    assert next_.settled().champion == "3"
    assert outside(Ledger.read(next_.warehouse), aliases(deployment.config)) == []


def test_a_promotion_that_is_under_way_is_no_alias_moved_outside(
    deployment: Deployment, promoter: Callable[[str], Promoter], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = promoter("one"), promoter("other")
    one.move("1", Ledger.read(one.warehouse))
    one.write("2", Ledger.read(one.warehouse))
    assert outside(Ledger.read(one.warehouse), aliases(deployment.config))
    waited = list[float]()

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            follow(one.warehouse, one.registry)

    monkeypatch.setattr(champions, "time", SimpleNamespace(sleep=meanwhile))
    ledger, named = looked_at(deployment.config, other.warehouse)
    assert (ledger.champion, named[CHAMPION], len(waited)) == ("2", "2", 2)
    one.registry.promote("3")
    assert outside(*looked_at(deployment.config, other.warehouse))
    assert 1 < sum(waited) < 5


def test_status_and_incidents_tell_of_an_alias_that_was_moved_outside(
    deployment: Deployment, promoter: Callable[[str], Promoter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champions, "_UNDER_WAY_S", 0)
    one = promoter("one")
    for version in ("1", "2"):
        one.move(version, Ledger.read(one.warehouse))
    assert "alias" not in deployment.run("status", "--date", FIRST_DAY, spark=False)[1]
    one.registry.promote("3")
    status, text = deployment.run("status", "--date", FIRST_DAY, spark=False)
    assert status == 4
    told = text[text.index("  alias champion names version 3, ops.promotion tells version 2 since ") :].splitlines()
    assert told[1] == "to mend the alias, with your reason, one of:"
    command = f"  python -m pipelines.promote --config {deployment.toml} --reason TEXT --to"
    assert told[2:4] == [f"{command} 2", f"{command} 3"]
    text = deployment.run("incidents", "--date", FIRST_DAY, spark=False)[1]
    assert "an alias of the model was moved outside the ledger; since 2024-01-01" in text
    assert "  what to do: docs/operations.md#roll-back" in text
    database = Path(f"{os.environ['M2M_HOME']}/mlflow.db")
    database.rename(away := database.with_suffix(".away"))
    database.write_text("no database")
    try:
        text = deployment.run("status", "--date", FIRST_DAY, spark=False)[1]
        assert "  aliases: MLflow cannot be asked, so nobody looked: (sqlite3.DatabaseError) file is not a" in text
    finally:
        away.replace(database)


def test_moves_stand_in_the_order_of_commits_whatever_the_clocks_say(
    deployment: Deployment, promoter: Callable[[str], Promoter], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, right = promoter("ahead"), promoter("right")

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=1)

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.life.champions.datetime", Later)
        ahead.move("1", ahead.settled())
    right.move("2", Ledger.read(right.warehouse))
    assert Ledger.read(right.warehouse).champion == "2"
    assert aliases(deployment.config) == {CHAMPION: "2", PREVIOUS: "1"}


def test_a_version_that_was_deleted_is_no_previous_one(
    deployment: Deployment, promoter: Callable[[str], Promoter]
) -> None:
    one = promoter("one")
    one.move("1", one.settled())
    one.registry.client.delete_model_version(one.registry.name, "1")  # and its aliases with it
    one.move("2", Ledger.read(one.warehouse))
    assert aliases(deployment.config) == {CHAMPION: "2"}
    assert outside(Ledger.read(one.warehouse), aliases(deployment.config)) == []


def test_what_an_alias_names_is_kept(promoter: Callable[[str], Promoter]) -> None:
    registry = promoter("one").registry
    client = registry.client
    for number, alias in enumerate((CHAMPION, PREVIOUS, "of_our_own", ""), start=1):
        run = client.create_run(registry.experiment_id(), tags={"m2m.input.features.advertiser_sequence": str(number)})
        version = client.create_model_version(registry.name, "file:///nowhere", run.info.run_id).version
        if alias:
            client.set_registered_model_alias(registry.name, alias, version)
    assert pinned_by_models(registry) == {"features.advertiser_sequence": {1, 2, 3}}
    deletes = re.compile(r"delete_(model_version|registered_model|run|experiment)\b|mlflow gc")
    sources = Path(pipelines.__file__).parent.rglob("*.py")
    assert [source.name for source in sources if deletes.search(source.read_text())] == []


def ledger(*moves: dict[str, Any]) -> Ledger:
    return Ledger(None, pl.DataFrame(list(moves)))  # type: ignore[arg-type]


def test_who_was_chosen_by_hand_stays_until_something_newer_passes() -> None:
    chosen = datetime(2024, 3, 1, 12)  # noqa: DTZ001
    by_hand = {"challenger": "1", "decided_at": chosen, "reason": f"{BY_HAND}ann on host: search doubled"}
    kept = ledger(by_hand).kept_by_hand(chosen - timedelta(minutes=1))
    assert kept.startswith(
        "champion 1 was chosen by hand, ann on host: search doubled (at 2024-03-01 12:00 UTC, and this"
    )
    assert ledger(by_hand).kept_by_hand(chosen + timedelta(minutes=1)) == ""
    gated = {"challenger": "2", "decided_at": chosen, "reason": "better"}
    assert ledger(by_hand, gated).kept_by_hand(chosen - timedelta(minutes=1)) == ""
