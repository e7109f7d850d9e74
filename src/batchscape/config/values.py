"""Values of fields as JSON gives them back: plain and hashable."""

import math
from collections.abc import Mapping
from typing import Any

from batchscape.errors import InvalidInput


def frozen(value: Any, name: str) -> Any:
    """A value as JSON gives it back, but for tuples in place of lists, and sorted pairs in place of a mapping."""
    if hasattr(value, "tolist"):  # Of NumPy.
        value = value.tolist()
    if isinstance(value, Mapping):
        order = str if name != "batch_steps" else None  # Epochs are compared as numbers, and must come in their order.
        items = [(key if order is None else str(key), item) for key, item in value.items()]
        items = items if order is None else sorted(items, key=lambda item: item[0])
        return tuple((frozen(key, name), frozen(item, name)) for key, item in items)
    if isinstance(value, (list, tuple, range)):
        return tuple(frozen(item, name) for item in value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind in (str, int, float):  # Such as an enum of strings.
        if isinstance(value, kind):
            return kind(value)
    raise InvalidInput(f"{name} must be numbers, strings, or lists or mappings of these. Received: {name}={value!r}")


def named_options(pairs: Any) -> tuple[tuple[str, Any], ...]:
    """Pairs of a name and a value in the order of the names, the last of each."""
    pairs = pairs if isinstance(pairs, tuple) else (pairs,)
    if not all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise InvalidInput(f"optimizer_options must map names to values. Received: optimizer_options={pairs!r}")
    return tuple(sorted(dict(pairs).items(), key=lambda pair: pair[0]))


def as_float(value: Any) -> Any:
    """An int as a float, for the same text whichever was given; anything else as it is."""
    try:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except OverflowError:
        return math.inf
