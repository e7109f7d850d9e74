"""Small models that several tests share."""

import keras


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
