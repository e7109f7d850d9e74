"""Data made up from a seed, with enough structure for a loss to fall."""

import numpy as np


def pictures(n, size, n_classes, channels=3):
    """Noise with one bright band whose row tells the class: (images in [0, 1], labels), both of n rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    images = rng.uniform(0, 0.5, (n, size, size, channels))
    band = size // n_classes
    for image, label in zip(images, labels, strict=True):
        image[label * band : (label + 1) * band] += 0.5
    return images.astype("float32"), labels.astype("int32")


def padded(rng, n, length, vocabulary):
    """Sequences of 2 to `length` tokens in 1, …, vocabulary − 1, and zeros after them; shape (n, length)."""
    lengths = rng.integers(2, length + 1, n)
    tokens = rng.integers(1, vocabulary, (n, length))
    return np.where(np.arange(length) < lengths[:, None], tokens, 0).astype("int32")
