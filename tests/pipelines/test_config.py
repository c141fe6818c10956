"""pipeline.toml: what is accepted, and how a mistake is named."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment

from m2m_model.config import Within
from pipelines.config import CHECKS, Config, load_config, m2m_home
from pipelines.errors import ConfigError
from pipelines.quality.rules import row_rules
from pipelines.toml_tables import Text

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_configuration_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "pipeline.toml")


@pytest.mark.parametrize("toml", sorted((ROOT / "examples").glob("*/pipeline.toml")), ids=lambda path: path.parent.name)
def test_the_examples_load(toml: Path) -> None:
    assert load_config(toml).dataset.name == toml.parent.name


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "performance_daily.sql").write_text(SQL)
    (tmp_path / "pipeline.toml").write_text(TOML, encoding="utf-8-sig")
    assert load_config(tmp_path / "pipeline.toml").dataset.name == "tiny"


def _documented_type(hint: Any) -> str:
    """What the page says of a field's type: a number with its range."""
    kind, rule = typing.get_args(hint)
    if kind is float:
        return f"number, {rule.least:g} to {rule.most:g}"
    if kind is int:
        return f"integer, {rule.least:,} to {rule.most:,}"
    return f"date, {rule.least} to {rule.most}"


def test_what_the_environment_makes_of_an_address_is_looked_at(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.edit("[spark]", '[storage]\nscratch = "${SCRATCH}"\n[mlflow]\nartifacts = "${MODELS}"\n[spark]')
    for wrong in ("scratch", "", "s3://b/a#1"):
        monkeypatch.setenv("SCRATCH", wrong)
        monkeypatch.setenv("MODELS", wrong)
        with pytest.raises(ConfigError, match=r"\[storage\] scratch: "):
            _ = deployment.config.scratch
        with pytest.raises(ConfigError, match=r"\[mlflow\] artifacts: "):
            _ = deployment.config.artifacts
    monkeypatch.setenv("SCRATCH", "s3://b/a/")
    assert deployment.config.scratch == "s3://b/a/tiny"


def test_every_key_is_documented_with_its_range() -> None:
    text = (ROOT / "docs" / "bring_your_data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(?:\[+(\w+)\]+ )?(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    kinds = {(table, key): kind for table, key, kind in rows}
    for section, hint in _fields(Config).items():
        if section in ("path", "home"):
            continue
        assert re.search(rf"\[\[?{section}\]?\]", text), f"[{section}] is not documented"
        classes = [part for part in (hint, *_parts(hint)) if dataclasses.is_dataclass(part) and part is not Text]
        for key, of_key in _fields(classes[0]).items() if classes else ():
            found = kinds.get((section, key)) or kinds.get(("", key))
            assert found, f"[{section}] {key} is not documented"
            if any(isinstance(rule, Within) for rule in getattr(of_key, "__metadata__", ())):
                assert found == _documented_type(of_key), f"[{section}] {key}"


def _fields(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _parts(hint: Any) -> list[Any]:
    """The types that a type is made of."""
    return [part for arg in typing.get_args(hint) for part in (arg, *_parts(arg))]


def test_every_check_whose_severity_may_be_set_is_documented() -> None:
    text = (ROOT / "docs" / "bring_your_data.md").read_text(encoding="utf-8")
    assert [name for name in CHECKS if f"`{name}`" not in text] == []


def test_every_rule_on_rows_is_known_to_the_severities() -> None:
    config = load_config(ROOT / "examples" / "simulated" / "pipeline.toml")
    amounts = {metric.name: str(metric.kind) for metric in config.performance}
    key, pairs = ("ds", "advertiser_id", "scenario_id"), config.checks.not_above
    rules = row_rules(config, key, FIRST_DAY, FIRST_DAY, amounts, frozenset(), pairs, attributes=("industry",))
    assert {rule.check.name for rule in rules} - set(CHECKS) == {"reserved_id"}  # whose severity is not to be set


def test_state_is_kept_in_the_checkout_or_below_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("M2M_HOME", "relative")
    assert m2m_home() == Path.cwd() / "relative"
    monkeypatch.setenv("M2M_HOME", "")
    assert m2m_home() == ROOT / ".m2m"
    site = tmp_path / "site-packages"  # as a wheel is unpacked
    for package in ("pipelines", "m2m_model"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import pipelines.config as config; print(config.__file__, config.m2m_home(), sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=site, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == [str(site / "pipelines" / "config.py"), str(tmp_path / ".m2m")]


def test_a_checkpoint_outlives_a_change_of_where_it_is_trained(deployment: Deployment) -> None:
    """Who follows "set [distributor] processes" does not begin again; who learns by something else does."""
    before = deployment.config.training_hash
    deployment.edit(
        "[spark]", "[distributor]\nprocesses = 2\nmin_processes = 1\n[gate]\nmax_ratio_to_champion = 2.0\n[spark]"
    )
    assert deployment.config.training_hash == before
    for key, other in (("epochs = 2", "epochs = 3"), ("width = 8", "width = 16"), ('"active_days"', '"days"')):
        deployment.edit(key, other)
        assert deployment.config.training_hash != before
        before = deployment.config.training_hash
