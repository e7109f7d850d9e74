"""Digests of a user's functions, classes and objects: equal where what they would do is equal, in every process.

A digest covers the value itself (closures, defaults, partial arguments, the state of objects) and the files of all the
user's own modules that it reaches through imports. In a notebook or a script it covers the code of the functions and the
classes that it reaches.
"""

import argparse
import collections
import contextlib
import copyreg
import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import os
import pathlib
import random
import re
import secrets
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from batchscape.backend import keras_private
from batchscape.errors import UserCodeError
from batchscape.system import usermodules

_Function = TypeVar("_Function", bound=Callable)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What stands for a value in the name of a run or of a measurement.

    Attributes:
        digest: 64 hexadecimal digits.
        files: The sha256 of the file of each of the user's own modules that it reaches.
        why_not: Why some of it could not be followed; "" where all of it was.
    """

    digest: str
    files: Mapping[str, str]
    why_not: str = ""

    @property
    def name(self) -> str:
        """The digest; where not all could be followed a random one, which nothing has twice."""
        return secrets.token_hex(32) if self.why_not else self.digest


def of(*values: Any) -> Fingerprint:
    """The fingerprint of some values together.

    Raises:
        UserCodeError: If a module was edited after it was imported: what runs would not be what its file says.
    """
    walk = _Walk()
    return walk.finish([walk.describe(value) for value in values])


def of_model(model: Any, twin: Any, *values: Any) -> Fingerprint:
    """The fingerprint of a built Keras model with some values, such as the function that built it.

    Weights count where they do not depend on the seed, such as those that were read from a file.

    Args:
        model: A built `keras.Model`.
        twin: The model of another build with another seed; the same model where no weights are to count.
        *values: What else is to count.
    """
    walk = _Walk()
    return walk.finish([*_built(walk, model, twin), *(walk.describe(value) for value in values)])


def revision(number: int) -> Callable[[_Function], _Function]:
    """Mark a function of batchscape with the revision of its results, which stands for its code in the names of these.

    Raise it when the results change (an estimator mended, another default), not for speed or wording.
    """

    def mark(function: _Function) -> _Function:
        function.revision = number
        return function

    return mark


def configuration(thing: Any) -> Any:
    """The configuration of a Keras object without the names that Keras numbers by what the process has made before."""
    try:
        config = thing.get_config()
    except Exception:  # A layer or model without get_config: its parts, and its source, must do.
        config = [configuration(layer) for layer in _layers(thing) if layer is not thing]
    names = {}
    for position, layer in enumerate(_layers(thing)):
        names.setdefault(layer.name, f"layer {position}")
        for place, operation in enumerate(keras_private.operations_of(layer)):  # Such as the sum in x + y.
            names.setdefault(operation.name, f"operation {position}.{place}")
    return _renamed({"class_name": type(thing).__name__, "config": config}, names)["config"]


NAMING = ("name", "keras_history", "input_layers", "output_layers")
"""Where layers are named in a configuration; elsewhere "dropout" is a rate, and "relu" an activation."""


def _renamed(config: Any, names: Mapping[str, str], *, naming: bool = False) -> Any:
    """A configuration with other names for its layers, and none for what has the name of its class."""
    if isinstance(config, Mapping):
        found = {
            key: _renamed(value, names, naming=key in NAMING)
            for key, value in config.items()
            if key != "shared_object_id"
        }
        inner, kind = found.get("config"), found.get("class_name")
        if kind == "__lambda__":  # Its code with its place on the disk; the function itself is followed.
            found["config"] = None
        if isinstance(inner, dict) and isinstance(kind, str) and _is_numbered(inner.get("name"), kind):
            found["config"] = {key: value for key, value in inner.items() if key != "name"}
        return found
    if isinstance(config, (list, tuple)):
        return [_renamed(item, names, naming=naming) for item in config]
    return names.get(config, config) if naming and isinstance(config, str) else config


def _is_numbered(name: Any, kind: str) -> bool:
    """Whether Keras made a name from that of a class: `adam_1` from `Adam`."""
    plain = kind.rpartition(">")[2].replace("_", "").lower()
    return isinstance(name, str) and re.sub(r"_\d+$", "", name).replace("_", "") == plain


def _layers(thing: Any) -> list:
    return keras_private.layers_of(thing) if keras_private.is_layer(thing) else []


def _built(walk: "_Walk", model: Any, twin: Any) -> Iterator[Any]:
    """Descriptions of a built model: its configuration, its layers, what it was compiled with, and its constants."""
    for layer in _layers(model):
        walk.meet(layer)  # So that none is described with its weights.
    yield [(list(weight.shape), str(weight.dtype), weight.trainable) for weight in model.weights]
    yield walk.describe(configuration(model))
    for layer in _layers(model):  # The configuration of a subclass tells nothing of the layers that it makes.
        parts = _vocabulary(layer), walk.own_parts(layer, strict=False)
        yield walk.describe(type(layer)), walk.describe(configuration(layer)), parts
    for name in ("optimizer", "loss"):
        part = getattr(model, name, None)
        yield walk.describe(part) if name == "loss" else walk.keras(part, weights=False)
    yield [walk.describe(_options_of(loss)) for loss in _losses(getattr(model, "loss", None))]
    yield [walk.describe(metrics) for metrics in keras_private.compiled_metrics(model)]
    yield walk.describe(keras_private.compiled_loss_weights(model))
    if twin is not model:
        pairs = zip(map(np.asarray, model.weights), map(np.asarray, twin.weights), strict=False)
        yield [_array(a) if a.shape == b.shape and np.array_equal(a, b, equal_nan=True) else "random" for a, b in pairs]


def _losses(tree: Any) -> list:
    """The leaves of the losses that a model was compiled with."""
    if isinstance(tree, Mapping):
        return [loss for key in sorted(tree) for loss in _losses(tree[key])]
    return [loss for each in tree for loss in _losses(each)] if isinstance(tree, (list, tuple)) else [tree]


def _options_of(loss: Any) -> dict[str, Any]:
    """What one of Keras' losses gives its function: the configurations of some, such as Huber, forget it."""
    options = keras_private.loss_options(loss) if _root(type(loss)) == "keras" else {}
    return {name: value for name, value in sorted(options.items()) if _is_simple(value)}


def _vocabulary(layer: Any) -> str:
    """What a lookup layer has been adapted to: words and their weights, which stand in a table and in no variable."""
    try:
        words = repr([word.item() if isinstance(word, np.generic) else word for word in layer.get_vocabulary()])
    except Exception:  # It has none yet.
        return ""
    weights = keras_private.idf_weights(layer)
    return hashlib.sha256(repr((words, None if weights is None else np.asarray(weights).tolist())).encode()).hexdigest()


SLICE = 1 << 26
"""Bytes of an array that are read at a time: one that is mapped from a file may be larger than the memory."""


def _array(array: np.ndarray) -> tuple:
    content, rows = hashlib.sha256(), np.atleast_1d(array)
    step = max(1, SLICE * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        content.update(np.ascontiguousarray(rows[start : start + step]).reshape(-1).view(np.uint8))
    return str(array.dtype), array.shape, content.hexdigest()


_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented))
_CONTAINERS = (list, tuple, dict, set, frozenset, collections.deque, types.MappingProxyType)
_NAMED = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip
"""Functions of Python itself and of extension modules, which their names stand for."""
_PASSING = (
    np.random.Generator, np.random.RandomState, random.Random, type(os.environ), argparse.ArgumentParser,
)  # fmt: skip
"""State that changes as a process goes on, or with how it was started."""


class _Walk:
    """One walk through values and all that they reach; descriptions are nested lists, tuples and strings.

    Attributes:
        modules: The user's own modules met on the way.
        reasons: What could not be followed.
        edited: Modules whose code in this process is not that of their files.
    """

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self.reasons: list[str] = []
        self.edited: dict[str, None] = {}
        self._met: dict[int, tuple[int, Any]] = {}  # With the values, lest another one gets the address of one.
        self._inside: set[int] = set()
        self._folder = ""

    def finish(self, description: Any) -> Fingerprint:
        """The fingerprint of a description, with the files that the walk has reached."""
        modules = usermodules.reached(self.modules)
        if edited := dict.fromkeys([*usermodules.stale(modules), *self.edited]):
            raise UserCodeError(
                f"{', '.join(edited)} was edited after it was imported: reload it (importlib.reload), with what imports "
                "from it, or start Python anew, so that what runs is what its file says."
            )
        text = repr((description, sorted(modules.files.items())))
        reasons = [*self.reasons, *modules.reasons]
        return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), modules.files, reasons[0] if reasons else "")

    def describe(self, value: Any) -> Any:
        """A value, and what it reaches."""
        if type(value) in _SCALARS:
            return repr(value)
        if type(value) in _CONTAINERS:
            return self._container(value)
        if id(value) in self._met:
            return f"value {self._met[id(value)][0]}"
        self.meet(value)
        try:
            return self._described(value)
        except RecursionError:
            return self._lost(value, "is nested too deeply")

    def meet(self, value: Any) -> None:
        """Count a value as described."""
        self._met.setdefault(id(value), (len(self._met), value))

    @contextlib.contextmanager
    def _beside_file(self, file: str) -> Iterator[None]:
        """Describe values that a module has made whose file counts: what of them cannot be followed is left out."""
        before, reasons = self._folder, self.reasons
        self._folder, self.reasons = os.path.dirname(os.path.abspath(file)), []
        try:
            yield
        finally:
            self._folder, self.reasons = before, reasons

    def _lost(self, value: Any, why: str = "cannot be followed") -> str:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        self.reasons.append(f"a value of type {kind} {why}")
        return f"lost {kind}"

    def _container(self, value: Any) -> Any:
        if id(value) in self._inside:
            return "around"
        self._inside.add(id(value))
        try:
            if isinstance(value, (dict, types.MappingProxyType)):
                return "dict", [(self.describe(key), self.describe(item)) for key, item in value.items()]
            if isinstance(value, (set, frozenset)):
                return type(value).__name__, sorted(repr(self._apart(item)) for item in value)
            return type(value).__name__, [self.describe(item) for item in value]
        finally:
            self._inside.discard(id(value))

    def _apart(self, value: Any) -> Any:
        """The description of a member of a set, which does not depend on those before it."""
        met = dict(self._met)
        try:
            return self.describe(value)
        finally:
            self._met = met

    def _described(self, value: Any) -> Any:
        if self._folder and (isinstance(value, _PASSING) or _is_a(value, "SeedGenerator")):
            return "passing", type(value).__qualname__
        if self._folder and isinstance(value, pathlib.PurePath) and value.is_absolute():
            return "path", os.path.relpath(value, self._folder)  # Equal where the project lies elsewhere.
        if isinstance(value, functools.partial):
            parts = value.func, value.args, dict(sorted(value.keywords.items())), vars(value)
            return "partial", [self.describe(part) for part in parts]
        if isinstance(value, types.MethodType):
            return "method", self.describe(value.__func__), self.describe(value.__self__)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if inspect.isclass(value):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, (staticmethod, classmethod)):
            return type(value).__name__, self.describe(value.__func__)
        if isinstance(value, functools.cached_property):
            return "cached_property", self.describe(value.func)
        if isinstance(value, functools.singledispatchmethod):
            return "singledispatchmethod", self.describe(value.dispatcher)
        if isinstance(value, property):
            return "property", [self.describe(part) for part in (value.fget, value.fset, value.fdel)]
        if isinstance(value, _NAMED):
            owner, home = getattr(value, "__self__", None), getattr(value, "__module__", None)
            return "built in", home, value.__qualname__, None if inspect.ismodule(owner) else self.describe(owner)
        if _is_array(value):
            return self._numbers(value)
        if _is_of_keras(value):  # The state of metrics and optimizers is that of a training before.
            return self.keras(value, weights=not _is_a(value, "Metric", "Optimizer", "BaseOptimizer"))
        if isinstance(value, _CONTAINERS[:5]) and _root(type(value)) in ("keras", "tensorflow"):
            return self._container(value)  # What Keras makes of a list that is an attribute of a layer.
        if name := _public_name(value):
            return "library", *name
        for name in ("__wrapped__", "python_function"):  # Of functools.lru_cache and jax.jit; of tf.function.
            if callable(inner := getattr(value, name, None)) and not _is_own_class(type(value)):
                return "wrapped", type(value).__qualname__, self.describe(inner)
        return self._object(value)

    def _numbers(self, value: Any) -> Any:
        try:
            array = np.asarray(value)
        except Exception:  # A symbolic tensor has no numbers.
            return self._lost(value)
        return self.describe(array.tolist()) if array.dtype.hasobject else _array(array)

    def _object(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, enum.Enum):
            return "enum", self.describe(kind), value.name
        if _is_own_class(kind):
            slots = [name for base in kind.__mro__ for name in _slots(base) if hasattr(value, name)]
            state = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
            state.pop("__weakref__", None)
            content = next(
                (base(value) for base in (*_CONTAINERS[:6], str, bytes, int, float) if isinstance(value, base)), None
            )
            return "object", self.describe(kind), self._named(state), self.describe(content)
        try:
            reducer = copyreg.dispatch_table.get(kind)
            reduced = reducer(value) if reducer else value.__reduce_ex__(4)
        except Exception:
            return self._lost(value)
        if isinstance(reduced, str):
            return "global", kind.__module__, reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return "object", self.describe(kind), [self.describe(part) for part in parts]

    def _named(self, values: Mapping[str, Any]) -> list:
        return [(name, self.describe(values[name])) for name in sorted(values, key=str)]

    def keras(self, value: Any, *, weights: bool = True) -> Any:
        """A Keras object by its configuration, what of it is the user's own, and its weights."""
        if value is None:
            return None
        found = self.describe(type(value)), self.describe(configuration(value))
        numbers = getattr(value, "variables", ()) if weights else ()
        numbers = [number for number in numbers if number.name != "seed_generator_state"]
        inner = [
            (self.describe(type(layer)), _vocabulary(layer), self.own_parts(layer))
            for layer in _layers(value) or [value]
        ]
        return "keras", found, inner, [_array(np.asarray(number)) for number in numbers]

    def own_parts(self, value: Any, *, strict: bool = True) -> list:
        """Attributes of a Keras object that its configuration may not tell: the user's functions and objects, and state.

        Args:
            value: A layer, a loss, an optimizer or the like.
            strict: Whether all that the user's methods store counts, or numbers, words and arrays alone.
        """
        stored = {name for base in type(value).__mro__ if _is_own_class(base) for name in stored_by(base)}
        found = []
        for name, part in sorted(getattr(value, "__dict__", {}).items()):
            is_left_out = name == "name" or keras_private.is_layer(part) or _is_passing(part)
            is_state = name in stored and not is_left_out and (strict or _is_simple(part))
            if _is_own(part) or is_state or (name in stored and _holds(part, _is_own)):
                found.append((name, self.describe(part)))
            elif name == "inner_optimizer":
                found.append((name, self.own_parts(part, strict=strict)))
        return found

    def _module(self, module: types.ModuleType) -> Any:
        if not usermodules.is_library(module.__name__):
            self.modules[module.__name__] = None
        return "module", module.__name__

    def _function(self, function: types.FunctionType) -> Any:
        code, home = function.__code__, function.__globals__.get("__name__") or ""
        if not _is_own_code(code, home):
            if home == "functools" and hasattr(function, "registry"):  # Of functools.singledispatch.
                return "singledispatch", self.describe(function.registry)
            name = "library", home, code.co_qualname
            if (number := getattr(function, "revision", None)) is not None:  # Ours, wherever it is moved to.
                return "batchscape", code.co_qualname, number
            if public := _public_name(function):
                return *name, *public
            return name if "<locals>" not in code.co_qualname else (*name, *self._values_of(function))
        in_file = usermodules.defines(home, code)
        if in_file:
            self.modules[home] = None
            if not usermodules.is_current(home, code):
                self.edited[home] = None
            source = code.co_firstlineno, list(code.co_positions())
        elif home not in usermodules.MAIN and (file := pathlib.Path(code.co_filename)).is_file():
            source = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            source = self._code(code, function.__globals__.get("__package__") or "")
        globals_used = self._globals(code, function.__globals__, strict=not in_file)
        place = "" if home in usermodules.MAIN else home
        return "function", place, function.__qualname__, source, globals_used, *self._values_of(function)

    def _values_of(self, function: types.FunctionType) -> Iterator[Any]:
        """What a function closes over, its defaults and its attributes."""
        closed = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
        attributes = dict(sorted(vars(function).items()))
        return map(self.describe, (closed, function.__defaults__, function.__kwdefaults__, attributes))

    def _code(self, code: types.CodeType, package: str) -> Any:
        """Code without its place in a file; what it imports is followed."""
        constants = [
            self._code(item, package) if inspect.iscode(item) else self.describe(item) for item in code.co_consts
        ]
        module = ""
        steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
        for i, step in enumerate(steps):
            if (
                step.opname == "IMPORT_NAME"
            ):  # Two steps before it the level is loaded, then what is wanted of the module.
                module = usermodules.absolute(step.argval, steps[i - 2].argval, package)
                self._import(module)
            elif step.opname == "IMPORT_FROM":
                self._import(f"{module}.{step.argval}")
        globals_used, attributes = _names(code)
        for name in sorted(
            (globals_used & {*usermodules.UNSEEN}) | (attributes & {*usermodules.UNSEEN} - {"exec", "eval"})
        ):
            self.reasons.append(f"{code.co_qualname} calls {name}()")
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        return code.co_code.hex(), code.co_exceptiontable.hex(), counts, names, constants

    def _import(self, name: str) -> None:
        if not usermodules.is_library(name):
            self.modules[name] = None

    def _globals(self, code: types.CodeType, namespace: Mapping[str, Any], *, strict: bool) -> list:
        """The globals that code and the functions inside it use.

        Args:
            code: The code.
            namespace: The globals.
            strict: Whether what cannot be followed is a reason; not so in a module whose file counts.
        """
        names, attributes = _names(code)
        file, found = str(namespace.get("__file__") or ""), []
        for name in sorted(name for name in names if name in namespace and not name.startswith("__")):
            value = namespace[name]
            if _is_own_module(value):
                found.append((name, self._used_of(value, attributes, ())))
            else:
                found.append((name, self.describe(value) if strict else self._global(value, file)))
        return found

    def _used_of(self, module: types.ModuleType, attributes: set[str], above: tuple) -> Any:
        """What code that uses some attributes may use of an own module, and of the own modules inside it."""
        found = []
        for name in sorted(attributes & {*vars(module)}):
            value = vars(module)[name]
            if _is_own_module(value) and value not in (module, *above):
                found.append((name, self._used_of(value, attributes, (module, *above))))
            else:
                found.append((name, self._global(value, getattr(module, "__file__", None) or "")))
        return self.describe(module), found

    def _global(self, value: Any, file: str) -> Any:
        """A global of a module whose file counts: it may have been read from another file, or set from outside."""
        if isinstance(value, (types.FunctionType, type, types.ModuleType)) or _is_simple(value):
            return self.describe(value)
        if _root(type(value)) in ("tensorflow", "jax", "jaxlib") and not _is_constant(value):
            return None  # Devices, strategies and variables: what they are depends on the process.
        with self._beside_file(file):
            return self.describe(value)

    def _class(self, kind: type) -> Any:
        if not _is_own_class(kind):
            return "library", *keras_private.library_name(kind)
        home = kind.__module__
        file = getattr(sys.modules.get(home), "__file__", None) or ""
        in_file = home not in usermodules.MAIN and bool(file)
        if in_file:
            self.modules[home] = None
        members = []
        for name, value in sorted(vars(kind).items()):
            is_method = isinstance(value, (types.FunctionType, staticmethod, classmethod, property, type))
            is_word = name.startswith("__") or name == "_abc_impl"
            is_slot = isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
            if is_method or (not is_word and not is_slot):
                is_strict = is_method or not in_file
                members.append((name, self.describe(value) if is_strict else self._global(value, file)))
        bases = [self.describe(base) for base in (*kind.__bases__, type(kind))]
        place = "" if home in usermodules.MAIN else home
        return "class", place, kind.__qualname__, bases, members


def _is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (raises while the name it stands for has no value yet)
    except ValueError:
        return False
    return True


def _is_own_code(code: types.CodeType, home: str) -> bool:
    if home in usermodules.MAIN:  # A script is the user's own wherever it lies.
        return True
    if pathlib.Path(code.co_filename).is_file():
        return usermodules.is_own(code.co_filename)
    return not usermodules.is_library(home)


def _is_own_class(kind: type) -> bool:
    home = str(kind.__module__)
    if usermodules.is_library(home):
        return False
    # Types of extension modules may name a module that is none; those of Python have methods of Python.
    written = any(isinstance(value, types.FunctionType) for value in vars(kind).values())
    return home in usermodules.MAIN or bool(usermodules.file_of(home)) or written


def _is_own(value: Any) -> bool:
    """Whether the user wrote a function, a class, or the class of an object."""
    if isinstance(value, functools.partial):
        return True
    if isinstance(value, (types.FunctionType, types.MethodType)):
        function = getattr(value, "__func__", value)
        return isinstance(function, types.FunctionType) and _is_own_code(
            function.__code__, function.__globals__.get("__name__") or ""
        )
    return _is_own_class(value if inspect.isclass(value) else type(value))


def _is_own_module(value: Any) -> bool:
    return isinstance(value, types.ModuleType) and not usermodules.is_library(value.__name__)


def _is_simple(value: Any) -> bool:
    """Whether a value is made of numbers, words and arrays alone."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(map(_is_simple, [*value, *value.values()]))
    if isinstance(value, (types.SimpleNamespace, argparse.Namespace)):
        return _is_simple(vars(value))
    return type(value) in _SCALARS or isinstance(value, (np.generic, np.ndarray)) or _is_constant(value)


def _holds(value: Any, test: Callable[[Any], bool]) -> bool:
    """Whether a list, a dictionary or the like holds what passes a test, at any depth."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_holds(item, test) for item in value)
    if isinstance(value, dict):
        return any(_holds(item, test) for item in value.values())
    return test(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape")


def _is_constant(value: Any) -> bool:
    """Whether a value is an array or a tensor with numbers in it, and no variable."""
    if not _is_array(value) or _is_variable(value):
        return False
    with contextlib.suppress(Exception):  # A symbolic tensor has no numbers.
        return bool(np.asarray(value) is not None)
    return False


def _is_variable(value: Any) -> bool:
    return _is_a(value, "Variable", "KerasVariable")


def _is_passing(value: Any) -> bool:
    """Whether a value is a variable or a symbolic tensor, or holds one."""
    return _holds(value, lambda item: _is_array(item) and not _is_constant(item))


def _is_a(value: Any, *names: str) -> bool:
    """Whether a value is an instance of a class of Keras or TensorFlow of one of these names."""
    return any(base.__name__ in names and _root(base) in ("keras", "tensorflow") for base in type(value).__mro__)


def _public_name(value: Any) -> tuple[str, str] | None:
    """The module of a library and the name there of a value that is to be had by it, such as `gelu` of TensorFlow."""
    home, name = (getattr(value, attribute, None) for attribute in ("__module__", "__name__"))
    if not isinstance(home, str) or not isinstance(name, str) or not usermodules.is_library(home):
        return None
    return (home, name) if getattr(sys.modules.get(home), name, None) is value else None


def _is_of_keras(value: Any) -> bool:
    return hasattr(value, "get_config") and any(_root(base) == "keras" for base in type(value).__mro__)


def _root(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def stored_by(kind: type) -> set[str]:
    """Names of the attributes that the methods of a class set."""
    functions = [getattr(value, "__func__", value) for value in vars(kind).values()]
    codes = [function.__code__ for function in functions if isinstance(function, types.FunctionType)]
    return {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"}


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Names of the globals and of the attributes that code and the functions inside it use."""
    globals_used, attributes = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            globals_used.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(step.argval)
    for item in code.co_consts:
        if inspect.iscode(item):
            inner = _names(item)
            globals_used |= inner[0]
            attributes |= inner[1]
    return globals_used, attributes
