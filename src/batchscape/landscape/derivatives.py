"""Derivatives of a model's mean loss with respect to its weights, on the backend that Keras runs on.

All functions here take the weights as arguments and go through `model.stateless_call`, so they never touch the model.
Sums over examples are kept in float64; each example is computed in the precision of the model. What is compiled stands in
`derivatives_tensorflow` and `derivatives_jax`; this is what they share.
"""

import abc
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from batchscape import backend
from batchscape.backend import keras_private
from batchscape.data.splits import count
from batchscape.landscape.first_layer import FirstLayer
from batchscape.models.losses import ModelLoss

BLOCK_BYTES = 1 << 28
"""Memory for the per-example gradients of a block, about 256 MB; four bytes a weight and example, and as much again."""

POINTS_PER_CALL = 32
"""Points of a line or plane that one call evaluates."""

KEPT_BYTES = 2 << 30
"""Memory for what the first layer makes of all examples at the corners of a line or plane; more is made anew."""

FEWEST_PRODUCTS = 64
"""Products behind each number that the first layer makes, from which on it pays to keep it: reading one takes time too.

With 784, in the MLP, a line has 5 times the points a second; with 25, in LeNet, it has 0.9 times (`benchmarks/minima.py`).
"""

VECTORS_PER_PASS = 8
"""Hessian-vector products that share one forward and one gradient pass; more only cost compile time."""


def derivatives(*arguments, **options) -> "Derivatives":
    """The `Derivatives` of this backend."""
    return backend.part_of(__name__).Derivatives(*arguments, **options)


class Derivatives(abc.ABC):
    """The mean loss and metrics over all examples, and the gradient and Hessian of the loss, as compiled functions.

    Args:
        model: A built Keras model.
        x: Inputs, shape (n, ...) or a tree of such arrays; they are put on the device.
        y: Targets, shape (n, ...) or a tree of such arrays; None where there are none.
        loss: The loss of the model, as `resolve_loss` gives it.
        metrics: Functions (y_true, y_pred) -> one value an example.
        chunk: Largest number of examples in a forward pass; the batch size of a loss that depends on the batch.
        sample_weight: What the loss of each example counts, shape (n,) or a tree of such arrays; 1 if None.
        regularizers: Whether penalties of weights are part of the loss.
        as_one_batch: Whether a loss that is a ratio is that of all examples as one batch, whatever the chunk.
        jit: Whether XLA compiles; by the rule of the backend if None.
    """

    def __init__(
        self,
        model: keras.Model,
        x,
        y,
        loss: ModelLoss,
        metrics: Sequence[Callable] = (),
        *,
        chunk: int,
        sample_weight: np.ndarray | None = None,
        regularizers: bool = True,
        as_one_batch: bool = False,
        jit: bool | None = None,
    ):
        self._model, self._model_loss, self._metrics, self._chunk = model, loss, metrics, chunk
        self._regularizers, self._is_weighted = regularizers, sample_weight is not None
        self._n_values = 1 + len(metrics)
        self._n = count(x)
        counts = np.ones(self._n) if sample_weight is None else sample_weight
        counts = keras.tree.map_structure(lambda array: np.asarray(array, np.float32), counts)
        self._examples = self._to_device((x, () if y is None else y, counts))
        self._shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._dtype = model.trainable_variables[0].dtype
        jit = self._chooses_xla(x, min(chunk, self._n)) if jit is None else jit
        self._means = self._program(self._sum_functions, jit)
        self._gradient = self._program(self._sum_gradients, jit)
        self._batch_gradient = self._program(self._mean_gradient, jit)
        self._points = self._program(self._sum_at_points, jit)
        self._first = self._program(self._first_outputs, jit)
        self._moments = self._program(self._mean_moments, jit)
        self._products = self._program(self._sum_products, jit)
        self._example_sums = self._program(self._sum_examples, jit)
        self._batch_gradients = self._program(self._mean_gradients, jit)
        self._mean_places = self._places(jit) if as_one_batch else None

    def means(self, trainable: np.ndarray, other: Sequence[np.ndarray]) -> np.ndarray:
        """The mean loss and metrics, float64, shape (1 + metrics,).

        Args:
            trainable: All trainable weights as one vector, shape (p,).
            other: The other variables, in the order of `model.non_trainable_variables`.
        """
        return np.asarray(self._means(*self._arguments(trainable, other))) / self._n

    def value_and_gradient(
        self, trainable: np.ndarray, other: Sequence[np.ndarray], rows: np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """The mean loss and its gradient, float64, shape (p,), over all examples or over some rows."""
        arguments = self._arguments(trainable, other)
        if rows is None:
            loss, gradient = (np.asarray(total) / self._n for total in self._gradient(*arguments))
        else:
            loss, gradient = map(np.asarray, self._batch_gradient(*arguments, rows))
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
            inside = rows < self._n
            block_sum, block_squares = self._example_sums(*arguments, np.minimum(rows, self._n - 1), inside)
            total += np.asarray(block_sum)
            squares.append(np.asarray(block_squares)[inside])
        return total, np.concatenate(squares)

    def batch_gradients(self, trainable: np.ndarray, other: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """The mean gradients of batches of examples, shape (batches, B) of row numbers -> float64, shape (batches, p)."""
        arguments = self._arguments(trainable, other)
        block = self._block(len(rows), sum(self._sizes))
        padded = np.resize(rows, (-(-len(rows) // block) * block, rows.shape[1]))
        gradients = [
            np.asarray(self._batch_gradients(*arguments, part)) for part in np.split(padded, len(padded) // block)
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
            product = self._products(*arguments, ops.convert_to_tensor(padded, self._dtype))
            blocks.append(np.asarray(product)[: len(block)])
        return np.concatenate(blocks) / self._n

    def means_at(
        self, trainable: np.ndarray, other: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """The mean loss and metrics at sums of points Σₖ cₖ wₖ.

        What the first layer makes of the data at each of the points is kept as long as the function that is returned.

        Args:
            trainable: The points wₖ, shape (k, p).
            other: The other variables at each of them, a list of arrays of shape (k, ...).

        Returns:
            A function of the cₖ of each sum, shape (m, k), and of those of the other variables, shape (m, k); it returns
            the means, float64, shape (m, 1 + metrics).
        """
        stacked = self._to_device((trainable.astype(np.float64), list(other)))
        products = self._linear_parts(trainable, other)

        def means(shares: np.ndarray, others: np.ndarray) -> np.ndarray:
            size = -(-len(shares) // -(-len(shares) // POINTS_PER_CALL))
            found = []
            for first in range(0, len(shares), size):
                rows = np.minimum(np.arange(first, first + size), len(shares) - 1)
                sums = self._points(self._examples, *stacked, products, shares[rows], others[rows])
                found.append(np.asarray(sums))
            return np.concatenate(found)[: len(shares)] / self._n

        return means

    def _linear_parts(self, trainable, other) -> list:
        """What the first layer makes of the data at each point, before its bias; empty where there is none to keep."""
        first = self._first_layer
        if first is None or (first.moves and any((value != value[:1]).any() for value in other)):
            return []
        if first.products < FEWEST_PRODUCTS or 4 * first.size * self._n * len(trainable) > KEPT_BYTES:
            return []
        others = [[value[k] for value in other] for k in range(len(trainable))]
        return [self._first(*self._arguments(*point)) for point in zip(trainable, others, strict=True)]

    def moments(self, trainable: np.ndarray, other: Sequence[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """The other variables, with the moments of every BatchNorm layer as means over batches, rows (batches, B)."""
        if not self._scale_of_moments():
            return list(other)
        return [np.asarray(value) for value in self._moments(*self._arguments(trainable, other), rows)]

    def _block(self, n: int, size: int) -> int:
        """How many of n examples or batches are worked on at a time, where each makes `size` numbers."""
        return min(n, max(1, BLOCK_BYTES // (8 * max(size, 1))))

    def _arguments(self, trainable, other):
        return self._examples, ops.convert_to_tensor(trainable, self._dtype), self._to_device(list(other))

    def _variables(self, trainable) -> list:
        parts = self._split(trainable, self._sizes)
        return [ops.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _predict(self, trainable, other, x):
        """Outputs."""
        return backend.stateless_call(self._model, self._variables(trainable), other, x, training=False)[0]

    def _values(self, trainable, other, x, y, counts) -> list:
        """The loss and the metrics of each example of a chunk; see `ModelLoss.values`."""
        return self._model_loss.values(
            self._model,
            self._variables(trainable),
            other,
            x,
            None if isinstance(y, tuple) and not y else y,
            self._metrics,
            sample_weight=counts if self._is_weighted else None,
            regularizers=self._regularizers,
            mean_places=self._mean_places,
        )

    @property
    def _exact(self) -> bool:
        """Whether no example may be in two chunks, for the loss is that of a batch."""
        return not self._model_loss.by_example and self._mean_places is None

    def _places(self, jit: bool) -> list[float]:
        """How many places of an example count, as a mean, for each loss of the model."""
        self._mean_places = 1.0  # So that chunks may overlap.
        variables = np.concatenate([np.ravel(ops.convert_to_numpy(v)) for v in self._model.trainable_variables])
        other = [ops.convert_to_numpy(variable) for variable in self._model.non_trainable_variables]
        sums = self._program(self._sum_places, jit)(*self._arguments(variables, other))
        return (np.asarray(sums) / self._n).tolist()

    def _sums(self, values, mask) -> list:
        """The sum of the loss, and of every metric, over the examples of a chunk; float64."""
        return [self._masked_sum(value, mask) for value in values]

    def _loss(self, trainable, other, x, y, counts, mask):
        return self._masked_sum(self._values(trainable, other, x, y, counts)[0], mask)

    def _first_outputs(self, examples, trainable, other):
        """What the first layer makes of all examples, before its bias."""
        return self._first_layer.linear_part(lambda: self._predict(trainable, other, examples[0]))

    def _mean_moments(self, examples, trainable, other, rows):
        """Moments of batches, by training steps from moments of zero, which give 1 − momentum times those of the batch."""
        variables = self._model.non_trainable_variables
        scale = self._scale_of_moments()
        zeroed = [
            ops.zeros_like(value) if id(variable) in scale else value
            for variable, value in zip(variables, other, strict=True)
        ]

        def of_batch(batch):
            x = self._take(examples[0], batch)
            found = backend.stateless_call(self._model, self._variables(trainable), zeroed, x, training=True)[1]
            return [value / scale[id(v)] for v, value in zip(variables, found, strict=True) if id(v) in scale]

        kinds = [variable.dtype for variable in variables if id(variable) in scale]
        means = iter([self._mean(values) for values in self._map(of_batch, rows, kinds)])
        return [next(means) if id(v) in scale else value for v, value in zip(variables, other, strict=True)]

    def _mean_gradient(self, examples, trainable, other, rows):
        """The mean of the loss, and of its gradient, over some rows."""
        with self._as_a_batch(rows.shape[0]):
            sums = self._sum_gradients(self._take(examples, rows), trainable, other)
        return [total / rows.shape[0] for total in sums]

    @contextlib.contextmanager
    def _as_a_batch(self, n: int) -> Iterator[None]:
        """Take n examples as one batch, as training does, while a function of them is traced."""
        before = self._mean_places, self._chunk
        if self._mean_places is not None:
            self._mean_places, self._chunk = None, max(n, self._chunk)
        try:
            yield
        finally:
            self._mean_places, self._chunk = before

    def _mean_gradients(self, examples, trainable, other, rows):
        """The mean gradients of batches, in the precision of the model."""

        def mean_gradient(batch):
            return ops.cast(self._mean_gradient(examples, trainable, other, batch)[1], self._dtype)

        return self._map(mean_gradient, rows, self._dtype)

    def _scale_of_moments(self) -> dict[int, float]:
        """1 − momentum, by the id of each moment that a BatchNorm layer of the model follows."""
        return {
            id(moment): 1 - layer.momentum
            for layer in keras_private.layers_of(self._model, include_self=False)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
            for moment in (layer.moving_mean, layer.moving_variance)
        }

    @functools.cached_property
    @abc.abstractmethod
    def _first_layer(self) -> FirstLayer | None:
        """The layer whose products with the data are kept along lines and planes."""

    @functools.cached_property
    @abc.abstractmethod
    def _sizes_of_norms(self) -> list[int] | None:
        """How many numbers an example takes where ‖gᵢ‖² can be had without gᵢ, by variable; None where it cannot."""

    @abc.abstractmethod
    def _program(self, function: Callable, jit: bool) -> Callable:
        """Compile a function of (examples, trainable, other, ...), afresh for each shape."""

    @abc.abstractmethod
    def _to_device(self, arrays):
        """A tree of arrays as tensors."""

    @abc.abstractmethod
    def _split(self, vector, sizes: list[int]) -> list:
        """The parts of a vector."""

    @abc.abstractmethod
    def _take(self, examples, rows):
        """Some rows of a tree of tensors."""

    @abc.abstractmethod
    def _map(self, function: Callable, rows, kinds):
        """What a function gives for each of the rows, one after the other, stacked; `kinds` are its types."""

    @abc.abstractmethod
    def _mean(self, values):
        """The mean over the first axis, in the type of the values."""

    @abc.abstractmethod
    def _chooses_xla(self, x, rows: int) -> bool:
        """Whether XLA suits passes of so many examples."""

    @abc.abstractmethod
    def _masked_sum(self, values, mask):
        """Σ of the values that the mask lets through, in float64; see `batches_tensorflow.masked_sum`."""

    @abc.abstractmethod
    def _sum_functions(self, examples, trainable, other):
        """The sum of the loss and of every metric over all examples."""

    @abc.abstractmethod
    def _sum_places(self, examples, trainable, other):
        """How many places of all examples count, for each loss of the model."""

    @abc.abstractmethod
    def _sum_at_points(self, examples, trainable, other, products, shares, others):
        """The sum of the loss and of every metric at each of some sums of points."""

    @abc.abstractmethod
    def _sum_gradients(self, examples, trainable, other):
        """The sum of the loss, and of its gradient."""

    @abc.abstractmethod
    def _sum_examples(self, examples, trainable, other, rows, inside):
        """Σ gᵢ, and ‖gᵢ‖² by variable, over the rows that are inside."""

    @abc.abstractmethod
    def _sum_products(self, examples, trainable, other, vectors):
        """Products of the Hessian of the summed loss with vectors."""
