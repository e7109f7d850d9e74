"""The modules that a user wrote: their files and what they import, found by reading, and read anew once edited."""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping

MAIN = ("__main__", "__mp_main__")
"""Names of the module that is run itself; a worker process knows it by the second."""


@dataclasses.dataclass(frozen=True)
class Reached:
    """The user's own modules that some modules import, themselves included.

    Attributes:
        files: The sha256 of each module's file, what a module imports before the module itself.
        imports: The names of own modules that each imports.
        reasons: What could not be followed.
    """

    files: Mapping[str, str]
    imports: Mapping[str, tuple[str, ...]]
    reasons: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def is_own(file: str | os.PathLike) -> bool:
    """Whether the user wrote a file: it is not of Python, of an installed package, of a virtual environment or ours."""
    return not any(map(_is_of_a_library, {os.path.abspath(file), os.path.realpath(file)}))


def _is_of_a_library(file: str) -> bool:
    path = pathlib.Path(file)
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    ours = pathlib.Path(__file__).resolve().parents[1]
    if any(path.is_relative_to(folder) for folder in (ours, *map(sysconfig.get_path, ("stdlib", "platstdlib")))):
        return True
    environments = [folder for folder in path.parents if (folder / "pyvenv.cfg").exists()]
    roots = [*environments, *map(pathlib.Path, (sys.prefix, sys.base_prefix))]
    # A user's project may be the root of its virtual environment, so only what Python puts there counts.
    places = [path.relative_to(root).parts for root in roots if path.is_relative_to(root)]
    return any(
        parts[0] in ("bin", "Scripts", "Lib", "include", "Include")
        or (parts[0] in ("lib", "lib64") and parts[1].startswith(("python", "pypy")))
        for parts in places
        if len(parts) > 1
    )


def is_library(name: str) -> bool:
    """Whether a module belongs to Python, an installed package or batchscape, by its name."""
    root = name.partition(".")[0]
    if root in MAIN or not root:
        return False
    file = next(filter(None, map(file_of, _with_parents(name))), None)
    return not is_own(file) if file else root in sys.stdlib_module_names or root == "builtins"


def defines(name: str, code: types.CodeType) -> bool:
    """Whether code stands in the file of an imported module of the user's own."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return name not in MAIN and bool(file) and os.path.abspath(file) == os.path.abspath(code.co_filename)


def reached(names: Iterable[str]) -> Reached:
    """The user's own modules among some modules and all that they import, at any depth and anywhere in their files."""
    files: dict[str, str] = {}
    imports: dict[str, tuple[str, ...]] = {}
    reasons: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> bool:
        """Go into a module; whether the modules inside it may be the user's own."""
        if name in seen:
            return name in imports
        seen.add(name)
        if name in MAIN or (not (file := file_of(name)) and not _spec(name)):
            return False
        if file and not is_own(file):
            return False
        imports[name] = ()
        if not file:  # A folder without __init__.py.
            return True
        try:
            if not file.endswith(".py"):
                raise OSError
            source = pathlib.Path(file).read_bytes()
            wanted, hidden = _imports(source, name, os.path.basename(file) == "__init__.py")
        except (OSError, ValueError, SyntaxError):
            reasons.append(f"{name} has no readable Python source")
            return True
        reasons.extend(hidden)
        imports[name] = tuple(part for other in wanted for part in _with_parents(other) if part != name)
        for other in wanted:
            for part in _with_parents(other):
                if not visit(part):
                    break
        files[name] = hashlib.sha256(source).hexdigest()
        return True

    for name in names:
        for part in _with_parents(name):
            if not visit(part):
                break
    return Reached(files, imports, tuple(reasons))


def _with_parents(name: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def file_of(name: str) -> str | None:
    """The file of a module, imported or not; None if it has none or there is no such module."""
    if (module := sys.modules.get(name)) is not None:
        return getattr(module, "__file__", None)
    spec = _spec(name)
    return spec.origin if spec and spec.has_location else None


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module would be imported from; nothing is imported to know it, unlike by `importlib.util.find_spec`."""
    parent = name.rpartition(".")[0]
    with contextlib.suppress(ImportError, ValueError, AttributeError, TypeError):
        if not parent:
            return importlib.util.find_spec(name)
        package = sys.modules.get(parent)
        places = package.__path__ if package else _spec(parent).submodule_search_locations
        return places and importlib.machinery.PathFinder.find_spec(name, places)
    return None


IMPORTERS = ("import_module", "__import__", "run_module")
"""Functions that import the module that their first argument names."""

UNSEEN = (*IMPORTERS, "exec", "eval", "run_path", "spec_from_file_location")
"""Functions that run what reading a file does not show."""


@functools.lru_cache(maxsize=512)
def _imports(source: bytes, module: str, is_package: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules that a file imports, or names that may be modules, and what of it cannot be followed."""
    package = module if is_package else module.rpartition(".")[0]
    names: list[str] = []
    hidden: list[str] = []
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
        elif isinstance(node, ast.Call) and (called := _unseen(node.func)):
            text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if isinstance(text, str) and called in IMPORTERS:
                names.append(absolute(text.lstrip("."), len(text) - len(text.lstrip(".")), package))
            elif isinstance(text, str) and called in ("exec", "eval"):
                nodes += ast.walk(ast.parse(text.strip()))
            else:
                hidden.append(f"{module} calls {called}() on what is computed")
    return tuple(filter(None, dict.fromkeys(names))), tuple(dict.fromkeys(hidden))


def _unseen(function: ast.expr) -> str:
    """The name of a function in `UNSEEN`; methods such as `model.eval` are none."""
    if isinstance(function, ast.Name) and function.id in UNSEEN:
        return function.id
    if isinstance(function, ast.Attribute) and function.attr in UNSEEN and function.attr not in ("exec", "eval"):
        return function.attr
    return ""


def absolute(name: str, level: int, package: str) -> str:
    """The full name of a module that is imported from `level` packages up."""
    above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
    return ".".join(filter(None, [*above, name]))


_looked_at: dict[str, tuple[importlib.machinery.ModuleSpec | None, str]] = {}
"""The import of each module when it was looked at, None before it was imported, and the sha256 of its file then."""


def stale(modules: Reached, *, in_doubt: bool = False) -> list[str]:
    """Modules whose files were edited since this process imported them.

    Args:
        modules: Which modules to look at.
        in_doubt: Whether those count whose file was edited before or after they were imported.
    """
    found = []
    for name, sha256 in modules.files.items():
        spec, before = _looked_at.get(name, (None, sha256))
        if (module := sys.modules.get(name)) is None:
            _looked_at[name] = None, sha256
        elif spec is not None and spec is module.__spec__:
            if before != sha256:
                found.append(name)
        elif (in_doubt and (before != sha256 or _is_older_than_file(module))) or not all(
            is_current(name, code) for code in _codes_in(module)
        ):
            found.append(name)
        else:
            _looked_at[name] = module.__spec__, sha256
    return found


def _is_older_than_file(module: types.ModuleType) -> bool:
    """Whether the bytecode that Python keeps of a module was made of another file than is there now."""
    try:
        header = pathlib.Path(module.__spec__.cached).read_bytes()[4:16]
        now = os.stat(module.__file__)
    except (OSError, TypeError, AttributeError):
        return False
    flags, *then = (int.from_bytes(header[i : i + 4], "little") for i in (0, 4, 8))
    return flags == 0 and then != [int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF]


def differing(files: Mapping[str, str]) -> list[str]:
    """Modules whose files have another sha256 now."""
    now = {name: file_of(name) for name in files}
    return [
        name
        for name, file in now.items()
        if not file
        or not os.path.exists(file)
        or hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest() != files[name]
    ]


def is_current(name: str, code: types.CodeType) -> bool:
    """Whether code is that of the file of a module as it is now."""
    module = sys.modules[name]
    if type(module.__loader__) is not importlib.machinery.SourceFileLoader:  # Such as pytest's, which adds to the code.
        return True
    try:
        return code in _codes(pathlib.Path(module.__file__).read_bytes(), module.__file__)
    except (OSError, SyntaxError, ValueError):
        return False


@functools.lru_cache(maxsize=512)
def _codes(source: bytes, file: str) -> frozenset[types.CodeType]:
    found, waiting = set(), [compile(source, file, "exec", dont_inherit=True)]
    while waiting:
        inner = [item for item in waiting.pop().co_consts if inspect.iscode(item)]
        waiting += inner
        found.update(inner)
    return frozenset(found)


def _codes_in(module: types.ModuleType) -> Iterator[types.CodeType]:
    """The code of the functions of a module and of the methods of its classes."""
    values = list(vars(module).values())
    values += [item for value in values if inspect.isclass(value) for item in vars(value).values()]
    for value in values:
        code = getattr(inspect.unwrap(value) if inspect.isfunction(value) else value, "__code__", None)
        if inspect.iscode(code) and defines(module.__name__, code):
            yield code


def reload_edited(name: str) -> None:
    """Import anew what a module reaches and was edited since it was imported, and what imports from that."""
    modules = reached([name])
    edited = set(stale(modules, in_doubt=True))
    if not edited:
        return
    for other in modules.files:  # What is imported comes before what imports it.
        if other in sys.modules and (other in edited or edited & set(modules.imports[other])):
            edited.add(other)
            module = sys.modules[other]
            with contextlib.suppress(OSError, NotImplementedError):  # Python takes an edit within a second for none.
                os.unlink(importlib.util.cache_from_source(module.__file__))
            _looked_at[other] = module.__spec__, ""
            importlib.reload(module)
            _looked_at[other] = module.__spec__, modules.files[other]
