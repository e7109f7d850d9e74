"""Optimizers: `Rprop`, which Keras lacks, and the Keras optimizer of a cell."""

import copy
import inspect
import math

import keras

from batchscape.backend import keras_private
from batchscape.config import Cell
from batchscape.errors import InvalidInput, reason_of, telling_line
from batchscape.models import own_step
from batchscape.train.rprop import Rprop

__all__ = ["Rprop"]


UNSCHEDULED = {
    "Rprop": "reads its learning rate, the initial step, once; a warm-up or decay would do nothing.",
    "Ftrl": "computes its weights anew from its rate at each update; a rate that falls pulls them to 0.",
}
"""Optimizers that a learning-rate schedule does not suit, and why."""


def make(cell: Cell, model: keras.Model) -> keras.Optimizer:
    """The optimizer of a cell: the named one, else a copy of the one the model was compiled with, else SGD.

    Args:
        cell: `optimizer`, `optimizer_options` and `weight_decay` count here; the learning rate is set run by run.
        model: The model to train, compiled or not.

    Raises:
        InvalidInput: If the optimizer does not know an option, or the compiled one cannot be copied.
    """
    options = dict(cell.optimizer_options)
    if cell.weight_decay:
        options["weight_decay"] = cell.weight_decay
    if cell.optimizer is None and getattr(model, "optimizer", None) is not None:
        compiled = _serialized(model.optimizer)
        compiled["config"].update(options)
        try:
            with keras.saving.custom_object_scope(_classes_of(model.optimizer)):
                made = keras.optimizers.deserialize(compiled)
            _exclude_alike(model.optimizer, made)
            return _checked(made, cell)
        except InvalidInput:
            raise
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"optimizer_options do not fit the compiled {compiled['class_name']}; name an optimizer. Received: {options}"
            ) from error
    name = cell.optimizer or "sgd"
    offered = [Rprop, *filter(inspect.isclass, vars(keras.optimizers).values())]
    kind = {cls.__name__.lower(): cls for cls in offered}[name.lower()]
    if inspect.signature(kind).parameters["weight_decay"].default is not None:
        # AdamW decays by 0.004 unless told not to; a cell that says 0 means it.
        options.setdefault("weight_decay", 0.0)
    try:
        return _checked(kind(**options), cell)
    except InvalidInput:
        raise
    except (TypeError, ValueError) as error:
        reason = telling_line(error.__cause__ or error)
        raise InvalidInput(f"optimizer_options do not fit {name}: {reason} Received: {options}") from error


def _serialized(optimizer: keras.Optimizer) -> dict:
    """What Keras makes an optimizer anew from; refused where it cannot, such as for a `get_config` that leaves things out."""
    try:
        serialized = keras.optimizers.serialize(optimizer)
        with keras.saving.custom_object_scope(_classes_of(optimizer)):
            made = keras.optimizers.deserialize(copy.deepcopy(serialized))
        if not isinstance(made, keras.Optimizer):  # Of some unregistered classes Keras makes a string.
            raise TypeError(f"{type(optimizer).__name__} is not registered")
        return serialized
    except Exception as error:
        raise InvalidInput(
            "A compiled optimizer is copied for each run: give its class, or that of its schedule, a get_config with all that "
            "its __init__ takes. "
            f"Received: {type(optimizer).__name__}, which cannot be copied for {reason_of(error)}"
        ) from error


def _classes_of(optimizer: keras.Optimizer) -> dict[str, type]:
    """Classes of an optimizer, of the one inside it and of their schedules, by name: Keras knows those that are registered."""
    both = [optimizer, *filter(None, [getattr(optimizer, "inner_optimizer", None)])]
    parts = [*both, *(keras_private.rate_schedule(each) for each in both)]
    return {type(part).__name__: type(part) for part in parts if part is not None}


def _exclude_alike(optimizer: keras.Optimizer, made: keras.Optimizer) -> None:
    """Exclude the same weights from decay as another optimizer of the model, and the one inside it."""
    keras_private.exclude_from_weight_decay(made, keras_private.excluded_from_weight_decay(optimizer))
    if skips_overflows(optimizer):
        _exclude_alike(optimizer.inner_optimizer, made.inner_optimizer)


def _checked(optimizer: keras.Optimizer, cell: Cell) -> keras.Optimizer:
    """Refuse what would make a run something else than its record says."""
    if cell.scheduled and (reason := UNSCHEDULED.get(type(optimizer).__name__)):
        raise InvalidInput(f"{type(optimizer).__name__} {reason} Received: warmup={cell.warmup}, decay={cell.decay!r}")
    if inner := getattr(optimizer, "inner_optimizer", None):
        _checked(inner, cell)
    if optimizer.use_ema:
        raise InvalidInput(
            "use_ema puts averaged weights in place of the trained ones whenever a call of fit ends, and we make many. "
            "Received: use_ema=True"
        )
    if optimizer.gradient_accumulation_steps:
        raise InvalidInput(
            "gradient_accumulation_steps changes what an update is; choose the larger batch size itself. "
            f"Received: gradient_accumulation_steps={optimizer.gradient_accumulation_steps}"
        )
    return optimizer


def reset(optimizer: keras.Optimizer, fresh: keras.Optimizer) -> None:
    """Give an optimizer that has trained the state of one that has not, made alike."""
    if optimizer.built:
        if not fresh.built:
            fresh.build(keras_private.trained_variables(optimizer))
        for variable, value in zip(optimizer.variables, fresh.variables, strict=True):
            variable.assign(value)


def check_rate(cell: Cell, default_rate: float | None) -> None:
    """Refuse a rate, a policy or a schedule beside the schedule of a compiled model (`default_rate` None)."""
    if default_rate is None and (cell.learning_rate is not None or cell.lr_policy != "fixed" or cell.scheduled):
        raise InvalidInput(
            "A model compiled with a learning-rate schedule keeps it; leave out learning_rate, lr_policy, warmup and decay, "
            f"or name an optimizer. Received: learning_rate={cell.learning_rate}, lr_policy={cell.lr_policy!r}, "
            f"warmup={cell.warmup}, decay={cell.decay!r}"
        )


def default_learning_rate(optimizer: keras.Optimizer) -> float | None:
    """The learning rate that an optimizer was made with; None where a schedule sets it."""
    if keras_private.has_rate_schedule(optimizer):
        return None
    return rate_of(optimizer)


def skips_overflows(optimizer: keras.Optimizer) -> bool:
    """Whether an optimizer makes no update where a gradient overflows, as Keras' own for `mixed_float16` does."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def updates_of(optimizer: keras.Optimizer) -> int:
    """Number of updates that an optimizer has made; steps that it skipped do not count."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def rate_of_model(model: keras.Model) -> float:
    """The learning rate of the next update of a model; NaN where it has optimizers of its own."""
    return math.nan if own_step.own_optimizers(model) else rate_of(model.optimizer)


def rate_of(optimizer: keras.Optimizer) -> float:
    """The learning rate of the next update."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))  # float() alone fails on a mirrored variable.
