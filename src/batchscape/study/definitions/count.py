"""What batch, iteration and epoch mean, counted on real Keras objects.

Every count comes from a model that `model.fit` trains, stock Keras throughout: a layer of it keeps the numbers of the
examples that come by.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import pandas as pd


@dataclasses.dataclass(frozen=True, repr=False)
class Watched:
    """What a call of `model.fit` did.

    Attributes:
        batches: For each update, the numbers of the examples it used, in their order.
        updates: How many updates the optimizer counted.
        continued: How many batches began with exactly the weights that the batch before had left.
        step: Distance of the last weights from the first, ‖Δw‖₂.
    """

    batches: list[np.ndarray]
    updates: int
    continued: int
    step: float

    @property
    def sizes(self) -> list[int]:
        """Examples of each update."""
        return [len(batch) for batch in self.batches]

    def __repr__(self) -> str:
        return f"Watched({self.updates} updates, of {self.sizes[0]} examples first and {self.sizes[-1]} last)"


class Witness(keras.layers.Layer):
    """Keeps the first feature of every example that comes by, its number, and hands on the others."""

    def __init__(self):
        super().__init__()
        self.seen: list[np.ndarray] = []

    def call(self, inputs):
        """Features, shape (B, 1 + d) -> shape (B, d)."""
        if hasattr(inputs, "numpy"):  # Not while Keras finds out shapes.
            self.seen.append(np.asarray(inputs)[:, 0].astype(int))
        return inputs[:, 1:]


class _Weights(keras.callbacks.Callback):
    """The weights at the beginning and at the end of every update."""

    def __init__(self):
        super().__init__()
        self.before: list[np.ndarray] = []
        self.after: list[np.ndarray] = []

    def _now(self) -> np.ndarray:
        return np.concatenate([np.ravel(weight) for weight in self.model.get_weights()])

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(self._now())

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self._now())


def watch_fit(
    n: int,
    *,
    copies: int = 1,
    reduction: str | None = None,
    attribute: int | None = None,
    of_input: int | None = None,
    **fit: Any,
) -> Watched:
    """Train a linear neuron on n examples with `model.fit`, and write down what each update used.

    Args:
        n: Number of different examples.
        copies: How often each of them is in the data.
        reduction: How the loss joins its examples; None for Keras' default.
        attribute: A value for `model.batch_size`, as some advise.
        of_input: A value for `keras.Input(batch_size=...)`.
        **fit: Arguments of `model.fit`, such as `batch_size`, `epochs`, `shuffle`.

    Returns:
        `Watched`.

    Example:
        >>> watch_fit(1050, batch_size=100)
        Watched(11 updates, of 100 examples first and 50 last)
    """
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(n, 3)), rng.normal(size=(n, 1))
    x = np.tile(np.column_stack([np.arange(n), features]).astype(np.float32), (copies, 1))
    y = np.tile(targets.astype(np.float32), (copies, 1))
    witness, weights = Witness(), _Weights()
    model = keras.Sequential([keras.Input((4,), batch_size=of_input), witness, keras.layers.Dense(1)])
    model.set_weights([np.full(weight.shape, 0.5) for weight in model.get_weights()])
    loss = keras.losses.MeanSquaredError(**({"reduction": reduction} if reduction else {}))
    model.compile(keras.optimizers.SGD(0.001), loss, run_eagerly=True)
    if attribute is not None:
        model.batch_size = attribute
    model.fit(x, y, callbacks=[weights], verbose=0, **fit)
    return Watched(
        batches=witness.seen,
        updates=int(model.optimizer.iterations),
        continued=sum(np.array_equal(*pair) for pair in zip(weights.before[1:], weights.after[:-1], strict=True)),
        step=float(np.linalg.norm(weights.after[-1] - weights.before[0])),
    )


def count_updates(n: int, batch_size: int) -> int:
    """Updates that the optimizer counts in one epoch of `model.fit`, on n examples of one number each.

    Example:
        >>> count_updates(1050, 100)
        11
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mean_squared_error")
    model.fit(np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32), batch_size=batch_size, verbose=0)
    return int(model.optimizer.iterations)


def count_definitions() -> pd.DataFrame:
    """Count what the statements about the meaning of the words say.

    Returns:
        One row a count: `id` of the statement, `asked`, `said` (what the statement makes one expect) and `found`.
    """
    rows: list[tuple[str, str, float, float]] = []

    def add(claim: str, asked: str, said: float, found: float) -> None:
        rows.append((claim, asked, said, found))

    for batch_size in (1, 7, 32):
        watched = watch_fit(7 * batch_size, batch_size=batch_size)
        add("C01", f"examples in every update at batch_size={batch_size}", batch_size, _only(watched.sizes))
    watched = watch_fit(140, batch_size=10, epochs=2)
    add("C02", "updates the optimizer counted over 28 batches", len(watched.batches), watched.updates)
    add("C02", "of 27 later batches, those that began where the one before had ended", 27, watched.continued)
    watched = watch_fit(103, batch_size=10, epochs=3)
    for epoch, numbers in enumerate(np.split(np.concatenate(watched.batches), 3), 1):
        add(
            "C03",
            f"examples out of 103 used exactly once in epoch {epoch}",
            103,
            int((np.bincount(numbers) == 1).sum()),
        )
    add("C04", "updates in an epoch of 1000 examples at batch_size=10", 100, count_updates(1000, 10))
    add("C04", "updates in an epoch of 1000 examples at batch_size=500", 2, watch_fit(1000, batch_size=500).updates)
    watched = watch_fit(1050, batch_size=100)
    add("C05", "updates in an epoch of 1050 examples at batch_size=100", 11, watched.updates)
    add("C05", "examples in the last of them", 50, watched.sizes[-1])
    once, twice = (watch_fit(8, copies=copies, batch_size=16).step for copies in (1, 2))
    add("C07", "step on 8 examples, each given twice ÷ step on the 8", 1, round(twice / once, 3))
    summed = watch_fit(8, copies=2, batch_size=16, reduction="sum").step
    add("C07", "step on 16 examples under a loss that sums ÷ under Keras' default", 16, round(summed / twice, 3))
    add("C08", "updates in an epoch of 320 examples without batch_size", 10, watch_fit(320).updates)
    for name, batch_size, updates in (("online", 1, 60), ("mini-batch", 20, 3), ("full-batch", 60, 1)):
        found = count_updates(60, batch_size)
        add("C09", f"updates in an epoch of 60 examples, {name} learning, batch_size={batch_size}", updates, found)
    found = watch_fit(60, batch_size=60).updates
    add("C10", "updates in an epoch of 60 examples on all data at once, if that is online", 60, found)
    found = watch_fit(320, attribute=16).updates
    add("C11", "Keras: updates in an epoch of 320 examples after model.batch_size = 16", 20, found)
    found = watch_fit(320, of_input=16).updates
    add("C11", "Keras: the same with keras.Input(batch_size=16)", 20, found)
    return pd.DataFrame(rows, columns=["id", "asked", "said", "found"])


def _only(values) -> float:
    """The one value that all of them have; NaN where they differ."""
    return next(iter(set(values))) if len(set(values)) == 1 else float("nan")
