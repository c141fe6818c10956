"""The soak: ten days of it pass their audit, and each of the audit's checks finds what is planted for it."""

from __future__ import annotations

import fcntl
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyspark.sql import SparkSession

from benchmarks import soak_audit as audit
from benchmarks import soak_page
from benchmarks.soak import Soak
from benchmarks.soak_world import AMOUNTS, FILLED_AFTER, LATE_BY, MENDED_AFTER, World

DAY = date(2024, 3, 1)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC).replace(tzinfo=None)
TARGETS = pl.DataFrame({"task": ["spend"], "horizon_days": [7]}, {"task": pl.String, "horizon_days": pl.Int32})


def series(*names: str, ds: date = DAY) -> pl.DataFrame:
    rows = [(ds, name, "feed") for name in names]
    return pl.DataFrame(rows, {"ds": pl.Date, "advertiser_id": pl.String, "scenario_id": pl.String}, orient="row")


def test_a_row_that_is_lost_doubled_made_up_or_changed_is_found() -> None:
    truth = series("a", "b", "c").with_columns(spend=pl.Series([1.0, 2.0, 3.0]))
    assert audit.rows_wrong(truth.reverse(), truth, ["spend"]) == []
    staged = pl.concat([truth.head(1), truth.head(2), series("d").with_columns(spend=4.0)])
    staged = staged.with_columns(spend=pl.when(pl.col("advertiser_id") == "b").then(2.5).otherwise("spend"))
    assert audit.rows_wrong(staged, truth, ["spend"]) == [
        "1 rows lost, such as 2024-03-01 c feed",
        "1 rows of no source, such as 2024-03-01 d feed",
        "1 rows doubled, such as 2024-03-01 a feed",
        "1 rows with other figures, such as 2024-03-01 b feed",
    ]


def test_a_repeated_key_is_found() -> None:
    assert audit.keys_repeated(series("a", "b"), audit.SERIES) == []
    assert audit.keys_repeated(series("a", "b", "a"), ["advertiser_id"]) == ["1 keys repeated, such as a"]


def test_a_forecast_that_is_missing_doubled_or_of_nobody_is_found() -> None:
    known = series("a", "b")
    made = known.join(TARGETS, how="cross")
    assert audit.forecasts_wrong(made, known, known, TARGETS, [DAY]) == []
    following = DAY + timedelta(days=1)
    wrong = pl.concat([made.head(1), made.head(1), series("c").join(TARGETS, how="cross")])
    assert audit.forecasts_wrong(wrong, known, series("a", "d"), TARGETS, [DAY, following]) == [
        "1 days without forecasts, such as 2024-03-02",
        "1 active series unknown, such as 2024-03-01 d feed",
        "1 forecasts missing, such as 2024-03-01 b feed spend 7",
        "1 forecasts of nobody, such as 2024-03-01 c feed spend 7",
        "1 forecasts doubled, such as 2024-03-01 a feed spend 7",
    ]


def ledger(*lines: tuple[str, str | None, bool, str]) -> pl.DataFrame:
    """An hour between lines of challenger, champion before, promoted, reason."""
    names = ("challenger", "champion", "promoted", "reason")
    columns: dict[str, Any] = {name: [line[at] for line in lines] for at, name in enumerate(names)}
    columns |= {"decided_by": [line[3] for line in lines]}
    columns |= {"decided_at": [NOON + timedelta(hours=n) for n in range(len(lines))], "dry_run": [False] * len(lines)}
    return pl.DataFrame(
        columns | {"run_id": [f"run {n}" for n in range(len(lines))]}, schema_overrides={"champion": pl.String}
    )


def by(*versions: str | None, reason: str | None = None) -> pl.DataFrame:
    """Forecasts committed half an hour after each line."""
    return pl.DataFrame(
        {
            "ds": [DAY + timedelta(days=n) for n in range(len(versions))],
            "model_version": versions,
            "reason": reason,
            "committed_at": [NOON + timedelta(hours=n, minutes=30) for n in range(len(versions))],
        }
    )


@pytest.mark.parametrize(
    ("lines", "versions", "alias", "words"),
    [
        ([("1", None, True, "NMAE"), ("2", "1", False, "NMAE"), ("3", "1", True, "NMAE")], ["1", "1", "3"], "3", ""),
        ([("1", None, True, "NMAE"), ("2", "1", False, "NMAE")], ["1", "2"], "1", "by version 2; by the ledger 1"),
        ([("1", None, True, "NMAE")], [None], "1", "by version None; by the ledger 1"),
        ([("1", None, True, "NMAE")], ["1"], "2", "calls version 2 champion, the ledger 1"),
        ([("1", None, True, "NMAE"), ("3", "2", True, "NMAE")], ["1", "3"], "3", "follows 2, but 1 was champion"),
        ([("1", None, True, " ")], ["1"], "1", "nobody says why version 1"),
        ([("1", None, True, "outside the ledger")], ["1"], "1", "nobody says why version 1"),
    ],
)  # fmt: skip
def test_a_champion_that_the_ledger_does_not_explain_is_found(
    lines: list[tuple[str, str | None, bool, str]], versions: list[str | None], alias: str, words: str
) -> None:
    found = audit.champions_unexplained(by(*versions), ledger(*lines), alias)
    assert words in "; ".join(found)
    assert bool(found) is bool(words)


def test_a_champion_that_could_not_serve_is_explained_by_its_rows() -> None:
    lines = ledger(("1", None, True, "NMAE"))
    assert audit.champions_unexplained(by(None, reason="no champion: its files are gone"), lines, "1") == []
    assert audit.champions_unexplained(by("2", reason="champion 2"), lines, "1") != []


REFUSED = ("2", "1", False, "NMAE 0.9 is 3 of champion's")
TAKEN = ("2", "1", True, "by hand, me on host: by mistake")


@pytest.mark.parametrize(
    ("lines", "verdict", "words"),
    [
        ([REFUSED, TAKEN, ("3", "2", True, "NMAE")], "failed", ""),
        ([("2", "1", True, "NMAE"), TAKEN, ("3", "2", True, "NMAE")], "failed", "refused 0 of 1 times"),
        ([TAKEN, ("3", "2", True, "NMAE")], "failed", "refused 0 of 0 times"),
        ([REFUSED], "passed", "no cell or no words"),
        ([("2", "1", False, "no")], "failed", "no cell or no words"),
        ([REFUSED, TAKEN, ("3", "2", False, "NMAE"), ("4", "2", True, "NMAE")], "failed", "no better one was promoted"),
        ([REFUSED, TAKEN], "failed", "no better one was promoted"),
        ([REFUSED, TAKEN, ("2", "2", False, "NMAE"), ("3", "2", True, "NMAE")], "failed", ""),
    ],
)
def test_a_worse_version_that_gets_in_and_a_better_one_that_does_not_are_found(
    lines: list[tuple[str, str | None, bool, str]], verdict: str, words: str
) -> None:
    cells = pl.DataFrame({"run_id": ["run 0"], "verdict": [verdict]})
    found = audit.planted_wrong(ledger(*lines), cells, ["2"])
    assert words in "; ".join(found)
    assert bool(found) is bool(words)


def test_a_move_by_hand_that_the_gate_undoes_is_found() -> None:
    first, back = ("2", "1", True, "NMAE"), ("1", "2", True, "by hand, me on host: its figures were better")
    assert audit.undone(ledger(first, back, ("3", "1", True, "NMAE"))) == []
    assert audit.undone(ledger(first, back, ("2", "1", True, "by hand, me on host: again"))) == []
    assert audit.undone(ledger(first, back, ("2", "1", True, "NMAE"))) == [
        "version 1 in place of 2 by hand; then the gate took 2"
    ]


def validation(*results: tuple[date, str, bool]) -> pl.DataFrame:
    rows = pl.DataFrame(results, ["ds", "run_id", "passed"], orient="row")
    return rows.with_columns(table=pl.lit("staged"), severity=pl.lit("critical"))


def test_a_bad_day_that_nobody_refused_and_a_good_one_that_somebody_did_are_found() -> None:
    following = DAY + timedelta(days=1)
    refused, mended = (DAY, "1", False), (DAY, "2", True)
    assert audit.bad_days_unseen(validation(refused, (DAY, "1", True), mended), [DAY], "staged") == []
    assert audit.bad_days_unseen(validation(mended), [DAY], "staged") == ["2024-03-01: no check failed"]
    assert audit.bad_days_unseen(validation(refused), [DAY], "staged") == ["2024-03-01: no run of it passed"]
    other = validation(refused, mended, (following, "3", False), (following, "4", True))
    assert audit.bad_days_unseen(other, [DAY], "staged") == ["2024-03-02: refused, and nothing was wrong with it"]


def test_a_day_that_is_judged_twice_never_or_too_early_is_found() -> None:
    days = [DAY + timedelta(days=n) for n in range(3)]
    good = pl.DataFrame({"ds": days[:2], "method": "*", "scenario_id": "*"}).join(TARGETS, how="cross")
    good = good.with_columns(matured_on=pl.col("ds") + pl.duration(days=7))
    last = days[1] + timedelta(days=10)
    assert audit.judged_wrong(good, TARGETS, days, last, 10) == []
    late = good.head(1).with_columns(ds=pl.lit(days[2]), matured_on=pl.lit(days[2]))
    assert audit.judged_wrong(pl.concat([good.head(1), good.head(1), late]), TARGETS, days, last, 10) == [
        "1 matured forecasts not judged, such as 2024-03-02 spend 7",
        "1 forecasts judged before they matured, such as 2024-03-03 spend 7",
        "1 forecasts judged more than once, such as 2024-03-01 spend 7",
        "1 forecasts judged over other days, such as 2024-03-03 spend 7",
    ]


def test_what_a_dead_run_leaves_is_found(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "training").mkdir()
    with (tmp_path / "locks" / "one.lock").open("w") as lock:
        assert audit.left_behind(tmp_path, {"r": "FINISHED", "s": "KILLED"}) == []
        fcntl.flock(lock, fcntl.LOCK_EX)
        (tmp_path / "training" / "2024-03-01-abc").mkdir()
        (tmp_path / "training" / "2024-03-01-abc" / "claim").touch()
        (tmp_path / "model.partial").mkdir()
        assert audit.left_behind(tmp_path, {"r": "RUNNING"}) == [
            "MLflow run r is RUNNING",
            f"{tmp_path / 'locks/one.lock'} is held",
            f"{tmp_path / 'training/2024-03-01-abc'} is left",
            f"{tmp_path / 'model.partial'} is left",
            f"{tmp_path / 'training/2024-03-01-abc/claim'} is left",
        ]


@pytest.mark.parametrize("days", [3, 10, 30, 90])
def test_what_happens_to_a_day_does_not_hide_what_happens_to_another(days: int) -> None:
    world = World(days)
    late = {day - n for day in world.events["late"] for n in range(1, LATE_BY + 1)}
    restated = {day - world.restated_back for day in world.events["restated"]}
    whole = {*world.events["hole"], *world.events["bad"]}
    assert not late & whole
    assert not restated & (late | whole)
    assert all(1 <= day <= days for on in world.events.values() for day in on)
    working = [*world.events["worse"], *world.events["weak"], *world.events["rollback"], *world.events["crash"]]
    waits = {day + n for day in world.events["hole"] for n in range(FILLED_AFTER)}
    waits |= {day + n for day in world.events["bad"] for n in range(MENDED_AFTER)}
    assert not waits & {*working, *world.events["executor"]}
    assert all(day + 1 not in waits for day in world.events["weak"])


def test_the_world_says_what_its_files_say_in_the_end(tmp_path: Path) -> None:
    world = World(10)
    for day in range(world.first, 11):
        world.deliver(tmp_path, day)
    for day in range(1, 11):
        files = tmp_path.glob(f"performance/{world.date_of(day)}/*.parquet")
        rows = pl.concat([pl.read_parquet(file) for file in files]).sort("delivered_on")
        newest = rows.unique(audit.SERIES, keep="last").drop("delivered_on")
        assert audit.rows_wrong(newest, world.truth(day), AMOUNTS) == [], day
    (born,) = world.events["born"]
    assert "video" not in set(world.truth(born)["scenario_id"])
    assert "video" in {*world.truth(born + 1)["scenario_id"], *world.truth(born + 2)["scenario_id"]}


def test_the_page_is_made_between_its_marks(tmp_path: Path) -> None:
    lived = [
        {"day": n, "ds": f"2024-03-0{n}", "champion": "1" if n > 1 else None, "nmae": 0.4 if n < 3 else None,
         "baseline_nmae": 0.5 if n < 3 else None, "events": ["late"] if n == 2 else [], "said": "late; champion 1"}
        for n in (1, 2, 3)
    ]  # fmt: skip
    found = {
        "machine": "two cores", "code": "0.2", "minutes": 1.0, "load": 0.5, "first_load": 84, "advertisers": 9,
        "trained": 3, "decided": {"promoted": 1, "refused": 1, "by_hand": 0}, "task": "spend", "lived": lived,
        "stages": {"score": (3, 6.0, 3.0)},
        "findings": [{"check": "keys are unique", "looked_at": "3 tables", "wrong": ["1 key repeated"]}],
    }  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{soak_page.BEGIN}\nold\n{soak_page.END}\n\nMore.\n")
    soak_page.write(found, page)
    text = page.read_text()
    assert text.startswith("# A page\n\n<!-- soak -->\nMade by `make soak` on: two cores")
    assert text.endswith("<!-- end of soak -->\n\nMore.\n")
    assert "| keys are unique | 3 tables | 1 key repeated |" in text
    assert "| 2024-03-02 | late; champion 1 |" in text
    assert (tmp_path / "images" / "soak.png").stat().st_size < 100_000
    soak_page.write(found, page)
    assert page.read_text() == text
    (other := tmp_path / "other.md").touch()
    with pytest.raises(ValueError, match="expected the lines"):
        soak_page.write(found, other)


@pytest.mark.soak
def test_ten_days_pass_their_audit(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    found = Soak(World(10, advertisers=150), tmp_path).whole()
    assert {finding["check"]: finding["wrong"] for finding in found["findings"] if finding["wrong"]} == {}
    assert found["decided"]["by_hand"] == 2
    assert len({day["champion"] for day in found["lived"]}) > 2
