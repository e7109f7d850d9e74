"""A batch that is computed in parts, by micro-batches or by workers: what it needs of the model, and what it changes."""

import functools
import logging
from collections.abc import Iterable

import keras

from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput

_log = logging.getLogger("batchscape")

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
"""Reductions of a Keras loss that are means over examples."""


def check(cell: Cell, model: keras.Model, data: Data, loss: keras.Loss, optimizer: keras.Optimizer) -> list[str]:
    """Refuse what would make an update in parts another one than that of the whole batch.

    Args:
        cell: What is run; one whose batches are computed at once passes.
        model: A built Keras model.
        data: The data set.
        loss: The loss, as `losses.resolve_loss` gives it.
        optimizer: The optimizer.

    Returns:
        What differs all the same, in sentences to `tell`.
    """
    if cell.micro_batch_size is None and cell.workers == 1:
        return []
    field = field_of(cell)
    check_sums(field, model, data, loss)
    clips = {name: getattr(optimizer, name) for name in ("clipnorm", "global_clipnorm", "clipvalue")}
    if cell.workers > 1 and any(clips.values()):
        raise InvalidInput(
            f"{field} needs an optimizer without clipping: Keras clips the gradient of each worker and not their mean. "
            f"Received: {', '.join(f'{name}={value}' for name, value in clips.items() if value)}"
        )
    return list(_caveats(cell, field, model, optimizer))


def check_sums(field: str, model: keras.Model, data: Data, loss: keras.Loss) -> None:
    """Refuse data, a training step or a loss that is no mean of what examples give by themselves; `field` asks for it."""
    if data.pipeline is not None:
        raise needs_arrays(field)
    if type(model).train_step is not keras.Model.train_step:
        raise InvalidInput(f"{field} needs Keras' own train_step. Received: {type(model).__name__}.train_step")
    if loss.reduction not in _MEANS:
        raise InvalidInput(f"{field} needs a loss that is a mean over examples. Received: reduction={loss.reduction!r}")
    some = keras.tree.map_structure(lambda array: array[:1], data.x_train)
    if getattr(model(some, training=False), "_keras_mask", None) is not None:
        raise InvalidInput(
            f"{field} needs a loss in which every example counts alike, and not a mean over unmasked places. "
            "Received: a model whose output has a mask"
        )


def needs_arrays(field: str) -> InvalidInput:
    """The error for data that come as a pipeline."""
    return InvalidInput(f"{field} needs the training examples as arrays. Received: a tf.data.Dataset")


def field_of(cell: Cell) -> str:
    """The field that asks for parts."""
    return f"workers={cell.workers}" if cell.workers > 1 else f"micro_batch_size={cell.micro_batch_size}"


def _caveats(cell: Cell, field: str, model: keras.Model, optimizer: keras.Optimizer) -> Iterable[str]:
    layers = list(model._flatten_layers())
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    if cell.workers > 1 and not all(layer.synchronized for layer in norms):
        yield (
            f"BatchNorm with {field}: each worker normalises its share by its own mean and variance, so training is not that "
            "of one device; it is with BatchNormalization(synchronized=True)."
        )
    if cell.workers == 1 and norms:
        yield (
            f"BatchNorm with {field}: each micro-batch is normalised by its own mean and variance and moves the moving "
            "averages, so a larger batch is not that of plain training (ghost BatchNorm)."
        )
    embeds = any(isinstance(layer, keras.layers.Embedding) for layer in layers)
    if cell.workers == 1 and embeds and not isinstance(optimizer, keras.optimizers.SGD):
        yield (
            f"Embedding with {field}: rows that occur several times in a batch are added up, as the gradient says, before "
            f"{type(optimizer).__name__} squares them; Keras squares each occurrence, so plain training differs."
        )


def tell(caveats: Iterable[str]) -> None:
    """Log sentences as warnings, each once."""
    for sentence in caveats:
        _tell_once(sentence)


@functools.cache
def _tell_once(sentence: str) -> None:
    _log.warning(sentence)
