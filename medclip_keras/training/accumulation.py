"""One training step on a batch that is encoded in chunks, with the loss of the whole batch (GradCache).

    1  encode every chunk, without gradients                                   → outputs of the batch
    2  loss of all outputs, over all replicas, and its gradient by each output
    3  encode every chunk again, and go back from the outputs' gradients       → sum of the gradients

Memory is that of one chunk's activations, the batch, its outputs (embeddings; regions and words for GLoRIA)
and the loss; time is that of one more forward pass. The third pass sees the dropout masks and the other
random draws of the first, so the gradient is exact for any objective.

Follows: Gao et al., RepL4NLP 2021 (GradCache), and open_clip's `--accum-freq`.
Departs from the step without chunks in two ways: random draws have the shape of a chunk, so other masks are
drawn; batch normalisation (ResNet) takes its statistics from a chunk (of all replicas), and moves its
averages once a chunk, as steps of that size would.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from medclip_keras.training.replicas import num_replicas, sum_over_replicas

Arrays = dict[str, tf.Tensor]


class AccumulatedStep:
    """The train function of a model that encodes `chunk_size` items at a time on each replica.

    Each of its parts is a graph of its own, traced once and run in order: a chunk's activations are freed
    before the next chunk is encoded. `model` is a `model.GlobalStep`.
    """

    def __init__(self, model: Any, chunk_size: int):
        self._model, self._chunk_size = model, chunk_size
        self._state, self._encode = self._on_replicas(self._read_state), self._on_replicas(self._encode_chunk)
        self._differentiate = self._on_replicas(self._differentiate_loss)
        self._backward = self._on_replicas(self._add_gradients)
        self._apply = self._on_replicas(self._apply_gradients)

    def __call__(self, iterator: Iterator[Arrays]) -> Arrays:
        """Train on the iterator's next batch; return the logs of `train_step`."""
        values, gradients = self.gradients(next(iterator))
        logs = self._apply(*values, gradients)
        return {name: self._local(value)[0] for name, value in logs.items()}

    def gradients(self, batch: Arrays) -> tuple[Any, Any]:
        """Return loss and KL of the global batch, and each replica's share of the scaled gradients."""
        state = self._state()
        chunks = list(self._chunks(batch))
        outputs = [self._encode(batch, *chunk) for chunk in chunks]
        *values, gradient, gradients = self._differentiate(batch, outputs, state)
        del outputs
        for chunk in chunks:
            gradients = self._backward(batch, *chunk, gradient, gradients)
        return values, gradients

    def _chunks(self, batch: Arrays) -> Iterator[tuple[tf.Tensor, int]]:
        """Yield start and size of each chunk of the largest share; smaller shares end in smaller chunks."""
        share = max(len(x) for x in self._local(next(iter(batch.values()))))
        for start in range(0, share, self._chunk_size):
            yield tf.constant(start), min(self._chunk_size, share - start)

    def _local(self, value: Any) -> tuple[tf.Tensor, ...]:
        return self._model.distribute_strategy.experimental_local_results(value)

    def _on_replicas(self, part: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(part)  # TensorFlow counts the traces of a function by its code
        def on_replicas(*arguments: Any) -> Any:
            return self._model.distribute_strategy.run(part, args=arguments)

        return tf.function(on_replicas, autograph=False)

    def _read_state(self) -> list[tf.Tensor]:
        """Copy the variables that a forward pass changes: seeds and moving averages (and frozen weights)."""
        return [tf.identity(v) for v in _values(self._model.non_trainable_variables)]

    def _encode_chunk(self, batch: Arrays, start: tf.Tensor, size: int) -> Arrays:
        return self._model.encode(_part(batch, start, size), training=True)

    def _differentiate_loss(self, batch: Arrays, outputs: list[Arrays], state: list[tf.Tensor]) -> tuple:
        """Restore `state`; return loss, KL, and the loss's gradients by the outputs and by the variables."""
        for variable, value in zip(self._model.non_trainable_variables, state, strict=True):
            variable.assign(value)
        whole = {name: tf.concat([chunk[name] for chunk in outputs], axis=0) for name in outputs[0]}
        with tf.GradientTape() as tape:
            tape.watch(whole)
            outcome = self._model.loss_of(batch, whole)
            share = self._model.optimizer.scale_loss(outcome.loss) / num_replicas()
        sources = whole, _values(self._model.trainable_variables)
        return outcome.loss, outcome.kl, *_gradient(tape, target=share, sources=sources)

    def _add_gradients(
        self, batch: Arrays, start: tf.Tensor, size: int, gradient: Arrays, sums: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Add one chunk's gradients by the variables to `sums`, given the gradient by its outputs."""
        part = _part(batch, start, size)
        with tf.GradientTape() as tape:
            outputs = self._model.encode(part, training=True)
        of_outputs = _part(gradient, start, size)
        pairs = {"target": [outputs[n] for n in of_outputs], "output_gradients": list(of_outputs.values())}
        found = _gradient(tape, sources=_values(self._model.trainable_variables), **pairs)
        return [total + tf.convert_to_tensor(g) for total, g in zip(sums, found, strict=True)]

    def _apply_gradients(self, loss: tf.Tensor, kl: tf.Tensor, gradients: list[tf.Tensor]) -> Arrays:
        scale = self._model.optimizer.scale_loss(tf.ones(()))
        return self._model.apply_global(loss, kl, [sum_over_replicas(g) / scale for g in gradients])


def _gradient(tape: tf.GradientTape, **of: Any) -> Any:
    return tape.gradient(**of, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _values(variables: list[keras.Variable]) -> list[tf.Variable]:
    return [v.value for v in variables]  # TensorFlow does not read the dtype of Keras's own


def _part(arrays: Arrays, start: tf.Tensor, size: int) -> Arrays:
    return {name: x[start : start + size] for name, x in arrays.items()}


def in_chunks(encode: Callable[[Arrays], Arrays], batch: Arrays, chunk_size: int) -> Arrays:
    """Encode a batch of known size, `chunk_size` items at a time and in order; 0: all at once."""
    num_items = next(iter(batch.values())).shape[0]
    if not 0 < chunk_size < num_items:
        return encode(batch)
    num_first = (num_items - 1) % chunk_size + 1  # all other chunks are whole
    first = encode(_part(batch, 0, num_first))
    shape = (-1, chunk_size)
    chunks = {name: tf.reshape(x[num_first:], (*shape, *x.shape[1:])) for name, x in batch.items()}
    dtypes = {name: x.dtype for name, x in first.items()}
    more = tf.map_fn(encode, chunks, fn_output_signature=dtypes, parallel_iterations=1)
    return {n: tf.concat([x, tf.reshape(more[n], (-1, *x.shape[1:]))], axis=0) for n, x in first.items()}
