"""The sample order as a pure function of seed and epoch, and `tf.data` pipelines that follow it.

Why not `model.fit(x, y, shuffle=True)`: on Keras 3 with TensorFlow, once a global seed is set, that call replays one
permutation in every epoch, so every epoch sees the same mini-batches (the mechanism of tensorflow#35682; pinned by
`tests/test_data_order.py`).
"""

import numpy as np
import optree

from batchscape.errors import InvalidInput


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch `epoch` of a run with seed `seed` visits `n` training examples.

    It does not depend on the batch size, so runs of one seed are paired over batch sizes; it differs between epochs
    and between seeds.

    Args:
        n: Number of training examples, int ≥ 1.
        seed: Seed of the run, int ≥ 0.
        epoch: Zero-based epoch, int ≥ 0.

    Returns:
        A permutation of 0..n-1, int32, shape (n,).

    Example:
        >>> sorted(epoch_order(5, 0, 0).tolist())
        [0, 1, 2, 3, 4]
        >>> bool((epoch_order(1000, 0, 0) == epoch_order(1000, 0, 1)).all())
        False
    """
    return np.random.default_rng([seed, epoch]).permutation(n).astype(np.int32)


def make_dataset(x, y=None, sample_weight=None, *, batch_size: int, seed: int, epoch: int, last_batch: str = "keep"):
    """A `tf.data` pipeline over one epoch of mini-batches in `epoch_order`.

    Args:
        x: Inputs, an array of shape (n, ...) or a tree of such arrays.
        y: Targets, likewise; None where there are none.
        sample_weight: What the loss of each example counts, likewise; None where all count alike.
        batch_size: Examples per batch, int ≥ 1.
        seed: Seed of the run, int ≥ 0.
        epoch: Zero-based epoch, int ≥ 0.
        last_batch: `"keep"` or `"drop"` the last partial batch.

    Returns:
        A `tf.data.Dataset` of what `fit` takes, such as (x, y), with shapes (batch_size, ...).
    """
    try:
        import keras
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "A tf.data.Dataset needs TensorFlow: install batchscape[tensorflow]. Received: none"
        ) from error

    examples = tuple(part for part in (x, y, sample_weight) if part is not None)
    order = epoch_order(len(optree.tree_leaves(x)[0]), seed, epoch)
    on_device = optree.tree_map(tf.convert_to_tensor, examples)
    rows = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=last_batch == "drop")

    def batch(index):
        return keras.utils.pack_x_y_sample_weight(*optree.tree_map(lambda array: tf.gather(array, index), on_device))

    return rows.map(batch)
