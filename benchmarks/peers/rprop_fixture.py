"""Paths of PyTorch's Rprop, as the fixture of a test: on given gradients, and on Rosenbrock's valley.

    python benchmarks/peers/rprop_fixture.py [tests/fixtures/rprop_torch.npz]

It runs in an environment of its own, which has torch. PyTorch multiplies two gradients to see whether their sign has
changed, and sets the gradient to 0 where it has: iRprop−, in float64 with no weight decay.
"""

import pathlib
import sys

import numpy as np
import torch

UPDATES, N = 120, 9
VALLEY_UPDATES, VALLEY_STEP = 200, 2.0**-7


def path_on(gradients: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Weights after each update by the given gradients, shape (updates, n)."""
    w = torch.tensor(start, requires_grad=True)
    optimizer, path = torch.optim.Rprop([w]), []
    for gradient in gradients:
        w.grad = torch.tensor(gradient)
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)


def path_in_valley(start: np.ndarray) -> np.ndarray:
    """Weights after each update on f(x, y) = 100 (y − x²)² + (1 − x)², shape (updates, 2)."""
    w = torch.tensor(start, requires_grad=True)
    optimizer, path = torch.optim.Rprop([w], lr=VALLEY_STEP), []
    for _ in range(VALLEY_UPDATES):
        optimizer.zero_grad()
        (100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2).backward()
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)


def main(file: str = "tests/fixtures/rprop_torch.npz") -> None:
    rng = np.random.default_rng(1)
    gradients = rng.normal(0.3, 1.0, (UPDATES, N)) * (rng.random((UPDATES, N)) > 0.1)
    start, valley = rng.normal(size=N), np.array([-1.2, 1.0])
    pathlib.Path(file).parent.mkdir(exist_ok=True)
    np.savez_compressed(
        file,
        start=start,
        gradients=gradients,
        path=path_on(gradients, start),
        valley_start=valley,
        valley_path=path_in_valley(valley),
        torch=np.array(torch.__version__),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
