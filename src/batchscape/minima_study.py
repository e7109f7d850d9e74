"""The study of the minima: are those of small batches flatter, by any measure, and does it matter?"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from batchscape import profiles, progress
from batchscape.config import Cell
from batchscape.data import load_dataset
from batchscape.errors import InvalidInput
from batchscape.judge import claims, strata
from batchscape.minima.curvature import measure_curvature
from batchscape.minima.directions import random_directions
from batchscape.minima.hessian import hessian_eigenvalues, hessian_trace
from batchscape.minima.line import Line, interpolate, slice_along
from batchscape.minima.measures import MEASURES, measure_published, measure_sharpness
from batchscape.minima.objective import Objective, objective_of
from batchscape.minima.sharpness import rescale_relu
from batchscape.minima.spectrum import spectral_density
from batchscape.minima.trajectory import WeightsCallback, trajectory_plane
from batchscape.models import build_model, load_model
from batchscape.profiles import MinimaProfile, Replication
from batchscape.record import Record, environment
from batchscape.sweep.measure import keep_table, measure_runs
from batchscape.sweep.results import load_results
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.tables import Tables
from batchscape.train.fit import fit_one

FLIP_MODEL = "cnn_bn"
"""A net with BatchNorm: the scale of its kernels is free, so weight decay moves it without changing the function."""

LEVEL = 0.5
"""Loss at which a basin ends, in nats, beside twice the loss of the minimum."""

RUN_COLUMNS = (
    *("hash", "dataset", "model", "batch", "learning_rate", "seed", "status", "reached", "n_train"),
    *("budget", "budget_amount", "updates", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("distance", "path_length", "weight_norm"),
)
"""Columns of a table of runs that go with their sharpness."""


def run_minima_study(profile: str | MinimaProfile, store: str | os.PathLike | Store, **how) -> Tables:
    """Measure the minima of the main job every way, go on from some of them, rescale some, and decay some.

    Args:
        profile: The name of a profile in `MINIMA_PROFILES`, or a `MinimaProfile`.
        store: The store of the main job, a folder or a `Store`; what it lacks is trained.
        **how: `executor`, `workers` and `show_progress`; see `run_sweep`.

    Returns:
        `Tables`: `minima` (one row a run of the main job), `escapes` (one row a seed, arm and number of epochs after a
        minimum of full batch), `rescaled` (one row a seed and factor) and `flip` (one row a seed, batch size, weight decay
        and way of looking), `pictures` (one row a seed: what pictures of one run show and hide) and `spectra` (one row a
        seed, family, batch size and eigenvalue: how many eigenvalues lie beyond it).
    """
    profile = profiles.find(profile, profiles.MINIMA_PROFILES)
    store, how = Store.of(store), profiles.execution(profile, how)
    runs = run_sweep(profile.main.grid(), store=store, **how)
    curvature = measure_runs(store, runs["hash"], "curvature", measure_curvature, n_probes=profile.main.n_probes, **how)
    sharpness = measure_runs(store, runs["hash"], "sharpness", measure_sharpness, names=list(profile.measures), **how)
    curves = load_results(store, curves=True)
    minima = runs[list(RUN_COLUMNS)].merge(curvature, on="hash", how="left").merge(sharpness, on="hash", how="left")
    minima = strata.add_distances(minima, curves[curves["hash"].isin(runs["hash"])])
    full = runs[(runs["batch"] == runs["n_train"]) & (runs["reached"] == True)]  # noqa: E712 (the column also holds None)
    starts = dict(zip(full["seed"].map(int), full["hash"], strict=True))
    options = {**dataclasses.asdict(profile), "starts": list(starts.values())}
    made = {
        "escapes": lambda: _escapes(profile, store, starts, how),
        "rescaled": lambda: _rescaled(profile, store, list(starts.values()), how),
        "flip": lambda: _flip(profile, store, how),
        "pictures": lambda: _pictures(profile, how),
    }
    frames = {"minima": minima.drop(columns="hash")}
    for name, make in made.items():
        frames[name] = keep_table(store, runs["hash"].iloc[0], name, options, make)
    ends = _ends(runs)
    options = {
        "ends": ends.to_dict("list"),
        "vectors": SPECTRUM_VECTORS,
        "steps": SPECTRUM_STEPS,
        "beyond": list(BEYOND),
    }
    if len(ends):
        frames["spectra"] = keep_table(
            store, runs["hash"].iloc[0], "spectra", options, lambda: _spectra(profile, store, ends, how)
        )
    return Tables(frames, {"profile": profile.name, "description": claims.describe(runs), "environment": environment()})


def run_replication(profile: str | Replication, store: str | os.PathLike | Store, **how) -> Tables:
    """Train the two batches of a published comparison, and measure their minima as published.

    Args:
        profile: The name of a replication in `REPLICATIONS`, or a `Replication`.
        store: A folder, or a `Store`.
        **how: `executor`, `workers` and `show_progress`; see `run_sweep`.

    Returns:
        `Tables` with `published`, one row a run.
    """
    profile = profiles.find(profile, profiles.REPLICATIONS)
    store, how = Store.of(store), profiles.execution(profile, how)
    runs = run_sweep(profile.grid(), store=store, **how)
    by_epochs = runs["budget"] == "epochs"
    measured = [
        measure_runs(
            store,
            runs.loc[chosen, "hash"],
            "published",
            measure_published,
            names=list(names),
            hessian_examples=profile.hessian_examples,
            n_probes=profile.n_probes,
            **how,
        )
        for chosen, names in ((by_epochs, profile.measures), (~by_epochs, profile.measures[:1]))
        if chosen.any()
    ]
    table = runs[list(RUN_COLUMNS)].merge(pd.concat(measured), on="hash", how="left").drop(columns="hash")
    table["test_error_reestimated"] = 1 - table["test_accuracy_reestimated"]
    description = f"{profile.source}: {profile.dataset}, {profile.model}, B = {profile.small} and {profile.large}"
    return Tables(
        {"published": table.assign(source=profile.source)},
        {
            "profile": profile.name,
            "description": description,
            "hessian_examples": profile.hessian_examples,
            "environment": environment(),
        },
    )


def _escapes(profile: MinimaProfile, store: Store, starts: dict[int, str], how: dict) -> pd.DataFrame:
    """Where the minima of full batch, their distance, loss and curvature, go when training goes on."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    runs = run_sweep(profile.escape_grid(starts, data.n_train), store=store, **how)
    model = build_model(main.model, data, seed=0)
    f, on_test = (objective_of(model, data, split) for split in ("train", "test"))
    rows = []
    with progress.report("escapes", len(runs) + len(starts), show=how.get("show_progress", True)) as advance:
        for seed, start in starts.items():
            origin = store.load(start)
            here = _place(f, on_test, origin, origin.weights["final"])
            began = {f"start_{name}": here[place] for name, place in STARTS.items()}
            start_row = {"seed": seed, "epoch": 0, "barrier": 0.0, "moved": 0.0, **here, **began}
            rows += [{**start_row, "arm": arm} for arm in ARMS.values()]
            advance()
            for run in runs.loc[runs["seed"] == seed, "hash"]:
                record = store.load(run)
                end = record.weights["final"]
                line = interpolate(f, origin.weights["final"], end, np.linspace(0, 1, profile.n_alphas))
                rows.append(
                    {
                        "seed": seed,
                        "arm": ARMS[_arm(record, main.learning_rate)],
                        "epoch": record.final["updates"] // -(-data.n_train // profile.escape_to),
                        "barrier": line.barrier,
                        "moved": record.final["distance"],
                        **_place(f, on_test, origin, end),
                        **began,
                    }
                )
                advance()
    labels = {"dataset": main.dataset, "model": main.model, "n": data.n_train, "trained_at": data.n_train}
    return pd.DataFrame(rows).assign(**labels, escaped_to=profile.escape_to)


ARMS = {"noisy": "small batch, same η", "quiet": "small batch, same η/B", "before": "full batch"}
"""How training goes on from a minimum of full batch."""


STARTS = {"loss": "train_loss", "lambda_max": "lambda_max", "distance": "distance"}
"""What is known of the minimum where training goes on, by its name in the table."""


def _arm(record: Record, learning_rate: float) -> str:
    if record.cell.batch_size == "full":
        return "before"
    return "noisy" if record.cell.learning_rate == learning_rate else "quiet"


def _place(f: Objective, on_test: Objective, origin: Record, weights) -> dict[str, float]:
    distance = np.linalg.norm(f.flatten(weights) - f.flatten(origin.weights["initial"]))
    return {
        "train_loss": f(weights),
        "test_loss": on_test(weights),
        "lambda_max": float(hessian_eigenvalues(f, weights).values[0]),
        "distance": float(distance),
    }


def _rescaled(profile: MinimaProfile, store: Store, runs: list[str], how: dict) -> pd.DataFrame:
    """Every measure at minima whose first layer is multiplied, and whose second is divided, by a factor."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(main.model, data, seed=0), data)
    measured = ("phi", "worst", "adaptive_worst")
    rows = []
    with progress.report("rescaled", len(runs), show=how.get("show_progress", True)) as advance:
        for record in map(store.load, runs):
            for alpha in sorted((1.0, *profile.rescale_by)):
                weights = rescale_relu(f, record.weights["final"], alpha)
                values = {name: MEASURES[name](f, weights).value for name in measured}
                top = float(hessian_eigenvalues(f, weights, max_steps=400).values[0])
                rows.append(
                    {"seed": record.cell.seed, "factor": alpha, "loss": f(weights), "lambda_max": top, **values}
                )
            advance()
    return pd.DataFrame(rows).assign(dataset=main.dataset, model=main.model, n=data.n_train)


def _flip(profile: MinimaProfile, store: Store, how: dict) -> pd.DataFrame:
    """How wide minima look with and without weight decay, before and after filter normalisation."""
    runs = run_sweep(profile.flip_grid(FLIP_MODEL), store=store, **how)
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(FLIP_MODEL, data, seed=0), data)
    alphas = np.linspace(-1, 1, profile.n_alphas)
    rows = []
    with progress.report("flip", len(runs), show=how.get("show_progress", True)) as advance:
        for (seed, decay), pair in runs.groupby(["seed", "weight_decay"]):
            ends = {run.batch: store.load(run.hash) for run in pair.itertuples()}
            for batch, record in ends.items():
                place = {"seed": seed, "batch": batch, "weight_decay": decay}
                weights = record.weights["final"]
                other = next(end.weights["final"] for size, end in ends.items() if size != batch)
                kept = {
                    name: record.final[name] for name in ("train_loss", "test_loss", "test_accuracy", "weight_norm")
                }
                size = np.mean([np.linalg.norm(f.flatten(end.weights["final"])) for end in ends.values()])
                for way, line in _views(f, weights, other, alphas, profile.n_directions, size=size, seed=seed):
                    left, right = line.widths(level=LEVEL)
                    width = min(left, 1.0) + min(right, 1.0)
                    rows.append({**place, **kept, "way": way, "width": width, "distance": line.distance})
                advance()
    labels = {"dataset": main.dataset, "model": FLIP_MODEL, "n": data.n_train}
    averaged = pd.DataFrame(rows).groupby(["seed", "batch", "weight_decay", "way"], as_index=False).mean()
    return averaged.assign(**labels)


def _pictures(profile: MinimaProfile, how: dict) -> pd.DataFrame:
    """What planes show of a run of ten epochs at B = 32, and how far the width of its end depends on the direction."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(main.model, data, seed=0), data)
    rows = []
    with progress.report("pictures", main.seeds, show=how.get("show_progress", True)) as advance:
        for seed in range(main.seeds):
            kept = WeightsCallback(every="epoch")
            cell = Cell(
                dataset=main.dataset, train_size=main.train_size, model=main.model, learning_rate=main.learning_rate,
                epochs=10, seed=seed,
            )  # fmt: skip
            fit_one(cell, data=data, callbacks=[kept])
            end = kept.weights[-1]
            path = trajectory_plane(f, {"run": kept.weights})
            directions = random_directions(f, end, profile.n_directions, seed=seed)
            lines = [slice_along(f, end, direction, np.linspace(-1, 1, profile.n_alphas)) for direction in directions]
            widths = [sum(np.minimum(line.widths(level=LEVEL), 1.0)) for line in lines]
            differences = np.array([f.flatten(weights) - f.flatten(end) for weights in kept.weights])
            plane = np.linalg.qr(directions[:2].T)[0]
            rows.append(
                {
                    "seed": seed,
                    "on_first_axis": path.explained[0],
                    "on_second_axis": path.explained[1],
                    "on_random_plane": np.sum((differences @ plane) ** 2) / np.sum(differences**2),
                    "off_plane": path.off_plane["run"].max() / np.linalg.norm(differences[0]),
                    "widest_by_narrowest": max(widths) / min(widths),
                    "n_directions": len(widths),
                }
            )
            advance()
    return pd.DataFrame(rows).assign(dataset=main.dataset, model=main.model, n=data.n_train, epochs=10)


SPECTRUM_VECTORS, SPECTRUM_STEPS = 4, 60
"""Random vectors, and Lanczos steps of each, for a spectrum."""

BEYOND = np.geomspace(0.01, 100, 41)
"""Eigenvalues beyond which the others are counted."""


def _ends(runs: pd.DataFrame) -> pd.DataFrame:
    """The family, batch size, seed and name of the runs at both ends of each family that reached the target."""
    reached = runs[runs["reached"] == True]  # noqa: E712 (the column also holds None)
    ends = [
        family.runs.assign(family=family.label)[family.runs["batch"].isin((family.batches[0], family.batches[-1]))]
        for family in strata.families(reached)
    ]
    columns = ["family", "batch", "seed", "hash"]
    return pd.concat(ends)[columns] if ends else pd.DataFrame(columns=columns)


def _spectra(profile: MinimaProfile, store: Store, ends: pd.DataFrame, how: dict) -> pd.DataFrame:
    """How many eigenvalues of the Hessian lie above λ, and how many below −λ, at the ends of families of runs."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(main.model, data, seed=0), data)
    tables = []
    with progress.report("spectra", len(ends), show=how.get("show_progress", True)) as advance:
        for family, batch, seed, name in ends.itertuples(index=False):
            weights = store.load(name).weights["final"]
            density = spectral_density(f, weights, runs=SPECTRUM_VECTORS, steps=SPECTRUM_STEPS, seed=seed)
            counts = {"above": density.n_above(BEYOND), "below": density.n_parameters - density.n_above(-BEYOND)}
            tables.append(pd.DataFrame({"family": family, "batch": batch, "seed": seed, "value": BEYOND, **counts}))
            advance()
    return pd.concat(tables, ignore_index=True).assign(dataset=main.dataset, model=main.model, n=data.n_train)


def _views(f: Objective, weights, other, alphas, n: int, *, size: float, seed: int) -> Iterator[tuple[str, Line]]:
    """Lines through a minimum: to the other one, along random directions of one length, and along normalised ones."""
    yield "to the other", interpolate(f, weights, other, alphas)
    for normalize in ("none", "filter"):
        for direction in random_directions(f, weights, n, normalize=normalize, seed=seed):
            scale = size / np.linalg.norm(direction) if normalize == "none" else 1.0
            yield normalize, slice_along(f, weights, scale * direction, alphas)


def sharpness_of_runs(
    store: str | os.PathLike | Store, *, build: Callable | None = None, data: Any = None, **how
) -> pd.DataFrame:
    """The largest eigenvalue of the Hessian and every sharpness of every complete run of a store.

    Args:
        store: A folder, or a `Store`.
        build, data: What the sweep was given in place of the names in its cells.
        **how: `executor`, `workers` and `show_progress`; see `run_sweep`.

    Returns:
        One row a run: `batch`, `learning_rate`, `seed`, `train_loss`, `lambda_max`, `trace` and the names of `MEASURES`.
    """
    store = Store.of(store)
    runs = load_results(store)
    how = {"build": build, "data": data, **how}
    curvature = measure_runs(store, runs["hash"], "curvature", measure_curvature, **how)
    sharpness = measure_runs(store, runs["hash"], "sharpness", measure_sharpness, **how)
    if sharpness.empty:
        raise InvalidInput(f"{store.path} must hold complete runs. Received: none")
    found = runs.merge(curvature, on="hash").merge(sharpness, on="hash")
    columns = ["batch", "learning_rate", "seed", "train_loss", "lambda_max", "trace", *MEASURES]
    return found.sort_values(columns[:3])[columns]


def sharpness_of_file(file: str | os.PathLike, data: Any) -> pd.Series:
    """The same of a model that Keras saved, on its training data.

    Args:
        file: A `.keras` file.
        data: Anything `load_dataset` takes.

    Returns:
        `train_loss`, `lambda_max`, `trace` and the names of `MEASURES`.
    """
    model = load_model(file)
    f = objective_of(model, load_dataset(data))
    weights = f.weights
    measured = {name: measure(f, weights).value for name, measure in MEASURES.items()}
    top, trace = hessian_eigenvalues(f, weights), hessian_trace(f, weights)
    return pd.Series({"train_loss": f(weights), "lambda_max": top.values[0], "trace": trace.mean, **measured})
