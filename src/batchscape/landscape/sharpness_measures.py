"""Every sharpness of the literature, at the final weights of runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from batchscape.data import Data
from batchscape.landscape.hessian import hessian_eigenvalues, hessian_trace
from batchscape.landscape.objective import Objective, objective_of
from batchscape.landscape.sharpness import Sharpness, keskar_sharpness, rho_sharpness
from batchscape.models.fingerprint import revision
from batchscape.models.resolve_loss import loss_of
from batchscape.train.record import Record, Weights

MEASURES: Mapping[str, Callable[[Objective, Weights], Sharpness]] = {
    "phi": lambda f, w: keskar_sharpness(f, w),
    "phi_half": lambda f, w: keskar_sharpness(f, w, epsilon=5e-4),
    "phi_subspace": lambda f, w: keskar_sharpness(f, w, subspace=min(100, f.n_parameters)),
    "phi_subspace_half": lambda f, w: keskar_sharpness(f, w, epsilon=5e-4, subspace=min(100, f.n_parameters)),
    "worst": lambda f, w: rho_sharpness(f, w, rho=0.05, steps=40),
    "sam": lambda f, w: rho_sharpness(f, w, rho=0.05, kind="sam"),
    "average": lambda f, w: rho_sharpness(f, w, rho=0.01, kind="average", repeats=100),
    "worst_of_128": lambda f, w: rho_sharpness(f, w, rho=0.05, examples=min(128, f.n_examples)),
    "adaptive_worst": lambda f, w: rho_sharpness(f, w, rho=0.5, adaptive=True, steps=40),
    "adaptive_average": lambda f, w: rho_sharpness(f, w, rho=0.1, kind="average", adaptive=True, repeats=100),
}
"""Measures by the name of their column, with the radii of their papers where these make sense here; subspaces and subsets are
no larger than there is room for."""


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def measure_sharpness(
    model: keras.Model, data: Data, loss: str | None = None, *, names: Sequence[str] = tuple(MEASURES)
) -> Callable[[Record], dict[str, Any]]:
    """Make a function that measures the sharpness of the training loss at the final weights of a run; for `measure_runs`.

    Args:
        model: The model of the runs.
        data: Their data; all training examples count.
        loss: The loss that their cells name.
        names: Names in `MEASURES`.

    Returns:
        A function from a `Record` to one value a measure.
    """
    f = objective_of(model, data, loss=loss)
    return lambda record: {name: MEASURES[name](f, record.weights["final"]).value for name in names}


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def measure_published(
    model: keras.Model,
    data: Data,
    loss: str | None = None,
    *,
    names: Sequence[str],
    hessian_examples: int,
    n_probes: int,
) -> Callable[[Record], dict[str, Any]]:
    """Make a function that measures what papers publish of a run: sharpness, Hessian, re-estimated BatchNorm moments.

    Like `measure_sharpness`; the Hessian is that of the first examples.

    Returns:
        A function from a `Record` to the measures, `lambda_max`, `trace` and `trace_stderr` on `hessian_examples` training
        examples, and losses and accuracies such as `test_loss_reestimated`.
    """
    measured = measure_sharpness(model, data, loss, names=names)
    some = keras.tree.map_structure(lambda array: array[:hessian_examples], data.examples("train"))
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(some)
    part = Objective(model, x, y, loss_of(model, data, loss), sample_weight=sample_weight)
    anew = {split: objective_of(model, data, split, loss=loss, batch_norm="reestimate") for split in ("train", "test")}

    def measure(record: Record) -> dict[str, Any]:
        weights = record.weights["final"]
        with_new_moments = {split: f.evaluate(weights) for split, f in anew.items()}
        top = hessian_eigenvalues(part, weights)
        trace = hessian_trace(part, weights, n_probes=n_probes)
        return {
            **measured(record),
            "lambda_max": float(top.values[0]),
            "hessian_converged": bool(top.converged.all()),
            "trace": trace.mean,
            "trace_stderr": trace.stderr,
            **{
                f"{split}_{name}_reestimated": v
                for split, values in with_new_moments.items()
                for name, v in values.items()
            },
        }

    return measure
