"""Models of sequences: a forecast from windows of a series, and characters read from strips."""

import keras
import numpy as np
from keras import layers


def build_forecast():
    inputs = keras.Input((12, 3))
    x = layers.LSTM(8)(inputs)
    outputs = layers.Dense(1)(x)
    model = keras.Model(inputs, outputs, name="forecast")
    model.compile(keras.optimizers.Adam(learning_rate=0.01), loss="mse")
    return model


def forecast_data():
    rng = np.random.default_rng(0)
    time = np.arange(90)
    series = np.stack([np.sin(time / period) for period in (3, 5, 8)], axis=1) + rng.normal(0, 0.1, (90, 3))
    past, future = 12 * 2, 6
    x = series[: -past - future].astype("float32")
    y = series[past + future :, :1].astype("float32")
    return keras.utils.timeseries_dataset_from_array(x, y, sequence_length=12, sampling_rate=2, batch_size=8)


N_CHARACTERS = 4


def build_ocr():
    inputs = keras.Input((24, 8, 1), name="image")
    x = layers.Conv2D(8, 3, activation="relu", padding="same", kernel_initializer="he_normal")(inputs)
    x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Reshape((12, 32))(x)
    x = layers.Dense(16, activation="relu")(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True, dropout=0.25))(x)
    outputs = layers.Dense(N_CHARACTERS + 1)(x)
    model = keras.Model(inputs, outputs, name="ocr")
    model.compile(keras.optimizers.Adam(0.01), loss=keras.losses.CTC())
    return model


def ocr_data():
    """Strips of 2 to 4 characters, six columns each, with the row pair of a character bright; 0 pads their labels."""
    rng = np.random.default_rng(0)
    n = 52
    labels = np.where(np.arange(4) < rng.integers(2, 5, n)[:, None], rng.integers(1, N_CHARACTERS + 1, (n, 4)), 0)
    images = rng.uniform(0, 0.2, (n, 4, 6, 8, 1))
    for image, label in zip(images, labels, strict=True):
        for character, block in zip(label, image, strict=True):
            if character:
                block[1:5, 2 * character - 2 : 2 * character] += 0.8
    return images.reshape(n, 24, 8, 1).astype("float32"), labels.astype("int32")
