"""Eighteen small models as their owners would have them, in the manner of keras.io's most used examples."""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from tests.gallery import generative, images, sequences, tables, text


class Entry(NamedTuple):
    """A model, its data, and how it is trained.

    `build()` gives the compiled model with new variables, `data()` what its owner gives to `fit`: arrays, a tuple
    (x, y) or (x, y, sample_weight), a batched `tf.data.Dataset` or a `PyDataset`. `how` says in one line what is
    particular, `own_step` whether the model trains itself, `options` what `fit` is given beside the data, and `measure` what
    the loss of a model is that trains itself.
    """

    build: Callable[[], keras.Model]
    data: Callable[[], Any]
    how: str
    own_step: bool = False
    options: Mapping[str, Any] = types.MappingProxyType({})
    measure: Callable[[keras.Model, Any, Any], Any] | None = None


GALLERY: dict[str, Entry] = {
    "transfer": Entry(
        images.build_transfer,
        images.transfer_data,
        "a frozen EfficientNetB0 in inference mode, a new head, uint8 images",
    ),
    "vq_vae": Entry(
        generative.build_vq_vae, generative.vq_vae_data, "a codebook, straight-through gradients, add_loss, x as target"
    ),
    "forecast": Entry(
        sequences.build_forecast, sequences.forecast_data, "batched windows of a series as tf.data, an LSTM, mse"
    ),
    "files": Entry(
        images.build_files,
        images.files_data,
        "PNGs in folders as batched tf.data, shortcuts of stride 2, binary logits",
    ),
    "recommender": Entry(
        tables.build_recommender, tables.recommender_data, "two string inputs in a dict, StringLookup, dot product, mse"
    ),
    "contrastive": Entry(
        images.build_contrastive, images.contrastive_data, "two views in a dict, a scalar loss that couples the batch"
    ),
    "translation": Entry(
        text.build_translation, text.translation_data, "GRUs, attention, masks, cross-entropy that ignores class 0"
    ),
    "ocr": Entry(sequences.build_ocr, sequences.ocr_data, "convolution, bidirectional LSTM, CTC of padded labels"),
    "captions": Entry(
        generative.build_captions,
        generative.captions_data,
        "own train_step and test_step, two updates a step",
        True,
        measure=generative.captions_loss,
    ),
    "dcgan": Entry(
        generative.build_dcgan, generative.dcgan_data, "own train_step, two optimizers, images without targets", True
    ),
    "reviews": Entry(
        text.build_reviews, text.reviews_data, "raw strings, TextVectorization in the model, Conv1D, sigmoid"
    ),
    "lora": Entry(
        text.build_lora, text.lora_data, "causal transformer, frozen but for LoRA kernels, sample weights of tokens"
    ),
    "vit": Entry(images.build_vit, images.vit_data, "patches, attention, dropout, adapted Normalization, AdamW"),
    "segmentation": Entry(
        images.build_segmentation, images.segmentation_data, "a PyDataset of images and masks, a small U-Net"
    ),
    "mnist": Entry(images.build_mnist, images.mnist_data, "a convnet with dropout of one half, one-hot targets"),
    "tags": Entry(text.build_tags, text.tags_data, "a subclassed transformer, own loss: the mean over tags that count"),
    "mini_gpt": Entry(text.build_mini_gpt, text.mini_gpt_data, "two outputs, one without a loss: loss=[fn, None]"),
    "imbalanced": Entry(
        tables.build_imbalanced,
        tables.imbalanced_data,
        "a class of one in nine, class_weight",
        options={"class_weight": tables.CLASS_WEIGHT},
    ),
}
