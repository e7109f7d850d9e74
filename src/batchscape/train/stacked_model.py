"""R copies of a model as one Keras model: their variables are stacked along a first axis, one entry a seed."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from batchscape import backend
from batchscape.backend import importing
from batchscape.models.losses import ONE_BY_ONE, example_losses


class Stacked(keras.Model):
    """R copies of a model, each with its own weights, its own batches and its own loss.

    The loss is the sum of theirs, so the gradient of each is that of its own loss, and an optimizer that treats all numbers
    alike gives each the update that it would make alone.

    Args:
        one: A built Keras model with one output; its own variables are left alone until a copy is shown.
        n_seeds: R ≥ 1.
        loss: The loss of each copy, a mean over examples.

    Attributes:
        one, n_seeds: What was given.
    """

    def __init__(self, one: keras.Model, n_seeds: int, loss: keras.Loss):
        super().__init__(autocast=False)
        object.__setattr__(self, "one", one)  # Not as a layer of this model: its variables are not ours.
        self.n_seeds, self._loss_of_one = n_seeds, loss
        self._stacks = [self._stack(variable, i) for i, variable in enumerate(one.trainable_variables)]
        self._other_stacks = [self._stack(variable, i) for i, variable in enumerate(one.non_trainable_variables)]
        self._mean_losses = MeanBySeed((n_seeds,), name="losses")
        self.built = True

    def _stack(self, variable: keras.Variable, number: int) -> keras.Variable:
        return self.add_weight(
            shape=(self.n_seeds, *variable.shape),
            initializer="zeros",
            dtype=variable.dtype,
            trainable=variable.trainable,
            autocast=False,
            name=f"{variable.name}_{number}",
        )

    def call(self, x, training=None):
        """Outputs, shape (R, B, ...), and what the layers of each copy add to its loss, shape (R,).

        Args:
            x: Inputs, shape (R, B, ...) or a tree of such arrays.
            training: Whether this is a training step.
        """

        def forward(parts):
            y_pred, other, penalties = backend.stateless_call(self.one, *parts, training=training, return_losses=True)
            return y_pred, other, sum(penalties) if penalties else ops.zeros(())

        parts = [variable.value for variable in self._stacks], [variable.value for variable in self._other_stacks], x
        with importing.without_warnings_of_programs():
            y_pred, other, penalties = ops.vectorized_map(forward, parts)
        for variable, value in zip(self._other_stacks, other, strict=True):
            variable.assign(value)
        return y_pred, penalties

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of the losses of all copies."""
        outputs, penalties = y_pred
        losses = self._losses_of_examples(y, outputs)
        losses = ops.mean(losses, axis=1) + ops.cast(penalties, losses.dtype)
        self._mean_losses.update_state(losses)
        return ops.sum(losses)

    def _losses_of_examples(self, y, outputs):
        """The loss of each example, shape (R, B); not mapped over copies: XLA takes 300 times as long for that gradient."""
        loss, n = self._loss_of_one, self.n_seeds
        if type(loss) not in ONE_BY_ONE:  # An example may count by what else is in its batch.
            return ops.stack([example_losses(loss, y[i], outputs[i]) for i in range(n)])
        flat = (ops.reshape(array, (-1, *array.shape[2:])) for array in (y, outputs))
        return ops.reshape(example_losses(loss, *flat), (n, -1))

    def stack(self, models: Sequence[keras.Model]) -> None:
        """Take the variables of R models over."""
        for name, variables in (("trainable_variables", self._stacks), ("non_trainable_variables", self._other_stacks)):
            for variable, each in zip(variables, zip(*(getattr(m, name) for m in models), strict=True), strict=True):
                variable.assign(np.stack([ops.convert_to_numpy(value) for value in each]))

    def show(self, i: int) -> keras.Model:
        """The model, with the variables of copy i."""
        own = self.one.trainable_variables + self.one.non_trainable_variables
        for variable, values in zip(own, self._stacks + self._other_stacks, strict=True):
            variable.assign(values.value[i])
        return self.one


class MeanBySeed(keras.Metric):
    """The mean over updates of one number for each seed.

    Args:
        shape: (R,).
        name: Its name.
    """

    def __init__(self, shape: tuple[int, ...], name: str):
        super().__init__(name=name)
        self.total = self.add_variable(shape, "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, values):
        """Count the values of an update, shape (R,)."""
        self.total.assign_add(ops.cast(values, self.total.dtype))
        self.count.assign_add(1.0)

    def result(self):
        """The means, shape (R,)."""
        return ops.divide_no_nan(self.total, self.count)


def shape_of(model: keras.Model) -> tuple[int, ...]:
    """Leading shape of per-seed values: `(R,)` for a stacked model, `()` for an ordinary one."""
    return (model.n_seeds,) if isinstance(model, Stacked) else ()


def single_model(model: keras.Model) -> keras.Model:
    """The model whose copies are stacked, or the model itself."""
    return model.one if isinstance(model, Stacked) else model
