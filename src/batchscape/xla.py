"""Where XLA pays.

Measured on CPU (`benchmarks/training.py`): a fused loop of matrix products runs up to 15 times faster under XLA, one
with convolutions 1 to 60 times slower (tensorflow#62808). So the graph decides, the same way every time, and records
stay comparable; the choice is stored in each of them.
"""

import functools
import operator

import keras
import tensorflow as tf

NOT_FOR_XLA = ("Conv", "Pool", "PyFunc")
"""Parts of the names of TensorFlow operations that XLA runs slowly on a CPU, or not at all."""


def pays(model: keras.Model, x_example) -> bool:
    """Whether functions of `model` should be compiled by XLA.

    Args:
        model: A built Keras model.
        x_example: Inputs of a few examples, shape (n, ...) or a tree of such arrays.

    Returns:
        True on a GPU; on a CPU, True unless the model convolves or pools.
    """
    if tf.config.list_logical_devices("GPU"):
        return True
    spec = keras.tree.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), x_example)
    traced = tf.function(functools.partial(model, training=True)).get_concrete_function(spec)
    definition = traced.graph.as_graph_def()
    bodies = map(operator.attrgetter("node_def"), definition.library.function)
    names = {node.op for body in (definition.node, *bodies) for node in body}
    return not any(part in name for name in names for part in NOT_FOR_XLA)
