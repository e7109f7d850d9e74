"""The forms in which data may come, each turned into training, validation and test parts."""

from collections.abc import Mapping
from typing import Any

import optree

from batchscape.data import arrays, batches, pipelines, splits
from batchscape.errors import InvalidInput

FORMS = (
    "(x, y), (x, y, sample_weight), x, ((x_train, y_train), (x_test, y_test)), a batchscape Data, a tf.data.Dataset, a "
    "keras.utils.PyDataset, a loader with a length, or a tuple of two or three of them"
)
"""What data must come as, in the words of an error."""

NAMES = {1: ("given",), 2: ("training", "test"), 3: ("training", "validation", "test")}
"""What the parts of one, two or three are called."""


def parts_of(given: Any, rule: splits.Holdout, name: str) -> tuple[list[tuple], Any]:
    """Training, validation and test parts, checked, of anything but a `Data`.

    Args:
        given: What the user gives, or a function of theirs returns.
        rule: How examples are held out where `given` has no validation or test part.
        name: Of the data set, for messages.

    Returns:
        (parts, pipeline): three parts (x, y, sample_weight), and what training is fed from where that is a pipeline.
    """
    members = _members(given, name)
    pipeline = None
    if pipelines.is_pipeline(members[0]) and not batches.is_batched(members[0]):
        parts, pipeline = pipelines.read(members, rule, lambda part: _read(part, rule))
    else:
        read = [_read(member, rule) for member in members]
        if len(read) > 1 and all(map(batches.is_batched, members)):
            arrays.check_structures(read, name)
            read = batches.pad(read, "Training and test examples")
        for part, which in zip(read, NAMES[len(read)], strict=True):
            arrays.check(part, which, name)
        parts = _held_out(read, rule)
    return parts, pipeline


def _held_out(parts: list[tuple], rule: splits.Holdout) -> list[tuple]:
    """Three parts of one, two or three."""
    if len(parts) == 3:
        return parts
    train, test = parts if len(parts) == 2 else rule.hold_out(parts[0])
    return [*rule.hold_out(train), test]


def _members(given: Any, name: str) -> tuple:
    """One, two or three parts: sources, or tuples (x,), (x, y) or (x, y, sample_weight)."""
    if isinstance(given, list) and given and all(map(_is_source, given)):
        given = tuple(given)
    if _is_source(given):
        return (given,)
    if isinstance(given, tuple) and given and all(isinstance(part, tuple) or _is_source(part) for part in given):
        if 2 <= len(given) <= 3 and all(_is_source(part) or 1 <= len(part) <= 3 for part in given):
            return given
    elif isinstance(given, tuple) and 1 <= len(given) <= 3:
        return (given,)
    elif isinstance(given, Mapping) and given:
        return ((dict(given),),)
    elif hasattr(given, "__array__") or hasattr(given, "shape"):
        return ((given,),)
    raise InvalidInput(_refusal(given, name))


def _refusal(given: Any, name: str) -> str:
    kind = type(given).__name__
    if hasattr(given, "__iter__") and not hasattr(given, "__len__"):
        return (
            "A generator says no length, and gives its examples once: give arrays, a keras.utils.PyDataset "
            f"with a length, or a finite tf.data.Dataset. Received: {kind} from {name}"
        )
    if isinstance(given, list):
        return (
            "A list is several inputs: give (x, y) as a tuple, or ([a, b],) for inputs alone. "
            f"Received: a list of {len(given)} from {name}"
        )
    received = f"a tuple of {len(given)}" if isinstance(given, tuple) else kind
    return f"Data must come as {FORMS}. Received: {received} from {name}"


def _is_source(value: Any) -> bool:
    return pipelines.is_pipeline(value) or batches.is_loader(value)


def _read(member: Any, rule: splits.Holdout) -> tuple:
    """The arrays of one part."""
    if isinstance(member, tuple):
        return arrays.part_of(_without_generators(member))
    if batches.is_batched(member):
        return batches.read(member, ordered=rule.how == "last")
    return pipelines.stack(member)


def _without_generators(member: tuple) -> tuple:
    for leaf in optree.tree_leaves(member):
        if hasattr(leaf, "__next__") or _is_source(leaf):
            raise InvalidInput(
                "Inputs, targets and sample weights must be arrays, or dicts and lists of them. "
                f"Received: {type(leaf).__name__} among them"
            )
    return member
