"""Our own work: the statements, the sweeps behind them, their verdicts and figures.

Importing this package imports no Keras and no Matplotlib; each name loads what it needs when it is first used.
"""

import lazy_loader

from batchscape.study import register  # noqa: F401 (whichever room is entered, every study is known)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
