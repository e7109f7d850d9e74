"""Which weights make up a unit: the groups that filter normalisation gives one norm each.

A unit is what one output of a layer is made from, and so depends on where a layer keeps its output axis.
"""

import keras
from keras import layers

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
    owners = {id(weight): layer for layer in model._flatten_layers() for weight in layer._trainable_variables}
    return [_axes_of(owners.get(id(variable)), variable) for variable in model.trainable_variables]


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
