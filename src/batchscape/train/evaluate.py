"""Loss and metrics of a model at fixed weights, over whole splits.

Never compare batch sizes by the `loss` of Keras' History: it is a running mean over moving weights, so a full-batch
epoch shows the *initial* loss.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras

from batchscape.data import Data
from batchscape.models import outputs
from batchscape.models.losses import ModelLoss
from batchscape.system import memory
from batchscape.train import engine
from batchscape.train.compiled_metrics import CompiledMetrics


class Evaluator:
    """Means over the examples of each split, from one forward pass.

    Args:
        model: A built Keras model; its weights at the time of a call count.
        data: The data set; all splits are put on the device.
        loss: The loss, as `resolve_loss` gives it; one that depends on the batch is taken in batches of `chunk` examples, a
            mean over places that count is that of all examples as one batch.
        metrics: Functions (y_true, y_pred, sample_weight) -> one value an example, by name.
        compiled: The metrics that the model was compiled with, or None.

    Attributes:
        is_measured: Whether anything says what the loss is; otherwise it is NaN.
        chunk: How many examples a forward pass takes; see `outputs.examples_in_a_pass`.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        loss: ModelLoss,
        metrics: dict[str, Callable],
        compiled: CompiledMetrics | None = None,
    ):
        self._data, self._compiled = data, compiled
        self._names, self._splits = ("loss", *metrics), ("train", "val", "test")
        self.is_measured = not loss.why_unmeasured
        self.chunk = outputs.examples_in_a_pass(model, data.x_train)
        self._compile = functools.partial(
            engine.own().compile_means,
            model,
            [data.examples(split) for split in self._splits],
            loss,
            list(metrics.values()),
        )
        self._means = self._compile(chunk=self.chunk) if self.is_measured else [lambda: [math.nan]] * len(self._splits)

    def __call__(self, *splits: str) -> dict[str, float]:
        """Means such as `{"train_loss": 0.1, "train_accuracy": 0.97}` over the splits named."""
        return {f"{split}_{name}": float(value) for split in splits for name, value in self._values(split).items()}

    def _values(self, split: str) -> dict[str, float]:
        values = dict(zip(self._names, self._mean(split), strict=True))
        if self._compiled is None:
            return values
        return {**values, **self._compiled(self._data.examples(split), self.chunk)}

    def _mean(self, split: str) -> Any:
        """The means over a split, in passes of half as many examples from where memory ran out."""
        try:
            return self._means[self._splits.index(split)]()
        except Exception as error:
            if not memory.ran_out(error) or self.chunk == 1:
                raise
        self.chunk //= 2
        self._means = self._compile(chunk=self.chunk)
        return self._mean(split)
