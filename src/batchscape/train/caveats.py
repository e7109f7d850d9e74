"""What is to be told of a comparison of batch sizes before it runs."""

from collections.abc import Callable

import keras

from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput
from batchscape.models import agreement, own_step
from batchscape.models.build import build_model
from batchscape.models.losses import ModelLoss
from batchscape.models.resolve_loss import loss_of, missing_labels
from batchscape.train import divided_batches, optimizers
from batchscape.train.compiled_metrics import left_out

SCHEDULE = (
    "The learning-rate schedule that the model was compiled with counts in updates: an epoch of large batches has few of "
    "them, so it ends at another rate than one of small batches."
)


def caveats_of(cell: Cell, model: keras.Model, data: Data, loss: ModelLoss, optimizer: keras.Optimizer) -> list[str]:
    """Sentences to `warn` of; what would make a run something else than its record says is refused.

    Arguments and errors are those of `divided_batches.check`.
    """
    found = [*divided_batches.check(cell, model, data, loss, optimizer), *missing_labels(loss, data), *loss.caveats()]
    if optimizers.default_learning_rate(optimizer) is None:
        found.append(SCHEDULE)
    if model.run_eagerly:
        found.append(f"{model.name} was compiled with run_eagerly=True, which is not kept: training is compiled.")
    if loss.measure is not None and data.sample_weight_train is not None:
        found.append(f"{loss.name} is given no sample weights: what it measures is not weighted, and training is.")
    found += _of_own_step(cell, model, loss)
    with_own = own_step.has_own_step(model) and not loss.why_unmeasured
    if (with_own or cell.devices > 1) and (names := left_out(model, cell.metrics)):
        found.append(
            f"Of the metrics that {model.name} was compiled with, those that metrics=... names are recorded. "
            f"Left out: {', '.join(names)}"
        )
    return found


def _of_own_step(cell: Cell, model: keras.Model, loss: ModelLoss) -> list[str]:
    """What is to be told of a training step of the model's own; what it would ignore is refused."""
    if not own_step.has_own_step(model):
        return []
    name = f"The own train_step of {type(model).__name__}"
    if theirs := own_step.own_optimizers(model):
        asked = [field for field in _OF_THE_OPTIMIZER if getattr(cell, field) != getattr(Cell(), field)]
        if asked:
            raise InvalidInput(
                f"{name} has optimizers of its own, {', '.join(theirs)}: set their rates in build, and leave out "
                f"{', '.join(asked)}. Received: {', '.join(f'{field}={getattr(cell, field)!r}' for field in asked)}"
            )
    if not loss.why_unmeasured:
        return [f"{name} decides what is minimised; losses and landscapes are those of {loss.name}."]
    if cell.until_loss is not None:
        raise InvalidInput(
            f"until_loss needs a loss that is measured: give measure=... Received: {loss.why_unmeasured}"
        )
    return [
        f"{name} decides what is minimised, and its logs are what is recorded, as fit_loss and the like: no other loss is "
        f"measured unless measure=..., a function (model, x, y), says which. Received: {loss.why_unmeasured}"
    ]


_OF_THE_OPTIMIZER = ("optimizer", "optimizer_options", "weight_decay", "learning_rate", "lr_policy", "warmup", "decay")


_compared: dict[tuple, Callable] = {}
"""What builds the models whose losses have been compared with `evaluate` in this process, by what was compared."""


def disagreement(cell: Cell, data: Data, build: Callable) -> list[str]:
    """How the loss of a cell's model differs from that of its `evaluate`, asked once for each model, loss and data.

    The model is built for this and thrown away: on one device, in the process of the user.
    """
    compared = id(build), cell.precision, cell.loss, data.meta["sha256"]
    if compared in _compared:
        return []
    _compared[compared] = build
    model = build_model(build, data, seed=0, precision=cell.precision)
    loss = loss_of(model, data, cell.loss)
    if loss.measure is not None or loss.why_unmeasured:
        return []
    theirs = agreement.evaluate_with(model, loss, as_compiled=cell.loss is None)
    found = agreement.disagreement(model, loss, data.examples("train"), theirs)
    return [found] if found else []
