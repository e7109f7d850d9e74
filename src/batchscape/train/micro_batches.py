"""The update of a large batch, computed a micro-batch at a time, so that a batch may be larger than memory."""

from collections.abc import Callable

import keras
import tensorflow as tf

from batchscape.backend import batches_tensorflow, keras_private


def accumulating_step(model: keras.Model, examples, micro_batch_size: int) -> Callable:
    """A training step on rows of the examples that never computes with more than `micro_batch_size` of them.

    The loss is a mean over examples, so with micro-batches j of bⱼ ≤ b examples

        ∇L_B = Σⱼ (bⱼ / B) ∇L_{bⱼ}

    and, as Σⱼ bⱼ / B = 1, weight penalties count once. The optimizer sees this one gradient, so that momentum, decay,
    clipping, loss scaling and learning-rate schedules go by updates. The first micro-batch takes what b does not divide.

    Args:
        model: A compiled Keras model.
        examples: (x, y) or (x, y, sample_weight), tensors of shape (n, ...) or trees of them.
        micro_batch_size: b, int ≥ 1.

    Returns:
        A function of the rows of a batch, int, shape (B,), to call inside a compiled function.
    """
    variables = model.trainable_variables

    def gradients(rows, n):
        """The share of these rows in the gradient of a batch of n examples; None for weights that the loss ignores."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batches_tensorflow.take(examples, rows))
        size = tf.shape(rows)[0]
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = model.optimizer.scale_loss(loss)
        keras_private.update_loss_tracker(model, loss, size)
        model.compute_metrics(x, y, y_pred, sample_weight)
        found = tape.gradient(scaled, variables)
        return [None if g is None else tf.convert_to_tensor(g) * tf.cast(size / n, g.dtype) for g in found]

    def step(rows):
        n = tf.shape(rows)[0]
        first = (n - 1) % micro_batch_size + 1
        start = gradients(rows[:first], n)
        reached = [variable for variable, gradient in zip(variables, start, strict=True) if gradient is not None]

        def add(done, sums):
            # Gathered, and not cut out: XLA refuses a slice longer than the batch, in a loop that has no pass too.
            more = gradients(tf.gather(rows, done + tf.range(micro_batch_size)), n)
            return done + micro_batch_size, [a + b for a, b in zip(sums, _given(more), strict=True)]

        # One pass at a time: side by side, several micro-batches would be in memory.
        _, sums = tf.while_loop(lambda done, _: done < n, add, (first, _given(start)), parallel_iterations=1)
        model.optimizer.apply_gradients(zip(sums, reached, strict=True))

    return step


def _given(gradients: list) -> list:
    return [gradient for gradient in gradients if gradient is not None]
