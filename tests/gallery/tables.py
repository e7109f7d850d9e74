"""Models of tables: ratings of films by name, and a class that is rare."""

import keras
import numpy as np
from keras import layers

USERS = [f"user_{i}" for i in range(9)]
MOVIES = [f"movie_{i}" for i in range(7)]


def build_recommender():
    inputs = {name: keras.Input((), name=name, dtype="string") for name in ("user_id", "movie_id")}

    def embedded(name, vocabulary, width):
        numbers = layers.StringLookup(vocabulary=vocabulary, name=f"{name}_lookup_{width}")(inputs[name])
        penalty = keras.regularizers.L2(1e-6)
        return layers.Embedding(len(vocabulary) + 1, width, embeddings_regularizer=penalty)(numbers)

    match = layers.Dot(axes=1)([embedded("user_id", USERS, 8), embedded("movie_id", MOVIES, 8)])
    match = layers.add([match, embedded("user_id", USERS, 1), embedded("movie_id", MOVIES, 1)])
    model = keras.Model(inputs, layers.Activation("sigmoid")(match), name="recommender")
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    return model


def recommender_data():
    rng = np.random.default_rng(0)
    users, movies = rng.integers(0, len(USERS), 60), rng.integers(0, len(MOVIES), 60)
    stars = np.clip(np.round(3 + (users % 3 - 1) * (movies % 2 * 2 - 1) + rng.normal(0, 0.3, 60)), 1, 5)
    x = {"user_id": np.array(USERS, object)[users], "movie_id": np.array(MOVIES, object)[movies]}
    return x, ((stars - 1) / 4).astype("float32")


def build_imbalanced():
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="imbalanced",
    )
    metrics = [
        keras.metrics.FalseNegatives(name="fn"),
        keras.metrics.Precision(name="precision"),
        keras.metrics.Recall(name="recall"),
    ]
    model.compile(keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=metrics)
    return model


def imbalanced_data():
    rng = np.random.default_rng(0)
    y = (np.arange(63) % 9 == 0).astype("uint8")[:, None]
    return (rng.normal(size=(63, 10)) + y).astype("float32"), y


CLASS_WEIGHT = {0: 1 / 56, 1: 1 / 7}
"""One over the number of examples of each class."""
