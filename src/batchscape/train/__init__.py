"""Training: one run from a `Cell` to a `Record`, through `model.fit`.

Read `trainer.py` first, then `plan.py` (when a run updates and is evaluated) and `engine.py` (how `fit` is fed).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["optimizers", "schedules"])
