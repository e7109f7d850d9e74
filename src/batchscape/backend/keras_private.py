"""Names of Keras that its documentation does not list, each behind one function.

`tests/test_private_names.py` has a test for each. Where such a name is gone and no public one does the same, the functions
raise `BatchscapeError`, which says what to install: never another number instead.
"""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from batchscape.errors import BatchscapeError

TESTED = "keras>=3.15,<3.16"
"""What the tests have run on, as `pyproject.toml` has it."""


def is_layer(thing: Any) -> bool:
    """Whether a value is a Keras layer or model, or a class of them; imports no Keras, without which there is none."""
    keras = sys.modules.get("keras")
    return keras is not None and issubclass(thing if inspect.isclass(thing) else type(thing), keras.Layer)


def layers_of(layer: Any, *, include_self: bool = True) -> list:
    """A layer or model with all layers inside it, each once, outer ones first.

    Relies on `Layer._flatten_layers` (keras/src/layers/layer.py): the public `Model.layers` leaves out layers of layers.
    Without it: `BatchscapeError`.
    """
    return list(_needed(layer, "_flatten_layers")(include_self=include_self))


def operations_of(layer: Any) -> list:
    """The operations of a functional model, the sum in x + y among them; none for another layer.

    Relies on `Function.operations` (keras/src/ops/function.py). Without it the names of operations, which Keras numbers,
    stay in the description of a model: a run made anew has another name, and is trained again.
    """
    return list(getattr(layer, "operations", ()))


def library_name(kind: type) -> tuple[str, str]:
    """The module and the name of a Keras class; those of `Model` for `Functional`.

    Keras puts `Functional` in the place of `Model` among the bases of a class once it is built from its inputs. Relies on
    where both are defined (keras/src/models); where they have moved, runs have other names, and are trained again.
    """
    if (kind.__module__, kind.__name__) == ("keras.src.models.functional", "Functional"):
        return "keras.src.models.model", "Model"
    return kind.__module__, kind.__qualname__


def compiled_metrics(model: Any) -> list:
    """The metrics and the weighted metrics that a model was compiled with, as given; None where there are none.

    Relies on `Trainer._compile_metrics` and `CompileMetrics._user_metrics`, `._user_weighted_metrics`
    (keras/src/trainers): the public `get_compile_config` fails for a user's functions. Without them: `BatchscapeError`.
    """
    compiled = _needed(model, "_compile_metrics")
    names = "_user_metrics", "_user_weighted_metrics"
    return [None if compiled is None else _needed(compiled, name) for name in names]


def compile_metrics(model: Any) -> Any:
    """What Keras updates of the metrics that a model was compiled with, a metric of several values; None without any.

    Relies on `Trainer._compile_metrics` (keras/src/trainers/trainer.py). Without it: `BatchscapeError`.
    """
    return _needed(model, "_compile_metrics")


def compiled_loss_weights(model: Any) -> Any:
    """The weights of the losses that a model was compiled with, as given.

    Relies on `Trainer._compile_loss` and `CompileLoss._user_loss_weights` (keras/src/trainers). Without them:
    `BatchscapeError`.
    """
    compiled = _needed(model, "_compile_loss")
    return None if compiled is None else _needed(compiled, "_user_loss_weights")


class LossOfOutput(NamedTuple):
    """One loss of a model, and what it is given, by its place among the flattened targets, outputs and sample weights.

    Attributes:
        name: The name of the output, or of the loss where there is one output.
        loss: The loss as given to `compile`.
        weight: Its weight, None for 1.
        target, output: Places of its target and its output.
        sample_weight: Place of its sample weights; None where all outputs share them, or there are none.
    """

    name: str
    loss: Any
    weight: Any
    target: int
    output: int
    sample_weight: int | None


def losses_of_outputs(model: Any, loss: Any, weights: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> list:
    """Which loss Keras gives which target and which output, for losses and weights as `compile` takes them.

    Relies on `CompileLoss` (keras/src/trainers/compile_utils.py), which is called once with losses that write down what
    they are given. Without it: `BatchscapeError`.

    Args:
        model: The model, for the names of its outputs.
        loss, weights: Losses and their weights: single ones, lists, dicts by name.
        y, y_pred, sample_weight: Targets, outputs and sample weights: arrays of shape (n, ...), or trees of them.

    Returns:
        A `LossOfOutput` for each.

    Raises:
        ValueError, KeyError: Keras' own, where these do not fit together.
    """
    import keras

    seen = []

    class Recording(keras.losses.Loss):
        def __init__(self, given: Any):
            super().__init__(name=str(getattr(given, "name", getattr(given, "__name__", given))))
            self.given = given

        def __call__(self, *given: Any) -> float:
            seen.append(given)
            return 0.0

    utilities = importlib.import_module("keras.src.trainers.compile_utils")
    recorded = keras.tree.map_structure(lambda each: None if each is None else Recording(each), loss)
    compiled = _needed(utilities, "CompileLoss")(recorded, weights, output_names=getattr(model, "output_names", None))
    compiled(y, y_pred, sample_weight)
    trees = [y, y_pred, sample_weight if keras.tree.is_nested(sample_weight) else None]
    found = []
    for (_, recording, weight, name), given in zip(_needed(compiled, "_flat_losses"), seen, strict=True):
        places = [
            next((place for place, leaf in enumerate(keras.tree.flatten(tree)) if leaf is each), None)
            for tree, each in zip(trees, given, strict=True)
        ]
        if None in places[:2]:
            raise ValueError(f"The loss {name} must have one target and one output.")
        found.append(LossOfOutput(name, recording.given, weight, places[0], places[1], places[2] if trees[2] else None))
    return found


def idf_weights(layer: Any) -> Any:
    """The inverse document frequencies that a lookup layer was adapted to; None where it has none.

    Relies on `TextVectorization._lookup_layer` and `IndexLookup.idf_weights_const` (keras/src/layers/preprocessing).
    Without the first: `BatchscapeError`. The second is missing from every layer without such weights, so that only the
    test would tell.
    """
    if type(layer).__name__ == "TextVectorization":
        layer = _needed(layer, "_lookup_layer")
    return getattr(layer, "idf_weights_const", None)


def takes_training(model: Any) -> bool:
    """Whether the `call` of a model takes `training`.

    Relies on `Layer._call_has_training_arg` (keras/src/layers/layer.py), as `fit` does. Without it: the signature of `call`.
    """
    try:
        return model._call_has_training_arg
    except AttributeError:
        return "training" in inspect.signature(model.call).parameters


def last_operation(model: Any, output: int = 0) -> Any:
    """The layer or operation that makes an output of a model; None for a subclassed model, which has no graph.

    Relies on `KerasTensor._keras_history` (keras/src/ops/node.py). Without it: None, as for a subclassed model.
    """
    try:
        return model.outputs[output]._keras_history.operation
    except (AttributeError, IndexError, TypeError):
        return None


def mask_of(outputs: Any) -> Any:
    """The mask that layers have put on a tensor; None without one.

    Relies on `get_keras_mask` (keras/src/backend/common/masking.py). Without it: `BatchscapeError`.
    """
    return _needed(_masking(), "get_keras_mask")(outputs)


def set_mask(outputs: Any, mask: Any) -> None:
    """Put a mask on a tensor, as layers do: one that comes out of a compiled function has lost it.

    Relies on `set_keras_mask` (keras/src/backend/common/masking.py). Without it: `BatchscapeError`.
    """
    _needed(_masking(), "set_keras_mask")(outputs, mask)


def _masking() -> ModuleType:
    try:
        return importlib.import_module("keras.src.backend.common.masking")
    except ImportError:
        raise _error("keras.src.backend.common.masking") from None


def compute_loss(model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """What a model's own `compute_loss` gives in inference, whether or not it takes `training`.

    Relies on `Trainer._compute_loss` (keras/src/trainers/trainer.py). Without it: `BatchscapeError`.
    """
    return _needed(model, "_compute_loss")(x, y, y_pred, sample_weight, training=False)


def update_loss_tracker(model: Any, loss: Any, n: Any) -> None:
    """Count the mean loss of n examples in the `loss` that `fit` reports.

    Relies on `Trainer._loss_tracker` (keras/src/trainers/trainer.py). Without it: the metric of that name in
    `Model.metrics`, which a subclass may have replaced.
    """
    try:
        tracker = model._loss_tracker
    except AttributeError:
        tracker = next(metric for metric in model.metrics if metric.name == "loss")
    tracker.update_state(loss, sample_weight=n)


def loss_options(loss: Any) -> dict[str, Any]:
    """What one of Keras' losses gives its function, such as the delta of `Huber`, which its configuration leaves out.

    Relies on `LossFunctionWrapper._fn_kwargs` (keras/src/losses/losses.py). Without it only the test would tell.
    """
    return dict(getattr(loss, "_fn_kwargs", {}))


def without_reduction(loss: Any) -> Any:
    """A copy of a Keras loss that gives the loss of each example.

    `copy.copy` would go through `get_config`, which forgets the dtype. Relies on `Loss.__call__` reading the public
    `reduction` at each call (keras/src/losses/loss.py). Otherwise: a single value, which callers refuse.
    """
    copied = object.__new__(type(loss))
    vars(copied).update(vars(loss), reduction=None)
    return copied


def has_rate_schedule(optimizer: Any) -> bool:
    """Whether a `LearningRateSchedule` sets the learning rate of an optimizer.

    See `rate_schedule`. Without the name: whether the configuration of the optimizer holds a configuration of a schedule.
    """
    # A LossScaleOptimizer has a rate of 0 itself.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    try:
        return rate_schedule(optimizer) is not None
    except BatchscapeError:
        return isinstance(optimizer.get_config()["learning_rate"], dict)


def rate_schedule(optimizer: Any) -> Any:
    """The `LearningRateSchedule` that sets the learning rate of an optimizer; None without one.

    Relies on `Optimizer._learning_rate` (keras/src/optimizers/base_optimizer.py): the public `learning_rate` is the value
    of the moment. Without it: `BatchscapeError`.
    """
    import keras

    rate = _needed(optimizer, "_learning_rate")
    return rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else None


def track_variable(optimizer: Any, variable: Any) -> None:
    """Make a variable one of the optimizer's own, so that a step that JAX has compiled sees its later values.

    Relies on `Optimizer._track_variable` (keras/src/optimizers/base_optimizer.py); the public `add_variable` only makes new
    ones. Without it: `BatchscapeError`.
    """
    _needed(optimizer, "_track_variable")(variable)


def trained_variables(optimizer: Any) -> list:
    """The variables that an optimizer was built with.

    Relies on `Optimizer._trainable_variables` (keras/src/optimizers/base_optimizer.py). Without it: `BatchscapeError`.
    """
    return list(_needed(optimizer, "_trainable_variables"))


_EXCLUSIONS = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")


def excluded_from_weight_decay(optimizer: Any) -> dict[str, Any]:
    """What `exclude_from_weight_decay` has set on an optimizer, by attribute; {} where it was not called.

    Relies on the attributes that the method sets (keras/src/optimizers/base_optimizer.py), which no configuration holds.
    Without them only the test would tell.
    """
    return {name: value for name in _EXCLUSIONS if (value := vars(optimizer).get(name))}


def exclude_from_weight_decay(optimizer: Any, excluded: Mapping[str, Any]) -> None:
    """Exclude what `excluded_from_weight_decay` has given of another optimizer of the same model."""
    vars(optimizer).update(excluded)


def index_of(optimizer: Any, variable: Any) -> int:
    """The place of a variable among those that an optimizer was built with.

    Relies on `Optimizer._get_variable_index` (keras/src/optimizers/base_optimizer.py), as Keras' own optimizers do.
    Without it: `BatchscapeError`.
    """
    return _needed(optimizer, "_get_variable_index")(variable)


def set_train_function(model: Any, function: Any) -> None:
    """Have `fit` call this function for each batch; None lets it make its own.

    Relies on `make_train_function` keeping a `train_function` that is there (keras/src/backend/*/trainer.py). Without the
    name: `BatchscapeError`.
    """
    _needed(model, "train_function")
    model.train_function = function


def sync_state(model: Any) -> None:
    """Give the variables of a model the values that `fit` holds elsewhere while it runs on JAX.

    Relies on `JAXTrainer.jax_state_sync` (keras/src/backend/jax/trainer.py). Without it: `BatchscapeError`.
    """
    _needed(model, "jax_state_sync")()


@contextlib.contextmanager
def calling(layer: Any, function: Callable) -> Iterator[None]:
    """Let a layer call something else than its `call` meanwhile, as a graph is traced.

    Relies on `Layer.__call__` asking the layer and not its class (keras/src/layers/layer.py, ops/operation.py); past
    `Layer.__setattr__`, which would track the function. Otherwise no layer would be seen to be called, and none be split:
    slower, with the same numbers.
    """
    object.__setattr__(layer, "call", function)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _needed(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name)
    except AttributeError:
        kind = thing if inspect.isclass(thing) or inspect.ismodule(thing) else type(thing)
        raise _error(f"{kind.__name__}.{name}") from None


def _error(name: str) -> BatchscapeError:
    import keras

    return BatchscapeError(f"batchscape needs {TESTED}, which has {name}. Received: Keras {keras.__version__}")
