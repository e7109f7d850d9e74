"""Models of images: a frozen base, files in folders, patches, masks, digits, and pairs of views."""

import atexit
import pathlib
import shutil
import tempfile

import keras
import numpy as np
from keras import layers, ops

from tests.gallery.made import pictures


def build_transfer():
    inputs = keras.Input((32, 32, 3))
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.RandomRotation(0.05)(x)
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    base.trainable = False
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs, name="transfer")
    model.compile(keras.optimizers.Adam(1e-2), "categorical_crossentropy", metrics=["accuracy"])
    return model


def transfer_data():
    images, labels = pictures(44, 32, 3)
    return (255 * images).astype("uint8"), keras.utils.to_categorical(labels, 3)


def build_files():
    inputs = keras.Input((24, 24, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    for filters in (12, 16):
        shortcut = layers.Conv2D(filters, 1, strides=2, padding="same")(x)
        x = layers.Activation("relu")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = layers.add([x, shortcut])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.25)(x)
    outputs = layers.Dense(1)(x)
    model = keras.Model(inputs, outputs, name="files")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=[keras.metrics.BinaryAccuracy(threshold=0, name="acc")])
    return model


def files_data():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gallery-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
    for i, (image, label) in enumerate(zip(*pictures(52, 28, 2), strict=True)):
        keras.utils.save_img(folder / ("cat", "dog")[label] / f"{i}.png", image)
    return keras.utils.image_dataset_from_directory(folder, image_size=(24, 24), batch_size=8, seed=1337, verbose=False)


class PatchEncoder(layers.Layer):
    """Patches as vectors, with their positions added."""

    def __init__(self, patch, width):
        super().__init__()
        self.cut = layers.Conv2D(width, patch, strides=patch)
        self.flatten = layers.Reshape((-1, width))
        self.width = width

    def build(self, shape):
        self.cut.build(shape)
        _, height, width, _ = self.cut.compute_output_shape(shape)
        self.position = layers.Embedding(height * width, self.width)
        self.position.build(None)
        self.n_patches = height * width

    def call(self, images):
        return self.flatten(self.cut(images)) + self.position(ops.arange(self.n_patches))


def build_vit():
    inputs = keras.Input((16, 16, 3))
    normalise = layers.Normalization()
    normalise.adapt(pictures(52, 16, 4)[0])
    x = normalise(inputs)
    x = layers.RandomFlip("horizontal")(x)
    x = PatchEncoder(4, 16)(x)
    for _ in range(2):
        normed = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 8, dropout=0.1)(normed, normed)])
        hidden = layers.LayerNormalization(epsilon=1e-6)(x)
        hidden = layers.Dense(16, activation="gelu")(hidden)
        hidden = layers.Dropout(0.1)(hidden)
        x = layers.Add()([x, hidden])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(4)(x)
    model = keras.Model(inputs, outputs, name="vit")
    model.compile(
        keras.optimizers.AdamW(learning_rate=3e-3, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def vit_data():
    images, labels = pictures(52, 16, 4)
    return images, labels[:, None]


class Pets(keras.utils.PyDataset):
    """Images with a mask each: what is in the band, its border, and the rest."""

    def __init__(self, batch_size, **options):
        super().__init__(**options)
        self.batch_size = batch_size
        self.images, labels = pictures(52, 16, 2)
        rows = np.arange(16)
        inside = (rows // 8)[None] == labels[:, None]
        border = np.isin(rows, (0, 7, 8, 15))[None] & inside
        masks = np.where(border, 2, inside)
        self.masks = np.broadcast_to(masks[:, :, None, None], (52, 16, 16, 1)).astype("uint8")

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.images[rows], self.masks[rows]


def build_segmentation():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    before = x = layers.Activation("relu")(x)
    x = layers.SeparableConv2D(12, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.add([x, layers.Conv2D(12, 1, strides=2, padding="same")(before)])
    for filters in (12, 8):
        shortcut = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(x))
        x = layers.Activation("relu")(x)
        x = layers.Conv2DTranspose(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.add([layers.UpSampling2D(2)(x), shortcut])
        if filters == 12:
            x = layers.concatenate([x, before])
    outputs = layers.Conv2D(3, 3, activation="softmax", padding="same")(x)
    model = keras.Model(inputs, outputs, name="segmentation")
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    return model


def segmentation_data():
    return Pets(batch_size=8)


def build_mnist():
    model = keras.Sequential(
        [
            keras.Input((14, 14, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(7, activation="softmax"),
        ],
        name="mnist",
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def mnist_data():
    images, labels = pictures(60, 14, 7, channels=1)
    return images, keras.utils.to_categorical(labels, 7)


def nt_xent(_, projections, temperature=0.1):
    """Cross-entropy of finding the other view of an example among all views of the batch.

    Args:
        projections: Two views of each example, shape (batch, 2, width).
        temperature: What cosines are divided by, > 0.

    Returns:
        Mean over the views, a scalar.
    """
    n = ops.shape(projections)[0]
    views = ops.normalize(ops.concatenate([projections[:, 0], projections[:, 1]]), axis=-1)
    logits = ops.matmul(views, ops.transpose(views)) / temperature - 1e9 * ops.eye(2 * n)
    partners = ops.concatenate([ops.arange(n) + n, ops.arange(n)])
    return ops.mean(keras.losses.sparse_categorical_crossentropy(partners, logits, from_logits=True))


def build_contrastive():
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
        ],
        name="encoder",
    )
    projection = keras.Sequential(
        [keras.Input((16,)), layers.Dense(16, activation="relu"), layers.Dense(8)], name="projection"
    )
    inputs = {name: keras.Input((16, 16, 3), name=name) for name in ("view_1", "view_2")}
    outputs = ops.stack([projection(encoder(view)) for view in inputs.values()], axis=1)
    model = keras.Model(inputs, outputs, name="contrastive")
    model.compile(keras.optimizers.Adam(3e-3), nt_xent)
    return model


def contrastive_data():
    rng = np.random.default_rng(1)
    images, labels = pictures(52, 16, 4)
    views = {}
    for name in ("view_1", "view_2"):
        brightness = rng.uniform(0.7, 1.3, (52, 1, 1, 1))
        views[name] = (images * brightness + rng.normal(0, 0.05, images.shape)).astype("float32")
    return views, np.zeros(len(labels), "float32")
