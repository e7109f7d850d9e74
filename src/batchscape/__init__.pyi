# The public names of the library, by group. `__init__.py` loads each from here when it is first used, and editors and type
# checkers read this file. Our own statements, sweeps and figures are in `batchscape.study`.

# What to run.
from .config import Cell as Cell
from .config import Grid as Grid

# Data, and their order.
from .data import Data as Data
from .data import epoch_order as epoch_order
from .data import load_dataset as load_dataset
from .data import make_dataset as make_dataset

# One run.
from .models.build import build_model as build_model
from .models.build import fresh as fresh
from .models.measured import with_measure as with_measure
from .train import optimizers as optimizers
from .train import schedules as schedules
from .train.batch_schedule import BatchSizeSchedule as BatchSizeSchedule
from .train.fit import fit_one as fit_one
from .train.record import Record as Record
from .train.record import Status as Status
from .train.twins import Twin as Twin
from .train.twins import twins as twins

# Many runs.
from .sweep.frames import load_results as load_results
from .sweep.log_rates import log_rates as log_rates
from .sweep.measure import measure_runs as measure_runs
from .sweep.run import missing_runs as missing_runs
from .sweep.run import run_sweep as run_sweep
from .sweep.store import Store as Store

# The loss as a function of the weights.
from .landscape.curvature import measure_curvature as measure_curvature
from .landscape.directions import difference_directions as difference_directions
from .landscape.directions import normalize_directions as normalize_directions
from .landscape.directions import random_directions as random_directions
from .landscape.hessian import Eigenvalues as Eigenvalues
from .landscape.hessian import TraceEstimate as TraceEstimate
from .landscape.hessian import hessian_eigenvalues as hessian_eigenvalues
from .landscape.hessian import hessian_trace as hessian_trace
from .landscape.line import Line as Line
from .landscape.line import interpolate as interpolate
from .landscape.line import slice_along as slice_along
from .landscape.load import load_result as load_result
from .landscape.objective import Objective as Objective
from .landscape.of_runs import ModelSharpness as ModelSharpness
from .landscape.of_runs import line_of_files as line_of_files
from .landscape.of_runs import lines_between as lines_between
from .landscape.of_runs import plane_around as plane_around
from .landscape.of_runs import planes_of_files as planes_of_files
from .landscape.of_runs import sharpness_of_file as sharpness_of_file
from .landscape.of_runs import sharpness_of_runs as sharpness_of_runs
from .landscape.plane import Plane as Plane
from .landscape.plane import evaluate_plane as evaluate_plane
from .landscape.plane import plane_through as plane_through
from .landscape.sharpness import Sharpness as Sharpness
from .landscape.sharpness import keskar_sharpness as keskar_sharpness
from .landscape.sharpness import rescale_relu as rescale_relu
from .landscape.sharpness import rho_sharpness as rho_sharpness
from .landscape.spectrum import SpectralDensity as SpectralDensity
from .landscape.spectrum import spectral_density as spectral_density
from .landscape.taylor import taylor_residuals as taylor_residuals
from .landscape.trajectory import Trajectory as Trajectory
from .landscape.trajectory import WeightsCallback as WeightsCallback
from .landscape.trajectory import trajectory_plane as trajectory_plane

# The gradient and its noise.
from .gradient.critical_batch_size import CriticalBatchSize as CriticalBatchSize
from .gradient.critical_batch_size import critical_batch_size as critical_batch_size
from .gradient.noise_scale import NoiseScale as NoiseScale
from .gradient.noise_scale import NoiseScaleCallback as NoiseScaleCallback
from .gradient.noise_scale import gradient_noise_scale as gradient_noise_scale
from .gradient.of_runs import noise_of_runs as noise_of_runs
from .gradient.statistics import BatchGradients as BatchGradients
from .gradient.statistics import GradientStatistics as GradientStatistics
from .gradient.statistics import batch_gradients as batch_gradients
from .gradient.statistics import gradient_statistics as gradient_statistics

# Time, memory, and which batch size to choose.
from .cost.advise import Advice as Advice
from .cost.advise import advise as advise
from .cost.probe import probe_batch_sizes as probe_batch_sizes
from .cost.result import Probe as Probe

# Statistics of runs.
from .stats.time_to_target import fastest_by_target as fastest_by_target
from .stats.time_to_target import median_to_target as median_to_target
from .stats.time_to_target import pareto_front as pareto_front
from .stats.time_to_target import time_to_target as time_to_target
from .stats.tuning import tune_learning_rate as tune_learning_rate
from .stats.tuning import tuned_runs as tuned_runs

# Figures, and our own work.
from . import plot as plot
from . import study as study

# Errors.
from .errors import BatchscapeError as BatchscapeError
from .errors import DamagedRun as DamagedRun
from .errors import DataNotFound as DataNotFound
from .errors import InvalidInput as InvalidInput
from .errors import OtherVersion as OtherVersion
from .errors import StoreError as StoreError
from .errors import UserCodeError as UserCodeError

__version__: str
