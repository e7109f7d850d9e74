"""What batchscape makes of a model of the gallery: a sweep, and every measurement beside what Keras says."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import batchscape as bs
from batchscape.cost.probe_input import ProbeInput
from batchscape.cost.steps import Steps
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.models import outputs, own_step
from tests.gallery import Entry

BATCH_SIZES = (8, 12)


class Swept:
    """Two runs of a model of the gallery, of one epoch each, and the model at the end of the first.

    Args:
        entry: What is trained.
        store: A folder for the runs.
    """

    def __init__(self, entry: Entry, store: Any):
        self.data = bs.load_dataset(entry.data(), **entry.options)
        build = entry.build if entry.measure is None else bs.with_measure(entry.build, entry.measure)
        cells = [bs.Cell(batch_size=batch_size, epochs=1) for batch_size in BATCH_SIZES]
        options = {"build": build, "data": self.data, "executor": "serial", "show_progress": False}
        self.runs = bs.run_sweep(cells, store=store, **options)
        self.build, self.weights = build, bs.Store(store).load(self.runs["hash"].iloc[0]).weights
        self.model = bs.build_model(build, self.data, seed=0)
        self.model.set_weights(self.weights["final"])

    def objective(self, **options: Any) -> bs.Objective:
        """The loss of the model on its training examples."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self.data.examples("train"))
        return bs.Objective(self.model, x, y, sample_weight=sample_weight, metrics=(), **options)

    def refusal(self) -> str:
        """Why the model has no landscape; "" where it has one."""
        try:
            self.objective()
        except InvalidInput as error:
            return str(error)
        return ""

    def difference(self, sizes: Sequence[int] = ()) -> float:
        """The largest |a - b| / max(1, |b|) between our loss and that of `evaluate`, over some batch sizes, or over all."""
        # A step of one's own may report the mean over batches, which differs from that over examples by the last batch.
        more = () if own_step.has_own_step(self.model) else BATCH_SIZES
        return max(self._difference(size) for size in (sizes or (*more, self.data.n_train)))

    def _difference(self, batch_size: int) -> float:
        given = outputs.as_arguments(self.data.examples("train"))
        theirs = self.model.evaluate(**given, batch_size=batch_size, verbose=0, return_dict=True)["loss"]
        ours = self.objective(batch_size=batch_size)(self.weights["final"])
        return abs(ours - theirs) / max(1.0, abs(theirs))

    def milliseconds(self) -> float:
        """What the probe says that an update at the first batch size takes."""
        return 1e3 * Steps(ProbeInput(self.build, self.data)).measure(BATCH_SIZES[0], 0.0)["seconds"]


def landscape(f: bs.Objective, start: list, end: list) -> dict[str, Any]:
    """A line, the Hessian and the noise of a model.

    Returns:
        `depends_on_batch`; `line`, the largest error of the line at its ends; `asymmetry`, |uHv - vHu| over the larger of
        |Hu| and |Hv| for two random directions, NaN where there is no second derivative; `trace_cov` of the noise.
    """
    line = bs.interpolate(f, start, end, [0.0, 0.5, 1.0])
    noise = bs.gradient_noise_scale(f, end, small=4, big=16, n_pairs=4)
    return {
        "depends_on_batch": f.about(end)["batch_size"] is not None,
        "line": max(abs(line.loss[0] - f(start)), abs(line.loss[-1] - f(end))),
        "asymmetry": _asymmetry(f, end),
        "trace_cov": noise.trace_cov,
    }


def _asymmetry(f: bs.Objective, weights: list) -> float:
    u, v = np.random.default_rng(0).normal(size=(2, f.n_parameters)) / np.sqrt(f.n_parameters)
    try:
        hu, hv = f.hessian_products(weights, np.stack([u, v]))
    except UserCodeError:
        return np.nan
    return abs(u @ hv - v @ hu) / max(np.linalg.norm(hu), np.linalg.norm(hv), 1e-6)
