"""What JAX does not promise to keep, each behind one function with a test in `tests/test_private_names.py`."""

from collections.abc import Callable
from typing import Any

from batchscape.errors import BatchscapeError

TESTED = "jax>=0.8,<0.11"
"""What the tests have run on, as `pyproject.toml` has it."""


def is_traced(value: Any) -> bool:
    """Whether a value stands for numbers that come later, as inside a loop.

    Relies on `jax.core.Tracer`, of a module from which JAX takes names away. Without it: `BatchscapeError`.
    """
    import jax

    if not hasattr(jax.core, "Tracer"):
        raise _error("jax.core.Tracer")
    return isinstance(value, jax.core.Tracer)


def dependencies(function: Callable, *arguments: Any) -> list[list[bool]]:
    """Whether each output of a function depends on each of its inputs, taking a call inside it as a whole.

    Relies on the fields of a jaxpr: `invars`, `outvars`, `eqns`, and `val`, which a literal alone has. Without them:
    `BatchscapeError`.

    Args:
        function: What is traced.
        *arguments: Trees of arrays; the places of their leaves are the inputs.
    """
    import jax

    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    try:
        sources = {variable: {place} for place, variable in enumerate(jaxpr.invars)}

        def sources_of(atom) -> set[int]:
            return set() if hasattr(atom, "val") else sources.get(atom, set())  # A literal has a value and no sources.

        for equation in jaxpr.eqns:
            found = set().union(*map(sources_of, equation.invars))
            sources.update((variable, found) for variable in equation.outvars)
        return [[place in sources_of(atom) for place in range(len(jaxpr.invars))] for atom in jaxpr.outvars]
    except AttributeError as error:
        raise _error(f"{error.name} in a jaxpr") from None


def _error(name: str) -> BatchscapeError:
    import jax

    return BatchscapeError(f"batchscape needs {TESTED}, which has {name}. Received: JAX {jax.__version__}")
