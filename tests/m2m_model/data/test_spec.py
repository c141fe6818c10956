from dataclasses import replace

import pytest

from m2m_model.config import Task
from m2m_model.data.spec import SequenceSpec


def test_spec_refuses_a_task_on_an_unknown_metric(spec: SequenceSpec) -> None:
    with pytest.raises(ValueError, match='metric "views" is not one of clicks, spend'):
        replace(spec, tasks=(Task("views", "views", "sum"),))
    assert SequenceSpec.from_dict(spec.to_dict()) == spec
