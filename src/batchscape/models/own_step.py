"""Models that train by a `train_step` of their own."""

from collections.abc import Callable
from typing import Any

import keras


def has_own_step(model: keras.Model) -> bool:
    """Whether the `train_step` of a model is not Keras'."""
    return type(model).train_step is not keras.Model.train_step


def has_call(model: keras.Model) -> bool:
    """Whether a model can be called, which one that trains itself need not."""
    return type(model).call is not keras.Model.call


def own_optimizers(model: keras.Model) -> dict[str, keras.Optimizer]:
    """The optimizers that a model holds beside the compiled one, by the names of its attributes."""
    if not has_own_step(model):
        return {}
    compiled = getattr(model, "optimizer", None)
    found = {name: value for name, value in vars(model).items() if isinstance(value, keras.Optimizer)}
    return {name: value for name, value in found.items() if value is not compiled and not name.startswith("_")}


MEASURE = "_measured_by_batchscape"
"""The attribute of a model that holds the function that measures it."""


def measure_of(model: keras.Model) -> Callable[[keras.Model, Any, Any], Any] | None:
    """The function that measures a model; None without one."""
    return vars(model).get(MEASURE)
