"""Build a Keras model: a named network, a file, a copy of a model or what a user's function returns, checked."""

import contextlib
import dataclasses
import os
import random
import weakref
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import layers

from batchscape import backend, usercode
from batchscape.backend import keras_private
from batchscape.config import MODELS
from batchscape.data import Data
from batchscape.errors import InvalidInput, UserCodeError, unknown_name
from batchscape.models import fingerprint as fingerprints
from batchscape.models import own_step
from batchscape.models.copying import ModelCopy
from batchscape.models.files import is_file
from batchscape.models.fingerprint import Fingerprint
from batchscape.models.model_file import ModelFile
from batchscape.models.networks import BUILDERS
from batchscape.models.starts import SEED


def find_builder(model: str | os.PathLike | Callable) -> Callable:
    """The function that builds a model.

    Args:
        model: A name, `"package.module:function"`, a `.keras` or `.h5` file, a Keras model, which is copied as it is now, or
            a function, which is returned itself.
    """
    if isinstance(model, keras.Model):
        return ModelCopy.of(model)
    if isinstance(model, os.PathLike):
        return ModelFile(os.fspath(model))
    if callable(model):
        return model
    if model in BUILDERS:
        return BUILDERS[model]
    if is_file(model):
        return ModelFile(model)
    if ":" in model:
        return usercode.resolve(model, kind="model")
    raise unknown_name("model", model, MODELS)


def fresh(model: str | os.PathLike | keras.Model) -> Callable:
    """Return what builds a model with new initial weights, drawn by the seed of each run, wherever `build` is taken.

    Layers that were adapted to data, such as `Normalization` and `StringLookup`, keep what they have; all others are drawn
    anew, frozen ones too.

    Args:
        model: A Keras model, or a `.keras` or `.h5` file.

    Raises:
        InvalidInput: For anything else: a function decides itself from which weights its model begins.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
        >>> fresh(model).starts_from
        'the seed'
    """
    build = find_builder(model)
    if not isinstance(build, usercode.Builder):
        raise InvalidInput(
            f"fresh takes a Keras model, or a .keras or .h5 file; a function decides itself. Received: {model!r}"
        )
    return dataclasses.replace(build, fresh=True)


def start_of(build: Callable) -> str:
    """From what a training starts that a builder begins: what its record says."""
    build = usercode.inner_builder(build)
    if isinstance(build, usercode.Builder):
        return build.starts_from
    return SEED if build in BUILDERS.values() else "what build returns"


def build_model(
    model: str | os.PathLike | Callable, data: Data, *, seed: int | None = None, precision: str | None = None
) -> keras.Model:
    """Build a Keras model for a data set; a model that is not built yet is built on one example.

    Args:
        model: A name in `config.MODELS`, `"package.module:function"`, a function, a `.keras` or `.h5` file, or a Keras model,
            which is copied. Functions are called as `build(data)` if they take an argument, else as `build()`, and return a
            Keras model, compiled or not.
        data: The data set, for the shapes of inputs and outputs.
        seed: Seed of the initial weights; None leaves the random state alone.
        precision: A Keras dtype policy for its layers; None for the policy in force.

    Returns:
        A built `keras.Model`; the named ones are uncompiled.

    Raises:
        InvalidInput: For an unknown name, or data that do not fit a named model.
        UserCodeError: If a user's function is missing, raises, or returns no model.
    """
    backend.prepare()
    backend.use_float32()
    build = find_builder(model)
    with _seeded(seed), _dtype_policy(precision):
        if build in BUILDERS.values():
            return build(data)
        arguments = (data,) if usercode.takes_argument(build) else ()
        built = usercode.call(build, *arguments, what="build")
        if not isinstance(built, keras.Model):
            raise UserCodeError(
                f"build function {usercode.name_of(build)} must return a keras.Model. Received: {type(built).__name__}"
            )
        if own_step.has_call(built) and not all(layer.built for layer in keras_private.layers_of(built)):
            example = keras.tree.map_structure(lambda array: array[:1], data.x_train)
            usercode.call(built, example, what="model from the build")
        _require_new(built, build)
    return built


_variables: weakref.WeakValueDictionary[int, keras.Variable] = weakref.WeakValueDictionary()
"""Variables of the models that users' functions have built, by their addresses, as long as they live."""


UNTRAINED = layers.Normalization
"""A layer that training leaves as it is: it may be adapted once, outside of `build`, and stand in every model."""


def _require_new(model: keras.Model, build: Callable) -> None:
    """Refuse a model with variables of another one: training one would train the other, and be undone with it."""
    constant = {id(v) for layer in keras_private.layers_of(model) for v in layer.variables if type(layer) is UNTRAINED}
    variables = [variable for variable in model.variables if id(variable) not in constant]
    shared = [variable.path for variable in variables if _variables.get(id(variable)) is variable]
    if shared:
        raise UserCodeError(
            f"build function {usercode.name_of(build)} must make all variables anew at each call: build or load inside it "
            "what several models are to begin from, or copy it there (keras.models.clone_model, then set_weights). "
            f"Received: {len(shared)} of {len(variables)} variables of an earlier model, such as {shared[0]!r}"
        )
    _variables.update({id(variable): variable for variable in variables})


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed Keras, and give Python and NumPy their own random states back afterwards."""
    if seed is None:
        yield
        return
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state is the one Keras seeds)
    try:
        keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextlib.contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def set_weights(model: keras.Model, weights: list[np.ndarray]) -> None:
    """`model.set_weights`, with one clear line where the weights belong to another model."""
    expected = [tuple(weight.shape) for weight in model.weights]
    received = [np.shape(weight) for weight in weights]
    if expected != received:
        raise InvalidInput(f"Weights must have the shapes of {model.name}: {expected}. Received: {received}")
    model.set_weights(weights)


def fingerprint(build: Callable, data: Data, precision: str, load: Callable | None = None) -> Fingerprint:
    """The fingerprint of a model: its configuration, what built it, and the data function.

    Built twice, with two seeds: the weights that both have are part of it, such as those that `build` reads from a file.

    Args:
        build: What `find_builder` gives.
        data: The data set.
        precision: A Keras dtype policy.
        load: The user's function that gave the data.

    Raises:
        InvalidInput, UserCodeError: See `build_model`.
    """
    model = build_model(build, data, seed=0, precision=precision)
    if build in BUILDERS.values():
        twin, what = model, None
    else:
        twin, what = build_model(build, data, seed=1, precision=precision), build
    if isinstance(inner := usercode.inner_builder(build), usercode.Builder):
        what = inner.named() if inner is build else (inner.named(), build.measure)
    code = fingerprints.of_model(model, twin, what, load)
    if code.why_not and load is not None and data.pipeline is None:  # Arrays have a digest of their own.
        return fingerprints.of_model(model, twin, what)
    return code
