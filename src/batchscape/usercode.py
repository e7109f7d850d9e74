"""A user's own functions: found by "package.module:function", called with care, and fingerprinted by source."""

import functools
import hashlib
import importlib
import inspect
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from batchscape.errors import BatchscapeError, InvalidInput, UserCodeError


def resolve(spec: str, *, kind: str) -> Callable:
    """The function that `"package.module:function"` names, with the current folder first on `sys.path`.

    Args:
        spec: Module and function, joined by a colon.
        kind: What it is for (`"model"` or `"dataset"`), for the message of an error.

    Raises:
        UserCodeError: If the module is missing or raises on import, or has no such function.
    """
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise InvalidInput(f'{kind} must be "package.module:function". Received: {kind}={spec!r}')
    if (here := os.getcwd()) not in sys.path:  # A console script does not have it, unlike `python -m`.
        sys.path.insert(0, here)
    try:
        module = _import(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            raise UserCodeError(
                f"No module {error.name!r} in {here} or on sys.path. Received: {kind}={spec!r}"
            ) from error
        raise UserCodeError(f"{module_name} needs a module that is missing: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"Importing {module_name} raised {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        offered = ", ".join(name for name, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise UserCodeError(f"{module_name} has no function {function_name!r}; its functions: {offered}.")
    return function


_digests: dict[str, str] = {}
"""Digests of the files of user modules as they were imported."""


def _import(name: str):
    """Import a module, afresh if its file was edited since: results must not carry the name of code they do not have."""
    known = name in sys.modules
    module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if file and pathlib.Path(file).is_file():
        digest = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
        if known and _digests.get(name, digest) != digest:
            module = importlib.reload(module)
        _digests[name] = digest
    return module


def call(function: Callable, *arguments: Any, what: str) -> Any:
    """Call a user's function; what it raises becomes one line that names it."""
    try:
        return function(*arguments)
    except BatchscapeError:
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{what} function {name_of(function)} raised {type(error).__name__}: {error}") from error


def name_of(function: Callable) -> str:
    """`"module:function"`, the name under which a function stands in records."""
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"


def takes_argument(function: Callable) -> bool:
    """Whether a function wants an argument: tells `build(data)` from `build()` and `build(width=64)`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        parameter.kind in positional and (parameter.default is parameter.empty or parameter.name == "data")
        for parameter in parameters
    )


def source_sha256(function: Callable) -> str:
    """A digest of a function and what it reads, so that editing it never brings back stale results.

    The whole file for a function of a module; in a script or a notebook its bytecode, and that of the functions and
    classes there that it names; in both the values it closes over, its defaults and the arguments of a `partial`.
    """
    return hashlib.sha256(repr(_described(function, set())).encode()).hexdigest()


def _described(value: Any, seen: set[int]) -> Any:
    """A value as nested tuples that are equal in every process where the value is."""
    if isinstance(value, (int, float, complex, str, bytes, type(None))):
        return repr(value)
    if id(value) in seen:
        return "again"
    seen = seen | {id(value)}
    if isinstance(value, functools.partial):
        return "partial", *(_described(part, seen) for part in (value.func, value.args, value.keywords))
    if inspect.isfunction(value):
        closed = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
        values = _described((closed, value.__defaults__, value.__kwdefaults__), seen)
        return _source_of(value, seen), values
    if inspect.isclass(value):
        return value.__qualname__, _described(dict(vars(value)), seen) if value.__module__ == "__main__" else ()
    if isinstance(value, dict):
        items = ((str(key), _described(item, seen)) for key, item in value.items() if key not in _NOT_SOURCE)
        return tuple(sorted(items, key=lambda item: item[0]))
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, *sorted(repr(_described(item, seen)) for item in value)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, *(_described(item, seen) for item in value)
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return str(value.dtype), getattr(value, "shape", ()), hashlib.sha256(value.tobytes()).hexdigest()
    return getattr(value, "__module__", ""), type(value).__qualname__


_NOT_SOURCE = frozenset(
    ["__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "__doc__", "__module__", "__qualname__"]
)


def _is_full(cell) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (raises while the name it stands for has no value yet)
    except ValueError:
        return False
    return True


def _source_of(function: Callable, seen: set[int]) -> Any:
    file = inspect.getsourcefile(function)
    if file and pathlib.Path(file).is_file() and function.__module__ != "__main__":
        return hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
    named = [name for name in _names(function.__code__) if name in function.__globals__]
    return _bytecode(function.__code__), [(name, _described(function.__globals__[name], seen)) for name in named]


def _names(code) -> list[str]:
    """Global names that code and the functions inside it use, sorted."""
    inner = [name for item in code.co_consts if inspect.iscode(item) for name in _names(item)]
    return sorted({*code.co_names, *inner})


def _bytecode(code) -> tuple:
    """Instructions, names and constants, those of inner functions included."""
    constants = [_bytecode(item) if inspect.iscode(item) else _described(item, set()) for item in code.co_consts]
    return code.co_code, code.co_names, constants
