"""Models of text: raw strings, translation, tags, and two small GPTs."""

import keras
import numpy as np
from keras import layers, ops

from tests.gallery.made import padded

GOOD, BAD = ("a fine film", "great fun", "I loved it", "superb!"), ("a dull film", "no fun", "I hated it", "awful...")
REVIEWS = [f"{first} {second}" for group in (GOOD, BAD) for first in group for second in group]
"""Sixteen reviews of each kind, the good ones first."""


def build_reviews():
    vectorize = layers.TextVectorization(max_tokens=30, output_mode="int", output_sequence_length=10)
    vectorize.adapt(REVIEWS)
    inputs = keras.Input((1,), dtype="string", name="text")
    x = vectorize(inputs)
    x = layers.Embedding(30, 8)(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Conv1D(16, 3, padding="valid", activation="relu")(x)
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.Dense(16, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(1, activation="sigmoid", name="predictions")(x)
    model = keras.Model(inputs, outputs, name="reviews")
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"])
    return model


def reviews_data():
    rows = np.random.default_rng(0).permutation(52) % len(REVIEWS)
    labels = np.where(rows < len(REVIEWS) // 2, 1, 0)
    return np.array(REVIEWS, object)[rows], labels


def build_translation():
    source = keras.Input((None,), dtype="int64", name="encoder_inputs")
    x = layers.Embedding(12, 8, mask_zero=True)(source)
    encoded, state = layers.GRU(12, return_sequences=True, return_state=True)(x)
    target = keras.Input((None,), dtype="int64", name="decoder_inputs")
    x = layers.Embedding(14, 8, mask_zero=True)(target)
    decoded = layers.GRU(12, return_sequences=True)(x, initial_state=state)
    x = layers.add([decoded, layers.Attention()([decoded, encoded])])
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(14, activation="softmax")(x)
    model = keras.Model({"encoder_inputs": source, "decoder_inputs": target}, outputs, name="translation")
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    model.compile(keras.optimizers.RMSprop(0.01), loss=loss, metrics=["accuracy"])
    return model


def translation_data():
    """Every word has one translation, in the same place; 12 starts a sentence and 13 ends it."""
    source = padded(np.random.default_rng(0), 52, 6, 12)
    words = np.where(source > 0, 5 * source % 11 + 1, 0)
    target = np.pad(words, ((0, 0), (1, 1)))
    target[:, 0] = 12
    target[np.arange(52), (target > 0).sum(axis=1)] = 13
    return {"encoder_inputs": source, "decoder_inputs": target[:, :-1]}, target[:, 1:]


class TokenAndPosition(layers.Layer):
    """Embeddings of tokens and of their positions, added."""

    def __init__(self, length, vocabulary, width):
        super().__init__()
        self.token = layers.Embedding(vocabulary, width)
        self.position = layers.Embedding(length, width)

    def call(self, tokens):
        return self.token(tokens) + self.position(ops.arange(ops.shape(tokens)[-1]))


class TransformerBlock(layers.Layer):
    """Attention and two dense layers, each with dropout, a shortcut and a normalisation after it."""

    def __init__(self, width, n_heads, *, causal=False, dropout=0.1):
        super().__init__()
        self.causal = causal
        self.attention = layers.MultiHeadAttention(n_heads, width // n_heads)
        self.up = layers.Dense(width, activation="relu")
        self.down = layers.Dense(width)
        self.norms = [layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]
        self.dropouts = [layers.Dropout(dropout) for _ in range(2)]

    def call(self, inputs, attention_mask=None, training=None):
        x = self.attention(inputs, inputs, attention_mask=attention_mask, use_causal_mask=self.causal)
        x = self.norms[0](inputs + self.dropouts[0](x, training=training))
        return self.norms[1](x + self.dropouts[1](self.down(self.up(x)), training=training))


class NonPaddingLoss(keras.losses.Loss):
    """Mean cross-entropy over the tags that are not padding."""

    def __init__(self, name="non_padding_loss"):
        super().__init__(name=name)

    def call(self, y_true, y_pred):
        losses = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        mask = ops.cast(y_true > 0, "float32")
        return ops.sum(losses * mask) / ops.sum(mask)


class Tagger(keras.Model):
    """One transformer block over embeddings, and a softmax over tags at every place."""

    def __init__(self, n_tags, vocabulary, length=8, width=16):
        super().__init__()
        self.embedding = TokenAndPosition(length, vocabulary, width)
        self.block = TransformerBlock(width, 2)
        self.dropout1 = layers.Dropout(0.1)
        self.hidden = layers.Dense(width, activation="relu")
        self.dropout2 = layers.Dropout(0.1)
        self.tags = layers.Dense(n_tags, activation="softmax")

    def call(self, inputs, training=False):
        x = self.block(self.embedding(inputs))
        x = self.hidden(self.dropout1(x, training=training))
        return self.tags(self.dropout2(x, training=training))


def build_tags():
    model = Tagger(n_tags=4, vocabulary=20)
    model.compile(keras.optimizers.Adam(0.01), loss=NonPaddingLoss())
    return model


def tags_data():
    tokens = padded(np.random.default_rng(0), 52, 8, 20)
    return tokens, np.where(tokens > 0, tokens % 3 + 1, 0)


def counting(n, length, vocabulary):
    """Sequences that count up, and start anew at the end of the vocabulary: (tokens, tokens that follow)."""
    tokens = (np.random.default_rng(0).integers(0, vocabulary, n)[:, None] + np.arange(length + 1)) % vocabulary
    return tokens[:, :-1].astype("int32"), tokens[:, 1:].astype("int32")


def build_mini_gpt():
    inputs = keras.Input((10,), dtype="int32")
    x = TokenAndPosition(10, 12, 16)(inputs)
    x = TransformerBlock(16, 2, causal=True)(x)
    outputs = layers.Dense(12)(x)
    model = keras.Model(inputs, [outputs, x], name="mini_gpt")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=[loss, None])
    return model


def mini_gpt_data():
    return counting(52, 10, 12)


def build_lora():
    inputs = {name: keras.Input((10,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    x = TokenAndPosition(10, 12, 16)(inputs["token_ids"])
    blocks = [TransformerBlock(16, 2, causal=True) for _ in range(2)]
    for block in blocks:
        x = block(x, attention_mask=inputs["padding_mask"][:, None, :])
    outputs = layers.Dense(12)(x)
    model = keras.Model(inputs, outputs, name="lora")
    for variable in model.variables:
        variable.trainable = False
    for block in blocks:
        for layer in (block.attention.query_dense, block.attention.value_dense, block.up, block.down):
            layer.enable_lora(rank=2)
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    return model


def lora_data():
    tokens, following = counting(52, 10, 12)
    mask = (np.arange(10) < np.random.default_rng(1).integers(4, 11, 52)[:, None]).astype("int32")
    return {"token_ids": tokens * mask, "padding_mask": mask}, following * mask, mask.astype("float32")
