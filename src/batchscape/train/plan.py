"""When a run updates, tests its loss target and is evaluated: whole numbers only, no arrays of data."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from batchscape.config import Cell
from batchscape.data.order import epoch_order
from batchscape.errors import InvalidInput

TESTS_PER_EPOCH = 16
"""A loss target is tested at least this often in an epoch that has as many updates."""

MAX_INDICES = 1 << 22
"""Largest number of sample indices handed over at once (16 MB)."""


class Blocks(NamedTuple):
    """Blocks of updates, each run by one call of a compiled loop; one shape, so that one program serves all.

    Attributes:
        indices: Samples of full batches, int32, shape (blocks, updates_per_block, B); rows from `counts` on are padding.
        counts: Updates with full batches, int32, shape (blocks,).
        tails: Samples of the last partial batch, int32, shape (blocks, tail).
        tail_counts: Updates with it, 0 or 1, after those with full batches, int32, shape (blocks,).
    """

    indices: np.ndarray
    counts: np.ndarray
    tails: np.ndarray
    tail_counts: np.ndarray

    @property
    def updates(self) -> np.ndarray:
        """Updates in each block, shape (blocks,)."""
        return self.counts + self.tail_counts


@dataclasses.dataclass(frozen=True)
class Plan:
    """The updates of one run.

    Attributes:
        n_train: Number of training examples.
        batch_size: Examples per update.
        tail: Examples in the last partial batch of an epoch, 0 where there is none or it is dropped.
        updates_per_epoch: ⌈n / B⌉ with the last partial batch kept, ⌊n / B⌋ with it dropped.
        total_updates: Updates after which the run ends; with a loss target, after which it is given up.
        updates_after: Updates that may follow the crossing of a loss target: an epoch, at least three.
        updates_per_block: Updates between two evaluations or tests of the loss target.
        evaluate_every: Updates between two evaluations.
        seed: Seed of the sample order.
        first_epoch: Epochs of the run that came before.
    """

    n_train: int
    batch_size: int
    tail: int
    updates_per_epoch: int
    total_updates: int
    updates_after: int
    updates_per_block: int
    evaluate_every: int
    seed: int
    first_epoch: int = 0

    @classmethod
    def stages(cls, cell: Cell, n_train: int) -> list["Plan"]:
        """The plans of a run, one for each batch size it goes through."""
        if not cell.batch_steps:
            return [cls.of(cell, n_train)]
        begins, sizes = zip((0, cell.batch_size), *cell.batch_steps, strict=True)
        lengths = np.diff([*begins, cell.epochs]).tolist()
        cells = [
            dataclasses.replace(cell, batch_size=size, epochs=length, batch_steps=())
            for size, length in zip(sizes, lengths, strict=True)
        ]
        plans = [cls.of(stage, n_train) for stage in cells]
        return [dataclasses.replace(plan, first_epoch=begin) for plan, begin in zip(plans, begins, strict=True)]

    @classmethod
    def of(cls, cell: Cell, n_train: int) -> "Plan":
        """The plan of a cell on `n_train` training examples."""
        batch_size = cell.resolve_batch_size(n_train)
        tail = n_train % batch_size if cell.last_batch == "keep" else 0
        per_epoch = n_train // batch_size + (tail > 0)
        _check_shares(cell, batch_size, tail)
        total = _total_updates(cell, n_train, batch_size, tail, per_epoch)
        evaluate_every = max(1, round(cell.evaluate_every * per_epoch))
        block = evaluate_every if cell.until_loss is None else per_epoch // TESTS_PER_EPOCH
        if tail or block < per_epoch:
            block = min(block, n_train // batch_size)
        else:
            block -= block % per_epoch
        block = max(1, min(block, total, MAX_INDICES // batch_size))
        after = 0 if cell.until_loss is None else max(per_epoch, 3)
        plan = cls(n_train, batch_size, tail, per_epoch, total, after, block, evaluate_every, cell.seed)
        _check_warmup(cell, plan)
        return plan

    @property
    def shapes(self) -> tuple[int, int, int]:
        """What a program is compiled for: updates in a block, examples in a batch and in the tail."""
        return self.updates_per_block, self.batch_size, self.tail

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the indices of a full batch, (B,)."""
        return (self.batch_size,)

    def is_evaluation(self, updates: int) -> bool:
        """Whether the model is evaluated after this many updates.

        Evaluations happen at ends of blocks; the positions are the same for every engine.
        """
        if updates in (self.total_updates, self.total_updates + self.updates_after) or self.updates_per_block == 1:
            return True
        place = updates % (self.epochs_per_block * self.updates_per_epoch)
        n_full = self.epochs_per_block * self.updates_per_epoch - (self.tail > 0)
        return not place or (not place % self.updates_per_block and place < n_full)

    def examples_after(self, updates: int) -> int:
        """Training examples processed in the first `updates` updates."""
        epochs, rest = divmod(updates, self.updates_per_epoch)
        return epochs * self.examples_per_epoch + rest * self.batch_size

    def updates_in(self, amount: float, unit: str) -> float:
        """Updates after which so many `"updates"`, `"epochs"` or `"examples"` are done, whole or not."""
        if unit == "updates":
            return float(amount)
        epochs, rest = (amount, 0.0) if unit == "epochs" else divmod(amount, self.examples_per_epoch)
        return epochs * self.updates_per_epoch + rest / self.batch_size

    @property
    def examples_per_epoch(self) -> int:
        """Training examples that an epoch processes: all of them, unless the last partial batch is dropped."""
        return (self.updates_per_epoch - (self.tail > 0)) * self.batch_size + self.tail

    def order(self, epoch: int) -> np.ndarray:
        """Samples of one epoch of this plan in their order, int32, shape (examples_per_epoch,)."""
        return epoch_order(self.n_train, self.seed, self.first_epoch + epoch)[: self.examples_per_epoch]

    def batches(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample indices of one epoch: full batches, int32, shape (u, B), and the tail, shape (0 or 1, tail)."""
        order = self.order(epoch)
        n_full = self.updates_per_epoch - (self.tail > 0)
        full, tail = np.split(order, [n_full * self.batch_size])
        return full.reshape(n_full, self.batch_size), tail.reshape(-1, max(self.tail, 1))

    @property
    def n_epochs(self) -> int:
        """Epochs that the run enters at most."""
        return math.ceil((self.total_updates + self.updates_after) / self.updates_per_epoch)

    @property
    def epochs_per_block(self) -> int:
        """Whole epochs in one block: more than one only where an epoch is shorter than a block and has no tail."""
        return 1 if self.tail else max(1, self.updates_per_block // self.updates_per_epoch)

    def blocks(self, epochs: range) -> Blocks:
        """The updates of some epochs, up to the end of the run.

        A block ends where the model may be evaluated. The tail of an epoch goes with its last full batches, or makes a block
        by itself where every update ends a block, or where the run is given up before it.
        """
        blocks = []
        for first in epochs[:: self.epochs_per_block]:
            group = [self.batches(epoch) for epoch in range(first, min(first + self.epochs_per_block, epochs.stop))]
            full, tail = np.concatenate([full for full, _ in group]), group[-1][1]
            end = self.total_updates - first * self.updates_per_epoch
            ends = {*range(self.updates_per_block, len(full), self.updates_per_block)} | {end} & {*range(1, len(full))}
            parts = np.split(full, sorted(ends))
            tails = [0] * len(parts)
            if len(tail):
                alone = self.updates_per_block == 1 or end == len(full)
                parts, tails = ([*parts, full[:0]], [*tails, 1]) if alone else (parts, [*tails[:-1], 1])
            blocks += [(part, len(part), tail, n_tail) for part, n_tail in zip(parts, tails, strict=True)]
        return self._stack(blocks, self.total_updates + self.updates_after - epochs.start * self.updates_per_epoch)

    def _stack(self, blocks, left: int) -> Blocks:
        """Blocks as arrays, cut off after `left` updates."""
        stacked = Blocks(
            np.zeros((len(blocks), self.updates_per_block, self.batch_size), np.int32),
            np.array([count for _, count, _, _ in blocks], np.int32),
            np.zeros((len(blocks), self.tail), np.int32),
            np.array([count for *_, count in blocks], np.int32),
        )
        for block, (rows, count, tail, n_tail) in enumerate(blocks):
            stacked.indices[block, :count] = rows
            stacked.tails[block] = tail[0] if n_tail else 0
        before = np.cumsum(stacked.updates) - stacked.updates
        counts = np.clip(left - before, 0, stacked.counts).astype(np.int32)
        tail_counts = np.clip(left - before - counts, 0, stacked.tail_counts).astype(np.int32)
        n_blocks = np.count_nonzero(counts + tail_counts)
        return Blocks(*(a[:n_blocks] for a in (stacked.indices, counts, stacked.tails, tail_counts)))


def _check_shares(cell: Cell, batch_size: int, tail: int) -> None:
    """Refuse batches that the devices cannot share evenly: the mean of unequal shares' means is not that of the batch."""
    uneven = [size for size in (batch_size, tail) if size % cell.devices]
    if uneven:
        way_out = 'last_batch="drop" leaves out the last partial one' if uneven == [tail] else "choose another number"
        raise InvalidInput(
            f"devices must divide every batch; {way_out}. Received: devices={cell.devices} for a batch of {uneven[0]} examples"
        )


def _check_warmup(cell: Cell, plan: Plan) -> None:
    updates = plan.updates_in(cell.warmup, cell.schedule_unit)
    if updates > plan.total_updates:
        raise InvalidInput(
            f"warmup must end within the run, {plan.total_updates} updates at batch size {plan.batch_size}. "
            f"Received: warmup={cell.warmup:g} {cell.schedule_unit}, {updates:g} updates"
        )


def _total_updates(cell: Cell, n_train: int, batch_size: int, tail: int, per_epoch: int) -> int:
    if not per_epoch:
        raise InvalidInput(
            f"An epoch needs at least one update. Received: batch_size={batch_size} for {n_train} examples"
        )
    kind, amount = cell.budget
    if kind == "until_loss":
        return cell.max_updates
    if kind == "updates":
        return int(amount)
    if kind == "epochs":
        return max(1, math.ceil(amount * per_epoch - 1e-9))
    per_epoch_examples = (per_epoch - (tail > 0)) * batch_size + tail
    epochs, rest = divmod(int(amount), per_epoch_examples)
    return epochs * per_epoch + min(math.ceil(rest / batch_size), per_epoch)
