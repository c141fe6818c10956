"""What arrays are called in signatures: the element type here, the shape in the name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Ints = NDArray[Any]
Bools = NDArray[np.bool_]
Strings = NDArray[Any]
