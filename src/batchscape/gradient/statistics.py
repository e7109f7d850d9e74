"""Statistics of the gradients of examples and of mini-batches at one set of weights.

With gᵢ the gradient of example i, G their mean over all N examples and Σ = (1/N) Σᵢ (gᵢ − G)(gᵢ − G)ᵀ their covariance,
the mean gradient g_B of a random batch of B examples has

    E‖g_B − G‖² = tr Σ / B · (N − B) / (N − 1)

without replacement, as an epoch draws them, and tr Σ / B with replacement.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from batchscape.errors import InvalidInput
from batchscape.landscape.files import Result
from batchscape.landscape.objective import Objective
from batchscape.train.record import Weights


@dataclasses.dataclass(frozen=True, repr=False)
class GradientStatistics(Result):
    """Statistics of the gradients of all examples at one set of weights: their mean and their covariance, traces and norms.

    Attributes:
        gradient: G, the gradient of the mean loss, float64, shape (p,).
        norms: ‖gᵢ‖₂ of every example, float64, shape (n,).
        layers: Names of the trainable variables, in the order of the model.
        layer_grad_sq_norms: ‖G‖² of each of them, shape (layers,).
        layer_trace_covs: tr Σ of each of them, shape (layers,).
        about: Model, data and weights (digests), policies, versions.
    """

    gradient: np.ndarray
    norms: np.ndarray
    layers: tuple[str, ...]
    layer_grad_sq_norms: np.ndarray
    layer_trace_covs: np.ndarray
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of examples, N."""
        return len(self.norms)

    @property
    def grad_sq_norm(self) -> float:
        """The squared norm of the full gradient, ‖G‖²."""
        return float(self.layer_grad_sq_norms.sum())

    @property
    def trace_cov(self) -> float:
        """The trace of the covariance of the gradients of examples, tr Σ."""
        return float(self.layer_trace_covs.sum())

    @property
    def simple(self) -> float:
        """B_simple = tr Σ / ‖G‖², the batch whose noise is as large as the gradient (McCandlish et al. 2018, eq. 2.9)."""
        return simple_noise_scale(self.trace_cov, self.grad_sq_norm)

    def variance(self, batch_size: int, *, replacement: bool = False) -> float:
        """E‖g_B − G‖² of a random batch."""
        return self.trace_cov * noise_share(batch_size, self.n, replacement=replacement)

    def relative_error(self, batch_size: int, *, replacement: bool = False) -> float:
        """E‖g_B − G‖² / ‖G‖² of a random batch."""
        return self.simple * noise_share(batch_size, self.n, replacement=replacement)

    def __repr__(self) -> str:
        return (
            f"GradientStatistics({self.n} examples: ‖G‖² = {self.grad_sq_norm:.4g}, tr Σ = {self.trace_cov:.4g}, "
            f"B_simple = {self.simple:.4g})"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class BatchGradients(Result):
    """The gradients of random mini-batches of one size at one set of weights, against the full gradient.

    Attributes:
        batch_size: B.
        replacement: Whether batches were drawn with replacement.
        relative_errors: ‖g_B − G‖² / ‖G‖², shape (batches,).
        cosines: Cosine of the angle between g_B and G, shape (batches,).
        angles: Angle between one batch's gradient and the next one's, in degrees, shape (batches − 1,).
        norms: ‖g_B‖, shape (batches,).
        competition: κ = ‖g_B‖ / mean ‖gᵢ‖ over the batch, in 0..1; 1 where all examples pull the same way.
        about: Model, data and weights (digests), seed, policies, versions.
    """

    batch_size: int
    replacement: bool
    relative_errors: np.ndarray
    cosines: np.ndarray
    angles: np.ndarray
    norms: np.ndarray
    competition: np.ndarray
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"BatchGradients({len(self.norms)} batches of {self.batch_size}: relative error "
            f"{self.relative_errors.mean():.4g}, cosine {self.cosines.mean():.4g}, κ = {self.competition.mean():.4g})"
        )


def simple_noise_scale(trace_cov: float, grad_sq_norm: float) -> float:
    """B_simple = tr Σ / ‖G‖²; infinite where there is no gradient."""
    return trace_cov / grad_sq_norm if grad_sq_norm else math.inf


def noise_share(batch_size: int, n: int, *, replacement: bool = False) -> float:
    """E‖g_B − G‖² / tr Σ: 1 / B with replacement, (N − B) / (B (N − 1)) without.

    Example:
        >>> noise_share(10, 1000, replacement=True), noise_share(1000, 1000), noise_share(1, 1000)
        (0.1, 0.0, 1.0)
    """
    _check_batch_size(batch_size, n)
    return 1 / batch_size if replacement or n == 1 else (n - batch_size) / (batch_size * (n - 1))


def gradient_statistics(f: Objective, weights: Weights) -> GradientStatistics:
    """The mean and the covariance (trace, norms) of the gradients of all examples, exactly.

    Per-example gradients are made in blocks and never kept: memory is bounded by `derivatives.BLOCK_BYTES`.

    Args:
        f: The objective.
        weights: Where to take the gradients.

    Returns:
        `GradientStatistics`.

    Example:
        A law: a batch of everything has no noise.

        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits", train_size=50)
        >>> f = bs.Objective(bs.build_model("mlp", data, seed=0), data.x_train, data.y_train)
        >>> gradient_statistics(f, f.weights).variance(50)
        0.0
    """
    total, squares = f.example_gradient_sums(weights)
    n = len(squares)
    gradient = total / n
    layer_grad_sq_norms = np.array([np.sum(part**2) for part in f.split_by_variable(gradient)])
    return GradientStatistics(
        gradient=require_finite(gradient),
        norms=np.sqrt(squares.sum(axis=1)),
        layers=f.variable_names,
        layer_grad_sq_norms=layer_grad_sq_norms,
        # A difference of two sums may end a rounding error below zero where all gradients are equal.
        layer_trace_covs=np.maximum(squares.mean(axis=0) - layer_grad_sq_norms, 0.0),
        about=f.about(weights),
    )


def batch_gradients(
    f: Objective,
    weights: Weights,
    batch_size: int,
    *,
    n_batches: int = 100,
    replacement: bool = False,
    seed: int = 0,
    statistics: GradientStatistics | None = None,
) -> BatchGradients:
    """Compare the gradients of random mini-batches with the full gradient and with each other.

    Args:
        f: The objective.
        weights: Where to take the gradients.
        batch_size: B, int in 1..n.
        n_batches: Number of batches, int ≥ 1.
        replacement: Whether the examples of a batch are drawn with replacement.
        seed: Seed of the batches.
        statistics: What `gradient_statistics` gave here, to save it being computed again.

    Returns:
        `BatchGradients`.

    Raises:
        InvalidInput: For a batch size outside 1..n, fewer than one batch, or gradients that are not finite.
    """
    statistics = statistics or gradient_statistics(f, weights)
    _check_batch_size(batch_size, statistics.n)
    if not isinstance(n_batches, (int, np.integer)) or n_batches < 1:
        raise InvalidInput(f"n_batches must be an integer ≥ 1. Received: n_batches={n_batches}")
    rng = np.random.default_rng(seed)
    rows = np.array([rng.choice(statistics.n, batch_size, replace=replacement) for _ in range(n_batches)])
    gradients = require_finite(f.batch_gradients(weights, rows))
    norms = np.linalg.norm(gradients, axis=1)
    full, full_norm = statistics.gradient, np.sqrt(statistics.grad_sq_norm)
    return BatchGradients(
        batch_size=batch_size,
        replacement=replacement,
        relative_errors=_ratio(np.sum((gradients - full) ** 2, axis=1), full_norm**2),
        cosines=_ratio(gradients @ full, norms * full_norm),
        angles=np.degrees(
            np.arccos(np.clip(_ratio(np.sum(gradients[1:] * gradients[:-1], axis=1), norms[1:] * norms[:-1]), -1, 1))
        ),
        norms=norms,
        competition=_ratio(norms, statistics.norms[rows].mean(axis=1)),
        about={**f.about(weights), "seed": seed},
    )


def _ratio(above, below) -> np.ndarray:
    """Above / below, NaN where both are zero: an angle with a gradient of zero is no number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above) / np.asarray(below)


def require_finite(gradients: np.ndarray) -> np.ndarray:
    """The gradients, none of them NaN or infinite."""
    if not np.isfinite(gradients).all():
        raise InvalidInput("Gradient statistics need finite gradients. Received: NaN or infinity among them")
    return gradients


def _check_batch_size(batch_size: int, n: int) -> None:
    if not isinstance(batch_size, (int, np.integer)) or not 1 <= batch_size <= n:
        raise InvalidInput(f"batch_size must be an integer in 1..{n}, the number of examples. Received: {batch_size}")
