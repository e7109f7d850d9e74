"""Planes in the space of weights: around one solution, or through three of them."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from batchscape.errors import InvalidInput, StoreError
from batchscape.landscape import directions as along
from batchscape.landscape import files
from batchscape.landscape.digest import digest
from batchscape.landscape.objective import Objective
from batchscape.system import atomic, progress
from batchscape.system.damaged import DAMAGED
from batchscape.train.record import Weights

SECONDS_BETWEEN_SAVES = 5.0
"""A plane that is being evaluated is written at most this often: all of the file is compressed anew each time."""


@dataclasses.dataclass(frozen=True, repr=False)
class Plane(files.Result):
    """Loss and accuracy on a plane of weights, w + a·d₁ + b·d₂.

    Attributes:
        a, b: Coordinates along the two directions, float64, shapes (columns,) and (rows,).
        loss: Mean loss, float64, shape (rows, columns): `loss[i, j]` stands at `a[j]`, `b[i]`. NaN and infinity stay.
        accuracy: Share of right classes, or NaN, of the same shape.
        norms: ‖d₁‖₂ and ‖d₂‖₂: a distance is a coordinate times its norm.
        cosine: Between the directions.
        marks: (a, b) of points to show, by name.
        about: How it was made: norms, seeds, policies, digest of the data, versions.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    norms: tuple[float, float]
    cosine: float
    marks: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        finite = self.loss[np.isfinite(self.loss)]
        span = f"losses {finite.min():.4g} to {finite.max():.4g}" if finite.size else "no finite loss"
        lost = self.loss.size - finite.size
        return f"Plane({len(self.b)} × {len(self.a)} points, {span}{f', {lost} not finite' if lost else ''})"


def evaluate_plane(
    f: Objective,
    weights: Weights,
    directions: np.ndarray,
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    marks: dict[str, tuple[float, float]] | None = None,
    file: str | os.PathLike | None = None,
    about: dict[str, Any] | None = None,
    show_progress: bool = True,
) -> Plane:
    """Evaluate the loss and the accuracy on a plane: a grid of points w + a·d₁ + b·d₂.

    Args:
        f: The objective.
        weights: The origin, w; moments of BatchNorm are its own, unless the objective estimates them anew.
        directions: d₁ and d₂, shape (2, p): `random_directions`, eigenvectors, or differences of solutions.
        a, b: Coordinates, any finite numbers, in any order.
        marks: (a, b) of points to show, by name.
        file: An `.npz` file to save the rows in while they are done, every few seconds; after an interruption the same call
            goes on from there.
        about: What else to keep with the result, such as the seed of the directions.
        show_progress: Whether to show progress.

    Returns:
        A `Plane`.

    Raises:
        InvalidInput: For an empty grid, directions that are none, or a file of another plane.
        StoreError: If the file cannot be read or written.

    Example:
        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits", train_size=100)
        >>> f = bs.Objective(bs.build_model("mlp", data, seed=0), data.x_train, data.y_train)
        >>> plane = evaluate_plane(f, f.weights, bs.random_directions(f, f.weights), [-1, 0, 1], [0], show_progress=False)
        >>> plane.loss.shape, bool(abs(plane.loss[0, 1] - f(f.weights)) < 1e-6)
        ((1, 3), True)
    """
    directions = along.check_directions(f, directions)
    a, b = (_coordinates(values, name) for values, name in ((a, "a"), (b, "b")))
    if len(directions) != 2:
        raise InvalidInput(f"A plane needs two directions. Received: {len(directions)}")
    plane = Plane(
        a=a,
        b=b,
        loss=np.full((len(b), len(a)), np.nan),
        accuracy=np.full((len(b), len(a)), np.nan),
        norms=tuple(float(norm) for norm in np.linalg.norm(directions, axis=1)),
        cosine=float(along.cosines(directions)[0, 1]),
        marks=marks or {},
        about={**f.about(weights), "directions": digest([directions]), **(about or {})},
    )
    done = _rows_done(plane, file)
    if file is not None and not done.all():
        atomic.require_writable(files.npz(file))
    values_at = f.along(weights, directions)
    unsaved, saved_at = False, time.monotonic()
    try:
        with progress.report("plane", len(b) - done.sum(), show=show_progress) as advance:
            for row in np.flatnonzero(~done):
                values = values_at(np.column_stack([a, np.full(len(a), b[row])]))
                plane.loss[row], plane.accuracy[row] = values["loss"], values.get("accuracy", np.nan)
                done[row] = unsaved = True
                if file is not None and time.monotonic() - saved_at >= SECONDS_BETWEEN_SAVES:
                    files.save(plane, file, done=done)
                    unsaved, saved_at = False, time.monotonic()
                advance()
    finally:  # After Ctrl-C too.
        if file is not None and unsaved:
            files.save(plane, file, done=done)
    return plane


def plane_through(
    f: Objective,
    solutions: dict[str, Weights],
    *,
    points: int = 25,
    margin: float = 0.25,
    file: str | os.PathLike | None = None,
    show_progress: bool = True,
) -> Plane:
    """Evaluate the plane through three solutions, each of them marked (Garipov et al. 2018, arXiv 1802.10026, section 3).

    The first is the origin, the first axis runs to the second, and the axes are at right angles, of unit length: the picture
    shows true distances.

    Args:
        f: The objective; `batch_norm="reestimate"` suits nets with BatchNorm, for no moments are right between solutions.
        solutions: Three sets of weights, by name.
        points: Points along the longer side.
        margin: What to show beyond the solutions, as a share of their extent.
        file, show_progress: See `evaluate_plane`.
    """
    if len(solutions) != 3:
        raise InvalidInput(f"A plane goes through three solutions. Received: {len(solutions)}")
    if points < 2 or not margin >= 0:
        raise InvalidInput(f"points must be ≥ 2, and margin ≥ 0. Received: points={points}, margin={margin}")
    origin, *others = solutions.values()
    spans = along.difference_directions(f, origin, *others)
    first = spans[0] / np.linalg.norm(spans[0])
    rest = spans[1] - (spans[1] @ first) * first
    if not np.linalg.norm(rest) > 1e-6 * np.linalg.norm(spans[1]):
        raise InvalidInput("Three solutions on one line span no plane. Received: weights that lie on a line")
    axes = np.array([first, rest / np.linalg.norm(rest)])
    places = np.vstack([np.zeros(2), spans @ axes.T])
    low, high = places.min(axis=0), places.max(axis=0)
    step = (1 + 2 * margin) * (high - low).max() / (points - 1)
    grids = [
        np.arange(start - margin * (end - start), end + (margin + 1e-9) * (end - start), step)
        for start, end in zip(low, high, strict=True)
    ]
    marks = {name: (float(x), float(y)) for name, (x, y) in zip(solutions, places, strict=True)}
    return evaluate_plane(f, origin, axes, *grids, marks=marks, file=file, show_progress=show_progress)


def _rows_done(plane: Plane, file: str | os.PathLike | None) -> np.ndarray:
    """Which rows of a plane a file holds, bool, shape (rows,); they are copied into the plane."""
    done = np.zeros(len(plane.b), bool)
    if file is None or not files.npz(file).exists():
        return done
    arrays, fields = files.read(file)
    try:
        kept = {name: np.asarray(arrays.get(name, fields.get(name))) for name in ("a", "b", "norms")}
        rows = arrays.get("done", np.ones(len(plane.b), bool)).astype(bool)
        values = {name: arrays[name][rows] for name in ("loss", "accuracy")}
    except DAMAGED as error:
        raise StoreError(f"{file} is no readable result of batchscape.") from error
    same = all(np.array_equal(value, np.asarray(getattr(plane, name))) for name, value in kept.items())
    if not same or fields.get("about") != json.loads(json.dumps(plane.about, default=files.plain_number)):
        raise InvalidInput(
            f"{file} holds another plane (other coordinates, directions, weights or data); choose another file."
        )
    done |= rows
    plane.loss[done], plane.accuracy[done] = values["loss"], values["accuracy"]
    return done


def _coordinates(values, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    if not values.size or not np.isfinite(values).all():
        raise InvalidInput(f"{name} must be one or more finite numbers. Received: {values}")
    return values
