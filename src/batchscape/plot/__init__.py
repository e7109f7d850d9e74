"""Figures of results: a function takes a result and axes, and returns the axes or the figure; none of them trains.

Importing this package imports no Matplotlib; each name loads what it needs when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
