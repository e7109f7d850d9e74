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
from batchscape.minima import example_norms, first_layer
from batchscape.minima.first_layer import FirstLayer

BLOCK_BYTES = 1 << 28
"""Memory for the per-example gradients of a block, about 256 MB; four bytes a weight and example, and as much again."""

POINTS_PER_CALL = 32
"""Points of a line or plane that one call evaluates."""

KEPT_BYTES = 2 << 30
"""Memory for what the first layer makes of all examples at the corners of a line or plane; more is made anew."""

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
        sample_weight: What the loss of each example counts, shape (n,); 1 if None.
        regularizers: Whether the loss has the terms that layers add to it.
        jit: Whether XLA compiles; by the rule of `xla` if None.
    """

    def __init__(
        self,
        model: keras.Model,
        x,
        y,
        functions: Sequence[Callable],
        *,
        chunk: int,
        sample_weight: np.ndarray | None = None,
        regularizers: bool = False,
        jit: bool | None = None,
    ):
        self._model, self._functions, self._chunk, self._regularizers = model, functions, chunk, regularizers
        jit = xla.work_of(model, x).suits_xla(min(chunk, len(y))) if jit is None else jit
        self._n = len(y)
        counts = np.ones(self._n) if sample_weight is None else sample_weight
        self._examples = chunks.to_device((x, y, counts.astype(np.float32)))
        self._shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._dtype = model.trainable_variables[0].dtype
        self._means = xla.program(self._sum_functions, jit=jit)
        self._gradient = xla.program(lambda *weights: self._sum_gradients(*weights, self._examples), jit=jit)
        self._batch_gradient = xla.program(self._mean_gradient, jit=jit)
        self._points = xla.program(self._sum_at_points, jit=jit)
        self._first = xla.program(self._first_outputs, jit=jit)
        self._moments = xla.program(self._mean_moments, jit=jit)
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

    def value_and_gradient(
        self, trainable: np.ndarray, other: Sequence[np.ndarray], rows: np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """The mean loss and its gradient, float64, shape (p,), over all examples or over some rows."""
        arguments = self._arguments(trainable, other)
        if rows is None:
            loss, gradient = (total.numpy() / self._n for total in self._gradient(*arguments))
        else:
            loss, gradient = (mean.numpy() for mean in self._batch_gradient(*arguments, tf.constant(rows)))
        return float(loss), gradient

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

    def means_at(
        self, trainable: np.ndarray, other: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """The mean of every function at sums of points Σₖ cₖ wₖ.

        What the first layer makes of the data at each of the points is kept as long as the function that is returned.

        Args:
            trainable: The points wₖ, shape (k, p).
            other: The other variables at each of them, a list of arrays of shape (k, ...).

        Returns:
            A function of the cₖ of each sum, shape (m, k), and of those of the other variables, shape (m, k); it returns
            the means, float64, shape (m, functions).
        """
        stacked = tf.constant(trainable, tf.float64), [tf.convert_to_tensor(value) for value in other]
        products = self._linear_parts(trainable, other)

        def means(shares: np.ndarray, others: np.ndarray) -> np.ndarray:
            size = -(-len(shares) // -(-len(shares) // POINTS_PER_CALL))
            found = []
            for first in range(0, len(shares), size):
                rows = np.minimum(np.arange(first, first + size), len(shares) - 1)
                sums = self._points(*stacked, products, tf.constant(shares[rows]), tf.constant(others[rows]))
                found.append(sums.numpy())
            return np.concatenate(found)[: len(shares)] / self._n

        return means

    def _linear_parts(self, trainable, other) -> list[tf.Tensor]:
        """What the first layer makes of the data at each point, before its bias; empty where there is none to keep."""
        first = self._first_layer
        if first is None or (first.moves and any((value != value[:1]).any() for value in other)):
            return []
        if 4 * first.size * self._n * len(trainable) > KEPT_BYTES:
            return []
        others = [[value[k] for value in other] for k in range(len(trainable))]
        return [self._first(*self._arguments(*point)) for point in zip(trainable, others, strict=True)]

    def moments(self, trainable: np.ndarray, other: Sequence[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """The other variables, with the moments of every BatchNorm layer as means over batches, rows (batches, B)."""
        return [value.numpy() for value in self._moments(*self._arguments(trainable, other), tf.constant(rows))]

    def _block(self, n: int, size: int) -> int:
        """How many of n examples or batches are worked on at a time, where each makes `size` numbers."""
        return min(n, max(1, BLOCK_BYTES // (8 * max(size, 1))))

    def _arguments(self, trainable, other):
        return tf.constant(trainable, self._dtype), [tf.convert_to_tensor(value) for value in other]

    def _variables(self, trainable) -> list[tf.Tensor]:
        parts = tf.split(trainable, self._sizes)
        return [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _predict(self, trainable, other, x):
        """Outputs, and what layers add to the loss."""
        found = self._model.stateless_call(
            self._variables(trainable), other, x, training=False, return_losses=self._regularizers
        )
        terms = [tf.cast(term, self._dtype) for term in found[2]] if self._regularizers else []
        return found[0], tf.add_n(terms) if terms else tf.zeros((), self._dtype)

    def _loss(self, trainable, other, x, y, counts, mask):
        return self._totals(*self._predict(trainable, other, x), y, counts, mask)[0]

    def _totals(self, y_pred, penalty, y, counts, mask):
        """The sum of every function over the examples of a chunk; float64, a list."""
        values = [function(y, y_pred) for function in self._functions]
        values[0] = values[0] * tf.cast(counts, values[0].dtype) + tf.cast(penalty, values[0].dtype)
        return [chunks.masked_sum(value, mask) for value in values]

    def _sum_functions(self, trainable, other):
        def sums(x, y, counts, mask):
            return tf.stack(self._totals(*self._predict(trainable, other, x), y, counts, mask))

        return self._accumulate(sums, tf.zeros(len(self._functions), tf.float64), self._examples)

    @functools.cached_property
    def _first_layer(self) -> FirstLayer | None:
        found = []

        def probe(trainable, other):
            x = chunks.take(self._examples[0], [0])
            found.append(first_layer.find(self._model, lambda: self._predict(trainable, other, x), trainable, other))

        other = [tf.convert_to_tensor(variable.value) for variable in self._model.non_trainable_variables]
        tf.function(probe, autograph=False).get_concrete_function(tf.zeros(sum(self._sizes), self._dtype), other)
        return found[0]

    def _first_outputs(self, trainable, other):
        x = self._examples[0]
        return self._first_layer.linear_part(lambda: self._predict(trainable, other, x))

    def _sum_at_points(self, trainable, other, products, shares, others):
        def sums_at(share_and_other):
            share, share_of_other = share_and_other
            here = tf.cast(tf.linalg.matvec(trainable, share, transpose_a=True), self._dtype)
            rest = [_weighted(value, share_of_other) for value in other]

            def sums(x, y, counts, parts, mask):
                def call():
                    return self._predict(here, rest, x)

                if parts:
                    product = tf.add_n(
                        [tf.cast(c, part.dtype) * part for c, part in zip(tf.unstack(share), parts, strict=True)]
                    )
                    outputs = self._first_layer.with_linear_part(product, call)
                else:
                    outputs = call()
                return tf.stack(self._totals(*outputs, y, counts, mask))

            start = tf.zeros(len(self._functions), tf.float64)
            x, y, counts = self._examples
            return self._accumulate(sums, start, (x, y, counts, products) if products else (x, y, counts, []))

        return tf.map_fn(sums_at, (shares, others), fn_output_signature=tf.float64)

    def _mean_moments(self, trainable, other, rows):
        """Moments of batches, by training steps from moments of zero, which give 1 − momentum times those of the batch."""
        variables = self._model.non_trainable_variables
        scale = _scale_of_moments(self._model)
        zeroed = [
            tf.zeros_like(value) if id(variable) in scale else value
            for variable, value in zip(variables, other, strict=True)
        ]

        def of_batch(batch):
            x = chunks.take(self._examples[0], batch)
            found = self._model.stateless_call(self._variables(trainable), zeroed, x, training=True)[1]
            return [value / scale[id(v)] for v, value in zip(variables, found, strict=True) if id(v) in scale]

        kinds = [variable.dtype for variable in variables if id(variable) in scale]
        means = iter([tf.reduce_mean(value, axis=0) for value in tf.map_fn(of_batch, rows, fn_output_signature=kinds)])
        return [next(means) if id(v) in scale else value for v, value in zip(variables, other, strict=True)]

    def _value_and_gradient(self, trainable, other, x, y, counts, mask):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            loss = self._loss(trainable, other, x, y, counts, mask)
        return loss, tape.gradient(loss, trainable)

    def _sum_gradients(self, trainable, other, examples):
        def gradient(*chunk):
            loss, gradient = self._value_and_gradient(trainable, other, *chunk)
            return loss, tf.cast(gradient, tf.float64)

        start = tf.zeros((), tf.float64), tf.zeros(sum(self._sizes), tf.float64)
        return self._accumulate(gradient, start, examples)

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
        return None if None in found or self._regularizers else [use.size for use in found[0]]

    def _sum_examples(self, trainable, other, rows, inside):
        way = self._sum_by_gradients if self._sizes_of_norms is None else self._sum_by_slopes
        return way(trainable, other, rows, inside)

    def _sum_by_slopes(self, trainable, other, rows, inside):
        """Σ gᵢ and ‖gᵢ‖² by way of the slopes at the layers."""
        x, y, counts = chunks.take(self._examples, rows)
        variables = self._variables(trainable)
        y_pred = self._model.stateless_call(variables, other, x, training=False)[0]
        loss = self._totals(y_pred, tf.zeros((), self._dtype), y, counts, inside)[0]
        squares = example_norms.square_norms(loss, example_norms.uses(variables, rows.shape[0]))
        return tf.cast(tf.gradients(loss, trainable)[0], tf.float64), tf.cast(squares, tf.float64)

    def _sum_by_gradients(self, trainable, other, rows, inside):
        """Σ gᵢ and ‖gᵢ‖² from the gradients themselves, for any model."""

        def gradient(example):
            one = keras.tree.map_structure(lambda array: array[None], example)
            return self._value_and_gradient(trainable, other, *one, True)[1]

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
            return tf.cast(self._mean_gradient(trainable, other, batch)[1], self._dtype)

        return tf.map_fn(mean_gradient, rows, fn_output_signature=self._dtype)

    def _mean_gradient(self, trainable, other, rows):
        sums = self._sum_gradients(trainable, other, chunks.take(self._examples, rows))
        return [total / rows.shape[0] for total in sums]

    def _sum_products(self, trainable, other, vectors):
        def products(*chunk):
            with tf.GradientTape(persistent=True) as outer:
                outer.watch(trainable)
                _, gradient = self._value_and_gradient(trainable, other, *chunk)
                slopes = [tf.tensordot(gradient, vector, 1) for vector in tf.unstack(vectors)]
            # A model that is linear in its weights has no second derivative to find: that is zero, not an error.
            zero = tf.UnconnectedGradients.ZERO
            rows = [outer.gradient(slope, trainable, unconnected_gradients=zero) for slope in slopes]
            return tf.cast(tf.stack(rows), tf.float64)

        return self._accumulate(products, tf.zeros((vectors.shape[0], sum(self._sizes)), tf.float64), self._examples)

    def _accumulate(self, function, start, examples):
        return chunks.accumulate(function, start, examples, chunk=self._chunk)


def _weighted(values: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Σ cₖ vₖ over the first axis; whole numbers, which no sum makes sense of, are those of the first."""
    if not values.dtype.is_floating:
        return values[0]
    return tf.cast(tf.tensordot(shares, tf.cast(values, shares.dtype), 1), values.dtype)


def _scale_of_moments(model: keras.Model) -> dict[int, float]:
    """1 − momentum, by the id of each moment that a BatchNorm layer of a model follows."""
    return {
        id(moment): 1 - layer.momentum
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for moment in (layer.moving_mean, layer.moving_variance)
    }
