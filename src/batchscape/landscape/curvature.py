"""The Hessian at the end of a run: its largest eigenvalue and its trace, means over the weights that the run kept.

Where exactly a run crosses its loss target matters: along the next epoch λ_max can double. So it is averaged over the
first crossing and the evaluations that follow it.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from batchscape.data import Data
from batchscape.landscape.hessian import hessian_eigenvalues, hessian_trace
from batchscape.landscape.objective import objective_of
from batchscape.models.fingerprint import revision
from batchscape.train.record import Record


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def measure_curvature(
    model: keras.Model, data: Data, loss: str | None = None, *, n_probes: int = 64
) -> Callable[[Record], dict[str, Any]]:
    """A function that measures λ_max and the trace of the Hessian of the training loss at the weights a run kept.

    Args:
        model: The model of the runs.
        data: Their data; the training examples count.
        loss: The loss that their cells name.
        n_probes: Random probes of each trace.

    Returns:
        A function from a `Record` to `lambda_max` and `trace` (means over the kept weights after the start),
        `trace_stderr` (of that mean, from the probes), `lambda_max_by_stage`, and `hessian_converged`.
    """
    f = objective_of(model, data, loss=loss)

    def measure(record: Record) -> dict[str, Any]:
        kept = {stage: record.weights[stage] for stage in record.weights if stage != "initial"}
        tops = {stage: hessian_eigenvalues(f, weights) for stage, weights in kept.items()}
        traces = [hessian_trace(f, weights, n_probes=n_probes, seed=i) for i, weights in enumerate(kept.values())]
        return {
            "lambda_max": float(np.mean([top.values[0] for top in tops.values()])),
            "trace": float(np.mean([trace.mean for trace in traces])),
            "trace_stderr": float(np.sqrt(np.sum([trace.stderr**2 for trace in traces])) / len(traces)),
            "lambda_max_by_stage": {stage: float(top.values[0]) for stage, top in tops.items()},
            "hessian_converged": all(bool(top.converged.all()) for top in tops.values()),
        }

    return measure
