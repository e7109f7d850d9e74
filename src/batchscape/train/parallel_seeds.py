"""Seeds of one cell trained side by side, by one call of `model.fit`: its records are those of the seeds trained alone.

A small update is dominated by the overhead of launching it. Training R seeds in one program pays that overhead once.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import optimizers

from batchscape.backend import keras_private
from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput
from batchscape.models.losses import ModelLoss
from batchscape.train import divided_batches, engine
from batchscape.train.plan import Blocks, Plan
from batchscape.train.record import Record
from batchscape.train.recorder import Recorder
from batchscape.train.rprop import Rprop
from batchscape.train.stacked_model import Stacked
from batchscape.train.trainer import Trainer, group_of

ELEMENTWISE = (
    optimizers.SGD, optimizers.Adam, optimizers.AdamW, optimizers.RMSprop, optimizers.Adagrad, optimizers.Adadelta,
    optimizers.Adamax, optimizers.Nadam, optimizers.Ftrl, optimizers.Lion, Rprop,
)  # fmt: skip
"""Optimizers that treat all numbers alike, whatever weight they are part of."""


def check(cell: Cell, model: keras.Model, data: Data, loss: ModelLoss, optimizer: keras.Optimizer) -> None:
    """Refuse what would make a run beside others another one than alone.

    Args:
        cell: What is run.
        model: A built Keras model.
        data: The data set.
        loss: The loss, as `resolve_loss` gives it.
        optimizer: The optimizer.

    Raises:
        InvalidInput: In one line.
    """
    for name, usual in (("engine", ("auto", "fused")), ("micro_batch_size", (None,)), ("devices", (1,))):
        if getattr(cell, name) not in usual:
            raise InvalidInput(f"parallel_seeds need {name}={usual[-1]!r}. Received: {name}={getattr(cell, name)!r}")
    if cell.precision not in ("float32", "float64"):  # Sums in another order differ by what there is of precision.
        raise InvalidInput(
            f'parallel_seeds need precision "float32" or "float64". Received: precision={cell.precision!r}'
        )
    divided_batches.check_step("Training beside other seeds", model, data)
    if loss.own:
        raise InvalidInput(
            f"parallel_seeds need Keras' own compute_loss. Received: {type(model).__name__}.compute_loss"
        )
    if len(loss.terms) != 1 or len(data.examples("train")) != 2 or keras.tree.is_nested(data.y_train):
        raise InvalidInput(
            "parallel_seeds need one output with one target, and no sample weights. Received: "
            f"{loss.name}, {len(data.examples('train'))} of x, y and sample_weight"
        )
    if not loss.has_values or loss.terms[0].weight != 1:
        why = f", but {loss.why_batch}" if loss.why_batch else f", weight {loss.terms[0].weight:g}"
        raise InvalidInput(
            f"parallel_seeds need a compiled loss that is a mean over examples. Received: {loss.name}{why}"
        )
    if any(getattr(variable, "constraint", None) for variable in model.trainable_variables):
        raise InvalidInput("parallel_seeds need weights without constraints, which Keras would apply to all at once.")
    if type(optimizer) not in ELEMENTWISE or optimizer.clipnorm or optimizer.global_clipnorm:
        clips = {name: getattr(optimizer, name) for name in ("clipnorm", "global_clipnorm")}
        asked = ", ".join([type(optimizer).__name__, *(f"{name}={value}" for name, value in clips.items() if value)])
        raise InvalidInput(f"parallel_seeds need an optimizer that treats each number by itself. Received: {asked}")
    if keras_private.excluded_from_weight_decay(optimizer):
        raise InvalidInput("parallel_seeds need weights that all decay alike. Received: exclude_from_weight_decay")
    plain = type(optimizer) is optimizers.SGD and not optimizer.clipvalue
    if not plain and engine.own().has_sparse_gradients(model, data.x_train):
        raise InvalidInput(
            "parallel_seeds of an embedding need SGD without clipping: TensorFlow treats each occurrence of a row alone, and "
            f"their sum where seeds train side by side. Received: {type(optimizer).__name__}, clipvalue={optimizer.clipvalue}"
        )


@dataclasses.dataclass(frozen=True)
class ParallelSeedsPlan(Plan):
    """The updates of R runs that differ in the seed of the sample order alone, made side by side.

    Attributes:
        plans: Theirs.
    """

    plans: tuple[Plan, ...] = ()

    @classmethod
    def together(cls, plans: Sequence[Plan]) -> "ParallelSeedsPlan":
        """The plan of several plans."""
        return cls(**vars(plans[0]), plans=tuple(plans))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the indices of a full batch, (R, B)."""
        return len(self.plans), self.batch_size

    def blocks(self, epochs: range) -> Blocks:
        """See `Plan.blocks`; the indices have shape (blocks, updates_per_block, R, B), and (blocks, R, tail)."""
        each = [plan.blocks(epochs) for plan in self.plans]
        return each[0]._replace(
            indices=np.stack([blocks.indices for blocks in each], axis=2),
            tails=np.stack([blocks.tails for blocks in each], axis=1),
        )


class Together(keras.callbacks.Callback):
    """A Keras callback that shows each recorder the model of its seed.

    Time is divided among them. A seed whose run is over is trained on, and looked at no more.

    Args:
        recorders: One for each seed.
        updates_in_batch: Tells how many updates stand behind the batch that `fit` has just reported.

    Attributes:
        updates: Updates done.
    """

    def __init__(self, recorders: Sequence[Recorder], updates_in_batch: Callable[[], int]):
        super().__init__()
        self._recorders, self._updates_in_batch = recorders, updates_in_batch
        self.updates = 0

    def start(self, model: Stacked) -> None:
        """Record the weights that the runs start from, and start the clock."""
        self.set_model(model)
        for i, recorder in enumerate(self._recorders):
            recorder.start(model.show(i))
        self._resumed_at = time.perf_counter()

    def enter(self, plan: ParallelSeedsPlan) -> None:
        """Go on to the next plan of the runs."""
        for recorder, own in zip(self._recorders, plan.plans, strict=True):
            recorder.enter(own)
        self._resumed_at = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Count the updates of a block, and look at the runs."""
        seconds = (time.perf_counter() - self._resumed_at) / len(self._recorders)
        updates, model = self._updates_in_batch(), self.model
        self.updates += updates
        seen = {"loss": np.asarray(logs["losses"]), "path_length": np.asarray(logs["path_length"])}
        for i, recorder in self._unfinished():
            model.show(i)
            recorder.advance(updates, seconds, {name: values[i] for name, values in seen.items()})
        model.stop_training = self.finished
        self._resumed_at = time.perf_counter()

    def stop(self) -> None:
        """End the runs here."""
        for i, recorder in self._unfinished():
            self.model.show(i)
            recorder.stop()

    @property
    def finished(self) -> bool:
        """Whether all runs are over."""
        return not self._unfinished()

    def _unfinished(self) -> list[tuple[int, Recorder]]:
        return [(i, recorder) for i, recorder in enumerate(self._recorders) if not recorder.finished]


class ParallelSeedsTrainer(Trainer):
    """A `Trainer` of R cells at a time, which differ in the seed alone.

    Args:
        cell: The first of the cells to train; the others share its `GROUP_FIELDS`.
        data: The data set, as arrays.
        build: A model's name or the function that builds it.
        n_seeds: R ≥ 2.
    """

    def __init__(self, cell: Cell, data: Data, build: str | Callable, n_seeds: int):
        self._n_seeds = n_seeds
        super().__init__(cell, data, build)

    def _to_fit(self, optimizer: keras.Optimizer, *, jit_compile: bool) -> Stacked:
        check(self._first, self._model, self._data, self._loss, optimizer)
        stacked = Stacked(self._model, self._n_seeds, self._loss.terms[0].loss)
        stacked.compile(optimizer, jit_compile=jit_compile)
        return stacked

    def run_together(self, cells: Sequence[Cell]) -> list[Record]:
        """Train R cells; see `Trainer.run`.

        Times are those of all cells, divided by R; the facts of each record hold the number of `parallel_seeds`.
        """
        if group_of(cells[0]) != self._group or len(cells) != self._n_seeds or len(set(map(without_seed, cells))) > 1:
            raise InvalidInput(
                f"{self._n_seeds} parallel seeds are cells that differ in the seed alone. Received: {cells}"
            )
        stages = [Plan.stages(cell, self._data.n_train) for cell in cells]
        plans = [ParallelSeedsPlan.together(each) for each in zip(*stages, strict=True)]
        compile_seconds = self._compile(plans)
        self._reset_all([cell.seed for cell in cells])
        learning_rate = self._set_learning_rate(cells[0], plans[0])
        recorders = [Recorder(cell, own, self._evaluate) for cell, own in zip(cells, stages, strict=True)]
        together = Together(recorders, self._engine.updates_in_batch)
        together.start(self._fitted)
        self._train(plans, together)
        facts = {
            "learning_rate": learning_rate,
            "compile_seconds": compile_seconds / self._n_seeds,
            "parallel_seeds": self._n_seeds,
        }
        return [self._record(cell, plans, recorder, facts) for cell, recorder in zip(cells, recorders, strict=True)]

    def seconds_per_update(self, cell: Cell) -> float | None:
        """See `Trainer.seconds_per_update`; of all, divided by R."""
        return self._timed(ParallelSeedsPlan.together([Plan.of(cell, self._data.n_train)] * self._n_seeds))

    def _time_update(self, plan: ParallelSeedsPlan) -> float:
        return super()._time_update(plan) / self._n_seeds

    def _reset(self, seed: int, initial_weights: None = None) -> None:
        self._reset_all([seed] * self._n_seeds)

    def _reset_all(self, seeds: Sequence[int]) -> None:
        self._fitted.stack([self._build(seed=seed) for seed in seeds])
        self._empty_slots()


def without_seed(cell: Cell) -> Cell:
    """The cell with seed 0: equal for cells that differ in the seed alone."""
    return dataclasses.replace(cell, seed=0)
