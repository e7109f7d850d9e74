"""Derivatives by JAX's transformations; see `derivatives`."""

import functools
import math
from collections.abc import Callable

import jax
import keras
import numpy as np
from jax import lax
from jax import numpy as jnp

from batchscape.backend import jax_private
from batchscape.landscape import derivatives, first_layer
from batchscape.landscape.first_layer import FirstLayer


class Derivatives(derivatives.Derivatives):
    """See `derivatives.Derivatives`; XLA compiles everything."""

    def _program(self, function: Callable, jit: bool) -> Callable:
        program = jax.jit(function)

        def call(*arguments):
            # Sums are kept in float64, which JAX has only when asked, and no GPU may round to TF32 on the way.
            with jax.enable_x64(True), jax.default_matmul_precision("float32"):
                return program(*arguments)

        return call

    def _to_device(self, arrays):
        with jax.enable_x64(True):
            return keras.tree.map_structure(jnp.asarray, arrays)

    def _chooses_xla(self, x, rows: int) -> bool:
        return True

    def _split(self, vector, sizes: list[int]) -> list:
        return jnp.split(vector, np.cumsum(sizes)[:-1])

    def _take(self, examples, rows):
        return keras.tree.map_structure(lambda array: array[rows], examples)

    def _map(self, function: Callable, rows, kinds):
        return lax.map(function, rows)

    def _mean(self, values):
        return jnp.mean(values, axis=0, dtype=values.dtype)

    def _masked_sum(self, values, mask):
        return jnp.sum(jnp.where(mask, jnp.reshape(values, -1).astype("float64"), 0.0))

    def _sum_functions(self, examples, trainable, other):
        def sums(x, y, counts, mask):
            return jnp.stack(self._sums(self._values(trainable, other, x, y, counts), mask))

        return self._accumulate(sums, examples)

    def _sum_places(self, examples, trainable, other):
        def sums(x, y, counts, mask):
            places = self._model_loss.places(self._model, self._variables(trainable), other, x, y)
            return jnp.stack(self._sums(places, mask))

        return self._accumulate(sums, examples)

    @functools.cached_property
    def _first_layer(self) -> FirstLayer | None:
        if self._model_loss.measure is not None:
            return None
        x = keras.tree.map_structure(lambda array: array[:1], self._examples[0])

        def inputs(trainable, other):
            return first_layer.inputs_of_layers(self._model, lambda: self._predict(trainable, other, x))

        def tensors(trainable, other):
            seen = inputs(trainable, other)
            return [seen[layer][0] for layer in once]

        trainable = jnp.zeros(sum(self._sizes), self._dtype)
        other = [jnp.asarray(variable.value) for variable in self._model.non_trainable_variables]
        called = inputs(trainable, other)  # With numbers: only inside a loop are there tracers.
        once = [layer for layer, seen in called.items() if len(seen) == 1 and not jax_private.is_traced(seen[0])]
        moved = jax_private.dependencies(tensors, trainable, other)
        for layer, (by_weights, *by_others) in zip(once, moved, strict=True):
            if not by_weights:
                size = first_layer.linear(layer, called[layer][0]).size
                return FirstLayer(layer, moves=any(by_others), size=size)
        return None

    def _sum_at_points(self, examples, trainable, other, products, shares, others):
        def sums_at(share_and_other):
            share, share_of_other = share_and_other
            here = (share @ trainable).astype(self._dtype)
            rest = [_weighted(value, share_of_other) for value in other]

            def sums(x, y, counts, parts, mask):
                def call():
                    return self._values(here, rest, x, y, counts)

                if parts:
                    product = sum(c.astype(part.dtype) * part for c, part in zip(share, parts, strict=True))
                    values = self._first_layer.with_linear_part(product, call)
                else:
                    values = call()
                return jnp.stack(self._sums(values, mask))

            return self._accumulate(sums, (*examples, products))

        return lax.map(sums_at, (shares, others))

    def _sum_gradients(self, examples, trainable, other):
        def gradient(*chunk):
            loss, slopes = jax.value_and_grad(self._loss)(trainable, other, *chunk)
            return loss, slopes.astype("float64")

        return self._accumulate(gradient, examples)

    @property
    def _sizes_of_norms(self) -> None:
        return None

    def _sum_examples(self, examples, trainable, other, rows, inside):
        def gradient(example):
            one = keras.tree.map_structure(lambda array: array[None], example)
            return jax.grad(self._loss)(trainable, other, *one, True)

        gradients = jnp.where(inside[:, None], jax.vmap(gradient)(self._take(examples, rows)), 0)
        squares = [jnp.sum(part * part, axis=0) for part in self._split(gradients.T, self._sizes)]
        return jnp.sum(gradients, axis=0).astype("float64"), jnp.stack(squares, axis=1).astype("float64")

    def _sum_products(self, examples, trainable, other, vectors):
        def products(*chunk):
            slopes = jax.grad(lambda weights: self._loss(weights, other, *chunk))
            _, product = jax.linearize(slopes, trainable)
            return jax.vmap(product)(vectors).astype("float64")

        return self._accumulate(products, examples)

    def _accumulate(self, function: Callable, examples):
        """Add up what a function gives for the chunks of a data set; see `batches_tensorflow.accumulate`."""
        n = keras.tree.flatten(examples)[0].shape[0]
        n_chunks = math.ceil(n / self._chunk)
        if n_chunks == 1:
            return function(*examples, jnp.ones(n, bool))
        exact = self._exact
        size = self._chunk if exact else math.ceil(n / n_chunks)
        left = n % size if exact else 0
        if left:
            tail = function(*keras.tree.map_structure(lambda array: array[n - left :], examples), jnp.ones(left, bool))
            n, n_chunks = n - left, n_chunks - 1

        def chunk(index):
            first = jnp.minimum(index * size, n - size)
            part = keras.tree.map_structure(lambda array: lax.dynamic_slice_in_dim(array, first, size), examples)
            return function(*part, first + jnp.arange(size) >= index * size)

        def add(index, sums):
            return jax.tree.map(jnp.add, sums, chunk(index))

        zeros = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(chunk, 0))
        return lax.fori_loop(0, n_chunks, add, tail if left else zeros)


def _weighted(values, shares):
    """Σ cₖ vₖ over the first axis; whole numbers, which no sum makes sense of, are those of the first."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values[0]
    return jnp.tensordot(shares, values.astype(shares.dtype), 1).astype(values.dtype)
