"""The options of a command that trains: one for each field of `Cell`, derived from the class, so that none is missing."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from batchscape.cli import parse
from batchscape.cli.app import Fresh, Imports
from batchscape.config import Cell, Grid
from batchscape.errors import InvalidInput

HELP = {
    "dataset": "Name, .npz file or module:function.",
    "train_size": "Keep this many training examples.",
    "model": "Name, module:function, or a .keras or .h5 file.",
    "optimizer": "A Keras optimizer or rprop; the compiled one, or sgd.",
    "optimizer_options": "NAME=VALUE pairs, such as momentum=0.9,nesterov=true, or a JSON object.",
    "learning_rate": "One or more rates, such as 0.05,0.1.",
    "lr_policy": "fixed, sqrt or linear in the batch size.",
    "base_batch_size": "Batch size at which the policy leaves the rate alone.",
    "warmup": "Length of the gradual warm-up, in --schedule-unit.",
    "warmup_from": "zero, or base: the rate before the policy.",
    "decay": "constant, steps, linear, cosine, exponential or inverse, after the warm-up.",
    "decay_over": "Length of the decay; the rest of the run.",
    "decay_at": "Where the steps are, such as 30,60,80.",
    "decay_factor": "What is left after the decay, or after each step.",
    "schedule_unit": "What warm-up and decay are counted in: epochs, updates or examples.",
    "batch_size": "One or more sizes, such as 8,32,full.",
    "batch_steps": "EPOCH:SIZE pairs: the batch size from these epochs on, such as 30:160,60:800.",
    "micro_batch_size": "Compute each update in parts of so many examples: batches larger than memory.",
    "devices": "Devices that share each batch (data parallel); --batch-size is that of each.",
    "last_batch": "keep or drop the last partial batch.",
    "epochs": "Budget in epochs (10 if no budget is given).",
    "updates": "Budget in updates.",
    "examples": "Budget in examples.",
    "until_loss": "Stop at this training loss.",
    "max_updates": "Give up on --until-loss after this many updates.",
    "loss": "A Keras loss; the compiled one, or what the labels say.",
    "metrics": "Keras metrics, such as accuracy,top_k_categorical_accuracy.",
    "weight_decay": "Decoupled weight decay.",
    "initial_weights": "Start from the final weights of this run in the store.",
    "precision": "A Keras dtype policy, such as mixed_bfloat16.",
    "engine": "auto, stock, dataset or fused.",
    "evaluate_every": "Epochs between evaluations.",
    "seed": "Number of paired seeds, 0, 1, 2, ...",
}
"""What the help says of each field."""

PARSERS: dict[str, Callable[[str], Any]] = {
    "batch_size": parse.batch_sizes,
    "batch_steps": parse.batch_steps,
    "decay_at": functools.partial(parse.numbers, "decay-at"),
    "learning_rate": lambda text: list(parse.numbers("learning-rate", text)),
    "metrics": parse.metrics,
    "optimizer_options": parse.optimizer_options,
}
"""Fields whose options are texts: several values, or pairs."""

DEFAULTS = {"batch_size": "8,32,128", "seed": 3}
"""Where a sweep begins otherwise than a cell."""

NAMES = {"dataset": ("--dataset", "--data"), "seed": ("--seeds",)}
"""Options that are not called like their field."""


MOMENTUM = Annotated[float, typer.Option(help="Momentum of sgd: short for --optimizer-options momentum=...")]

MORE = {"momentum": (MOMENTUM, 0.0), "fresh": (Fresh, False), "imports": (Imports, None)}
"""Options of a cell that are no fields, and their defaults."""


def parameter_of(field: dataclasses.Field) -> inspect.Parameter:
    """The option of a field, as a parameter that Typer understands."""
    name = field.name
    names = NAMES.get(name, (f"--{name.replace('_', '-')}",))
    kind, default = (str | None, None) if name in PARSERS else (field.type, field.default)
    annotation = Annotated[kind, typer.Option(*names, help=HELP.get(name))]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name, default), annotation=annotation
    )


PARAMETERS = {field.name: parameter_of(field) for field in dataclasses.fields(Cell)}
"""The options by field."""


def grid_of(values: Mapping[str, Any], momentum: float = 0.0) -> Grid:
    """Return the grid that options describe.

    Args:
        values: What each option has received, by field of `Cell`; `seed` is the number of seeds.
        momentum: Momentum of SGD; 0 for none.
    """
    fields = {
        name: PARSERS[name](value) if name in PARSERS else value for name, value in values.items() if value is not None
    }
    fields["seed"] = range(parse.at_least_one("seeds", values["seed"]))
    if momentum:
        options = dict(fields.get("optimizer_options", {}))
        if "momentum" in options:
            raise InvalidInput(
                f"The momentum must be given once. Received: --momentum {momentum:g} and --optimizer-options "
                f"momentum={options['momentum']}"
            )
        fields["optimizer_options"] = {**options, "momentum": momentum}
    return Grid(**fields)


def takes_a_grid(command: Callable) -> Callable:
    """Give a command the options of a cell beside its own: their values come as `grid`, the file of a model as `build`."""
    given = inspect.signature(command).parameters.items()
    own = [parameter for name, parameter in given if name not in ("grid", "build")]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in MORE.items()
    ]

    @functools.wraps(command)
    def with_grid(**given: Any) -> Any:
        values = {field: given.pop(parameter.name) for field, parameter in PARAMETERS.items()}
        build = parse.model(values["model"], given.pop("fresh"), given.pop("imports"))
        if build is values["model"]:  # A name, which the cells have.
            build = None
        return command(grid=grid_of(values, given.pop("momentum")), build=build, **given)

    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    with_grid.__signature__ = inspect.Signature([*PARAMETERS.values(), *more, *own])
    return with_grid
