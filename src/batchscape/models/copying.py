"""Copies of a Keras model that a user holds: made anew at each call, in this process and in others."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import pathlib
import tempfile
import types
from collections.abc import Iterator, Mapping
from typing import Any, Self

import cloudpickle
import keras
import numpy as np

from batchscape import usercode
from batchscape.backend import keras_private
from batchscape.errors import UserCodeError, reason_of
from batchscape.models.files import without_warnings
from batchscape.models.fingerprint import stored_by
from batchscape.models.starts import FRESH, SEED, WEIGHTS
from batchscape.system import usermodules


@dataclasses.dataclass(frozen=True)
class State:
    """The state of one layer, without that of the layers inside it.

    Attributes:
        trainable: Whether it is trained.
        is_adapted: Whether it is of a kind that is adapted to data, such as `Normalization`, and not trained.
        variables: What it saves of itself, by name.
        assets: The files that it saves beside these, by their names: vocabularies.
        settings: Its dtype policy, and the numbers and words among the attributes of a layer of the user's own.
    """

    trainable: bool
    is_adapted: bool
    variables: Mapping[str, np.ndarray]
    assets: Mapping[str, bytes]
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelCopy(usercode.Builder):
    """What makes a copy of a model at each call, as the model was when `of` was called.

    Attributes:
        kind, config: What Keras makes it anew from.
        names: The user's own classes and functions in it, by the names that `config` has for them: none need be registered.
        states: The states of its layers, outer ones first.
        compiled: What `compile` takes; empty where the model was not compiled.
        fresh: Whether copies begin from new initial weights, which the seed draws.
    """

    kind: type
    config: Mapping[str, Any]
    names: Mapping[str, Any]
    states: tuple[State, ...]
    compiled: Mapping[str, Any]
    fresh: bool = False

    @classmethod
    def of(cls, model: keras.Model) -> Self:
        """What copies a model, which stays as it is.

        Raises:
            UserCodeError: If Keras cannot make it anew, say because its class has no `get_config`.
        """
        if not model.built:
            raise UserCodeError(
                "A model must be built, or it has no weights to copy: call it on an example, or give the function that "
                f"builds it. Received: {_name_of(type(model))}"
            )
        with _refused(type(model)), _serialized(model) as names:
            compiled = _compiled(model)
            config = _taken(type(model), copy.deepcopy(model.get_config()))
            states = tuple(map(_state_of, keras_private.layers_of(model)))
        return cls(kind=type(model), config=config, names=names, states=states, compiled=compiled)

    @property
    def label(self) -> str:
        """The name of the class, which stands in records."""
        return (FRESH if self.fresh else "") + _name_of(self.kind)

    @property
    def starts_from(self) -> str:
        """From what a training starts."""
        return SEED if self.fresh else WEIGHTS

    def __call__(self, data: Any = None) -> keras.Model:
        """A copy, which is compiled as the model was; one without a graph is built on an example of the data."""
        with _refused(self.kind), keras.saving.custom_object_scope(dict(self.names)), without_warnings():
            model = self.kind.from_config(copy.deepcopy(self.config))
            if data is not None and not all(layer.built for layer in keras_private.layers_of(model)):
                model(keras.tree.map_structure(lambda array: array[:1], data.x_train))
            for layer, state in zip(keras_private.layers_of(model), self.states, strict=True):
                if isinstance(layer, keras.Model) and usermodules.is_library(type(layer).__module__):
                    # Which a configuration of layers leaves out, and by which `compile` chooses to scale the loss.
                    layer.dtype_policy = state.settings["dtype_policy"]
                _require_settings(layer, state)
                layer.trainable = state.trainable
                if state.is_adapted or not self.fresh:
                    _restore(layer, state)
            if self.compiled:
                model.compile(**keras.tree.map_structure(_made, dict(self.compiled)))
        return model

    def named(self) -> Any:
        """What stands for it in the name of a run, beside the model that it gives."""
        return FRESH if self.fresh else WEIGHTS


@dataclasses.dataclass(frozen=True)
class StoredCopy(usercode.Builder):
    """A `ModelCopy` in a file of ours, so that its weights do not travel with every task of a sweep.

    Attributes:
        file: The file.
        label, starts_from: Those of the `ModelCopy`.
    """

    file: pathlib.Path
    label: str
    starts_from: str

    @classmethod
    def write(cls, build: ModelCopy, file: pathlib.Path) -> Self:
        """Write what makes copies to a file, unless that is there."""
        if not file.exists():
            file.write_bytes(cloudpickle.dumps(build))
        return cls(file, build.label, build.starts_from)

    def __call__(self, data: Any = None) -> keras.Model:
        """A copy."""
        return _read(self.file)(data)


@functools.lru_cache(maxsize=1)
def _read(file: pathlib.Path) -> ModelCopy:
    return cloudpickle.loads(file.read_bytes())


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A loss, a metric or an optimizer, as it is made anew: by its configuration, or by what it holds.

    Keras sends such objects by their registered names, which the user's own need not have.
    """

    kind: type
    config: Mapping[str, Any] | None
    held: Mapping[str, Any]

    def make(self) -> Any:
        """The object."""
        if self.config is not None:
            return self.kind.from_config(copy.deepcopy(dict(self.config)))
        made = object.__new__(self.kind)
        vars(made).update(self.held)
        return made


def _made(value: Any) -> Any:
    return value.make() if isinstance(value, Part) else value


def _part(value: Any) -> Any:
    """A loss by what it holds, for its configuration forgets its dtype; what has variables by its configuration."""
    if isinstance(value, keras.losses.Loss):
        return Part(type(value), None, dict(vars(value)))
    if isinstance(value, (keras.metrics.Metric, keras.optimizers.Optimizer)):
        return Part(type(value), value.get_config(), {})
    return value


def _compiled(model: keras.Model) -> dict[str, Any]:
    """What a model was compiled with, ready to be made anew."""
    if not model.compiled or getattr(model, "optimizer", None) is None:
        return {}
    metrics, weighted = keras_private.compiled_metrics(model)
    given = {
        "optimizer": model.optimizer,
        "loss": model.loss,
        "loss_weights": keras_private.compiled_loss_weights(model),
        "metrics": metrics,
        "weighted_metrics": weighted,
    }
    return keras.tree.map_structure(_part, given)


def _taken(kind: type, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what Keras adds to it and an `__init__` of the user's own, with no `**kwargs`, does not take."""
    parameters = inspect.signature(kind.__init__).parameters
    if usermodules.is_library(kind.__module__) or any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return config
    added = {"name", "trainable", "dtype"} - {*parameters}
    return {name: value for name, value in config.items() if name not in added}


def _state_of(layer: keras.Layer) -> State:
    variables: dict[str, Any] = {}
    layer.save_own_variables(variables)
    with tempfile.TemporaryDirectory(prefix="batchscape-") as folder:
        if hasattr(layer, "save_assets"):
            with contextlib.suppress(ValueError):  # A lookup layer that was never adapted.
                layer.save_assets(folder)
        assets = {file.name: file.read_bytes() for file in pathlib.Path(folder).iterdir()}
    values = {name: np.array(keras.ops.convert_to_numpy(value)) for name, value in variables.items()}
    return State(layer.trainable, hasattr(layer, "adapt"), values, assets, _settings_of(layer))


def _settings_of(layer: keras.Layer) -> dict[str, Any]:
    own = [kind for kind in type(layer).__mro__ if not usermodules.is_library(kind.__module__)]
    names = {name for kind in own for name in stored_by(kind)} - {"name", "built", "compiled"}
    held = {name: value for name, value in vars(layer).items() if name in names}
    plain = {name: value for name, value in held.items() if type(value) in (bool, int, float, str, tuple)}
    return {**plain, "dtype_policy": layer.dtype_policy.name}


def _require_settings(layer: keras.Layer, state: State) -> None:
    """Refuse a layer that is not what it was: Keras gives an `__init__` its defaults where `get_config` tells nothing."""
    if usermodules.is_library(type(layer).__module__):
        return
    now = _settings_of(layer)
    for name, value in state.settings.items():
        if name in now and not _are_equal(now[name], value):
            raise TypeError(
                f"the get_config of {type(layer).__name__} must give all that its __init__ takes: {name} was {value!r}, and "
                f"{now[name]!r} in the copy"
            )


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two settings are equal, NaN and NaN among them; of what holds arrays nobody knows."""
    try:
        return bool(one is other or one == other or (one != one and other != other))
    except ValueError:
        return True


def _restore(layer: keras.Layer, state: State) -> None:
    layer.load_own_variables(dict(state.variables))
    if not state.assets:
        return
    with tempfile.TemporaryDirectory(prefix="batchscape-") as folder:
        for name, content in state.assets.items():
            pathlib.Path(folder, name).write_bytes(content)
        layer.load_assets(folder)


@contextlib.contextmanager
def _serialized(model: keras.Model) -> Iterator[dict[str, Any]]:
    """The user's own classes and functions in a model by name; meanwhile each function has a name of its own.

    Keras goes by names, which two functions may share, and takes a lambda apart, without what it closes over.
    """
    names: dict[str, Any] = {}
    functions = {id(function): function for part in _parts_of(model) for function in _functions_in(part)}
    before = [(function, function.__name__) for function in functions.values()]
    try:
        for number, (function, _) in enumerate(before):
            function.__name__ = f"function_{number}_of_batchscape"
            names[function.__name__] = function
        for kind in dict.fromkeys(type(part) for part in _parts_of(model)):
            if usermodules.is_library(kind.__module__):
                continue
            for name in {kind.__name__, keras.saving.get_registered_name(kind)}:
                if names.setdefault(name, kind) is not kind:
                    raise TypeError(f"two classes are called {name}")
        with without_warnings():
            yield names
    finally:
        for function, name in before:
            function.__name__ = name


def _parts_of(model: keras.Model) -> Iterator[Any]:
    """Keras objects in a model: its layers, what it was compiled with, and what these hold."""
    waiting = [*keras_private.layers_of(model), *_given_to_compile(model)]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [value for value in vars(part).values() if hasattr(value, "get_config")]


def _given_to_compile(model: keras.Model) -> list[Any]:
    if not model.compiled:
        return []
    given = [getattr(model, "optimizer", None), model.loss, keras_private.compiled_metrics(model)]
    return [value for value in keras.tree.flatten(given) if hasattr(value, "get_config")]


def _functions_in(part: Any) -> list[types.FunctionType]:
    """Functions of the user's own that a Keras object holds."""
    return [
        value
        for value in vars(part).values()
        if isinstance(value, types.FunctionType) and not usermodules.is_library(value.__module__ or "")
    ]


@contextlib.contextmanager
def _refused(kind: type) -> Iterator[None]:
    """What Keras says where it cannot make a model anew, in one line."""
    try:
        yield
    except UserCodeError:
        raise
    except Exception as error:
        raise UserCodeError(
            "A model that is given must be one that Keras can copy; give the function that builds it. "
            f"Received: {_name_of(kind)}, which cannot be copied for {reason_of(error)}"
        ) from error


def _name_of(kind: type) -> str:
    home, name = keras_private.library_name(kind)
    return f"keras:{name}" if home.partition(".")[0] == "keras" else f"{home}:{name}"
