"""Options as values, refused in one line where they are none."""

import json
import re
from typing import Any

from batchscape.errors import InvalidInput
from batchscape.models.files import is_file
from batchscape.models.model_file import ModelFile


def items(name: str, text: str) -> list[str]:
    """The values of an option, between commas."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise InvalidInput(f"--{name} needs at least one value. Received: {text!r}")
    return items


def batch_size(text: str) -> int | str:
    """A batch size, or `"full"`."""
    if text == "full":
        return text
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f'A batch size must be an integer ≥ 1 or "full". Received: {text!r}') from None


def number(name: str, text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"--{name} must be a number. Received: {text!r}") from None


def pair(name: str, text: str) -> tuple[int, int]:
    """An epoch and the batch size from there on, such as `30:160`."""
    try:
        epoch, size = map(int, text.split(":"))
    except ValueError:
        raise InvalidInput(f"--{name} must be EPOCH:SIZE pairs, such as 30:160. Received: {text!r}") from None
    return epoch, size


def at_least_one(name: str, value: int) -> int:
    """An integer ≥ 1."""
    if value < 1:
        raise InvalidInput(f"--{name} must be an integer ≥ 1. Received: {value}")
    return value


def parallel_seeds(text: str) -> int | str:
    """A number of seeds to train side by side, or `"auto"`."""
    if text != "auto" and not text.isdecimal():
        raise InvalidInput(f'--parallel-seeds must be an integer ≥ 1 or "auto". Received: {text!r}')
    return text if text == "auto" else at_least_one("parallel-seeds", int(text))


def batch_sizes(text: str) -> list[int | str]:
    """The batch sizes of a sweep."""
    return [batch_size(item) for item in items("batch-size", text)]


def batch_steps(text: str) -> dict[int, int]:
    """Batch sizes by the epoch from which they hold."""
    return dict(pair("batch-steps", item) for item in items("batch-steps", text))


def numbers(name: str, text: str) -> tuple[float, ...]:
    """The numbers of an option, between commas."""
    return tuple(number(name, item) for item in items(name, text))


def metrics(text: str) -> tuple[str, ...]:
    """Names of metrics; none for an empty text."""
    return tuple(items("metrics", text)) if text.strip() else ()


def optimizer_options(text: str) -> dict[str, Any]:
    """Arguments of an optimizer: `NAME=VALUE` pairs between commas, or a JSON object for values that hold commas."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"--optimizer-options must be a JSON object: {error}. Received: {text!r}") from None
    options: dict[str, Any] = {}
    for item in items("optimizer-options", text):
        name, equals, value = item.partition("=")
        if not (name and equals and value) or name in options:
            raise InvalidInput(
                "--optimizer-options must be NAME=VALUE pairs, such as momentum=0.9,nesterov=true, each name once. "
                f"Received: {text!r}"
            )
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    """A number, true, false or null where the text is one, else the text."""
    for read in (json.loads, float):
        try:
            return read(text)
        except ValueError:
            pass
    return text


def model(text: str | None, fresh: bool, imports: list[str] | None) -> Any:
    """A model as the library takes it: a name, or what loads a `.keras` or `.h5` file, with the modules that it needs."""
    if is_file(text):
        return ModelFile(text, fresh=fresh, imports=tuple(imports or ()))
    if fresh or imports:
        raise InvalidInput(f"--fresh and --import need --model with a .keras or .h5 file. Received: --model {text}")
    return text


def sizes(text: str | None) -> list[int] | None:
    """Batch sizes of a probe."""
    if text is None:
        return None
    sizes = [batch_size(item) for item in items("batch-size", text)]
    if "full" in sizes:
        raise InvalidInput("A probe takes batch sizes as integers ≥ 1. Received: full")
    return sizes


def limit(text: str | None) -> str | float | None:
    """A memory limit as the library takes it: bytes, or a text with a unit."""
    return float(text) if text is not None and re.fullmatch(r"-?[0-9]+", text) else text
