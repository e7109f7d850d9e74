"""What a cell must be: refused in one line that ends with what was received."""

import math
import numbers
import operator
from typing import TYPE_CHECKING

from batchscape.config.names import (
    ARRAYS,
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
from batchscape.errors import InvalidInput, unknown_name

if TYPE_CHECKING:
    from batchscape.config.cell import Cell


def check(cell: "Cell") -> None:
    """Raise `InvalidInput` where a value of a cell is not admissible."""
    _check_names(cell)
    _check_numbers(cell)
    _check_schedule(cell)
    _check_batch_steps(cell)
    _check_parts(cell)


def _check_names(cell: "Cell") -> None:
    for name, known in (
        ("lr_policy", LR_POLICIES),
        ("warmup_from", WARMUP_FROM),
        ("decay", DECAYS),
        ("schedule_unit", UNITS),
        ("last_batch", LAST_BATCH),
        ("engine", ENGINES),
        ("precision", PRECISIONS),
    ):
        if getattr(cell, name) not in known:
            raise unknown_name(name, getattr(cell, name), known)
    for name, known in (("dataset", DATASETS), ("model", MODELS)):
        value = getattr(cell, name)
        if not isinstance(value, str) or not value:
            raise InvalidInput(f'{name} must be a name or "package.module:function". Received: {name}={value!r}')
        if value not in known and ":" not in value and not value.endswith(".npz") and value != ARRAYS:
            raise unknown_name(name, value, known)
    if cell.optimizer is not None:
        object.__setattr__(cell, "optimizer", str(cell.optimizer).lower())
        if cell.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", cell.optimizer, OPTIMIZERS)


def _check_numbers(cell: "Cell") -> None:
    if cell.batch_size != "full":
        if isinstance(cell.batch_size, str):
            raise InvalidInput(f'batch_size must be an integer ≥ 1 or "full". Received: batch_size={cell.batch_size!r}')
        _require_integer(cell, "batch_size", 1)
    for name, least in (("base_batch_size", 1), ("workers", 1), ("max_updates", 1), ("seed", 0)):
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


def _check_schedule(cell: "Cell") -> None:
    """Refuse a schedule that contradicts itself, or whose words would do nothing."""
    if cell.warmup_from == "base" and (not cell.warmup or cell.lr_policy == "fixed"):
        raise InvalidInput(
            'warmup_from="base" needs a warm-up and an lr_policy that changes the rate. '
            f"Received: warmup={cell.warmup}, lr_policy={cell.lr_policy!r}"
        )
    numbers_given = all(isinstance(at, numbers.Real) and not isinstance(at, bool) for at in cell.decay_at)
    if not numbers_given or list(cell.decay_at) != sorted({at for at in cell.decay_at if 0 < at < math.inf}):
        raise InvalidInput(f"decay_at must be rising numbers > 0. Received: decay_at={cell.decay_at}")
    object.__setattr__(cell, "decay_at", tuple(map(float, cell.decay_at)))
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


def _check_batch_steps(cell: "Cell") -> None:
    if not cell.batch_steps:
        return
    pairs = [pair for pair in cell.batch_steps if len(pair) == 2]
    whole = [isinstance(value, int) and not isinstance(value, bool) and value >= 1 for pair in pairs for value in pair]
    epochs = [pair[0] for pair in pairs]
    if len(pairs) < len(cell.batch_steps) or not all(whole) or epochs != sorted(set(epochs)):
        raise InvalidInput(f"batch_steps must map rising epochs ≥ 1 to batch sizes ≥ 1. Received: {cell.batch_steps}")
    if cell.epochs is None or epochs[-1] >= cell.epochs or cell.scheduled:
        raise InvalidInput(
            "batch_steps need a budget in epochs that is longer, and no warm-up or decay. "
            f"Received: batch_steps={cell.batch_steps}, {cell.budget[0]}={cell.budget[1]}, warmup={cell.warmup}, "
            f"decay={cell.decay!r}"
        )


def _check_parts(cell: "Cell") -> None:
    """Refuse an engine that cannot compute a batch in parts."""
    if cell.micro_batch_size is not None and cell.engine not in ("auto", "fused"):
        raise InvalidInput(
            "micro_batch_size is for the engine 'fused' (or 'auto'). "
            f"Received: engine={cell.engine!r}, micro_batch_size={cell.micro_batch_size}"
        )
    if cell.workers == 1:
        return
    if cell.micro_batch_size is not None or cell.engine == "fused":
        raise InvalidInput(
            "workers are fed by the engines 'dataset' and 'stock' (or 'auto'), without micro_batch_size. "
            f"Received: workers={cell.workers}, engine={cell.engine!r}, micro_batch_size={cell.micro_batch_size}"
        )
    if cell.precision == "mixed_float16":
        raise InvalidInput(
            "workers would each skip an update where their own loss overflows; use mixed_bfloat16. "
            f"Received: workers={cell.workers}, precision={cell.precision!r}"
        )


def _require_integer(cell: "Cell", name: str, least: int) -> None:
    value = getattr(cell, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name} must be an integer ≥ {least}. Received: {name}={value!r}")


def _require_number(cell: "Cell", name: str, bound: str, compare) -> None:
    value = getattr(cell, name)
    if (
        not isinstance(value, numbers.Real)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not compare(value, 0)
    ):
        raise InvalidInput(f"{name} must be a finite number {bound}. Received: {name}={value!r}")
