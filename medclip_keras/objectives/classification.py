"""Losses of classifiers, which learn from the labels of images alone."""

from keras import ops

from medclip_keras.objectives.cross_entropy import at_least_float32
from medclip_keras.objectives.loss import Tensor


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of images with exactly one class each.

    With the logits x and one-hot labels a of image i:

        L = -1/num_images sum_i sum_c a_ic log(exp(x_ic) / sum_c exp(x_ic))

    Args:
        logits: float (num_images, num_classes).
        labels: float (num_images, num_classes), rows sum to 1.

    Returns:
        Scalar, float32; float64 for float64 logits.

    >>> import numpy as np
    >>> value = softmax_cross_entropy(np.zeros((2, 3), "float32"), np.eye(2, 3, dtype="float32"))
    >>> round(float(value), 4), round(np.log(3), 4)
    (1.0986, 1.0986)
    """
    x = at_least_float32(logits)
    return -ops.mean(ops.sum(ops.cast(labels, x.dtype) * ops.log_softmax(x, axis=1), axis=1))


def sigmoid_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of every finding of every image, averaged over the known labels.

    With the logits x, labels a in [0, 1] and k = 1 for a known label, else 0:

        L = -sum_ic k_ic (a_ic log sigmoid(x_ic) + (1 - a_ic) log sigmoid(-x_ic)) / sum_ic k_ic

    and 0 without any known label.

    Args:
        logits: float (num_images, num_findings).
        labels: float (num_images, num_findings) in [0, 1].
        known: float (num_images, num_findings) of 0 and 1.

    Returns:
        Scalar, float32; float64 for float64 logits.

    >>> import numpy as np
    >>> logits = np.array([[0.0, 100.0, -9.0], [0.0, -100.0, 3.0]], "float32")
    >>> labels = np.array([[1, 1, 1], [0, 0, 1]], "float32")
    >>> known = np.array([[1, 1, 0], [1, 1, 0]], "float32")
    >>> value = sigmoid_cross_entropy(logits, labels, known)
    >>> round(float(value), 4), round(np.log(2) / 2, 4)
    (0.3466, 0.3466)
    """
    x = at_least_float32(logits)
    a, k = ops.cast(labels, x.dtype), ops.cast(known, x.dtype)
    each = a * ops.log_sigmoid(x) + (1 - a) * ops.log_sigmoid(-x)
    return -ops.sum(k * each) / ops.maximum(ops.sum(k), 1)
