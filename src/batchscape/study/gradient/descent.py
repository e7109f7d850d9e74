"""The way that training goes over the error surface, seen on the plane that shows most of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscape.landscape.objective import Objective
from batchscape.train.record import Weights


@dataclasses.dataclass(frozen=True)
class Plane:
    """A plane through a center: center + a·u + b·v, with orthonormal u and v.

    Attributes:
        center: float64, shape (p,).
        directions: u and v, float64, shape (2, p).
        share: The share of the spread of the points that lies in it.
    """

    center: np.ndarray
    directions: np.ndarray
    share: float

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """(a, b) of points, shape (n, p) -> shape (n, 2)."""
        return (points - self.center) @ self.directions.T


def plane_of(points: np.ndarray) -> Plane:
    """The plane of the first two principal components of points.

    Args:
        points: float64, shape (n ≥ 2, p ≥ 2).

    Example:
        >>> plane = plane_of(np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
        >>> round(plane.share, 6)
        1.0
    """
    center = points.mean(axis=0)
    _, spreads, directions = np.linalg.svd(points - center, full_matrices=False)
    return Plane(center, directions[:2], float(np.sum(spreads[:2] ** 2) / np.sum(spreads**2)))


def loss_on_plane(
    f: Objective, plane: Plane, weights: Weights, *, reach: Sequence[tuple[float, float]], points: int = 31
) -> pd.DataFrame:
    """The loss on a grid of a plane.

    Args:
        f: The objective.
        plane: The plane.
        weights: Weights that give what is not trained.
        reach: (low, high) of a and of b.
        points: Points a side.

    Returns:
        One row a point: `a`, `b` and `loss`.
    """
    rows = [
        (a, b, f(f.unflatten(plane.center + np.array([a, b]) @ plane.directions, weights)))
        for b in np.linspace(*reach[1], points)
        for a in np.linspace(*reach[0], points)
    ]
    return pd.DataFrame(rows, columns=["a", "b", "loss"])
