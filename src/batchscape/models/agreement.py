"""Whether a loss is what Keras' own `evaluate` gives, on the first rows of the data: told in one line where it is not."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from batchscape.backend import keras_private
from batchscape.errors import telling_line
from batchscape.models import outputs
from batchscape.models.losses import ModelLoss
from batchscape.models.outputs import ROWS

BATCH_SIZES = (ROWS, ROWS // 2)
"""In batches of how many the first `ROWS` examples are compared."""


def disagreement(model: keras.Model, loss: ModelLoss, x: Any, y: np.ndarray, theirs: Callable) -> str:
    """How the loss of some examples differs from that of Keras, in one line; "" where it does not.

    Equal is |a − b| ≤ 1e-5 max(1, |b|), or 1e-2 in half precision.

    Args:
        model: A built model, at the weights that it has.
        loss: Its loss.
        x, y: Examples, shape (n, ...).
        theirs: A function of (x, y, batch_size) -> what Keras says, such as `evaluate_with`.
    """
    x, y = outputs.some_rows((x, y))
    tolerance = 1e-2 if "16" in model.compute_dtype else 1e-5
    for batch_size in BATCH_SIZES:
        try:
            expected = theirs(x, y, batch_size)
        except Exception as error:
            return f"{model.name}: the loss could not be compared with that of evaluate: {telling_line(error)}"
        found = _in_batches(functools.partial(loss.mean, model), x, y, batch_size)
        if _differ(found, expected, tolerance):
            again = theirs(x, y, batch_size)
            why = (
                f"{again:.6g} when asked again: random in inference" if _differ(again, expected, tolerance) else "ours"
            )
            return (
                f"{model.name}: the loss of the first {len(y)} examples in batches of {batch_size} is {expected:.6g} by "
                f"evaluate and {found:.6g} here ({why})."
            )
    return ""


def evaluate_with(model: keras.Model, loss: ModelLoss) -> Callable:
    """`evaluate` of a model that is thrown away, or compiled anew, after it; see `disagreement`."""
    loss.compile(model, keras.optimizers.SGD(), run_eagerly=True)

    def evaluate(x, y, batch_size: int) -> float:
        return float(model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)["loss"])

    return evaluate


def compute_loss_of(model: keras.Model) -> Callable:
    """What `evaluate` of a compiled model takes means of, its `compute_loss`, with no variable changed; see `disagreement`."""
    state = [*model.trainable_variables, *model.non_trainable_variables]

    def of_batch(x, y) -> float:
        x, y = keras.tree.map_structure(ops.convert_to_tensor, (x, y))
        with keras.StatelessScope([(variable, variable.value) for variable in state], collect_losses=True):
            loss = keras_private.compute_loss(model, x, y, outputs.call(model, x), None)
            return float(ops.convert_to_numpy(loss))

    return lambda x, y, batch_size: _in_batches(of_batch, x, y, batch_size)


def _in_batches(of_batch: Callable, x, y: np.ndarray, batch_size: int) -> float:
    """The mean over examples of what a function gives for the batches that they come in."""
    total = 0.0
    for first in range(0, len(y), batch_size):
        rows = slice(first, min(first + batch_size, len(y)))
        batch = keras.tree.map_structure(lambda array, rows=rows: array[rows], (x, y))
        total += (rows.stop - first) * of_batch(*batch)
    return total / len(y)


def _differ(a: float, b: float, tolerance: float) -> bool:
    return not (abs(a - b) <= tolerance * max(1.0, abs(b)) or (np.isnan(a) and np.isnan(b)) or a == b)
