"""Lines in the space of weights: between two sets of weights, or along a direction."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from batchscape.errors import InvalidInput, unknown_name
from batchscape.landscape.digest import digest
from batchscape.landscape.directions import check_directions
from batchscape.landscape.files import Result
from batchscape.landscape.objective import Objective
from batchscape.train.record import Weights

PATHS = {
    "straight": lambda alphas: (1 - alphas, alphas),
    "curved": lambda alphas: (_exact(np.cos(alphas * np.pi / 2)), _exact(np.sin(alphas * np.pi / 2))),
}
"""Shares of the two ends at each position."""


@dataclasses.dataclass(frozen=True, repr=False)
class Line(Result):
    """Loss and accuracy on a line of weights, (1 − α)·a + α·b, or w + α·d.

    Attributes:
        alphas: Positions, float64, shape (points,); 0 is the first end, 1 the second.
        loss: Mean loss at each of them; NaN and infinity stay as they are.
        accuracy: Share of right classes, or NaN where targets are no labels.
        end_losses: Loss at α = 0 and at α = 1.
        distance: ‖b − a‖₂, or ‖d‖₂, over trainable weights.
        about: Model, data, weights at α = 0 and at α = 1 or direction (digests), path, policies, versions.
    """

    alphas: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    end_losses: tuple[float, float]
    distance: float
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def barrier(self) -> float:
        """The loss barrier: max over α in [0, 1] of L(α) − ((1 − α) L(0) + α L(1)), at least 0 (Frankle et al. 2020).

        NaN where no position lies between the ends.
        """
        inside = (self.alphas >= 0) & (self.alphas <= 1)
        if not ((self.alphas > 0) & (self.alphas < 1)).any():
            return np.nan
        alphas, (start, end) = self.alphas[inside], self.end_losses
        return float(np.max(self.loss[inside] - ((1 - alphas) * start + alphas * end), initial=0.0))

    def widths(self, *, at: int = 0, factor: float = 2.0, level: float | None = None) -> tuple[float, float]:
        """The widths of the basin of an end, to the left and to the right.

        Args:
            at: The end, 0 or 1.
            factor: The basin ends where the loss is this many times that of the end.
            level: The loss where it ends, in place of `factor`.

        Returns:
            Distances |Δα|, linear between positions; infinite where the loss does not get there on this line, NaN where the
            end itself lies above.
        """
        level = factor * self.end_losses[at] if level is None else level
        if not self.end_losses[at] <= level:
            return np.nan, np.nan
        order = np.argsort(self.alphas)
        steps, loss = self.alphas[order] - at, self.loss[order]
        left, right = steps < 0, steps > 0
        return (
            _first_crossing(-steps[left][::-1], loss[left][::-1], self.end_losses[at], level),
            _first_crossing(steps[right], loss[right], self.end_losses[at], level),
        )

    def __repr__(self) -> str:
        ends = " and ".join(f"{loss:.4g}" for loss in self.end_losses)
        return f"Line({len(self.alphas)} points, losses {ends} at the ends, barrier {self.barrier:.4g})"


def interpolate(
    f: Objective,
    weights_a: Weights,
    weights_b: Weights,
    alphas: Sequence[float] | np.ndarray,
    *,
    path: str = "straight",
) -> Line:
    """Evaluate the loss and the accuracy on the line through two sets of weights.

    Args:
        f: The objective, on training or on test data; it says what becomes of the moments of BatchNorm.
        weights_a: Weights at α = 0.
        weights_b: Weights at α = 1.
        alphas: Positions, any finite numbers, shape (points ≥ 1,).
        path: `"straight"`: (1 − α)·a + α·b (Goodfellow et al. 2015); `"curved"`: cos(απ/2)·a + sin(απ/2)·b, the other
            parametric plot of Keskar et al. 2017.

    Returns:
        A `Line`.

    Raises:
        InvalidInput: If there are no positions, one is not finite, or weights do not fit the model.
    """
    if path not in PATHS:
        raise unknown_name("path", path, PATHS)
    alphas = _positions(alphas)
    distance = float(np.linalg.norm(f.flatten(weights_b) - f.flatten(weights_a)))
    shares = np.stack(PATHS[path](np.concatenate([alphas, [0.0, 1.0]])), axis=1)
    values = f.evaluate_between([weights_a, weights_b], shares)
    other = digest([np.asarray(weight) for weight in weights_b])
    return _line(alphas, values, distance, {**f.about(weights_a), "weights_b": other, "path": path})


def slice_along(f: Objective, weights: Weights, direction: np.ndarray, alphas: Sequence[float] | np.ndarray) -> Line:
    """Evaluate the loss and the accuracy along a direction: w + α·d.

    Args:
        f: The objective.
        weights: Where the line starts, w; other variables, such as the moments of BatchNorm, are its own.
        direction: d, shape (p,).
        alphas: Positions, any finite numbers, shape (points ≥ 1,).

    Returns:
        A `Line`.
    """
    alphas = _positions(alphas)
    direction = check_directions(f, direction)[0]
    positions = np.concatenate([alphas, [0.0, 1.0]])
    values = f.evaluate_along(weights, direction[None], positions[:, None])
    about = {**f.about(weights), "directions": digest([direction[None]])}
    return _line(alphas, values, float(np.linalg.norm(direction)), about)


def _line(alphas: np.ndarray, values: dict[str, np.ndarray], distance: float, about: dict[str, Any]) -> Line:
    """A line from the values at its positions, and at 0 and 1 after them."""
    loss, accuracy = values["loss"], values.get("accuracy", np.full(len(alphas) + 2, np.nan))
    ends = float(loss[-2]), float(loss[-1])
    return Line(alphas, loss[:-2], accuracy[:-2], end_losses=ends, distance=distance, about=about)


def _positions(alphas) -> np.ndarray:
    alphas = np.asarray(alphas, dtype=np.float64).ravel()
    if not alphas.size or not np.isfinite(alphas).all():
        raise InvalidInput(f"alphas must be one or more finite numbers. Received: {alphas}")
    return alphas


def _exact(values: np.ndarray) -> np.ndarray:
    """Rounded to 15 places, so that the ends are the ends."""
    return np.round(values, 15)


def _first_crossing(steps: np.ndarray, loss: np.ndarray, start: float, level: float) -> float:
    """The step at which a loss first leaves a level, from the positions at growing distances; NaN counts as above."""
    before, below = 0.0, start
    for step, value in zip(steps, loss, strict=True):
        if not value <= level:
            part = (level - below) / (value - below) if np.isfinite(value) else 1.0
            return float(before + part * (step - before))
        before, below = step, value
    return np.inf
