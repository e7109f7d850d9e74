"""Results read back from their files, whatever class they are of."""

import importlib
import os
import pathlib
from typing import Any

from batchscape.errors import StoreError
from batchscape.landscape import files

HOMES = {
    "Line": "landscape.line",
    "Plane": "landscape.plane",
    "Trajectory": "landscape.trajectory",
    "Eigenvalues": "landscape.hessian",
    "TraceEstimate": "landscape.hessian",
    "SpectralDensity": "landscape.spectrum",
    "Sharpness": "landscape.sharpness",
    "ModelSharpness": "landscape.of_runs",
    "GradientStatistics": "gradient.statistics",
    "BatchGradients": "gradient.statistics",
    "NoiseScale": "gradient.noise_scale",
    "CriticalBatchSize": "gradient.critical_batch_size",
    "Probe": "cost.result",
    "Advice": "cost.advise",
}
"""Where each class of results lives. By name: a probe can be read without Keras, and rooms above this one are not imported
before a file holds a result of theirs."""


def load_result(file: str | os.PathLike) -> Any:
    """Read a saved result of any class: a `Line`, a `Plane`, a `NoiseScale`, an `Advice`, ... .

    Args:
        file: What `save` of the result has written: `.npz`, or `.json` of a `Probe` or an `Advice`.

    Returns:
        The result, an instance of the class that the file names.

    Raises:
        StoreError: If the file cannot be read, is damaged, or holds no result.
    """
    is_json = pathlib.Path(file).suffix == ".json"
    fields = files.read_json(file) if is_json else files.read(file)[1]
    kind = str(fields.get("kind"))
    if kind not in HOMES:
        raise StoreError(f"{file} must hold one of {', '.join(HOMES)}.")
    return getattr(importlib.import_module(f"batchscape.{HOMES[kind]}"), kind).load(file)
