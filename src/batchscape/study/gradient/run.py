"""The study of the gradient: how true a mini-batch is, how steady training, how round the loss."""

import dataclasses
import os

import keras
import numpy as np
import pandas as pd

from batchscape.data import Data, load_dataset
from batchscape.gradient import of_runs
from batchscape.landscape.objective import Objective, objective_of
from batchscape.landscape.taylor import taylor_residuals
from batchscape.models.build import build_model
from batchscape.models.fingerprint import revision
from batchscape.study import profiles
from batchscape.study.gradient import descent, steadiness, timing
from batchscape.study.gradient.profile import NoiseProfile
from batchscape.study.tables import Tables
from batchscape.sweep.frames import to_frame
from batchscape.sweep.measure import code_of, keep_table, measure_runs
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.system import progress
from batchscape.train.record import environment

TARGET_COLUMNS = (
    *("dataset", "model", "batch", "learning_rate", "seed", "n_train", "budget_amount", "max_updates"),
    *("reached", "updates", "examples", "epoch", "train_loss"),
)
"""Columns of the table `targets`."""


def run_noise_study(
    profile: str | NoiseProfile,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Train a few runs, and measure their gradients, their curves and the loss around them.

    Args:
        profile: The name of a profile in `NOISE_PROFILES`, or a `NoiseProfile`.
        store: A folder, or a `Store`.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables` with the table `noise`, one row a seed, epoch, batch size and way of drawing, and, where the profile asks
        for them, `epochs` (one row a run of a few epochs), `tails` (one row a seed and group of epochs), `surface` (one
        row a seed, net, epoch and radius), `paths` (one row a net, batch size and update), `planes` (the loss around them),
        `cost` (one row a repeat, net and number of examples) and `targets` (one row a
        run until a target; see `critical_batch_size`).
    """
    profile = profiles.find("gradient", profile)
    store = Store.of(store)
    how = profiles.execution(profile, executor=executor, workers=workers, show_progress=show_progress)
    runs = run_sweep(profile.grid(), store=store, **how)
    frames = {"noise": _noise(profile, runs, store, how)}
    if profile.curve_batch_sizes:
        frames["epochs"] = _epochs(profile, store, how)
        frames["tails"] = _tails(profile, store, how)
        run = runs["hash"].iloc[0]
        options = dataclasses.asdict(profile)
        frames["surface"] = keep_table(
            store, run, "surface", options, lambda: _surface(profile, store, how), revision=_surface.revision
        )
        frames["cost"] = keep_table(store, run, "cost", options, lambda: _cost(profile), revision=_cost.revision)
        frames |= _paths(profile, store, how)
        frames["targets"] = run_sweep(profile.target_grid(), store=store, **how)[list(TARGET_COLUMNS)]
    n = runs["n_train"].iloc[0]
    description = f"{profile.dataset}, {profile.model}, N = {n}"
    return Tables(frames, {"profile": profile.name, "description": description, "environment": environment()})


def run_mnist_study(
    profile: str,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Measure the noise scale of LeNet on MNIST, along 20 epochs and within the first one (half an hour on two cores).

    Args:
        profile: `"mnist"`.
        store: A folder, or a `Store`.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables` with `mnist` and `first_epoch`, each of the form of the table `noise`.
    """
    how = {"executor": executor, "workers": workers, "show_progress": show_progress}
    whole, first = (run_noise_study(name, store, **how) for name in (profile, f"{profile}-first-epoch"))
    return Tables({"mnist": whole.noise, "first_epoch": first.noise}, whole.about)


def _noise(profile: NoiseProfile, runs: pd.DataFrame, store: Store, how: dict) -> pd.DataFrame:
    """Random batches against the full gradient, at the start and after each number of epochs."""
    options = {
        "batch_sizes": list(profile.batch_sizes),
        "n_batches": profile.n_batches,
        "start_of": min(profile.epochs),
    }
    measure_runs(store, runs["hash"], "noise", of_runs.measure_noise, **how, **options)
    code = code_of(of_runs.measure_noise)
    measured = [(store.load(run), store.load_measurement(run, "noise", options, code=code)) for run in runs["hash"]]
    labels = {name: getattr(profile, name) for name in ("dataset", "model", "trained_at")}
    return of_runs.to_table(measured).assign(**labels)


def _epochs(profile: NoiseProfile, store: Store, how: dict) -> pd.DataFrame:
    """How steady runs of a few epochs are at many batch sizes, and how far they go."""
    runs = run_sweep(profile.curve_grid(), store=store, **how)
    curves = to_frame(map(store.load, runs["hash"]), curves=True)
    return steadiness.add_steadiness(runs, curves, after=profile.curve_epochs / 3)


def _tails(profile: NoiseProfile, store: Store, how: dict) -> pd.DataFrame:
    """What a last batch of one does to the validation loss, and what becomes of it if it is dropped."""
    runs = run_sweep(profile.tail_grid(), store=store, **how)
    kept, dropped = (runs[runs["last_batch"] == kind] for kind in ("keep", "drop"))
    curves = to_frame(map(store.load, kept["hash"]), curves=True)
    per_epoch = int(kept["updates_per_epoch"].iloc[0])
    effects = steadiness.effect_of_last_batches(curves, per_epoch=per_epoch)
    ratio = kept.set_index("seed")["val_loss"] / dropped.set_index("seed")["val_loss"]
    last = effects["epoch"] == effects["epoch"].max()
    first = kept.iloc[0]
    labels = {name: first[name] for name in ("dataset", "model")} | {
        "n": first["n_train"],
        "trained_at": first["batch"],
    }
    return effects.assign(**labels, kept_by_dropped=effects["seed"].map(ratio).where(last))


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _surface(profile: NoiseProfile, store: Store, how: dict) -> pd.DataFrame:
    """How far the loss is a bowl: around linear units, and around a net with kinks and a smooth one, before and after.

    In float64, or at short steps rounding would look like a curve.
    """
    data = load_dataset(profile.dataset, train_size=profile.train_size)
    targets = np.eye(data.meta["num_classes"])[data.y_train]
    places: list[tuple[str, int, float, Objective, list]] = []
    for seed in range(profile.seeds):
        model = build_model(linear_units, data, seed=seed, precision="float64")
        f = Objective(model, data.x_train, targets, "mean_squared_error", metrics=())
        places.append(("linear", seed, 0.0, f, f.weights))
    for net, builder in {"ReLU": profile.model, "tanh": f"{__name__}:{tanh_mlp.__name__}"}.items():
        f = objective_of(build_model(builder, data, seed=0, precision="float64"), data)
        runs = run_sweep(profile.surface_grid(builder), store=store, **how)
        for record in map(store.load, runs["hash"]):
            places.append((net, record.cell.seed, 0.0, f, record.weights["initial"]))
            places.append((net, record.cell.seed, record.final["epoch"], f, record.weights["final"]))
    rows = []
    with progress.report("surface", len(places), show=how["show_progress"]) as advance:
        for net, seed, epoch, f, weights in places:
            found = taylor_residuals(f, weights, profile.radii, n_directions=profile.surface_directions, seed=seed)
            place = {"net": net, "seed": seed, "epoch": epoch}
            rows += [{**place, "radius": r, "residual": value} for r, value in zip(profile.radii, found, strict=True)]
            advance()
    labels = {"dataset": profile.dataset, "model": profile.model, "n": data.n_train, "trained_at": profile.trained_at}
    return pd.DataFrame(rows).assign(**labels)


def linear_units(data: Data) -> keras.Model:
    """One linear unit a class."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(data.meta["num_classes"])]
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), *layers])


def tanh_mlp(data: Data) -> keras.Model:
    """The `mlp`, with tanh in place of ReLU."""
    layers = [keras.layers.Dense(units, "tanh", kernel_initializer="he_normal") for units in (128, 64)]
    last = keras.layers.Dense(data.meta["num_classes"], kernel_initializer="he_normal")
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), keras.layers.Flatten(), *layers, last])


def _paths(profile: NoiseProfile, store: Store, how: dict) -> dict[str, pd.DataFrame]:
    """The ways of full batch, mini-batch and single examples over a bowl of two weights, and over that of the net.

    Every point of a way is a run of its own, which repeats the updates of the one before.
    """
    ways, surfaces = [], []
    for net, (dataset, builder) in PATHS.items():
        builder = builder or profile.model
        data = load_dataset(dataset or profile.dataset, train_size=profile.train_size)
        f = objective_of(build_model(builder, data, seed=0), data)
        grid = profile.path_grid(dataset or profile.dataset, builder)
        runs = run_sweep(grid, store=store, **how)
        records = [store.load(run) for run in runs["hash"]]
        starts = [record for record in records if record.final["updates"] == 1]
        weights = [record.weights["initial"] for record in starts] + [record.weights["final"] for record in records]
        points = np.array([f.flatten(point) for point in weights])
        plane = descent.plane_of(points)
        way = pd.DataFrame(plane.coordinates(points), columns=["a", "b"])
        way["batch"] = [record.facts["batch"] for record in [*starts, *records]]
        way["updates"] = [0] * len(starts) + [record.final["updates"] for record in records]
        way["loss"] = [f(point) for point in weights]
        ways.append(way.assign(net=net, share=plane.share, n=data.n_train, learning_rate=runs["learning_rate"].iloc[0]))
        margin = 0.25 * (way[["a", "b"]].max() - way[["a", "b"]].min())
        reach = [(way[axis].min() - margin[axis], way[axis].max() + margin[axis]) for axis in ("a", "b")]
        surface = descent.loss_on_plane(f, plane, weights[0], reach=reach, points=profile.plane_points)
        surfaces.append(surface.assign(net=net))
    return {"paths": pd.concat(ways, ignore_index=True), "planes": pd.concat(surfaces, ignore_index=True)}


def two_features():
    """A regression on two inputs: the first two principal components of the digits, and whether a digit is below 5."""
    digits = load_dataset("digits")
    x, y = (np.concatenate([digits.split(part)[i] for part in ("train", "val", "test")]) for i in (0, 1))
    x = x.reshape(len(x), -1).astype(np.float64)
    x = (x - x.mean(axis=0)) @ np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:2].T
    x = x / x.std() * np.array([1.0, 0.5])
    target = np.where(y < 5, 1.0, -1.0)[:, None]
    return (x[:1200].astype(np.float32), target[:1200]), (x[1200:].astype(np.float32), target[1200:])


def two_weights(data: Data) -> keras.Model:
    """A linear neuron with two weights and squared error, far from its minimum."""
    start = keras.initializers.Constant([[-1.5], [2.5]])
    model = keras.Sequential(
        [keras.Input(data.x_train.shape[1:]), keras.layers.Dense(1, use_bias=False, kernel_initializer=start)]
    )
    model.compile("sgd", "mean_squared_error")
    return model


PATHS = {
    "two weights": (f"{__name__}:{two_features.__name__}", f"{__name__}:{two_weights.__name__}"),
    "net": (None, None),
}
"""Data and model of the ways over the surface; None for those of the profile."""


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def _cost(profile: NoiseProfile) -> pd.DataFrame:
    """Seconds of the full gradient of a convex and of a non-convex loss, on more and more examples."""
    data = load_dataset(profile.dataset, train_size=profile.train_size)
    builders = {"softmax regression": linear_units, "net": profile.model}
    nets = {name: build_model(builder, data, seed=0) for name, builder in builders.items()}
    rng = np.random.default_rng(0)
    rows = {n: rng.integers(0, data.n_train, n) for n in profile.costs_of}
    objectives = {
        name: [Objective(net, data.x_train[take], data.y_train[take], metrics=()) for take in rows.values()]
        for name, net in nets.items()
    }
    found = timing.gradient_seconds(objectives)
    return found.assign(epoch=0.0, dataset=profile.dataset, convex=found["net"] == "softmax regression")
