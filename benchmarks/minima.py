"""Points of a line, Hessian-vector products, eigenvalues and traces of two networks on MNIST: ours and the alternatives.

    python benchmarks/minima.py [--model mlp|lenet] [--quantity NAME] [--rounds 5] [--patience 900] [--peers PYTHON]
                                [--record figures/data/speed]
    python benchmarks/minima.py --memory [--record figures/data/speed]

The MLP has 5,000 images; LeNet has 10,000 for lines, and 1,000 for products, eigenvalues and traces, of which the peers need
thousands in all. Weights are trained for a few epochs. Everything works on the loss alone, in float32, with
all cores; each round runs all ways in turn, and a ratio is taken within a round. Compilation is done before and printed
apart.

A line goes from w − d to w + d, with d normalised by filters. The peers, in an environment of their own, are given the
same weights, rows, points and vectors, and each works in the quickest of a few sizes of batches, a full one among them
(`peers/minima_peers.py`); the first round checks that all find the same.

Eigenvalues are those with residuals of at most a thousandth of the largest: by ARPACK with curvlinops, in the Krylov space
that needs fewest products, by as many Lanczos steps as are needed with hessian-eigenthings, by power iteration with the
largest tolerance that does it with PyHessian. All of that is found out before, so that peers are timed as if one knew.

Traces are those with a standard error of 1 %. All draw the same kind of probes, so that the spread of a probe is the same
for all; it is measured over the probes of all ways and rounds together, and says how many are needed. Hutchinson's
estimate is timed for fewer, since its time is proportional to them. For Hutch++ ours says how many products are needed,
and the others get as many; curvlinops hands out no error.

With `--memory`: the peak resident memory of a process that evaluates a plane of 101 × 101 points on 50,000 images, less that
of one that keeps no products of the first layer, beside what it may add: three times the first layer's outputs.

Limits: the operations of a forward pass for each point, and for each product those of the passes that no other product
at the same weights can share, 6F − 4F₁ with F of a forward pass and F₁ of its first layer, at the rate at which this
machine multiplies large matrices. A line reaches more than 100 % where the products of the first layer are kept.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from batchscape.backend.importing import import_keras

import_keras()

import keras
import numpy as np
import pandas as pd
from training import find_peers, gemm_rate

import batchscape as bs
from batchscape.landscape import derivatives
from batchscape.system import memory
from batchscape.system.cores import cores

IMAGES = {"mlp": 5_000, "lenet": 10_000}
IMAGES_OF_SPECTRA = {"mlp": 5_000, "lenet": 1_000}
EPOCHS = 3
POINTS = {"mlp": (25, 10), "lenet": (5, 5)}
"""Columns and rows of the plane; the line has as many points in all."""
POINTS_OF_KERAS = {"mlp": 8, "lenet": 3}
SIDE, IMAGES_OF_MEMORY = 101, 50_000
VECTORS = 8
PROBES = {"mlp": 64, "lenet": 32}
"""Probes of Hutchinson's estimate in a round."""
TOLERANCE = 1e-3
ERROR = 0.01
OURS = "batchscape"
LINES = ("loss-landscapes",)
HESSIANS = ("curvlinops", "PyHessian", "hessian-eigenthings")
HUTCHPP = ("curvlinops", "hessian-eigenthings")


@dataclasses.dataclass
class Found:
    """What a way has found in a call.

    Attributes:
        seconds: That it took.
        amount: Points, products, probes or results that it has made.
        values: To compare with ours; NaN where there is nothing to compare.
        work: Points or products that it has computed.
        error: Residual ÷ largest eigenvalue, or standard error ÷ trace of one probe or one result.
    """

    seconds: float
    amount: int
    values: np.ndarray
    work: int
    error: float = np.nan


Ways = dict[str, Callable[[int], Found | None]]
"""Functions of the number of the round, by name; ours is the first."""


class Problem:
    """A trained network, the rows it is evaluated on, a line, a plane and some vectors."""

    def __init__(self, name: str, model: keras.Model, x: np.ndarray, y: np.ndarray):
        self.name, self.model, self.x, self.y = name, model, x, y
        self.f = bs.Objective(model, x, y, metrics=())
        self.weights = self.f.weights
        self.directions = bs.random_directions(self.f, self.weights, 2).astype(np.float32).astype(np.float64)
        rng = np.random.default_rng(0)
        self.vectors = rng.choice([-1, 1], size=(VECTORS, self.f.n_parameters)).astype(np.float32)
        self.columns, self.rows = POINTS[name]
        self.points = self.columns * self.rows
        self.steps = -1 + 2 * np.arange(1, self.points + 1) / self.points
        total, first = forward_flops(model)
        self.flops_of_a_point, self.flops_of_a_product = total * len(y), (6 * total - 4 * first) * len(y)

    def save(self, file: pathlib.Path) -> None:
        """For the peers."""
        direction = self.f.unflatten(self.directions[0], [np.zeros_like(weight) for weight in self.weights])
        arrays = {f"w{i}": weight for i, weight in enumerate(self.weights)}
        arrays |= {f"d{i}": part for i, part in enumerate(direction)}
        np.savez(file, x=self.x, y=self.y, vectors=self.vectors, **arrays)


def forward_flops(model: keras.Model) -> tuple[float, float]:
    """Operations of the matrix products and convolutions for an example, and of the first of them."""
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    flops = [2.0 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1]) for layer in layers]
    return sum(flops), flops[0]


def trained(name: str) -> tuple[keras.Model, bs.Data]:
    data = bs.load_dataset("mnist", train_size=IMAGES[name])
    model = bs.build_model(name, data, seed=0)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.x_train, data.y_train, batch_size=32, epochs=EPOCHS, shuffle=False, verbose=0)
    return model, data


class Peers:
    """The process of `peers/minima_peers.py` with one problem; without an interpreter, no packages at all."""

    def __init__(self, python: str | None, problem: Problem, folder: str, patience: float):
        self.packages, self.patience, self.process = [], patience, None
        if not python:
            return
        script, file = pathlib.Path(__file__).with_name("peers") / "minima_peers.py", pathlib.Path(folder) / "task.npz"
        problem.save(file)
        command = [python, script, str(cores()), file]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.packages = json.loads(self.process.stdout.readline())

    def ask(self, package: str, task: str, **options) -> dict | None:
        """What a package answers; None where it took longer than our patience lasts."""
        asked = {"package": package, "task": task, "limit": self.patience, **options}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer if answer["seconds"] is not None else None

    def ways(self, packages: tuple[str, ...], way: Callable[[str, int], Found | None]) -> Ways:
        """A function of package and round, as one of the round for each package that there is."""
        return {package: functools.partial(way, package) for package in packages if package in self.packages}

    def close(self) -> None:
        if self.process:
            self.process.communicate()


def timed(function: Callable):
    begin = time.perf_counter()
    found = function()
    return found, time.perf_counter() - begin


def ways_to_points(problem: Problem, peers: Peers) -> Ways:
    uncached = bs.Objective(problem.model, problem.x, problem.y, metrics=())
    uncached._derivatives._first_layer = None  # It holds on to no products of the first layer.
    line, coordinates = problem.directions[:1], problem.steps[:, None]

    def ours(objective):
        found, seconds = timed(lambda: objective.evaluate_along(problem.weights, line, coordinates))
        return Found(seconds, problem.points, found["loss"], problem.points)

    def theirs(package, _):
        answer = peers.ask(package, "line", points=problem.points)
        return answer and Found(answer["seconds"], problem.points, np.array(answer["losses"]), problem.points)

    ways = {OURS: lambda _: ours(problem.f), "the same, on a plane": lambda _: on_plane(problem)}
    ways |= {"the same, nothing kept": lambda _: ours(uncached), **peers.ways(LINES, theirs)}
    return ways | {f"Keras evaluate, B = {size}": in_keras(problem, size) for size in (32, len(problem.y))}


def on_plane(problem: Problem) -> Found:
    """As many points as on the line, of which those of the first row lie on it."""
    shared = np.arange(problem.columns) * problem.rows
    a, b = problem.steps[shared], np.arange(problem.rows) / problem.rows
    found, seconds = timed(
        lambda: bs.evaluate_plane(problem.f, problem.weights, problem.directions, a, b, show_progress=False)
    )
    losses = np.full(problem.points, np.nan)
    losses[shared] = found.loss[0]
    return Found(seconds, problem.points, losses, problem.points)


def in_keras(problem: Problem, batch_size: int) -> Callable[[int], Found]:
    """`set_weights` and `evaluate`, at the first few points of the line."""
    model = keras.models.clone_model(problem.model)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    f, start, count = problem.f, problem.f.flatten(problem.weights), POINTS_OF_KERAS[problem.name]

    def loss(step):
        model.set_weights(f.unflatten(start + step * problem.directions[0], problem.weights))
        return model.evaluate(problem.x, problem.y, batch_size=batch_size, verbose=0)

    def run(_):
        losses, seconds = timed(lambda: [loss(step) for step in problem.steps[:count]])
        return Found(seconds, count, np.array(losses), count)

    return run


def ways_to_products(problem: Problem, peers: Peers) -> Ways:
    vectors = problem.vectors

    def ours(block):
        parts = np.split(vectors, VECTORS // block)
        found, seconds = timed(lambda: np.vstack([problem.f.hessian_products(problem.weights, v) for v in parts]))
        return Found(seconds, VECTORS, np.sum(found * vectors, axis=1), VECTORS)

    def theirs(package, _, block=1):
        answer = peers.ask(package, "products", block=block)
        return answer and Found(answer["seconds"], VECTORS, np.array(answer["curvatures"]), VECTORS)

    ways = {OURS: lambda _: ours(VECTORS), "the same, singly": lambda _: ours(1), **peers.ways(HESSIANS, theirs)}
    in_blocks = peers.ways(HESSIANS[:1], functools.partial(theirs, block=VECTORS))
    return ways | {f"{package}, {VECTORS} at once": way for package, way in in_blocks.items()}


def ways_to_eigenvalues(problem: Problem, peers: Peers, *, k: int) -> Ways:
    steps = []

    def ours(_):
        found, seconds = timed(lambda: bs.hessian_eigenvalues(problem.f, problem.weights, k=k, tolerance=TOLERANCE))
        steps.append(found.n_products)
        return Found(seconds, 1, found.values, found.n_products, found.residuals.max() / found.values[0])

    def theirs(package, _):
        answer = peers.ask(package, "eigenvalues", k=k, tolerance=TOLERANCE, steps=steps[0])
        if answer:
            return Found(answer["seconds"], 1, np.array(answer["values"]), answer["products"], answer["residual"])

    return {OURS: ours, **peers.ways(HESSIANS, theirs)}


def ways_to_hutchinson(problem: Problem, peers: Peers) -> Ways:
    probes = PROBES[problem.name]

    def ours(turn):
        found, seconds = timed(lambda: bs.hessian_trace(problem.f, problem.weights, n_probes=probes, seed=turn))
        return Found(seconds, probes, np.array([found.mean]), probes, found.stderr * probes**0.5 / found.mean)

    def theirs(package, turn):
        answer = peers.ask(package, "hutchinson", probes=probes, seed=turn)
        if answer:
            mean, count = answer["mean"], answer["probes"]
            return Found(answer["seconds"], count, np.array([mean]), count, answer["spread"] / mean)

    return {OURS: ours, **peers.ways(HESSIANS, theirs)}


def ways_to_hutchpp(problem: Problem, peers: Peers) -> Ways:
    count = products_of_hutchpp(problem)

    def ours(turn):
        found, seconds = timed(lambda: hutchpp(problem, count, seed=turn))
        return Found(seconds, 1, np.array([found.mean]), count, found.stderr / found.mean)

    def theirs(package, turn):
        answer = peers.ask(package, "hutchpp", probes=count, seed=turn)
        if answer:
            mean = answer["mean"]
            return Found(answer["seconds"], 1, np.array([mean]), count, answer["stderr"] / mean)

    return {OURS: ours, **peers.ways(HUTCHPP, theirs)}


def hutchpp(problem: Problem, count: int, *, seed: int):
    return bs.hessian_trace(problem.f, problem.weights, n_probes=count, method="hutch++", seed=seed)


def products_of_hutchpp(problem: Problem) -> int:
    """Products, a multiple of three, that our Hutch++ takes for the error; approached from below."""
    count = 48
    while True:
        found = hutchpp(problem, count, seed=99)
        excess = found.stderr / found.mean / ERROR
        if excess <= 1:
            return count
        count = 3 * round(count * min(4, max(1.15, excess)) / 3)


def measure(ways: Ways, rounds: int, agree: Callable[[Found, Found], None]) -> dict[str, list[Found]]:
    """What each way found: in a first call, which compiles and is compared with ours, and in each round."""
    found: dict[str, list[Found]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way in list(found):
            result = ways[way](turn)
            if result is None:
                print(f"{way} is left out: it takes longer than our patience lasts.", flush=True)
                del found[way]
                continue
            if not turn:
                agree(result, found[OURS][0] if way != OURS else result)
            found[way].append(result)
    return found


def close(theirs: Found, ours: Found) -> None:
    """Values that there are agree to two thousandths of the largest."""
    expected = np.where(np.isnan(theirs.values), np.nan, ours.values[: len(theirs.values)])
    np.testing.assert_allclose(theirs.values, expected, rtol=0, atol=2 * TOLERANCE * np.nanmax(np.abs(expected)))


def within_errors(theirs: Found, ours: Found) -> None:
    """Two traces differ by at most five of their errors; one that is not known is taken for ours."""
    errors = [found.error / found.amount**0.5 for found in (ours, theirs)]
    assert abs(theirs.values[0] / ours.values[0] - 1) <= 5 * np.hypot(
        errors[0], np.nan_to_num(errors[1], nan=errors[0])
    )


def probes_needed(found: dict[str, list[Found]]) -> int:
    """Probes that the error takes, by the spread of those of all ways and rounds."""
    spread = np.mean([result.error**2 for results in found.values() for result in results])
    return int(np.ceil(spread / ERROR**2))


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is timed.

    Attributes:
        name: Its name.
        ways: Makes the ways to it.
        agree: Raises where a way has found something else than ours.
        unit: What there are so many of a second; `"s"` where seconds are shown instead.
        to_error: Whether one result takes many probes.
    """

    name: str
    ways: Callable[[Problem, Peers], Ways]
    agree: Callable[[Found, Found], None] = close
    unit: str = "s"
    to_error: bool = False


OF_LINES = (Quantity("points of a line", ways_to_points, unit="points/s"),)
OF_SPECTRA = (
    Quantity("Hessian-vector products", ways_to_products, unit="products/s"),
    Quantity("largest eigenvalue", functools.partial(ways_to_eigenvalues, k=1)),
    Quantity("five eigenvalues", functools.partial(ways_to_eigenvalues, k=5)),
    Quantity("trace by Hutchinson", ways_to_hutchinson, within_errors, to_error=True),
    Quantity("trace by Hutch++", ways_to_hutchpp, within_errors),
)


def summarise(quantity: Quantity, found: dict[str, list[Found]], problem: Problem, rate: float) -> Iterator[dict]:
    """Medians over rounds, and how many times ours is as fast: the median and range of the ratios within rounds."""
    needed = probes_needed(found) if quantity.to_error else 1
    times = {way: [needed * result.seconds / result.amount for result in results] for way, results in found.items()}
    flops = problem.flops_of_a_point if quantity.name == OF_LINES[0].name else problem.flops_of_a_product
    for way, (first, *seconds) in times.items():
        results, median = found[way][1:], statistics.median(seconds)
        ratios = [theirs / mine for theirs, mine in zip(seconds, times[OURS][1:], strict=True)]
        work = needed * results[0].work / results[0].amount
        shown = [1 / value if quantity.unit != "s" else value for value in (median, min(seconds), max(seconds))]
        yield {
            "model": problem.name,
            "images": len(problem.y),
            "quantity": quantity.name,
            "way": way,
            "unit": quantity.unit,
            "value": shown[0],
            "low": min(shown),
            "high": max(shown),
            "compile_s": np.nan if way.startswith(LINES + HESSIANS) else (first - median) / needed * results[0].amount,
            "products": work if quantity.unit == "s" else np.nan,
            "error": statistics.median(result.error for result in results) / needed**0.5,
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
            "limit": 1 / (flops / rate) if quantity.unit != "s" else work * flops / rate,
            "share_of_limit": work * flops / rate / median,
            "rounds": len(seconds),
            "gemm_gflops": rate / 1e9,
        }


def show(row: dict) -> None:
    spread = f"{row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
    compiled = "" if np.isnan(row["compile_s"]) else f"{max(row['compile_s'], 0):.1f} s"
    products = "" if np.isnan(row["products"]) else f"{row['products']:.0f}"
    error = "" if np.isnan(row["error"]) else f"{row['error']:.1e}"
    ratio = "" if row["way"] == OURS else f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    print(
        f"{row['way']:<26}{spread:>26}{compiled:>9}{products:>10}{error:>9}{ratio:>24}"
        f"{row['limit']:>10.4g}{row['share_of_limit']:>8.1%}",
        flush=True,
    )


def compare(name: str, rounds: int, peers: str | None, patience: float, only: Sequence[str] | None) -> pd.DataFrame:
    """One row a quantity and way; printed as they come."""
    (model, data), rows, rate = trained(name), [], gemm_rate()
    sizes = (IMAGES[name], OF_LINES), (IMAGES_OF_SPECTRA[name], OF_SPECTRA)
    for images, quantities in sizes:
        problem = Problem(name, model, data.x_train[:images], data.y_train[:images])
        with tempfile.TemporaryDirectory() as folder:
            others = Peers(peers, problem, folder, patience)
            for quantity in quantities:
                if only and quantity.name not in only:
                    continue
                rate = max(rate, gemm_rate())
                print(
                    f"\n{name}, {images} images, {problem.f.n_parameters} parameters, {cores()} cores, matrix products "
                    f"at {rate / 1e9:.0f} GFLOP/s: {quantity.name}, {quantity.unit}\n"
                    f"{'way':<26}{'median [range]':>26}{'compile':>9}{'products':>10}{'error':>9}"
                    f"{'ours is × [range]':>24}{'limit':>10}{'share':>8}",
                    flush=True,
                )
                found = measure(quantity.ways(problem, others), rounds, quantity.agree)
                for row in summarise(quantity, found, problem, rate):
                    rows.append(row)
                    show(row)
            others.close()
    return pd.DataFrame(rows)


def peak_of_plane(name: str, kept: bool) -> int:
    """Peak memory of this process once it has evaluated a plane, in bytes; a few points are enough where nothing is kept."""
    data = bs.load_dataset("mnist", train_size=IMAGES_OF_MEMORY)
    f = bs.Objective(bs.build_model(name, data, seed=0), data.x_train, data.y_train, metrics=())
    side = SIDE if kept and name == "mlp" else 6
    if not kept:
        derivatives.KEPT_BYTES = 0
    axis = np.linspace(-1, 1, side)
    bs.evaluate_plane(f, f.weights, bs.random_directions(f, f.weights), axis, axis, show_progress=False)
    return memory.peak()


def memory_of_planes() -> pd.DataFrame:
    """One row a network; each peak in a process of its own, of three the median."""
    rows = []
    for name in IMAGES:
        peaks = {
            kept: statistics.median(
                int(subprocess.check_output([sys.executable, __file__, "--peak-of", name, *(["--kept"] * kept)]))
                for _ in range(3)
            )
            for kept in (True, False)
        }
        first = bs.build_model(name, bs.load_dataset("mnist", train_size=IMAGES_OF_MEMORY)).layers
        layer = next(layer for layer in first if hasattr(layer, "kernel"))
        outputs = 4 * IMAGES_OF_MEMORY * int(np.prod(layer.output.shape[1:]))
        rows.append({"model": name, "images": IMAGES_OF_MEMORY, "peak": peaks[True], "peak_nothing_kept": peaks[False],
                     "added": peaks[True] - peaks[False], "three_first_outputs": 3 * outputs})  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("mlp", "lenet"), action="append", help="both by default")
    names = [quantity.name for quantity in OF_LINES + OF_SPECTRA]
    parser.add_argument("--quantity", choices=names, action="append", help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patience", type=float, default=900, help="seconds after which a call of a peer is given up")
    parser.add_argument("--peers", help="interpreter of an environment with PyTorch and the packages")
    parser.add_argument("--record", type=pathlib.Path, help="folder for the table, figures/data/speed for ours")
    parser.add_argument("--memory", action="store_true", help="of planes, in place of speed")
    parser.add_argument("--peak-of", choices=tuple(IMAGES), help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(peak_of_plane(options.peak_of, options.kept))
        sys.exit()
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
    if options.memory:
        table = memory_of_planes()
        if options.record:
            table.to_csv(options.record / "minima_memory.csv", index=False)
        sys.exit()
    interpreter = find_peers(options.peers)
    for model_name in options.model or ("mlp", "lenet"):
        table = compare(model_name, options.rounds, interpreter, options.patience, options.quantity)
        if options.record:
            table.to_csv(options.record / f"minima_{model_name}.csv", index=False, float_format="%.5g")
