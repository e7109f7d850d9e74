"""The metrics that a model was compiled with, over whole splits."""

from collections.abc import Collection

import keras
import numpy as np

from batchscape.backend import keras_private
from batchscape.models import own_step
from batchscape.train import engine


def left_out(model: keras.Model, known: Collection[str]) -> list[str]:
    """Names of the metrics that a model was compiled with, without those that are known: accuracy always is."""
    given = [metric for metric in keras.tree.flatten(keras_private.compiled_metrics(model)) if metric is not None]
    names = [str(getattr(metric, "name", getattr(metric, "__name__", metric))) for metric in given]
    return [name for name in names if name not in (*known, "acc", "accuracy")]


class CompiledMetrics:
    """Metrics of a model at fixed weights, exact over all examples: those too that are no means over them, such as AUC.

    Keras makes and names them. Single numbers count; a metric of several, such as F1 by class, is left out.

    Args:
        model: A compiled Keras model whose step is Keras' own, for one of its own may use the same metrics.
        known: Names that are recorded anyway.
    """

    def __init__(self, model: keras.Model, known: Collection[str]):
        wanted = not own_step.has_own_step(model) and left_out(model, known)
        self._compiled = keras_private.compile_metrics(model) if wanted else None
        self._known = {*known, "acc"} if "accuracy" in known else set(known)
        self._forward = None if self._compiled is None else engine.own().compile_forward(model)

    def __call__(self, examples: tuple, chunk: int) -> dict[str, float]:
        """Values by name.

        Args:
            examples: `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
            chunk: How many examples a forward pass takes.
        """
        if self._compiled is None or len(examples) < 2:
            return {}
        self._compiled.reset_state()
        for first in range(0, len(keras.tree.flatten(examples)[0]), chunk):
            part = keras.tree.map_structure(lambda array, first=first: array[first : first + chunk], examples)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(part)
            y = keras.tree.map_structure(keras.ops.convert_to_tensor, y)
            self._compiled.update_state(y, self._forward(x), sample_weight=sample_weight)
        values = {name: keras.ops.convert_to_numpy(value) for name, value in self._compiled.result().items()}
        return {name: float(value) for name, value in values.items() if not np.ndim(value) and name not in self._known}
