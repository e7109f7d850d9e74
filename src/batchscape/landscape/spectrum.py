"""The density of the eigenvalues of the Hessian, by stochastic Lanczos quadrature."""

import dataclasses
from typing import Any

import numpy as np
from scipy import linalg

from batchscape.errors import InvalidInput
from batchscape.landscape.files import Result
from batchscape.landscape.hessian import Products, products_at
from batchscape.landscape.objective import Objective
from batchscape.system import cores
from batchscape.train.record import Weights


@dataclasses.dataclass(frozen=True, repr=False)
class SpectralDensity(Result):
    """The density of the eigenvalues of the Hessian, as a quadrature rule for each of several random vectors.

    The mean over vectors of Σ weight · g(node) estimates tr g(H) / p for any function g.

    Attributes:
        nodes: Eigenvalues of the tridiagonal matrices, float64, shape (vectors, steps).
        weights: Their weights, which add up to 1 for each vector, of the same shape.
        n_parameters: p.
        about: Model, data and weights (digests), block, seed, policies, versions.
    """

    nodes: np.ndarray
    weights: np.ndarray
    n_parameters: int
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        n_vectors, steps = self.nodes.shape
        mean, stderr = self.mean_of(lambda values: values * self.n_parameters)
        span = f"eigenvalues {self.nodes.min():.4g} to {self.nodes.max():.4g}"
        return f"SpectralDensity({n_vectors} vectors of {steps} steps, {span}, trace {mean:.4g} ± {stderr:.1g})"

    def mean_of(self, function) -> tuple[float, float]:
        """Tr g(H) / p with its standard error over vectors."""
        sums = np.sum(self.weights * function(self.nodes), axis=1)
        return float(sums.mean()), float(sums.std(ddof=1) / np.sqrt(len(sums))) if len(sums) > 1 else np.nan

    def density(self, values: np.ndarray, width: float) -> np.ndarray:
        """The density at some eigenvalues, each node a Gaussian of standard deviation `width`; shape (values,)."""
        values = np.asarray(values, np.float64)
        if not width > 0:
            raise InvalidInput(f"width must be > 0. Received: width={width}")
        bumps = np.exp(-0.5 * ((values[:, None, None] - self.nodes) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        return np.sum(bumps * self.weights, axis=2).mean(axis=1)

    def n_above(self, values: np.ndarray) -> np.ndarray:
        """How many eigenvalues exceed each of some values, float64, shape (values,); an estimate, so not whole."""
        beyond = self.nodes > np.asarray(values, np.float64)[:, None, None]
        return self.n_parameters * np.sum(beyond * self.weights, axis=2).mean(axis=1)


@cores.one_blas_thread
def spectral_density(
    f: Objective, weights: Weights, *, n_vectors: int = 8, steps: int = 60, block: str | None = None, seed: int = 0
) -> SpectralDensity:
    """The density of all eigenvalues of the Hessian of the mean loss (Ghorbani et al. 2019, arXiv 1901.10159, algorithm 1).

    Args:
        f: The objective.
        weights: Where to take the Hessian.
        n_vectors: Number of random vectors, int ≥ 1; they go in lock step, so that their products share forward passes.
        steps: Lanczos steps of each.
        block: See `hessian_eigenvalues`.
        seed: Seed of the vectors.

    Returns:
        A `SpectralDensity`.
    """
    products, inside = products_at(f, weights, block)
    n = int(inside.sum())
    nodes, shares = lanczos_quadrature(products, n, n_vectors=n_vectors, steps=min(steps, n), seed=seed)
    return SpectralDensity(nodes, shares, n, {**f.about(weights), "block": block, "seed": seed})


def lanczos_quadrature(
    products: Products, n: int, *, n_vectors: int, steps: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss quadrature with the spectral measure of random unit vectors, shapes (n_vectors, steps).

    Lanczos with full reorthogonalisation; a node is an eigenvalue of the tridiagonal matrix, its weight the square of the
    first entry of the eigenvector (Golub and Meurant 2010, section 6). A vector that meets an invariant subspace has it found:
    the rest of its nodes get a weight of zero.
    """
    if n_vectors < 1 or not 1 <= steps <= n:
        raise InvalidInput(f"n_vectors must be ≥ 1 and steps in 1..{n}. Received: n_vectors={n_vectors}, steps={steps}")
    rng = np.random.default_rng(seed)
    basis = np.zeros((steps, n_vectors, n))
    diagonal, off_diagonal = np.zeros((n_vectors, steps)), np.zeros((n_vectors, steps))
    vectors = rng.choice([-1.0, 1.0], size=(n_vectors, n)) / np.sqrt(n)
    for step in range(steps):
        basis[step] = vectors
        rest = products(vectors)
        diagonal[:, step] = np.sum(vectors * rest, axis=1)
        for _ in range(2):  # Twice is enough.
            rest = rest - np.einsum("srn,sr->rn", basis[: step + 1], np.einsum("srn,rn->sr", basis[: step + 1], rest))
        beta = np.linalg.norm(rest, axis=1)
        going = beta > 1e-10 * np.abs(diagonal).max(initial=1e-300)
        off_diagonal[:, step] = np.where(going, beta, 0)
        vectors = np.where(going[:, None], rest / np.where(going, beta, 1)[:, None], 0)
    found = [
        linalg.eigh_tridiagonal(diagonal[vector], off_diagonal[vector, : steps - 1])
        if steps > 1
        else (diagonal[vector], [[1.0]])
        for vector in range(n_vectors)
    ]
    return np.array([values for values, _ in found]), np.array([np.square(states[0]) for _, states in found])
