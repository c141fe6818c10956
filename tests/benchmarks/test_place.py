"""The benchmark of M2M's place, small: every forecaster is made and judged, and the page says what was found."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import place
from benchmarks.place import AHEAD, BEHIND, CHANCE, KINDS, KNOWN, LEARNERS, LEARNING, SIZES, UNKNOWN, UNTOLD, Job, Size

TINY = Size(series=(4, 12), judged=10, windows=256)


def test_the_page_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "SHORT", place.SHORT | {"min_steps": 1, "epochs": 1})
    monkeypatch.setattr(place, "MORE_WINDOWS", (512,))
    monkeypatch.setattr(place.boosted, "TREES", 3)
    place.main(["--seeds", "2", "--workers", "1"], TINY, tmp_path)
    found = json.loads((tmp_path / "place.json").read_text())
    rows = pl.DataFrame(found["rows"])
    everyone = {place.M2M, *place.RIVALS, *place.NETWORKS, place.PROCESS, place.RATES}
    assert set(rows.filter(part=SIZES)["who"]) == everyone
    assert len(rows.filter(part=SIZES)) == (2 * len(everyone) - 1) * len(TINY.scenarios)  # one model per cell: once
    assert len(rows.filter(part=UNKNOWN)) == 2 * len(LEARNERS) * len(TINY.series)
    assert len(rows.filter(part=KNOWN)) == 2 * len(LEARNERS) * (len(KINDS) - 1)
    assert set(rows.filter(part=LEARNING)["windows"]) == {512}
    assert rows["nmae"].is_finite().all()
    nmae = dict(place.mean_nmae(rows.filter(part=SIZES), ["who"]).iter_rows())
    assert nmae[place.RATES] < nmae[place.PROCESS] < min(nmae[name] for name in everyone - {place.RATES, place.PROCESS})
    page = (tmp_path / "place.md").read_bytes()
    assert b"Helps nowhere" in page
    (tmp_path / "place.md").unlink()
    place.main(["--go-on", "--minutes", "0", "--seeds", "2", "--workers", "1"], TINY, tmp_path)
    assert (tmp_path / "place.md").read_bytes().split(b"## Conclusion")[1] == page.split(b"## Conclusion")[1]


def test_a_difference_within_the_seeds_spread_is_none() -> None:
    ratios = [[0.90, 0.92], [0.98, 1.01], [1.10, 1.12], [0.90]]
    assert [place.verdict(np.array(ratio)) for ratio in ratios] == [AHEAD, CHANCE, BEHIND, UNTOLD]
    assert [place.verdict(np.array([0.90]), spread) for spread in (0.05, 0.2)] == [AHEAD, CHANCE]


def test_nobody_is_judged_on_what_it_learned_from_nor_learns_from_what_is_left_out() -> None:
    job = Job(place.LEFT_OUT, place.M2M, 1, 256, ("feed_4", "feed_12", "search_12"))
    learned, names = place.view(TINY, job, True)
    assert set(names) == set(TINY.scenarios) - set(job.left_out)
    judged, names = place.view(TINY, job, False)
    assert set(names) == set(TINY.scenarios)
    days = {series.tobytes() for series in learned.performance_NTP}
    assert not days & {series.tobytes() for series in judged.performance_NTP}
    told, _ = place.view(TINY, Job(SIZES, place.TOLD_TREES, 1, 256), False)
    assert set(told.scenario_N) == set(KINDS)
    # A plan tells of an event from the day on which it falls, and for a week.
    day = judged.performance_NTP.shape[1] - 7
    event_NTF = place.world(TINY, 1, False)[0].event_NWF
    assert (told.future_NTC[:, day - 1] > 0).tolist() == (event_NTF[:, -2] > 0).tolist()
    assert (told.future_NTC[:, day - 2] > 0).tolist() == (event_NTF[:, -3] > 0).tolist()
