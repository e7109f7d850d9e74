"""Models that make something: images from codes, images from noise, and captions of images."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.gallery.made import pictures


class VectorQuantizer(layers.Layer):
    """The nearest vectors of a codebook, with gradients passed straight through."""

    def __init__(self, n_codes, width, beta=0.25):
        super().__init__()
        self.n_codes, self.width, self.beta = n_codes, width, beta

    def build(self, _):
        self.codes = self.add_weight(shape=(self.n_codes, self.width), initializer="random_uniform", name="codes")

    def call(self, x):
        flat = ops.reshape(x, (-1, self.width))
        distances = (
            ops.sum(flat**2, axis=1, keepdims=True)
            + ops.sum(self.codes**2, axis=1)
            - 2 * ops.matmul(flat, ops.transpose(self.codes))
        )
        nearest = ops.reshape(ops.take(self.codes, ops.argmin(distances, axis=1), axis=0), ops.shape(x))
        commitment = ops.mean((ops.stop_gradient(nearest) - x) ** 2)
        codebook = ops.mean((nearest - ops.stop_gradient(x)) ** 2)
        self.add_loss(self.beta * commitment + codebook)
        return x + ops.stop_gradient(nearest - x)


def build_vq_vae():
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, activation="relu", strides=2, padding="same")(inputs)
    x = layers.Conv2D(16, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2D(8, 1, padding="same")(x)
    x = VectorQuantizer(16, 8)(x)
    x = layers.Conv2DTranspose(16, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(8, 3, activation="relu", strides=2, padding="same")(x)
    outputs = layers.Conv2DTranspose(1, 3, padding="same")(x)
    model = keras.Model(inputs, outputs, name="vq_vae")
    model.compile(keras.optimizers.Adam(3e-3), loss="mse")
    return model


def vq_vae_data():
    images, _ = pictures(52, 16, 4, channels=1)
    return images, images


class GAN(keras.Model):
    """A discriminator and a generator that are trained in turn."""

    def __init__(self, discriminator, generator, latent_dim):
        super().__init__()
        self.discriminator, self.generator, self.latent_dim = discriminator, generator, latent_dim
        self.seed_generator = keras.random.SeedGenerator(1337)

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn
        self.d_loss_metric = keras.metrics.Mean(name="d_loss")
        self.g_loss_metric = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_loss_metric, self.g_loss_metric]

    def noise(self, n):
        return keras.random.normal((n, self.latent_dim), seed=self.seed_generator)

    def train_step(self, real_images):
        n = ops.shape(real_images)[0]
        images = ops.concatenate([self.generator(self.noise(n)), real_images])
        labels = ops.concatenate([ops.ones((n, 1)), ops.zeros((n, 1))])
        labels += 0.05 * keras.random.uniform((2 * n, 1), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(images))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))

        with tf.GradientTape() as tape:
            judged = self.discriminator(self.generator(self.noise(n)))
            g_loss = self.loss_fn(ops.zeros((n, 1)), judged)
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))

        self.d_loss_metric.update_state(d_loss)
        self.g_loss_metric.update_state(g_loss)
        return {"d_loss": self.d_loss_metric.result(), "g_loss": self.g_loss_metric.result()}


def build_dcgan():
    discriminator = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(16, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="discriminator",
    )
    generator = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(2 * 2 * 8),
            layers.Reshape((2, 2, 8)),
            layers.Conv2DTranspose(8, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(8, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(1, 5, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )
    gan = GAN(discriminator, generator, latent_dim=8)
    gan.compile(
        d_optimizer=keras.optimizers.Adam(learning_rate=1e-3),
        g_optimizer=keras.optimizers.Adam(learning_rate=1e-3),
        loss_fn=keras.losses.BinaryCrossentropy(),
    )
    return gan


def dcgan_data():
    return pictures(52, 8, 2, channels=1)[0]


class Captioner(keras.Model):
    """Captions word by word from the features of an image; every image has several captions."""

    def __init__(self, cnn, decoder):
        super().__init__()
        self.cnn, self.decoder = cnn, decoder
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.acc_tracker = keras.metrics.Mean(name="accuracy")

    @property
    def metrics(self):
        return [self.loss_tracker, self.acc_tracker]

    def loss_and_accuracy(self, features, caption, training):
        """Means over the words of one caption of each image."""
        words, following = caption[:, :-1], caption[:, 1:]
        predicted = self.decoder([features, words], training=training)
        mask = ops.cast(following != 0, "float32")
        loss = ops.sum(self.loss(following, predicted) * mask) / ops.sum(mask)
        right = ops.cast(ops.equal(ops.argmax(predicted, axis=-1), following), "float32")
        return loss, ops.sum(right * mask) / ops.sum(mask)

    def logs(self, losses, accuracies):
        self.loss_tracker.update_state(sum(losses))
        self.acc_tracker.update_state(sum(accuracies) / len(accuracies))
        return {"loss": self.loss_tracker.result(), "acc": self.acc_tracker.result()}

    def train_step(self, data):
        images, captions = data
        features, losses, accuracies = self.cnn(images), [], []
        weights = self.decoder.trainable_variables
        for i in range(captions.shape[1]):
            with tf.GradientTape() as tape:
                loss, accuracy = self.loss_and_accuracy(features, captions[:, i], training=True)
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            losses.append(loss)
            accuracies.append(accuracy)
        return self.logs(losses, accuracies)

    def test_step(self, data):
        images, captions = data
        features = self.cnn(images)
        each = [self.loss_and_accuracy(features, captions[:, i], training=False) for i in range(captions.shape[1])]
        return self.logs(*zip(*each, strict=True))


def captions_loss(model, images, captions):
    """What `test_step` reports of a batch: the sum of the losses of all captions of an image."""
    features = model.cnn(images)
    return sum(model.loss_and_accuracy(features, captions[:, i], training=False)[0] for i in range(captions.shape[1]))


def build_captions():
    cnn = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(8, 4, strides=4, activation="relu"), layers.Reshape((-1, 8))],
        name="cnn",
    )
    cnn.trainable = False
    features, words = keras.Input((16, 8)), keras.Input((None,), dtype="int32")
    encoded = layers.Dense(16, activation="relu")(layers.LayerNormalization()(features))
    x = layers.Embedding(10, 16, mask_zero=True)(words)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, encoded))
    x = layers.Dropout(0.3)(x)
    decoder = keras.Model([features, words], layers.Dense(10, activation="softmax")(x), name="decoder")
    model = Captioner(cnn, decoder)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=False, reduction=None)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    return model


def captions_data():
    """Two captions of an image: it starts with 1, says its class in three or four words, and ends with 2."""
    images, labels = pictures(52, 16, 3)
    words = np.array(
        [
            [[1, 3, 6, 9, 2, 0], [1, 3, 6, 6, 9, 2]],
            [[1, 4, 7, 9, 2, 0], [1, 4, 7, 7, 9, 2]],
            [[1, 5, 8, 9, 2, 0], [1, 5, 8, 8, 9, 2]],
        ]
    )
    return images, words[labels].astype("int32")
