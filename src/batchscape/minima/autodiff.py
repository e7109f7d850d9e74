"""Derivatives of a model's mean loss with respect to its weights: the one file that knows TensorFlow's tapes.

All functions here take the weights as arguments and go through `model.stateless_call`, so they never touch the model.
Sums over examples are kept in float64; each example is computed in the precision of the model.
"""

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from batchscape import chunks, xla
from batchscape.minima import example_norms

BLOCK_BYTES = 1 << 28
"""Memory for the per-example gradients of a block, about 256 MB; four bytes a weight and example, and as much again."""

VECTORS_PER_PASS = 8
"""Hessian-vector products that share one forward and one gradient pass; more only cost compile time."""


class Derivatives:
    """The mean of some functions over all examples, and the gradient and Hessian of the first, as compiled functions.

    Args:
        model: A built Keras model.
        x: Inputs, shape (n, ...) or a tree of such arrays; they are put on the device.
        y: Targets, shape (n, ...).
        functions: (y_true, y_pred) -> one value an example; the first is the loss.
        chunk: Largest number of examples in a forward pass.
        jit: Whether XLA compiles; by the rule of `xla` if None.
    """

    def __init__(self, model: keras.Model, x, y, functions: Sequence[Callable], *, chunk: int, jit: bool | None = None):
        self._model, self._functions, self._chunk = model, functions, chunk
        jit = xla.work_of(model, x).suits_xla(min(chunk, len(y))) if jit is None else jit
        self._n = len(y)
        self._examples = chunks.to_device((x, y))
        self._shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._dtype = model.trainable_variables[0].dtype
        self._means = xla.program(self._sum_functions, jit=jit)
        self._gradient = xla.program(lambda *weights: self._sum_gradients(*weights, self._examples), jit=jit)
        self._products = xla.program(self._sum_products, jit=jit)
        self._example_sums = xla.program(self._sum_examples, jit=jit)
        self._batch_gradients = xla.program(self._mean_gradients, jit=jit)

    def means(self, trainable: np.ndarray, other: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of every function, float64, shape (functions,).

        Args:
            trainable: All trainable weights as one vector, shape (p,).
            other: The other variables, in the order of `model.non_trainable_variables`.
        """
        return self._means(*self._arguments(trainable, other)).numpy() / self._n

    def gradient(self, trainable: np.ndarray, other: Sequence[np.ndarray]) -> np.ndarray:
        """The gradient of the mean loss, float64, shape (p,)."""
        return self._gradient(*self._arguments(trainable, other)).numpy() / self._n

    def example_gradient_sums(
        self, trainable: np.ndarray, other: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Σ gᵢ over all examples, shape (p,), and ‖gᵢ‖² for each example and variable, shape (n, variables), float64."""
        arguments = self._arguments(trainable, other)
        sizes = self._sizes_of_norms
        block = self._block(self._n, sum(self._sizes)) if sizes is None else self._block(self._chunk, sum(sizes))
        block = -(-self._n // -(-self._n // block))  # Blocks of one size, with as little padding as can be.
        total, squares = np.zeros(sum(self._sizes)), []
        for first in range(0, self._n, block):
            rows = np.arange(first, first + block)
            inside = tf.constant(rows < self._n)
            block_sum, block_squares = self._example_sums(
                *arguments, tf.constant(np.minimum(rows, self._n - 1)), inside
            )
            total += block_sum.numpy()
            squares.append(block_squares.numpy()[rows < self._n])
        return total, np.concatenate(squares)

    def batch_gradients(self, trainable: np.ndarray, other: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """The mean gradients of batches of examples, shape (batches, B) of row numbers -> float64, shape (batches, p)."""
        arguments = self._arguments(trainable, other)
        block = self._block(len(rows), sum(self._sizes))
        padded = np.resize(rows, (-(-len(rows) // block) * block, rows.shape[1]))
        gradients = [
            self._batch_gradients(*arguments, tf.constant(part)) for part in np.split(padded, len(padded) // block)
        ]
        return np.concatenate(gradients)[: len(rows)].astype(np.float64)

    def products(self, trainable: np.ndarray, other: Sequence[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Products of the Hessian of the mean loss with the rows of `vectors`, float64, shape (k, p)."""
        arguments = self._arguments(trainable, other)
        blocks = []
        for first in range(0, len(vectors), VECTORS_PER_PASS):
            block = vectors[first : first + VECTORS_PER_PASS]
            width = 1 if len(block) == 1 else VECTORS_PER_PASS  # Two widths, so that two programs serve every k.
            padded = np.zeros((width, vectors.shape[1]))
            padded[: len(block)] = block
            product = self._products(*arguments, tf.constant(padded, self._dtype))
            blocks.append(product.numpy()[: len(block)])
        return np.concatenate(blocks) / self._n

    def _block(self, n: int, size: int) -> int:
        """How many of n examples or batches are worked on at a time, where each makes `size` numbers."""
        return min(n, max(1, BLOCK_BYTES // (8 * max(size, 1))))

    def _arguments(self, trainable, other):
        return tf.constant(trainable, self._dtype), [tf.convert_to_tensor(value) for value in other]

    def _variables(self, trainable) -> list[tf.Tensor]:
        parts = tf.split(trainable, self._sizes)
        return [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _predict(self, trainable, other, x):
        return self._model.stateless_call(self._variables(trainable), other, x, training=False)[0]

    def _loss(self, trainable, other, x, y, mask):
        return chunks.masked_sum(self._functions[0](y, self._predict(trainable, other, x)), mask)

    def _sum_functions(self, trainable, other):
        def sums(x, y, mask):
            y_pred = self._predict(trainable, other, x)
            return tf.stack([chunks.masked_sum(function(y, y_pred), mask) for function in self._functions])

        return self._accumulate(sums, len(self._functions), self._examples)

    def _gradient_of_loss(self, trainable, other, x, y, mask):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            loss = self._loss(trainable, other, x, y, mask)
        return tape.gradient(loss, trainable)

    def _sum_gradients(self, trainable, other, examples):
        def gradient(x, y, mask):
            return tf.cast(self._gradient_of_loss(trainable, other, x, y, mask), tf.float64)

        return self._accumulate(gradient, sum(self._sizes), examples)

    @functools.cached_property
    def _sizes_of_norms(self) -> list[int] | None:
        """How many numbers an example takes where ‖gᵢ‖² can be had without gᵢ, by variable; None where it cannot."""
        found = []

        def probe(trainable, other, x, n):
            variables = self._variables(trainable)
            self._model.stateless_call(variables, other, x, training=False)
            found.append(example_norms.uses(variables, n))

        other = [variable.value for variable in self._model.non_trainable_variables]
        trainable = tf.zeros(sum(self._sizes), self._dtype)
        for n in (2, 3):  # Two numbers of examples, since one may be the size of something else.
            x = chunks.take(self._examples[0], [0] * n)
            tf.function(probe, autograph=False).get_concrete_function(trainable, other, x, n)
        return None if None in found else [use.size for use in found[0]]

    def _sum_examples(self, trainable, other, rows, inside):
        way = self._sum_by_gradients if self._sizes_of_norms is None else self._sum_by_slopes
        return way(trainable, other, rows, inside)

    def _sum_by_slopes(self, trainable, other, rows, inside):
        """Σ gᵢ and ‖gᵢ‖² by way of the slopes at the layers."""
        x, y = chunks.take(self._examples, rows)
        variables = self._variables(trainable)
        y_pred = self._model.stateless_call(variables, other, x, training=False)[0]
        loss = chunks.masked_sum(self._functions[0](y, y_pred), inside)
        squares = example_norms.square_norms(loss, example_norms.uses(variables, rows.shape[0]))
        return tf.cast(tf.gradients(loss, trainable)[0], tf.float64), tf.cast(squares, tf.float64)

    def _sum_by_gradients(self, trainable, other, rows, inside):
        """Σ gᵢ and ‖gᵢ‖² from the gradients themselves, for any model."""

        def gradient(example):
            x, y = keras.tree.map_structure(lambda array: array[None], example)
            return self._gradient_of_loss(trainable, other, x, y, True)

        examples = chunks.take(self._examples, rows)
        try:
            gradients = tf.vectorized_map(gradient, examples)
        except (TypeError, ValueError, NotImplementedError):  # As for the loops of recurrent layers.
            gradients = tf.map_fn(gradient, examples, fn_output_signature=self._dtype)
        parts = tf.split(tf.where(inside[:, None], gradients, 0.0), self._sizes, axis=1)
        squares = tf.stack([tf.reduce_sum(part * part, axis=1) for part in parts], axis=1)
        total = tf.concat([tf.reduce_sum(part, axis=0) for part in parts], axis=0)
        return tf.cast(total, tf.float64), tf.cast(squares, tf.float64)

    def _mean_gradients(self, trainable, other, rows):
        def mean_gradient(batch):
            total = self._sum_gradients(trainable, other, chunks.take(self._examples, batch))
            return tf.cast(total / rows.shape[1], self._dtype)

        return tf.map_fn(mean_gradient, rows, fn_output_signature=self._dtype)

    def _sum_products(self, trainable, other, vectors):
        def products(x, y, mask):
            with tf.GradientTape(persistent=True) as outer:
                outer.watch(trainable)
                gradient = self._gradient_of_loss(trainable, other, x, y, mask)
                slopes = [tf.tensordot(gradient, vector, 1) for vector in tf.unstack(vectors)]
            # A model that is linear in its weights has no second derivative to find: that is zero, not an error.
            zero = tf.UnconnectedGradients.ZERO
            rows = [outer.gradient(slope, trainable, unconnected_gradients=zero) for slope in slopes]
            return tf.cast(tf.stack(rows), tf.float64)

        return self._accumulate(products, (vectors.shape[0], sum(self._sizes)), self._examples)

    def _accumulate(self, function, shape, examples):
        return chunks.accumulate(function, tf.zeros(shape, tf.float64), examples, chunk=self._chunk)
