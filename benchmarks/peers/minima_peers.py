"""Lines, Hessian-vector products, eigenvalues and traces by PyTorch packages, timed on request.

    python minima_peers.py THREADS FILE

It runs in an environment of its own. FILE is an .npz with the inputs x, the labels y, the Keras weights w0, w1, ..., a
direction d0, d1, ... of the same shapes, and vectors, shape (k, p), in the order of Keras. It first says which packages
there are, as a list; then it reads one JSON object a line, `{"package": ..., "task": ..., "limit": seconds, ...}`, and
answers with what the task found and the seconds it took, or with `{"seconds": null}` where the limit did not suffice.

Every package works in the quickest of a few ways, which its first call finds out: one full batch, or batches of 2,000 or
500 rows; one vector at a time, or several, where it can.
"""

import functools
import importlib
import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

ROWS = (500, 2000)
"""Sizes of batches that are tried beside the full one."""

ROOM = 2**27
"""Most numbers in the activations of a batch, for all vectors that are multiplied at once: some 3 GB in all."""


class ChannelsLast(nn.Module):
    """The order in which Keras flattens images."""

    def forward(self, x):
        return x.movedim(1, -1).flatten(1)


def network(weights: list[np.ndarray], activation: type[nn.Module]) -> nn.Sequential:
    """The network that Keras weights, kernel and bias in turn, belong to, with these weights.

    Each convolution is followed by 2 × 2 max pooling, each layer but the last by the activation.
    """
    stack: list[nn.Module] = []
    for kernel in weights[::2]:
        if kernel.ndim == 4:
            height, width, inputs, outputs = kernel.shape
            stack += [nn.Conv2d(inputs, outputs, (height, width)), activation(), nn.MaxPool2d(2)]
        else:
            flatten = [] if any(isinstance(layer, nn.Linear) for layer in stack) else [ChannelsLast()]
            stack += [*flatten, nn.Linear(*kernel.shape), activation()]
    net = nn.Sequential(*stack[:-1]).to(torch.from_numpy(weights[0]).dtype).eval()
    with torch.no_grad():
        for parameter, weight in zip(net.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(in_torch_layout(weight).copy()))
    return net


def in_torch_layout(weight: np.ndarray) -> np.ndarray:
    """Kernels have the outputs first here, and last in Keras."""
    return weight.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim])


class Problem:
    """A network, the rows it is evaluated on, a direction and some vectors."""

    def __init__(self, file: str):
        arrays = np.load(file)
        self.weights, self.direction = (
            [arrays[f"{kind}{i}"] for i in range(sum(name.rstrip("0123456789") == kind for name in arrays))]
            for kind in "wd"
        )
        self.activation = nn.Tanh if self.weights[0].ndim == 4 else nn.ReLU
        self.net = network(self.weights, self.activation)
        self.parameters = list(self.net.parameters())
        self.loss = nn.CrossEntropyLoss()
        self.x = torch.from_numpy(np.moveaxis(arrays["x"], -1, 1).copy())
        self.y = torch.from_numpy(arrays["y"].astype(np.int64))
        self.vectors = torch.from_numpy(np.array([self._turned(vector) for vector in arrays["vectors"]]))

    def _turned(self, vector: np.ndarray) -> np.ndarray:
        """A vector in the order of Keras, in the order of PyTorch."""
        parts = np.split(vector, np.cumsum([weight.size for weight in self.weights])[:-1])
        shaped = [part.reshape(weight.shape) for part, weight in zip(parts, self.weights, strict=True)]
        return np.concatenate([in_torch_layout(part).ravel() for part in shaped])

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The parts of a vector that belong to each parameter."""
        parts = vector.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]

    def moved(self, step: int) -> nn.Module:
        """The network at w + step · d."""
        return network([w + step * d for w, d in zip(self.weights, self.direction, strict=True)], self.activation)

    @functools.cached_property
    def activations(self) -> int:
        """Numbers that the layers of the network make of an example."""
        x, total = self.x[:1], 0
        for layer in self.net:
            x = layer(x)
            total += x.numel()
        return total

    def sizes(self, columns: int = 1) -> list[int]:
        """Rows of a batch to choose from; several vectors at once must leave room for them."""
        n = len(self.y)
        most = n if columns == 1 else max(1, min(n, ROOM // (columns * self.activations)))
        return [*(rows for rows in ROWS if rows < most), most]

    def batches(self, rows: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(self.x.split(rows), self.y.split(rows), strict=True))

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """The Hessian times a vector, to measure residuals with."""
        total = torch.zeros_like(vector)
        for x, y in self.batches(ROWS[-1]):
            gradient = torch.autograd.grad(self.loss(self.net(x), y), self.parameters, create_graph=True)
            total += len(y) * flat(torch.autograd.grad(gradient, self.parameters, self.split(vector)))
        return total / len(self.y)


def flat(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def quickest(choices: list, run: Callable):
    """The choice that `run` takes the shortest time with."""
    if len(choices) == 1:
        return choices[0]
    run(choices[0])
    spent = {}
    for choice in choices:
        begin = time.perf_counter()
        run(choice)
        spent[time.perf_counter() - begin] = choice
    return spent[min(spent)]


class LossLandscapes:
    """`linear_interpolation` from w − d to w + d, which evaluates n points, and not the first end."""

    name, module = "loss-landscapes", "loss_landscapes"

    def __init__(self, problem: Problem):
        self.problem, self.package = problem, importlib.import_module(self.module)
        self.ends = problem.moved(-1), problem.moved(1)

    def metric(self, rows: int) -> Callable:
        """The mean loss: its own class for a full batch, a sum over batches otherwise."""
        problem = self.problem
        if rows == len(problem.y):
            return importlib.import_module(f"{self.module}.metrics").Loss(problem.loss, problem.x, problem.y)
        batches = problem.batches(rows)
        return lambda model: sum(len(y) * float(problem.loss(model.forward(x), y)) for x, y in batches) / len(problem.y)

    @functools.cached_property
    def rows(self) -> int:
        return quickest(self.problem.sizes(), lambda rows: self._line(3, rows))

    def _line(self, points: int, rows: int):
        return self.package.linear_interpolation(*self.ends, self.metric(rows), steps=points, deepcopy_model=True)

    def line(self, points: int):
        return self._line(points, self.rows)


class Curvlinops:
    """The operator of curvlinops, with ARPACK for eigenvalues as its documentation has it."""

    name, module = "curvlinops", "curvlinops"
    BLOCK = 8

    def __init__(self, problem: Problem):
        self.problem, self.package = problem, importlib.import_module(self.module)
        self.operators: dict[int, object] = {}

    def _operator(self, rows: int):
        problem = self.problem
        return self.package.HessianLinearOperator(
            problem.net, problem.loss, problem.parameters, problem.batches(rows), check_deterministic=False
        )

    def operator(self, columns: int):
        """The operator with the size of batches that suits so many vectors at once."""
        if columns not in self.operators:
            vectors = torch.randn(len(self.problem.vectors[0]), columns)
            made = {rows: self._operator(rows) for rows in self.problem.sizes(columns)}
            self.operators[columns] = made[quickest(list(made), lambda rows: made[rows] @ vectors)]
        return self.operators[columns]

    def products(self, block: int) -> torch.Tensor:
        operator = self.operator(block)
        return torch.cat([(operator @ part.T.contiguous()).T for part in self.problem.vectors.split(block)])

    def settings(self, k: int, steps: int) -> list[dict]:
        """Sizes of the Krylov space."""
        return [{"ncv": ncv} for ncv in sorted({max(2 * k + 1, ncv) for ncv in (6, 10, 14, 20, 30, 40)})]

    def eigenvalues(self, k: int, tolerance: float, ncv: int):
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator, spent = self.operator(1).to_scipy(), []

        def product(vector):
            spent.append(1)
            return operator.matvec(vector)

        counted = LinearOperator(operator.shape, matvec=product, dtype=operator.dtype)
        start = np.random.default_rng(0).normal(size=operator.shape[0])
        values, vectors = eigsh(counted, k=k, which="LA", tol=tolerance, ncv=ncv, v0=start)
        return values[::-1], torch.from_numpy(vectors.T[::-1].astype(np.float32)), len(spent)

    @functools.cached_property
    def block(self) -> int:
        """How many probes at once are quickest."""
        for columns in (1, self.BLOCK):  # Each chooses its batches first.
            self.operator(columns)
        return quickest([1, self.BLOCK], lambda block: self._samples(self.BLOCK, block))

    def _samples(self, probes: int, block: int) -> list[float]:
        operator = self.operator(block)
        return [float(self.package.hutchinson_trace(operator, num_matvecs=block)) for _ in range(probes // block)]

    def samples(self, probes: int) -> tuple[np.ndarray, int]:
        return np.array(self._samples(probes, self.block)), self.block

    def hutchpp(self, probes: int) -> tuple[float, float]:
        return float(self.package.hutchpp_trace(self.operator(probes // 3), num_matvecs=probes)), np.nan


class PyHessian:
    """The class of PyHessian, which keeps the graph of the gradient between products if there is one full batch."""

    name, module = "PyHessian", "pyhessian"

    def __init__(self, problem: Problem):
        self.problem, self.package, self.spent = problem, importlib.import_module(self.module), 0
        inside = importlib.import_module(f"{self.module}.hessian")
        inside.hessian_vector_product = self._counted(inside.hessian_vector_product)

    def _counted(self, product: Callable) -> Callable:
        def counted(*arguments):
            self.spent += 1
            return product(*arguments)

        return counted

    def hessian(self, rows: int):
        problem = self.problem
        problem.net.zero_grad()
        data = {"data": (problem.x, problem.y)} if rows == len(problem.y) else {"dataloader": problem.batches(rows)}
        made = self.package.hessian(problem.net, problem.loss, **data, cuda=False)
        made.dataloader_hv_product = self._counted(made.dataloader_hv_product)
        return made

    def product(self, hessian, vector: torch.Tensor) -> torch.Tensor:
        parts = self.problem.split(vector)
        if hessian.full_dataset:
            return flat(hessian.dataloader_hv_product(parts)[1])
        return flat(self.package.hessian_vector_product(hessian.gradsH, hessian.params, parts))

    @functools.cached_property
    def rows(self) -> int:
        made = {rows: self.hessian(rows) for rows in self.problem.sizes()}
        return quickest(list(made), lambda rows: self.product(made[rows], self.problem.vectors[0]))

    @functools.cached_property
    def kept(self):
        return self.hessian(self.rows)

    def products(self, block: int) -> torch.Tensor:
        return torch.stack([self.product(self.kept, vector) for vector in self.problem.vectors])

    def settings(self, k: int, steps: int) -> list[dict]:
        """How small the change of an eigenvalue must be for its power iteration to stop."""
        return [{"tol": 10.0**-digits} for digits in range(3, 8)]

    def eigenvalues(self, k: int, tolerance: float, tol: float):
        self.spent = 0
        values, vectors = self.hessian(self.rows).eigenvalues(maxIter=1000, tol=tol, top_n=k)
        return values, torch.stack([flat(vector) for vector in vectors]), self.spent

    def samples(self, probes: int) -> tuple[np.ndarray, int]:
        return np.array(self.hessian(self.rows).trace(maxIter=probes, tol=-1.0)), 1


class Eigenthings:
    """hessian-eigenthings: Lanczos with full reorthogonalisation, for as many steps as it is told."""

    name, module = "hessian-eigenthings", "hessian_eigenthings"

    def __init__(self, problem: Problem):
        self.problem, self.package = problem, importlib.import_module(self.module)

    @functools.cached_property
    def operator(self):
        """In the quickest of the sizes that divide the rows, for it takes the plain mean over batches."""
        problem, loss = self.problem, self.package.supervised_loss(self.problem.loss)
        sizes = [rows for rows in problem.sizes() if len(problem.y) % rows == 0]
        made = {rows: self.package.HessianOperator(problem.net, problem.batches(rows), loss) for rows in sizes}
        return made[quickest(list(made), lambda rows: made[rows].matvec(problem.vectors[0]))]

    def products(self, block: int) -> torch.Tensor:
        return torch.stack([self.operator.matvec(vector) for vector in self.problem.vectors])

    def settings(self, k: int, steps: int) -> list[dict]:
        """Numbers of steps, from half of what ours took."""
        return [{"max_iter": max(k + 1, round(share * steps))} for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2)]

    def eigenvalues(self, k: int, tolerance: float, max_iter: int):
        found = self.package.lanczos(self.operator, k=k, max_iter=max_iter, which="LA", reorthogonalize=True, seed=0)
        return found.eigenvalues.tolist(), found.eigenvectors, found.iterations

    def _trace(self, probes: int, method: str):
        seed = int(torch.randint(2**31, ()))
        return self.package.trace(self.operator, num_matvecs=probes, method=method, seed=seed)

    def samples(self, probes: int) -> tuple[np.ndarray, int]:
        return self._trace(probes, "hutchinson").samples.numpy(), 1

    def hutchpp(self, probes: int) -> tuple[float, float]:
        found = self._trace(probes, "hutch++")
        return found.estimate, found.stderr


def timed(function: Callable, limit: float):
    """What a function returns, and its seconds; TimeoutError where it takes more than the limit."""
    signal.setitimer(signal.ITIMER_REAL, max(limit, 1e-3))
    try:
        begin = time.perf_counter()
        return function(), time.perf_counter() - begin
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def stop(*_):
    raise TimeoutError


class Tasks:
    """What can be asked of a package; each method answers with seconds and what was found."""

    def __init__(self, problem: Problem):
        self.problem, self.chosen = problem, {}

    def line(self, package, limit: float, *, points: int) -> dict:
        losses, seconds = timed(lambda: package.line(points), limit)
        return {"seconds": seconds, "losses": losses.tolist()}

    def products(self, package, limit: float, *, block: int) -> dict:
        """Hv of all vectors; with vᵀHv, which does not depend on the layout, to check it."""
        found, seconds = timed(lambda: package.products(block), limit)
        return {"seconds": seconds, "curvatures": (found * self.problem.vectors).sum(dim=1).tolist()}

    def eigenvalues(self, package, limit: float, *, k: int, tolerance: float, steps: int) -> dict:
        """The k largest, in the setting that needs fewest products for residuals within tolerance · |λ₁|."""
        if (package, k) not in self.chosen:
            self.chosen[package, k] = self._choose(package, limit, k, tolerance, steps)
        if self.chosen[package, k] is None:
            return {"seconds": None}
        return self._eigenvalues(package, limit, k, tolerance, self.chosen[package, k])

    def _choose(self, package, limit: float, k: int, tolerance: float, steps: int) -> dict | None:
        best, fewest, end = None, np.inf, time.perf_counter() + limit
        for setting in package.settings(k, steps):
            found = self._eigenvalues(package, end - time.perf_counter(), k, tolerance, setting)
            if found["products"] >= fewest:
                break
            if found["residual"] <= tolerance:
                best, fewest = setting, found["products"]
        return best

    def _eigenvalues(self, package, limit: float, k: int, tolerance: float, setting: dict) -> dict:
        torch.manual_seed(0)
        (values, vectors, spent), seconds = timed(lambda: package.eigenvalues(k, tolerance, **setting), limit)
        residuals = [self._residual(vector, value) for vector, value in zip(vectors, values, strict=True)]
        residual = max(residuals) / max(abs(value) for value in values)
        return {"seconds": seconds, "values": list(map(float, values)), "residual": residual, "products": spent}

    def _residual(self, vector: torch.Tensor, value: float) -> float:
        unit = vector / vector.norm()
        return float((self.problem.product(unit) - value * unit).norm())

    def hutchinson(self, package, limit: float, *, probes: int, seed: int) -> dict:
        """The trace by random signs; the spread is the standard deviation of a single probe."""
        torch.manual_seed(seed)
        (samples, block), seconds = timed(lambda: package.samples(probes), limit)
        spread = float(samples.std(ddof=1)) * block**0.5
        return {"seconds": seconds, "mean": float(samples.mean()), "spread": spread, "probes": len(samples) * block}

    def hutchpp(self, package, limit: float, *, probes: int, seed: int) -> dict:
        torch.manual_seed(seed)
        (mean, stderr), seconds = timed(lambda: package.hutchpp(probes), limit)
        return {"seconds": seconds, "mean": mean, "stderr": stderr}


def found_packages(problem: Problem) -> dict[str, object]:
    """Those of the packages that this environment has, by name."""
    found = {}
    for kind in (LossLandscapes, Curvlinops, PyHessian, Eigenthings):
        try:
            found[kind.name] = kind(problem)
        except ImportError as error:
            print(f"{kind.name} is left out: {error}.", file=sys.stderr)
    return found


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    warnings.filterwarnings("ignore", message="Using backward")  # PyHessian's way to keep a graph.
    signal.signal(signal.SIGALRM, stop)
    problem = Problem(sys.argv[2])
    packages, tasks = found_packages(problem), Tasks(problem)
    print(json.dumps(list(packages)), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        task, package = getattr(tasks, asked.pop("task")), packages[asked.pop("package")]
        try:
            answer = task(package, **asked)
        except TimeoutError:
            answer = {"seconds": None}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
