"""In which precision the losses are computed, whatever that of the encoders."""

import keras
from keras import ops


def at_least_float32(x):
    """A tensor of x in float32; float64 stays what it is, for tests of the equations."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
