"""What to run: one training run (`Cell`) and many of them (`Grid`)."""

from batchscape.config.cell import Cell
from batchscape.config.grid import Grid
from batchscape.config.names import (
    ARRAYS,
    BUDGETS,
    DATASETS,
    DECAYS,
    ENGINES,
    LAST_BATCH,
    LR_POLICIES,
    MODELS,
    OPTIMIZERS,
    PRECISIONS,
    UNITS,
    WARMUP_FROM,
)

__all__ = [
    "ARRAYS",
    "BUDGETS",
    "DATASETS",
    "DECAYS",
    "ENGINES",
    "LAST_BATCH",
    "LR_POLICIES",
    "MODELS",
    "OPTIMIZERS",
    "PRECISIONS",
    "UNITS",
    "WARMUP_FROM",
    "Cell",
    "Grid",
]
