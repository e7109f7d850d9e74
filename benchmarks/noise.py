"""‖gᵢ‖ of 10,000 MNIST images, four ways, interleaved in one go; and what the callback costs.

    python benchmarks/noise.py [--model mlp|lenet] [--rounds 5] [--peers PYTHON] [--record figures/data/speed]

`gradient_statistics` of batchscape, a loop of `GradientTape` calls (eager, over as many images as fit in a few seconds),
the same loop around one compiled step, and `torch.func.vmap(grad(...))` over blocks of images (the quickest of 50, 100
and 250) in an environment of its own. Each round runs all of them in turn and a ratio is taken within a round. The limit
is the plain gradient of all images, which any way must compute. Numbers held for each image of a block: ours none for
the MLP and 71,900 for LeNet (blocks of 455 images, 131 MB); vmap the 109,386 or 431,080 of its gradient. Then epochs of
training with and without `NoiseScaleCallback` at its default cadence, interleaved too.
"""

import argparse
import pathlib
import statistics
import subprocess
import tempfile
import time

from batchscape.backend.importing import import_keras

import_keras()

import json

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from training import find_peers

import batchscape as bs
from batchscape.landscape.objective import objective_of
from batchscape.system.cores import cores

IMAGES = 10_000
IN_A_LOOP = {"eager": 200, "compiled": 1000}
"""Images for the loops, which are the same work for each."""
OURS = "batchscape"
PAIRS_OF_EPOCHS = {"mlp": 5, "lenet": 1}
"""Pairs of epochs of training with and without the callback, in a round."""


class Ours:
    """`gradient_statistics`, up to ‖gᵢ‖ of all images."""

    images = IMAGES

    def __init__(self, model, data):
        self.f = objective_of(model, data)
        self.weights = self.f.weights

    def run(self):
        return bs.gradient_statistics(self.f, self.weights).norms


class PlainGradient(Ours):
    """The gradient of the mean loss and nothing else."""

    def run(self):
        return self.f.gradient(self.weights)


class Loop:
    """One `GradientTape` an image."""

    def __init__(self, model, data, *, compiled):
        self.images = IN_A_LOOP["compiled" if compiled else "eager"]
        self.model, self.loss = model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.x, self.y = tf.constant(data.x_train[: self.images]), tf.constant(data.y_train[: self.images])
        self.norm = tf.function(self._norm) if compiled else self._norm

    def _norm(self, x, y):
        with tf.GradientTape() as tape:
            loss = self.loss(y, self.model(x, training=False))
        return tf.linalg.global_norm(tape.gradient(loss, self.model.trainable_variables))

    def run(self):
        return np.array([float(self.norm(self.x[i : i + 1], self.y[i : i + 1])) for i in range(self.images)])


class Torch:
    """`vmap(grad)` of `peers/torch_noise.py`, in its own process and environment, with the weights of the model."""

    images = IMAGES

    def __init__(self, python, name, model, data, folder):
        script = pathlib.Path(__file__).with_name("peers") / "torch_noise.py"
        self.process = subprocess.Popen(
            [python, script, str(cores())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        file = pathlib.Path(folder) / "task.npz"
        weights = {f"w{i}": weight for i, weight in enumerate(model.get_weights())}
        np.savez(file, x=data.x_train, y=data.y_train, **weights)
        self.task = {"file": str(file), "model": name}

    def run(self):
        self.process.stdin.write(json.dumps(self.task) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], np.array(answer["norms"])


def compare(name: str, rounds: int, peers: str | None) -> pd.DataFrame:
    data = bs.load_dataset("mnist", train_size=IMAGES)
    model = bs.build_model(name, data, seed=0)
    ways = {OURS: Ours(model, data)}
    expected = ways[OURS].run()
    ways["plain gradient (limit)"] = PlainGradient(model, data)
    ways["tape, eager loop"] = Loop(model, data, compiled=False)
    ways["tape, compiled loop"] = Loop(model, data, compiled=True)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if peers:
            ways["torch vmap(grad)"] = Torch(peers, name, model, data, folder)
        for turn in range(rounds + 1):
            for way, contender in ways.items():
                begin = time.perf_counter()
                norms = contender.run()
                spent = time.perf_counter() - begin
                if isinstance(norms, tuple):
                    spent, norms = norms
                if turn:  # The first round compiles, and checks that all find the same.
                    times.setdefault(way, []).append(spent / contender.images)
                elif "limit" not in way:
                    np.testing.assert_allclose(norms, expected[: len(norms)], rtol=2e-3, atol=1e-5)
        if peers:
            ways["torch vmap(grad)"].process.communicate()
    print(f"\n{name}: ‖gᵢ‖ of {IMAGES} MNIST images, {cores()} cores")
    rows = []
    for way, spent in times.items():
        ratios = [theirs / mine for theirs, mine in zip(spent, times[OURS], strict=True)]
        ratio = [statistics.median(ratios), min(ratios), max(ratios)]
        row = {"model": name, "way": way, "images_per_s": 1 / statistics.median(spent)}
        row |= dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True))
        rows.append(row)
        print(f"{way:<24}{row['images_per_s']:>10.0f} images/s   {ratio[0]:7.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]")
    return pd.DataFrame(rows)


def cost_of_callback(name: str, rounds: int) -> pd.DataFrame:
    """Seconds of `model.fit` at B = 32, with the callback and without it, for some ten seconds each."""
    data = bs.load_dataset("mnist", train_size=IMAGES)
    model = bs.build_model(name, data, seed=0)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    f = objective_of(bs.build_model(name, data, seed=0), data)
    ratios, pairs = [], PAIRS_OF_EPOCHS[name]
    for turn in range(rounds + 1):
        spent = [0.0, 0.0]
        for _ in range(pairs if turn else 1):  # Two epochs of each in turn.
            for way, callbacks in enumerate(([], [bs.NoiseScaleCallback(f, 32)])):
                model.optimizer.iterations.assign(0)
                begin = time.perf_counter()
                model.fit(data.x_train, data.y_train, batch_size=32, epochs=2, callbacks=callbacks, verbose=0)
                spent[way] += time.perf_counter() - begin
        if turn:
            ratios.append(spent[1] / spent[0])
    ratio = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{name}: training with the callback takes × {ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}] as long")
    row = {"model": name, "way": "callback ÷ none", "ratio": ratio[0], "ratio_low": ratio[1], "ratio_high": ratio[2]}
    return pd.DataFrame([row])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("mlp", "lenet"), action="append", help="both by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="interpreter of an environment with PyTorch")
    parser.add_argument("--record", type=pathlib.Path, help="folder for the table, figures/data/speed for ours")
    options = parser.parse_args()
    interpreter = find_peers(options.peers)
    found = []
    for model_name in options.model or ("mlp", "lenet"):
        found += [compare(model_name, options.rounds, interpreter), cost_of_callback(model_name, options.rounds)]
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        pd.concat(found).to_csv(options.record / "noise.csv", index=False, float_format="%.5g")
