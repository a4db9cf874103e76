"""Lower learning rates for the lower stages of pretrained backbones: `train.layer_decay`."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


def layer_rates(model: keras.Model, decay: float) -> dict[int, float]:
    """Factor of the learning rate by a variable's `id`: decay**d in a backbone's d-th stage from the top.

    Variables that are in no backbone, such as a projection's, have the factor 1 and no entry.

    Follows: Clark et al., ICLR 2020 (ELECTRA), for the factors; Departs: the last layer has the factor
    `decay`, as in BEiT (Bao et al., ICLR 2022).

    Args:
        model: with towers `image_encoder` and `text_encoder`, or with one `encoder`; built.
        decay: in (0, 1]; 1 gives no entry.
    """
    if decay == 1:
        return {}
    names = ("image_encoder", "text_encoder", "encoder")
    towers = [tower for name in names if (tower := getattr(model, name, None)) is not None]
    return {
        id(v): decay ** tower.depths[v.path] for tower in towers for v in tower.backbone.trainable_variables
    }


class AdamWByLayer(keras.optimizers.AdamW):
    """AdamW whose learning rate, and so whose weight decay, has a factor for each variable.

    Args:
        rates: factor by the variable's `id`; 1 for all others.
        learning_rate: of the factor 1, a number or a schedule.
        weight_decay: of the factor 1.
        **options: of `keras.optimizers.AdamW`.
    """

    def __init__(self, rates: Mapping[int, float], learning_rate: Any, weight_decay: float, **options: Any):
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self._rates, self._full_decay = dict(rates), weight_decay

    def _by_rate(self, variables: Sequence[keras.Variable]) -> dict[float, list[int]]:
        """Positions of the variables of each factor."""
        found: dict[float, list[int]] = {}
        for position, variable in enumerate(variables):
            found.setdefault(self._rates.get(id(variable), 1.0), []).append(position)
        return found

    def _backend_update_step(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable], learning_rate: Any
    ) -> None:
        for rate, at in self._by_rate(trainable_variables).items():
            some = [trainable_variables[k] for k in at]
            super()._backend_update_step([grads[k] for k in at], some, learning_rate * rate)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        for rate, at in self._by_rate(variables).items():
            self.weight_decay = self._full_decay * rate  # equal in every replica's thread
            super()._apply_weight_decay([variables[k] for k in at])
        self.weight_decay = self._full_decay
