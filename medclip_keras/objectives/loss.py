"""The result of every objective; Keras is not imported here."""

from typing import Any, NamedTuple, TypeAlias

Tensor: TypeAlias = Any  # of Keras's backend, which publishes no types; NumPy arrays are converted


class Loss(NamedTuple):
    """An objective's value on one batch; float32, float64 for float64 inputs."""

    loss: Tensor  # scalar
    # scalar, the loss less the entropy of its targets, which no model can remove; 0 is perfect. Targets of
    # own pairs alone have no entropy.
    kl: Tensor
    logits: Tensor  # (num_images, num_texts)
    # (num_images, num_texts), how much image and text belong together by the objective: the similarity of
    # their labels, or 1 for own pairs and 0 otherwise
    similarity: Tensor
