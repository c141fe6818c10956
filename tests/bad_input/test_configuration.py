"""pipeline.toml that cannot work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bad_input.corpus import Case

CASES = {
    "unknown key": Case(('unknown key "bucket"', '"buckets"'), edit=("buckets = 2", "bucket = 2")),
    "wrong type": Case(("dataset", "buckets", "'2'"), edit=("buckets = 2", 'buckets = "2"')),
}


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_that_cannot_work_is_named(refuse: Callable[[Case], None], name: str) -> None:
    refuse(CASES[name])
