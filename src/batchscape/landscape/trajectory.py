"""The trajectory of training: weights kept along `fit`, and the plane on which most of their path lies."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from batchscape.errors import InvalidInput
from batchscape.landscape import files
from batchscape.landscape.digest import digest
from batchscape.landscape.objective import Objective
from batchscape.train.record import Weights

NO_SPREAD = 1e-10
"""Distances below this share of all of them, ‖rest‖ / ‖M‖, are rounding: no axis is taken from them."""


class _Kept(NamedTuple):
    """Weights with their place along training (epochs or updates, as they are looked at) and the updates before them."""

    place: int
    updates: int
    weights: Weights


class WeightsCallback(keras.callbacks.Callback):
    """A callback that keeps weights along `fit`: the first, the last, and evenly spaced ones between them.

    Whenever there would be more than `most`, every other one is dropped and the spacing doubles, so that a long training
    costs no more memory than a short one. Several calls of `fit` with one callback are one training.

    Args:
        every: `"epoch"`, to look at the end of each epoch, or a number of updates, int ≥ 1. With
            `steps_per_execution` > 1, Keras calls callbacks only between executions, so weights may be taken up to
            `steps_per_execution - 1` updates late.
        most: How many to keep at most, the first and the last included, int ≥ 2.

    Attributes:
        weights: Copies of what `model.get_weights()` returned, in their order. The last are those that the last update left:
            what a callback restores, or an optimizer averages, at the end is none of them.
        updates: For each of them, the updates before it, as the optimizer counts them; batches where it counts none.

    Raises:
        InvalidInput: For an `every` or a `most` that is none, and in `fit` for a model that is not built.

    Example:
        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits", train_size=100)
        >>> model = bs.build_model("mlp", data, seed=0)
        >>> model.compile("sgd", "sparse_categorical_crossentropy")
        >>> kept = WeightsCallback(every=1, most=5)
        >>> _ = model.fit(data.x_train, data.y_train, batch_size=10, callbacks=[kept], verbose=0)
        >>> kept.updates
        [0, 4, 8, 10]
    """

    def __init__(self, *, every: int | str = "epoch", most: int = 32):
        super().__init__()
        if every != "epoch" and not (isinstance(every, int | np.integer) and every >= 1):
            raise InvalidInput(f'every must be "epoch" or an integer ≥ 1. Received: every={every!r}')
        if not (isinstance(most, int | np.integer) and most >= 2):
            raise InvalidInput(f"most must be an integer ≥ 2. Received: most={most!r}")
        self._by_epoch, self._most = every == "epoch", most
        self._spacing = 1 if self._by_epoch else every
        self._kept: list[_Kept] = []
        self._end: _Kept | None = None
        self._epochs, self._batches, self._last_batch = 0, 0, -1
        self._offset, self._counts_from = 0, 0

    def __repr__(self) -> str:
        path = self._path()
        span = f", updates {path[0].updates} to {path[-1].updates}" if path else ""
        return f"WeightsCallback({len(path)} of at most {self._most} weights{span})"

    @property
    def weights(self) -> list[Weights]:
        """The weights kept."""
        return [kept.weights for kept in self._path()]

    @property
    def updates(self) -> list[int]:
        """The updates before each of them."""
        return [kept.updates for kept in self._path()]

    def on_train_begin(self, logs=None):
        """Keep the first weights; when `fit` is called again, count on from the last."""
        if not _is_built(self.model):  # `fit` would make the weights and update them in one go.
            raise InvalidInput(
                "The first weights can be kept of a model that is built before `fit`, by keras.Input or a call on a batch. "
                f"Received: {self.model.name}, not built"
            )
        done = [kept.updates for kept in (*self._kept, self._end) if kept]
        self._counts_from = self._iterations()
        self._offset = max(done, default=0) - self._counts_from
        if not self._kept:
            self._kept.append(self._now(0))

    def on_epoch_begin(self, epoch, logs=None):
        """Batches are counted from 0 in each epoch."""
        self._last_batch = -1

    def on_train_batch_end(self, batch, logs=None):
        """Look at the weights, if they are looked at within epochs."""
        self._batches += batch - self._last_batch
        self._last_batch = batch
        if not self._by_epoch:
            self._look(self._updates())

    def on_epoch_end(self, epoch, logs=None):
        """Look at the weights, and keep them apart: they may be the last."""
        self._epochs += 1
        place = self._epochs if self._by_epoch else self._updates()
        self._look(place)
        same = self._kept[-1].updates == self._updates()
        self._end = self._kept[-1] if same else self._now(place)

    def _look(self, place: int) -> None:
        """Keep the weights if they are the first in a stretch of the spacing, once there is room for them."""
        if not self._is_due(place):
            return
        while len(self._kept) >= self._most:
            self._spacing *= 2
            self._kept = _first_in_each(self._kept, self._spacing)
        if self._is_due(place):
            self._kept.append(self._now(place))

    def _is_due(self, place: int) -> bool:
        return place // self._spacing > self._kept[-1].place // self._spacing

    def _path(self) -> list[_Kept]:
        """What is kept, and the last of all behind it."""
        kept, end, spacing = self._kept, self._end, self._spacing
        if end is None or end.updates <= kept[-1].updates:
            return kept
        while len(kept) >= self._most:
            spacing *= 2
            kept = _first_in_each(kept, spacing)
        return [*kept, end]

    def _now(self, place: int) -> _Kept:
        return _Kept(place, self._updates(), [np.array(weight) for weight in self.model.get_weights()])

    def _updates(self) -> int:
        """Updates since the first call of `fit`; batches where a model trains without its optimizer."""
        now = self._iterations()
        return now + self._offset if now != self._counts_from else max(self._batches, now + self._offset)

    def _iterations(self) -> int:
        optimizer = getattr(self.model, "optimizer", None)
        return 0 if optimizer is None else int(optimizer.iterations)


def _is_built(model: keras.Model) -> bool:
    """Whether the weights exist; a model with a `train_step` of its own may never be called, so that its parts tell."""
    return model.built or (bool(model.layers) and all(layer.built for layer in model.layers))


def _first_in_each(kept: Sequence[_Kept], spacing: int) -> list[_Kept]:
    """The first of those that share a stretch of the spacing."""
    stretches = [-1, *(one.place // spacing for one in kept)]
    return [one for one, before, here in zip(kept, stretches, stretches[1:], strict=False) if here > before]


@dataclasses.dataclass(frozen=True, repr=False)
class Trajectory(files.Result):
    """The paths of training runs on a plane w* + a·d₁ + b·d₂ through an origin w*; N checkpoints in all.

    Attributes:
        directions: d₁ and d₂, orthonormal, float64, shape (2, p): coordinates are distances.
        explained: What each axis holds of the squared distances from the origin, Σ_t ((w_t − w*)·d_k)² / Σ_t ‖w_t − w*‖²,
            over the checkpoints of all runs. The second moment is taken about w*, not about the mean.
        names: Of the runs.
        lengths: Checkpoints of each run.
        points: (a, b) of all checkpoints, run after run, float64, shape (N, 2).
        point_losses: The loss of each checkpoint itself, not of its place on the plane, float64, shape (N,).
        distances: ‖w_t − (w* + a·d₁ + b·d₂)‖₂, how far each of them lies from the plane, float64, shape (N,).
        about: Model, data, origin and directions (digests), policies, versions.
    """

    directions: np.ndarray
    explained: tuple[float, float]
    names: tuple[str, ...]
    lengths: tuple[int, ...]
    points: np.ndarray
    point_losses: np.ndarray
    distances: np.ndarray
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        shares = " and ".join(f"{share:.1%}" for share in self.explained)
        counts = f"{len(self.names)} runs, {len(self.points)} checkpoints"
        return f"Trajectory({counts}, axes hold {shares}, at most {self.distances.max():.4g} off the plane)"

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """(a, b) of the checkpoints of each run, shape (n, 2), by name."""
        return self._by_run(self.points)

    @property
    def losses(self) -> dict[str, np.ndarray]:
        """The loss of each checkpoint itself, shape (n,), by name."""
        return self._by_run(self.point_losses)

    @property
    def off_plane(self) -> dict[str, np.ndarray]:
        """The distance of each checkpoint from the plane, shape (n,), by name."""
        return self._by_run(self.distances)

    def grids(self, points: int = 25, margin: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates a and b for `evaluate_plane` that hold all checkpoints, with the same step along both axes.

        Args:
            points: Points along the longer side, int ≥ 3; the shorter one has at least 3.
            margin: What to show beyond the checkpoints, as a share of the longer side, ≥ 0.
        """
        if points < 3 or not 0 <= margin < np.inf:
            raise InvalidInput(f"points must be ≥ 3 and margin ≥ 0. Received: points={points}, margin={margin}")
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        longer = (high - low).max() or 1.0
        beyond, step = margin * longer, (1 + 2 * margin) * longer / (points - 1)
        a, b = (_grid(start - beyond, end + beyond, step) for start, end in zip(low, high, strict=True))
        return a, b

    def _by_run(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.names, np.split(values, np.cumsum(self.lengths)[:-1]), strict=True))


def trajectory_plane(
    f: Objective, runs: Mapping[str, Sequence[Weights]], *, origin: Weights | None = None
) -> Trajectory:
    """The principal plane of training trajectories: it holds most of their paths (Li et al. 2018, arXiv 1712.09913).

    Section 7.2 of that paper.

    The axes are the right singular vectors of M = [w_0 − w*; …; w_n − w*], stacked over all runs: of all planes through w*,
    the one from which the squared distances of the checkpoints add up to the least. They are found from the matrix M·Mᵀ,
    shape (N, N). The paper writes M so; a PCA that subtracts the mean of its rows, as scikit-learn's does in the code of its
    authors, turns the axes and gives other shares. A run with more checkpoints counts for more.

    Two axes hold much of any long way, and are no evidence of a simple one: of a random walk with many steps in many
    dimensions they hold 8/π² and 8/(9π²), 81 % and 9 %, as seen from its end; 61 % and 15 % about its mean (Antognini and
    Sohl-Dickstein 2018, arXiv 1806.08805).

    Losses are those of the checkpoints themselves, with their own moments of BatchNorm unless the objective estimates them
    anew; on the plane, as `evaluate_plane` shows it, the moments are those of the origin.

    Args:
        f: The objective.
        runs: A list of weights for each run, in their order, by its name; `WeightsCallback.weights` is one. All of them are
            held as float64 at once: 8·N·p bytes.
        origin: w*; the last weights of the first run where it is None.

    Returns:
        A `Trajectory`; where the checkpoints lie on a line through w*, the second axis is a random one across it.

    Raises:
        InvalidInput: For no run, a run without checkpoints, one checkpoint in all, checkpoints that are all equal, not finite,
            or of another model, and for a model of one parameter.

    Example:
        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits", train_size=100)
        >>> f = bs.Objective(bs.build_model("mlp", data, seed=0), data.x_train, data.y_train)
        >>> steps = [[weight * scale for weight in f.weights] for scale in (1.0, 0.8, 0.5)]
        >>> np.round(trajectory_plane(f, {"a line": steps}).explained, 6)
        array([1., 0.])
    """
    runs = _checked(f, runs)
    origin = next(iter(runs.values()))[-1] if origin is None else origin
    start = f.flatten(origin)
    if not np.isfinite(start).all():
        raise InvalidInput("The origin, or the end of the first run, must be finite. Received: NaN or infinity")
    rest = np.array([f.flatten(weights) - start for run in runs.values() for weights in run])
    _check_spread(rest, runs)
    squares = np.sum(np.square(rest))
    directions, points = _principal_plane(rest)
    return Trajectory(
        directions=directions,
        explained=tuple(float(share) for share in np.sum(np.square(points), axis=0) / squares),
        names=tuple(runs),
        lengths=tuple(len(run) for run in runs.values()),
        points=points,
        point_losses=np.array([f(weights) for run in runs.values() for weights in run]),
        distances=np.linalg.norm(rest, axis=1),
        about={**f.about(origin), "directions": digest([directions])},
    )


def _checked(f: Objective, runs: Mapping[str, Sequence[Weights]]) -> dict[str, list[Weights]]:
    """Runs as lists by their names as text."""
    if not isinstance(runs, Mapping) or not runs:
        received = type(runs).__name__ if not isinstance(runs, Mapping) else "no run"
        raise InvalidInput(f"runs must map the names of one or more runs to lists of weights. Received: {received}")
    runs = {str(name): list(run) for name, run in runs.items()}
    lengths = {name: len(run) for name, run in runs.items()}
    if not all(lengths.values()) or sum(lengths.values()) < 2:
        raise InvalidInput(f"Each run needs a checkpoint, and a plane two or more in all. Received: {lengths}")
    if f.n_parameters < 2:
        raise InvalidInput(f"A plane needs two or more parameters. Received: {f.n_parameters}")
    return runs


def _check_spread(differences: np.ndarray, runs: Mapping[str, list[Weights]]) -> None:
    broken = int((~np.isfinite(differences).all(axis=1)).sum())
    if broken:
        raise InvalidInput(f"Checkpoints must be finite. Received: NaN or infinity, in {broken} of {len(differences)}")
    if not (differences != differences[0]).any():
        raise InvalidInput(
            f"Checkpoints must differ to span a plane. Received: {len(differences)} equal ones, of {', '.join(runs)}"
        )


def _principal_plane(rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two right singular vectors, shape (2, p), and the coordinates, shape (N, 2), of rows of shape (N, p).

    What the first holds is taken away before the second is sought: in M·Mᵀ, where singular values stand squared, a second one
    of 1e-8 of the first would drown. `rest` is left with what neither holds.
    """
    least = NO_SPREAD * np.linalg.norm(rest)
    directions, points = np.zeros((2, rest.shape[1])), np.zeros((len(rest), 2))
    for axis in range(2):
        if np.linalg.norm(rest) > least:
            _, vectors = np.linalg.eigh(rest @ rest.T)
            direction = vectors[:, -1] @ rest
        else:
            direction = np.random.default_rng(0).normal(size=rest.shape[1])
        for _ in range(2):  # Once leaves what rounding left of the first axis.
            direction = direction - (direction @ directions[0]) * directions[0]
            direction /= np.linalg.norm(direction)
        along = rest @ direction
        sign = 1.0 if along[np.abs(along).argmax()] >= 0 else -1.0  # The farthest checkpoint is on the positive side.
        directions[axis], points[:, axis] = sign * direction, sign * along
        for row, share in zip(rest, along, strict=True):
            row -= share * direction
    return directions, points


def _grid(low: float, high: float, step: float) -> np.ndarray:
    """Points of one step around the middle of an interval, 3 or more, that reach its ends."""
    n = max(int(np.ceil((high - low) / step * (1 - 1e-12))) + 1, 3)
    half = max(high - low, (n - 1) * step) / 2
    return (low + high) / 2 + np.linspace(-half, half, n)
