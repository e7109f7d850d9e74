"""The study of the minima: are those of small batches flatter, by any measure, and does it matter?"""

import dataclasses
import functools
import os
from collections.abc import Iterator

import numpy as np
import pandas as pd

from batchscape.config import Cell
from batchscape.data import load_dataset
from batchscape.landscape.curvature import measure_curvature
from batchscape.landscape.directions import random_directions
from batchscape.landscape.hessian import hessian_eigenvalues
from batchscape.landscape.line import Line, interpolate, slice_along
from batchscape.landscape.objective import Objective, objective_of
from batchscape.landscape.sharpness import rescale_relu
from batchscape.landscape.sharpness_measures import MEASURES, measure_published, measure_sharpness
from batchscape.landscape.spectrum import spectral_density
from batchscape.landscape.trajectory import WeightsCallback, trajectory_plane
from batchscape.models.build import build_model
from batchscape.models.fingerprint import revision
from batchscape.stats import families
from batchscape.study import columns, judge, profiles
from batchscape.study.minima.profile import MinimaProfile, Replication
from batchscape.study.tables import Tables
from batchscape.sweep.frames import load_results
from batchscape.sweep.measure import keep_table, measure_runs
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.system import progress
from batchscape.train.fit import fit_one
from batchscape.train.record import Record, environment

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


def run_minima_study(
    profile: str | MinimaProfile,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Measure the minima of the main job every way, go on from some of them, rescale some, and decay some.

    Args:
        profile: The name of a profile in `MINIMA_PROFILES`, or a `MinimaProfile`.
        store: The store of the main job, a folder or a `Store`; what it lacks is trained.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables`: `minima` (one row a run of the main job), `escapes` (one row a seed, arm and number of epochs after a
        minimum of full batch), `rescaled` (one row a seed and factor) and `flip` (one row a seed, batch size, weight decay
        and way of looking), `pictures` (one row a seed: what pictures of one run show and hide) and `spectra` (one row a
        seed, family, batch size and eigenvalue: how many eigenvalues lie beyond it).
    """
    profile = profiles.find("minima", profile)
    store = Store.of(store)
    how = profiles.execution(profile, executor=executor, workers=workers, show_progress=show_progress)
    runs = run_sweep(profile.main.grid(), store=store, **how)
    curvature = measure_runs(store, runs["hash"], "curvature", measure_curvature, n_probes=profile.main.n_probes, **how)
    sharpness = measure_runs(store, runs["hash"], "sharpness", measure_sharpness, names=list(profile.measures), **how)
    curves = load_results(store, curves=True)
    minima = runs[list(RUN_COLUMNS)].merge(curvature, on="hash", how="left").merge(sharpness, on="hash", how="left")
    minima = columns.add_distances(minima, curves[curves["hash"].isin(runs["hash"])])
    full = runs[(runs["batch"] == runs["n_train"]) & (runs["reached"] == True)]  # noqa: E712 (the column also holds None)
    starts = dict(zip(full["seed"].map(int), full["hash"], strict=True))
    options = {**dataclasses.asdict(profile), "starts": list(starts.values())}
    made = {
        "escapes": (_escapes, profile, store, starts, how),
        "rescaled": (_rescaled, profile, store, list(starts.values()), how),
        "flip": (_flip, profile, store, how),
        "pictures": (_pictures, profile, how),
    }
    run = runs["hash"].iloc[0]
    frames = {"minima": minima.drop(columns="hash")}
    for name, (make, *given) in made.items():
        table = functools.partial(make, *given)
        frames[name] = keep_table(store, run, name, options, table, revision=make.revision)
    ends = _ends(runs)
    vectors, steps = profile.spectrum
    options = {
        "ends": ends.to_dict("list"),
        "vectors": vectors,
        "steps": steps,
        "beyond": list(BEYOND),
    }
    if len(ends):
        frames["spectra"] = keep_table(
            store, run, "spectra", options, lambda: _spectra(profile, store, ends, how), revision=_spectra.revision
        )
    return Tables(frames, {"profile": profile.name, "description": judge.describe(runs), "environment": environment()})


def run_replication(
    profile: str | Replication,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Train the two batches of a published comparison, and measure their minima as published.

    Args:
        profile: The name of a replication in `REPLICATIONS`, or a `Replication`.
        store: A folder, or a `Store`.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables` with `published`, one row a run.
    """
    profile = profiles.find("replication", profile)
    store = Store.of(store)
    how = profiles.execution(profile, executor=executor, workers=workers, show_progress=show_progress)
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


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _escapes(profile: MinimaProfile, store: Store, starts: dict[int, str], how: dict) -> pd.DataFrame:
    """Where the minima of full batch, their distance, loss and curvature, go when training goes on."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    runs = run_sweep(profile.escape_grid(starts, data.n_train), store=store, **how)
    model = build_model(main.model, data, seed=0)
    f, on_test = (objective_of(model, data, split) for split in ("train", "test"))
    rows = []
    with progress.report("escapes", len(runs) + len(starts), show=how["show_progress"]) as advance:
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


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _rescaled(profile: MinimaProfile, store: Store, runs: list[str], how: dict) -> pd.DataFrame:
    """Every measure at minima whose first layer is multiplied, and whose second is divided, by a factor."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(main.model, data, seed=0), data)
    measured = ("phi", "worst", "adaptive_worst")
    rows = []
    with progress.report("rescaled", len(runs), show=how["show_progress"]) as advance:
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


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _flip(profile: MinimaProfile, store: Store, how: dict) -> pd.DataFrame:
    """How wide minima look with and without weight decay, before and after filter normalisation."""
    runs = run_sweep(profile.flip_grid(FLIP_MODEL), store=store, **how)
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(FLIP_MODEL, data, seed=0), data)
    alphas = np.linspace(-1, 1, profile.n_alphas)
    rows = []
    with progress.report("flip", len(runs), show=how["show_progress"]) as advance:
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


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _pictures(profile: MinimaProfile, how: dict) -> pd.DataFrame:
    """What planes show of a run of ten epochs at B = 32, and how far the width of its end depends on the direction."""
    main = profile.main
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(main.model, data, seed=0), data)
    rows = []
    with progress.report("pictures", main.seeds, show=how["show_progress"]) as advance:
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


BEYOND = np.geomspace(0.01, 100, 41)
"""Eigenvalues beyond which the others are counted."""


def _ends(runs: pd.DataFrame) -> pd.DataFrame:
    """The family, batch size, seed and name of the runs at both ends of each family that reached the target."""
    reached = runs[runs["reached"] == True]  # noqa: E712 (the column also holds None)
    ends = [
        family.runs.assign(family=family.label)[family.runs["batch"].isin((family.batches[0], family.batches[-1]))]
        for family in families.families(reached)
    ]
    columns = ["family", "batch", "seed", "hash"]
    return pd.concat(ends)[columns] if ends else pd.DataFrame(columns=columns)


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _spectra(profile: MinimaProfile, store: Store, ends: pd.DataFrame, how: dict) -> pd.DataFrame:
    """How many eigenvalues of the Hessian lie above λ, and how many below −λ, at the ends of families of runs."""
    main = profile.main
    vectors, steps = profile.spectrum
    data = load_dataset(main.dataset, train_size=main.train_size)
    f = objective_of(build_model(main.model, data, seed=0), data)
    tables = []
    with progress.report("spectra", len(ends), show=how["show_progress"]) as advance:
        for family, batch, seed, name in ends.itertuples(index=False):
            weights = store.load(name).weights["final"]
            density = spectral_density(f, weights, n_vectors=vectors, steps=steps, seed=seed)
            counts = {"above": density.n_above(BEYOND), "below": density.n_parameters - density.n_above(-BEYOND)}
            tables.append(pd.DataFrame({"family": family, "batch": batch, "seed": seed, "value": BEYOND, **counts}))
            advance()
    labels = {"dataset": main.dataset, "model": main.model, "n": data.n_train}
    how_counted = {"vectors": vectors, "steps": steps}
    return pd.concat(tables, ignore_index=True).assign(**labels, **how_counted)


def _views(f: Objective, weights, other, alphas, n: int, *, size: float, seed: int) -> Iterator[tuple[str, Line]]:
    """Lines through a minimum: to the other one, along random directions of one length, and along normalised ones."""
    yield "to the other", interpolate(f, weights, other, alphas)
    for normalize in ("none", "filter"):
        for direction in random_directions(f, weights, n, normalize=normalize, seed=seed):
            scale = size / np.linalg.norm(direction) if normalize == "none" else 1.0
            yield normalize, slice_along(f, weights, scale * direction, alphas)
