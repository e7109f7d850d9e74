"""Norms of the gradients of single examples, from one backward pass over all of them.

A weight enters a dense layer as z = a W, so example i has the gradient aᵢ ⊗ δᵢ, with δᵢ its row of ∂L/∂z, and
‖aᵢ ⊗ δᵢ‖² = ‖aᵢ‖² ‖δᵢ‖² needs no gradient to be made (Goodfellow 2015, arXiv 1510.01799). A convolution is the same on
patches, where the small product has to be made. A model with any other layer that holds weights is left to the caller.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

PASSES = ("Reshape", "Squeeze", "Cast", "Identity")
"""Operations between a variable and the one that uses it."""


class Use(NamedTuple):
    """Where a variable is used.

    Attributes:
        output: What comes out there, shape (n, ...).
        square_norms: From ∂L/∂output to ‖gᵢ‖², shape (n,).
        size: How many numbers that makes for each example on the way.
    """

    output: tf.Tensor
    square_norms: Callable[[tf.Tensor], tf.Tensor]
    size: int = 0


def uses(variables: Sequence[tf.Tensor], n: int) -> list[Use] | None:
    """Where each variable is used in the graph that is being traced; None if one of them is used in another way.

    Args:
        variables: Tensors that a model has just been called with, every one of them used once.
        n: Number of examples in that call.
    """
    found = [_use_of(variable, n) for variable in variables]
    return None if None in found else found


def square_norms(loss: tf.Tensor, found: Sequence[Use]) -> tf.Tensor:
    """‖gᵢ‖² of every example and variable, shape (n, variables), where the loss is a sum over examples."""
    slopes = tf.gradients(loss, [use.output for use in found], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.stack([use.square_norms(slope) for use, slope in zip(found, slopes, strict=True)], axis=1)


def _use_of(variable: tf.Tensor, n: int) -> Use | None:
    tensor = variable
    while True:
        consumers = tensor.consumers()
        if len(consumers) != 1:
            return None
        operation = consumers[0]
        if operation.type not in PASSES:
            break
        tensor = operation.outputs[0]
    output = operation.outputs[0]
    if output.shape.rank is None or not output.shape.rank or output.shape[0] != n:
        return None
    make = {"MatMul": _of_product, "Conv2D": _of_convolution, "AddV2": _of_sum, "BiasAdd": _of_sum}.get(operation.type)
    return make(operation, tensor) if make else None


def _of_product(operation, weight):
    inputs, kernel = operation.inputs
    if kernel is not weight or operation.get_attr("transpose_a") or operation.get_attr("transpose_b"):
        return None
    return Use(operation.outputs[0], lambda slope: _square_sum(inputs) * _square_sum(slope))


def _of_sum(operation, weight):
    """A bias: one number a unit or channel, the last axis."""
    size = weight.shape.num_elements()
    if operation.type == "BiasAdd" and operation.get_attr("data_format") != b"NHWC":
        return None
    if size != weight.shape[-1] or size != operation.outputs[0].shape[-1]:
        return None
    middle = list(range(1, operation.outputs[0].shape.rank - 1))
    return Use(operation.outputs[0], lambda slope: _square_sum(tf.reduce_sum(slope, axis=middle)))


def _of_convolution(operation, weight):
    inputs, kernel = operation.inputs
    height, width, channels, filters = kernel.shape
    padding, layout = operation.get_attr("padding"), operation.get_attr("data_format")
    if kernel is not weight or layout != b"NHWC" or padding not in (b"SAME", b"VALID") or inputs.shape[-1] != channels:
        return None
    output, patch = operation.outputs[0], height * width * channels
    positions = math.prod(output.shape[1:3])

    def square_norms(slope):
        patches = tf.image.extract_patches(
            inputs,
            sizes=[1, height, width, 1],
            strides=operation.get_attr("strides"),
            rates=operation.get_attr("dilations"),
            padding=padding.decode(),
        )
        patches = tf.reshape(patches, (-1, positions, patch))
        slopes = tf.reshape(slope, (-1, positions, filters))
        return _square_sum(tf.matmul(patches, slopes, transpose_a=True))

    return Use(output, square_norms, patch * (positions + filters))


def _square_sum(values: tf.Tensor) -> tf.Tensor:
    """Sum of squares of each example, float32 at least: half precision would overflow."""
    values = tf.cast(values, tf.float32) if values.dtype.size < 4 else values
    return tf.reduce_sum(tf.square(values), axis=list(range(1, values.shape.rank)))
