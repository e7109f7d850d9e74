"""The models of the gallery are trained and measured as plain Keras trains and evaluates them."""

import keras
import numpy as np
import pandas as pd
import pytest

from tests.gallery import GALLERY, table
from tests.gallery.measured import BATCH_SIZES, Swept, landscape

pytestmark = pytest.mark.tensorflow

EVERY_DAY = ("mnist", "mini_gpt", "imbalanced")
NAMES = [pytest.param(name, marks=[] if name in EVERY_DAY else pytest.mark.long) for name in GALLERY]


def arguments(data):
    """What `fit` is given: arrays in batches of 8, and a data set as it is."""
    if not isinstance(data, (tuple, np.ndarray)):
        return {"x": data}
    parts = data if isinstance(data, tuple) else (data,)
    return {**dict(zip(("x", "y", "sample_weight"), parts, strict=False)), "batch_size": 8}


# `fit` shuffles by default, and Keras 3.15 warns of that default wherever it is given a tf.data.Dataset.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.long
@pytest.mark.parametrize("name", GALLERY)
def test_plain_keras_trains_it(name):
    entry = GALLERY[name]
    keras.utils.set_random_seed(0)
    model = entry.build()
    history = model.fit(**arguments(entry.data()), **entry.options, epochs=2, verbose=0).history
    assert np.isfinite(list(history.values())).all()


# Keras says so of the output without a loss.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_trains_it_and_its_loss_is_that_of_evaluate(name, tmp_path):
    entry = GALLERY[name]
    swept = Swept(entry, tmp_path)
    assert set(swept.runs["status"]) == {"COMPLETE"}
    if refusal := swept.refusal():
        assert name == "dcgan"
        assert "give measure=..., a function (model, x, y) -> loss" in refusal
        assert np.isfinite(swept.runs[["fit_d_loss", "fit_g_loss"]]).all(axis=None)
        return
    if name in EVERY_DAY:
        assert swept.difference((BATCH_SIZES[0],)) < 1e-5
        return
    assert swept.difference() < 1e-5
    found = landscape(swept.objective(), swept.weights["initial"], swept.weights["final"])
    assert found["line"] < 1e-5
    assert found["asymmetry"] < 1e-3 or name == "ocr"  # TensorFlow has no second derivative of CTC.
    assert np.isfinite(found["trace_cov"])
    assert swept.milliseconds() > 0


def test_the_page_of_the_gallery_shows_its_rows():
    rows = pd.read_csv(table.ROWS)
    assert list(rows["model"]) == list(GALLERY)
    assert table.PAGE.read_text() == table.page(rows)
