"""Functions of the user that say what the loss of a model is, one with a `train_step` of its own above all."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from batchscape import usercode
from batchscape.errors import InvalidInput
from batchscape.models.build import find_builder
from batchscape.models.own_step import MEASURE


class Measured(usercode.Wrapper):
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
            object.__setattr__(built, MEASURE, self.measure)  # Past Keras, which would track a layer.
        return built


def with_measure(build: Callable, measure: Callable | None) -> Callable:
    """The builder of a model whose loss is what a function of the user measures, for a `train_step` of its own.

    Args:
        build: Anything that is taken as `build`.
        measure: A function (model, x, y) -> the loss of a batch, or one value an example. It calls the model, changes
            nothing of it, and takes and returns tensors. None returns `build` itself.

    Returns:
        A function that takes the place of `build` wherever one is taken.

    Example:
        >>> import keras
        >>> import batchscape as bs
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
    if build is None or not callable(measure):
        raise InvalidInput(
            f"measure must be a function (model, x, y) -> loss, beside build. Received: build={build!r}, measure={measure!r}"
        )
    return Measured(find_builder(build), measure)
