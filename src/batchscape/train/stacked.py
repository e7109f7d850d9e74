"""R copies of a model as one Keras model: their variables are stacked along a first axis, the replica axis."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from batchscape import backend, quiet
from batchscape.losses import ONE_BY_ONE, example_losses


class Stacked(keras.Model):
    """R copies of a model, each with its own weights, its own batches and its own loss.

    The loss is the sum of theirs, so the gradient of each is that of its own loss, and an optimizer that treats all numbers
    alike gives each the update that it would make alone.

    Args:
        one: A built Keras model with one output; its own variables are left alone until a replica is shown.
        n_replicas: R ≥ 1.

    Attributes:
        one, n_replicas: What was given.
    """

    def __init__(self, one: keras.Model, n_replicas: int):
        super().__init__(autocast=False)
        object.__setattr__(self, "one", one)  # Not as a layer of this model: its variables are not ours.
        self.n_replicas = n_replicas
        self._stacks = [self._stack(variable, i) for i, variable in enumerate(one.trainable_variables)]
        self._other_stacks = [self._stack(variable, i) for i, variable in enumerate(one.non_trainable_variables)]
        self._mean_losses = MeanByReplica((n_replicas,), name="losses")
        self.built = True

    def _stack(self, variable: keras.Variable, number: int) -> keras.Variable:
        return self.add_weight(
            shape=(self.n_replicas, *variable.shape),
            initializer="zeros",
            dtype=variable.dtype,
            trainable=variable.trainable,
            autocast=False,
            name=f"{variable.name}_{number}",
        )

    def compile(self, optimizer: keras.Optimizer, loss: keras.Loss, **options) -> None:
        """See `keras.Model.compile`; the loss is that of each replica, a mean over examples."""
        super().compile(optimizer, **options)
        self._loss_of_one = loss

    def call(self, x, training=None):
        """Outputs, shape (R, B, ...), and what the layers of each replica add to its loss, shape (R,).

        Args:
            x: Inputs, shape (R, B, ...) or a tree of such arrays.
            training: Whether this is a training step.
        """

        def forward(parts):
            y_pred, other, penalties = self.one.stateless_call(
                *parts, return_losses=True, **backend.mode(self.one, training=training)
            )
            return y_pred, other, sum(penalties) if penalties else ops.zeros(())

        parts = [variable.value for variable in self._stacks], [variable.value for variable in self._other_stacks], x
        with quiet.without_warnings_of_programs():
            y_pred, other, penalties = ops.vectorized_map(forward, parts)
        for variable, value in zip(self._other_stacks, other, strict=True):
            variable.assign(value)
        return y_pred, penalties

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of the losses of all replicas."""
        outputs, penalties = y_pred
        losses = self._losses_of_examples(y, outputs)
        losses = ops.mean(losses, axis=1) + ops.cast(penalties, losses.dtype)
        self._mean_losses.update_state(losses)
        return ops.sum(losses)

    def _losses_of_examples(self, y, outputs):
        """The loss of each example, shape (R, B); not mapped over replicas: XLA takes 300 times as long for that gradient."""
        loss, n = self._loss_of_one, self.n_replicas
        if type(loss) not in ONE_BY_ONE:  # An example may count by what else is in its batch.
            return ops.stack([example_losses(loss, y[replica], outputs[replica]) for replica in range(n)])
        flat = (ops.reshape(array, (-1, *array.shape[2:])) for array in (y, outputs))
        return ops.reshape(example_losses(loss, *flat), (n, -1))

    def stack(self, models: Sequence[keras.Model]) -> None:
        """Take the variables of R models over."""
        for name, variables in (("trainable_variables", self._stacks), ("non_trainable_variables", self._other_stacks)):
            for variable, each in zip(variables, zip(*(getattr(m, name) for m in models), strict=True), strict=True):
                variable.assign(np.stack([ops.convert_to_numpy(value) for value in each]))

    def show(self, replica: int) -> keras.Model:
        """The model, with the variables of a replica."""
        own = self.one.trainable_variables + self.one.non_trainable_variables
        for variable, values in zip(own, self._stacks + self._other_stacks, strict=True):
            variable.assign(values.value[replica])
        return self.one


class MeanByReplica(keras.Metric):
    """The mean over updates of one number for each replica.

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
    """Shape of what there is one of for each replica of a model: (R,), and () for a model that is not stacked."""
    return (model.n_replicas,) if isinstance(model, Stacked) else ()


def one_of(model: keras.Model) -> keras.Model:
    """The model whose copies are stacked, or the model itself."""
    return model.one if isinstance(model, Stacked) else model
