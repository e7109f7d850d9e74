"""What a model gives for a few examples, looked at without a change of its variables."""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from batchscape.backend import CHUNK, keras_private
from batchscape.errors import UserCodeError, telling_line

ROWS = 32
"""How many examples are looked at."""


def some_rows(x: Any, most: int = ROWS) -> Any:
    """The first examples of an array, or of a tree of them: `ROWS` of them, or fewer."""
    return keras.tree.map_structure(lambda array: array[: min(most, ROWS)], x)


PASS_BYTES = 256 << 20
"""Memory for what layers give in a forward pass outside training: a layer's inputs and outputs are there at once."""

FEWEST_IN_A_PASS = 16


def examples_in_a_pass(model: keras.Model, x: Any) -> int:
    """How many examples a forward pass outside training takes: `CHUNK`, or fewer where a layer gives a lot for each.

    It depends on the model and the shapes of its inputs alone, so that no run is evaluated with its own batch size. Layers
    of a subclassed model, whose outputs are known only when it is called, do not count.
    """
    unknown = max((size for leaf in keras.tree.flatten(x) for size in leaf.shape[1:]), default=1)
    largest = max(map(functools.partial(_numbers, unknown), keras_private.layers_of(model)), default=1)
    most = PASS_BYTES // (2 * 4 * max(1, largest))
    return min(CHUNK, max(FEWEST_IN_A_PASS, 2 ** (int(most).bit_length() - 1) if most else 0))


def _numbers(unknown: int, layer: keras.Layer) -> int:
    """How many numbers a layer gives for an example, with `unknown` for a size that is None; 0 where nobody knows."""
    try:
        given = keras.tree.flatten(layer.output)
    except (AttributeError, ValueError):  # A layer that was called by no functional model, or by several.
        return 0
    return max((math.prod(size or unknown for size in each.shape[1:]) for each in given), default=0)


def as_arguments(examples: Sequence) -> dict[str, Any]:
    """`(x,)`, `(x, y)` or `(x, y, sample_weight)` as arguments of `fit` and `evaluate`."""
    return dict(zip(("x", "y", "sample_weight"), keras.tree.map_structure(_fit_takes, examples), strict=False))


def _fit_takes(array):
    """An array; of strings a tensor, since `fit` takes no other strings."""
    is_text = isinstance(array, np.ndarray) and array.dtype.kind == "S"
    return keras.ops.convert_to_tensor(array, "string") if is_text else array


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
        output: Its output, shape (n, ...), or a tree of them.
        masked: Whether layers have put a mask on it, for each output in flat order.
        adds: Whether layers or regularizers add to the loss.
        draws: Whether it draws random numbers.
    """

    output: Any
    masked: list[bool]
    adds: bool
    draws: bool

    @property
    def flat(self) -> list:
        """The outputs in flat order."""
        return keras.tree.flatten(self.output)


def look(model: keras.Model, x: Any) -> Seen:
    """What a model gives for some examples.

    Raises:
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
    before = {id(variable): variable.value for variable in variables}
    weights = {id(weight) for weight in model.weights}
    # What it would change that is no weight: seeds, its own or the global one.
    draws = any(value is not before.get(i) for i, value in scope.state_mapping.items() if i not in weights)
    masked = [keras_private.mask_of(each) is not None for each in keras.tree.flatten(output)]
    return Seen(keras.tree.map_structure(_as_array, output), masked, adds, draws)


def _as_array(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value) if hasattr(value, "shape") else value


def gives_logits(model: keras.Model, x: Any, output: int = 0) -> bool:
    """Whether an output is made without softmax or sigmoid: by its last layer where that is known, else by its values.

    A few hundred times the inputs drive logits out of [0, 1], and leave probabilities there.
    """
    last = keras_private.last_operation(model, output)
    if isinstance(last, keras.layers.Softmax):
        return False
    if (name := getattr(getattr(last, "activation", None), "__name__", "")) in _ACTIVATIONS:
        return name not in ("softmax", "sigmoid")
    some = some_rows(x)
    far = [keras.tree.map_structure(functools.partial(_times, factor), some) for factor in (-300, 300)]
    outputs = np.concatenate([look(model, inputs).flat[output] for inputs in (some, *far)])
    return bool((outputs < 0).any() or (outputs > 1 + 1e-5).any())


_ACTIVATIONS = frozenset(name for name, value in vars(keras.activations).items() if inspect.isfunction(value))


def _times(factor: float, array: np.ndarray) -> np.ndarray:
    """A multiple of an array of floats; whole numbers, which may be tokens, stay."""
    return array * np.asarray(factor, array.dtype) if np.asarray(array).dtype.kind == "f" else array
