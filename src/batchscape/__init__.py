"""batchscape: what does batch size do? Sweep it in Keras, keep every run, and measure what it changed.

Importing this package imports no TensorFlow, pandas, SciPy or Matplotlib; each name loads what it needs when it is
first used. `dir(batchscape)` lists the public names.
"""

import importlib

from batchscape import backend as _backend

__version__ = "0.1.0"

_HOME = {
    "Cell": "config",
    "Grid": "config",
    "PROFILES": "profiles",
    "Data": "data",
    "epoch_order": "data",
    "load_dataset": "data",
    "make_dataset": "data",
    "build_model": "models",
    "fit_one": "train.fit",
    "BatchSizeSchedule": "train.batch_schedule",
    "Record": "record",
    "run_sweep": "sweep.run",
    "load_results": "sweep.results",
    "Store": "sweep.store",
    "measure_runs": "sweep.measure",
    "Objective": "minima.objective",
    "interpolate": "minima.line",
    "slice_along": "minima.line",
    "evaluate_plane": "minima.plane",
    "plane_through": "minima.plane",
    "random_directions": "minima.directions",
    "normalize_directions": "minima.directions",
    "difference_directions": "minima.directions",
    "load_result": "minima.results",
    "WeightsCallback": "minima.trajectory",
    "trajectory_plane": "minima.trajectory",
    "keskar_sharpness": "minima.sharpness",
    "rho_sharpness": "minima.sharpness",
    "rescale_relu": "minima.sharpness",
    "spectral_density": "minima.spectrum",
    "hessian_eigenvalues": "minima.hessian",
    "hessian_trace": "minima.hessian",
    "measure_curvature": "minima.curvature",
    "gradient_statistics": "noise.statistics",
    "batch_gradients": "noise.statistics",
    "gradient_noise_scale": "noise.noise_scale",
    "critical_batch_size": "noise.critical",
    "taylor_residuals": "minima.taylor",
    "NoiseScaleCallback": "noise.noise_scale",
    "log_rates": "sweep.rates",
    "twins": "train.twins",
    "tune_learning_rate": "judge.tuned",
    "tuned_runs": "judge.tuned",
    "probe_batch_sizes": "cost.probe",
    "advise": "cost.advise",
    "lines_between": "landscape",
    "watch_fit": "definitions",
    "count_definitions": "definitions",
    "time_to_target": "judge.target",
    "median_to_target": "judge.target",
    "fastest_by_target": "judge.target",
    "pareto_front": "judge.target",
    "verdict": "judge.claims",
    "verdicts": "judge.claims",
    "Tables": "tables",
    "reproduce": "study",
    "run_study": "study",
    "run_noise_study": "noise_study",
    "noise_of_runs": "noise_study",
    "run_minima_study": "minima_study",
    "run_replication": "minima_study",
    "sharpness_of_runs": "minima_study",
    "run_rates_study": "rates_study",
    "run_target_study": "target_study",
    "run_cost_study": "cost_study",
    "by_policy": "judge.policies",
    "folder_of": "study",
}
"""Where each public name lives."""

_MODULES = {"optimizers": "train.optimizers", "schedules": "train.schedules"}
"""Public modules: `batchscape.optimizers.Rprop`."""

__all__ = sorted([*_HOME, *_MODULES])

_backend.choose()


def __getattr__(name: str):
    if name in _MODULES:
        value = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
