"""Convolutions on a CPU: where XLA pays, and what is left to the matrix limit.

    python benchmarks/convolution.py

First the rule of `batchscape.backend.xla` against a stopwatch: a fused update with and without XLA, interleaved, over batch
sizes; a star marks the choice of the rule, a question mark where the other one was faster by more than a third. Then
ways to bring the small CNN nearer to the limit: convolutions as matrix products of gathered patches (im2col), with and
without XLA, and a single thread.
"""

import os
import statistics
import subprocess
import sys
import time

from batchscape.backend.importing import import_keras

import_keras()

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from training import LEARNING_RATE, flops_per_update, gemm_rate

import batchscape as bs
from batchscape.backend import xla
from batchscape.system import cores
from batchscape.train import engine_tensorflow

ROUNDS = 7
UPDATES = 32
N = 600


def noise(side: int) -> bs.Data:
    """Images of noise, of which speed does not depend."""
    x = np.random.default_rng(0).random((N, side, side, 1), dtype=np.float32)
    return bs.load_dataset(((x, (np.arange(N) % 10).astype(np.int32)), (x[:50], np.arange(50) % 10)))


class Im2Col(layers.Layer):
    """A 3×3 convolution as one matrix product: the nine shifted copies of the input side by side."""

    def __init__(self, filters):
        super().__init__()
        self.filters = filters

    def build(self, shape):
        self.kernel = self.add_weight(shape=(9 * shape[-1], self.filters))

    def call(self, inputs):
        height, width = inputs.shape[1:3]
        padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
        patches = [padded[:, i : i + height, j : j + width, :] for i in range(3) for j in range(3)]
        return tf.nn.relu(tf.tensordot(tf.concat(patches, -1), self.kernel, 1))


class ReshapePool(layers.Layer):
    """2×2 max pooling as a maximum over two reshaped axes, which XLA fuses."""

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        return tf.reduce_max(tf.reshape(inputs, [-1, height // 2, 2, width // 2, 2, channels]), [2, 4])


def im2col_net(data):
    stack = [Im2Col(8), ReshapePool(), Im2Col(16), ReshapePool(), layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), *stack])


def fused(build, data, *, jit):
    model = bs.build_model(build, data, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss, jit_compile=False)
    return engine_tensorflow.fuse(model, data.examples("train"), jit=jit)


def microseconds(programs: dict, batch_size: int) -> dict:
    """Median time of an update of each program, all in turn in every round."""
    indices = tf.constant(np.resize(np.arange(N - 100), (UPDATES, batch_size)).astype(np.int32))
    times = {name: [] for name in programs}
    for _ in range(1 + ROUNDS):
        for name, program in programs.items():
            begin = time.perf_counter()
            float(program(indices, tf.constant(UPDATES))["path_length"])
            times[name].append((time.perf_counter() - begin) / UPDATES)
    return {name: 1e6 * statistics.median(values[1:]) for name, values in times.items()}


def check_rule() -> None:
    print(
        f"\nThe rule, {cores.threads()} threads: microseconds an update\n{'network':<12}{'B':>5}{'plain':>9}{'XLA':>9}"
    )
    for name, side in (("cnn", 8), ("cnn", 28), ("lenet", 28)):
        data = noise(side)
        programs = {jit: fused(name, data, jit=jit) for jit in (False, True)}
        work = xla.work_of(bs.build_model(name, data), data.x_train)
        for batch_size in (1, 2, 4, 8, 32, 128):
            found, chosen = microseconds(programs, batch_size), work.suits_xla(batch_size)
            wrong = found[chosen] > 1.33 * found[not chosen]
            marks = {jit: f"{found[jit]:.0f}{'*' if jit is chosen else ' '}" for jit in (False, True)}
            doubt = "  ?" if wrong else ""
            print(f"{name} {side:<8}{batch_size:>5}{marks[False]:>9}{marks[True]:>9}{doubt}", flush=True)
            if found[True] > 8 * found[False]:
                break


def try_ways() -> None:
    data, rate = noise(28), gemm_rate()
    programs = {
        "oneDNN convolutions": fused("cnn", data, jit=False),
        "im2col": fused(im2col_net, data, jit=False),
        "im2col, XLA": fused(im2col_net, data, jit=True),
    }
    print(f"\nWays nearer to the limit, {cores.threads()} threads: µs an update, share of {rate / 1e9:.0f} GFLOP/s")
    for batch_size in (1, 8, 32, 128):
        limit = 1e6 * flops_per_update("cnn", data, batch_size) / rate
        found = microseconds(programs, batch_size)
        shown = "   ".join(f"{name}: {seconds:.0f} ({limit / seconds:.0%})" for name, seconds in found.items())
        print(f"B = {batch_size:<4}{shown}", flush=True)


if __name__ == "__main__":
    check_rule()
    try_ways()
    if cores.threads() > 1:
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        subprocess.run([sys.executable, __file__], env=environment, check=True)
