"""batchscape: what does batch size do? Sweep it in Keras, keep every run, and measure what it changed.

Importing this package imports no TensorFlow, pandas, SciPy or Matplotlib; each name loads what it needs when it is
first used. `dir(batchscape)` lists the public names; `__init__.pyi` says where each of them stands.
"""

import sys
from typing import Any

import lazy_loader

from batchscape import backend as _backend

__version__ = "0.1.0"

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)

_backend.choose()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    try:
        value = _load(name)
    except Exception:
        _backend.check()  # Where Keras cannot be imported it says so in one line.
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
