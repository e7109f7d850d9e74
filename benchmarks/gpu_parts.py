"""The parts of `gpu.py`: each is a generator of (table, row), and what it has yielded is on disk."""

import dataclasses
import itertools
import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from batchscape.backend.importing import import_keras

import_keras()

import gpu
import keras
import numpy as np
import pandas as pd

import batchscape as bs
from batchscape import backend
from batchscape.cost.probe_input import ProbeInput
from batchscape.cost.steps import Steps
from batchscape.system import memory
from batchscape.train.parallel_seeds import ParallelSeedsTrainer
from batchscape.train.record import Status, environment
from batchscape.train.trainer import Trainer

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Names of tables, and a row for each."""

SEED = 0
STRATA = ("fixed rate", "fixed rate/batch")


class Scale(NamedTuple):
    """Sizes of all parts.

    Attributes:
        loop_batches: Batch sizes of the loop, rising.
        most_epochs: The loop trains for this many epochs at most.
        points: Points on its line.
        seeds_side_by_side: How many trainings at once are tried.
        seeds_epochs: Epochs of each.
        compared: How many of them are compared with the run alone.
        cifar_net, cifar_batches, cifar_seeds, cifar_epochs: The net of that part, batch sizes, seeds and epochs.
        speed_nets, speed_batches: Nets and batch sizes whose updates are timed.
        speed_seconds, speed_rounds: How long updates are timed in a round, and rounds.
        throughput_nets, throughput_batches: Nets, and the batch sizes of the climb.
        throughput_seconds: How long each is timed.
        resnet_blocks: Residual blocks in each stage of `resnet`.
        rows: Examples for points, products and the larger nets.
        pixels: Width and height of the images of the larger nets.
        train_size: Examples of digits.
    """

    loop_batches: tuple[int, ...] = (8, 32, 128, 512)
    most_epochs: int = 5
    points: int = 61
    seeds_side_by_side: tuple[int, ...] = (64, 256, 1024)
    seeds_epochs: int = 20
    compared: int = 100
    cifar_net: str = "cnn_bn"
    cifar_batches: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    cifar_seeds: int = 10
    cifar_epochs: int = 20
    speed_nets: tuple[str, ...] = ("mlp", "lenet", "cnn_bn")
    speed_batches: tuple[int, ...] = (1, 32, 128)
    speed_seconds: float = 0.2
    speed_rounds: int = 5
    throughput_nets: tuple[str, ...] = ("mlp", "lenet", "vgg", "resnet")
    throughput_batches: tuple[int, ...] = (1, 8, 32, 128, 512, 2048, 8192, 32768)
    throughput_seconds: float = 0.3
    resnet_blocks: int = 2
    rows: int = 16_384
    pixels: int = 32
    train_size: int = 0


SMALL = Scale(
    loop_batches=(16, 64),
    most_epochs=1,
    points=5,
    seeds_side_by_side=(2,),
    seeds_epochs=1,
    compared=2,
    cifar_net="mlp",
    cifar_batches=(32, 64),
    cifar_seeds=2,
    cifar_epochs=1,
    speed_nets=("mlp",),
    speed_batches=(8,),
    speed_seconds=0.01,
    speed_rounds=1,
    throughput_nets=("resnet",),
    throughput_batches=(2,),
    throughput_seconds=0.01,
    resnet_blocks=1,
    rows=64,
    pixels=8,
    train_size=128,
)
"""To see that everything works: digits, and few of them."""


class Part:
    """What a part needs to know.

    Args:
        end: `time.perf_counter()` at which it stops by itself.
        small: Whether it runs at the small scale.
    """

    def __init__(self, end: float, small: bool):
        self.end, self.small, self.scale = end, small, SMALL if small else Scale()

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.end - time.perf_counter()

    def data(self, name: str, rows: int | None = None) -> bs.Data:
        """MNIST or CIFAR-10-5k; digits at the small scale, in three channels for CIFAR-10, so that no file is needed."""
        if not self.small:
            return bs.load_dataset(name, train_size=rows)
        digits = bs.load_dataset("digits", train_size=self.scale.train_size)
        channels = 3 if name == "cifar10_5k" else 1
        inputs = {f"x_{part}": np.repeat(digits.split(part)[0], channels, axis=-1) for part in ("train", "val", "test")}
        return dataclasses.replace(digits, **inputs)


def run(name: str, record: pathlib.Path, *, end: float, small: bool) -> None:
    """Run a part, write each of its tables whenever a row is finished, and print them at the end.

    Files are called `gpu_TABLE.csv.gz`, or `cpu_TABLE.csv.gz` where there is no GPU, so that one folder holds both.

    Args:
        name: The part.
        record: Folder for the tables.
        end: `time.perf_counter()` at which it stops by itself.
        small: Whether it runs at the small scale.
    """
    device, rows = backend.device(), {}
    kind = "cpu" if device == "CPU" else "gpu"
    record.mkdir(parents=True, exist_ok=True)
    about = {"device": device, "backend": backend.name(), "environment": environment(), "small": small}
    gpu.note(record, **{"profile": "smoke" if small else "gpu", kind: about})
    for table, row in PARTS[name](Part(end, small)):
        rows.setdefault(table, []).append(row | {"device": device, "backend": backend.name()})
        file, zipped = record / f"{kind}_{table}.csv.gz", {"method": "gzip", "mtime": 0}
        pd.DataFrame(rows[table]).to_csv(file, index=False, float_format="%.6g", compression=zipped)
    for table, found in rows.items():
        frame = pd.DataFrame(found).drop(columns=["device", "backend"])
        shown = frame if len(frame) <= 40 else frame.iloc[:: len(frame) // 20]
        text = shown.to_string(index=False, float_format="%.4g")
        print(f"{table}, on {device} by {backend.name()}:\n{text}\n", flush=True)


def loop(part: Part) -> Rows:
    """The loop over batch sizes that a reader would write, and the loss on the line between its two ends."""
    scale, data = part.scale, part.data("mnist")
    x, y = data.x_train, data.y_train
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    base = scale.loop_batches[-2] if len(scale.loop_batches) > 2 else scale.loop_batches[0]
    epochs = _epochs_that_fit(part, data, cross_entropy)
    ends = {stratum: [] for stratum in STRATA}
    for stratum in STRATA:
        for batch_size in scale.loop_batches:
            learning_rate = 0.1 if stratum == "fixed rate" else 0.1 * batch_size / base
            model = bs.build_model("mlp", data, seed=SEED)
            model.compile(keras.optimizers.SGD(learning_rate), cross_entropy, metrics=["accuracy"])
            begin = time.perf_counter()
            history = model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)
            seconds = time.perf_counter() - begin
            loss, accuracy = model.evaluate(data.x_test, data.y_test, batch_size=2048, verbose=0)
            if batch_size in (scale.loop_batches[0], scale.loop_batches[-1]):
                ends[stratum].append(model.get_weights())
            yield "loop", {
                "stratum": stratum, "batch": batch_size, "learning_rate": learning_rate, "epochs": epochs,
                "updates": int(model.optimizer.iterations), "seconds": seconds,
                "history_loss": history.history["loss"][-1], "test_loss": loss, "test_accuracy": accuracy,
                "dataset": data.meta["name"], "n": data.n_train,
            }  # fmt: skip
    splits = {name: bs.Objective(model, *data.split(name)) for name in ("train", "test")}
    for stratum, (split, f) in itertools.product(STRATA, splits.items()):
        line = bs.interpolate(f, *ends[stratum], np.linspace(-0.5, 1.5, scale.points))
        for alpha, loss, accuracy in zip(line.alphas, line.loss, line.accuracy, strict=True):
            names = {"batch_a": scale.loop_batches[0], "batch_b": scale.loop_batches[-1], "epochs": epochs}
            row = {"stratum": stratum, "split": split, "seed": SEED, "alpha": alpha, "loss": loss, "accuracy": accuracy}
            yield "line", row | names


def _epochs_that_fit(part: Part, data: bs.Data, loss: keras.Loss) -> int:
    """How many epochs of the loop fit into 60 % of the time left, from a few hundred updates at its smallest batch size."""
    batch = part.scale.loop_batches[0]
    if part.scale.most_epochs == 1:
        return 1
    model = bs.build_model("mlp", data, seed=SEED)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    some = min(data.n_train, 300 * batch)
    model.fit(data.x_train[:batch], data.y_train[:batch], batch_size=batch, verbose=0)  # Compiles.
    begin = time.perf_counter()
    model.fit(data.x_train[:some], data.y_train[:some], batch_size=batch, verbose=0)
    of_update = (time.perf_counter() - begin) / (some / batch)
    updates = sum(data.n_train / size for size in part.scale.loop_batches)
    return int(np.clip(0.6 * part.left / (len(STRATA) * updates * of_update), 1, part.scale.most_epochs))


def seeds(part: Part) -> Rows:
    """Complete trainings side by side, as many as fit into half of the time; some of them again, alone."""
    scale, data = part.scale, bs.load_dataset("digits")
    first, begin = _seed_cell(0, scale), time.perf_counter()
    half = part.left / 2
    done, kept, rates, number = 0, {}, {}, scale.seeds_side_by_side[0]
    trainer = None
    while time.perf_counter() - begin < half and (not part.small or done == 0):
        untried = [count for count in scale.seeds_side_by_side if count not in rates]
        best = max(rates, key=rates.get, default=0)
        climbing = untried and (not rates or best == max(rates))
        count = untried[0] if climbing else best
        if trainer is None or count != number:
            trainer, number = ParallelSeedsTrainer(first, data, "mlp", count), count
            trainer.seconds_per_update(first)  # Compiles.
        start = time.perf_counter()
        records = trainer.run_together([_seed_cell(seed, scale) for seed in range(done, done + count)])
        seconds = time.perf_counter() - start
        rates[count] = count / seconds
        kept |= {record.cell.seed: record for record in records[: scale.compared - len(kept)]}
        done += count
        yield "seeds", {
            "way": "side by side", "side_by_side": count, "trainings": count, "seconds": seconds, "per_s": count / seconds,
            "all_trainings": done, "all_seconds": time.perf_counter() - begin, "epochs": scale.seeds_epochs, "batch": 32,
        }  # fmt: skip
    alone, times, differences = Trainer(first, data, "mlp"), [], []
    alone.run(first)  # Compiles.
    for seed, beside in kept.items():
        if part.left < 0:
            break
        start = time.perf_counter()
        record = alone.run(_seed_cell(seed, scale))
        times.append(time.perf_counter() - start)
        pairs = zip(record.weights["final"], beside.weights["final"], strict=True)
        weights = max(float(np.abs(a - b).max()) for a, b in pairs)
        differences.append((weights, abs(record.final["train_loss"] - beside.final["train_loss"])))
    weights, losses = np.max(differences, axis=0)
    yield "seeds", {
        "way": "alone", "side_by_side": 1, "trainings": len(times), "seconds": sum(times), "per_s": len(times) / sum(times),
        "all_trainings": done, "all_seconds": time.perf_counter() - begin, "epochs": scale.seeds_epochs, "batch": 32,
        "largest_difference_of_weights": weights, "largest_difference_of_losses": losses,
    }  # fmt: skip


def _seed_cell(seed: int, scale: Scale) -> bs.Cell:
    epochs = scale.seeds_epochs
    return bs.Cell(batch_size=32, learning_rate=0.1, epochs=epochs, evaluate_every=epochs, engine="fused", seed=seed)


def cifar(part: Part) -> Rows:
    """Updates, losses, test accuracy and λ_max of the CNN; the two strata meet in the middle of the batch sizes.

    The last partial batch is dropped: it would be a second program to compile at every size.
    """
    scale, data = part.scale, part.data("cifar10_5k")
    base = scale.cifar_batches[len(scale.cifar_batches) // 2 - 1]
    f = bs.Objective(bs.build_model(scale.cifar_net, data, seed=SEED), data.x_train, data.y_train, metrics=())
    trainer = None
    largest_first = sorted(scale.cifar_batches, reverse=True)  # Quick ones first.
    for batch_size, (stratum, policy) in itertools.product(
        largest_first, zip(STRATA, ("fixed", "linear"), strict=True)
    ):
        if part.left < 0:
            return
        if batch_size == base:  # Both strata: the same cells.
            if policy == "linear":
                continue
            stratum = "both"
        cells = [
            bs.Cell(
                model=scale.cifar_net, batch_size=batch_size, learning_rate=0.1, lr_policy=policy, base_batch_size=base,
                last_batch="drop", epochs=scale.cifar_epochs, evaluate_every=scale.cifar_epochs, engine="fused", seed=seed,
            )
            for seed in range(scale.cifar_seeds)
        ]  # fmt: skip
        trainer = trainer or ParallelSeedsTrainer(cells[0], data, scale.cifar_net, len(cells))
        begin = time.perf_counter()
        records = trainer.run_together(cells)
        seconds = time.perf_counter() - begin
        for record in records:
            finite = record.status is Status.COMPLETE
            top = bs.hessian_eigenvalues(f, record.weights["final"]) if finite else None
            yield "cifar", {
                "stratum": stratum, "batch": batch_size, "seed": record.cell.seed, "status": str(record.status),
                "learning_rate": record.facts["learning_rate"], "epochs": scale.cifar_epochs,
                "updates": record.final["updates"], "seconds_of_all": seconds,
                "train_loss": record.final["train_loss"], "test_loss": record.final["test_loss"],
                "test_accuracy": record.final["test_accuracy"],
                "lambda_max": top.values[0] if finite else np.nan, "converged": bool(finite and top.converged),
                "net": scale.cifar_net, "dataset": data.meta["name"], "n": data.n_train,
            }  # fmt: skip


def speed(part: Part) -> Rows:
    """Updates a second, stock against fused in turn; points of a line and Hessian-vector products a second."""
    scale = part.scale
    for net in scale.speed_nets:
        data = part.data("cifar10_5k" if net == "cnn_bn" else "mnist", rows=4_000)  # `fit` copies all at every call.
        steps = {engine: Steps(ProbeInput(net, data, engine=engine)) for engine in ("stock", "fused")}
        for batch in scale.speed_batches:
            if part.left < 0:
                return
            for engine in steps:
                steps[engine].measure(batch, scale.speed_seconds)  # Compiles.
            times = {engine: [] for engine in steps}
            for _ in range(scale.speed_rounds):
                for engine, found in times.items():
                    found.append(steps[engine].time(batch, scale.speed_seconds).update)
            for engine, found in times.items():
                yield "speed", {"net": net, "quantity": "updates", "engine": engine, "batch": batch, **_rates(1, found)}
        if part.left < 0:
            return
        f = bs.Objective(
            bs.build_model(net, data, seed=SEED), data.x_train[: scale.rows], data.y_train[: scale.rows], metrics=()
        )
        weights, vectors = f.weights, np.random.default_rng(0).choice([-1.0, 1.0], size=(8, f.n_parameters))
        direction, places = bs.random_directions(f, weights, 1), np.linspace(-1, 1, 32)[:, None]
        ways = {
            "points": (32, lambda f=f, w=weights, d=direction, p=places: f.evaluate_along(w, d, p)),
            "Hessian-vector products": (8, lambda f=f, w=weights, v=vectors: f.hessian_products(w, v)),
        }
        for quantity, (amount, call) in ways.items():
            call()  # Compiles.
            times = [_seconds_of(call) for _ in range(scale.speed_rounds)]
            yield (
                "speed",
                {"net": net, "quantity": quantity, "engine": "", "batch": f.n_examples, **_rates(amount, times)},
            )


def _rates(amount: int, seconds: list[float]) -> dict[str, float]:
    """How many a second: the median, and the range over rounds."""
    rates = [amount / value for value in seconds]
    return {"per_s": statistics.median(rates), "low": min(rates), "high": max(rates), "rounds": len(rates)}


def _seconds_of(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def throughput(part: Part) -> Rows:
    """Examples a second and peak memory against batch size, until memory ends or throughput stops rising."""
    own = {"vgg": vgg, "resnet": lambda data: resnet(data, blocks=part.scale.resnet_blocks)}
    for precision, net in itertools.product(("float32", "mixed_bfloat16"), part.scale.throughput_nets):
        data = _noise(part.scale.rows, part.scale.pixels) if net in own else part.data("mnist")
        steps, best = None, 0.0
        for batch in [size for size in part.scale.throughput_batches if size <= data.n_train]:
            if part.left < 0:
                return
            steps = steps or Steps(ProbeInput(own.get(net, net), data, precision=precision))
            row = {"net": net, "precision": precision, "batch": batch, "device_bytes": steps.facts["device_memory"]}
            try:
                found = steps.measure(batch, part.scale.throughput_seconds)
            except Exception as error:
                if not memory.ran_out(error):
                    raise
                yield "throughput", row | {"outcome": "out of memory"}
                break
            per_second = batch / found["seconds"]
            rises = per_second >= 1.05 * best
            best = max(best, per_second)
            outcome = "measured" if rises else "measured; throughput stopped rising"
            numbers = {"ms": 1e3 * found["seconds"], "samples_per_s": per_second, "peak_bytes": found["peak_bytes"]}
            yield "throughput", row | numbers | {"outcome": outcome}
            if not rises:
                break


def _noise(rows: int, pixels: int) -> bs.Data:
    """Square images of noise in three channels, of ten classes: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    x, y = rng.random((rows, pixels, pixels, 3), dtype=np.float32), (np.arange(rows) % 10).astype(np.int32)
    return bs.load_dataset(((x, y), (x[:100], y[:100])))


def vgg(data: bs.Data) -> keras.Model:
    """A VGG-like net: three blocks of two 3 × 3 convolutions, 64 to 256 maps, and a pooling, then a dense layer."""
    layers = keras.layers
    convolution = lambda maps: layers.Conv2D(maps, 3, padding="same", activation="relu")  # noqa: E731
    blocks = [
        layer for maps in (64, 128, 256) for layer in (convolution(maps), convolution(maps), layers.MaxPooling2D())
    ]
    head = [layers.Flatten(), layers.Dense(256, "relu"), layers.Dense(10)]
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), *blocks, *head], name="vgg")


def resnet(data: bs.Data, *, blocks: int) -> keras.Model:
    """A ResNet-like net: three stages of residual blocks, 32 to 128 maps, BatchNorm, and global average pooling."""
    layers = keras.layers
    inputs = x = keras.Input(data.x_train.shape[1:])
    x = layers.Conv2D(32, 3, padding="same")(x)
    for stage, maps in enumerate((32, 64, 128)):
        for block in range(blocks):
            if stage and not block:
                x = layers.AveragePooling2D(2)(x)
            shortcut = layers.Conv2D(maps, 1)(x) if x.shape[-1] != maps else x
            for _ in range(2):
                x = layers.ReLU()(layers.BatchNormalization()(x))
                x = layers.Conv2D(maps, 3, padding="same")(x)
            x = layers.Add()([x, shortcut])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, layers.Dense(10)(x), name="resnet")


PARTS = {"loop": loop, "seeds": seeds, "cifar": cifar, "speed": speed, "throughput": throughput}
