import json

import pytest

from m2m_model.config import ModelConfig, Task, TrainConfig, from_dict, to_dict


@pytest.mark.parametrize("settings", [ModelConfig(), ModelConfig(meta_rank=8, transformer=False), TrainConfig(seed=9)])
def test_survives_json(settings: ModelConfig | TrainConfig) -> None:
    assert from_dict(type(settings), json.loads(json.dumps(to_dict(settings)))) == settings


def test_unknown_key_is_named() -> None:
    with pytest.raises(ValueError, match="ModelConfig: unknown key widht; known: architecture, "):
        from_dict(ModelConfig, {"widht": 64})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 30}, "width = 30 must be a multiple of heads = 4"),
        ({"architecture": "lstm"}, "architecture = 'lstm': must be one of 'm2m', 'mmoe', 'shared_bottom'"),
        ({"dropout": 1.0}, "dropout = 1.0: must be from 0 to 0.95"),
        ({"experts": 0}, "experts = 0: must be from 1 to 64"),
    ],
)
def test_impossible_models_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**wrong)


def test_impossible_runs_and_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size = 0: must be from 1 to "):
        TrainConfig(batch_size=0)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="learning_rate"):
            TrainConfig(learning_rate=wrong)
    with pytest.raises(ValueError, match="name = '_spend': must be letters"):
        Task("_spend", "spend", "sum")
    with pytest.raises(ValueError, match='"active" has no sum'):
        Task("activity", "active", "sum")
