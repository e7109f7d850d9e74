"""The configuration of one training run: its fields, their checks and their JSON."""

import dataclasses
import functools
import json
import math
import numbers
import operator
import sys
from typing import Any, Self

from batchscape.config.names import (
    ARRAYS,
    BUDGETS,
    DATASETS,
    DECAYS,
    ENGINES,
    LAST_BATCH,
    LR_POLICIES,
    MODELS,
    OPTIMIZERS,
    PRECISIONS,
    UNITS,
    WARMUP_FROM,
)
from batchscape.config.values import as_float, frozen, named_options
from batchscape.errors import InvalidInput, unknown_name

PLAIN_SEQUENCES = ("metrics", "optimizer_options", "decay_at", "batch_steps")
"""Fields of a cell that are themselves sequences: an axis of these is a list of sequences or mappings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The configuration of one training run: data, model, optimizer, batch size, budget and seed.

    Exactly one of `epochs`, `updates`, `examples` and `until_loss` is the budget; 10 epochs when none is given.

    Attributes:
        dataset: A name in `DATASETS`, the path of an `.npz` file in the layout of Keras' `mnist.npz`,
            or `"package.module:function"`.
        train_size: Number of training examples to keep (stratified), or None for all of them.
        model: A name in `MODELS`, `"package.module:function"`, or a `.keras` or `.h5` file (`fresh:` before it for new
            initial weights).
        optimizer: A name in `OPTIMIZERS`; None for the optimizer of a compiled model, else `"sgd"`.
        optimizer_options: Further arguments of the Keras optimizer, such as `{"momentum": 0.9}`: numbers, strings, booleans,
            None, and lists or mappings of these. They are kept as tuples, a mapping as its sorted pairs.
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
        devices: Devices that share each batch, int ≥ 1: `batch_size` is that of each device, an update takes
            `devices` · `batch_size` examples, `"full"` is all examples together, and the policy of the rate goes by the
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
        precision: A Keras dtype policy; None for the one in force, which the cell then names.
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
    devices: int = 1
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
    precision: str | None = None
    engine: str = "auto"
    evaluate_every: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _normalise(self)
        _check_names(self)
        _check_numbers(self)
        _check_schedule(self)
        _check_batch_steps(self)
        _check_parts(self)

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate changes along the run."""
        return self.warmup > 0 or self.decay != "constant"

    @property
    def budget(self) -> tuple[str, float]:
        """The kind of the budget and its amount, such as `("epochs", 10)`."""
        return next((kind, getattr(self, kind)) for kind in BUDGETS if getattr(self, kind) is not None)

    def resolve_batch_size(self, n_train: int) -> int:
        """Examples per update on a training set of `n_train` examples, of all devices; `"full"` is all of them."""
        if self.batch_size == "full":
            return n_train
        if self.devices * self.batch_size > n_train:
            of_each = "" if self.devices == 1 else f", for {self.devices} devices together"
            raise InvalidInput(
                f'batch_size must be at most the number of training examples, {n_train}{of_each}; use "full" for all of '
                f"them. Received: batch_size={self.batch_size}"
            )
        return self.devices * self.batch_size

    def scale_learning_rate(self, learning_rate: float, batch_size: int) -> float:
        """The learning rate at `batch_size` under the policy of this cell."""
        return learning_rate * (batch_size / self.base_batch_size) ** LR_POLICIES[self.lr_policy]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, the same text for equal cells."""
        return self._json

    @functools.cached_property
    def _json(self) -> str:
        """The JSON, made once: cells are compared and hashed by it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def __eq__(self, other: object) -> bool:  # For 1, 1.0 and True are equal, and their texts are not.
        return self.to_json() == other.to_json() if isinstance(other, Cell) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The cell of a JSON text that `to_json` gave."""
        return cls(**json.loads(text))


def _normalise(cell: Cell) -> None:
    """Give equal cells equal fields: tuples for lists, plain ints and floats for NumPy's, one budget."""
    put = lambda name, value: object.__setattr__(cell, name, value)  # noqa: E731 (the only way into a frozen dataclass)
    for field in dataclasses.fields(cell):
        put(field.name, frozen(getattr(cell, field.name), field.name))
    put("optimizer_options", named_options(cell.optimizer_options))
    put("metrics", cell.metrics if isinstance(cell.metrics, tuple) else (cell.metrics,))
    put("decay_at", tuple(map(as_float, cell.decay_at if isinstance(cell.decay_at, tuple) else (cell.decay_at,))))
    for name in (
        "learning_rate", "warmup", "decay_over", "decay_factor", "epochs", "until_loss", "weight_decay", "evaluate_every",
    ):  # fmt: skip
        put(name, as_float(getattr(cell, name)))
    if cell.precision is None:
        put("precision", _policy_in_force())
    if isinstance(cell.optimizer, str):
        put("optimizer", cell.optimizer.lower())
    given = [kind for kind in BUDGETS if getattr(cell, kind) is not None]
    if len(given) > 1:
        received = ", ".join(f"{kind}={getattr(cell, kind)!r}" for kind in given)
        raise InvalidInput(f"Exactly one of {', '.join(BUDGETS)} may be the budget. Received: {received}")
    if not given:
        put("epochs", 10.0)


def _policy_in_force() -> str:
    """The dtype policy that the user has set; "float32" without one, or where Keras is not loaded."""
    keras = sys.modules.get("keras")
    if keras is None or not hasattr(keras, "config"):
        return "float32"
    name = keras.config.dtype_policy().name
    return (
        "float32" if name == keras.config.floatx() else name
    )  # Unless it is set it follows floatx, which becomes float32.


def _check_names(cell: Cell) -> None:
    for name in ("loss", "initial_weights", "optimizer"):
        if not isinstance(getattr(cell, name), (str, type(None))):
            raise InvalidInput(f"{name} must be a name or None. Received: {name}={getattr(cell, name)!r}")
    if not all(isinstance(name, str) for name in cell.metrics):
        raise InvalidInput(f"metrics must be names. Received: metrics={cell.metrics!r}")
    if not _is_finite(cell.optimizer_options):
        raise InvalidInput(f"optimizer_options must be finite. Received: optimizer_options={cell.optimizer_options!r}")
    for name, known in (
        ("lr_policy", LR_POLICIES),
        ("warmup_from", WARMUP_FROM),
        ("decay", DECAYS),
        ("schedule_unit", UNITS),
        ("last_batch", LAST_BATCH),
        ("engine", ENGINES),
        ("precision", PRECISIONS),
    ):
        if not isinstance(getattr(cell, name), str) or getattr(cell, name) not in known:
            raise unknown_name(name, getattr(cell, name), known)
    for name, known in (("dataset", DATASETS), ("model", MODELS)):
        value = getattr(cell, name)
        if not isinstance(value, str) or not value:
            raise InvalidInput(f'{name} must be a name or "package.module:function". Received: {name}={value!r}')
        given = (
            value.endswith((".keras", ".h5", ".hdf5")) if name == "model" else value.endswith(".npz") or value == ARRAYS
        )
        if value not in known and ":" not in value and not given:
            raise unknown_name(name, value, known)
    if cell.optimizer is not None and cell.optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", cell.optimizer, OPTIMIZERS)


def _check_numbers(cell: Cell) -> None:
    if cell.batch_size != "full":
        if isinstance(cell.batch_size, str):
            raise InvalidInput(f'batch_size must be an integer ≥ 1 or "full". Received: batch_size={cell.batch_size!r}')
        _require_integer(cell, "batch_size", 1)
    for name, least in (("base_batch_size", 1), ("devices", 1), ("max_updates", 1), ("seed", 0)):
        _require_integer(cell, name, least)
    for name in ("train_size", "updates", "examples", "micro_batch_size"):
        if getattr(cell, name) is not None:
            _require_integer(cell, name, 1)
    for name in ("learning_rate", "decay_over", "epochs", "until_loss"):
        if getattr(cell, name) is not None:
            _require_number(cell, name, "> 0", operator.gt)
    _require_number(cell, "evaluate_every", "> 0", operator.gt)
    for name in ("weight_decay", "warmup", "decay_factor"):
        _require_number(cell, name, "≥ 0", operator.ge)


def _check_schedule(cell: Cell) -> None:
    """Refuse contradictory schedules and options without effect."""
    if cell.warmup_from == "base" and (not cell.warmup or cell.lr_policy == "fixed"):
        raise InvalidInput(
            'warmup_from="base" needs a warm-up and an lr_policy that changes the rate. '
            f"Received: warmup={cell.warmup}, lr_policy={cell.lr_policy!r}"
        )
    numbers_given = all(isinstance(at, numbers.Real) and not isinstance(at, bool) for at in cell.decay_at)
    if not numbers_given or list(cell.decay_at) != sorted({at for at in cell.decay_at if 0 < at < math.inf}):
        raise InvalidInput(f"decay_at must be rising numbers > 0. Received: decay_at={cell.decay_at}")
    if (cell.decay == "steps") != bool(cell.decay_at):
        raise InvalidInput(
            f'decay="steps" and decay_at go together. Received: decay={cell.decay!r}, decay_at={cell.decay_at}'
        )
    if cell.decay in ("constant", "steps") and cell.decay_over is not None:
        raise InvalidInput(
            f"decay_over is for a decay that goes on. Received: decay={cell.decay!r}, decay_over={cell.decay_over}"
        )
    if not cell.decay_factor and cell.decay not in ("linear", "cosine"):
        raise InvalidInput(
            f"decay_factor must be > 0 for decay={cell.decay!r}. Received: decay_factor={cell.decay_factor}"
        )
    if cell.until_loss is not None and cell.decay_over is None and cell.decay not in ("constant", "steps"):
        raise InvalidInput(f"A run with until_loss has no length; give decay_over. Received: decay={cell.decay!r}")


def _check_batch_steps(cell: Cell) -> None:
    if cell.batch_steps == ():
        return
    steps = cell.batch_steps if isinstance(cell.batch_steps, tuple) else (cell.batch_steps,)
    pairs = [pair for pair in steps if isinstance(pair, tuple) and len(pair) == 2]
    whole = [isinstance(value, int) and not isinstance(value, bool) and value >= 1 for pair in pairs for value in pair]
    epochs = [pair[0] for pair in pairs]
    if len(pairs) < len(steps) or not all(whole) or epochs != sorted(set(epochs)):
        raise InvalidInput(f"batch_steps must map rising epochs ≥ 1 to batch sizes ≥ 1. Received: {cell.batch_steps}")
    if cell.epochs is None or epochs[-1] >= cell.epochs or cell.scheduled:
        raise InvalidInput(
            "batch_steps need a budget in epochs that is longer, and no warm-up or decay. "
            f"Received: batch_steps={cell.batch_steps}, {cell.budget[0]}={cell.budget[1]}, warmup={cell.warmup}, "
            f"decay={cell.decay!r}"
        )


def _check_parts(cell: Cell) -> None:
    """Refuse an engine that cannot compute a batch in parts."""
    if cell.micro_batch_size is not None and cell.engine not in ("auto", "fused"):
        raise InvalidInput(
            "micro_batch_size is for the engine 'fused' (or 'auto'). "
            f"Received: engine={cell.engine!r}, micro_batch_size={cell.micro_batch_size}"
        )
    if cell.devices == 1:
        return
    if cell.micro_batch_size is not None or cell.engine == "fused":
        raise InvalidInput(
            "devices are fed by the engines 'dataset' and 'stock' (or 'auto'), without micro_batch_size. "
            f"Received: devices={cell.devices}, engine={cell.engine!r}, micro_batch_size={cell.micro_batch_size}"
        )
    if cell.precision == "mixed_float16":
        raise InvalidInput(
            "devices would each skip an update where their own loss overflows; use mixed_bfloat16. "
            f"Received: devices={cell.devices}, precision={cell.precision!r}"
        )


def _is_finite(value) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _require_integer(cell: Cell, name: str, least: int) -> None:
    value = getattr(cell, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name} must be an integer ≥ {least}. Received: {name}={value!r}")


def _require_number(cell: Cell, name: str, bound: str, compare) -> None:
    value = getattr(cell, name)
    if (
        not isinstance(value, numbers.Real)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not compare(value, 0)
    ):
        raise InvalidInput(f"{name} must be a finite number {bound}. Received: {name}={value!r}")
