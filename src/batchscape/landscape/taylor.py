"""Taylor residuals: the error of the second-order Taylor polynomial of the loss along random directions."""

from collections.abc import Sequence

import numpy as np

from batchscape.errors import InvalidInput
from batchscape.landscape.objective import Objective
from batchscape.train.record import Weights


def taylor_residuals(
    f: Objective, weights: Weights, radii: Sequence[float], *, n_directions: int = 50, seed: int = 0
) -> np.ndarray:
    """The relative error of the second-order Taylor polynomial q(r) = f(w) + r g·d + r²/2 dᵀHd of the loss f(w + r d).

    The error is relative to the second-order term.

    For a loss that is quadratic in the weights, as the squared error of a linear neuron, it is zero at every radius.

    Args:
        f: The objective.
        weights: Where to expand, w.
        radii: Steps, as shares of ‖w‖₂, > 0.
        n_directions: Number of random unit vectors d, int ≥ 1.
        seed: Seed of the directions.

    Returns:
        √mean (f(w + r d) − q(r))² ÷ √mean (r²/2 dᵀHd)², means over directions, float64, shape (radii,).

    Raises:
        InvalidInput: For radii that are not positive, no direction, or weights that are all zero.
    """
    radii = np.asarray(radii, np.float64)
    center = f.flatten(weights)
    norm = np.linalg.norm(center)
    if not (radii > 0).all() or n_directions < 1 or not norm > 0:
        raise InvalidInput(
            "Taylor residuals need radii > 0, n_directions ≥ 1 and weights that are not all zero. "
            f"Received: radii={radii}, n_directions={n_directions}, ‖w‖={norm}"
        )
    directions = np.random.default_rng(seed).normal(size=(n_directions, f.n_parameters))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    value, slopes = f(weights), directions @ f.gradient(weights)
    curvatures = np.sum(f.hessian_products(weights, directions) * directions, axis=1)
    residuals = []
    for radius in radii * norm:
        values = np.array([f(f.unflatten(center + radius * direction, weights)) for direction in directions])
        curved = radius**2 / 2 * curvatures
        residuals.append(np.sqrt(np.mean((values - value - radius * slopes - curved) ** 2) / np.mean(curved**2)))
    return np.array(residuals)
