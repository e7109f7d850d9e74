"""Options as values, refused in one line where they are none."""

from batchscape.errors import InvalidInput


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


def replicas(text: str) -> int | str:
    """A number of replicas, or `"auto"`."""
    if text != "auto" and not text.isdigit():
        raise InvalidInput(f'--replicas must be an integer ≥ 1 or "auto". Received: {text!r}')
    return text if text == "auto" else at_least_one("replicas", int(text))


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
    return float(text) if text is not None and text.lstrip("-").isdigit() else text
