"""A user's own functions: found by "package.module:function", and called with care."""

import functools
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from batchscape.errors import BatchscapeError, InvalidInput, UserCodeError, reason_of
from batchscape.system import usermodules


class Builder:
    """What builds a model that a user has given as an object or as a file; a callable with a name of its own.

    Attributes:
        label: The name, which stands in records.
        starts_from: From what a training starts: the weights of the model, or the seed.
    """

    label: str
    starts_from: str


class Wrapper:
    """What builds the model of another builder, and adds to it.

    Attributes:
        build: The other one.
    """

    build: Callable


def inner_builder(build: Any) -> Any:
    """The builder inside of wrappers."""
    while isinstance(build, Wrapper):
        build = build.build
    return build


def resolve(spec: str, *, kind: str) -> Callable:
    """The function that `"package.module:function"` names, with the current folder first on `sys.path`.

    The folder stays there as long as the process lives, since what the module imports later must be found too.

    Args:
        spec: Module and function, joined by a colon.
        kind: What it is for (`"model"` or `"dataset"`), for the message of an error.

    Raises:
        UserCodeError: If the module is missing or raises on import, or has no such function.
    """
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise InvalidInput(f'{kind} must be "package.module:function". Received: {kind}={spec!r}')
    module = import_module(module_name, kind, spec)
    function = getattr(module, function_name, None)
    if not callable(function):
        offered = ", ".join(name for name, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise UserCodeError(f"{module_name} has no function {function_name!r}; its functions: {offered}.")
    return function


def import_module(name: str, kind: str, given: str = "") -> types.ModuleType:
    """Import a user's module, with the current folder first on `sys.path`.

    Args:
        name: The module.
        kind: What it is for, for the message of an error.
        given: What was given to name it; by default its name.

    Raises:
        UserCodeError: If the module is missing or raises on import.
    """
    if (here := os.getcwd()) not in sys.path:  # A console script does not have it, unlike `python -m`.
        sys.path.insert(0, here)
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        if error.name and name.split(".")[0] == error.name.split(".")[0]:
            received = f"{kind}={(given or name)!r}"
            raise UserCodeError(f"No module {error.name!r} in {here} or on sys.path. Received: {received}") from error
        raise UserCodeError(f"{name} needs a module that is missing: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"Importing {name} raised {reason_of(error)}") from error


def _import(name: str) -> types.ModuleType:
    """Import a module, and anew what of it was edited since: results must not carry the name of code they do not have."""
    importlib.import_module(name)
    usermodules.reload_edited(name)
    return sys.modules[name]


def call(function: Callable, *arguments: Any, what: str) -> Any:
    """Call a user's function; what it raises becomes one line that names it."""
    try:
        return function(*arguments)
    except BatchscapeError:
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{what} function {name_of(function)} raised {reason_of(error)}") from error


def name_of(function: Callable) -> str:
    """`"module:function"`, the name under which a function stands in records; that of a `partial` is of what is inside."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    if isinstance(function, Wrapper):
        return name_of(function.build)
    if isinstance(function, Builder):
        return function.label
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
