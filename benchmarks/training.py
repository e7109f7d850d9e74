"""Updates a second of five ways to train one network, interleaved in one go.

    python benchmarks/training.py [--model mlp|cnn] [--rounds 3] [--processes 3] [--peers PYTHON]
                                  [--record figures/data/speed]

Stock `model.fit(x, y, batch_size=B)`, `fit` with `steps_per_execution`, a hand-written TensorFlow loop, a PyTorch loop
over a DataLoader (where PYTHON, or .venv-peers/bin/python, has PyTorch) and the fused engine of batchscape, on the same
data, network and order, with all cores. Each round runs all of them in turn; a ratio is taken within a round, and its
median and range over rounds are printed, so that a machine whose speed drifts does not decide. Compilation is done
before and printed apart. The limit is the rate at which this machine multiplies large matrices.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from batchscape.backend.importing import import_keras

import_keras()

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import batchscape as bs
from batchscape.system.cores import cores
from batchscape.train import engine
from batchscape.train.plan import Plan

BATCH_SIZES = (1, 8, 32, 128, "full")
SECONDS_PER_RUN = 0.25
LEARNING_RATE = 0.01
OURS = "batchscape fused"


def data_for(model: str) -> bs.Data:
    """Digits for the MLP; 28 × 28 noise, of which speed does not depend, for the CNN."""
    if model == "mlp":
        return bs.load_dataset("digits")
    rng = np.random.default_rng(0)
    x, y = rng.random((2560, 28, 28, 1), dtype=np.float32), (np.arange(2560) % 10).astype(np.int32)
    return bs.load_dataset(((x, y), (x[:100], y[:100])))


def compiled_model(name: str, data: bs.Data, **options) -> keras.Model:
    model = bs.build_model(name, data, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss, jit_compile=False, **options)
    return model


class Fit:
    """The literal `model.fit`, one epoch after the other."""

    def __init__(self, name, data, batch_size, *, steps_per_execution=1):
        self.model = compiled_model(name, data, steps_per_execution=steps_per_execution)
        self.batch_size, self.granularity = batch_size, len(data.y_train) // batch_size
        n = self.granularity * batch_size
        self.x, self.y = data.x_train[:n], data.y_train[:n]

    def run(self, updates):
        epochs = updates // self.granularity
        self.model.fit(self.x, self.y, batch_size=self.batch_size, epochs=epochs, shuffle=False, verbose=0)


class HandWritten:
    """`@tf.function` around one step, called in a Python loop over slices of tensors."""

    def __init__(self, name, data, batch_size):
        self.model = compiled_model(name, data)
        self.x, self.y = tf.constant(data.x_train), tf.constant(data.y_train)
        self.starts = range(0, len(data.y_train) - batch_size + 1, batch_size)
        self.batch_size, self.granularity = batch_size, 1
        self.step = tf.function(self._step, reduce_retracing=True)

    def _step(self, x, y):
        with tf.GradientTape() as tape:
            loss = self.model.loss(y, self.model(x, training=True))
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.model.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return loss

    def run(self, updates):
        for update in range(updates):
            start = self.starts[update % len(self.starts)]
            loss = self.step(self.x[start : start + self.batch_size], self.y[start : start + self.batch_size])
        float(loss)


class Ours:
    """The fused engine, through `model.fit` as in every sweep, looked at once an epoch, or every 64 updates where an
    epoch is shorter.
    """

    def __init__(self, name, data, batch_size):
        self.model, self.batch_size, self.n = compiled_model(name, data), batch_size, data.n_train
        self.engine = engine.own().Fused(self.model, data)
        self.epochs = -(-64 // (self.n // batch_size))
        self.granularity = self.epochs * (self.n // batch_size)

    def run(self, updates):
        cell = bs.Cell(batch_size=self.batch_size, updates=updates, last_batch="drop", evaluate_every=self.epochs)
        for arguments in self.engine.calls(Plan.of(cell, self.n), whole_epochs=False):
            self.model.fit(verbose=0, **arguments)


class Torch:
    """The PyTorch loop of `peers/torch_training.py`, in its own process and environment."""

    def __init__(self, python, name, data, batch_size, folder):
        script = pathlib.Path(__file__).with_name("peers") / "torch_training.py"
        self.process = subprocess.Popen(
            [python, script, str(cores())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        files = {"x": str(folder / "x.npy"), "y": str(folder / "y.npy")}
        np.save(files["x"], data.x_train)
        np.save(files["y"], data.y_train)
        self.task, self.granularity = {**files, "model": name, "batch_size": batch_size}, 1

    def run(self, updates):
        self.process.stdin.write(json.dumps({**self.task, "updates": updates}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def seconds(contender, updates: int) -> float:
    """Seconds that some updates took, by the contender's own clock where it runs elsewhere."""
    begin = time.perf_counter()
    measured = contender.run(updates)
    return measured if measured is not None else time.perf_counter() - begin


def flops_per_update(name: str, data: bs.Data, batch_size: int) -> float:
    """Floating point operations of the matrix products of an update: 2 forward, 4 backward for each weight and position,
    2 fewer in the first layer, whose inputs need no gradient.
    """
    model = bs.build_model(name, data)
    total, first = 0.0, True
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            positions = np.prod(layer.output.shape[1:-1]) if len(layer.output.shape) > 2 else 1
            total += (4 if first else 6) * np.prod(layer.kernel.shape) * positions
            first = False
    return float(total * batch_size)


def gemm_rate() -> float:
    """Operations a second of a 1024 × 1024 float32 matrix product in TensorFlow, all cores."""
    a = tf.random.normal((1024, 1024))
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        float(tf.reduce_sum((a @ a)[:1]))
        times.append(time.perf_counter() - begin)
    return 2 * 1024**3 / statistics.median(times)


def compare(name: str, rounds: int, peers: str | None) -> pd.DataFrame:
    """One row a batch size and way; printed as they come."""
    data, rate, rows = data_for(name), gemm_rate(), []
    print(f"\n{name}: {data.n_train} examples, {cores()} cores, matrix products at {rate / 1e9:.0f} GFLOP/s")
    print(f"{'B':>5} {'way':<22}{'updates/s':>11}{'compile':>9}   ours is × [range]   share of the matrix limit")
    for wanted in BATCH_SIZES:
        batch_size = data.n_train if wanted == "full" else wanted
        with tempfile.TemporaryDirectory() as folder:
            makers = {
                "fit": lambda b=batch_size: Fit(name, data, b),
                "fit, 64 steps at once": lambda b=batch_size: Fit(name, data, b, steps_per_execution=64),
                "hand-written loop": lambda b=batch_size: HandWritten(name, data, b),
                OURS: lambda b=batch_size: Ours(name, data, b),
            }
            if peers:
                makers["PyTorch DataLoader"] = lambda b=batch_size, f=folder: Torch(
                    peers, name, data, b, pathlib.Path(f)
                )
            found = measure(makers, rounds)
        for row in summarise(found, flops_per_update(name, data, batch_size) / rate):
            rows.append({"model": name, "batch_size": wanted, **row, "rounds": rounds, "gemm_gflops": rate / 1e9})
            show(rows[-1])
    return pd.DataFrame(rows)


def in_new_process(name: str, rounds: int, peers: str | None) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--processes", "1", "--model", name, "--rounds", str(rounds)]
        subprocess.run([*command, "--record", folder, *(["--peers", peers] if peers else [])], check=True)
        return pd.read_csv(pathlib.Path(folder) / f"training_{name}.csv")


def pool(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Medians over processes, and the range over all their rounds."""
    keys = ["model", "batch_size", "way"]
    values = {name: "median" for name in tables[0] if name not in keys}
    values |= {"ratio_low": "min", "ratio_high": "max", "rounds": "sum"}
    table = pd.concat(tables).groupby(keys, sort=False, as_index=False).agg(values)
    print("\nall processes:")
    for row in table.to_dict("records"):
        show(row)
    return table


def measure(makers, rounds: int) -> dict[str, dict]:
    """Seconds an update of each way, one value a round, all ways in turn in every round."""
    found = {}
    for way, make in makers.items():
        begin = time.perf_counter()
        contender = make()
        least = contender.granularity
        contender.run(least)
        compile_seconds = time.perf_counter() - begin
        repeats = 1
        while (spent := seconds(contender, repeats * least)) < SECONDS_PER_RUN / 2:
            repeats = min(4 * repeats, 1 + round(repeats * SECONDS_PER_RUN / spent))
        found[way] = {"contender": contender, "updates": repeats * least, "compile": compile_seconds, "times": []}
    for _ in range(rounds):
        for row in found.values():
            row["times"].append(seconds(row["contender"], row["updates"]) / row["updates"])
    for row in found.values():
        if isinstance(row["contender"], Torch):
            row["contender"].process.communicate()
    return found


def summarise(found: dict[str, dict], limit: float):
    """Medians over rounds, and how many times ours is as fast: the median and range of the ratios within rounds."""
    ours = found[OURS]["times"]
    for way, row in found.items():
        ratios = [theirs / mine for theirs, mine in zip(row["times"], ours, strict=True)]
        median = statistics.median(row["times"])
        yield {
            "way": way,
            "updates_per_s": 1 / median,
            "compile_s": row["compile"],
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
            "share_of_limit": limit / median,
        }


def show(row: dict) -> None:
    ratio = f"{row['ratio']:7.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    print(
        f"{row['batch_size']:>5} {row['way']:<22}{row['updates_per_s']:>11.0f}{row['compile_s']:>8.1f}s   "
        f"{'' if row['way'] == OURS else ratio:<24}{row['share_of_limit']:>6.1%}",
        flush=True,
    )


def find_peers(given: str | None) -> str | None:
    """The interpreter of an environment with PyTorch, or None with a word about it."""
    default = pathlib.Path(".venv-peers/bin/python")
    python = given or (str(default) if default.exists() else None)
    if python and not subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
        return python
    print("PyTorch is left out: no environment with it (make one in .venv-peers, or give --peers PYTHON).")
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("mlp", "cnn"), action="append", help="both by default")
    parser.add_argument("--rounds", type=int, default=3, help="in each process")
    parser.add_argument("--processes", type=int, default=3, help="some are slow as a whole, so one decides nothing")
    parser.add_argument("--peers", help="interpreter of an environment with PyTorch")
    parser.add_argument("--record", type=pathlib.Path, help="folder for the table, figures/data/speed for ours")
    options = parser.parse_args()
    interpreter = find_peers(options.peers)
    for model_name in options.model or ("mlp", "cnn"):
        if options.processes > 1:
            table = pool([in_new_process(model_name, options.rounds, interpreter) for _ in range(options.processes)])
        else:
            table = compare(model_name, options.rounds, interpreter)
        if options.record:
            options.record.mkdir(parents=True, exist_ok=True)
            table.to_csv(options.record / f"training_{model_name}.csv", index=False, float_format="%.5g")
