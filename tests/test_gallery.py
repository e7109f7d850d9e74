"""Plain Keras trains every model of the gallery, from the same weights whenever it is built from the same seed."""

import keras
import numpy as np
import pytest

from tests.gallery import GALLERY

pytestmark = pytest.mark.tensorflow

EVERY_DAY = ("mnist", "mini_gpt", "tags")


def arguments(data):
    """What `fit` is given: arrays in batches of 8, and a data set as it is."""
    if not isinstance(data, (tuple, np.ndarray)):
        return {"x": data}
    parts = data if isinstance(data, tuple) else (data,)
    return {**dict(zip(("x", "y", "sample_weight"), parts, strict=False)), "batch_size": 8}


def built(entry):
    """The model with its first weights: a subclassed one that calls nothing has them from its first inputs."""
    keras.utils.set_random_seed(0)
    model = entry.build()
    if not (model.built or entry.own_step):
        model(entry.data()[0][:1])
    return model


# `fit` shuffles by default, and Keras 3.15 warns of that default wherever it is given a tf.data.Dataset.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EVERY_DAY else pytest.mark.long) for name in GALLERY]
)
def test_plain_keras_trains_it(name):
    entry = GALLERY[name]
    model, again = built(entry), built(entry)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {id(variable) for variable in model.variables}.isdisjoint(id(variable) for variable in again.variables)
    history = model.fit(**arguments(entry.data()), **entry.options, epochs=2, verbose=0).history
    assert np.isfinite(list(history.values())).all()
