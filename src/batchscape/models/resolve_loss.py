"""The loss of a model, resolved once: what was asked for, what the model was compiled with, or what the labels say."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from batchscape import backend, usercode
from batchscape.backend import keras_private
from batchscape.data import Data
from batchscape.data.splits import class_labels, count, is_one_hot, too_far_apart
from batchscape.errors import InvalidInput, UserCodeError, reason_of, telling_line, warn
from batchscape.models import named_losses, outputs, own_step
from batchscape.models.losses import ModelLoss, Term, as_tensors, example_losses

_log = logging.getLogger("batchscape")

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
"""Reductions of a Keras loss that are means over what is in the batch."""


def resolve_loss(
    model: keras.Model,
    x,
    y: Any,
    requested: Any = None,
    *,
    sample_weight: Any = None,
    fallback: str | None = None,
    measure: Callable | None = None,
) -> ModelLoss:
    """The loss to minimise: the requested one, else what the model was compiled with, else the data's, else inferred.

    A compiled loss is taken as Keras takes it. A cross-entropy that is requested by name, or inferred, takes logits or
    probabilities according to the model's last activation.

    Args:
        model: A built Keras model.
        x: Inputs, shape (n, ...) or a tree of such arrays; a few are enough.
        y: All targets, shape (n, ...) or a tree of such arrays; None where there are none.
        requested: A Keras loss, its name, a function (y_true, y_pred), a list or dict of these, a `ModelLoss`, or None.
        sample_weight: What examples count, shape (n,), or a tree of such arrays, one for each output.
        fallback: The loss that goes with the data, by name.
        measure: A function (model, x, y) of the user in place of all this; by default that of `with_measure`.

    Returns:
        The loss; of a model with a `train_step` of its own, of which nothing says what its loss is, one that says why.

    Raises:
        InvalidInput: If nothing says what the loss is, or targets do not fit it.
    """
    if isinstance(requested, ModelLoss):
        return requested
    measure = measure or own_step.measure_of(model)
    if measure is not None:
        return _measured_loss(model, measure, [part if part is None else outputs.some_rows(part) for part in (x, y)])
    try:
        return _resolved(model, x, y, requested, sample_weight, fallback)
    except (InvalidInput, UserCodeError) as error:
        if requested or not own_step.has_own_step(model):
            raise
        return _unmeasured(model, str(error).partition(" Received:")[0])


def _measured_loss(model: keras.Model, measure: Callable, some: Sequence) -> ModelLoss:
    """The loss of a model that a function of the user measures."""
    found = dataclasses.replace(_unmeasured(model, ""), name=usercode.name_of(measure), measure=measure)
    why = _why_by_values(model, found, outputs.Seen(None, [], False, False), some)
    return dataclasses.replace(found, by_example=not why and _gives_values(model, measure, some), why_batch=why)


def _gives_values(model: keras.Model, measure: Callable, some: Sequence) -> bool:
    """Whether a function of the user gives one value an example."""
    x, y = as_tensors(some)
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    with keras.StatelessScope([(variable, variable.value) for variable in variables]):
        return len(ops.convert_to_tensor(measure(model, x, y)).shape) == 1


def _unmeasured(model: keras.Model, why: str) -> ModelLoss:
    """What is compiled where nothing says what the loss is."""
    compiled = getattr(model, "compiled", False)
    return ModelLoss(
        name="train_step", compiled=model.loss if compiled else None,
        weights=keras_private.compiled_loss_weights(model) if compiled and model.loss is not None else None,
        has_values=False, by_example=False, why_unmeasured=why,
    )  # fmt: skip


def _resolved(model: keras.Model, x, y: Any, requested: Any, sample_weight: Any, fallback: str | None) -> ModelLoss:
    """See `resolve_loss`, for a model that is measured by its losses."""
    n = min(count(part) for part in (x, y) if part is not None)
    some = [None if part is None else outputs.some_rows(part, n) for part in (x, y, sample_weight)]
    seen = outputs.look(model, some[0])
    own = type(model).compute_loss is not keras.Model.compute_loss
    given, weights, terms = None, None, ()
    if own:
        _refuse(requested, model)
        given = model.loss if model.compiled else None
    elif model.compiled and not requested:
        given, weights, terms = _compiled_losses(model, some, seen)
    else:
        given, terms = _requested_losses(model, x, y, requested or fallback, some, seen)
    if given is None and not own and not seen.adds:
        raise InvalidInput(
            f"{model.name} was compiled without a loss, and its layers add none: compile it with a loss, or give loss=... "
            "(--loss ...). Received: loss=None"
        )
    for term in terms:
        _check_output(term, seen)
        _warn_of_logits(model, term.loss, seen.flat[term.output])
        _check_targets(term.loss, keras.tree.flatten(y)[term.target], seen.flat[term.output])
    why = "; ".join(dict.fromkeys(filter(None, (_why_no_mean(term, seen, sample_weight) for term in terms))))
    has_values = bool(terms) and not why and all(_has_values(term, some[1], seen) for term in terms)
    name = "compute_loss" if own else " + ".join(dict.fromkeys(_name_of(term, terms) for term in terms)) or "add_loss"
    found = ModelLoss(
        name=name, compiled=given, weights=weights, terms=terms, own=own, adds=seen.adds, has_values=has_values,
        by_example=False,
    )  # fmt: skip
    by_values = _why_by_values(model, found, seen, some)
    why = why or by_values
    by_example = has_values and not seen.adds and not why
    is_ratio = _is_ratio(model, found, seen, some)
    return dataclasses.replace(found, by_example=by_example, why_batch=why, is_ratio=is_ratio)


def _is_ratio(model: keras.Model, loss: ModelLoss, seen: outputs.Seen, some: Sequence) -> bool:
    """Whether a loss is a mean over places that count, and its value that of its parts together, by what it is and does."""
    if loss.own or loss.adds or not any(_leaves_out(term, seen) for term in loss.terms):
        return False
    if not all(_leaves_out(term, seen) or _has_values(term, some[1], seen) for term in loss.terms):
        return False
    n = count(some[0])
    parts = [slice(n)] if n < 2 else [slice(n // 2), slice(n // 2, n)]
    sums, places = np.zeros((2, len(loss.terms)))
    variables = outputs.values_of(model)
    for rows in parts:
        x, y, sample_weight = as_tensors([None if part is None else _rows_of(part, rows) for part in some])
        counted = loss.places(model, *variables, x, y)
        places += [float(ops.sum(each)) for each in counted]
        y_pred = backend.stateless_call(model, *variables, x, training=False)[0]
        sums += [float(ops.sum(term.sums(y, y_pred, sample_weight))) for term in loss.terms]
    found = float(
        sum(term.weight * total / number for term, total, number in zip(loss.terms, sums, places, strict=True))
    )
    whole = _value(model, loss, some, slice(n))
    return abs(found - whole) <= (2e-2 if "16" in model.compute_dtype else 1e-5) * max(1.0, abs(whole))


def _leaves_out(term: Term, seen: outputs.Seen) -> bool:
    """Whether a loss is a mean over some places alone: without a mask, or of classes that are not ignored."""
    if term.loss.reduction not in ("sum_over_batch_size", "mean"):
        return False
    return seen.masked[term.output] or getattr(term.loss, "ignore_class", None) is not None


def _refuse(requested: Any, model: keras.Model) -> None:
    """Refuse a loss beside the own `compute_loss` of a model."""
    if requested:
        raise InvalidInput(
            f"The own compute_loss of {type(model).__name__} decides what is minimised: compile the model with the loss that "
            f"it uses, and leave out loss. Received: loss={requested!r}"
        )


def _compiled_losses(model: keras.Model, some: Sequence, seen: outputs.Seen) -> tuple[Any, Any, tuple[Term, ...]]:
    """The losses that a model was compiled with and their weights, as `compile` takes them, and those by output."""
    if model.loss is None:
        return None, None, ()
    given, weights = model.loss, keras_private.compiled_loss_weights(model)
    given = keras.tree.map_structure(functools.partial(_as_loss, model), given)
    terms = _terms(model, given, weights, some, seen)
    return given, weights, tuple(_with_crossentropy(model, term, some[1], seen) for term in terms)


def _requested_losses(
    model: keras.Model, x, y: Any, chosen: Any, some: Sequence, seen: outputs.Seen
) -> tuple[Any, tuple[Term, ...]]:
    """The losses that were asked for, or that labels say, as `compile` takes them, and those by output."""
    if chosen is None and y is None and seen.adds:
        return None, ()
    terms = _terms(model, _chosen_loss(y, chosen, seen), None, some, seen)
    terms = tuple(term._replace(loss=_requested_loss(model, x, term)) for term in terms)
    return _by_output(terms, seen.output), terms


def _terms(model: keras.Model, losses: Any, weights: Any, some: Sequence, seen: outputs.Seen) -> tuple[Term, ...]:
    """The losses by output, as Keras gives them targets and outputs; `some` are a few x, y and sample weights."""
    _, y, sample_weight = some
    if y is None:
        raise InvalidInput(
            f"The loss of {model.name} needs targets: give (x, y); an autoencoder has its inputs as targets, (x, x). "
            "Received: inputs alone"
        )
    try:
        found = keras_private.losses_of_outputs(model, losses, weights, y, seen.output, sample_weight)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidInput(
            f"The losses of {model.name} do not fit its outputs and the targets: {telling_line(error)} Received: losses "
            f"{_structure(losses)}, outputs {_structure(seen.output)}, targets {_structure(y)}"
        ) from error
    return tuple(
        Term(each.name, each.loss, 1.0 if each.weight is None else float(each.weight), *each[3:]) for each in found
    )


def _by_output(terms: Sequence[Term], output: Any) -> Any:
    """The losses as `compile` takes them, in the structure of the outputs."""
    by_output = {term.output: term.loss for term in terms}
    losses = [by_output.get(place) for place in range(len(keras.tree.flatten(output)))]
    return keras.tree.pack_sequence_as(output, losses) if keras.tree.is_nested(output) else losses[0]


def _with_crossentropy(model: keras.Model, term: Term, y: Any, seen: outputs.Seen) -> Term:
    """A term whose loss, where it is Keras' short name for one of three cross-entropies, is the one that fits."""
    if not isinstance(term.loss, str):
        return term
    y_true, y_pred = keras.tree.flatten(y)[term.target], seen.flat[term.output]
    return term._replace(loss=named_losses.from_name(_crossentropy(y_true, y_pred), dtype=_dtype(model)))


def _structure(tree: Any) -> Any:
    """A tree of losses or arrays in words: names and shapes."""
    if keras.tree.is_nested(tree):
        return keras.tree.map_structure(_structure, tree)
    if hasattr(tree, "shape"):
        return tuple(tree.shape)
    return getattr(tree, "name", getattr(tree, "__name__", tree))


def _as_loss(model: keras.Model, given: Any) -> Any:
    """A loss as Keras takes it: itself, or that of its name or function; None, and "crossentropy", stay."""
    if given is None or isinstance(given, keras.Loss) or given in ("crossentropy", "ce"):
        return given
    if isinstance(given, str):
        return named_losses.from_name(given, dtype=_dtype(model))
    return named_losses.FunctionLoss(given, _dtype(model))


def _check_output(term: Term, seen: outputs.Seen) -> None:
    shape = getattr(seen.flat[term.output], "shape", ())
    if len(shape) < 2:
        raise InvalidInput(
            f"The output of the model must have shape (n, ...), such as (n, 1). Received: {tuple(shape)}"
        )


def _name_of(term: Term, terms: Sequence[Term]) -> str:
    if len(terms) == 1:
        return term.loss.name
    factor = "" if term.weight == 1 else f"{term.weight:g} × "
    return f"{factor}{term.loss.name} of {term.name}"


def _chosen_loss(y: Any, chosen: Any, seen: outputs.Seen) -> Any:
    """A loss from what was asked for, or from the labels; a list or dict of them for several outputs."""
    if chosen is None:
        if len(seen.flat) > 1 or keras.tree.is_nested(y) or y is None:
            raise InvalidInput(
                "A model with several outputs, or without targets, must say what its loss is: compile it with its losses. "
                f"Received: outputs {_structure(seen.output)}, targets {_structure(y)}, no loss"
            )
        chosen = _infer(y, seen.output)
        _log_inferred(chosen)
    for each in keras.tree.flatten(chosen):
        if not (each is None or isinstance(each, str) or callable(each)):
            raise InvalidInput(
                "loss must be one Keras loss, its name or a function, or a list or dict of these for several outputs. "
                f"Received: loss={chosen!r}"
            )
        if isinstance(each, str):
            named_losses.class_of(each)
    return chosen


def _requested_loss(model: keras.Model, x, term: Term) -> keras.Loss:
    """The loss of an output that was asked for: a cross-entropy by name takes what the output is."""
    loss = term.loss
    if isinstance(loss, str):
        return named_losses.from_name(
            loss, dtype=_dtype(model), from_logits=outputs.gives_logits(model, x, term.output)
        )
    return loss if isinstance(loss, keras.Loss) else named_losses.FunctionLoss(loss, _dtype(model))


def _dtype(model: keras.Model) -> str | None:
    return "float64" if model.dtype == "float64" else None


def _has_values(term: Term, y: Any, seen: outputs.Seen) -> bool:
    """Whether a loss has one value an example."""
    y_true, y_pred, _ = map(ops.convert_to_tensor, (*term.given(y, seen.output)[:2], 0))
    try:
        return example_losses(term.loss, y_true, y_pred).shape == (len(y_true),)
    except InvalidInput:
        return False


def _why_no_mean(term: Term, seen: outputs.Seen, sample_weight: Any) -> str:
    """Why a Keras loss is no mean over all examples, by what is known of it; "" where it is one."""
    loss = term.loss
    if loss.reduction not in _MEANS:
        return f"its reduction is {loss.reduction!r}"
    if loss.reduction == "mean_with_sample_weight" and sample_weight is not None:
        return "it is divided by the sum of the sample weights"
    if getattr(loss, "ignore_class", None) is not None:
        return "it is a mean over classes that are not ignored"
    return "it is a mean over places that are not masked" if seen.masked[term.output] else ""


def _why_by_values(model: keras.Model, loss: ModelLoss, seen: outputs.Seen, examples: Sequence) -> str:
    """Why a batch has another loss than the mean of those of its parts, by their values; "" where it has not."""
    n = count(examples[0])
    try:
        whole = _value(model, loss, examples, slice(n))
    except Exception as error:
        if loss.own and not model.compiled:
            raise InvalidInput(
                f"The own compute_loss of {type(model).__name__} needs a compiled model: compile it with the loss that it "
                f"uses. Received: a model not compiled, {telling_line(error)}"
            ) from error
        raise UserCodeError(f"The loss of {model.name} cannot be had: {telling_line(error)}") from error
    if n < 2:
        return ""
    if seen.draws:
        return _why_in_spite_of_draws(model, loss, examples, n)
    cut = n // 2  # Halves: on JAX each number of examples is a compilation.
    try:
        parts = [_value(model, loss, examples, rows) for rows in (slice(cut), slice(cut, n))]
    except Exception as error:
        return f"{cut} of {n} examples have none ({telling_line(error)})"
    mean = (cut * parts[0] + (n - cut) * parts[1]) / n
    tolerance = 2e-2 if "16" in model.compute_dtype else 1e-4
    scale = max(abs(whole), *map(abs, parts))
    if not np.isfinite([whole, mean]).all() or abs(whole - mean) <= tolerance * scale:
        return ""
    return f"the loss of {n} examples is {whole:.4g}, and the mean of the losses of their halves {mean:.4g}"


def _why_in_spite_of_draws(model: keras.Model, loss: ModelLoss, examples: Sequence, n: int) -> str:
    """`_why_by_values` of a model that draws random numbers in inference, others for each part and each order of rows.

    Told is what exceeds the spread over some orders of the rows, and a tenth of the value.
    """
    cut, orders = n // 2, [np.random.default_rng(seed).permutation(n) for seed in range(4)]
    try:
        wholes = [_value(model, loss, examples, order) for order in orders]
        halves = [[_value(model, loss, examples, part) for part in (order[:cut], order[cut:])] for order in orders]
    except Exception as error:
        return f"{cut} of {n} examples have none ({telling_line(error)})"
    means = [(cut * first + (n - cut) * second) / n for first, second in halves]
    spread = np.ptp(wholes) + np.ptp(means)
    whole, mean = float(np.mean(wholes)), float(np.mean(means))
    if not np.isfinite([whole, mean]).all() or abs(whole - mean) <= spread + 0.1 * max(abs(whole), abs(mean)):
        return ""
    return f"the loss of {n} examples is {whole:.4g}, and the mean of the losses of their halves {mean:.4g}, on average"


def _value(model: keras.Model, loss: ModelLoss, examples: Sequence, rows: slice | np.ndarray) -> float:
    """The loss of some examples at the weights that a model has."""
    return loss.mean(model, *(None if part is None else _rows_of(part, rows) for part in examples))


def _rows_of(tree: Any, rows: slice | np.ndarray) -> Any:
    return keras.tree.map_structure(lambda array: array[rows], tree)


def _warn_of_logits(model: keras.Model, loss: keras.Loss, predicted: np.ndarray) -> None:
    """Say where a compiled cross-entropy takes for probabilities what are none: we keep it, as Keras does."""
    takes_probabilities = loss.name in named_losses.CROSSENTROPIES and not _takes_logits(loss)
    if takes_probabilities and ((predicted < 0).any() or (predicted > 1 + 1e-5).any()):
        warn(
            f"{model.name} was compiled with {loss.name} of probabilities, and its outputs are none, from "
            f"{predicted.min():.3g} to {predicted.max():.3g}: trained and measured like that, as Keras would; "
            "from_logits=True takes logits."
        )


def _takes_logits(loss: keras.Loss) -> bool:
    return bool(loss.get_config().get("from_logits", False))


_WITH_OTHER_TARGETS = (
    keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalGeneralizedCrossEntropy, keras.losses.Circle,
    keras.losses.CTC,
)  # fmt: skip
"""Losses of Keras whose targets need not have the shape of the outputs."""


def _check_targets(loss: keras.Loss, y: np.ndarray, predicted: np.ndarray) -> None:
    """Refuse targets that do not fit the loss and the outputs, which Keras would broadcast or take modulo something."""
    ignored = getattr(loss, "ignore_class", None)
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        labels = y[y != ignored] if ignored is not None else y
        if labels.size and (
            not 0 <= labels.min() <= labels.max() < predicted.shape[-1] or (labels != np.floor(labels)).any()
        ):
            raise InvalidInput(
                f"Labels must lie in 0..{predicted.shape[-1] - 1} for a model with {predicted.shape[-1]} outputs. "
                f"Received: labels from {labels.min():g} to {labels.max():g}"
            )
    elif isinstance(loss, keras.losses.BinaryCrossentropy) and not 0 <= y.min() <= y.max() <= 1:
        raise InvalidInput(
            f"Labels must lie in 0..1 for binary_crossentropy. Received: labels from {y.min():g} to {y.max():g}"
        )
    shape = f"(n, {', '.join(map(str, predicted.shape[1:]))})"
    if type(loss) in named_losses.named_losses().values() and not isinstance(loss, _WITH_OTHER_TARGETS):
        one = predicted.shape[-1] == 1 and y.shape[1:] == predicted.shape[1:-1]
        one = one or (y.shape[-1] == 1 and y.shape[1:-1] == predicted.shape[1:])
        if y.shape[1:] != predicted.shape[1:] and not one:
            raise InvalidInput(
                f"Targets of {loss.name} must have the shape of the outputs, {shape}. Received: {y.shape}"
            )
    if loss.reduction in (None, "none"):
        raise InvalidInput(
            f'The loss {loss.name} must be one number: give it a reduction, such as "sum_over_batch_size". '
            f"Received: reduction={loss.reduction!r}"
        )
    rows = min(len(y), len(predicted))
    try:
        values = loss(ops.convert_to_tensor(y[:rows]), ops.convert_to_tensor(predicted[:rows]))
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"The loss {loss.name} does not take targets of shape {y.shape} with outputs of shape {shape}. "
            f"Received: {reason_of(error)}"
        ) from error
    if len(values.shape) and values.shape != (rows,):
        raise InvalidInput(
            f"The loss {loss.name} must be one number, or one an example. Received: shape {values.shape}"
        )


@functools.cache
def _log_inferred(loss: str) -> None:
    """Say once what was inferred."""
    _log.info("loss: %s, inferred from the labels and the outputs of the model", loss)


def loss_of(model: keras.Model, data: Data, requested: Any = None) -> ModelLoss:
    """The loss of a model on a data set; see `resolve_loss`."""
    return resolve_loss(
        model, data.x_train, all_targets(data), requested,
        sample_weight=data.sample_weight_train, fallback=data.meta["loss"],
    )  # fmt: skip


def all_targets(data: Data) -> Any:
    """The targets of all three parts, one after the other; None where there are none."""
    if data.y_train is None:
        return None
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), data.y_train, data.y_val, data.y_test)


def missing_labels(loss: ModelLoss, data: Data) -> list[str]:
    """A sentence to tell where classes of a model have no example: labels with gaps train outputs in vain."""
    found = []
    for term in loss.terms:
        y = keras.tree.flatten(all_targets(data))[term.target]
        y = y[y != getattr(term.loss, "ignore_class", None)]
        if "sparse" not in term.loss.name or y.ndim > 1 or y.dtype.kind not in "iu" or not y.size:
            continue
        n_classes, occur = int(y.max()) + 1, len(np.unique(y))
        if occur != n_classes:
            found.append(
                f"Labels of {data.meta['name']} lie in 0..{n_classes - 1}, but only {occur} of these {n_classes} classes "
                "occur."
            )
    return found


def _infer(y: np.ndarray, predicted: np.ndarray) -> str:
    if reason := too_far_apart(y):
        raise InvalidInput(f"{reason}; a loss for numbers must be named, such as mean_squared_error")
    if y.dtype == bool or (
        y.dtype.kind == "f" and y.min() >= 0 and (y == np.floor(y)).all() and class_labels(y) is None
    ):
        raise InvalidInput(
            "Class labels must be integers: make them so with y.astype(int); or name a loss for numbers, such as "
            f"mean_squared_error. Received: {y.dtype} targets, all of them whole numbers"
        )
    if class_labels(y) is None:
        raise InvalidInput(
            "These targets are not class labels, so the loss must be named: compile the model, or give loss=... "
            '(--loss ...), such as "mean_squared_error". Received: no loss'
        )
    return _crossentropy(y, predicted)


def _crossentropy(y: np.ndarray, predicted: np.ndarray) -> str:
    """The cross-entropy of these labels and outputs."""
    if predicted.shape[-1] == 1:
        return "binary_crossentropy"
    return "categorical_crossentropy" if is_one_hot(y) else "sparse_categorical_crossentropy"
