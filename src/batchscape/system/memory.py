"""How much memory there is, and how much a process holds."""

import math
import numbers
import pathlib
import re
import resource
import sys

import psutil

from batchscape.errors import InvalidInput

SHARE = 0.8
"""What we take of the memory that is free, where no limit is given: the machine has others to serve."""

UNITS = {"": 1, **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}}
UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_UNITS = {unit.lower(): factor for unit, factor in UNITS.items()}


def parse(limit: int | float | str) -> int:
    """A memory limit in bytes.

    Args:
        limit: Bytes, > 0, or a number with a unit, such as `"2GB"` (10⁹ bytes each) or `"512 MiB"` (2²⁰).

    Raises:
        InvalidInput: For anything else.

    Example:
        >>> parse("2GB"), parse("1.5 MiB"), parse(1000)
        (2000000000, 1572864, 1000)
    """
    if isinstance(limit, str):
        found = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", limit.strip())
        if found and found[2].lower() in _UNITS and found[1].replace(".", "", 1).isdigit():
            limit_bytes = float(found[1]) * _UNITS[found[2].lower()]
        else:
            limit_bytes = math.nan
    else:
        limit_bytes = limit if isinstance(limit, numbers.Real) and not isinstance(limit, bool) else math.nan
    if not (math.isfinite(limit_bytes) and limit_bytes >= 1):
        raise InvalidInput(
            f'memory_limit must be a number of bytes > 0, or a text such as "2GB". Received: memory_limit={limit!r}'
        )
    return int(limit_bytes)


def text(n_bytes: float) -> str:
    """Bytes as a short text.

    Example:
        >>> text(1_234_000_000), text(56_000_000), text(999)
        ('1.23 GB', '56 MB', '0.999 KB')
    """
    unit = next((unit for unit in ("GB", "MB") if abs(n_bytes) >= UNITS[unit]), "KB")
    return f"{n_bytes / UNITS[unit]:.3g} {unit}"


def available() -> int:
    """Bytes that a new process may take: what the machine has free, or what the control group has left."""
    free = [psutil.virtual_memory().available]
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        bounds = _read(most).strip(), _read(used).strip()
        if all(bound.isdigit() for bound in bounds):
            free.append(max(0, int(bounds[0]) - int(bounds[1])))
    return min(free)


def resident(process: int | None = None) -> int:
    """Resident memory of a process, this one by default, in bytes; 0 where it is gone."""
    try:
        return psutil.Process(process).memory_info().rss
    except psutil.Error:
        return 0


def peak() -> int:
    """Largest resident memory that this process has had, in bytes.

    On Linux from `/proc`: the mark of `getrusage` is handed on from the process that started us.
    """
    if found := re.search(r"VmHWM:\s+(\d+) kB", _read("/proc/self/status")):
        return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def offer_to_be_killed() -> None:
    """Ask the kernel to end this process first, should memory run out all the same."""
    _write("/proc/self/oom_score_adj", "1000")


def _read(file: str) -> str:
    try:
        return pathlib.Path(file).read_text()
    except OSError:
        return ""


def _write(file: str, value: str) -> None:
    try:
        pathlib.Path(file).write_text(value)
    except OSError:
        return


def ran_out(error: Exception) -> bool:
    """Whether an exception says that memory ran out: TensorFlow has a type for it, JAX says so in its message."""
    name = type(error).__name__
    of_jax = name == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError) or name == "ResourceExhaustedError" or of_jax
