"""The rule that decides about XLA: what it reads off a model's graph."""

import keras
import numpy as np
import pytest

from batchscape.backend import xla

pytestmark = pytest.mark.xla

layers = keras.layers


def work(*stack, shape=(8, 8, 3)):
    return xla.work_of(keras.Sequential([keras.Input(shape), *stack]), np.zeros((2, *shape), np.float32))


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        (layers.Dense(5), 0),
        (layers.Conv2D(4, 3, padding="same"), 2 * 8 * 8 * 4 * 3 * 3 * 3),
        (layers.Conv2D(4, 3), 2 * 6 * 6 * 4 * 3 * 3 * 3),
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), 2 * 8 * 8 * 6 * 3 * 3),
    ],
    ids=["dense", "same", "valid", "depthwise"],
)
def test_the_operations_of_a_convolution_are_counted(layer, flops):
    assert work(layer).convolution_flops == flops


def test_one_dimensional_convolutions_count_too():
    assert work(layers.Conv1D(4, 3, padding="same"), shape=(10, 2)).convolution_flops == 2 * 10 * 4 * 3 * 2


def test_small_batches_of_a_convolution_suit_xla_and_large_ones_do_not(monkeypatch):
    monkeypatch.setattr(xla.cores, "threads", lambda: 1)
    found = work(layers.Conv2D(8, 3, padding="same"))
    limit = int(xla.MOST_FLOPS_PER_THREAD / 3 / found.convolution_flops)
    assert found.suits_xla(limit)
    assert not found.suits_xla(limit + 1)


def test_matrix_products_always_suit_xla_and_python_never_does():
    import tensorflow as tf

    assert work(layers.Flatten(), layers.Dense(3)).suits_xla(10**6)
    assert not work(layers.Lambda(lambda x: tf.numpy_function(np.abs, [x], tf.float32))).suits_xla(1)


def test_a_convolution_hidden_in_a_loop_is_not_trusted_to_xla():
    import tensorflow as tf

    class Repeated(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(3, 3, shape[-1], shape[-1]))

        def call(self, inputs):
            step = lambda i, x: (i + 1, tf.nn.conv2d(x, self.kernel, 1, "SAME"))  # noqa: E731
            return tf.while_loop(lambda i, x: i < 3, step, (0, inputs))[1]

    assert work(Repeated()).convolution_flops == float("inf")


def test_tables_and_strings_are_not_given_to_xla():
    assert not work(layers.Flatten(), layers.IntegerLookup(vocabulary=[1]), shape=(4,)).suits_xla(1)
    model = keras.Sequential([keras.Input((), dtype="string"), layers.Hashing(5), layers.Embedding(5, 2)])
    assert not xla.rule(model, np.array([b"a", b"b"]))(1)


def test_a_program_that_fails_inside_xla_is_compiled_without_it():
    import tensorflow as tf

    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [10, 20]), 0)
    program = xla.program(table.lookup, jit=True)
    assert program(tf.constant([2, 1, 3])).numpy().tolist() == [20, 10, 0]
