"""Small models that several tests share."""

import importlib

import keras
import numpy as np

import batchscape as bs

tf = importlib.import_module("tensorflow") if keras.backend.backend() == "tensorflow" else None
"""TensorFlow, where it is the backend."""

ENGINES = ("stock", "dataset", "fused") if tf else ("stock", "fused")
"""The engines that there are."""


class OneDense(keras.Model):
    """A subclassed model of one layer with three outputs."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def float64(build):
    """Build a model in float64 throughout."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        keras.utils.set_random_seed(3)
        return build()
    finally:
        keras.config.set_dtype_policy(before)


class Weights(keras.layers.Layer):
    """Its output is a function of its weights alone."""

    def __init__(self, function, n):
        super().__init__()
        self.function, self.n = function, n

    def build(self, _):
        self.w = self.add_weight(shape=(self.n,))

    def call(self, inputs):
        return 0 * inputs + self.function(self.w)


def probe(function, n=2, **options):
    """An objective whose loss is a function of its n weights, in float64: for the geometry of lines and planes."""
    model = float64(lambda: keras.Sequential([keras.Input((1,)), Weights(function, n)]))
    one = np.ones((1, 1))
    return bs.Objective(model, one, one, lambda _, y_pred: y_pred[:, 0], metrics=(), **options)
