"""Eigenvalues, traces and interpolated losses of a small network by PyTorch packages, as the fixture of a test.

    python benchmarks/peers/minima_fixture.py [tests/fixtures/minima_peers.npz]

It runs in an environment of its own, which has curvlinops, PyHessian and loss-landscapes. The network is a 6-5-4-3 MLP of
tanh on 40 rows, in float64, with weights drawn and then trained a little; weights are stored in the layout of Keras.
"""

import itertools
import pathlib
import sys
import warnings

import curvlinops
import loss_landscapes
import loss_landscapes.metrics
import numpy as np
import pyhessian
import torch
from minima_peers import in_torch_layout, network
from scipy.sparse.linalg import eigsh
from torch import nn

SIZES = (6, 5, 4, 3)
ROWS = 40
STEPS = 16
"""Points of the line, of which loss-landscapes evaluates all but the first end: α = 1/16, 2/16, ..., 1."""
TOP = 5


def draw(rng: np.random.Generator) -> list[np.ndarray]:
    """Kernels and biases in turn, in the layout of Keras."""
    return [
        weight
        for inputs, outputs in itertools.pairwise(SIZES)
        for weight in (rng.normal(size=(inputs, outputs)) / inputs**0.5, 0.1 * rng.normal(size=outputs))
    ]


def trained(weights: list[np.ndarray], x: torch.Tensor, y: torch.Tensor, *, updates: int) -> nn.Module:
    net = network(weights, nn.Tanh)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(updates):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


def in_keras_layout(net: nn.Module) -> list[np.ndarray]:
    """The layout of matrices and vectors is turned back as it was turned."""
    return [np.ascontiguousarray(in_torch_layout(parameter.detach().numpy())) for parameter in net.parameters()]


def peers(start: nn.Module, end: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    """What the packages find: on the line from start to end, and of the Hessian at its end."""
    loss = nn.CrossEntropyLoss()
    metric = loss_landscapes.metrics.Loss(loss, x, y)
    line = loss_landscapes.linear_interpolation(start, end, metric, steps=STEPS, deepcopy_model=True)
    parameters = list(end.parameters())
    operator = curvlinops.HessianLinearOperator(end, loss, parameters, [(x, y)], check_deterministic=False)
    dense = operator @ torch.eye(operator.shape[0], dtype=x.dtype)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of backward with create_graph.
        hessian = pyhessian.hessian(end, loss, data=(x, y), cuda=False)
    return {
        "loss_landscapes_alphas": np.arange(1, STEPS + 1) / STEPS,
        "loss_landscapes_losses": line,
        "curvlinops_top": eigsh(operator.to_scipy(), k=TOP, which="LA", tol=0, v0=np.ones(len(dense)))[0][::-1],
        "curvlinops_trace": np.array(float(dense.trace())),
        "pyhessian_top": np.array(hessian.eigenvalues(maxIter=5000, tol=1e-12, top_n=1)[0]),
    }


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, SIZES[0])).astype(np.float32).astype(np.float64)  # Exact in float32 as well.
    y = np.argmax(x @ rng.normal(size=(SIZES[0], SIZES[-1])), axis=1)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    start = network(draw(rng), nn.Tanh)
    end = trained(draw(rng), inputs, labels, updates=60)
    weights = {
        f"{name}_{i}": weight
        for name, net in (("start", start), ("end", end))
        for i, weight in enumerate(in_keras_layout(net))
    }
    default = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "minima_peers.npz"
    file = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, x=x, y=y, **weights, **peers(start, end, inputs, labels))


if __name__ == "__main__":
    main()
