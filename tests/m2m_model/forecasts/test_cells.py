import json
from dataclasses import asdict

import numpy as np

from m2m_model.data.activity import GROUPS
from m2m_model.forecasts.cells import CELL_ROWS, GROUP_ROWS, Cells

ROWS = 4000
RNG = np.random.default_rng(0)
SCENARIO_N = RNG.choice(["big", "small"], ROWS, p=[0.95, 0.05]).astype(object)
GROUP_NM = np.stack([RNG.choice(GROUPS, ROWS, p=[0.4, 0.1, 0.3, 0.185, 0.01, 0.005]), np.zeros(ROWS, int)], 1)


def counted() -> Cells[list[int]]:
    """A cell is how many rows it was learned from, and those of the coarser one."""
    return Cells.fit(SCENARIO_N, GROUP_NM, lambda rows, m, coarser: [int(rows.sum()), coarser[0] if coarser else 0])


def test_a_group_with_few_rows_takes_its_neighbours_in() -> None:
    size_K = np.bincount(GROUP_NM[:, 0], minlength=GROUPS)
    assert size_K[4] + size_K[5] < GROUP_ROWS < size_K[3]
    pooled = [cell[0] for cell in counted().pooled_MK[0]]
    assert pooled == [*size_K[:4], size_K[3:].sum(), size_K[3:].sum()]
    assert [cell[1] for cell in counted().pooled_MK[0]] == [ROWS] * GROUPS
    # All rows are in one group: the farthest group has nothing nearer.
    assert [cell[0] for cell in counted().pooled_MK[1]] == [ROWS] * GROUPS


def test_a_scenario_has_a_cell_of_its_own_where_it_has_rows_enough() -> None:
    found = counted()
    assert set(found.scenarios) == {"big"}
    own = found.scenarios["big"][0]
    big_K = np.bincount(GROUP_NM[SCENARIO_N == "big", 0], minlength=GROUPS)
    assert (
        [cell is not None for cell in own] == (big_K >= CELL_ROWS).tolist() == [True, False, True, True, False, False]
    )
    assert own[0] == [big_K[0], found.pooled_MK[0][0][0]]


def test_every_row_and_task_gets_its_cell() -> None:
    found = counted()
    cells, cell_NM = found.listed, found.number_of(SCENARIO_N, GROUP_NM)
    assert cell_NM.shape == GROUP_NM.shape
    for row, (name, group_M) in enumerate(zip(SCENARIO_N, GROUP_NM, strict=True)):
        own = found.scenarios.get(name, ((None,) * GROUPS,) * 2)
        for m, k in enumerate(group_M):
            assert cells[cell_NM[row, m]] == (own[m][k] or found.pooled_MK[m][k])
    assert found.number_of(SCENARIO_N[:0], GROUP_NM[:0]).shape == (0, 2)
    cell_NM = found.number_of(np.array(["new"], object), np.array([[0, 0]]))
    assert [cells[cell] for cell in cell_NM[0]] == [found.pooled_MK[0][0], found.pooled_MK[1][0]]


def test_survives_json() -> None:
    assert Cells.read(json.loads(json.dumps(asdict(counted()))), list) == counted()
