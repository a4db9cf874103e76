"""Array types of the evaluation by their elements; the docstrings give the shapes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # of any element type
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Strings = npt.NDArray[np.str_]

Batch = Mapping[str, npt.ArrayLike]  # NumPy arrays or eager tensors
ByModel = Mapping[str, Floats]  # "trained", and "untrained" if there is an untrained model, → array
