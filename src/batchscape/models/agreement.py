"""Whether a loss is what Keras' own `evaluate` gives, on the first rows of the data: told in one line where it is not."""

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from batchscape.backend import keras_private
from batchscape.data.splits import count
from batchscape.errors import telling_line
from batchscape.models import outputs
from batchscape.models.losses import ModelLoss, as_tensors
from batchscape.models.outputs import ROWS

BATCH_SIZES = (ROWS, ROWS // 2)
"""In batches of how many the first `ROWS` examples are compared."""


def disagreement(model: keras.Model, loss: ModelLoss, examples: Sequence, theirs: Callable) -> str:
    """How the loss of some examples differs from that of Keras, in one line; "" where it does not.

    Equal is |a − b| ≤ 1e-5 max(1, |b|), or 1e-2 in half precision.

    Args:
        model: A built model, at the weights that it has.
        loss: Its loss.
        examples: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, trees of arrays of shape (n, ...).
        theirs: A function of (examples, batch_size) -> what Keras says, such as `evaluate_with`.
    """
    examples = tuple(outputs.some_rows(part) for part in examples)
    tolerance = 1e-2 if "16" in model.compute_dtype else 1e-5
    for batch_size in BATCH_SIZES:
        try:
            expected = theirs(examples, batch_size)
        except Exception as error:
            return f"{model.name}: the loss could not be compared with that of evaluate: {telling_line(error)}"
        found = _in_batches(functools.partial(loss.mean, model), examples, batch_size)
        if _differ(found, expected, tolerance):
            again = theirs(examples, batch_size)
            why = (
                f"{again:.6g} when asked again: random in inference" if _differ(again, expected, tolerance) else "ours"
            )
            return (
                f"{model.name}: the loss of the first {count(examples)} examples in batches of {batch_size} is "
                f"{expected:.6g} by evaluate and {found:.6g} here ({why})."
            )
    return ""


def evaluate_with(model: keras.Model, loss: ModelLoss, *, as_compiled: bool = True) -> Callable:
    """`evaluate` of a model that is thrown away, or compiled anew, after it; see `disagreement`.

    A model that was compiled with the loss stays as it was compiled, so that what we made of its losses is compared too.
    """
    if as_compiled and model.compiled:
        model.run_eagerly = True
    else:
        loss.compile(model, keras.optimizers.SGD(), run_eagerly=True)

    def evaluate(examples: Sequence, batch_size: int) -> float:
        return float(
            model.evaluate(**outputs.as_arguments(examples), batch_size=batch_size, verbose=0, return_dict=True)["loss"]
        )

    return evaluate


def compute_loss_of(model: keras.Model) -> Callable:
    """What `evaluate` of a compiled model takes means of, its `compute_loss`, with no variable changed; see `disagreement`."""
    state = [*model.trainable_variables, *model.non_trainable_variables]

    def of_batch(*examples) -> float:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(as_tensors(examples)))
        with keras.StatelessScope([(variable, variable.value) for variable in state], collect_losses=True):
            loss = keras_private.compute_loss(model, x, y, outputs.call(model, x), sample_weight)
            return float(ops.convert_to_numpy(loss))

    return lambda examples, batch_size: _in_batches(of_batch, examples, batch_size)


def _in_batches(of_batch: Callable, examples: Sequence, batch_size: int) -> float:
    """The mean over examples of what a function gives for the batches that they come in."""
    total, n = 0.0, count(examples)
    for first in range(0, n, batch_size):
        rows = slice(first, min(first + batch_size, n))
        batch = keras.tree.map_structure(lambda array, rows=rows: array[rows], tuple(examples))
        total += (rows.stop - first) * of_batch(*batch)
    return total / n


def _differ(a: float, b: float, tolerance: float) -> bool:
    return not (abs(a - b) <= tolerance * max(1.0, abs(b)) or (np.isnan(a) and np.isnan(b)) or a == b)
