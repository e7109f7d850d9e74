"""Figures of the benchmark on a GPU, each with its caption."""

import pandas as pd
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study import tables
from batchscape.study.captions import closed, count_seeds
from batchscape.study.gpu import figures


def loop_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The loss between two minima of the loop on a GPU, with its caption."""
    line, first = study.gpu_line, study.gpu_line.iloc[0]
    rises = []
    for stratum, points in line[line["split"] == "train"].groupby("stratum", sort=False):
        loss = points.set_index("alpha")["loss"]
        before, after = (loss.iloc[abs(loss.index - place).argmin()] for place in (-0.5, 1.5))
        rises.append(f"{before:.2g} and {after:.2g} ({stratum})")
    caption = style.Caption(
        finding=(
            f"Half the distance beyond B = {first['batch_a']} and beyond B = {first['batch_b']} the training loss is "
            f"{' and '.join(rises)}."
        ),
        shows=(
            "Loss at (1 − α)·w(smallest batch) + α·w(largest batch), of weights that `model.fit` left after equal epochs, "
            "a: at one learning rate, b: with the rate in proportion to the batch."
        ),
        basis=f"MNIST, MLP 784-128-64-10, SGD, {first['epochs']} epochs, one seed, on {first['device']}.",
    )
    return closed(figures.loop, line), caption


def cifar_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Curvature and accuracy against batch size on a GPU, with its caption."""
    runs, first = study.gpu_cifar, study.gpu_cifar.iloc[0]
    diverged = int((runs["status"] != "COMPLETE").sum())
    caption = style.Caption(
        finding=f"Curvature, loss and accuracy of {len(runs)} runs, of which {diverged} diverged.",
        shows=(
            "After equal epochs, not at an equal loss. Curves keep the learning rate η, or η/B, fixed; dots are seeds. "
            "The last partial batch of an epoch is dropped."
        ),
        basis=(
            f"{first['dataset']}, N = {first['n']}, CNN of 16 and 32 maps with BatchNorm, SGD, {first['epochs']} epochs, "
            f"n = {count_seeds(runs)} paired seeds, bands: 95 % (Student t), on {first['device']}."
        ),
    )
    return closed(figures.cifar, runs), caption


def throughput_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Throughput and memory against batch size on a GPU, with its caption."""
    rows = study.gpu_throughput
    measured = rows[rows["outcome"].str.startswith("measured")]
    best = measured.loc[measured.groupby(["net", "precision"], sort=False)["samples_per_s"].idxmax()]
    words = [
        f"{row.net} in {row.precision.removeprefix('mixed_')} {row.samples_per_s:,.2g} at B = {row.batch}"
        for row in best.itertuples()
    ]
    caption = style.Caption(
        finding=f"Most examples a second: {', '.join(words)}.",
        shows=(
            "a: examples a second of `model.fit` and b: peak memory of the device, with the line through the three largest "
            "sizes; each climb ends where throughput stops rising by 5 %, or memory ends."
        ),
        basis=f"MNIST or noise of 32 × 32 × 3, one process a device, on {rows['device'].iloc[0]}.",
    )
    return closed(figures.throughput, rows), caption


def speed_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Updates a second on a GPU, beside the processor where it has been measured, with its caption."""
    rows = pd.concat([study.gpu_speed, *(study.frames[name] for name in ["cpu_speed"] if name in study.frames)])
    wide = study.gpu_speed[study.gpu_speed["quantity"] == "updates"].pivot(
        index=["net", "batch"], columns="engine", values="per_s"
    )
    gain = wide["fused"] / wide["stock"]
    caption = style.Caption(
        finding=f"Fused updates are {gain.min():.2g} to {gain.max():.2g} times as many as those of stock `model.fit`.",
        shows="Updates a second of training, medians; bars are the range over rounds in which the engines take turns.",
        basis=f"MNIST and CIFAR-10-5k, on {' and '.join(rows['device'].unique())}.",
    )
    return closed(figures.speed, rows), caption
