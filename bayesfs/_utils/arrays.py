"""NumPy arrays: their types for annotations, and tensors as arrays by `numpy_of`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def numpy_of(value: Tensor) -> NDArray[Any]:
    """The array of a tensor, off the graph and off the device."""
    array: NDArray[Any] = value.detach().cpu().numpy()
    return array


Floats = NDArray[np.float64]

Ints = NDArray[np.int64]


Bools = NDArray[np.bool_]
