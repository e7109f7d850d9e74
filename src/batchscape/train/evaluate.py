"""Loss and metrics of a model at fixed weights, over whole splits.

Never compare batch sizes by the `loss` of Keras' History: it is a running mean over moving weights, so a full-batch
epoch shows the *initial* loss.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from batchscape import chunks, xla
from batchscape.data import Data
from batchscape.losses import example_losses


class Evaluator:
    """Means over the examples of each split, from one forward pass.

    Args:
        model: A built Keras model; its weights at the time of a call count.
        data: The data set; all splits are put on the device.
        loss: The loss, as `losses.resolve_loss` gives it; terms added by regularisers are not part of it.
        metrics: Functions (y_true, y_pred) -> one value an example, by name.
        jit: Whether XLA compiles the pass.
    """

    def __init__(self, model: keras.Model, data: Data, loss: keras.Loss, metrics: dict[str, Callable], *, jit: bool):
        self._names = ("loss", *metrics)
        functions = (lambda y, y_pred: example_losses(loss, y, y_pred), *metrics.values())
        self._means = {
            split: _compile_means(model, data.split(split), functions, jit=jit) for split in ("train", "val", "test")
        }

    def __call__(self, *splits: str) -> dict[str, float]:
        """Means such as `{"train_loss": 0.1, "train_accuracy": 0.97}` over the splits named."""
        return {
            f"{split}_{name}": float(value)
            for split in splits
            for name, value in zip(self._names, self._means[split](), strict=True)
        }


def _compile_means(model: keras.Model, examples, functions, *, jit: bool) -> Callable[[], np.ndarray]:
    """A compiled function of no arguments: the mean of each function over all examples, float64, shape (functions,)."""
    n = len(examples[1])
    examples = chunks.to_device(examples)

    def sums_of(x, y, mask):
        y_pred = model(x, training=False)
        return tf.stack([chunks.masked_sum(function(y, y_pred), mask) for function in functions])

    def sums():
        return chunks.accumulate(sums_of, tf.zeros(len(functions), tf.float64), examples)

    compiled = xla.program(sums, jit=jit)
    return lambda: compiled().numpy() / n
