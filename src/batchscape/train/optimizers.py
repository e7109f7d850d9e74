"""Keras optimizers from a cell."""

import keras

from batchscape.config import Cell
from batchscape.errors import InvalidInput


def make(cell: Cell, model: keras.Model) -> keras.Optimizer:
    """The optimizer of a cell: the named one, else a copy of the one the model was compiled with, else SGD.

    Args:
        cell: `optimizer`, `optimizer_options` and `weight_decay` count here; the learning rate is set run by run.
        model: The model to train, compiled or not.

    Raises:
        InvalidInput: If the optimizer does not know an option.
    """
    options = dict(cell.optimizer_options)
    if cell.weight_decay:
        options["weight_decay"] = cell.weight_decay
    if cell.optimizer is None and getattr(model, "optimizer", None) is not None:
        compiled = keras.optimizers.serialize(model.optimizer)
        compiled["config"].update(options)
        return keras.optimizers.deserialize(compiled)
    name = cell.optimizer or "sgd"
    try:
        return keras.optimizers.get({"class_name": name, "config": options})
    except (TypeError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InvalidInput(f"optimizer_options do not fit {name}: {reason} Received: {options}") from error


def own_rate(optimizer: keras.Optimizer) -> float | None:
    """The learning rate an optimizer has by itself; None where a schedule sets it."""
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return None
    return float(optimizer.learning_rate)
