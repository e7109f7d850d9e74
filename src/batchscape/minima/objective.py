"""The loss of a Keras model as a function of its weights."""

from typing import Any

import keras
import numpy as np

from batchscape import losses
from batchscape.chunks import CHUNK
from batchscape.data import Data
from batchscape.errors import InvalidInput
from batchscape.minima.autodiff import Derivatives
from batchscape.record import Weights


class Objective:
    """Mean loss and accuracy of a model on a data set, at any weights; the model itself is never touched.

    `weights` everywhere is what `model.get_weights()` returns; vectors hold the trainable weights alone, in the order of
    `model.trainable_variables`. The loss is the mean over examples, without the terms of regularisers. Layers run in
    inference mode: dropout is off, and BatchNorm uses the moments among `weights`.

    Args:
        model: Any built Keras 3 model with one output.
        x: Inputs, shape (n, ...) or a tree of such arrays.
        y: Targets, shape (n, ...).
        loss: A Keras loss, its name or a function; None for the compiled one, or what the labels say.
        metrics: Names of Keras metrics that are means over examples.
        batch_size: Examples in a forward pass; results do not depend on it.

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
        y: np.ndarray,
        loss: Any = None,
        *,
        metrics: tuple[str, ...] = ("accuracy",),
        batch_size: int = CHUNK,
    ):
        if not isinstance(model, keras.Model) or not model.built:
            raise InvalidInput(f"Objective needs a built keras.Model. Received: {type(model).__name__}, not built")
        x, y = keras.tree.map_structure(np.asarray, x), np.asarray(y)
        if any(len(leaf) != len(y) for leaf in keras.tree.flatten(x)) or not len(y):
            lengths = [len(leaf) for leaf in keras.tree.flatten(x)]
            raise InvalidInput(
                f"Inputs and targets must have equal lengths, at least 1. Received: {lengths} and {len(y)}"
            )
        if batch_size < 1:
            raise InvalidInput(f"batch_size must be an integer ≥ 1. Received: batch_size={batch_size}")
        self._model, self._n_examples = model, len(y)
        resolved = losses.resolve_loss(model, x, y, loss)
        counted = losses.metric_functions(metrics, model, x, y)
        self.names = ("loss", *counted)
        functions = (lambda y, y_pred: losses.example_losses(resolved, y, y_pred), *counted.values())
        self._derivatives = Derivatives(model, x, y, functions, chunk=batch_size)
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
    def n_examples(self) -> int:
        """Number of examples, n."""
        return self._n_examples

    @property
    def variable_names(self) -> tuple[str, ...]:
        """Paths of the trainable variables, such as `dense/kernel`."""
        return tuple(variable.path for variable in self._model.trainable_variables)

    def __call__(self, weights: Weights) -> float:
        """The mean loss at `weights`."""
        return self.evaluate(weights)["loss"]

    def evaluate(self, weights: Weights) -> dict[str, float]:
        """Mean loss and metrics at `weights`, by name, from one forward pass."""
        values = self._derivatives.means(*self._split(weights))
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def gradient(self, weights: Weights) -> np.ndarray:
        """The gradient of the mean loss at `weights`, float64, shape (p,)."""
        return self._derivatives.gradient(*self._split(weights))

    def example_gradient_sums(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Σ gᵢ, float64, shape (p,), and ‖gᵢ‖² of every example and trainable variable, float64, shape (n, variables)."""
        return self._derivatives.example_gradient_sums(*self._split(weights))

    def batch_gradients(self, weights: Weights, rows: np.ndarray) -> np.ndarray:
        """The mean gradients of batches of examples, row numbers of shape (batches, B) -> float64, (batches, p)."""
        return self._derivatives.batch_gradients(*self._split(weights), np.asarray(rows, np.int32))

    def hessian_products(self, weights: Weights, vectors: np.ndarray) -> np.ndarray:
        """Products of the Hessian at `weights` with vectors, shape (k, p) -> float64, shape (k, p)."""
        vectors = np.atleast_2d(vectors)
        if vectors.shape[1] != self.n_parameters:
            raise InvalidInput(f"Vectors must have shape (k, {self.n_parameters}). Received: {vectors.shape}")
        return self._derivatives.products(*self._split(weights), vectors)

    def flatten(self, weights: Weights) -> np.ndarray:
        """The trainable part of `weights` as one vector, float64, shape (p,)."""
        return self._split(weights)[0]

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

    def _split(self, weights: Weights) -> tuple[np.ndarray, list]:
        """Trainable weights as a vector, and the other variables in the order of the model."""
        expected = [tuple(weight.shape) for weight in self._model.weights]
        received = [np.shape(weight) for weight in weights]
        if expected != received:
            raise InvalidInput(f"Weights must have the shapes of {self._model.name}: {expected}. Received: {received}")
        trainable = np.concatenate([np.ravel(weights[position]) for position in self._trainable]).astype(np.float64)
        variables = self._model.non_trainable_variables  # Those that are no weights, such as dropout seeds, stay.
        other = [
            variable.value if position is None else weights[position]
            for position, variable in zip(self._other, variables, strict=True)
        ]
        return trainable, other


def objective_of(model: keras.Model, data: Data, split: str = "train", *, loss: Any = None) -> Objective:
    """The objective of a model on `"train"`, `"val"` or `"test"` data, with the loss it was trained with."""
    return Objective(model, *data.split(split), losses.loss_of(model, data, loss))


def _positions(variables, weights) -> list[int | None]:
    """Where each variable stands among the weights, None for one that is no weight."""
    places = {id(weight): position for position, weight in enumerate(weights)}
    return [places.get(id(variable)) for variable in variables]
