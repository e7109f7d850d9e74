"""Engines on TensorFlow; see `engine`."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchscape import backend
from batchscape.backend import batches_tensorflow, keras_private, tensorflow_private, xla
from batchscape.data import Data, make_dataset
from batchscape.models import outputs
from batchscape.models.losses import ModelLoss
from batchscape.train import engine, stacked_model
from batchscape.train.micro_batches import accumulating_step
from batchscape.train.plan import Blocks, Plan

XLA_IS_OPTIONAL = True
"""Whether a step may be compiled without XLA; `xla` says when it should be."""


class Dataset:
    """A `tf.data` pipeline: the examples in the order of each epoch, or the user's own pipeline, batched."""

    name = "dataset"
    jit = False

    def __init__(self, model: keras.Model, data: Data):
        self.data = data

    def warm_up(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """See `Stock.warm_up`."""
        yield {"x": self._pipeline(plan, 0).take(1), "shuffle": False}

    def calls(self, plan: Plan, *, whole_epochs: bool) -> Iterator[dict[str, Any]]:
        """See `Stock.calls`."""
        for epoch in range(plan.n_epochs):
            number = plan.first_epoch + epoch
            yield {"x": self._pipeline(plan, number), "shuffle": False, "initial_epoch": number, "epochs": number + 1}

    def updates_in_batch(self) -> int:
        """See `Stock.updates_in_batch`."""
        return 1

    def time_update(self, plan: Plan) -> float | None:
        """See `Stock.time_update`."""
        return None

    def _pipeline(self, plan: Plan, epoch: int) -> tf.data.Dataset:
        keep = "keep" if plan.tail else "drop"
        if self.data.pipeline is not None:
            batches = self.data.pipeline.batch(plan.batch_size, drop_remainder=not plan.tail)
            return tensorflow_private.with_cardinality(batches, plan.updates_per_epoch)
        order = {"batch_size": plan.batch_size, "seed": plan.seed, "epoch": epoch, "last_batch": keep}
        return make_dataset(*self.data.examples("train"), **order)


class Fused(engine.Blockwise):
    """Blocks of updates in one compiled loop, by XLA or without it; see `engine.Blockwise`."""

    def __init__(self, model: keras.Model, data: Data, *, jit: bool | None = None, micro_batch_size: int | None = None):
        super().__init__()
        self.jit = jit
        self._model, self._data, self._micro_batch_size = model, data, micro_batch_size
        chosen = jit is not None
        self._choose_jit = (lambda _: jit) if chosen else xla.rule(stacked_model.single_model(model), data.x_train)
        self._programs: dict[bool, Callable] = {}

    def _train_function(self, iterator: Iterator) -> dict[str, tf.Tensor]:
        """What `fit` calls for a block, in place of a training step for a batch."""
        return self._programs[self.jit](*next(iterator))

    def _prepare(self, plan: Plan) -> None:
        """Switch to the program for the batch size of a plan."""
        self.jit = self._choose_jit(min(plan.batch_size, self._micro_batch_size or plan.batch_size))
        keras_private.set_train_function(self._model, self._train_function)
        if self.jit not in self._programs:
            self._programs[self.jit] = fuse(
                self._model, self._data.examples("train"), jit=self.jit, micro_batch_size=self._micro_batch_size
            )

    def time_update(self, plan: Plan) -> float:
        """See `engine.Blockwise.time_update`."""
        (block, most), program = engine.timed_block(plan), self._programs[self.jit]

        def run(updates: int) -> None:
            program(*map(tf.constant, block(updates)))["path_length"].numpy()

        return engine.time_block(run, most)

    def _feed(self, blocks: Blocks) -> dict[str, Any]:
        columns = blocks if blocks.tails.size else blocks[:2]
        return {
            "x": tf.data.Dataset.from_tensor_slices(tuple(columns)).with_options(tensorflow_private.untuned()),
            "shuffle": False,
        }


def fuse(model: keras.Model, examples: Sequence, *, jit: bool, micro_batch_size: int | None = None):
    """Compile a loop of updates by the model's own `train_step`.

    Args:
        model: A compiled Keras model.
        examples: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, trees of arrays of shape (n, ...); they are put on the device.
        jit: Whether XLA compiles the loop.
        micro_batch_size: Compute an update in parts of at most so many examples; see `accumulate`.

    Returns:
        A function of one block, (indices, count) or (indices, count, tail, tail_count) as in `plan.Blocks`: runs the
        updates and returns logs: the metrics, and the length of the path, Σ‖w_{t+1} − w_t‖₂, of each seed where several
        train side by side.
    """
    examples = batches_tensorflow.to_device(tuple(examples))
    if micro_batch_size is None:
        step = lambda rows: model.train_step(_batch(examples, rows))  # noqa: E731 (the other one is a function too)
    else:
        step = accumulating_step(model, examples, micro_batch_size)
    weights = [variable.value for variable in model.trainable_variables]
    engine.create_metrics(model, functools.partial(batches_tensorflow.take, examples))
    shape = stacked_model.shape_of(model)
    sum_of_squares = _sum_in_lanes if jit else _sum_at_once

    def update(rows):
        before = [tf.identity(weight) for weight in weights]
        step(rows)
        squares = [sum_of_squares(weight - old, shape) for weight, old in zip(weights, before, strict=True)]
        return tf.sqrt(tf.add_n(squares))

    @tf.function(jit_compile=jit, reduce_retracing=True, autograph=False)
    def run_block(indices, count, tail=None, tail_count=None):
        path = tf.while_loop(
            lambda step, _: step < count,
            lambda step, path: (step + 1, path + update(indices[step])),
            (0, tf.zeros(shape)),
        )[1]
        if tail is not None:
            # A loop of at most one pass, rather than a branch: both sides of a branch would be compiled and kept apart.
            path = tf.while_loop(
                lambda step, _: step < tail_count, lambda step, path: (step + 1, path + update(tail)), (0, path)
            )[1]
        return {**model.get_metrics_result(), "path_length": path}

    return run_block


def _batch(examples: tuple, rows):
    """Some rows as a training step takes them."""
    return keras.utils.pack_x_y_sample_weight(*batches_tensorflow.take(examples, rows))


def _sum_at_once(delta, shape: tuple[int, ...]):
    """Σδ² in one operation, for each seed; without XLA each operation costs a dispatch."""
    return tf.reduce_sum(tf.square(tf.cast(delta, tf.float32)), axis=range(len(shape), delta.shape.rank))


LANES, FEWEST_FOR_LANES = 16, 2048


def _sum_in_lanes(delta, shape: tuple[int, ...]):
    """Σδ² with `LANES` independent partial sums: XLA adds up a large array in sequence, which took longer than a step.

    A small one is quicker at once: in the small CNN at B = 1 sixteen sums took a fifth of an update.
    """
    size = math.prod(delta.shape[len(shape) :])
    if size < FEWEST_FOR_LANES:
        return _sum_at_once(delta, shape)
    square, n = tf.cast(tf.reshape(delta * delta, (*shape, size)), tf.float32), size // LANES
    lanes = [square[..., lane * n : (lane + 1) * n] for lane in range(LANES)]
    return tf.reduce_sum(tf.add_n(lanes), axis=-1) + tf.reduce_sum(square[..., LANES * n :], axis=-1)


def has_sparse_gradients(model: keras.Model, x) -> bool:
    """Whether a weight has gradients for some of its rows alone, as embeddings have; nothing is computed for it."""
    found = []

    def probe(x):
        with tf.GradientTape() as tape:
            y_pred = outputs.call(model, x)
        gradients = tape.gradient(y_pred, model.trainable_variables)
        found.extend(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)

    spec = keras.tree.map_structure(lambda array: tf.TensorSpec((1, *array.shape[1:]), array.dtype), x)
    tf.function(probe, autograph=False).get_concrete_function(spec)
    return any(found)


def compile_forward(model: keras.Model) -> Callable:
    """A function of inputs: the outputs of a model in inference mode, at the weights of the moment, and their masks."""

    @tf.function(autograph=False, reduce_retracing=True)
    def forward(x):
        y_pred = backend.stateless_call(model, *outputs.values_of(model), x, training=False)[0]
        return y_pred, [keras_private.mask_of(each) for each in keras.tree.flatten(y_pred)]

    return forward


def compile_means(
    model: keras.Model, splits: Sequence[tuple], loss: ModelLoss, metrics: Sequence[Callable], *, chunk: int
) -> list[Callable]:
    """For each split, (x, y, ...), a function of no arguments: mean loss and metrics over it, float64, shape (1 + metrics,)."""
    jit = xla.rule(model, splits[0][0])(chunk)
    splits = [batches_tensorflow.to_device(tuple(split)) for split in splits]
    sizes = [keras.tree.flatten(split)[0].shape[0] for split in splits]

    def sums_of(*examples_and_mask, mean_places=None):
        *examples, mask = examples_and_mask
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(examples))
        options = {"sample_weight": sample_weight, "mean_places": mean_places}
        values = loss.values(model, *outputs.values_of(model), x, y, metrics, **options)
        return tf.stack([batches_tensorflow.masked_sum(each, mask) for each in values])

    def places_of(x, y, *rest):
        counted = loss.places(model, *outputs.values_of(model), x, y)
        return tf.stack([batches_tensorflow.masked_sum(each, rest[-1]) for each in counted])

    def mean_places(split, n):
        @tf.function(autograph=False)
        def places():
            start = tf.zeros(len(loss.terms), tf.float64)
            return batches_tensorflow.accumulate(places_of, start, split, chunk=chunk)

        return (places().numpy() / n).tolist() if loss.is_ratio else None

    specs = [keras.tree.map_structure(_of_any_number, split) for split in splits]
    if not jit and not loss.is_ratio and max(sizes) <= chunk and specs == specs[:1] * len(splits):
        # Where no split needs chunks, one trace serves them all.
        def of_all(*examples):
            return sums_of(*examples, tf.ones(tf.shape(keras.tree.flatten(examples)[0])[:1], tf.bool))

        whole = tf.function(of_all, input_signature=specs[0], autograph=False)
        return [_mean(functools.partial(whole, *split), n) for split, n in zip(splits, sizes, strict=True)]

    def sums(split, places):
        start, exact = tf.zeros(1 + len(metrics), tf.float64), not (loss.by_example or loss.is_ratio)
        function = functools.partial(sums_of, mean_places=places)
        return batches_tensorflow.accumulate(function, start, split, chunk=chunk, exact=exact)

    return [
        _mean(xla.program(functools.partial(sums, split, mean_places(split, n)), jit=jit), n)
        for split, n in zip(splits, sizes, strict=True)
    ]


def _of_any_number(array) -> tf.TensorSpec:
    return tf.TensorSpec([None, *array.shape[1:]], array.dtype)


def _mean(sums: Callable, n: int) -> Callable[[], np.ndarray]:
    return lambda: sums().numpy() / n
