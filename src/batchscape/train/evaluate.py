"""Loss and metrics of a model at fixed weights, over whole splits.

Never compare batch sizes by the `loss` of Keras' History: it is a running mean over moving weights, so a full-batch
epoch shows the *initial* loss.
"""

import math
from collections.abc import Callable

import keras

from batchscape.data import Data
from batchscape.models.losses import ModelLoss
from batchscape.train import engine


class Evaluator:
    """Means over the examples of each split, from one forward pass.

    Args:
        model: A built Keras model; its weights at the time of a call count.
        data: The data set; all splits are put on the device.
        loss: The loss, as `resolve_loss` gives it; one that depends on the batch is taken in chunks of `CHUNK` examples.
        metrics: Functions (y_true, y_pred, sample_weight) -> one value an example, by name.

    Attributes:
        is_measured: Whether anything says what the loss is; otherwise it is NaN.
    """

    def __init__(self, model: keras.Model, data: Data, loss: ModelLoss, metrics: dict[str, Callable]):
        self._names = ("loss", *metrics)
        names = ("train", "val", "test")
        splits = [data.examples(name) for name in names]
        self.is_measured = not loss.why_unmeasured
        if self.is_measured:
            means = engine.own().compile_means(model, splits, loss, list(metrics.values()))
        else:
            means = [lambda: [math.nan]] * len(names)
        self._means = dict(zip(names, means, strict=True))

    def __call__(self, *splits: str) -> dict[str, float]:
        """Means such as `{"train_loss": 0.1, "train_accuracy": 0.97}` over the splits named."""
        return {
            f"{split}_{name}": float(value)
            for split in splits
            for name, value in zip(self._names, self._means[split](), strict=True)
        }
