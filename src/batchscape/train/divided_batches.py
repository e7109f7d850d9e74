"""A batch that is computed in parts, by micro-batches or by devices: what it needs of the model, and what it changes."""

from collections.abc import Iterable

import keras

from batchscape.backend import keras_private
from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput
from batchscape.models import own_step
from batchscape.models.losses import ModelLoss


def check(cell: Cell, model: keras.Model, data: Data, loss: ModelLoss, optimizer: keras.Optimizer) -> list[str]:
    """Refuse what would make an update in parts another one than that of the whole batch.

    Args:
        cell: What is run; one whose batches are computed at once passes.
        model: A built Keras model.
        data: The data set.
        loss: The loss, as `resolve_loss` gives it.
        optimizer: The optimizer.

    Returns:
        What differs all the same, in sentences to `warn` of.
    """
    if cell.micro_batch_size is None and cell.devices == 1:
        return []
    field = field_of(cell)
    check_step(field, model, data)
    if loss.why_batch:
        raise InvalidInput(
            f"{field} needs a loss that is a mean over examples. Received: {loss.name}, but {loss.why_batch}"
        )
    if cell.devices > 1 and loss.own:
        raise InvalidInput(
            f"{field} needs Keras' own compute_loss, which it divides among devices. "
            f"Received: {type(model).__name__}.compute_loss"
        )
    clips = {name: getattr(optimizer, name) for name in ("clipnorm", "global_clipnorm", "clipvalue")}
    if cell.devices > 1 and any(clips.values()):
        raise InvalidInput(
            f"{field} needs an optimizer without clipping: Keras clips the gradient of each device and not their mean. "
            f"Received: {', '.join(f'{name}={value}' for name, value in clips.items() if value)}"
        )
    return list(_caveats(cell, field, model, optimizer))


def check_step(field: str, model: keras.Model, data: Data) -> None:
    """Refuse a pipeline, and a training step of the model's own; `field` asks for arrays and Keras' step."""
    if data.pipeline is not None:
        raise needs_arrays(field)
    if own_step.has_own_step(model):
        raise InvalidInput(f"{field} needs Keras' own train_step. Received: {type(model).__name__}.train_step")


def needs_arrays(field: str) -> InvalidInput:
    """The error for data that come as a pipeline."""
    return InvalidInput(f"{field} needs the training examples as arrays. Received: a tf.data.Dataset")


def field_of(cell: Cell) -> str:
    """The field that asks for parts."""
    return f"devices={cell.devices}" if cell.devices > 1 else f"micro_batch_size={cell.micro_batch_size}"


def _caveats(cell: Cell, field: str, model: keras.Model, optimizer: keras.Optimizer) -> Iterable[str]:
    layers = keras_private.layers_of(model)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    if cell.devices > 1 and not all(layer.synchronized for layer in norms):
        yield (
            f"BatchNorm with {field}: each device normalises its share by its own mean and variance, so training is not that "
            "of one device; it is with BatchNormalization(synchronized=True)."
        )
    if cell.devices == 1 and norms:
        yield (
            f"BatchNorm with {field}: each micro-batch is normalised by its own mean and variance and moves the moving "
            "averages, so a larger batch is not that of plain training (ghost BatchNorm)."
        )
    embeds = any(isinstance(layer, keras.layers.Embedding) for layer in layers)
    if cell.devices == 1 and embeds and not isinstance(optimizer, keras.optimizers.SGD):
        yield (
            f"Embedding with {field}: rows that occur several times in a batch are added up, as the gradient says, before "
            f"{type(optimizer).__name__} squares them; Keras squares each occurrence, so plain training differs."
        )
