"""Short trainings for an advice: which learning rate, and how noisy the gradient. This runs in a child process."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from batchscape.config import Cell
from batchscape.cost.probe_input import ProbeInput
from batchscape.data import Data
from batchscape.data.splits import count
from batchscape.gradient.noise_scale import gradient_noise_scale
from batchscape.landscape.objective import objective_of
from batchscape.models import build
from batchscape.train import optimizers
from batchscape.train.fit import fit_one

LOWEST, HIGHEST = 1e-5, 10.0
"""Ends of the range of learning rates."""

UPDATES, LOOKS = 120, 40
"""Updates of a range test, each at a higher rate than the one before, and how often the loss is looked at."""

MOST_EXAMPLES = 4096
"""Examples of these short trainings, at most."""

EPOCHS = (1, 3)
"""Where along a short training the noise scale is measured, besides its start."""

PAIRS = 24
"""Pairs of batches behind an estimate of the noise scale."""


class Ramp(keras.callbacks.Callback):
    """Raises the learning rate geometrically with every update."""

    def __init__(self) -> None:
        super().__init__()
        self._updates = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Set the rate of the update that comes."""
        self.model.optimizer.learning_rate = LOWEST * (HIGHEST / LOWEST) ** min(1.0, self._updates / (UPDATES - 1))
        self._updates += 1


class Keep(keras.callbacks.Callback):
    """Keeps the weights where some epochs end."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, list] = {}

    def on_epoch_end(self, epoch, logs=None):
        """Keep them, if this is one of those."""
        if epoch + 1 in EPOCHS:
            self.kept[epoch + 1] = self.model.get_weights()


def range_test(source: ProbeInput, batch_size: int) -> list[tuple[float, float]] | None:
    """Loss at fixed weights against a learning rate that grows with every update, as Smith did it (arXiv 1506.01186).

    Returns:
        (rate, training loss) at each look, up to where it diverges; None for a model that has a schedule of its own.
    """
    data = _some(source.load())
    model = build.build_model(source.build, data, seed=0, precision=source.precision)
    if optimizers.default_learning_rate(optimizers.make(Cell(), model)) is None:
        return None
    every = UPDATES / LOOKS / math.ceil(data.n_train / batch_size)
    cell = _cell(
        source, batch_size, updates=UPDATES, evaluate_every=every, engine="dataset" if data.pipeline else "stock"
    )
    rows = fit_one(cell, build=build.find_builder(source.build), data=data, callbacks=[Ramp()]).curves
    # The row of a look names the rate of the last update; that of the start names none that was used.
    return list(zip(rows["learning_rate"], rows["train_loss"], strict=True))[1:]


def noise_scales(source: ProbeInput, batch_size: int, learning_rate: float | None) -> list[dict[str, float]]:
    """The gradient noise scale at the start of a short training and along it.

    Returns:
        One dict a place: `epoch`, `simple`, `low`, `high`; see `NoiseScale`.
    """
    data, keep = _some(source.load()), Keep()
    cell = _cell(source, batch_size, epochs=max(EPOCHS), learning_rate=learning_rate)
    record = fit_one(cell, build=build.find_builder(source.build), data=data, callbacks=[keep])
    model = build.build_model(source.build, data, seed=0, precision=source.precision)
    f = objective_of(model, data, loss=source.loss)
    small, big = max(1, min(32, f.n_examples // 8)), max(2, min(512, f.n_examples // 2))
    found = []
    for epoch, weights in {0: record.weights["initial"], **keep.kept}.items():
        scale = gradient_noise_scale(f, weights, small=small, big=big, n_pairs=PAIRS)
        found.append({"epoch": epoch, "simple": scale.simple, "low": scale.low, "high": scale.high})
    return found


def _cell(source: ProbeInput, batch_size: int, **options: Any) -> Cell:
    how = {"metrics": (), "loss": source.loss, "seed": 0, "precision": source.precision}
    return Cell(batch_size=batch_size, **{**how, **options})


def _some(data: Data) -> Data:
    """Examples drawn at random from each part, for data may be sorted: enough for a short training, quick to evaluate."""
    if data.pipeline is not None:
        return data
    parts = {}
    for split in ("train", "val", "test"):
        examples = data.examples(split)
        rows = np.random.default_rng(0).permutation(count(examples))[:MOST_EXAMPLES]
        rows.sort()  # Few enough to read them from a file in its order.
        some = keras.tree.map_structure(lambda array, rows=rows: array[rows], examples)
        parts |= {f"{name}_{split}": part for name, part in zip(("x", "y", "sample_weight"), some, strict=False)}
    return dataclasses.replace(data, **parts)
