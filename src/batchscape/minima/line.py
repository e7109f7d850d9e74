"""The straight line between two sets of weights."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from batchscape.errors import InvalidInput
from batchscape.minima.objective import Objective
from batchscape.record import Weights


@dataclasses.dataclass(frozen=True, repr=False)
class Line:
    """Loss and accuracy along (1 − α)·a + α·b.

    Attributes:
        alphas: Positions, float64, shape (points,); 0 is the first end, 1 the second.
        loss: Mean loss at each of them; NaN and infinity stay as they are.
        accuracy: Share of right classes, or NaN where targets are no labels.
        end_losses: Loss at α = 0 and at α = 1.
        distance: ‖b − a‖₂ over trainable weights.
    """

    alphas: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    end_losses: tuple[float, float]
    distance: float

    @property
    def barrier(self) -> float:
        """Max over α in [0, 1] of L(α) − ((1 − α) L(0) + α L(1)), at least 0 (Frankle et al. 2020, section 2).

        NaN where no position lies between the ends.
        """
        inside = (self.alphas >= 0) & (self.alphas <= 1)
        if not ((self.alphas > 0) & (self.alphas < 1)).any():
            return np.nan
        alphas, (start, end) = self.alphas[inside], self.end_losses
        return float(np.max(self.loss[inside] - ((1 - alphas) * start + alphas * end), initial=0.0))

    def __repr__(self) -> str:
        ends = " and ".join(f"{loss:.4g}" for loss in self.end_losses)
        return f"Line({len(self.alphas)} points, losses {ends} at the ends, barrier {self.barrier:.4g})"


def interpolate(f: Objective, weights_a: Weights, weights_b: Weights, alphas: Sequence[float] | np.ndarray) -> Line:
    """Evaluate a model on the straight line through two sets of weights.

    θ(α) = (1 − α)·a + α·b for all arrays of `get_weights()`, BatchNorm moments included (Goodfellow et al. 2015;
    the parametric plot of Keskar et al. 2017 takes α from −1 to 2).

    Args:
        f: The objective, on training or on test data.
        weights_a: Weights at α = 0.
        weights_b: Weights at α = 1.
        alphas: Positions, any finite numbers, shape (points ≥ 1,).

    Returns:
        A `Line`.

    Raises:
        InvalidInput: If there are no positions, one is not finite, or weights do not fit the model.
    """
    alphas = np.asarray(alphas, dtype=np.float64).ravel()
    if not alphas.size or not np.isfinite(alphas).all():
        raise InvalidInput(f"alphas must be one or more finite numbers. Received: {alphas}")
    distance = float(np.linalg.norm(f.flatten(weights_b) - f.flatten(weights_a)))
    points = [f.evaluate(_between(weights_a, weights_b, alpha)) for alpha in alphas]
    return Line(
        alphas=alphas,
        loss=np.array([point["loss"] for point in points]),
        accuracy=np.array([point.get("accuracy", np.nan) for point in points]),
        end_losses=(f(weights_a), f(weights_b)),
        distance=distance,
    )


def _between(a: Weights, b: Weights, alpha: float) -> Weights:
    if alpha in (0, 1):  # The ends themselves: 0 × NaN would let the other end in.
        return a if alpha == 0 else b
    return [
        ((1 - alpha) * np.asarray(u, np.float64) + alpha * np.asarray(v, np.float64)).astype(u.dtype)
        for u, v in zip(a, b, strict=True)
    ]
