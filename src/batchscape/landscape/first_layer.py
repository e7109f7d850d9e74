"""The first layer with weights, whose outputs along a line or plane of weights need no product of matrices.

Before its activation a dense or convolutional layer is linear in its kernel: X (c₁W₁ + c₂W₂) = c₁ XW₁ + c₂ XW₂. Where X is
the data, or a function of the data alone, the products XWᵢ are made once, and each point of the plane takes a sum.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable

import keras
from keras import layers, ops

from batchscape.backend import keras_private

LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
"""Layers that can be split into a linear part and the rest."""


@dataclasses.dataclass(frozen=True)
class FirstLayer:
    """A layer that sees the data and no other layer's weights.

    Attributes:
        layer: The layer.
        moves: Whether its inputs depend on non-trainable variables, such as the moments of a `Normalization`.
        size: How many numbers X W has for one example.
    """

    layer: keras.Layer
    moves: bool
    size: int

    @property
    def products(self) -> int:
        """How many products each of these numbers is the sum of."""
        return math.prod(self.layer.kernel.shape[:-1])

    def linear_part(self, call: Callable[[], object]):
        """X W of this layer in a call of its model."""
        found = []

        def look(inputs, *_, **__):
            found.append(linear(self.layer, inputs))
            return self._rest(found[0])

        with keras_private.calling(self.layer, look):
            call()
        return found[0]

    def with_linear_part(self, product, call: Callable[[], object]):
        """What a call of its model gives if X W of this layer is `product`."""
        with keras_private.calling(self.layer, lambda *_, **__: self._rest(product)):
            return call()

    def _rest(self, product):
        if self.layer.use_bias:
            product = ops.add(product, self.layer.bias)
        return self.layer.activation(product)


def inputs_of_layers(model: keras.Model, call: Callable[[], object]) -> dict[keras.Layer, list]:
    """What each layer that can be split is called with in a call of its model that is being traced, in order."""
    inputs: dict[keras.Layer, list] = {}
    with contextlib.ExitStack() as stack:
        for layer in keras_private.layers_of(model, include_self=False):
            if type(layer) in LINEAR and getattr(layer, "data_format", "channels_last") == "channels_last":
                stack.enter_context(keras_private.calling(layer, _watch(layer, inputs)))
        call()
    return inputs


def _watch(layer: keras.Layer, inputs: dict[keras.Layer, list]) -> Callable:
    call = layer.call

    def watched(tensor, *arguments, **options):
        inputs.setdefault(layer, []).append(tensor)
        return call(tensor, *arguments, **options)

    return watched


def linear(layer: keras.Layer, inputs):
    """X W of a layer."""
    return (
        ops.matmul(inputs, layer.kernel) if type(layer) is layers.Dense else layer.convolution_op(inputs, layer.kernel)
    )
