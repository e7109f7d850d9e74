"""Sums over all examples of a data set, chunk by chunk, inside a compiled function."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from batchscape.backend import CHUNK


def to_device(examples):
    """Arrays as tensors that compiled functions hold on to."""
    return keras.tree.map_structure(tf.convert_to_tensor, examples)


def take(examples, rows):
    """Some rows of a tree of tensors."""
    return keras.tree.map_structure(lambda array: tf.gather(array, rows), examples)


def accumulate(function: Callable, start, examples, *, chunk: int = CHUNK, exact: bool = False):
    """Add up what a function gives for the chunks of a data set.

    Chunks have equal sizes. The last one starts early enough to end with the examples; the mask of those that it shares
    with the one before is False. Exact chunks are those of `evaluate`: of `chunk` examples, and the last of what is left.

    Args:
        function: (x, y, ..., mask) -> a tree of tensors like `start`; mask is bool, shape (rows,).
        start: Zeros to add to.
        examples: A tuple of trees of tensors, shape (n, ...), such as (x, y).
        chunk: Largest number of examples at a time.
        exact: Whether no example may be in two chunks.

    Returns:
        The sums, a tree like `start`.
    """
    n = keras.tree.flatten(examples)[-1].shape[0]
    n_chunks = math.ceil(n / chunk)
    if n_chunks == 1:
        return keras.tree.map_structure(tf.add, start, function(*examples, tf.ones(n, tf.bool)))
    size = chunk if exact else math.ceil(n / n_chunks)
    left = n % chunk if exact else 0
    if left:
        last = keras.tree.map_structure(lambda array: array[n - left :], examples)
        start = keras.tree.map_structure(tf.add, start, function(*last, tf.ones(left, tf.bool)))
        n, n_chunks = n - left, n_chunks - 1

    def add_chunk(index, sums):
        first = tf.minimum(index * size, n - size)
        part = keras.tree.map_structure(lambda array: _slice(array, first, size), examples)
        mask = first + tf.range(size) >= index * size
        return index + 1, keras.tree.map_structure(tf.add, sums, function(*part, mask))

    return tf.while_loop(lambda index, _: index < n_chunks, add_chunk, (0, start))[1]


def _slice(array, first, size: int):
    """Rows first, ..., first + size − 1."""
    zeros = [0] * (array.shape.rank - 1)
    return tf.slice(array, [first, *zeros], [size, *array.shape[1:]])


def masked_sum(values, mask):
    """Σ of the values, shape (rows,), that the mask lets through, in float64.

    By selection and not by multiplication: 0 × inf would let a surplus row in.
    """
    values = tf.cast(tf.reshape(values, [-1]), tf.float64)
    return tf.reduce_sum(tf.where(mask, values, tf.zeros_like(values)))
