"""One training run, completely described."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

from batchscape.config import checks
from batchscape.config.names import BUDGETS, LR_POLICIES
from batchscape.errors import InvalidInput

LATER_FIELDS = (
    "warmup", "warmup_from", "decay", "decay_over", "decay_at", "decay_factor", "schedule_unit", "batch_steps",
    "micro_batch_size", "workers",
)  # fmt: skip
"""Fields that `Cell` did not have at first."""

PLAIN_SEQUENCES = ("metrics", "optimizer_options", "decay_at", "batch_steps")
"""Fields of a cell that are themselves sequences: an axis of these is a list of sequences or mappings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run, completely described.

    Exactly one of `epochs`, `updates`, `examples` and `until_loss` is the budget; 10 epochs when none is given.

    Attributes:
        dataset: A name in `DATASETS`, the path of an `.npz` file in the layout of Keras' `mnist.npz`,
            or `"package.module:function"`.
        train_size: Number of training examples to keep (stratified), or None for all of them.
        model: A name in `MODELS` or `"package.module:function"`.
        optimizer: A name in `OPTIMIZERS`; None for the optimizer of a compiled model, else `"sgd"`.
        optimizer_options: Further arguments of the Keras optimizer, such as `{"momentum": 0.9}`.
        learning_rate: Learning rate at `base_batch_size`; None for the one the optimizer has by itself. For `"rprop"` it
            is the initial step of every weight, which the policy scales likewise.
        lr_policy: How the rate follows the batch size B: `"fixed"`, `"sqrt"` (× √(B / base)) or `"linear"` (× B / base).
        base_batch_size: The batch size at which the policy leaves the rate as it is.
        warmup: Length of the gradual (linear) warm-up at the beginning, in `schedule_unit`, ≥ 0 and within the run.
        warmup_from: Whether the warm-up rises from `"zero"`, or from `"base"`, the rate before the policy.
        decay: How the rate falls after the warm-up: a name in `DECAYS`; the formulas stand in
            `batchscape.schedules.WarmupDecay`.
        decay_over: In `schedule_unit`, after which `decay_factor` of the rate is left; None for the rest of the run.
        decay_at: For `"steps"`: the places where the rate is multiplied by `decay_factor`, in `schedule_unit` from the
            beginning of the run, rising.
        decay_factor: What is left of the rate after `decay_over`, or after each step; > 0, or 0 where the decay ends
            there (`"linear"`, `"cosine"`).
        schedule_unit: `"epochs"`, `"updates"` or `"examples"`; epochs and examples keep the schedule in its place in the
            data when the batch size moves.
        batch_size: Examples per parameter update, int ≥ 1, or `"full"` for all training examples.
        batch_steps: Batch sizes from later epochs on, such as `{30: 160, 60: 800}`; the learning rate stays that of
            `batch_size`. The budget is in epochs, and there is no learning-rate schedule beside it.
        micro_batch_size: Compute each update in micro-batches of at most so many examples, int ≥ 1, with the gradient of the
            whole batch, so that a batch may be larger than memory; None for all at once. The batch need not be a multiple.
            Dropout draws anew for each micro-batch, and BatchNorm normalises each by itself.
        workers: Devices that share each batch, int ≥ 1: `batch_size` is that of each worker, an update takes
            `workers` · `batch_size` examples, `"full"` is all examples together, and the policy of the rate goes by the
            examples of an update. Every batch must split evenly, the last partial one too. See `train.data_parallel`.
        last_batch: `"keep"` the last partial batch of an epoch, as `model.fit` does, or `"drop"` it.
        epochs: Budget in passes over the training examples, > 0.
        updates: Budget in parameter updates, int ≥ 1.
        examples: Budget in training examples processed, int ≥ 1.
        until_loss: Stop when the loss on the whole training set, at fixed weights, is at most this.
        max_updates: With `until_loss`, give up after this many updates.
        loss: Name of a Keras loss; None for the loss of the model or of the data.
        metrics: Names of Keras metrics that are means over examples; `"accuracy"` fits itself to the labels.
        weight_decay: Decoupled weight decay of the Keras optimizer, ≥ 0.
        initial_weights: Hash of a run in the same store whose final weights are the start; None for a fresh start.
        precision: A Keras dtype policy.
        engine: How `model.fit` is fed; see `batchscape.train.engine`.
        evaluate_every: Epochs between evaluations at fixed weights, > 0.
        seed: Seed of the initial weights and of the sample order, int ≥ 0.

    Raises:
        InvalidInput: If a value is not admissible; the message ends with what was received.
    """

    dataset: str = "digits"
    train_size: int | None = None
    model: str = "mlp"
    optimizer: str | None = None
    optimizer_options: tuple[tuple[str, Any], ...] = ()
    learning_rate: float | None = None
    lr_policy: str = "fixed"
    base_batch_size: int = 32
    warmup: float = 0.0
    warmup_from: str = "zero"
    decay: str = "constant"
    decay_over: float | None = None
    decay_at: tuple[float, ...] = ()
    decay_factor: float = 0.1
    schedule_unit: str = "epochs"
    batch_size: int | str = 32
    batch_steps: tuple[tuple[int, int], ...] = ()
    micro_batch_size: int | None = None
    workers: int = 1
    last_batch: str = "keep"
    epochs: float | None = None
    updates: int | None = None
    examples: int | None = None
    until_loss: float | None = None
    max_updates: int = 20_000
    loss: str | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    weight_decay: float = 0.0
    initial_weights: str | None = None
    precision: str = "float32"
    engine: str = "auto"
    evaluate_every: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _normalise(self)
        checks.check(self)

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate changes along the run."""
        return self.warmup > 0 or self.decay != "constant"

    @property
    def budget(self) -> tuple[str, float]:
        """The kind of the budget and its amount, such as `("epochs", 10)`."""
        return next((kind, getattr(self, kind)) for kind in BUDGETS if getattr(self, kind) is not None)

    def resolve_batch_size(self, n_train: int) -> int:
        """Examples per update on a training set of `n_train` examples, of all workers; `"full"` is all of them."""
        if self.batch_size == "full":
            return n_train
        if self.workers * self.batch_size > n_train:
            of_each = "" if self.workers == 1 else f", for {self.workers} workers together"
            raise InvalidInput(
                f'batch_size must be at most the number of training examples, {n_train}{of_each}; use "full" for all of '
                f"them. Received: batch_size={self.batch_size}"
            )
        return self.workers * self.batch_size

    def scale_learning_rate(self, learning_rate: float, batch_size: int) -> float:
        """The rate at `batch_size` under the policy of this cell."""
        return learning_rate * (batch_size / self.base_batch_size) ** LR_POLICIES[self.lr_policy]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, the same text for equal cells.

        A field in `LATER_FIELDS` is left out at its default, so that runs keep the names they had before it.
        """
        left_out = {
            f.name for f in dataclasses.fields(self) if f.name in LATER_FIELDS and getattr(self, f.name) == f.default
        }
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


def _normalise(cell: Cell) -> None:
    """Give equal cells equal fields: tuples for lists, plain ints and floats for NumPy's, one budget."""
    put = lambda name, value: object.__setattr__(cell, name, value)  # noqa: E731 (the only way into a frozen dataclass)
    options = cell.optimizer_options
    pairs = options.items() if isinstance(options, Mapping) else [tuple(pair) for pair in options]
    put("optimizer_options", tuple(sorted((str(name), _plain(value)) for name, value in pairs)))
    steps = cell.batch_steps
    pairs = steps.items() if isinstance(steps, Mapping) else [tuple(pair) for pair in steps]
    put("batch_steps", tuple(tuple(map(_plain, pair)) for pair in pairs))
    put("metrics", (cell.metrics,) if isinstance(cell.metrics, str) else tuple(cell.metrics))
    for field in dataclasses.fields(cell):
        if field.name not in PLAIN_SEQUENCES:
            put(field.name, _plain(getattr(cell, field.name)))
    places = cell.decay_at if isinstance(cell.decay_at, Iterable) else (cell.decay_at,)
    put("decay_at", tuple(_plain(place) for place in places))
    for name in (
        "learning_rate", "warmup", "decay_over", "decay_factor", "epochs", "until_loss", "weight_decay", "evaluate_every",
    ):  # fmt: skip
        value = getattr(cell, name)
        if isinstance(value, int) and not isinstance(value, bool):
            put(name, float(value))
    given = [kind for kind in BUDGETS if getattr(cell, kind) is not None]
    if len(given) > 1:
        received = ", ".join(f"{kind}={getattr(cell, kind)!r}" for kind in given)
        raise InvalidInput(f"Exactly one of {', '.join(BUDGETS)} may be the budget. Received: {received}")
    if not given:
        put("epochs", 10.0)


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python number that JSON knows."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
