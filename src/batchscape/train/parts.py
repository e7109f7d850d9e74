"""What a batch that is computed in parts needs of the model: a loss that is a mean over examples, and nothing else shared."""

import functools
import logging

import keras

from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput

_log = logging.getLogger("batchscape")


def check(cell: Cell, model: keras.Model, data: Data, loss: keras.Loss) -> None:
    """Refuse what would make an update in micro-batches another one than that of the whole batch.

    Args:
        cell: What is run; one without `micro_batch_size` passes.
        model: A built Keras model.
        data: The data set.
        loss: The loss, as `losses.resolve_loss` gives it.
    """
    if cell.micro_batch_size is None:
        return
    field = f"micro_batch_size={cell.micro_batch_size}"
    if data.pipeline is not None:
        raise InvalidInput(f"{field} needs the training examples as arrays. Received: a tf.data.Dataset")
    if type(model).train_step is not keras.Model.train_step:
        raise InvalidInput(
            f"{field} needs Keras' own train_step, whose batch can be split. Received: {type(model).__name__}.train_step"
        )
    if loss.reduction not in _MEANS:
        raise InvalidInput(f"{field} needs a loss that is a mean over examples. Received: reduction={loss.reduction!r}")
    some = keras.tree.map_structure(lambda array: array[:1], data.x_train)
    if getattr(model(some, training=False), "_keras_mask", None) is not None:
        raise InvalidInput(
            f"{field} needs a loss in which every example counts alike; one mean over the unmasked places does not split. "
            "Received: a model whose output has a mask"
        )


_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
"""Reductions of a Keras loss that are means over examples."""


def warn(cell: Cell, model: keras.Model, optimizer: keras.Optimizer) -> None:
    """Say once what a batch that is computed in parts changes all the same."""
    if cell.micro_batch_size is None:
        return
    layers, field = list(model._flatten_layers()), f"micro_batch_size={cell.micro_batch_size}"
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers):
        _warn_once(
            f"BatchNorm with {field}: each micro-batch is normalised by its own mean and variance and moves the moving "
            "averages, so a larger batch is not that of plain training (ghost BatchNorm)."
        )
    if any(isinstance(layer, keras.layers.Embedding) for layer in layers) and not isinstance(
        optimizer, keras.optimizers.SGD
    ):
        _warn_once(
            f"Embedding with {field}: rows that occur several times in a batch are added up, as the gradient says, before "
            f"{type(optimizer).__name__} squares them; Keras squares each occurrence, so plain training differs."
        )


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)
