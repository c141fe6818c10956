"""pipeline.toml: what is accepted, and how a mistake is named."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType

import pytest
from deployment import Deployment

from m2m_model.config import ModelConfig, Task, TrainConfig
from pipelines import config as config_module
from pipelines.config import load_config
from pipelines.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

MISTAKES = {
    "unknown key": ("buckets = 2", "bucket = 2", 'unknown key "bucket"; did you mean "buckets"?'),
    "unknown section": ("[history]", "[histroy]", 'unknown key "histroy"; did you mean "history"?'),
    "wrong type": ("buckets = 2", 'buckets = "2"', "buckets: expected int, found '2' (str)"),
    "a boolean is no number": ("buckets = 2", "buckets = true", "buckets: expected int, found True (bool)"),
    "not a list": ('not_above = [["taps", "views"]]', 'not_above = "taps"', "not_above: expected a list, found 'taps'"),
    "unknown kind": (
        'kind = "money"',
        'kind = "euros"',
        "kind: expected one of 'count', 'money', 'ratio', found 'euros'",
    ),
    "task on a metric that is not there": (
        'metric = "spend"',
        'metric = "spent"',
        'metric "spent" is not one of views, taps, spend',
    ),
    "sum of active": ('metric = "spend"', 'metric = "active"', 'metric "active" has no sum'),
    "total of a ratio": ('kind = "money"', 'kind = "ratio"', "is a ratio; a total of ratios means nothing"),
    "metric declared twice": ('name = "taps"', 'name = "views"', '"views" is declared twice'),
    "reserved name": ('name = "taps"', 'name = "day"', '"day" is a column of the system\'s own tables'),
    "name that is no identifier": ('name = "taps"', 'name = "taps per day"', "must be letters, digits and underscores"),
    "missing key": ("first_day = 2024-01-01", "", 'missing key "first_day"'),
    "missing SQL file": ('"performance_daily.sql"', '"gone.sql"', "gone.sql: no such file beside pipeline.toml"),
    "pair of an unknown metric": (
        '[["taps", "views"]]',
        '[["taps", "looks"]]',
        '"looks" is not one of views, taps, spend',
    ),
    "zero buckets": ("buckets = 2", "buckets = 0", "buckets = 0: must be at least 1"),
    "keeps less than the window": ("keep_days = 60", "keep_days = 7", "keep_days must not be below window_days"),
    "model settings out of range": ("heads = 2", "heads = 3", "width = 8 must be a multiple of heads = 3"),
    "unknown check": (
        "[checks]",
        '[checks]\nseverity = { volumes = "warning" }',
        '"volumes" is no check; did you mean "volume"?',
    ),
    "not TOML": ("[history]", "[history", "not TOML"),
    "behavior without SQL": (
        "[history]",
        '[[behavior]]\nname = "logins"\n\n[history]',
        "[[behavior]] needs [staging] behavior_daily",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_and_ends_with_status_2(deployment: Deployment, case: str) -> None:
    old, new, words = MISTAKES[case]
    deployment.edit(old, new)
    status, said = deployment.run("stage_sources", "--date", "2024-01-02", spark=False)
    assert status == 2
    assert words in said
    assert str(deployment.toml) in said


def test_a_missing_configuration_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "pipeline.toml")


@pytest.mark.parametrize("toml", sorted((ROOT / "examples").glob("*/pipeline.toml")), ids=lambda path: path.parent.name)
def test_the_examples_load(toml: Path) -> None:
    assert load_config(toml).dataset.name == toml.parent.name


def _dataclasses_in(module: ModuleType) -> list[type]:
    own = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    return [c for c in own if dataclasses.is_dataclass(c) and c is not config_module.Config]


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "bring_your_data.md").read_text(encoding="utf-8")
    sections = {f.name: f for f in dataclasses.fields(config_module.Config) if f.name not in ("path", "home")}
    for name in sections:
        assert re.search(rf"\[\[?{name}\]?\]", text), f"[{name}] is not documented"
    described = [*_dataclasses_in(config_module), Task, ModelConfig, TrainConfig]
    keys = {f.name for cls in described for f in dataclasses.fields(cls)}
    missing = sorted(key for key in keys if not re.search(rf"[`\] ]{key}`", text))
    assert not missing, f"not documented: {missing}"
