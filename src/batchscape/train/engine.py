"""How `model.fit` is fed: three engines, one sample order, Keras' own training step in all of them.

`stock` is the literal `model.fit(x[order], y[order], batch_size=B, shuffle=False)`, one call an epoch, and the
reference that the others must equal (`tests/test_engines.py`). `dataset` feeds a `tf.data` pipeline in the same order,
or a user's own pipeline in its own. `fused` runs many updates per call: the model's own `train_step` inside one
compiled loop that gathers mini-batches by index from data held on the device, so that Keras' Python is paid once a
block instead of once an update.
"""

import collections
import statistics
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchscape import chunks, xla
from batchscape.config import Cell
from batchscape.data import Data, epoch_order, make_dataset
from batchscape.errors import InvalidInput
from batchscape.train.accumulate import accumulating_step
from batchscape.train.plan import MAX_INDICES, Blocks, Plan

TIMED_BLOCKS, TIMED_UPDATES, TIMED_INDICES = 5, 64, 1 << 16
"""How an update is timed: blocks, updates in each, and the largest number of samples in one of them."""

SECONDS_OF_A_TIMED_BLOCK = 0.25
"""A block has fewer updates where it would take longer than that: five blocks must cost less than the run itself."""

FIRST_BLOCKS = 16
"""Epochs, or blocks where they are longer, in the first call of `fit`; each further call takes twice as many."""


class Stock:
    """The literal `model.fit(x, y, batch_size=B)` on arrays in the order of each epoch."""

    name = "stock"
    jit = False

    def __init__(self, model: keras.Model, data: Data):
        self.x, self.y = data.x_train, data.y_train

    def warm_up(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """Arguments for calls of `fit` that meet every batch shape once; they change weights."""
        x, y = self._take(np.arange(plan.batch_size + plan.tail))
        yield {"x": x, "y": y, "batch_size": plan.batch_size, "shuffle": False}

    def calls(self, plan: Plan, *, whole_epochs: bool) -> Iterator[dict[str, Any]]:
        """Arguments for the calls of `fit` that make up the run."""
        for epoch in range(plan.n_epochs):
            x, y = self._take(plan.order(epoch))
            number = plan.first_epoch + epoch
            yield {
                "x": x, "y": y, "batch_size": plan.batch_size, "shuffle": False,
                "initial_epoch": number, "epochs": number + 1,
            }  # fmt: skip

    def updates_in_batch(self) -> int:
        """Number of updates behind the batch that `fit` has just reported."""
        return 1

    def time_update(self, plan: Plan) -> float | None:
        """Seconds an update takes where nobody looks in between; None where only the run itself can tell."""
        return None

    def _take(self, rows: np.ndarray):
        return keras.tree.map_structure(lambda array: array[rows], (self.x, self.y))


class Dataset:
    """A `tf.data` pipeline: the examples in the order of each epoch, or the user's own pipeline, batched."""

    name = "dataset"
    jit = False

    def __init__(self, model: keras.Model, data: Data):
        self.data = data

    def warm_up(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """See `Stock.warm_up`."""
        yield {"x": self._pipeline(plan, 0).take(1), "shuffle": False}

    def calls(self, plan: Plan, *, whole_epochs: bool) -> Iterator[dict[str, Any]]:
        """See `Stock.calls`."""
        for epoch in range(plan.n_epochs):
            number = plan.first_epoch + epoch
            yield {"x": self._pipeline(plan, number), "shuffle": False, "initial_epoch": number, "epochs": number + 1}

    def updates_in_batch(self) -> int:
        """See `Stock.updates_in_batch`."""
        return 1

    def time_update(self, plan: Plan) -> float | None:
        """See `Stock.time_update`."""
        return None

    def _pipeline(self, plan: Plan, epoch: int) -> tf.data.Dataset:
        keep = "keep" if plan.tail else "drop"
        if self.data.pipeline is not None:
            batches = self.data.pipeline.batch(plan.batch_size, drop_remainder=not plan.tail)
            return batches.apply(tf.data.experimental.assert_cardinality(plan.updates_per_epoch))
        return make_dataset(self.data.x_train, self.data.y_train, plan.batch_size, plan.seed, epoch, last_batch=keep)


class Fused:
    """Blocks of updates in one compiled loop around the model's own `train_step`.

    Callbacks and schedules work as ever, at the granularity of blocks. Where nobody listens to epochs, many
    of them are one epoch to `fit`, which costs several milliseconds a call.
    """

    name = "fused"

    def __init__(self, model: keras.Model, data: Data, *, jit: bool | None = None, micro_batch_size: int | None = None):
        self.jit = jit
        self._model, self._data, self._micro_batch_size = model, data, micro_batch_size
        self._choose_jit = xla.work_of(model, data.x_train).suits_xla if jit is None else lambda batch_size: jit
        self._updates: collections.deque[int] = collections.deque()
        self._programs: dict[bool, Callable] = {}
        self._train_functions: dict[bool, Any] = {}

        def train_step(model, block):
            path_length = self._programs[self.jit](*block)
            return {**model.get_metrics_result(), "path_length": path_length}

        model.train_step = types.MethodType(train_step, model)

    def _prepare(self, plan: Plan) -> None:
        """Switch to the program for the batch size of a plan; what Keras has traced around each is kept."""
        self._train_functions[self.jit] = self._model.train_function
        self.jit = self._choose_jit(min(plan.batch_size, self._micro_batch_size or plan.batch_size))
        self._model.train_function = self._train_functions.get(self.jit)
        if self.jit not in self._programs:
            self._model.train_function = None
            self._programs[self.jit] = fuse(
                self._model,
                self._data.x_train,
                self._data.y_train,
                jit=self.jit,
                micro_batch_size=self._micro_batch_size,
            )

    def warm_up(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """See `Stock.warm_up`; this block has no updates and changes nothing."""
        self._prepare(plan)
        blocks = plan.blocks(range(1))
        yield self._feed(blocks._replace(counts=0 * blocks.counts, tail_counts=0 * blocks.tail_counts))

    def calls(self, plan: Plan, *, whole_epochs: bool) -> Iterator[dict[str, Any]]:
        """See `Stock.calls`: one call an epoch if `whole_epochs`, else one for ever more epochs."""
        self._prepare(plan)
        first, n_epochs = 0, 1 if whole_epochs else plan.epochs_per_block * FIRST_BLOCKS
        most = max(1, MAX_INDICES // plan.n_train)
        while first < plan.n_epochs:
            n_epochs = min(n_epochs, most, plan.n_epochs - first)
            blocks = plan.blocks(range(first, first + n_epochs))
            self._updates = collections.deque(blocks.updates.tolist())
            number = plan.first_epoch + first
            yield {**self._feed(blocks), "initial_epoch": number, "epochs": number + 1}
            first += n_epochs
            n_epochs = 1 if whole_epochs else 2 * n_epochs

    def updates_in_batch(self) -> int:
        """See `Stock.updates_in_batch`."""
        return self._updates.popleft()

    def time_update(self, plan: Plan) -> float:
        """Seconds an update takes where nobody looks in between: the median over a few long blocks; weights change."""
        indices = tf.constant(_timed_rows(plan))

        def seconds_of(updates: int) -> float:
            begin = time.perf_counter()
            float(self._programs[self.jit](indices, tf.constant(updates)))
            return time.perf_counter() - begin

        seconds_of(1)  # Compiles.
        updates = max(1, min(len(indices), int(SECONDS_OF_A_TIMED_BLOCK / seconds_of(1))))
        return statistics.median(seconds_of(updates) for _ in range(TIMED_BLOCKS)) / updates

    def blocks_of(self, plan: Plan, counts: Sequence[int]) -> dict[str, Any]:
        """Arguments for a call of `fit` with blocks of so many updates each, at most `TIMED_UPDATES`, for timing."""
        self._prepare(plan)
        indices = np.repeat(_timed_rows(plan)[None], len(counts), axis=0)
        counts = np.minimum(counts, indices.shape[1]).astype(np.int32)
        return self._feed(Blocks(indices, counts, np.zeros((len(counts), 0), np.int32), 0 * counts))

    def _feed(self, blocks: Blocks) -> dict[str, Any]:
        columns = blocks if blocks.tails.size else blocks[:2]
        return {"x": tf.data.Dataset.from_tensor_slices(tuple(columns)).with_options(_plain()), "shuffle": False}


def _timed_rows(plan: Plan) -> np.ndarray:
    """Samples of the full batches that are timed, int32, shape (updates, B)."""
    rows = min(TIMED_UPDATES, max(1, TIMED_INDICES // plan.batch_size))
    return np.resize(epoch_order(plan.n_train, plan.seed, 0), (rows, plan.batch_size))


def _plain() -> tf.data.Options:
    """No tuning thread: there is nothing to tune in a few indices, and fit's end would wait for it, up to 0.6 s."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def check(name: str, data: Data) -> None:
    """Refuse an engine that cannot feed the data."""
    if data.pipeline is not None and name not in ("dataset", "auto"):
        raise InvalidInput(f"A tf.data.Dataset is fed by the engine 'dataset' (or 'auto'). Received: engine={name!r}")


def candidates(cell: Cell, model: keras.Model, data: Data) -> Iterator[Callable[[], Any]]:
    """Engines to try in turn: the named one, or for `"auto"` the fastest that suits the model and the data."""
    name, micro = cell.engine, cell.micro_batch_size
    check(name, data)
    if name in ("fused", "auto") and data.pipeline is None and cell.workers == 1:
        yield lambda: Fused(model, data, micro_batch_size=micro)
        yield lambda: Fused(model, data, jit=False, micro_batch_size=micro)
    if name in ("dataset", "auto") and micro is None:
        yield lambda: Dataset(model, data)
    if name == "stock":
        yield lambda: Stock(model, data)


def detach(model: keras.Model) -> None:
    """Give a model its own `train_step` back."""
    if "train_step" in vars(model):
        del model.train_step
    model.train_function = None


def fuse(model: keras.Model, x, y, *, jit: bool, micro_batch_size: int | None = None):
    """Compile a loop of updates by the model's own `train_step`.

    Args:
        model: A compiled Keras model.
        x: Training inputs, shape (n, ...) or a tree of such arrays; they are put on the device.
        y: Training targets, shape (n, ...).
        jit: Whether XLA compiles the loop.
        micro_batch_size: Compute an update in parts of at most so many examples; see `accumulate`.

    Returns:
        A function of one block, (indices, count) or (indices, count, tail, tail_count) as in `plan.Blocks`: runs the
        updates and returns the length of their path, Σ‖w_{t+1} − w_t‖₂.
    """
    examples = chunks.to_device((x, y))
    if micro_batch_size is None:
        train_step = type(model).train_step.__get__(model)
        step = lambda rows: train_step(chunks.take(examples, rows))  # noqa: E731 (the other one is a function too)
    else:
        step = accumulating_step(model, examples, micro_batch_size)
    weights = [variable.value for variable in model.trainable_variables]
    _create_metrics(model, examples)
    sum_of_squares = _sum_in_lanes if jit else _sum_at_once

    def update(rows):
        before = [tf.identity(weight) for weight in weights]
        step(rows)
        squares = [sum_of_squares(weight - old) for weight, old in zip(weights, before, strict=True)]
        return tf.sqrt(tf.add_n(squares))

    @tf.function(jit_compile=jit, reduce_retracing=True, autograph=False)
    def run_block(indices, count, tail=None, tail_count=None):
        path = tf.while_loop(
            lambda step, _: step < count, lambda step, path: (step + 1, path + update(indices[step])), (0, 0.0)
        )[1]
        if tail is None:
            return path
        # A loop of at most one pass, rather than a branch: both sides of a branch would be compiled and kept apart.
        return tf.while_loop(
            lambda step, _: step < tail_count, lambda step, path: (step + 1, path + update(tail)), (0, path)
        )[1]

    return run_block


def _create_metrics(model: keras.Model, examples) -> None:
    """Let Keras create its metric variables now: inside a compiled loop it could not."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    x, y = keras.tree.map_structure(lambda array: array[:1], examples)
    y_pred = model(x, training=False)
    model.compute_loss(x, y, y_pred)
    model.compute_metrics(x, y, y_pred)
    model.reset_metrics()


def _sum_at_once(delta):
    """Σδ² in one operation: without XLA each one costs a dispatch."""
    return tf.reduce_sum(tf.square(tf.cast(delta, tf.float32)))


LANES, FEWEST_FOR_LANES = 16, 2048


def _sum_in_lanes(delta):
    """Σδ² with `LANES` independent partial sums: XLA adds up a large array in sequence, which took longer than a step.

    A small one is quicker at once: in the small CNN at B = 1 sixteen sums took a fifth of an update.
    """
    if delta.shape.num_elements() < FEWEST_FOR_LANES:
        return _sum_at_once(delta)
    square = tf.cast(tf.reshape(delta * delta, [-1]), tf.float32)
    n = square.shape[0] // LANES
    lanes = [square[lane * n : (lane + 1) * n] for lane in range(LANES)]
    return tf.reduce_sum(tf.add_n(lanes)) + tf.reduce_sum(square[LANES * n :])
