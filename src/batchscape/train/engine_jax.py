"""Engines on JAX; see `engine`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax import lax
from jax import numpy as jnp

from batchscape import backend
from batchscape.backend import keras_private
from batchscape.data import Data
from batchscape.data.splits import count
from batchscape.models import outputs
from batchscape.models.losses import ModelLoss
from batchscape.train import engine, stacked_model
from batchscape.train.plan import Blocks, Plan

XLA_IS_OPTIONAL = False
"""Whether a step may be compiled without XLA: JAX would run it one operation at a time."""

State = tuple[list, list, list, list]
"""What Keras trains on JAX: trainable and other variables, those of the optimizer and those of the metrics."""


Dataset = None
"""`tf.data` is TensorFlow's."""


class Fused(engine.Blockwise):
    """Blocks of updates in one compiled loop; see `engine.Blockwise`."""

    jit = True

    def __init__(self, model: keras.Model, data: Data, *, jit: bool | None = None, micro_batch_size: None = None):
        super().__init__()
        self._model = model
        self._examples = keras.tree.map_structure(jnp.asarray, data.examples("train"))
        engine.create_metrics(model, lambda rows: _take(self._examples, rows))
        self._program = jax.jit(fuse(model), donate_argnums=0)

    def _train_function(self, state: State, iterator: Iterator) -> tuple[dict, State]:
        """What `fit` calls for a block, in place of a training step for a batch."""
        ((block,),) = next(iterator)
        return self._program(state, self._examples, *block)

    def _prepare(self, plan: Plan) -> None:
        keras_private.set_train_function(self._model, self._train_function)

    def time_update(self, plan: Plan) -> float:
        """See `engine.Blockwise.time_update`."""
        block, most = engine.timed_block(plan)
        state = jax.tree.map(jnp.copy, self._state())  # A block takes its state over, and the model keeps its own.

        def run(updates: int) -> None:
            nonlocal state
            logs, state = self._program(state, self._examples, *block(updates))
            jax.block_until_ready(logs)

        return engine.time_block(run, most)

    def _state(self) -> State:
        model = self._model
        parts = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        return tuple([variable.value for variable in part] for part in parts)

    def _feed(self, blocks: Blocks) -> dict[str, Any]:
        columns = blocks if blocks.tails.size else blocks[:2]
        each = (((block,),) for block in zip(*columns, strict=True))
        return {"x": each, "steps_per_epoch": len(blocks.counts), "shuffle": False}


def fuse(model: keras.Model) -> Callable:
    """A loop of updates by the model's own `train_step`, to be compiled.

    Args:
        model: A compiled Keras model whose optimizer and metrics have their variables.

    Returns:
        A function of (state, examples, indices, count) or (..., tail, tail_count), with examples (x, y, ...), trees of
        arrays of shape (n, ...), and blocks as in `plan.Blocks`: runs the updates and returns (logs, state). Logs are the
        metrics and the length of the path, Σ‖w_{t+1} − w_t‖₂, of each seed where several train side by side.
    """
    shape = stacked_model.shape_of(model)

    def run_block(state: State, examples, indices, count, tail=None, tail_count=None):
        def update(rows, carry):
            state, path = carry
            _, after = model.train_step(state, keras.utils.pack_x_y_sample_weight(*_take(examples, rows)))
            deltas = [(new - old).astype("float32") for new, old in zip(after[0], state[0], strict=True)]
            squares = [jnp.sum(jnp.square(delta).reshape(*shape, -1), axis=-1) for delta in deltas]
            return after, path + jnp.sqrt(sum(squares))

        start = state, jnp.zeros(shape, jnp.float32)
        carry = lax.fori_loop(0, count, lambda step, carry: update(indices[step], carry), start)
        if tail is not None:
            carry = lax.fori_loop(0, tail_count, lambda _, carry: update(tail, carry), carry)
        state, path = carry
        with keras.StatelessScope(state_mapping=zip(model.metrics_variables, state[3], strict=True)):
            logs = model.get_metrics_result()
        return {**logs, "path_length": path}, state

    return run_block


def _take(examples, rows):
    """Some rows of a tree of arrays."""
    return keras.tree.map_structure(lambda array: array[rows], examples)


def has_sparse_gradients(model: keras.Model, x) -> bool:
    """See `engine_tensorflow.has_sparse_gradients`: JAX knows none."""
    return False


def compile_forward(model: keras.Model) -> Callable:
    """See `engine_tensorflow.compile_forward`."""

    @jax.jit
    def forward(trainable, other, x):
        y_pred = backend.stateless_call(model, trainable, other, x, training=False)[0]
        return y_pred, [keras_private.mask_of(each) for each in keras.tree.flatten(y_pred)]

    def at_the_moment(x):
        keras_private.sync_state(model)  # During `fit` the variables are elsewhere.
        return forward(*outputs.values_of(model), x)

    return at_the_moment


def compile_means(
    model: keras.Model, splits: Sequence[tuple], loss: ModelLoss, metrics: Sequence[Callable], *, chunk: int
) -> list[Callable]:
    """See `engine_tensorflow.compile_means`."""

    @jax.jit
    def values_of(trainable, other, mean_places, *examples):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
        options = {"sample_weight": sample_weight, "mean_places": mean_places}
        return loss.values(model, trainable, other, x, y, metrics, **options)

    @jax.jit
    def places_of(trainable, other, x, y, *_):
        return loss.places(model, trainable, other, x, y)

    def means_of(*examples) -> Callable[[], np.ndarray]:
        n = count(examples)
        parts = [
            keras.tree.map_structure(lambda array, first=first: jnp.asarray(array[first : first + chunk]), examples)
            for first in range(0, n, chunk)
        ]

        mean_places = None
        if loss.is_ratio:
            counted = zip(*(places_of(*outputs.values_of(model), *part) for part in parts), strict=True)
            mean_places = [float(np.sum(np.concatenate(each), dtype=np.float64)) / n for each in counted]

        def means() -> np.ndarray:
            keras_private.sync_state(model)  # During `fit` the variables are elsewhere.
            variables = outputs.values_of(model)
            values = zip(*(values_of(*variables, mean_places, *part) for part in parts), strict=True)
            return np.array([np.sum(np.concatenate(each), dtype=np.float64) for each in values]) / n

        return means

    return [means_of(*split) for split in splits]
