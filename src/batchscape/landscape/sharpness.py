"""Sharpness: the rise of the loss near a minimum, by the measures of the literature."""

import dataclasses
from typing import Any

import numpy as np
from scipy import optimize

from batchscape.errors import InvalidInput, unknown_name
from batchscape.landscape.files import Result
from batchscape.landscape.objective import Objective
from batchscape.system import cores
from batchscape.train.record import Weights

KINDS = ("worst", "sam", "average")


@dataclasses.dataclass(frozen=True, repr=False)
class Sharpness(Result):
    """The sharpness of a minimum by one measure, with its repeats.

    Attributes:
        values: One value a repeat: another start, subspace, or draw; float64, shape (repeats,).
        loss: The loss at the weights themselves.
        measure: What was measured, in words.
        converged: Whether every search ended by itself, or its last tenth raised the value by less than one percent; true
            where nothing was searched.
        n_evaluations: Evaluations of the loss spent, most of them with its gradient.
        about: Model, data and weights (digests), seed, policies, versions.
    """

    values: np.ndarray
    loss: float
    measure: str
    converged: bool
    n_evaluations: int
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def value(self) -> float:
        """The mean over repeats."""
        return float(self.values.mean())

    @property
    def spread(self) -> float:
        """The standard deviation over repeats; NaN for one."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else np.nan

    def __repr__(self) -> str:
        spread = f" ± {self.spread:.1g} (n = {len(self.values)})" if len(self.values) > 1 else ""
        note = "" if self.converged else ", search not converged"
        return f"Sharpness({self.value:.4g}{spread}: {self.measure}; {self.n_evaluations} evaluations{note})"


@cores.one_blas_thread
def keskar_sharpness(
    f: Objective,
    weights: Weights,
    *,
    epsilon: float = 1e-3,
    subspace: int | None = None,
    max_iterations: int | None = 10,
    repeats: int = 1,
    seed: int = 0,
) -> Sharpness:
    """Keskar's sharpness: the largest rise of the loss in a box, in percent (Keskar et al. 2017, arXiv 1609.04836).

    Metric 2.1: φ = 100 (max f(x + Ay) − f(x)) / (1 + f(x)) over |yᵢ| ≤ ε (|(A⁺x)ᵢ| + 1), where A is the identity or a random
    p × k matrix with independent standard normal entries, and A⁺ its pseudo-inverse. The maximum is sought by L-BFGS-B.

    Args:
        f: The objective; the published one is the training loss on all examples.
        weights: The minimum, x.
        epsilon: ε > 0; published: 1e-3 and 5e-4.
        subspace: k, published: 100; None for the full space.
        max_iterations: Iterations of L-BFGS-B, published: 10; None to go on until it converges.
        repeats: Searches, each from a random point of the box and, with `subspace`, with an A of its own.
        seed: Seed of both.

    Returns:
        A `Sharpness`, its values in percent. A search gives a lower bound: ten iterations may stop short of the maximum.

    Raises:
        InvalidInput: For numbers out of range, or weights whose loss is not finite.
    """
    if not epsilon > 0 or repeats < 1 or (max_iterations is not None and max_iterations < 1):
        raise InvalidInput(
            "keskar_sharpness needs epsilon > 0, repeats ≥ 1 and max_iterations ≥ 1 or None. "
            f"Received: epsilon={epsilon}, repeats={repeats}, max_iterations={max_iterations}"
        )
    if subspace is not None and not 1 <= subspace <= f.n_parameters:
        raise InvalidInput(
            f"subspace must be an integer in 1..{f.n_parameters}, the number of parameters. Received: subspace={subspace}"
        )
    x, loss = f.flatten(weights), _finite_loss(f, weights)
    values, converged, n_evaluations = [], True, 0
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        basis = None if subspace is None else rng.standard_normal((f.n_parameters, subspace), np.float32)
        box = epsilon * (np.abs(x if basis is None else _pseudo_inverse_times(basis, x)) + 1)

        def negative_loss(y, basis=basis):
            value, gradient = f.value_and_gradient(f.unflatten(x + (y if basis is None else basis @ y), weights))
            return -value, -(gradient if basis is None else gradient @ basis)

        found = optimize.minimize(
            negative_loss,
            rng.uniform(-box, box),
            jac=True,
            method="L-BFGS-B",
            bounds=optimize.Bounds(-box, box),
            options={"maxiter": max_iterations or 15_000, "maxfun": 100_000},
        )
        values.append(100 * (-float(found.fun) - loss) / (1 + loss))
        converged &= bool(found.success)
        n_evaluations += int(found.nfev)
    space = "full space" if subspace is None else f"random subspaces of {subspace} dimensions"
    search = "until it converges" if max_iterations is None else f"{max_iterations} iterations"
    return Sharpness(
        values=np.array(values),
        loss=loss,
        measure=f"Keskar's Metric 2.1 in percent, ε = {epsilon:g}, {space}, L-BFGS-B {search}",
        converged=converged,
        n_evaluations=n_evaluations,
        about={**f.about(weights), "seed": seed},
    )


@cores.one_blas_thread
def rho_sharpness(
    f: Objective,
    weights: Weights,
    *,
    rho: float = 0.05,
    kind: str = "worst",
    adaptive: bool = False,
    eta: float = 0.0,
    examples: int | None = None,
    steps: int = 20,
    repeats: int = 10,
    seed: int = 0,
) -> Sharpness:
    """Sharpness within a radius ρ: the worst or the average rise of the loss around a minimum, plain or adaptive.

    Plain, the radius is ‖δ‖₂; adaptive, it is ‖δ / T‖₂ with T = |w| + η, so that a rescaling of units that leaves the function
    alone leaves the measure alone too, as long as η = 0 (Kwon et al. 2021, arXiv 2102.11600).

    Args:
        f: The objective.
        weights: The minimum, w.
        rho: ρ > 0. SAM takes 0.05, ASAM 0.5.
        kind: `"worst"`: max L(w + δ) − L(w) over the ball, by projected gradient ascent with steps so long that only their
            direction counts (the generalised power method of Journée et al. 2010: where the loss is convex each of them
            raises it; short steps stop far below the maximum, and the more so the sharper the minimum); `"sam"`: one such
            step, that of Foret et al. 2021 (arXiv 2010.01412), δ = ρ T²g / ‖Tg‖₂; `"average"`: the mean of
            L(w + δ) − L(w) over Gaussian δ whose entries have the standard deviation ρT (Andriushchenko et al. 2023, arXiv
            2302.07011).
        adaptive: Whether T = |w| + η; else T = 1.
        eta: η ≥ 0.
        examples: m, the examples that the maximum is sought on: the mean over `repeats` random subsets of m (m-sharpness);
            None for all of them at once.
        steps: Steps of the ascent.
        repeats: Draws of the average case; subsets, with `examples`. The worst case on all examples is sought once.
        seed: Seed of draws and subsets.

    Returns:
        A `Sharpness`, its values in units of the loss.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if not rho > 0 or not eta >= 0 or steps < 1 or repeats < 1:
        raise InvalidInput(
            "rho_sharpness needs rho > 0, eta ≥ 0, steps ≥ 1 and repeats ≥ 1. "
            f"Received: rho={rho}, eta={eta}, steps={steps}, repeats={repeats}"
        )
    if examples is not None and not 1 <= examples <= f.n_examples:
        raise InvalidInput(f"examples must be an integer in 1..{f.n_examples}. Received: examples={examples}")
    w, loss = f.flatten(weights), _finite_loss(f, weights)
    scale = np.abs(w) + eta if adaptive else np.ones_like(w)
    rng = np.random.default_rng(seed)
    subsets = [None] if examples is None else [rng.permutation(f.n_examples)[:examples] for _ in range(repeats)]
    if kind == "average":
        found = [_average_rise(f, weights, w, rho * scale, rows, rng, repeats) for rows in subsets]
        values = np.concatenate(found)
        converged, spent = True, len(values) + len(subsets)
    else:
        steps = steps if kind == "worst" else 1
        rises = [_worst_rise(f, weights, w, rho, scale, rows, steps) for rows in subsets]
        values = np.array([rise for rise, _ in rises])
        converged = kind == "sam" or all(settled for _, settled in rises)
        spent = len(subsets) * (steps + 1)
    ball = f"‖δ / (|w| + {eta:g})‖" if adaptive else "‖δ‖"
    radius = f"δ ~ N(0, ({'(|w| + η) ' if adaptive else ''}ρ)²)" if kind == "average" else f"{ball} ≤ ρ"
    on = "all examples" if examples is None else f"{examples} examples at a time"
    measure = f"{kind} rise of the loss, {radius}, ρ = {rho:g}, {on}"
    return Sharpness(values, loss, measure, converged, spent, about={**f.about(weights), "seed": seed})


def rescale_relu(f: Objective, weights: Weights, alpha: float, *, layer: int = 0) -> Weights:
    """Rescale a ReLU layer: multiply its kernel and bias by α and divide the kernel of the next layer by α.

    The function that the net computes stays, and its sharpness does not (Dinh et al. 2017, arXiv 1703.04933).

    Args:
        f: The objective of a stack of dense layers with ReLU in between.
        weights: The weights.
        alpha: α > 0.
        layer: Number of the layer.

    Returns:
        The new weights.

    Raises:
        InvalidInput: If α is not positive, or the loss changes, because the model is no such stack.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise InvalidInput(f"alpha must be a finite number > 0. Received: alpha={alpha}")
    parts = f.split_by_variable(f.flatten(weights))
    kernels = [place for place, axes in enumerate(f.unit_axes) if axes is not None]
    if not 0 <= layer < len(kernels) - 1:
        raise InvalidInput(f"layer must be an integer in 0..{len(kernels) - 2}. Received: layer={layer}")
    for place in range(kernels[layer], kernels[layer + 1]):
        parts[place] = parts[place] * alpha
    parts[kernels[layer + 1]] = parts[kernels[layer + 1]] / alpha
    rescaled = f.unflatten(np.concatenate(parts), weights)
    before, after = f(weights), f(rescaled)
    if not abs(after - before) <= 1e-3 * abs(before) + 1e-6:
        raise InvalidInput(
            "A rescaling leaves the loss alone where ReLU follows the layer, and a layer without normaliser that. "
            f"Received: a loss of {before:g} before and {after:g} after"
        )
    return rescaled


def _average_rise(f, weights, w, deviation, rows, rng, repeats) -> np.ndarray:
    loss = _loss_on(f, weights, rows)
    draws = (w + deviation * rng.standard_normal(len(w)) for _ in range(repeats))
    return np.array([_loss_on(f, f.unflatten(draw, weights), rows) for draw in draws]) - loss


def _worst_rise(f, weights, w, rho, scale, rows, steps) -> tuple[float, bool]:
    """The largest rise seen, and whether the last tenth of the steps raised it by less than one percent."""
    start, gradient = f.value_and_gradient(weights, rows)
    rises = [0.0]
    for _ in range(steps):
        slope = scale * gradient
        norm = np.linalg.norm(slope)
        if not norm > 0:  # A stationary point: there is no way up to be seen.
            return max(rises), False
        loss, gradient = f.value_and_gradient(f.unflatten(w + scale * (rho / norm) * slope, weights), rows)
        rises.append(loss - start)
    earlier = max(rises[: len(rises) - max(1, steps // 10)])
    return max(rises), max(rises) - earlier <= 0.01 * max(rises)


def _loss_on(f: Objective, weights: Weights, rows) -> float:
    return f(weights) if rows is None else f.value_and_gradient(weights, rows)[0]


def _finite_loss(f: Objective, weights: Weights) -> float:
    loss = f(weights)
    if not np.isfinite(loss):
        raise InvalidInput(f"Sharpness needs weights with a finite loss. Received: a loss of {loss}")
    return loss


def _pseudo_inverse_times(basis: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A⁺x for a matrix A of full column rank, by the normal equations; random tall matrices are well conditioned."""
    gram = basis.T.astype(np.float64) @ basis if len(basis) < 1e5 else np.float64(basis.T @ basis)
    return np.linalg.solve(gram, x @ basis)
