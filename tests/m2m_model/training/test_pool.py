from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.network.model import Batch
from m2m_model.network.windows import Windows
from m2m_model.training.pool import Shards, WindowIndex, shares


def test_each_shard_is_one_ranks_and_ranks_have_about_the_same() -> None:
    assert shares([5, 1, 4, 2], 2) == [[0, 1], [2, 3]]
    assert shares([7, 7, 7, 7], 3) == [[0, 3], [1], [2]]
    assert shares([0, 0, 3], 2) == [[2], [0, 1]]
    assert shares([3], 3) == [[0], [], []]
    assert shares([], 2) == [[], []]
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = random.integers(0, 1000, random.integers(0, 40)).tolist()
        held = shares(sizes, world := int(random.integers(1, 9)))
        assert sorted(shard for own in held for shard in own) == list(range(len(sizes)))
        loads = [sum(sizes[shard] for shard in own) for own in held]
        assert max(loads) - min(loads) <= max(sizes, default=0)
        assert held == shares(sizes, world)


def test_shards_are_in_the_order_of_their_names(panel: Panel, inputs: Inputs, tmp_path: Path) -> None:
    folders = [panel.save(tmp_path / name) for name in ("a", "b", "c")]
    data, turned = Shards(folders, inputs), Shards(folders[::-1], inputs)
    arguments = (panel.last_day - timedelta(days=30), 14, 100)
    pool, same = data.training_windows(*arguments), turned.training_windows(*arguments)
    assert len(pool) == 100
    for name, column in vars(pool).items():
        assert np.array_equal(column, vars(same)[name])
    assert set(pool.shard_X.tolist()) == {0, 1, 2}
    assert data.extent == turned.extent == "180 series over 2024-01-01 .. 2024-04-29"


def test_a_shard_that_is_held_twice_is_refused(panel: Panel, inputs: Inputs, tmp_path: Path) -> None:
    folders = [panel.save(tmp_path / part / "bucket=00003") for part in ("one", "two")]
    with pytest.raises(ValueError, match=r"bucket=00003: held twice; each rank takes its own of the shards"):
        Shards(folders, inputs)


def test_without_a_shard_there_is_nothing(inputs: Inputs) -> None:
    data = Shards([], inputs)
    assert data.first_day == date.max
    assert (
        len(data.training_windows(date(2024, 3, 1), 14, 100)) == len(data.windows_at([date(2024, 3, 1)], 9, (1,))) == 0
    )
    batch, target_BM = data.examples(WindowIndex.concatenate([]))
    assert len(batch.level_BM) == len(target_BM) == 0


def test_windows_of_several_shards_come_with_what_followed(panel: Panel, inputs: Inputs, tmp_path: Path) -> None:
    data = Shards([panel.save(tmp_path / name) for name in ("a", "b")], inputs)
    index = data.training_windows(panel.last_day - timedelta(days=30), 14, 50)
    assert set(index.shard_X.tolist()) == {0, 1}
    batch, target_BM = data.examples(index)
    assert torch.equal(batch.dense_BD, data.windows(index).dense_BD)
    np.testing.assert_allclose(target_BM, data.targets(index) / np.asarray(inputs.target_scales), rtol=1e-5)


def test_blank_windows_have_the_shapes_of_others(
    panel: Panel, inputs: Inputs, windows_of: Callable[..., Batch]
) -> None:
    two = np.zeros(2, np.int64)
    windows = windows_of(inputs, panel, two, two + 40)
    for count in (0, 1, 2):
        for name, column in vars(Windows(inputs, torch.device("cpu")).blank(count)).items():
            assert (column.shape, column.dtype) == ((count, *vars(windows)[name].shape[1:]), vars(windows)[name].dtype)
            assert column.isfinite().all()
