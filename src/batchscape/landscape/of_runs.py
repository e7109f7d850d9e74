"""The loss around and between minima, and their sharpness: of the runs of a store, or of models that Keras saved."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from batchscape.backend import keras_private
from batchscape.config import Cell
from batchscape.data import load_whole
from batchscape.errors import DamagedRun, InvalidInput
from batchscape.landscape.curvature import measure_curvature
from batchscape.landscape.directions import random_directions
from batchscape.landscape.files import Result
from batchscape.landscape.hessian import hessian_eigenvalues, hessian_trace
from batchscape.landscape.line import interpolate
from batchscape.landscape.objective import Objective, objective_of
from batchscape.landscape.plane import Plane, evaluate_plane, plane_through
from batchscape.landscape.sharpness_measures import MEASURES, measure_sharpness
from batchscape.models import outputs
from batchscape.models.files import load_model
from batchscape.sweep.frames import load_complete
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.measure import measure_runs
from batchscape.sweep.store import Store
from batchscape.system import progress
from batchscape.train.record import Record, Status, Weights

_log = logging.getLogger("batchscape")


def pair_runs(
    store: Store,
    batch_a: int | str,
    batch_b: int | str,
    *,
    learning_rate: float | None = None,
    sources: SweepInputs | None = None,
) -> list[tuple[Record, Record]]:
    """Pairs of complete runs with one seed each, which differ in their batch size alone.

    Args:
        store: The store.
        batch_a, batch_b: Batch sizes as the cells name them, int or `"full"`.
        learning_rate: Keep runs at this rate; needed where the store holds several.
        sources: Keep runs of this model and these data, where the store holds several versions of them.

    Raises:
        InvalidInput: If there is no pair, or pairs of more than one kind.
    """
    if batch_a == batch_b:
        raise InvalidInput(f"A line needs two batch sizes. Received: {batch_a} and {batch_b}")
    groups: dict[Cell, dict[int | str, Record]] = {}
    others = None
    for record in store.records(weights=True):
        usable = record.status is Status.COMPLETE and record.final.get("reached") is not False
        if usable and learning_rate in (None, record.facts["learning_rate"]):
            if sources is not None and not sources.is_current(record, store):
                others = record
                continue
            alike = dataclasses.replace(record.cell, batch_size=1)
            groups.setdefault(alike, {})[record.cell.batch_size] = record
    pairs = [(group[batch_a], group[batch_b]) for group in groups.values() if batch_a in group and batch_b in group]
    kinds = {dataclasses.replace(first.cell, seed=0) for first, _ in pairs}
    if not pairs and others is not None:
        sources.check_run(others, store)
    if not pairs:
        found = sorted({str(batch) for group in groups.values() for batch in group}, key=lambda text: (len(text), text))
        raise InvalidInput(
            f"{store.path} must hold complete runs of both batch sizes with the same seed and all else equal. "
            f"Received: {batch_a} and {batch_b}; batch sizes there: {', '.join(found) or 'none'}"
        )
    if len(kinds) > 1:
        listed = "; ".join(f"{cell.model} on {cell.dataset} at η = {cell.learning_rate}" for cell in kinds)
        raise InvalidInput(
            f"Runs must be of one kind; choose a learning rate, or use another store. Received: {listed}"
        )
    return sorted(pairs, key=lambda pair: pair[0].cell.seed)


def lines_between(
    store: str | os.PathLike | Store,
    batch_a: int | str,
    batch_b: int | str,
    *,
    learning_rate: float | None = None,
    points: int = 61,
    build: Callable | None = None,
    data: Any = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Loss and accuracy, on training and test data, along the lines from one batch size's minima to another's.

    Args:
        store: A folder, or a `Store`.
        batch_a, batch_b, learning_rate: See `pair_runs`; `batch_a` is at α = 0.
        points: Points on each line, α evenly from −1 to 2.
        build, data: What the sweep was given in place of the names in its cells.
        show_progress: Whether to show progress.

    Returns:
        One row a point: `seed`, `split`, `batch_a`, `batch_b`, `alpha`, `loss`, `accuracy`, and the `barrier` of its line.

    Raises:
        InvalidInput: If there is no pair, or the model or the data are not those of the runs.
    """
    store = Store.of(store).require()
    sources = SweepInputs(build, data)
    pairs = pair_runs(store, batch_a, batch_b, learning_rate=learning_rate, sources=sources)
    cell = pairs[0][0].cell
    source = sources.local(cell)
    model, examples = source.build_model(cell.precision), source.load()
    objectives = {split: objective_of(model, examples, split, loss=cell.loss) for split in ("train", "test")}
    found = []
    with progress.report("lines", len(pairs) * len(objectives), show=show_progress) as advance:
        for first, second in pairs:
            try:
                ends = first.weights["final"], second.weights["final"]
            except DamagedRun as error:
                _log.warning("Seed %d is left out: %s", first.cell.seed, error)
                continue
            for split, f in objectives.items():
                line = interpolate(f, *ends, np.linspace(-1, 2, points))
                names = {"batch_a": first.facts["batch"], "batch_b": second.facts["batch"]}
                values = {"alpha": line.alphas, "loss": line.loss, "accuracy": line.accuracy, "barrier": line.barrier}
                found.append(pd.DataFrame({"seed": first.cell.seed, "split": split, **names, **values}))
                advance()
    if not found:
        raise InvalidInput(f"{store.path} must hold a pair of runs whose weights are sound. Received: none")
    return pd.concat(found, ignore_index=True)


def plane_around(
    store: str | os.PathLike | Store,
    batch: int | str,
    *,
    learning_rate: float | None = None,
    points: int = 25,
    build: Callable | None = None,
    data: Any = None,
    show_progress: bool = True,
) -> Plane:
    """The training loss on a plane of two filter-normalised random directions around a minimum.

    Args:
        store: A folder, or a `Store`.
        batch: Batch size as the cells name it; of its complete runs the one of the smallest seed is taken.
        learning_rate: Take a run at this rate.
        points: Points along each axis, from −1 to 1: a direction has the norm of the weights, unit by unit.
        build, data: What the sweep was given in place of the names in its cells.
        show_progress: Whether to show progress.

    Returns:
        A `Plane`.
    """
    store = Store.of(store).require()
    sources = SweepInputs(build, data)
    found = [
        record
        for record in store.records(weights=True)
        if record.status is Status.COMPLETE
        and record.cell.batch_size == batch
        and learning_rate in (None, record.facts["learning_rate"])
    ]
    if not found:
        raise InvalidInput(f"{store.path} must hold a complete run of that batch size and rate. Received: {batch}")
    found = [record for record in found if sources.is_current(record, store)] or found
    record, weights = _first_sound(sorted(found, key=lambda record: (record.cell.seed, record.hash)))
    sources.check_run(record, store)
    source = sources.local(record.cell)
    f = objective_of(source.build_model(record.cell.precision), source.load(), loss=record.cell.loss)
    name = f"B = {record.facts['batch']}"
    return _plane_around(f, weights, name, points, show_progress=show_progress)


def _first_sound(records: Sequence[Record]) -> tuple[Record, Weights]:
    """The first record whose final weights can be read, and these; what is wrong with the ones before is told."""
    for record in records:
        try:
            return record, record.weights["final"]
        except DamagedRun as error:
            _log.warning("Run %s is left out: %s", record.hash, error)
    raise InvalidInput("A plane needs a run whose weights are sound. Received: none")


def planes_of_files(
    files: Sequence[str | os.PathLike], data: Any, *, points: int = 25, show_progress: bool = True
) -> Plane:
    """The training loss around a model that Keras saved, or on the plane through three of them.

    Args:
        files: One or three `.keras` or `.h5` files of one architecture.
        data: Anything `load_dataset` takes.
        points: Points along an axis.
        show_progress: Whether to show progress.

    Returns:
        A `Plane`; through three models, of true distances, with moments of BatchNorm estimated anew at each point.
    """
    models = [load_model(file) for file in files]
    examples = load_whole(data)
    if len(files) == 1:
        f = objective_of(models[0], examples)
        return _plane_around(f, f.weights, pathlib.Path(files[0]).stem, points, show_progress=show_progress)
    f = objective_of(models[0], examples, batch_norm="reestimate" if _has_batch_norm(models[0]) else "interpolate")
    solutions = {pathlib.Path(file).stem: model.get_weights() for file, model in zip(files, models, strict=True)}
    return plane_through(f, solutions, points=points, show_progress=show_progress)


def line_of_files(file_a: str | os.PathLike, file_b: str | os.PathLike, data: Any, *, points: int = 61) -> pd.DataFrame:
    """Loss and accuracy on the line from one model that Keras saved to another; the columns of `lines_between`.

    Args:
        file_a, file_b: `.keras` or `.h5` files of one architecture, at α = 0 and at α = 1.
        data: Anything `load_dataset` takes.
        points: Points on the line, α evenly from −1 to 2.
    """
    first, second = (load_model(file) for file in (file_a, file_b))
    examples, found = load_whole(data), []
    for split in ("train", "test"):
        line = interpolate(
            objective_of(first, examples, split), first.get_weights(), second.get_weights(), np.linspace(-1, 2, points)
        )
        values = {"alpha": line.alphas, "loss": line.loss, "accuracy": line.accuracy, "barrier": line.barrier}
        names = {"batch_a": pathlib.Path(file_a).stem, "batch_b": pathlib.Path(file_b).stem}
        found.append(pd.DataFrame({"seed": 0, "split": split, **names, **values}))
    return pd.concat(found, ignore_index=True)


def centre_of_file(file: str | os.PathLike, data: Any) -> str:
    """A sentence with the loss of a model that Keras saved, beside that of its own `evaluate`, and the number of examples.

    Args:
        file: A `.keras` or `.h5` file.
        data: Anything `load_dataset` takes.
    """
    model, examples = load_model(file), load_whole(data)
    f = objective_of(model, examples)
    loss = f(f.weights)
    sentence = f"{pathlib.Path(file).name}: loss {loss:.6g} over {f.n_examples:,} examples"
    if not model.compiled:
        return f"{sentence} (not compiled, so that evaluate says nothing)."
    given = outputs.as_arguments(examples.examples("train"))
    theirs = model.evaluate(**given, batch_size=f.batch_size, verbose=0, return_dict=True)["loss"]
    return f"{sentence}; evaluate says {theirs:.6g}."


def _plane_around(f: Objective, weights: Weights, name: str, points: int, *, show_progress: bool) -> Plane:
    directions = random_directions(f, weights, 2, seed=0)
    side = np.linspace(-1, 1, points)
    about = {"normalize": "filter", "biases": False, "seed": 0}
    return evaluate_plane(
        f, weights, directions, side, side, marks={name: (0.0, 0.0)}, about=about, show_progress=show_progress
    )


def _has_batch_norm(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in keras_private.layers_of(model))


def sharpness_of_runs(
    store: str | os.PathLike | Store,
    *,
    build: Callable | None = None,
    data: Any = None,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """The largest eigenvalue of the Hessian and every sharpness of every complete run of a store.

    Args:
        store: A folder, or a `Store`.
        build, data: What the sweep was given in place of the names in its cells.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        One row a run: `batch`, `learning_rate`, `seed`, `train_loss`, `lambda_max`, `trace` and the names of `MEASURES`.
    """
    store = Store.of(store)
    runs = load_complete(store)
    how = {"build": build, "data": data, "executor": executor, "workers": workers, "show_progress": show_progress}
    curvature = measure_runs(store, runs["hash"], "curvature", measure_curvature, **how)
    sharpness = measure_runs(store, curvature["hash"], "sharpness", measure_sharpness, **how)
    table = runs.merge(curvature, on="hash").merge(sharpness, on="hash")
    columns = ["batch", "learning_rate", "seed", "train_loss", "lambda_max", "trace", *MEASURES]
    return table.sort_values(columns[:3]).reindex(columns=columns)


@dataclasses.dataclass(frozen=True, repr=False)
class ModelSharpness(Result):
    """The curvature and every sharpness of the training loss of one model.

    Attributes:
        train_loss: The mean loss.
        lambda_max: The largest eigenvalue of the Hessian.
        trace: An estimate of the trace of the Hessian.
        measures: One value for each name in `MEASURES`.
        about: Model, data and weights (digests), file, policies, versions.
    """

    train_loss: float
    lambda_max: float
    trace: float
    measures: dict[str, float]
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_series(self) -> pd.Series:
        """All of the numbers by name, as a row of `sharpness_of_runs` has them."""
        numbers = {name: getattr(self, name) for name in ("train_loss", "lambda_max", "trace")}
        return pd.Series({**numbers, **self.measures})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in list(self.to_series().items())[:4])
        return f"ModelSharpness({shown}, ...)"


def sharpness_of_file(file: str | os.PathLike, data: Any) -> ModelSharpness:
    """The largest eigenvalue of the Hessian and every sharpness of a model that Keras saved, on its training data.

    Args:
        file: A `.keras` or `.h5` file.
        data: Anything `load_dataset` takes.

    Returns:
        A `ModelSharpness`.

    Raises:
        InvalidInput: If the file holds no model of Keras, or the data do not fit it.
    """
    model = load_model(file)
    f = objective_of(model, load_whole(data))
    weights = f.weights
    return ModelSharpness(
        train_loss=f(weights),
        lambda_max=float(hessian_eigenvalues(f, weights).values[0]),
        trace=hessian_trace(f, weights).mean,
        measures={name: measure(f, weights).value for name, measure in MEASURES.items()},
        about={**f.about(weights), "file": pathlib.Path(file).name},
    )
