"""All stored figures, from tables: what `batchscape figures` draws."""

import os
import pathlib

from batchscape.plot import style
from batchscape.study import captions, tables
from batchscape.study.cost import captions as cost
from batchscape.study.gpu import captions as gpu
from batchscape.study.gradient import captions as gradient
from batchscape.study.main import captions as main
from batchscape.study.minima import captions as minima
from batchscape.study.rates import captions as rates
from batchscape.study.target import captions as target

FIGURES = {
    "fig01_sweep_training": ("runs", main.training_figure),
    "fig02_line_loss": ("lines", main.line_figure),
    "fig03_curvature_batch": ("runs", main.curvature_figure),
    "fig04_gradient_noise": ("noise", gradient.gradient_figure),
    "fig05_critical_batch": ("targets", gradient.critical_figure),
    "fig06_descent_paths": ("paths", gradient.descent_figure),
    "fig07_steadiness": ("epochs", gradient.steadiness_figure),
    "fig08_mnist_noise_scale": ("mnist", gradient.mnist_figure),
    "fig09_sharpness": ("minima", minima.sharpness_figure),
    "fig10_minima_controls": ("escapes", minima.controls_figure),
    "fig11_keskar": ("published", minima.published_figure),
    "fig12_learning_rates": ("rules", rates.rates_figure),
    "fig13_warmup_optimizers": ("warmups", rates.gradual_figure),
    "fig14_twins": ("growth", rates.twins_figure),
    "fig15_cost": ("timings", cost.cost_figure),
    "fig16_time_to_target": ("arrivals", target.target_figure),
    "fig18_spectra": ("spectra", minima.spectra_figure),
    "fig19_gpu_loop": ("gpu_line", gpu.loop_figure),
    "fig20_gpu_cifar": ("gpu_cifar", gpu.cifar_figure),
    "fig21_gpu_throughput": ("gpu_throughput", gpu.throughput_figure),
    "fig22_gpu_speed": ("gpu_speed", gpu.speed_figure),
}
"""The figures in their order, each with the table it needs."""

OF_PROFILE = {("fig11_keskar", "keskar-c1"): "fig17_keskar_c1"}
"""Figures that have another name where they are of another profile."""


def draw_all(folder: str | os.PathLike, out: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Draw the figures of a study.

    Args:
        folder: Where its tables are.
        out: Where to write.

    Returns:
        PNG files, by name.
    """
    study = tables.Tables.load(folder)
    files = {}
    for name, (table, compose) in FIGURES.items():
        if table not in study.frames:
            continue
        name = OF_PROFILE.get((name, study.about["profile"]), name)
        figure, caption = compose(study)
        about = {
            "profile": study.about["profile"],
            "n": captions.count_seeds(study.frames[table]),
            "records": tables.sha256(folder),
        }
        files[name] = style.save_figure(figure, name, out, caption=caption, about=about)["png"]
    return files
