"""What learns: a few named networks, and any `"package.module:function"`.

The named networks end in logits, without a softmax, so that a loss near zero stays exact in float32.
"""

import contextlib
import functools
import hashlib
import json
import os
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from batchscape import backend, usercode
from batchscape.config import MODELS
from batchscape.data import Data
from batchscape.errors import InvalidInput, UserCodeError, telling_line, unknown_name


def mlp(data: Data, *, width: int = 1) -> keras.Model:
    """Two hidden ReLU layers, 128 and 64 units times `width`, He-normal kernels and zero biases."""
    return _classifier(
        data,
        layers.Flatten(),
        layers.Dense(128 * width, "relu", kernel_initializer="he_normal"),
        layers.Dense(64 * width, "relu", kernel_initializer="he_normal"),
        layers.Dense(_num_outputs(data), kernel_initializer="he_normal"),
    )


def cnn(data: Data) -> keras.Model:
    """Two 3×3 convolutions, 8 and 16 maps, ReLU, each followed by 2×2 max pooling."""
    _require_images(data, "cnn", least=4)
    return _classifier(
        data,
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(_num_outputs(data)),
    )


def cnn_bn(data: Data) -> keras.Model:
    """Two 3×3 convolutions, 16 and 32 maps, each followed by BatchNorm, ReLU and 2×2 max pooling."""
    _require_images(data, "cnn_bn", least=4)
    convolutions = [
        (layers.Conv2D(maps, 3, padding="same", use_bias=False), *_normalised(momentum=0.9), layers.MaxPooling2D())
        for maps in (16, 32)
    ]
    return _classifier(data, *sum(convolutions, ()), layers.Flatten(), layers.Dense(_num_outputs(data)))


def lenet(data: Data) -> keras.Model:
    """The LeNet of the Theano tutorial: 20 and 50 5×5 maps, 2×2 pooling, 500 units, tanh (431,080 parameters on MNIST)."""
    _require_images(data, "lenet", least=16)
    return _classifier(
        data,
        layers.Conv2D(20, 5, activation="tanh"),
        layers.MaxPooling2D(),
        layers.Conv2D(50, 5, activation="tanh"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(500, "tanh"),
        layers.Dense(_num_outputs(data)),
    )


def keskar_f1(data: Data) -> keras.Model:
    """Net F1 of Keskar et al. 2017 (arXiv 1609.04836): five hidden layers of 512 units with BatchNorm and ReLU."""
    hidden = [(layers.Dense(512), *_normalised()) for _ in range(5)]
    return _classifier(data, layers.Flatten(), *sum(hidden, ()), layers.Dense(_num_outputs(data)))


def keskar_c1(data: Data) -> keras.Model:
    """Net C1 of Keskar et al. 2017 (arXiv 1609.04836): two 5×5 convolutions of 64 maps, then 384 and 192 units.

    BatchNorm and ReLU after each, 3×3 max pooling by 2 after each convolution, dropout of one half after each dense layer.
    """
    _require_images(data, "keskar_c1", least=4)

    convolutions = [
        (layers.Conv2D(64, 5, padding="same"), *_normalised(momentum=0.9), layers.MaxPooling2D(3, 2, "same"))
        for _ in range(2)
    ]
    dense = [(layers.Dense(units), *_normalised(momentum=0.9), layers.Dropout(0.5)) for units in (384, 192)]
    return _classifier(
        data, *sum(convolutions, ()), layers.Flatten(), *sum(dense, ()), layers.Dense(_num_outputs(data))
    )


BUILDERS: dict[str, Callable[[Data], keras.Model]] = dict(
    zip(MODELS, (mlp, cnn, cnn_bn, lenet, keskar_f1, keskar_c1), strict=True)
)


def _classifier(data: Data, *stack: keras.Layer) -> keras.Model:
    if not isinstance(data.x_train, np.ndarray):
        raise InvalidInput("The named models take one input array; build your own model for several inputs.")
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), *stack])


def _normalised(**options: Any) -> tuple[keras.Layer, keras.Layer]:
    return layers.BatchNormalization(**options), layers.ReLU()


def _num_outputs(data: Data) -> int:
    return data.meta["num_classes"] or int(np.prod(data.y_train.shape[1:]))


def _require_images(data: Data, name: str, *, least: int) -> None:
    shape = getattr(data.x_train, "shape", ())[1:]
    if len(shape) != 3 or min(shape[:2]) < least:
        raise InvalidInput(
            f"Model {name!r} needs images of shape (height ≥ {least}, width ≥ {least}, channels). "
            f"Received: inputs of shape {shape} from {data.meta['name']}"
        )


def find_builder(model: str | Callable) -> Callable:
    """The function that builds a model: from its name, `"package.module:function"` or a `.keras` file, or itself."""
    if callable(model):
        return model
    if model in BUILDERS:
        return BUILDERS[model]
    if model.endswith(".keras"):
        return functools.partial(load_model, model)
    if ":" in model:
        return usercode.resolve(model, kind="model")
    raise unknown_name("model", model, MODELS)


def build_model(
    model: str | Callable, data: Data, *, seed: int | None = None, precision: str | None = None
) -> keras.Model:
    """Build a Keras model for a data set; a model that is not built yet is built on one example.

    Args:
        model: A name in `config.MODELS`, `"package.module:function"`, or a function. Functions are called as
            `build(data)` if they take an argument, else as `build()`, and return a Keras model, compiled or not.
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
        if built in _given:
            raise UserCodeError(
                f"build function {usercode.name_of(build)} must make a new model at each call: every run starts from one. "
                "Received: the same model twice"
            )
        _given.add(built)
        if not all(layer.built for layer in built._flatten_layers()):
            example = keras.tree.map_structure(lambda array: array[:1], data.x_train)
            usercode.call(built, example, what="model from the build")
    return built


def load_model(file: str | os.PathLike) -> keras.Model:
    """A model that Keras saved as a `.keras` file.

    Raises:
        UserCodeError: If Keras cannot read it, say because it has layers of the user's own.
    """
    try:
        return keras.saving.load_model(file)
    except Exception as error:
        raise UserCodeError(
            f"{file} must be a .keras file of a model that Keras can load: {telling_line(error)}"
        ) from error


_given: weakref.WeakSet[keras.Model] = weakref.WeakSet()
"""Models that users' functions have built, as long as they live."""


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


def fingerprint(model: keras.Model, build: Callable) -> str:
    """A digest of a model's configuration and of the source of the function that built it.

    Names that Keras numbers by how many layers the process has made (`dense_7`) do not count.
    """
    names = {}
    for position, layer in enumerate(model._flatten_layers()):
        names.setdefault(layer.name, f"layer {position}")
        for place, operation in enumerate(getattr(layer, "operations", ())):  # Such as the sum in x + y.
            names.setdefault(operation.name, f"operation {position}.{place}")
    config = json.dumps(_renamed(_configuration(model), names), sort_keys=True, default=str)
    if build in BUILDERS.values():
        return hashlib.sha256(config.encode()).hexdigest()
    described = f"{config}{usercode.source_sha256(build)}{_compiled_with(model)}"
    return hashlib.sha256(described.encode()).hexdigest()


NAMING = ("name", "keras_history", "input_layers", "output_layers")
"""Where layers are named in a configuration; elsewhere "dropout" is a rate, and "relu" an activation."""


def _renamed(config, names: dict[str, str], *, naming: bool = False):
    """A configuration with other names for its layers."""
    if isinstance(config, dict):
        return {key: _renamed(value, names, naming=key in NAMING) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_renamed(item, names, naming=naming) for item in config]
    return names.get(config, config) if naming and isinstance(config, str) else config


def _compiled_with(model: keras.Model) -> str:
    """The optimizer and the loss that a model was compiled with, without the names that Keras numbers."""
    if getattr(model, "optimizer", None) is None:
        return ""
    parts = {"optimizer": keras.optimizers.serialize(model.optimizer)["config"], "loss": getattr(model, "loss", None)}
    if isinstance(parts["loss"], keras.Loss):
        parts["loss"] = [parts["loss"].name, parts["loss"].get_config()]
    parts["optimizer"].pop("name", None)
    return json.dumps(parts, sort_keys=True, default=lambda value: getattr(value, "__name__", type(value).__name__))


def _configuration(model: keras.Model):
    shapes = [(list(weight.shape), weight.dtype) for weight in model.weights]
    try:
        config = model.get_config()
    except NotImplementedError:  # A subclassed model without get_config: its layers, and its source, must do.
        config = [_layer_configuration(layer) for layer in model._flatten_layers(include_self=False)]
    return [shapes, _without_object_ids(config)]


def _layer_configuration(layer: keras.Layer):
    try:
        return layer.get_config()
    except NotImplementedError:
        return type(layer).__qualname__


def _without_object_ids(config):
    if isinstance(config, dict):
        return {key: _without_object_ids(value) for key, value in config.items() if key != "shared_object_id"}
    if isinstance(config, (list, tuple)):
        return [_without_object_ids(item) for item in config]
    return config
