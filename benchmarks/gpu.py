"""What batch size does on the GPU at hand, or on the processor where there is none: throughput, memory, updates, minima.

    [KERAS_BACKEND=jax] python benchmarks/gpu.py [--quick] [--net mlp|lenet|vgg] [--record figures/data/gpu]

One command on whichever backend Keras runs; each table names the backend and the device.

- `throughput.csv`: examples/s, and the peak memory, of stock `model.fit` against batch size, until throughput stops rising
  or memory ends, in a process of its own (`bs.probe_batch_sizes`); printed with the lines of time and memory.
- `updates.csv`: updates/s at B = 1, 32 and 128 by `stock` and by `fused`, median and range, timed alike.
- `replicas.csv`: updates/s of 2, 4 and 8 seeds side by side, of each counted, against one alone (`replicas.py`).
- `minima.csv`: points/s of a line and Hessian-vector products/s, eight at once, of the trained nets.
- `sweeps.csv`: sweeps of digits and MNIST: seconds of training, test accuracy and λ_max by batch size.

The MLP has 784-128-64-10 units on MNIST, LeNet is that of the article's table, and the VGG-like net has six convolutions of
32 to 128 maps on 32 × 32 × 3 noise, of which speed does not depend. `--quick` takes a few minutes on two cores.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

from batchscape.quiet import import_keras

import_keras()

import keras
import numpy as np
import pandas as pd
from replicas import compare

import batchscape as bs
from batchscape import backend

BATCH_SIZES_OF_UPDATES = (1, 32, 128)
EXAMPLES = {"mlp": 5_000, "lenet": 10_000, "vgg": 2_048}
"""Rows that minima are measured on."""
POINTS, VECTORS = 32, 8


def vgg(data: bs.Data) -> keras.Model:
    """Three blocks of two 3 × 3 convolutions and a pooling, and a dense head."""
    layers = keras.layers
    blocks = [
        layer
        for maps in (32, 64, 128)
        for layer in (
            layers.Conv2D(maps, 3, padding="same", activation="relu"),
            layers.Conv2D(maps, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
        )
    ]
    head = [layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10)]
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), *blocks, *head], name="vgg")


def net_and_data(name: str, rows: int | None = None):
    """What builds a net, and what it trains on."""
    if name != "vgg":
        return name, bs.load_dataset("mnist", train_size=rows)
    rng = np.random.default_rng(0)
    n = rows or 16_384
    x, y = rng.random((n, 32, 32, 3), dtype=np.float32), (np.arange(n) % 10).astype(np.int32)
    return vgg, bs.load_dataset(((x, y), (x[:100], y[:100])))


def throughput(name: str, *, quick: bool) -> pd.DataFrame:
    build, data = net_and_data(name, 4_096 if quick else None)
    sizes = (1, 8, 64, 256) if quick else None
    found = bs.probe_batch_sizes(build, data, batch_sizes=sizes, repeats=2 if quick else 5)
    print(found, flush=True)
    return found.table.assign(net=name, device=found.facts["device"])


def updates(name: str, *, rounds: int) -> pd.DataFrame:
    build, data = net_and_data(name, 4_096)
    tables = []
    for engine in ("stock", "fused"):
        found = bs.probe_batch_sizes(build, data, batch_sizes=BATCH_SIZES_OF_UPDATES, engine=engine, repeats=rounds)
        per_second = 1e3 / found.measured[["ms", "ms_high", "ms_low"]].set_axis(["per_s", "low", "high"], axis=1)
        tables.append(per_second.assign(net=name, engine=engine, batch=found.measured["batch"], rounds=rounds))
    return shown(pd.concat(tables))


def replicas(name: str, *, rounds: int) -> pd.DataFrame:
    build, data = net_and_data(name, 4_096)
    return shown(compare(build, data, BATCH_SIZES_OF_UPDATES, rounds).assign(net=name))


def minima(name: str, *, rounds: int, quick: bool) -> pd.DataFrame:
    build, data = net_and_data(name, EXAMPLES[name] // (10 if quick else 1))
    model = bs.build_model(build, data, seed=0)
    f = bs.Objective(model, data.x_train, data.y_train, metrics=())
    weights, vectors = f.weights, np.random.default_rng(0).choice([-1.0, 1.0], size=(VECTORS, f.n_parameters))
    direction, steps = bs.random_directions(f, weights, 1), np.linspace(-1, 1, POINTS)[:, None]
    ways = {
        "points of a line": (POINTS, lambda: f.evaluate_along(weights, direction, steps)),
        "Hessian-vector products": (VECTORS, lambda: f.hessian_products(weights, vectors)),
    }
    rows = []
    for quantity, (amount, run) in ways.items():
        run()  # Compiles.
        rates = []
        for _ in range(rounds):
            begin = time.perf_counter()
            run()
            rates.append(amount / (time.perf_counter() - begin))
        rows.append({"net": name, "quantity": quantity, "rows": f.n_examples, "per_s": statistics.median(rates),
                     "low": min(rates), "high": max(rates), "rounds": rounds})  # fmt: skip
    return shown(pd.DataFrame(rows))


def sweeps(*, quick: bool) -> pd.DataFrame:
    seeds, epochs = (range(2), 2) if quick else (range(6), 10)
    tables, folder = [], tempfile.mkdtemp(prefix="batchscape-")  # Afresh: what a store has would not be timed.
    for name, sizes in {"digits": (8, 32, 128, 512), "mnist": (32, 256, 2048)}.items():
        if quick and name == "mnist":
            continue
        grid = bs.Grid(dataset=name, model="mlp", batch_size=sizes, learning_rate=0.1, epochs=epochs, seed=seeds)
        begin = time.perf_counter()
        runs = bs.run_sweep(grid, store=f"{folder}/{name}", executor="serial")
        wall, data = time.perf_counter() - begin, bs.load_dataset(name)
        f = bs.Objective(bs.build_model("mlp", data), data.x_train, data.y_train, metrics=())
        store = bs.Store(f"{folder}/{name}")
        top = [bs.hessian_eigenvalues(f, store.load(run).weights["final"]).values[0] for run in runs["hash"]]
        kept = runs[["batch", "seed", "seconds", "updates", "train_loss", "test_accuracy"]]
        tables.append(kept.assign(dataset=name, lambda_max=top, sweep_seconds=wall))
    table = pd.concat(tables)
    shown(table.groupby(["dataset", "batch"]).mean(numeric_only=True).drop(columns="seed").reset_index())
    return table


def shown(table: pd.DataFrame) -> pd.DataFrame:
    print(table.to_string(index=False, float_format="%.4g"), "\n", flush=True)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it runs")
    parser.add_argument("--net", choices=tuple(EXAMPLES), action="append", help="all three by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", type=pathlib.Path, help="folder for the tables, figures/data/gpu for ours")
    options = parser.parse_args()
    nets, rounds = options.net or tuple(EXAMPLES), 2 if options.quick else options.rounds
    made = {
        "throughput": pd.concat([throughput(net, quick=options.quick) for net in nets]),
        "updates": pd.concat([updates(net, rounds=rounds) for net in nets]),
        "replicas": pd.concat([replicas(net, rounds=rounds) for net in nets]),
        "minima": pd.concat([minima(net, rounds=rounds, quick=options.quick) for net in nets]),
        "sweeps": sweeps(quick=options.quick),
    }
    device = made["throughput"]["device"].iloc[0]
    print(f"Keras on {backend.name()}, device: {device}")
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        for kind, frame in made.items():
            named = frame.assign(backend=backend.name(), device=device)
            named.to_csv(options.record / f"{kind}_{backend.name()}.csv", index=False, float_format="%.5g")
