"""Derivatives by TensorFlow's tapes; see `derivatives`."""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from batchscape import backend
from batchscape.backend import batches_tensorflow, device_tensorflow, xla
from batchscape.landscape import derivatives, example_norms, first_layer
from batchscape.landscape.first_layer import FirstLayer


class Derivatives(derivatives.Derivatives):
    """See `derivatives.Derivatives`."""

    def _program(self, function: Callable, jit: bool) -> Callable:
        program = xla.program(function, jit=jit)

        def call(*arguments):
            with device_tensorflow.full_float32():
                return program(*tf.nest.map_structure(tf.convert_to_tensor, arguments))

        return call

    def _to_device(self, arrays):
        return batches_tensorflow.to_device(arrays)

    def _chooses_xla(self, x, rows: int) -> bool:
        return xla.rule(self._model, x)(rows)

    def _split(self, vector, sizes: list[int]) -> list:
        return tf.split(vector, sizes)

    def _take(self, examples, rows):
        return batches_tensorflow.take(examples, rows)

    def _map(self, function: Callable, rows, kinds):
        return tf.map_fn(function, rows, fn_output_signature=kinds)

    def _mean(self, values):
        return tf.reduce_mean(values, axis=0)

    def _masked_sum(self, values, mask):
        return batches_tensorflow.masked_sum(values, mask)

    def _sum_functions(self, examples, trainable, other):
        def sums(x, y, counts, mask):
            return tf.stack(self._sums(self._values(trainable, other, x, y, counts), mask))

        return self._accumulate(sums, tf.zeros(self._n_values, tf.float64), examples)

    def _sum_places(self, examples, trainable, other):
        def sums(x, y, counts, mask):
            places = self._model_loss.places(self._model, self._variables(trainable), other, x, y)
            return tf.stack(self._sums(places, mask))

        return self._accumulate(sums, tf.zeros(len(self._model_loss.terms), tf.float64), examples)

    @functools.cached_property
    def _first_layer(self) -> FirstLayer | None:
        if self._model_loss.measure is not None:
            return None
        found = []

        def probe(trainable, other):
            x = batches_tensorflow.take(self._examples[0], [0])
            inputs = first_layer.inputs_of_layers(self._model, lambda: self._predict(trainable, other, x))
            for layer, seen in inputs.items():
                sources = _sources(seen[0])
                in_a_loop = seen[0].graph is not trainable.graph
                if len(seen) == 1 and not in_a_loop and trainable.ref() not in sources:
                    moves = any(variable.ref() in sources for variable in other)
                    size = first_layer.linear(layer, seen[0]).shape.num_elements()
                    found.append(FirstLayer(layer, moves, size))

        other = [tf.convert_to_tensor(variable.value) for variable in self._model.non_trainable_variables]
        tf.function(probe, autograph=False).get_concrete_function(tf.zeros(sum(self._sizes), self._dtype), other)
        return found[0] if found else None

    def _sum_at_points(self, examples, trainable, other, products, shares, others):
        def sums_at(share_and_other):
            share, share_of_other = share_and_other
            here = tf.cast(tf.linalg.matvec(trainable, share, transpose_a=True), self._dtype)
            rest = [_weighted(value, share_of_other) for value in other]

            def sums(x, y, counts, parts, mask):
                def call():
                    return self._values(here, rest, x, y, counts)

                if parts:
                    product = tf.add_n(
                        [tf.cast(c, part.dtype) * part for c, part in zip(tf.unstack(share), parts, strict=True)]
                    )
                    values = self._first_layer.with_linear_part(product, call)
                else:
                    values = call()
                return tf.stack(self._sums(values, mask))

            start = tf.zeros(self._n_values, tf.float64)
            x, y, counts = examples
            return self._accumulate(sums, start, (x, y, counts, products) if products else (x, y, counts, []))

        return tf.map_fn(sums_at, (shares, others), fn_output_signature=tf.float64)

    def _value_and_gradient(self, trainable, other, x, y, counts, mask):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            loss = self._loss(trainable, other, x, y, counts, mask)
        return loss, tape.gradient(loss, trainable)

    def _sum_gradients(self, examples, trainable, other):
        def gradient(*chunk):
            loss, gradient = self._value_and_gradient(trainable, other, *chunk)
            return loss, tf.cast(gradient, tf.float64)

        start = tf.zeros((), tf.float64), tf.zeros(sum(self._sizes), tf.float64)
        return self._accumulate(gradient, start, examples)

    @functools.cached_property
    def _sizes_of_norms(self) -> list[int] | None:
        """How many numbers an example takes where ‖gᵢ‖² can be had without gᵢ, by variable; None where it cannot."""
        if not self._model_loss.by_example or self._model_loss.measure is not None:
            return None
        found = []

        def probe(trainable, other, x, n):
            variables = self._variables(trainable)
            backend.stateless_call(self._model, variables, other, x, training=False)
            found.append(example_norms.uses(variables, n))

        other = [variable.value for variable in self._model.non_trainable_variables]
        trainable = tf.zeros(sum(self._sizes), self._dtype)
        for n in (2, 3):  # Two numbers of examples, since one may be the size of something else.
            x = batches_tensorflow.take(self._examples[0], [0] * n)
            tf.function(probe, autograph=False).get_concrete_function(trainable, other, x, n)
        return None if None in found else [use.size for use in found[0]]

    @functools.cached_property
    def _has_loops(self) -> bool:
        """Whether the model has loops, as recurrent layers have; `tf.vectorized_map` of their gradients fails at times."""
        other = [variable.value for variable in self._model.non_trainable_variables]
        one = batches_tensorflow.take(self._examples, [0])
        values = tf.function(self._values, autograph=False)
        graph = values.get_concrete_function(tf.zeros(sum(self._sizes), self._dtype), other, *one).graph
        return any("While" in name for name in xla.types_in(graph))

    def _sum_examples(self, examples, trainable, other, rows, inside):
        way = self._sum_by_gradients if self._sizes_of_norms is None else self._sum_by_slopes
        return way(batches_tensorflow.take(examples, rows), trainable, other, inside)

    def _sum_by_slopes(self, examples, trainable, other, inside):
        """Σ gᵢ and ‖gᵢ‖² by way of the slopes at the layers."""
        x, y, counts = examples
        variables = self._variables(trainable)
        y_pred = backend.stateless_call(self._model, variables, other, x, training=False)[0]
        losses = self._model_loss.of_examples(y, y_pred, counts if self._is_weighted else None)
        loss = self._masked_sum(losses, inside)
        squares = example_norms.square_norms(loss, example_norms.uses(variables, inside.shape[0]))
        return tf.cast(tf.gradients(loss, trainable)[0], tf.float64), tf.cast(squares, tf.float64)

    def _sum_by_gradients(self, examples, trainable, other, inside):
        """Σ gᵢ and ‖gᵢ‖² from the gradients themselves, for any model."""

        def gradient(example):
            one = keras.tree.map_structure(lambda array: array[None], example)
            return self._value_and_gradient(trainable, other, *one, True)[1]

        one_by_one = functools.partial(tf.map_fn, fn_output_signature=self._dtype)
        try:
            gradients = (one_by_one if self._has_loops else tf.vectorized_map)(gradient, examples)
        except (TypeError, ValueError, NotImplementedError):  # An operation that TensorFlow cannot vectorize.
            gradients = one_by_one(gradient, examples)
        parts = tf.split(tf.where(inside[:, None], gradients, 0.0), self._sizes, axis=1)
        squares = tf.stack([tf.reduce_sum(part * part, axis=1) for part in parts], axis=1)
        total = tf.concat([tf.reduce_sum(part, axis=0) for part in parts], axis=0)
        return tf.cast(total, tf.float64), tf.cast(squares, tf.float64)

    def _sum_products(self, examples, trainable, other, vectors):
        def products(*chunk):
            with tf.GradientTape(persistent=True) as outer:
                outer.watch(trainable)
                _, gradient = self._value_and_gradient(trainable, other, *chunk)
                slopes = [tf.tensordot(gradient, vector, 1) for vector in tf.unstack(vectors)]
            # A model that is linear in its weights has no second derivative to find: that is zero, not an error.
            zero = tf.UnconnectedGradients.ZERO
            rows = [outer.gradient(slope, trainable, unconnected_gradients=zero) for slope in slopes]
            return tf.cast(tf.stack(rows), tf.float64)

        return self._accumulate(products, tf.zeros((vectors.shape[0], sum(self._sizes)), tf.float64), examples)

    def _accumulate(self, function, start, examples):
        return batches_tensorflow.accumulate(function, start, examples, chunk=self._chunk, exact=self._exact)


def _weighted(values: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Σ cₖ vₖ over the first axis; whole numbers, which no sum makes sense of, are those of the first."""
    if not values.dtype.is_floating:
        return values[0]
    return tf.cast(tf.tensordot(shares, tf.cast(values, shares.dtype), 1), values.dtype)


def _sources(tensor: tf.Tensor) -> set:
    """References to all tensors that a tensor depends on, in the graph that is being traced."""
    found, waiting = set(), [tensor]
    while waiting:
        tensor = waiting.pop()
        if tensor.ref() not in found:
            found.add(tensor.ref())
            waiting.extend(tensor.op.inputs)
    return found
