"""The loss of a Keras model as a function of its weights."""

import functools
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import keras
import numpy as np

from batchscape import backend
from batchscape.data import Data
from batchscape.errors import InvalidInput, UserCodeError, reason_of, unknown_name, warn
from batchscape.landscape import derivatives, filters
from batchscape.landscape.digest import digest
from batchscape.models import agreement, outputs, own_step
from batchscape.models.metrics import metric_functions
from batchscape.models.resolve_loss import loss_of, resolve_loss
from batchscape.system import memory
from batchscape.train.record import Weights

BATCH_NORM = ("interpolate", "keep", "reestimate")


class Objective:
    """Mean loss and accuracy of a model on a data set, at any weights; the model itself is never touched.

    `weights` everywhere is what `model.get_weights()` returns; vectors hold the trainable weights alone, in the order of
    `model.trainable_variables`. Layers run in inference mode: dropout is off, and BatchNorm uses the moments among
    `weights`, unless they are estimated anew.

    Args:
        model: Any built Keras 3 model.
        x: Inputs, shape (n, ...) or a tree of such arrays.
        y: Targets, shape (n, ...), or a tree of such arrays for several outputs; None where the model takes none.
        loss: A Keras loss, its name or a function, or a list or dict of these; None for the compiled one, or what the labels
            say.
        metrics: Names of Keras metrics that are means over examples.
        sample_weight: What the loss of each example counts, shape (n,), or a tree of such arrays, one for each output; the
            loss is Σ sᵢℓᵢ / n, as in Keras.
        measure: A function (model, x, y) -> the loss of a batch, or one value an example, in place of the compiled loss: for a
            model with a `train_step` of its own.
        regularizers: Whether penalties of weights are part of the loss, as in `evaluate`.
        batch_norm: Where the moments of BatchNorm come from at a point between several weights: `"interpolate"`, from
            theirs (beyond the ends, from the nearest one, for a variance must stay positive); `"keep"`, from the first;
            `"reestimate"`, from `moments_from` at every point, as the means over batches (dropout is on there, with the
            same units at each point).
        moments_from: (batches, examples of each) that moments are estimated from.
        batch_size: Examples in a forward pass; by default as many as suits memory. Results depend on it only where the loss
            depends on the batch, as a mean over unmasked places does: the value is then that of `evaluate` with this
            `batch_size`, and by default that of all examples as one batch.

    Raises:
        InvalidInput: For a model that is not built, unequal lengths, or options that make no sense.

    Example:
        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits")
        >>> model = bs.build_model("mlp", data, seed=0)
        >>> f = Objective(model, data.x_train, data.y_train)
        >>> abs(f(f.weights) - f.evaluate(f.weights)["loss"]) < 1e-6
        True
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        loss: Any = None,
        *,
        metrics: tuple[str, ...] = ("accuracy",),
        sample_weight: Any = None,
        measure: Callable[[keras.Model, Any, Any], Any] | None = None,
        regularizers: bool = True,
        batch_norm: str = "interpolate",
        moments_from: tuple[int, int] = (8, 256),
        batch_size: int | None = None,
    ):
        if not isinstance(model, keras.Model) or not (model.built or (own_step.has_own_step(model) and model.weights)):
            raise InvalidInput(f"Objective needs a built keras.Model. Received: {type(model).__name__}, not built")
        if hasattr(x, "element_spec"):
            raise InvalidInput(
                "Objective needs arrays, such as *load_dataset(pipeline).examples('train'). Received: a tf.data.Dataset"
            )
        x, y = _as_arrays(x), None if y is None else _as_arrays(y)
        lengths = [[len(leaf) for leaf in keras.tree.flatten(part)] for part in ([x] if y is None else [x, y])]
        n = lengths[0][0]
        if {length for part in lengths for length in part} != {n} or not n:
            raise InvalidInput(
                "Inputs and targets must have equal lengths, at least 1. Received: "
                + " and ".join(str(part[0] if len(part) == 1 else part) for part in lengths)
            )
        if batch_size is not None and batch_size < 1:
            raise InvalidInput(f"batch_size must be an integer ≥ 1. Received: batch_size={batch_size}")
        if batch_norm not in BATCH_NORM:
            raise unknown_name("batch_norm", batch_norm, BATCH_NORM)
        if sample_weight is not None:
            sample_weight = keras.tree.map_structure(lambda each: np.asarray(each, np.float32), sample_weight)
            for each in keras.tree.flatten(sample_weight):
                if each.shape[:1] != (n,) or not (np.isfinite(each) & (each >= 0)).all():
                    raise InvalidInput(f"sample_weight must be {n} finite numbers ≥ 0. Received: shape {each.shape}")
        if min(moments_from) < 1:
            raise InvalidInput(f"moments_from must be two integers ≥ 1. Received: moments_from={moments_from}")
        self._model, self._n_examples = model, n
        self._batch_norm, self._regularizers = batch_norm, regularizers
        examples = tuple(part for part in (x, y, sample_weight) if part is not None)
        self._digest = digest(keras.tree.flatten(examples))
        self._rows_of_moments = _some_rows(n, *moments_from)
        self._at: tuple[np.ndarray, list] | None = None
        self._loss = resolve_loss(model, x, y, loss, sample_weight=sample_weight, measure=measure)
        if self._loss.why_unmeasured:
            raise InvalidInput(
                f"The own train_step of {type(model).__name__} decides what is minimised: give measure=..., a function "
                f"(model, x, y) -> loss. Received: {self._loss.why_unmeasured}"
            )
        warn(*self._loss.caveats(), *_caveats(model, self._loss, loss))
        if self._loss.own and not regularizers:
            raise InvalidInput(
                "regularizers=False needs Keras' own compute_loss, whose penalties are known. "
                f"Received: {type(model).__name__}.compute_loss"
            )
        if loss is None and model.compiled and self._loss.measure is None:
            found = agreement.disagreement(model, self._loss, examples, agreement.compute_loss_of(model))
            warn(*([found] if found else []))
        as_one_batch = self._loss.is_ratio and batch_size is None
        in_parts = as_one_batch or not self._loss.why_batch
        chunk = batch_size or (outputs.examples_in_a_pass(model, x) if in_parts else n)
        self._batch_size = n if as_one_batch else chunk
        counted = metric_functions(metrics, model, x, y, self._loss)
        self.names = ("loss", *counted)
        self._derivatives = derivatives.derivatives(
            model, x, y, self._loss, list(counted.values()), chunk=chunk, sample_weight=sample_weight,
            regularizers=regularizers, as_one_batch=as_one_batch,
        )  # fmt: skip
        self._trainable = _positions(model.trainable_variables, model.weights)
        self._other = _positions(model.non_trainable_variables, model.weights)

    def __repr__(self) -> str:
        return f"Objective({self._model.name}, {self.n_parameters} parameters, {', '.join(self.names)})"

    @property
    def weights(self) -> Weights:
        """A copy of the weights that the model has now."""
        return self._model.get_weights()

    @property
    def n_parameters(self) -> int:
        """Number of trainable weights, p."""
        return sum(int(np.prod(variable.shape)) for variable in self._model.trainable_variables)

    @property
    def batch_size(self) -> int:
        """Number of examples in a forward pass."""
        return self._batch_size

    @property
    def n_examples(self) -> int:
        """Number of examples, n."""
        return self._n_examples

    @property
    def variable_names(self) -> tuple[str, ...]:
        """Paths of the trainable variables, such as `dense/kernel`."""
        return tuple(variable.path for variable in self._model.trainable_variables)

    @property
    def variable_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the trainable variables."""
        return tuple(tuple(variable.shape) for variable in self._model.trainable_variables)

    @functools.cached_property
    def unit_axes(self) -> list[tuple[int, ...] | None]:
        """The axes of each trainable variable within a unit; see `filters.unit_axes`."""
        return filters.unit_axes(self._model)

    def about(self, weights: Weights) -> dict[str, Any]:
        """The origin of a result measured at `weights`: model, data and weights (digests), loss, policies, versions."""
        self._check(weights)
        return {
            "model": self._model.name,
            "n_parameters": self.n_parameters,
            "n_examples": self.n_examples,
            "data": self._digest,
            "weights": digest([np.asarray(weight) for weight in weights]),
            "loss": self._loss.name,
            "batch_size": self._batch_size if self._loss.why_batch else None,
            "batch_norm": self._batch_norm,
            "regularizers": self._regularizers,
            "versions": dict(_versions()),
        }

    def __call__(self, weights: Weights) -> float:
        """The mean loss at `weights`."""
        return self.evaluate(weights)["loss"]

    def evaluate(self, weights: Weights) -> dict[str, float]:
        """Mean loss and metrics at `weights`, by name, from one forward pass."""
        values = self._derivatives.means(*self._split(weights))
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def evaluate_between(self, points: Sequence[Weights], shares: np.ndarray) -> dict[str, np.ndarray]:
        """Mean loss and metrics at sums Σₖ cₖ wₖ of several weights.

        The product of the data with the kernel of the first dense or convolutional layer is made once for each wₖ.

        Args:
            points: The wₖ, k of them.
            shares: The cₖ of each sum, shape (m, k).

        Returns:
            Arrays of shape (m,), by name; a wₖ with a share of zero counts for nothing, NaN included.
        """
        shares = np.atleast_2d(np.asarray(shares, np.float64))
        if shares.shape[1] != len(points) or not shares.size or not np.isfinite(shares).all():
            raise InvalidInput(
                f"Shares must be finite numbers of shape (m ≥ 1, {len(points)}). Received: shape {shares.shape}"
            )
        ends = [self._split(point) for point in points]
        finite = all(np.isfinite(value).all() for trainable, other in ends for value in (trainable, *other))
        if self._batch_norm == "reestimate" or not finite:
            values = [tuple(self.evaluate(self.between(points, row)).values()) for row in shares]
        else:
            trainable = np.array([end[0] for end in ends])
            other = [np.array(values) for values in zip(*(end[1] for end in ends), strict=True)]
            values = self._derivatives.means_at(trainable, other)(shares, self._shares_of_moments(shares))
        return dict(zip(self.names, np.array(values).T, strict=True))

    def along(self, weights: Weights, directions: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Mean loss and metrics at w + Σⱼ cⱼ dⱼ, as a function of the coordinates.

        The product of the data with the kernel of the first dense or convolutional layer is made once for w and for each
        dⱼ, and kept as long as the function.

        Args:
            weights: w; other variables, such as the moments of BatchNorm, are its own unless they are estimated anew.
            directions: The dⱼ, shape (k, p).

        Returns:
            A function that maps the cⱼ of each point, shape (m, k), to arrays of shape (m,), by name.
        """
        directions, (start, other) = self._vectors(directions), self._split(weights)
        k = len(directions)
        if self._batch_norm == "reestimate":

            def values(coordinates):
                points = (self.unflatten(start + row @ directions, weights) for row in coordinates)
                return [tuple(self.evaluate(point).values()) for point in points]

        else:
            stacked = [np.repeat(np.asarray(value)[None], k + 1, axis=0) for value in other]
            means = self._derivatives.means_at(np.vstack([start, directions]), stacked)

            def values(coordinates):
                shares = np.column_stack([np.ones(len(coordinates)), coordinates])
                return means(shares, np.tile(np.eye(1, k + 1), (len(shares), 1)))

        def at(coordinates: np.ndarray) -> dict[str, np.ndarray]:
            coordinates = np.asarray(coordinates, np.float64)
            if coordinates.ndim != 2 or coordinates.shape[1] != k or not coordinates.size:
                raise InvalidInput(f"Coordinates must have shape (m ≥ 1, {k}). Received: {coordinates.shape}")
            return dict(zip(self.names, np.array(values(coordinates)).T, strict=True))

        return at

    def evaluate_along(
        self, weights: Weights, directions: np.ndarray, coordinates: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Mean loss and metrics at w + Σⱼ cⱼ dⱼ, coordinates of shape (m, k) -> arrays of shape (m,), by name; see `along`."""
        return self.along(weights, directions)(coordinates)

    def between(self, points: Sequence[Weights], shares: np.ndarray) -> Weights:
        """The sum Σₖ cₖ wₖ of several weights, moments of BatchNorm as the objective says; `shares` of shape (k,)."""
        of_moments = self._shares_of_moments(np.asarray(shares, np.float64)[None])[0]
        trainable = set(self._trainable)
        return [
            _sum_of([point[place] for point in points], shares if place in trainable else of_moments)
            for place in range(len(points[0]))
        ]

    def _shares_of_moments(self, shares: np.ndarray) -> np.ndarray:
        """What each of several weights gives to the moments of BatchNorm: shares of at least 0 that add up to 1."""
        if self._batch_norm == "keep" or shares.shape[1] == 1:
            return np.tile(np.eye(1, shares.shape[1]), (len(shares), 1))
        positive = np.maximum(shares, 0)
        total = positive.sum(axis=1, keepdims=True)
        return np.where(total > 0, positive / np.where(total > 0, total, 1), np.eye(1, shares.shape[1]))

    def gradient(self, weights: Weights) -> np.ndarray:
        """The gradient of the mean loss at `weights`, float64, shape (p,)."""
        return self.value_and_gradient(weights)[1]

    def value_and_gradient(self, weights: Weights, rows: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """The mean loss and its gradient, float64, shape (p,), from one pass over all examples, or over some rows."""
        rows = None if rows is None else np.asarray(rows, np.int32)
        return self._derivatives.value_and_gradient(*self._split(weights), rows)

    def example_gradient_sums(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Σ gᵢ, float64, shape (p,), and ‖gᵢ‖² of every example and trainable variable, float64, shape (n, variables).

        Raises:
            InvalidInput: If the loss depends on the batch, so that no example has a gradient of its own.
        """
        if self._loss.why_batch:
            raise InvalidInput(
                f"Gradients of single examples need a loss that is a mean over them; batch_gradients compares batches. "
                f"Received: {self._loss.name}, but {self._loss.why_batch}"
            )
        return self._derivatives.example_gradient_sums(*self._split(weights))

    def batch_gradients(self, weights: Weights, rows: np.ndarray) -> np.ndarray:
        """The mean gradients of batches of examples, row numbers of shape (batches, B) -> float64, (batches, p)."""
        return self._derivatives.batch_gradients(*self._split(weights), np.asarray(rows, np.int32))

    def hessian_products(self, weights: Weights, vectors: np.ndarray) -> np.ndarray:
        """Products of the Hessian at `weights` with vectors, shape (k, p) -> float64, shape (k, p).

        Raises:
            UserCodeError: If the backend knows no second derivative of the model or the loss, as TensorFlow of CTC.
        """
        arguments = *self._split(weights), self._vectors(vectors)
        try:
            return self._derivatives.products(*arguments)
        except Exception as error:
            if memory.ran_out(error):
                raise
            raise UserCodeError(
                f"Hessian-vector products of {self._model.name} with {self._loss.name} cannot be had: {reason_of(error)}"
            ) from error

    def flatten(self, weights: Weights) -> np.ndarray:
        """The trainable part of `weights` as one vector, float64, shape (p,)."""
        self._check(weights)
        return np.concatenate([np.ravel(weights[place]) for place in self._trainable]).astype(np.float64)

    def unflatten(self, vector: np.ndarray, weights: Weights) -> Weights:
        """`weights` with their trainable part replaced by a vector, shape (p,)."""
        replaced = list(weights)
        for position, part in zip(self._trainable, self.split_by_variable(vector), strict=True):
            replaced[position] = part.reshape(np.shape(weights[position])).astype(weights[position].dtype)
        return replaced

    def split_by_variable(self, vector: np.ndarray) -> list[np.ndarray]:
        """The parts of a vector, shape (p,), that belong to each trainable variable."""
        sizes = [int(np.prod(variable.shape)) for variable in self._model.trainable_variables]
        return np.split(vector, np.cumsum(sizes)[:-1])

    def _vectors(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.atleast_2d(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.n_parameters:
            raise InvalidInput(f"Vectors must have shape (k, {self.n_parameters}). Received: {vectors.shape}")
        return vectors

    def _check(self, weights: Weights) -> None:
        expected = [tuple(weight.shape) for weight in self._model.weights]
        received = [np.shape(weight) for weight in weights]
        if expected != received:
            raise InvalidInput(f"Weights must have the shapes of {self._model.name}: {expected}. Received: {received}")

    def _split(self, weights: Weights) -> tuple[np.ndarray, list]:
        """Trainable weights as a vector, and the other variables in the order of the model."""
        trainable = self.flatten(weights)
        variables = self._model.non_trainable_variables  # Those that are no weights, such as dropout seeds, stay.
        other = [
            keras.ops.convert_to_numpy(variable) if position is None else weights[position]
            for position, variable in zip(self._other, variables, strict=True)
        ]
        if self._batch_norm != "reestimate" or not other:
            return trainable, other
        if self._at is None or not np.array_equal(self._at[0], trainable):  # Once for the many products at one point.
            self._at = trainable, self._derivatives.moments(trainable, other, self._rows_of_moments)
        return self._at


def _caveats(model: keras.Model, loss: Any, requested: Any) -> list[str]:
    """What differs from `evaluate` for a `test_step` of the model's own."""
    if type(model).test_step is keras.Model.test_step or requested is not None or loss.measure is not None:
        return []
    return [
        f"The own test_step of {type(model).__name__} decides what evaluate reports; the loss here is {loss.name}, which "
        "fit minimises."
    ]


def _as_arrays(tree: Any) -> Any:
    """A tree of arrays; lists of numbers are an array themselves."""
    leaves = keras.tree.flatten(tree)
    return np.asarray(tree) if leaves and np.ndim(leaves[0]) == 0 else keras.tree.map_structure(np.asarray, tree)


def objective_of(
    model: keras.Model, data: Data, split: str = "train", *, loss: Any = None, batch_norm: str = "interpolate"
) -> Objective:
    """The objective of a model on `"train"`, `"val"` or `"test"` data, with the loss it was trained with.

    Args:
        model: Any built Keras 3 model.
        data: The data.
        split: `"train"`, `"val"` or `"test"`.
        loss, batch_norm: See `Objective`; without a `loss`, the compiled one or that of the data.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data.examples(split))
    found = loss_of(model, data, loss)
    return Objective(model, x, y, found, sample_weight=sample_weight, batch_norm=batch_norm)


@functools.cache
def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("batchscape", "keras", backend.name())}


def _positions(variables, weights) -> list[int | None]:
    """Where each variable stands among the weights, None for one that is no weight."""
    places = {id(weight): position for position, weight in enumerate(weights)}
    return [places.get(id(variable)) for variable in variables]


def _some_rows(n: int, batches: int, size: int) -> np.ndarray:
    """Row numbers of some random batches, always the same, int32, shape (batches, size or n)."""
    size = min(size, n)
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(n) for _ in range(-(-batches * size // n))])
    return rows[: batches * size].reshape(batches, size).astype(np.int32)


def _sum_of(arrays: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Σ cₖ aₖ over shares that are not zero, for 0 × NaN would be NaN; whole numbers are those of the first."""
    first = np.asarray(arrays[0])
    parts = [(share, np.asarray(array)) for share, array in zip(shares, arrays, strict=True) if share]
    if first.dtype.kind != "f" or not parts:
        return first if first.dtype.kind != "f" else np.zeros_like(first)
    if len(parts) == 1 and parts[0][0] == 1:
        return parts[0][1]
    return sum(share * array.astype(np.float64) for share, array in parts).astype(first.dtype)
