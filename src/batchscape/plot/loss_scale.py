"""The scale of the loss in pictures: its ends, its levels, and the round numbers beside it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import ticker

from batchscape.errors import InvalidInput


def limits_of(*shown: Any) -> tuple[float, float]:
    """The smallest and the largest finite loss of planes and trajectories, for pictures with one scale.

    Where no loss is negative and those above zero span a decade or more, it is the smallest above zero.
    """
    losses = losses_of(*shown)
    if not losses.size:
        raise InvalidInput("A picture of the loss needs a finite one. Received: none")
    above = losses[losses > 0]
    if losses.min() >= 0 and above.size and is_log(above.min(), above.max()):
        losses = above
    low, high = float(losses.min()), float(losses.max())
    return (low, high) if high > low else (low, low + 1e-3 * max(abs(low), 1.0))


def limits_in(limits: tuple[float, float] | None, plane: Any, trajectory: Any) -> tuple[float, float]:
    """The limits that are asked for, or those of what is shown."""
    found = limits_of(plane, *as_list(trajectory))
    if limits is None:
        return found
    if not -np.inf < limits[0] < limits[1] < np.inf:
        raise InvalidInput(f"limits must be two finite numbers that rise. Received: limits={limits}")
    return limits


def as_list(trajectory: Any) -> list[Any]:
    """`[trajectory]`, or `[]` if it is None."""
    return [] if trajectory is None else [trajectory]


def losses_of(*shown: Any) -> np.ndarray:
    """All finite losses of planes and trajectories."""
    losses = np.concatenate([np.ravel(one.loss if hasattr(one, "loss") else one.point_losses) for one in shown])
    return losses[np.isfinite(losses)]


def extend_of(low: float, high: float, *shown: Any) -> str:
    """At which end the losses go beyond a scale, as colour bars call it."""
    losses = losses_of(*shown)
    ends = bool((losses < low).any()), bool((losses > high).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[ends]


def is_log(low: float, high: float) -> bool:
    """Whether losses span a decade or more, all above zero."""
    return low > 0 and high >= 10 * low


def levels_of(low: float, high: float) -> np.ndarray:
    """Up to 18 round numbers from at most `low` to at least `high`."""
    if not is_log(low, high):
        return ticker.MaxNLocator(12).tick_values(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        levels = np.array([float(f"{part}e{decade}") for decade in decades for part in parts])
        first = np.searchsorted(levels, low, side="right") - 1
        levels = levels[first : np.searchsorted(levels, high) + 1]
        if len(levels) <= 18:
            return levels
    step = -(-len(levels) // 17)
    return 10.0 ** np.arange(decades[0], decades[-1] + step, step)


def few_of(levels: Sequence[float], most: int) -> list[float]:
    """Some of the levels: on a logarithmic scale 1, 2 and 5 of each decade, or 1, if that is few enough."""
    levels = [float(level) for level in levels]
    if len(levels) > most and is_log(levels[0], levels[-1]):
        for digits in ("125", "1"):
            chosen = [level for level in levels if f"{level:.1e}"[0] in digits and f"{level:.1e}"[2] == "0"]
            if 3 <= len(chosen) <= most:
                return chosen
    return levels[:: -(-len(levels) // most)]
