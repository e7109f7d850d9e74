"""What a model gives for a few examples, looked at without a change of its variables."""

import functools
import inspect
from typing import Any, NamedTuple

import keras
import numpy as np

from batchscape.backend import keras_private
from batchscape.errors import InvalidInput, UserCodeError, telling_line

ROWS = 32
"""How many examples are looked at."""


def some_rows(x: Any) -> Any:
    """The first `ROWS` examples of an array, or of a tree of them."""
    return keras.tree.map_structure(lambda array: array[:ROWS], x)


def call(model: keras.Model, x: Any) -> Any:
    """The outputs of a model in inference mode, which a model whose `call` takes no `training` is not told."""
    return model(x, training=False) if keras_private.takes_training(model) else model(x)


def values_of(model: keras.Model) -> tuple[list, list]:
    """The values of the trainable and of the other variables of a model, as tensors."""
    both = model.trainable_variables, model.non_trainable_variables
    return tuple([variable.value for variable in variables] for variables in both)


class Seen(NamedTuple):
    """What a model gives for a few examples in inference mode.

    Attributes:
        output: Its output, shape (n, ...).
        masked: Whether layers have put a mask on it.
        adds: Whether layers or regularizers add to the loss.
        draws: Whether it draws random numbers.
    """

    output: np.ndarray
    masked: bool
    adds: bool
    draws: bool


def look(model: keras.Model, x: Any) -> Seen:
    """What a model gives for some examples.

    Raises:
        InvalidInput: If it has several outputs, or one without an axis of examples.
        UserCodeError: If it does not take them.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    try:
        with keras.StatelessScope([(variable, variable.value) for variable in variables], collect_losses=True) as scope:
            output = call(model, x)
            adds = bool(model.losses)
    except Exception as error:
        shapes = keras.tree.map_structure(lambda array: array.shape, x)
        raise UserCodeError(
            f"The model {model.name} does not take these inputs: {telling_line(error)} Received: inputs of shape {shapes}"
        ) from error
    if not hasattr(output, "shape"):
        raise InvalidInput(f"The model must have one output. Received: {type(output).__name__} from {model.name}")
    if len(output.shape) < 2:
        raise InvalidInput(
            f"The output of the model must have shape (n, ...), such as (n, 1). Received: {tuple(output.shape)}"
        )
    before = {id(variable): variable.value for variable in variables}
    weights = {id(weight) for weight in model.weights}
    # What it would change that is no weight: seeds, its own or the global one.
    draws = any(value is not before.get(i) for i, value in scope.state_mapping.items() if i not in weights)
    return Seen(keras.ops.convert_to_numpy(output), keras_private.mask_of(output) is not None, adds, draws)


def gives_logits(model: keras.Model, x: Any) -> bool:
    """Whether a model ends without softmax or sigmoid: by its last layer where that is known, else by its values.

    A few hundred times the inputs drive logits out of [0, 1], and leave probabilities there.
    """
    last = keras_private.last_operation(model)
    if isinstance(last, keras.layers.Softmax):
        return False
    if (name := getattr(getattr(last, "activation", None), "__name__", "")) in _ACTIVATIONS:
        return name not in ("softmax", "sigmoid")
    some = some_rows(x)
    far = [keras.tree.map_structure(functools.partial(_times, factor), some) for factor in (-300, 300)]
    outputs = np.concatenate([look(model, inputs).output for inputs in (some, *far)])
    return bool((outputs < 0).any() or (outputs > 1 + 1e-5).any())


_ACTIVATIONS = frozenset(name for name, value in vars(keras.activations).items() if inspect.isfunction(value))


def _times(factor: float, array: np.ndarray) -> np.ndarray:
    """A multiple of an array of floats; whole numbers, which may be tokens, stay."""
    return array * np.asarray(factor, array.dtype) if np.asarray(array).dtype.kind == "f" else array
