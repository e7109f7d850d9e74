"""Filters: the groups of weights to which filter normalisation gives one norm each.

The weights of one output of a layer are a filter, also called a unit, so the layer's output axis decides.
"""

import keras
from keras import layers

from batchscape.backend import keras_private

NORMALISERS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.UnitNormalization,
)


def unit_axes(model: keras.Model) -> list[tuple[int, ...] | None]:
    """The axes of each trainable variable that run within a unit; None for biases and the parameters of normalisers.

    | layer | shape of the kernel | within a unit |
    |---|---|---|
    | Dense, Conv, recurrent, any other | (..., in, out) | all but the last |
    | Conv transposed | (..., out, in) | all but the last but one |
    | Depthwise, and that part of Separable | (..., in, multiplier) | all but the last two |
    | EinsumDense, and so attention | by its equation | the axes that it sums over |
    | Embedding | (tokens, out) | the last: a unit is a row |

    Returns:
        Axes in the order of `model.trainable_variables`.
    """
    owners = {id(weight): layer for layer in keras_private.layers_of(model) for weight in _own_weights(layer)}
    return [_axes_of(owners.get(id(variable)), variable) for variable in model.trainable_variables]


def _own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer that none of the layers inside it has."""
    of_others = {id(weight) for inner in keras_private.layers_of(layer, include_self=False) for weight in inner.weights}
    return [weight for weight in layer.weights if id(weight) not in of_others]


def _axes_of(layer: keras.Layer | None, variable: keras.Variable) -> tuple[int, ...] | None:
    rank = len(variable.shape)
    name = variable.path.split("/")[-1]
    if rank < 2 or "bias" in name or isinstance(layer, NORMALISERS):
        return None
    if isinstance(layer, layers.EinsumDense):
        inputs, kernel, outputs = layer.equation.replace("->", ",").split(",")
        return tuple(axis for axis, letter in enumerate(kernel) if letter in inputs and letter not in outputs)
    if isinstance(layer, layers.Embedding):
        return (1,)
    if "depthwise" in name or isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)):
        return tuple(range(rank - 2))
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)):
        return (*range(rank - 2), rank - 1)
    return tuple(range(rank - 1))
