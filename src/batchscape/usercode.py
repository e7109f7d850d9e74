"""A user's own functions: found by "package.module:function", called with care, and fingerprinted by source."""

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
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            raise UserCodeError(
                f"No module {error.name!r} in {here} or on sys.path. Received: {kind}={spec!r}"
            ) from error
        raise UserCodeError(f"{module_name} needs a module that is missing: {error}") from error
    except Exception as error:
        raise UserCodeError(f"Importing {module_name} raised {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        offered = ", ".join(name for name, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise UserCodeError(f"{module_name} has no function {function_name!r}; its functions: {offered}.")
    return function


def call(function: Callable, *arguments: Any, what: str) -> Any:
    """Call a user's function; what it raises becomes one line that names it."""
    try:
        return function(*arguments)
    except BatchscapeError:
        raise
    except Exception as error:
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
    """A digest of a function's source, so that editing it never brings back stale results.

    The whole file for a function of a module, its own source where there is no file (a notebook), its bytecode where
    there is no source.
    """
    file = inspect.getsourcefile(function) if hasattr(function, "__code__") else None
    if file and pathlib.Path(file).is_file() and function.__module__ != "__main__":
        return hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        described = _bytecode(code) if code else type(function).__qualname__
        return hashlib.sha256(repr(described).encode()).hexdigest()


def _bytecode(code) -> tuple:
    """Instructions, names and constants, those of inner functions included."""
    constants = tuple(_bytecode(item) if inspect.iscode(item) else repr(item) for item in code.co_consts)
    return code.co_code, code.co_names, constants
