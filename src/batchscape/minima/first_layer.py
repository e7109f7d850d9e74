"""The first layer with weights, whose outputs along a line or plane of weights need no product of matrices.

Before its activation a dense or convolutional layer is linear in its kernel: X (c₁W₁ + c₂W₂) = c₁ XW₁ + c₂ XW₂. Where X is
the data, or a function of the data alone, the products XWᵢ are made once, and each point of the plane takes a sum.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf
from keras import layers, ops

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

    def linear_part(self, call: Callable[[], object]):
        """X W of this layer in a call of its model."""
        found = []

        def look(inputs, *_, **__):
            found.append(_linear(self.layer, inputs))
            return self._rest(found[0])

        with _calls(self.layer, look):
            call()
        return found[0]

    def with_linear_part(self, product, call: Callable[[], object]):
        """What a call of its model gives if X W of this layer is `product`."""
        with _calls(self.layer, lambda *_, **__: self._rest(product)):
            return call()

    def _rest(self, product):
        if self.layer.use_bias:
            product = ops.add(product, self.layer.bias)
        return self.layer.activation(product)


def find(model: keras.Model, call: Callable[[], object], trainable: tf.Tensor, other: Sequence[tf.Tensor]):
    """The `FirstLayer` of a model in the graph that is being traced; None where there is none.

    Args:
        model: The model.
        call: Calls it on one example, with its variables taken from the following.
        trainable: The tensor that all trainable variables are cut from.
        other: The other variables.
    """
    inputs: dict[keras.Layer, list] = {}
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers(include_self=False):
            if type(layer) in LINEAR and getattr(layer, "data_format", "channels_last") == "channels_last":
                stack.enter_context(_calls(layer, _watch(layer, inputs)))
        call()
    for layer, seen in inputs.items():
        sources = _sources(seen[0])
        if len(seen) == 1 and trainable.ref() not in sources:
            size = _linear(layer, seen[0]).shape.num_elements()
            return FirstLayer(layer, moves=any(variable.ref() in sources for variable in other), size=size)
    return None


def _watch(layer: keras.Layer, inputs: dict[keras.Layer, list]) -> Callable:
    call = layer.call

    def watched(tensor, *arguments, **options):
        inputs.setdefault(layer, []).append(tensor)
        return call(tensor, *arguments, **options)

    return watched


@contextlib.contextmanager
def _calls(layer: keras.Layer, function: Callable) -> Iterator[None]:
    """Let a layer compute something else, while a graph is traced."""
    object.__setattr__(layer, "call", function)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _linear(layer: keras.Layer, inputs):
    return (
        ops.matmul(inputs, layer.kernel) if type(layer) is layers.Dense else layer.convolution_op(inputs, layer.kernel)
    )


def _sources(tensor: tf.Tensor) -> set:
    """References to all tensors that a tensor depends on."""
    found, waiting = set(), [tensor]
    while waiting:
        tensor = waiting.pop()
        if tensor.ref() not in found:
            found.add(tensor.ref())
            waiting.extend(tensor.op.inputs)
    return found
