"""The metrics that a model was compiled with, over whole splits."""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from batchscape.backend import keras_private
from batchscape.data.splits import count
from batchscape.models import own_step
from batchscape.train import engine


def left_out(model: keras.Model, known: Collection[str]) -> list[str]:
    """Names of the metrics that a model was compiled with, without those that are known; weighted ones never are."""
    plain, weighted = map(_names, keras_private.compiled_metrics(model))
    if any(name.endswith("accuracy") for name in known):  # Each output has its own.
        known = {*known, "acc", "accuracy"}
    return [*(name for name in plain if name not in known), *weighted]


def _names(metrics: Any) -> list[str]:
    given = [metric for metric in keras.tree.flatten(metrics) if metric is not None]
    return [str(getattr(metric, "name", getattr(metric, "__name__", metric))) for metric in given]


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
        weighted = _names(keras_private.compiled_metrics(model)[1])
        self._known = {*known, *(["acc"] if "accuracy" in known else [])} - set(weighted)
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
        for first in range(0, count(examples), chunk):
            part = keras.tree.map_structure(lambda array, first=first: array[first : first + chunk], examples)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(part)
            y = keras.tree.map_structure(keras.ops.convert_to_tensor, y)
            y_pred, masks = self._forward(x)
            for output, mask in zip(keras.tree.flatten(y_pred), masks, strict=True):
                if mask is not None:
                    keras_private.set_mask(output, mask)
            self._compiled.update_state(y, y_pred, sample_weight=sample_weight)
        values = {name: keras.ops.convert_to_numpy(value) for name, value in self._compiled.result().items()}
        return {name: float(value) for name, value in values.items() if not np.ndim(value) and name not in self._known}
