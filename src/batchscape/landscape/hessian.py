"""Eigenvalues and trace of the Hessian of the mean loss, from Hessian-vector products alone."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from scipy import linalg

from batchscape.errors import InvalidInput, unknown_name
from batchscape.landscape.files import Result
from batchscape.landscape.objective import Objective
from batchscape.system import cores
from batchscape.train.record import Weights

Products = Callable[[np.ndarray], np.ndarray]
"""Maps vectors, shape (k, p), to their products with a symmetric matrix, shape (k, p)."""


PROBES_AT_ONCE = 8
"""Random probes that exist at a time, as many as share a pass over the data."""


FIRST_ROWS = 16
"""Vectors that a basis has room for at first; twice as many whenever they do not suffice."""


@dataclasses.dataclass(frozen=True, repr=False)
class Eigenvalues(Result):
    """The largest eigenvalues of a symmetric operator.

    Attributes:
        values: Eigenvalues in falling order, float64, shape (k,).
        vectors: Unit eigenvectors as rows, float64, shape (k, p).
        residuals: Upper bounds of ‖Hv − λv‖₂, up to the rounding of the products, shape (k,).
        converged: Whether each residual is at most the tolerance times the largest |λ|, bool, shape (k,).
        n_products: Hessian-vector products spent.
        about: Model, data and weights (digests), block, which end of the spectrum, seed, policies, versions; of `lanczos`,
            which does not know them, nothing.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    n_products: int
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        pairs = ", ".join(
            f"{value:.5g} ± {residual:.1g}" for value, residual in zip(self.values, self.residuals, strict=True)
        )
        note = "" if self.converged.all() else ", NOT converged"
        return f"Eigenvalues({pairs}; {self.n_products} products{note})"


@dataclasses.dataclass(frozen=True, repr=False)
class TraceEstimate(Result):
    """The trace of a symmetric operator, estimated from random probes.

    Attributes:
        mean: The estimate.
        stderr: Its standard error, the standard deviation over probes divided by √n_probes.
        n_probes: Number of products spent.
        about: Model, data and weights (digests), block, method, seed, policies, versions; of `hutchinson_trace` and
            `hutchpp_trace`, which do not know them, nothing.
    """

    mean: float
    stderr: float
    n_probes: int
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"TraceEstimate({self.mean:.5g} ± {self.stderr:.2g}; {self.n_probes} products)"


@cores.one_blas_thread
def hessian_eigenvalues(
    f: Objective,
    weights: Weights,
    *,
    k: int = 1,
    which: str = "top",
    block: str | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
    seed: int = 0,
) -> Eigenvalues:
    """The k largest or smallest eigenvalues of the Hessian of the mean loss.

    Args:
        f: The objective.
        weights: Where to take the Hessian.
        k: How many eigenvalues, int in 1..p.
        which: `"top"`, or `"bottom"` for the smallest ones, the most negative first.
        block: Only the block of these variables: a layer or a variable, as in `f.variable_names`; eigenvectors are zero
            elsewhere.
        tolerance: Residual at which an eigenvalue counts as converged, relative to the largest |λ|.
        max_steps: Lanczos steps at most, but at least k.
        seed: Seed of the start vector.

    Returns:
        `Eigenvalues`, in units of the loss per squared weight.

    Example:
        >>> import batchscape as bs
        >>> data = bs.load_dataset("digits", train_size=100)
        >>> f = Objective(bs.build_model("mlp", data, seed=0), data.x_train, data.y_train)
        >>> top = hessian_eigenvalues(f, f.weights, k=2)
        >>> bool(top.values[0] >= top.values[1]), bool(top.converged.all())
        (True, True)
    """
    if which not in ("top", "bottom"):
        raise unknown_name("which", which, ("top", "bottom"))
    products, inside = products_at(f, weights, block)
    n = int(inside.sum())
    if not 1 <= k <= n:
        raise InvalidInput(f"k must be an integer in 1..{n}, the number of parameters. Received: k={k}")
    sign = 1 if which == "top" else -1
    found = lanczos(lambda z: sign * products(z), n, k=k, tolerance=tolerance, max_steps=max_steps, seed=seed)
    vectors = np.zeros((k, f.n_parameters))
    vectors[:, inside] = found.vectors
    about = {**f.about(weights), "which": which, "block": block, "tolerance": tolerance, "seed": seed}
    return dataclasses.replace(found, values=sign * found.values, vectors=vectors, about=about)


def lanczos(
    products: Products, n: int, *, k: int = 1, tolerance: float = 1e-3, max_steps: int = 200, seed: int = 0
) -> Eigenvalues:
    """The k largest eigenvalues of a symmetric operator, by Lanczos with full reorthogonalisation.

    Builds H V = V T + β v eᵀ + E with T tridiagonal and E what reorthogonalisation takes away, and stops when the residuals
    of the k largest eigenpairs (θ, s) of T, at most |β s_m| + Σ |s_j| ‖E_j‖, are small enough (Parlett 1998, The Symmetric
    Eigenvalue Problem, section 13.2). A multiple eigenvalue is found once, unless the basis runs into an invariant subspace.

    Args:
        products: Maps vectors, shape (k, n), to their products with the operator.
        n: Dimension.
        k, tolerance, max_steps, seed: See `hessian_eigenvalues`.

    Returns:
        `Eigenvalues`.
    """
    rng = np.random.default_rng(seed)
    basis = np.empty((FIRST_ROWS, n))
    basis[0] = _unit(rng.normal(size=n))
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    taken: list[float] = []  # ‖E_j‖
    while True:
        steps = len(diagonal) + 1
        known, newest = basis[:steps], basis[steps - 1]
        product = products(newest[None])[0]
        diagonal.append(float(newest @ product))
        rest = product - diagonal[-1] * newest
        if off_diagonal:
            rest -= off_diagonal[-1] * basis[steps - 2]
        rest, three_terms = _orthogonal_to(known, rest), rest
        taken.append(float(np.linalg.norm(three_terms - rest)))
        beta = float(np.linalg.norm(rest))
        values, states = linalg.eigh_tridiagonal(diagonal, off_diagonal)
        top = values.argsort()[::-1][:k]
        scale = np.abs(values).max()
        to_come = beta * np.abs(states[-1, top])  # What more steps would lessen.
        residuals = to_come + np.array(taken) @ np.abs(states[:, top])
        converged = residuals <= tolerance * scale
        found = converged | (to_come <= tolerance * scale / 2)
        if steps == min(n, max(max_steps, k)) or (steps >= k and found.all()):
            break
        if beta <= 1e-10 * scale:  # An invariant subspace: go on from a fresh direction.
            taken[-1] += beta
            rest, beta = _orthogonal_to(known, rng.normal(size=n)), 0.0
        if steps == len(basis):
            basis = np.concatenate([basis, np.empty_like(basis)])
        basis[steps] = _unit(rest)
        off_diagonal.append(beta)
    return Eigenvalues(
        values=values[top],
        vectors=states[:, top].T @ basis[:steps],
        residuals=residuals,
        converged=converged,
        n_products=steps,
    )


@cores.one_blas_thread
def hessian_trace(
    f: Objective,
    weights: Weights,
    *,
    n_probes: int = 64,
    method: str = "hutchinson",
    block: str | None = None,
    seed: int = 0,
) -> TraceEstimate:
    """The trace of the Hessian of the mean loss, or of the block of some variables, with its standard error.

    Args:
        f: The objective.
        weights: Where to take the Hessian.
        n_probes: Hessian-vector products to spend.
        method: `"hutchinson"` or `"hutch++"`; see `hutchinson_trace` and `hutchpp_trace`.
        block: See `hessian_eigenvalues`.
        seed: Seed of the probes.
    """
    if method not in TRACES:
        raise unknown_name("method", method, TRACES)
    products, inside = products_at(f, weights, block)
    estimate = TRACES[method](products, int(inside.sum()), n_probes=n_probes, seed=seed)
    return dataclasses.replace(estimate, about={**f.about(weights), "method": method, "block": block, "seed": seed})


def hutchinson_trace(products: Products, n: int, *, n_probes: int = 64, seed: int = 0) -> TraceEstimate:
    """Estimate the trace of a symmetric operator from random probes.

    tr H = E[zᵀHz] for z with independent entries ±1 (Hutchinson 1989, equation 5).

    Args:
        products: Maps vectors, shape (k, n), to their products with the operator.
        n: Dimension.
        n_probes: Number of probes, int ≥ 2 (two are needed for an error).
        seed: Seed of the probes, int ≥ 0.

    Returns:
        A `TraceEstimate`, in the unit of the operator.

    Raises:
        InvalidInput: If `n_probes` < 2.

    Example:
        The probes see a diagonal operator exactly:

        >>> hutchinson_trace(lambda z: z * [1.0, 2.0, 3.0], 3, n_probes=4)
        TraceEstimate(6 ± 0; 4 products)
    """
    if n_probes < 2:
        raise InvalidInput(f"n_probes must be an integer ≥ 2. Received: n_probes={n_probes}")
    samples = _quadratic_forms(products, _signs(np.random.default_rng(seed), n_probes, n))
    return TraceEstimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(n_probes)), n_probes)


def hutchpp_trace(products: Products, n: int, *, n_probes: int = 64, seed: int = 0) -> TraceEstimate:
    """Estimate the trace of a symmetric operator: exactly on what a sketch of it spans, from random probes elsewhere.

    tr H = tr QᵀHQ + tr (I − QQᵀ) H (I − QQᵀ), with Q an orthonormal basis of HS for random signs S (Meyer et al. 2021,
    arXiv 2010.09649, algorithm 1). It pays where a few eigenvalues hold most of the trace.

    Args:
        products: Maps vectors, shape (k, n), to their products with the operator.
        n: Dimension.
        n_probes: Products to spend, int ≥ 6: a third each on HS, on HQ and on the probes.
        seed: Seed of S and of the probes.

    Returns:
        A `TraceEstimate`; its error is that of the probes, for the first part has none.
    """
    if n_probes < 6:
        raise InvalidInput(f"n_probes must be an integer ≥ 6 for hutch++. Received: n_probes={n_probes}")
    rng = np.random.default_rng(seed)
    third = n_probes // 3
    sketch = np.concatenate([products(signs) for signs in _signs(rng, min(third, n), n)])
    basis = linalg.qr(sketch.T, mode="economic", overwrite_a=True)[0].T
    exact = float(np.sum(basis * products(basis)))
    probes = (signs - signs @ basis.T @ basis for signs in _signs(rng, n_probes - 2 * third, n))
    samples = _quadratic_forms(products, probes)
    spent = 2 * len(basis) + len(samples)
    return TraceEstimate(exact + float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples))), spent)


TRACES = {"hutchinson": hutchinson_trace, "hutch++": hutchpp_trace}


def _signs(rng: np.random.Generator, count: int, n: int) -> Iterator[np.ndarray]:
    """Vectors of random signs, `count` of them, in blocks of shape (PROBES_AT_ONCE or less, n)."""
    for first in range(0, count, PROBES_AT_ONCE):
        yield rng.choice([-1.0, 1.0], size=(min(PROBES_AT_ONCE, count - first), n))


def _quadratic_forms(products: Products, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """zᵀHz of every row z of some blocks."""
    return np.concatenate([np.sum(probes * products(probes), axis=1) for probes in blocks])


def products_at(f: Objective, weights: Weights, block: str | None) -> tuple[Products, np.ndarray]:
    """Products with the Hessian, or with a block of it, and which parameters that has, bool, shape (p,)."""
    if not all(np.isfinite(weight).all() for weight in weights):
        raise InvalidInput("The Hessian needs finite weights. Received: NaN or infinity among them")
    inside = np.concatenate(
        [
            np.full(int(np.prod(shape)), block is None or name == block or name.startswith(f"{block}/"))
            for name, shape in zip(f.variable_names, f.variable_shapes, strict=True)
        ]
    )
    if not inside.any():
        raise unknown_name("block", block, f.variable_names)
    if inside.all():
        return lambda vectors: f.hessian_products(weights, vectors), inside

    def products(vectors):
        whole = np.zeros((len(vectors), len(inside)))
        whole[:, inside] = vectors
        return f.hessian_products(weights, whole)[:, inside]

    return products, inside


def _orthogonal_to(basis: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The part of a vector orthogonal to the rows of an orthonormal basis.

    A second pass where the first has left less than half: twice is enough (Kahan, in Parlett 1998, section 6.9).
    """
    for _ in range(2):
        before = np.linalg.norm(vector)
        vector = vector - (basis @ vector) @ basis
        if np.linalg.norm(vector) > before / 2:
            break
    return vector


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
