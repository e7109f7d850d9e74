"""The named networks.

They end in logits, without a softmax, so that a loss near zero stays exact in float32.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from batchscape.config import MODELS
from batchscape.data import Data, splits
from batchscape.errors import InvalidInput

LAST = {"data_format": "channels_last"}
"""Where the channels are in our data, whatever the configuration of Keras says."""


def mlp(data: Data, *, width: int = 1) -> keras.Model:
    """Two hidden ReLU layers, 128 and 64 units times `width`, He-normal kernels and zero biases."""
    return _classifier(
        data,
        layers.Flatten(**LAST),
        layers.Dense(128 * width, "relu", kernel_initializer="he_normal"),
        layers.Dense(64 * width, "relu", kernel_initializer="he_normal"),
        layers.Dense(_num_outputs(data), kernel_initializer="he_normal"),
    )


def cnn(data: Data) -> keras.Model:
    """Two 3×3 convolutions, 8 and 16 maps, ReLU, each followed by 2×2 max pooling."""
    _require_images(data, "cnn", least=4)
    return _classifier(
        data,
        layers.Conv2D(8, 3, padding="same", activation="relu", **LAST),
        layers.MaxPooling2D(**LAST),
        layers.Conv2D(16, 3, padding="same", activation="relu", **LAST),
        layers.MaxPooling2D(**LAST),
        layers.Flatten(**LAST),
        layers.Dense(_num_outputs(data)),
    )


def cnn_bn(data: Data) -> keras.Model:
    """Two 3×3 convolutions, 16 and 32 maps, each followed by BatchNorm, ReLU and 2×2 max pooling."""
    _require_images(data, "cnn_bn", least=4)
    convolutions = [
        (
            layers.Conv2D(maps, 3, padding="same", use_bias=False, **LAST),
            *_normalised(momentum=0.9),
            layers.MaxPooling2D(**LAST),
        )
        for maps in (16, 32)
    ]
    return _classifier(data, *sum(convolutions, ()), layers.Flatten(**LAST), layers.Dense(_num_outputs(data)))


def lenet(data: Data) -> keras.Model:
    """The LeNet of the Theano tutorial: 20 and 50 5×5 maps, 2×2 pooling, 500 units, tanh (431,080 parameters on MNIST)."""
    _require_images(data, "lenet", least=16)
    return _classifier(
        data,
        layers.Conv2D(20, 5, activation="tanh", **LAST),
        layers.MaxPooling2D(**LAST),
        layers.Conv2D(50, 5, activation="tanh", **LAST),
        layers.MaxPooling2D(**LAST),
        layers.Flatten(**LAST),
        layers.Dense(500, "tanh"),
        layers.Dense(_num_outputs(data)),
    )


def keskar_f1(data: Data) -> keras.Model:
    """Net F1 of Keskar et al. 2017 (arXiv 1609.04836): five hidden layers of 512 units with BatchNorm and ReLU."""
    hidden = [(layers.Dense(512), *_normalised()) for _ in range(5)]
    return _classifier(data, layers.Flatten(**LAST), *sum(hidden, ()), layers.Dense(_num_outputs(data)))


def keskar_c1(data: Data) -> keras.Model:
    """Net C1 of Keskar et al. 2017 (arXiv 1609.04836): two 5×5 convolutions of 64 maps, then 384 and 192 units.

    BatchNorm and ReLU after each, 3×3 max pooling by 2 after each convolution, dropout of one half after each dense layer.
    """
    _require_images(data, "keskar_c1", least=4)

    convolutions = [
        (
            layers.Conv2D(64, 5, padding="same", **LAST),
            *_normalised(momentum=0.9),
            layers.MaxPooling2D(3, 2, "same", **LAST),
        )
        for _ in range(2)
    ]
    dense = [(layers.Dense(units), *_normalised(momentum=0.9), layers.Dropout(0.5)) for units in (384, 192)]
    return _classifier(
        data, *sum(convolutions, ()), layers.Flatten(**LAST), *sum(dense, ()), layers.Dense(_num_outputs(data))
    )


BUILDERS: dict[str, Callable[[Data], keras.Model]] = dict(
    zip(MODELS, (mlp, cnn, cnn_bn, lenet, keskar_f1, keskar_c1), strict=True)
)


def _classifier(data: Data, *stack: keras.Layer) -> keras.Model:
    if not isinstance(data.x_train, np.ndarray):
        raise InvalidInput("The named models take one input array; build your own model for several inputs.")
    return keras.Sequential([keras.Input(data.x_train.shape[1:], dtype="float32"), *stack])


def _normalised(**options: Any) -> tuple[keras.Layer, keras.Layer]:
    return layers.BatchNormalization(**options), layers.ReLU()


def _num_outputs(data: Data) -> int:
    if not isinstance(data.y_train, np.ndarray):
        received = "no targets" if data.y_train is None else "targets of several outputs"
        raise InvalidInput(
            f"The named models have one output: build your own model. Received: {received} from {data.meta['name']}"
        )
    if reason := splits.too_far_apart(np.concatenate([np.ravel(y) for y in (data.y_train, data.y_val, data.y_test)])):
        raise InvalidInput(reason)
    return data.meta["num_classes"] or int(np.prod(data.y_train.shape[1:]))


def _require_images(data: Data, name: str, *, least: int) -> None:
    shape = getattr(data.x_train, "shape", ())[1:]
    if len(shape) != 3 or min(shape[:2]) < least:
        raise InvalidInput(
            f"Model {name!r} needs images of shape (height ≥ {least}, width ≥ {least}, channels). "
            f"Received: inputs of shape {shape} from {data.meta['name']}"
        )
