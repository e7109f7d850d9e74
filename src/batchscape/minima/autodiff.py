"""Derivatives of a model's mean loss with respect to its weights: the one file that knows TensorFlow's tapes.

All functions here take the weights as arguments and go through `model.stateless_call`, so they never touch the model.
Sums over examples are kept in float64; each example is computed in the precision of the model.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from batchscape import chunks, xla

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
        self._gradient = xla.program(self._sum_gradients, jit=jit)
        self._products = xla.program(self._sum_products, jit=jit)

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

    def _arguments(self, trainable, other):
        return tf.constant(trainable, self._dtype), [tf.convert_to_tensor(value) for value in other]

    def _predict(self, trainable, other, x):
        parts = tf.split(trainable, self._sizes)
        variables = [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return self._model.stateless_call(variables, other, x, training=False)[0]

    def _loss(self, trainable, other, x, y, mask):
        return chunks.masked_sum(self._functions[0](y, self._predict(trainable, other, x)), mask)

    def _sum_functions(self, trainable, other):
        def sums(x, y, mask):
            y_pred = self._predict(trainable, other, x)
            return tf.stack([chunks.masked_sum(function(y, y_pred), mask) for function in self._functions])

        return self._accumulate(sums, len(self._functions))

    def _sum_gradients(self, trainable, other):
        def gradient(x, y, mask):
            with tf.GradientTape() as tape:
                tape.watch(trainable)
                loss = self._loss(trainable, other, x, y, mask)
            return tf.cast(tape.gradient(loss, trainable), tf.float64)

        return self._accumulate(gradient, sum(self._sizes))

    def _sum_products(self, trainable, other, vectors):
        def products(x, y, mask):
            with tf.GradientTape(persistent=True) as outer:
                outer.watch(trainable)
                with tf.GradientTape() as inner:
                    inner.watch(trainable)
                    loss = self._loss(trainable, other, x, y, mask)
                gradient = inner.gradient(loss, trainable)
                slopes = [tf.tensordot(gradient, vector, 1) for vector in tf.unstack(vectors)]
            # A model that is linear in its weights has no second derivative to find: that is zero, not an error.
            zero = tf.UnconnectedGradients.ZERO
            rows = [outer.gradient(slope, trainable, unconnected_gradients=zero) for slope in slopes]
            return tf.cast(tf.stack(rows), tf.float64)

        return self._accumulate(products, (vectors.shape[0], sum(self._sizes)))

    def _accumulate(self, function, shape):
        return chunks.accumulate(function, tf.zeros(shape, tf.float64), self._examples, chunk=self._chunk)
