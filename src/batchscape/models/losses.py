"""What a model minimises: training, evaluation, landscape, gradient and cost all take it from here.

The value on a batch is what Keras' own `compute_loss` gives: the compiled losses, and what layers and regularizers add. A
loss that is a mean of one value an example, with nothing added, is also given example by example.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from batchscape import backend
from batchscape.backend import keras_private
from batchscape.errors import InvalidInput
from batchscape.models import outputs

ONE_BY_ONE = (
    keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy, keras.losses.BinaryCrossentropy,
    keras.losses.MeanSquaredError, keras.losses.MeanAbsoluteError,
)  # fmt: skip
"""Losses whose value for an example does not depend on the others in its batch; of other losses nobody knows."""


class Term(NamedTuple):
    """The loss of one output of a model.

    Attributes:
        name: The name of the output, or of the loss where there is one output.
        loss: The Keras loss.
        weight: What it counts in the sum of all.
        target, output: Places of its target and its output in flat order.
        sample_weight: Place of its sample weights; None where all outputs share them.
    """

    name: str
    loss: keras.Loss
    weight: float = 1.0
    target: int = 0
    output: int = 0
    sample_weight: int | None = None

    def given(self, y, y_pred, sample_weight=None) -> tuple:
        """Its target, output and sample weights among those of the model."""
        if self.sample_weight is not None and sample_weight is not None:
            sample_weight = keras.tree.flatten(sample_weight)[self.sample_weight]
        return keras.tree.flatten(y)[self.target], keras.tree.flatten(y_pred)[self.output], sample_weight

    def of_examples(self, y, y_pred, sample_weight=None):
        """The loss of each example, shape (batch,), without the weight of the output."""
        return example_losses(self.loss, *self.given(y, y_pred, sample_weight))

    def sums(self, y, y_pred, sample_weight=None):
        """The sum of the loss over the places of each example that count, shape (batch,)."""
        return _sum_by_example(keras_private.without_reduction(self.loss)(*self.given(y, y_pred, sample_weight)))

    def places(self, y, y_pred):
        """How many places of each example count: those without a mask, and of no ignored class; shape (batch,)."""
        y, y_pred, _ = self.given(y, y_pred)
        values = self.loss.call(*(ops.cast(each, self.loss.dtype) for each in (y, y_pred)))
        counted = ops.ones_like(values)
        for mask in (keras_private.mask_of(y_pred), keras_private.mask_of(values)):
            if mask is not None:
                counted *= ops.reshape(ops.cast(mask, counted.dtype), ops.shape(counted))
        return _sum_by_example(counted)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ModelLoss:
    """What `fit` minimises for a model and `evaluate` reports, on any batch and at any weights.

    Attributes:
        name: The name of the compiled loss, or those of all outputs; `"add_loss"` where layers add all of it,
            `"compute_loss"` where the model has its own.
        compiled: The losses to compile the model with, as `compile` takes them; None where there are none.
        weights: What they count, as `compile` takes it; None where all count alike.
        terms: The losses by output.
        own: Whether the model has a `compute_loss` of its own.
        adds: Whether layers or regularizers add to it.
        has_values: Whether the compiled losses are means of one value an example, which may depend on the others.
        by_example: Whether the loss is the mean of `of_examples`, and nothing else.
        why_batch: Why a batch has another loss than the mean of those of its parts; "" where it has not.
        is_ratio: Whether it is a mean over the places that count, the ratio of two sums over examples, so that the loss of
            all examples as one batch can be had in parts.
        measure: A function (model, x, y) of the user that says what the loss is, in place of the compiled one.
        why_unmeasured: Why nothing says what the loss is, as for a `train_step` of the model's own; "" where something does.
    """

    name: str
    compiled: Any
    weights: Any = None
    terms: tuple[Term, ...] = ()
    own: bool = False
    adds: bool = False
    has_values: bool = True
    by_example: bool = True
    why_batch: str = ""
    is_ratio: bool = False
    measure: Callable | None = None
    why_unmeasured: str = ""

    def compile(self, model: keras.Model, optimizer: keras.Optimizer, **options: Any) -> None:
        """Compile a model with this loss as Keras does, past a `compile` of its class, which its builder has called."""
        keras.Model.compile(model, optimizer, self.compiled, loss_weights=self.weights, **options)

    def of_examples(self, y, y_pred, sample_weight=None):
        """The loss of each example, shape (batch,); further axes, such as time, are averaged."""
        values = [
            _times(term.weight, term.of_examples(y, y_pred, sample_weight), len(self.terms)) for term in self.terms
        ]
        return values[0] if len(values) == 1 else sum(values[1:], values[0])

    def values(
        self,
        model: keras.Model,
        trainable: Sequence,
        other: Sequence,
        x,
        y,
        metrics: Sequence[Callable] = (),
        *,
        sample_weight=None,
        regularizers: bool = True,
        mean_places=None,
    ) -> list:
        """The loss and metrics of each example of a batch, in inference mode; no variable changes.

        A loss that only the batch has stands for each of its examples, so that their mean is the loss.

        Args:
            model: The model; one with its own `compute_loss` must be compiled.
            trainable: Values of its trainable variables.
            other: Values of its non-trainable variables.
            x, y: Inputs and targets of the batch, shape (batch, ...), or trees of them; y may be None.
            metrics: Functions (y_true, y_pred, sample_weight) -> one value an example.
            sample_weight: What each example counts, shape (batch,), or a tree of such arrays, one for each output.
            regularizers: Whether penalties of weights are part of it.
            mean_places: How many places of an example count, as the mean over all examples, for each of `terms`: the mean of
                values is then the loss of all examples as one batch. Needs `is_ratio`.

        Returns:
            Tensors of shape (batch,), the loss first.
        """
        variables = [
            *zip(model.trainable_variables, trainable, strict=True),
            *zip(model.non_trainable_variables, other, strict=True),
        ]
        n = ops.shape(keras.tree.flatten(x)[0])[0]
        with keras.StatelessScope(state_mapping=variables, collect_losses=True):
            if self.measure is not None:
                return [_measured(self.measure, model, x, y, n)]
            y_pred = outputs.call(model, x)
            if mean_places is not None:
                first = sum(
                    term.weight * ops.cast(term.sums(y, y_pred, sample_weight), keras.config.floatx()) / mean_places[k]
                    for k, term in enumerate(self.terms)
                )
            elif self.by_example:
                first = self.of_examples(y, y_pred, sample_weight)
            else:
                value = self._of_batch(model, x, y, y_pred, sample_weight, regularizers)
                first = ops.broadcast_to(value, (n,))
            return [first, *(metric(y, y_pred, sample_weight) for metric in metrics)]

    def places(self, model: keras.Model, trainable: Sequence, other: Sequence, x, y) -> list:
        """How many places of each example of a batch count, shape (batch,), for each of `terms`; see `values`."""
        y_pred = backend.stateless_call(model, trainable, other, x, training=False)[0]
        return [term.places(y, y_pred) for term in self.terms]

    def mean(self, model: keras.Model, x, y=None, sample_weight=None) -> float:
        """The mean of `values` of a batch, arrays of shape (batch, ...), at the weights that a model has now."""
        x, y, sample_weight = as_tensors((x, y, sample_weight))
        value = self.values(model, *outputs.values_of(model), x, y, sample_weight=sample_weight)[0]
        return float(ops.convert_to_numpy(ops.mean(ops.cast(value, "float32"))))

    def _of_batch(self, model: keras.Model, x, y, y_pred, sample_weight, regularizers: bool):
        """The loss of a batch, a single number; inside the scope in which the model was called."""
        if self.own:
            total = keras_private.compute_loss(model, x, y, y_pred, sample_weight)
        else:
            parts = [ops.sum(term) for term in model.losses]
            if not self.terms:
                pass
            elif self.has_values:  # Keras divides its own mean among the devices of a strategy.
                parts.append(ops.mean(self.of_examples(y, y_pred, sample_weight)))
            else:
                parts += [term.weight * term.loss(*term.given(y, y_pred, sample_weight)) for term in self.terms]
            total = ops.sum([ops.cast(part, parts[-1].dtype) for part in parts]) if parts else ops.zeros(())
        if not regularizers:
            weights = [variable for variable in model.trainable_variables if variable.regularizer is not None]
            total -= sum(ops.cast(variable.regularizer(variable), total.dtype) for variable in weights)
        return total

    def caveats(self) -> list[str]:
        """What is to be told where batch sizes are compared."""
        if not self.why_batch:
            return []
        return [
            f"This loss depends on the batch, for {self.why_batch}: different batch sizes minimise different things."
        ]


def _measured(measure: Callable, model: keras.Model, x, y, n):
    """What a function of the user says of each example of a batch, shape (n,); one number stands for each of them."""
    value = ops.convert_to_tensor(measure(model, x, y))
    if len(value.shape) > 1:
        raise InvalidInput(f"measure must give one number, or one an example. Received: shape {tuple(value.shape)}")
    return ops.broadcast_to(value, (n,))


def _times(weight: float, values, n_terms: int):
    """The values of a term in the sum of all: several are added up in the precision of the sum."""
    values = values if weight == 1 else weight * values
    return values if n_terms == 1 else ops.cast(values, keras.config.floatx())


def as_tensors(examples: Sequence) -> list:
    """Trees of arrays as trees of tensors; None stays."""
    return [None if part is None else keras.tree.map_structure(ops.convert_to_tensor, part) for part in examples]


def example_losses(loss: keras.Loss, y, y_pred, sample_weight=None):
    """The loss of each example, shape (batch,); further axes, such as time, are averaged."""
    return mean_per_example(keras_private.without_reduction(loss)(y, y_pred, sample_weight))


def _sum_by_example(values):
    """The sum over all axes but the first, shape (batch,)."""
    return values if len(values.shape) == 1 else ops.sum(ops.reshape(values, (ops.shape(values)[0], -1)), axis=1)


def mean_per_example(values):
    """The mean over all axes but the first, shape (batch,)."""
    if not len(values.shape):
        raise InvalidInput("A loss must give one value an example, without taking their mean. Received: a single value")
    return values if len(values.shape) == 1 else ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=1)
