"""Models that train by a `train_step` of their own, and functions of the user that measure them."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from batchscape.errors import InvalidInput


def has_own_step(model: keras.Model) -> bool:
    """Whether the `train_step` of a model is not Keras'."""
    return type(model).train_step is not keras.Model.train_step


def own_optimizers(model: keras.Model) -> dict[str, keras.Optimizer]:
    """The optimizers that a model holds beside the compiled one, by the names of its attributes."""
    if not has_own_step(model):
        return {}
    compiled = getattr(model, "optimizer", None)
    found = {name: value for name, value in vars(model).items() if isinstance(value, keras.Optimizer)}
    return {name: value for name, value in found.items() if value is not compiled and not name.startswith("_")}


class Measured:
    """A function that builds a model, and one that says what its loss is.

    Args:
        build: Builds the model.
        measure: A function (model, x, y) -> the loss of a batch, or one value an example; it changes nothing of the model.
    """

    def __init__(self, build: Callable, measure: Callable):
        self.build, self.measure = build, measure
        functools.update_wrapper(self, build, updated=())

    def __call__(self, *data: Any) -> Any:
        """What `build` returns, with its measure."""
        built = self.build(*data)
        if isinstance(built, keras.Model):
            object.__setattr__(built, _ATTRIBUTE, self.measure)  # Past Keras, which would track a layer.
        return built


_ATTRIBUTE = "_measured_by_batchscape"


def measure_of(model: keras.Model) -> Callable[[keras.Model, Any, Any], Any] | None:
    """The function that measures a model; None without one."""
    return vars(model).get(_ATTRIBUTE)


def with_measure(build: Callable, measure: Callable | None) -> Callable:
    """The builder of a model whose loss is what a function of the user measures, for a `train_step` of its own.

    Args:
        build: A function that builds the model.
        measure: A function (model, x, y) -> the loss of a batch, or one value an example. It calls the model, changes
            nothing of it, and takes and returns tensors. None returns `build` itself.

    Returns:
        A function that takes the place of `build` wherever one is taken.

    Example:
        >>> import keras
        >>> def build():
        ...     return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> def mean_square(model, x, y):
        ...     return keras.ops.mean(keras.ops.square(model(x)), axis=-1)
        >>> x = [[1.0, 1.0], [2.0, 0.0]]
        >>> f = bs.Objective(with_measure(build, mean_square)(), x)
        >>> f(f.weights)
        4.0
    """
    if measure is None:
        return build
    if not (callable(build) and callable(measure)):
        raise InvalidInput(
            f"measure needs build, a function that builds the model. Received: build={build!r}, measure={measure!r}"
        )
    return Measured(build, measure)
