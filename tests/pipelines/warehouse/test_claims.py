"""A folder of a store is one run's at a time, and a killed run's is taken over."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pipelines.locks import BusyError
from pipelines.warehouse import claims
from pipelines.warehouse.claims import CLAIM, claimed
from pipelines.warehouse.store import Folder

BUSY = "train 2024-01-01: another training is running"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    for name, seconds in (("_RENEWED_S", 0.1), ("_GIVEN_UP_S", 0.6), ("_OTHERS_S", 0.2)):
        monkeypatch.setattr(claims, name, seconds)
    return Folder((tmp_path / "scratch").as_uri())


def test_a_second_run_is_refused_by_name_and_the_third_is_not(folder: Folder) -> None:
    with claimed(folder, "first on host-1", BUSY):
        with pytest.raises(BusyError, match=f"{BUSY}, by first on host-1"), claimed(folder, "second on host-2", BUSY):
            pytest.fail("both have it")
        assert folder.read(CLAIM) == b"first on host-1"
    assert folder.names() == []
    with claimed(folder, "third on host-2", BUSY):
        assert folder.read(CLAIM) == b"third on host-2"


def test_a_claim_that_nobody_renews_is_taken_over(folder: Folder) -> None:
    folder.write(CLAIM, b"killed on host-1")
    with claimed(folder, "next on host-2", BUSY):
        assert folder.read(CLAIM) == b"next on host-2"


def test_one_that_was_stopped_for_long_does_not_take_it_back(folder: Folder) -> None:
    with claimed(folder, "stopped on host-1", BUSY):
        folder.write(CLAIM, b"next on host-2")
        time.sleep(0.5)
        assert folder.read(CLAIM) == b"next on host-2"
    assert folder.read(CLAIM) == b"next on host-2"


def test_one_that_is_released_while_it_is_looked_at_is_free(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(CLAIM, b"ended on host-1")
    read = Folder.read

    def gone_at_first(self: Folder, name: str) -> bytes:
        monkeypatch.setattr(Folder, "read", read)
        self.delete(name)
        return read(self, name)

    monkeypatch.setattr(Folder, "read", gone_at_first)
    with claimed(folder, "next on host-2", BUSY):
        assert folder.read(CLAIM) == b"next on host-2"


def test_of_two_at_once_one_has_it(folder: Folder) -> None:
    had, barrier = [], threading.Barrier(2)

    def take(owner: str) -> None:
        barrier.wait()
        try:
            with claimed(folder, owner, BUSY):
                barrier.wait(5)
        except BusyError as refused:
            had.append(str(refused))
            barrier.wait(5)

    both = [threading.Thread(target=take, args=(owner,)) for owner in ("one", "two")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(had) == 1


def test_the_folder_may_go_meanwhile(folder: Folder) -> None:
    with claimed(folder, "trained", BUSY):
        folder.remove()
    assert not folder.local or not (folder.local / CLAIM).exists()
