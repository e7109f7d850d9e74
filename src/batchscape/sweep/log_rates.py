"""Learning rates to try: even in the logarithm, as a grid or as a quasi-random draw."""

import numpy as np

from batchscape.errors import InvalidInput


def log_rates(low: float, high: float, n: int, *, seed: int | None = None) -> list[float]:
    """Learning rates between two bounds, evenly spread in the logarithm.

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
        from scipy.stats import qmc  # Takes a second, and a profile without a draw needs none.

        sequence = qmc.Halton(d=1, scramble=False).random(n)[:, 0]  # In base 2: 0, 1/2, 1/4, 3/4, ...
        shares = (sequence + np.random.default_rng(seed).random()) % 1
    return [float(f"{low * (high / low) ** share:.4g}") for share in shares]
