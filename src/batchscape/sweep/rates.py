"""Learning rates to try: even in the logarithm, as a grid or as a quasi-random draw."""

import numpy as np

from batchscape.errors import InvalidInput


def log_rates(low: float, high: float, n: int, *, seed: int | None = None) -> list[float]:
    """Rates between two bounds, evenly spread in the logarithm.

    Args:
        low, high: Bounds, 0 < low < high; a grid includes them.
        n: Number of rates, int ≥ 2.
        seed: None for a grid. An int ≥ 0 for a quasi-random draw instead, van der Corput's sequence with a random shift:
            another seed for another batch size tries other rates, so that no one spacing decides; n may grow later, the
            first rates stay.

    Returns:
        Rates of four digits; a grid rises, a draw stands in the order of its sequence.

    Raises:
        InvalidInput: If the bounds or n are not admissible.

    Example:
        >>> log_rates(0.01, 1, 5)
        [0.01, 0.03162, 0.1, 0.3162, 1.0]
        >>> log_rates(0.01, 1, 5, seed=3) == log_rates(0.01, 1, 9, seed=3)[:5]
        True
    """
    if not 0 < low < high < np.inf or n < 2:
        raise InvalidInput(f"Rates need 0 < low < high and n ≥ 2. Received: low={low}, high={high}, n={n}")
    if seed is None:
        shares = np.linspace(0, 1, n)
    else:
        shares = (np.array([_reflected(i) for i in range(n)]) + np.random.default_rng(seed).random()) % 1
    return [float(f"{low * (high / low) ** share:.4g}") for share in shares]


def _reflected(i: int) -> float:
    """The binary digits of i behind the point, in reverse: 1 → 0.5, 2 → 0.25, 3 → 0.75, ..."""
    return int(f"{i:b}"[::-1], 2) / 2 ** len(f"{i:b}")
