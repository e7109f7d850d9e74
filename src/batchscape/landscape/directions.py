"""Directions in the space of weights, and their scale."""

from collections.abc import Sequence

import numpy as np

from batchscape.errors import InvalidInput, unknown_name
from batchscape.landscape.objective import Objective
from batchscape.train.record import Weights

NORMALISATIONS = ("filter", "layer", "weight", "none")


def random_directions(
    f: Objective, weights: Weights, n: int = 2, *, normalize: str = "filter", biases: bool = False, seed: int = 0
) -> np.ndarray:
    """Gaussian directions, scaled like the weights (Li et al. 2018, arXiv 1712.09913, section 4).

    Args:
        f: The objective.
        weights: Where they start.
        n: How many, int ≥ 1.
        normalize: See `normalize_directions`.
        biases: Whether biases and the parameters of normalisers move too.
        seed: Seed of the draw.

    Returns:
        Directions, float64, shape (n, p).

    Example:
        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits", train_size=100)
        >>> f = bs.Objective(bs.build_model("mlp", data, seed=0), data.x_train, data.y_train)
        >>> random_directions(f, f.weights, 2).shape
        (2, 17226)
    """
    if n < 1:
        raise InvalidInput(f"n must be an integer ≥ 1. Received: n={n}")
    drawn = np.random.default_rng(seed).normal(size=(n, f.n_parameters))
    return normalize_directions(f, weights, drawn, normalize=normalize, biases=biases)


def normalize_directions(
    f: Objective, weights: Weights, directions: np.ndarray, *, normalize: str = "filter", biases: bool = False
) -> np.ndarray:
    """Scale directions like the weights: filter, layer or weight normalisation.

    Args:
        f: The objective.
        weights: The weights.
        directions: Shape (n, p) or (p,).
        normalize: `"filter"`: each unit, as `filters.unit_axes` says, has the norm it has in the weights; `"layer"`: each
            variable has; `"weight"`: each entry is multiplied by its weight; `"none"`: as they are. A unit of zeros, in the
            weights or in the direction, does not move.
        biases: Whether biases and the parameters of normalisers move too, each variable as one unit.

    Returns:
        Directions, float64, shape (n, p).

    Raises:
        InvalidInput: For an unknown name, directions of another shape, that are not finite, or that do not move.
    """
    if normalize not in NORMALISATIONS:
        raise unknown_name("normalize", normalize, NORMALISATIONS)
    directions = check_directions(f, directions)
    at = f.split_by_variable(f.flatten(weights))
    scaled = np.array([_scaled(f, at, direction, normalize, biases=biases) for direction in directions])
    return check_directions(f, scaled)


def check_directions(f: Objective, directions: np.ndarray) -> np.ndarray:
    """Directions as float64, shape (n, p), checked: finite, not all zeros, of the shape of the parameters."""
    directions = np.atleast_2d(np.asarray(directions, np.float64))
    if directions.ndim != 2 or directions.shape[1] != f.n_parameters:
        raise InvalidInput(f"Directions must have shape (n, {f.n_parameters}). Received: {directions.shape}")
    norms = np.linalg.norm(directions, axis=1)
    if not np.isfinite(norms).all() or not norms.all():
        raise InvalidInput(f"A direction must be finite and not all zeros. Received: norms {norms}")
    return directions


def difference_directions(f: Objective, weights: Weights, *others: Weights) -> np.ndarray:
    """The differences of other weights from the given ones, as directions, float64, shape (others, p)."""
    return check_directions(f, [f.flatten(other) - f.flatten(weights) for other in others])


def cosines(directions: np.ndarray) -> np.ndarray:
    """Cosines between directions, shape (n, p) -> (n, n)."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return unit @ unit.T


def _scaled(
    f: Objective, at: Sequence[np.ndarray], direction: np.ndarray, normalize: str, *, biases: bool
) -> np.ndarray:
    parts = []
    for axes, shape, weight, part in zip(
        f.unit_axes, f.variable_shapes, at, f.split_by_variable(direction), strict=True
    ):
        weight, part = weight.reshape(shape), part.reshape(shape)
        if axes is None and not biases:
            part = np.zeros(shape)
        elif normalize == "weight":
            part = part * weight
        elif normalize != "none":
            within = axes if axes is not None and normalize == "filter" else None
            size, wanted = (np.sqrt(np.sum(a * a, axis=within, keepdims=True)) for a in (part, weight))
            part = part * np.divide(wanted, size, out=np.zeros_like(size), where=size > 0)
        parts.append(part.ravel())
    return np.concatenate(parts)
