"""A model's files and aliases: what was registered is what serves, and the gate decides about what was judged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import polars as pl
import pytest
from deployment import AS_OF, Deployment
from mlflow.exceptions import MlflowException

from pipelines.chain import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.cli import code_version
from pipelines.errors import DataError
from pipelines.failures import tell
from pipelines.life.gate import Decision, decide
from pipelines.life.registry import Registry
from pipelines.locks import BusyError, locked
from pipelines.stages.backtest import refuse_seen_cutoffs
from pipelines.warehouse.commits import Warehouse


@contextmanager
def changed(file: Path, content: bytes | None) -> Iterator[None]:
    """A file with other bytes, or away, for a while."""
    before = file.read_bytes()
    try:
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        yield
    finally:
        file.write_bytes(before)


def model_folder(deployment: Deployment) -> Path:
    champion = Registry(deployment.config).get(CHAMPION)
    assert champion is not None
    return champion.folder


def flipped(file: Path) -> bytes:
    """One bit other, in the middle of the weights."""
    content = bytearray(file.read_bytes())
    content[-len(content) // 4] ^= 1
    return bytes(content)


def without_blend(file: Path) -> bytes:
    return json.dumps(json.loads(file.read_bytes()) | {"blend": None}).encode()


@pytest.mark.parametrize(("name", "change"), [("weights.safetensors", flipped), ("config.json", without_blend)])
def test_files_that_are_not_those_registered_serve_nobody(said: Deployment, name: str, change: object) -> None:
    file = model_folder(said) / name
    before = said.warehouse.snapshot_id("marts.forecast_daily")
    with changed(file, change(file)):  # type: ignore[operator]
        status, text = said.run("score", "--date", AS_OF)
        assert status == 3, text
        assert f"model m2m_tiny version 1: {name} in {file.parent} is not what was registered (sha256)" in text
        assert "Traceback" not in text
        assert said.run("backtest", "--date", AS_OF)[0] == 3
    assert said.warehouse.snapshot_id("marts.forecast_daily") == before
    stray = file.with_name(".DS_Store")  # which nobody opens
    stray.write_bytes(b"")
    assert said.run("score", "--date", AS_OF)[0] == 0
    assert set(said.rows("marts.forecast_daily").filter(ds=AS_OF)["model_version"]) == {"1"}
    stray.unlink()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("weights.safetensors", None, "weights.safetensors is not in"),
        ("weights.safetensors", b"cut", "weights.safetensors is damaged"),
        ("config.json", b'{"format_version"', "config.json is damaged"),
    ],
)
def test_without_its_files_a_champion_steps_back_for_the_best_baseline(
    said: Deployment, name: str, content: bytes | None, words: str
) -> None:
    with changed(model_folder(said) / name, content):
        status, text = said.run("score", "--date", AS_OF)
        assert status == 0, text
        assert "warning: model m2m_tiny version 1" in text
        assert words in text
        assert "the best baseline serves" in text
        methods = said.rows("marts.forecast_daily").filter(ds=AS_OF)["method"]
        assert methods.str.starts_with("baseline:").any()
        assert not methods.str.contains("m2m").any()


def test_the_gate_decides_about_the_versions_and_files_that_were_judged(
    said: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(said.config)
    assert said.run("train", "--date", AS_OF, "--from-scratch")[0] == 0
    assert said.run("backtest", "--date", AS_OF)[0] == 0
    judged = registry.version_of(CHALLENGER)
    registry.client.delete_registered_model_alias(registry.name, CHAMPION)
    status, text = said.run("promote", "--date", AS_OF)
    assert status == 3
    assert f"marts.backtest ds={AS_OF}: judged champion 1, but it is None now; run backtest again" in text
    registry.promote("1")
    challenger = registry.get(CHALLENGER)
    assert challenger is not None
    weights = challenger.folder / "weights.safetensors"
    for content in (flipped(weights), None):
        with changed(weights, content):
            status, text = said.run("promote", "--date", AS_OF)
            assert (status, registry.version_of(CHAMPION)) == (3, "1"), text
            assert "model m2m_tiny version 2: weights.safetensors" in text

    def meanwhile(*arguments: Any) -> Decision:
        registry.client.delete_registered_model_alias(registry.name, CHAMPION)
        return decide(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.stages.promote.decide", meanwhile)
        status, text = said.run("promote", "--date", AS_OF)
    assert (status, registry.version_of(CHAMPION)) == (3, None)
    assert "model m2m_tiny: an alias was moved while promote ran" in text
    registry.promote("1")
    status, text = said.run("promote", "--date", AS_OF, "--approved-by", "Ann", "--challenger", "2")
    assert status == 0, text
    assert "\npassed   * *            champion" in text
    table = mlflow.artifacts.load_text(f"runs:/{registry.run_id_of(CHALLENGER)}/gate/{AS_OF}.csv").splitlines()
    assert table[0].startswith("other,scenario_id,task,horizon_days,n,nmae,other_nmae,ratio,ratio_low,ratio_high,")
    line = said.rows("ops.promotion").filter(challenger="2").row(0, named=True)
    assert line["decided_by"] == "the gate, approved by Ann"
    assert len(table) - 1 == said.rows("ops.promotion_cell").filter(run_id=line["run_id"]).height
    assert registry.version_of(CHAMPION) == judged == "2"
    assert said.run("promote", "--date", AS_OF)[0] == 0  # the same decision once more
    ledger = said.rows("ops.promotion").sort("decided_at")
    assert ledger.filter("promoted").select("champion", "challenger").rows() == [(None, "1"), ("1", "2")]


def test_what_was_taken_back_by_hand_the_gate_does_not_bring_back(said: Deployment) -> None:
    registry = Registry(said.config)
    assert registry.version_of(CHAMPION) == "2"
    registry.promote("1")  # a person rolls back
    status, text = said.run("promote", "--date", AS_OF)
    assert status == 0, text
    assert "version 2 not promoted: version 2 was champion before and was replaced" in text
    assert registry.version_of(CHAMPION) == "1"
    moves = said.rows("ops.promotion").sort("decided_at").filter("promoted").select("champion", "challenger", "reason")
    assert moves.rows()[-1][:2] == ("2", "1")
    assert "moved outside the ledger" in moves.rows()[-1][2]


def test_a_promotion_killed_before_its_alias_is_ended_by_the_next(
    said: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(said.config)
    assert said.run("train", "--date", AS_OF, "--from-scratch")[0] == 0
    assert said.run("backtest", "--date", AS_OF)[0] == 0
    status, text = said.run("promote", "--date", AS_OF, "--approved-by", "Ann", "--challenger", "99")
    assert (status, "the answer is about version 99, and the challenger is " in text) == (3, True)
    said.edit("[gate]", "[gate]\napproval_hours = 1")
    status, text = said.run("promote", "--date", AS_OF)
    assert (status, "not promoted: nobody approved it, as [gate] approval_hours asks for" in text) == (0, True)
    said.edit("[gate]\napproval_hours = 1", "[gate]")
    status, text = said.run("promote", "--date", AS_OF, "--rejected-by", "Ann")
    assert (status, "not promoted: rejected by Ann. " in text) == (0, True)
    line = said.rows("ops.promotion").sort("decided_at").row(-1, named=True)
    assert (line["promoted"], line["decided_by"]) == (False, "Ann")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.stages.promote.follow", lambda *_: sys.exit(137))
        assert said.run("promote", "--date", AS_OF)[0] == 137
    before, challenger = registry.version_of(CHAMPION), registry.version_of(CHALLENGER)
    line = said.rows("ops.promotion").filter("promoted").sort("decided_at").row(-1, named=True)
    assert (line["champion"], line["challenger"]) == (before, challenger)
    assert line["decided_by"] == "the gate"
    assert line["backtest_snapshot_id"] == said.warehouse.snapshot_id("marts.backtest")
    assert (line["config_hash"], line["code_version"]) == (said.config.hash, code_version())
    status, text = said.run("promote", "--date", AS_OF)
    assert (status, f"the promotion of version {challenger} (run {line['run_id']}) ended before" in text) == (0, True)
    assert registry.aliases() == {CHALLENGER: challenger, CHAMPION: challenger, PREVIOUS: before}
    assert said.rows("ops.promotion").filter("promoted").sort("decided_at").row(-1, named=True) == line


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_ledger_goes_on_without_what_it_has_lost(said: Deployment, damage: str) -> None:
    lines = said.rows("ops.promotion").height
    file = Path(said.warehouse.files("ops.promotion")[0].path)
    file.unlink() if damage == "gone" else file.write_bytes(flipped(file))
    status, text = said.run("promote", "--date", AS_OF)
    assert (status, str(file) in text) == (3, True), text
    assert "python -m pipelines.maintain --restore ops.promotion" in text
    status, text = said.run("maintain", "--restore", "ops.promotion", spark=False)
    assert (status, "goes on without 1 data files" in text) == (0, True), text
    assert said.run("promote", "--date", AS_OF)[0] == 0
    assert said.rows("ops.promotion").height >= lines - 1


def test_a_backtest_that_ended_between_its_tables_is_seen(said: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Warehouse.commit

    def killed(warehouse: Warehouse, table: str, *arguments: Any) -> int:
        if table == "marts.backtest":
            raise KeyboardInterrupt
        return commit(warehouse, table, *arguments)

    assert said.run("score", "--date", AS_OF)[0] == 0
    status, text = said.run("status", "--date", AS_OF, spark=False)
    assert status == 0, text
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "commit", killed)
        assert said.run("backtest", "--date", AS_OF)[0] == 130
    status, text = said.run("status", "--date", AS_OF, spark=False)
    assert (status, "wrote marts.backtest_value and ended before this table" in text) == (4, True), text
    assert f"python -m pipelines.backtest --config {said.toml} --date {AS_OF}" in text
    assert said.run("backtest", "--date", AS_OF)[0] == 0
    status, text = said.run("status", "--date", AS_OF, spark=False)
    assert status == 0, text


def test_house_keeping_does_not_need_the_models_files(said: Deployment) -> None:
    with changed(model_folder(said) / "weights.safetensors", None):
        status, text = said.run("maintain", spark=False)
    assert status == 0, text


def test_nobody_is_judged_on_days_that_he_has_seen() -> None:
    forecaster = SimpleNamespace(metadata={"held_out_from": "2024-02-22"})
    cutoffs = [date(2024, 2, 11), date(2024, 2, 22)]
    with pytest.raises(DataError, match=r"challenger 3 has seen the days up to 2024-02-22, so 1 of 2 cutoffs"):
        refuse_seen_cutoffs("challenger 3", forecaster, cutoffs, date(2024, 2, 29))  # type: ignore[arg-type]
    refuse_seen_cutoffs("challenger 3", forecaster, cutoffs[1:], date(2024, 2, 29))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_ended_by_the_next(deployment: Deployment) -> None:
    code = (
        "import os, signal\n"
        "from pipelines.config import load_config; from pipelines.life.registry import Registry\n"
        f"with Registry(load_config({str(deployment.toml)!r})).new_run('killed', {{}}, {{}}) as run_id:\n"
        "    print(run_id, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    registry = Registry(deployment.config)
    run_id = killed.stdout.strip().splitlines()[-1]
    assert registry.client.get_run(run_id).info.status == "RUNNING"
    with registry.new_run("next", {}, {}) as own:
        assert registry.client.get_run(run_id).info.status == "KILLED"
        assert registry.client.get_run(own).info.status == "RUNNING"
    mlflow.end_run()


def test_a_run_that_was_deleted_is_told_with_what_brings_it_back(deployment: Deployment) -> None:
    registry = Registry(deployment.config)
    with registry.new_run("deleted", {}, {}) as run_id:
        pass
    registry.client.delete_run(run_id)
    with pytest.raises(MlflowException) as refused:
        registry.log_metrics(run_id, {("a",): 1.0})
    told = tell(refused.value)
    assert (told.status, told.section) == (1, "A model version is lost")
    assert f"Restore it, name another champion, or train. It said: MlflowException: The run {run_id}" in told.lines[0]


def test_two_trainings_of_the_same_sequences_do_not_share_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    with locked(file, "busy"), pytest.raises(BusyError, match="another training"), locked(file, "another training"):
        pass
    with locked(tmp_path / "a.lock", "busy"):
        pass


@pytest.mark.slow
def test_a_fresh_home_takes_several_first_processes_at_once(deployment: Deployment) -> None:
    code = (
        "from pipelines.config import load_config; from pipelines.life.registry import Registry\n"
        f"print(Registry(load_config({str(deployment.toml)!r})).experiment_id())"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert len({out.strip().splitlines()[-1] for out, _ in ended}) == 1


def test_ledger_rows_have_their_key(trained: Deployment) -> None:
    rows = trained.rows("ops.promotion")
    assert rows.select(pl.struct("ds", "run_id", "challenger").is_unique().all()).item()
