"""What arrays are called in signatures: the kind of element here, the shape in the name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Numbers = NDArray[np.number[Any]]
Bools = NDArray[np.bool_]
Strings = NDArray[np.object_]  # as pyarrow gives them: str, or None
Rows = slice | Ints | Bools  # what selects some of an axis
