"""What batchscape makes of a model of the gallery: a sweep, and every measurement beside what Keras says."""

from typing import Any

import keras
import numpy as np

import batchscape as bs
from batchscape.cost.probe_input import ProbeInput
from batchscape.cost.steps import Steps
from batchscape.errors import InvalidInput
from batchscape.models import outputs, own_step
from tests.gallery import Entry

BATCH_SIZES = (8, 12)


def measured(entry: Entry, store: Any) -> dict[str, Any]:
    """A row of the table: how the sweep ended, the largest difference from `evaluate`, and what else was measured."""
    data = bs.load_dataset(entry.data(), **entry.options)
    cells = [bs.Cell(batch_size=batch_size, epochs=1) for batch_size in BATCH_SIZES]
    options = {"build": entry.build, "data": data, "measure": entry.measure}
    runs = bs.run_sweep(cells, **options, store=store, executor="serial", show_progress=False)
    row = {"runs": ", ".join(runs["status"]), "engine": runs["engine"].iloc[0], "loss": runs["loss"].iloc[0]}
    row["probe_ms"] = 1e3 * Steps(ProbeInput(entry.build, data)).measure(8, 0.0)["seconds"]
    weights = bs.Store(store).load(runs["hash"].iloc[0]).weights
    model = bs.build_model(
        entry.build if entry.measure is None else bs.with_measure(entry.build, entry.measure), data, seed=0
    )
    return {**row, **_logs(runs), **_landscape(model, data, weights)}


def _logs(runs) -> dict[str, float]:
    """What `fit` reported last, of models that train by a step of their own."""
    return {name: runs[name].iloc[0] for name in runs if name.startswith("fit_")}


def _landscape(model: keras.Model, data: bs.Data, weights: dict) -> dict[str, Any]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data.examples("train"))
    try:
        f = bs.Objective(model, x, y, sample_weight=sample_weight, metrics=())
    except InvalidInput as error:
        return {"refused": str(error)}
    ends = weights["initial"], weights["final"]
    line = bs.interpolate(f, *ends, [0.0, 0.5, 1.0])
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, f.n_parameters)) / np.sqrt(f.n_parameters)
    hu, hv = f.hessian_products(ends[1], np.stack([u, v]))
    noise = bs.gradient_noise_scale(f, ends[1], small=4, big=16, n_pairs=4)
    model.set_weights(ends[1])
    # A step of one's own may report the mean over batches, which differs from that over examples by the last batch.
    sizes = (data.n_train,) if own_step.has_own_step(model) else (*BATCH_SIZES, data.n_train)
    theirs = {size: _evaluate(model, data, size) for size in sizes}
    ours = {
        size: bs.Objective(model, x, y, sample_weight=sample_weight, metrics=(), batch_size=size) for size in theirs
    }
    differences = [abs(ours[size](ends[1]) - loss) / max(1.0, abs(loss)) for size, loss in theirs.items()]
    return {
        "difference": max(differences),
        "line": line.loss.tolist(),
        "ends": [f(end) for end in ends],
        "asymmetry": abs(u @ hv - v @ hu) / max(np.linalg.norm(hu), np.linalg.norm(hv), 1e-6),
        "trace_cov": noise.trace_cov,
        "depends_on_batch": f.about(ends[1])["batch_size"] is not None,
    }


def _evaluate(model: keras.Model, data: bs.Data, batch_size: int) -> float:
    given = outputs.as_arguments(data.examples("train"))
    return model.evaluate(**given, batch_size=batch_size, verbose=0, return_dict=True)["loss"]
