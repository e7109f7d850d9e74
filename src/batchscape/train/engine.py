"""How `model.fit` is fed: three engines, one sample order, Keras' own training step in all of them.

`stock` is the literal `model.fit(x[order], y[order], batch_size=B, shuffle=False)`, one call an epoch, and the
reference that the others must equal (`tests/test_engines.py`). `dataset` feeds a `tf.data` pipeline in the same order,
or a user's own pipeline in its own. `fused` runs many updates per call: the model's own `train_step` inside one
compiled loop that gathers mini-batches by index from data held on the device, so that Keras' Python is paid once a
block instead of once an update. What depends on the backend stands in `engine_tensorflow` and `engine_jax`.
"""

import abc
import collections
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

from batchscape import backend
from batchscape.backend import keras_private
from batchscape.config import Cell
from batchscape.data import Data, epoch_order
from batchscape.errors import InvalidInput
from batchscape.models import outputs
from batchscape.train import stacked_model
from batchscape.train.plan import MAX_INDICES, Blocks, Plan

TIMED_BLOCKS, TIMED_UPDATES, TIMED_INDICES = 5, 64, 1 << 16
"""How an update is timed: blocks, updates in each, and the largest number of samples in one of them."""

FEWEST_TIMED = 8
"""Updates that a block must hold to be timed as it is."""

SECONDS_OF_A_TIMED_BLOCK = 0.25
"""A block has fewer updates where it would take longer than that: five blocks must cost less than the run itself."""

FIRST_BLOCKS = 16
"""Epochs, or blocks where they are longer, in the first call of `fit`; each further call takes twice as many."""


class Stock:
    """The literal `model.fit(x, y, batch_size=B)` on arrays in the order of each epoch."""

    name = "stock"

    def __init__(self, model: keras.Model, data: Data):
        self.jit = not own().XLA_IS_OPTIONAL
        self.examples = data.examples("train")

    def warm_up(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """Arguments for calls of `fit` that meet every batch shape once; they change weights."""
        rows = np.arange(plan.batch_size + plan.tail)
        yield {**self._take(rows), "batch_size": plan.batch_size, "shuffle": False}

    def calls(self, plan: Plan, *, whole_epochs: bool) -> Iterator[dict[str, Any]]:
        """Arguments for the calls of `fit` that make up the run."""
        for epoch in range(plan.n_epochs):
            number = plan.first_epoch + epoch
            yield {
                **self._take(plan.order(epoch)), "batch_size": plan.batch_size, "shuffle": False,
                "initial_epoch": number, "epochs": number + 1,
            }  # fmt: skip

    def updates_in_batch(self) -> int:
        """Number of updates behind the batch that `fit` has just reported."""
        return 1

    def time_update(self, plan: Plan) -> float | None:
        """Seconds of an update without evaluations; None where only the run itself can tell."""
        return None

    def _take(self, rows: np.ndarray) -> dict[str, Any]:
        return outputs.as_arguments(keras.tree.map_structure(lambda array: array[rows], self.examples))


class Blockwise(abc.ABC):
    """An engine that feeds `fit` blocks of updates, each run by one compiled loop around the model's own `train_step`.

    Callbacks and schedules work as ever, at the granularity of blocks. Without user callbacks, several epochs are run as
    one Keras epoch, because each Keras epoch costs some milliseconds.
    """

    name = "fused"

    def __init__(self):
        self._updates: collections.deque[int] = collections.deque()

    @abc.abstractmethod
    def _prepare(self, plan: Plan) -> None:
        """Give the model the loop for the batches of a plan."""

    @abc.abstractmethod
    def _feed(self, blocks: Blocks) -> dict[str, Any]:
        """Arguments for a call of `fit` with these blocks."""

    @abc.abstractmethod
    def time_update(self, plan: Plan) -> float:
        """Seconds of an update without evaluations: the median over a few long blocks; weights change."""

    def warm_up(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """See `Stock.warm_up`: one update of each shape, for there are programs that compile and then fail."""
        self._prepare(plan)
        blocks = plan.blocks(range(1))
        yield self._feed(
            blocks._replace(counts=np.minimum(blocks.counts, 1), tail_counts=np.minimum(blocks.tail_counts, 1))
        )

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

    def blocks_of(self, plan: Plan, counts: Sequence[int]) -> dict[str, Any]:
        """Arguments for a call of `fit` with blocks of so many updates each, at most `TIMED_UPDATES`, for timing."""
        self._prepare(plan)
        indices = np.repeat(timed_rows(plan)[None], len(counts), axis=0)
        counts = np.minimum(counts, indices.shape[1]).astype(np.int32)
        return self._feed(Blocks(indices, counts, np.zeros((len(counts), 0), np.int32), 0 * counts))


def timed_rows(plan: Plan) -> np.ndarray:
    """Samples of the full batches that are timed, int32, shape (updates, *batch_shape)."""
    rows = min(TIMED_UPDATES, max(1, TIMED_INDICES // plan.batch_size))
    return np.resize(epoch_order(plan.n_train, plan.seed, 0), (rows, *plan.batch_shape))


def timed_block(plan: Plan) -> tuple[Callable[[int], tuple], int]:
    """A block to time, as a function of the number of updates in it, and the largest such number.

    It has the plan's own shape, for which the program has been compiled. Where that holds few updates a longer one is
    compiled: an update by itself, with the processor gone to rest before it, takes up to twice as long as one of many.
    """
    if plan.updates_per_block < FEWEST_TIMED:
        rows = timed_rows(plan)
        return lambda updates: (rows, np.int32(updates)), len(rows)
    indices, _, tails, _ = (column[0] for column in plan.blocks(range(1)))
    tail = (tails, np.int32(0)) if tails.size else ()
    return lambda updates: (indices, np.int32(updates), *tail), plan.updates_per_block


def time_block(run: Callable[[int], Any], most: int) -> float:
    """Seconds of an update: the median over a few blocks of at most so many, less the least that a block of none takes.

    Args:
        run: Makes so many updates in one block, and waits for them.
        most: The number of updates that a block holds.
    """

    def seconds_of(updates: int) -> float:
        begin = time.perf_counter()
        run(updates)
        return time.perf_counter() - begin

    seconds_of(0)  # The first call may compile.
    updates = max(1, min(most, TIMED_UPDATES, int(SECONDS_OF_A_TIMED_BLOCK / seconds_of(1))))
    blocks = [(seconds_of(updates), seconds_of(0)) for _ in range(TIMED_BLOCKS)]
    whole, empty = (list(times) for times in zip(*blocks, strict=True))
    return max(statistics.median(whole) - min(empty), 0.5 * min(whole)) / updates  # An empty block may be held up too.


def create_metrics(model: keras.Model, take: Callable) -> None:
    """Let Keras create its metric variables now: inside a compiled loop it could not; `take` gives `(x, y, ...)` of rows."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    examples = take(np.zeros((*stacked_model.shape_of(model), 1), np.int32))
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
    y_pred = outputs.call(model, x)
    keras_private.compute_loss(model, x, y, y_pred, sample_weight)
    model.compute_metrics(x, y, y_pred, sample_weight)
    model.reset_metrics()


def own() -> ModuleType:
    """The engines of this backend."""
    return backend.part_of(__name__)


def check(cell: Cell, data: Data) -> None:
    """Refuse an engine that cannot feed the data, and what this backend lacks."""
    if cell.engine == "dataset" or data.pipeline is not None:
        backend.needs_tensorflow("A tf.data pipeline, the engine 'dataset',")
    if cell.micro_batch_size is not None:
        backend.needs_tensorflow("micro_batch_size")
    if cell.devices > 1:
        backend.needs_tensorflow("devices")
    if cell.precision == "float64":
        backend.needs_tensorflow("precision='float64'")
    if data.pipeline is not None and cell.engine not in ("dataset", "auto"):
        raise InvalidInput(
            f"A tf.data.Dataset is fed by the engine 'dataset' (or 'auto'). Received: engine={cell.engine!r}"
        )


def candidates(cell: Cell, model: keras.Model, data: Data, *, logs: bool = False) -> Iterator[Callable[[], Any]]:
    """Engines to try in turn: the named one, or for `"auto"` the fastest that suits the model and the data.

    Args:
        cell: What is run.
        model: What `fit` trains.
        data: The data set.
        logs: Whether the logs that a training step returns count, which a block of updates does not keep.
    """
    name, micro, fused, dataset = cell.engine, cell.micro_batch_size, own().Fused, own().Dataset
    check(cell, data)
    if logs and name == "fused":
        raise InvalidInput(
            f'The own train_step of {type(model).__name__} needs an engine that keeps its logs: "stock", "dataset" or '
            "\"auto\". Received: engine='fused'"
        )
    if name in ("fused", "auto") and not logs and data.pipeline is None and cell.devices == 1:
        yield lambda: fused(model, data, micro_batch_size=micro)
        if stacked_model.shape_of(model):  # Another program than that of one alone draws other random numbers.
            return
        if own().XLA_IS_OPTIONAL:
            yield lambda: fused(model, data, jit=False, micro_batch_size=micro)
    if dataset is not None and micro is None and name in ("dataset", "auto"):
        yield lambda: dataset(model, data)
    if name == "stock" or (name == "auto" and dataset is None):
        yield lambda: Stock(model, data)


def detach(model: keras.Model) -> None:
    """Have `fit` train a model batch by batch again."""
    keras_private.set_train_function(model, None)
