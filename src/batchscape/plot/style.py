"""The style of all figures: sizes, colours, axes of batch size, and files with the same bytes every time."""

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata, resources
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from batchscape.stats.paired import mean_interval
from batchscape.system import atomic, paths

COLUMN, PAGE = 3.25, 6.75
"""Widths of a figure, in inches."""

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"

KINDS = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILLION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
)
"""Looks of up to three kinds of thing: told apart by dash and marker, not by colour alone."""


@contextlib.contextmanager
def paper() -> Iterator[None]:
    """The style of all figures, for the figures drawn inside."""
    with resources.as_file(resources.files("batchscape.plot") / "paper.mplstyle") as file, mpl.rc_context():
        plt.style.use(file)
        yield


def batch_axis(ax: Axes, batches: Sequence[int], *, label: str = "batch size $B$ [examples]") -> None:
    """A logarithmic axis of batch size with the true values as ticks."""
    ax.set_xscale("log", base=2)
    labels: list[str] = []
    for batch in batches:  # A label needs some room beside the one before it.
        labelled = [int(label) for label in labels if label]
        labels.append("" if labelled and batch < 1.5 * labelled[-1] else str(batch))
    ax.set_xticks(list(batches), labels)
    ax.minorticks_off()
    ax.tick_params(axis="x", labelrotation=45 if len(batches) > 6 else 0)
    ax.set_xlabel(label)


def log_axis(axis: Axis) -> None:
    """A logarithmic axis with readable ticks: 1, 2 and 5 in every decade where there are few decades."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    few = math.log10(high / low) < 2
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def curve_with_band(ax: Axes, rows: pd.DataFrame, quantity: str, *, log: bool, label: str, **look: Any) -> list[int]:
    """The mean over seeds against batch size with its 95 % interval (Student t) as a band; geometric if `log`.

    Args:
        ax: Where to draw.
        rows: One row a seed and batch size, with `batch` and the quantity, which is finite.
        quantity: The column.
        log: Whether the axis is to be logarithmic.
        label: Text of the legend.
        **look: Colour, marker and such, as `ax.plot` takes them.

    Returns:
        The batch sizes drawn, rising.
    """
    forward, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    batches = sorted(rows["batch"].unique())
    summary = [mean_interval(forward(rows.loc[rows["batch"] == batch, quantity])) for batch in batches]
    mean, low, high = back(np.array(summary, dtype=np.float64).T)
    ax.fill_between(batches, low, high, color=look["color"], alpha=0.15, linewidth=0)
    ax.plot(batches, mean, label=label, **look)
    return batches


def letter_panels(axes: Sequence[Axes]) -> None:
    """Bold letters a, b, c, ... at the upper left of the panels."""
    for ax, letter in zip(axes, "abcdefghij", strict=False):
        ax.set_title(letter, loc="left", fontweight="bold")


def reference_line(ax: Axes, value: float, text: str) -> None:
    """A thin grey dotted line for chance, a theory or a published number."""
    ax.axhline(value, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    ax.annotate(text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY, fontsize=6)


@dataclasses.dataclass(frozen=True)
class Caption:
    """The caption of a figure: its finding, and the data behind it.

    Attributes:
        finding: The finding, in one sentence.
        shows: What is plotted, and how to read it.
        basis: Data, model, n, interval, budget, profile.
    """

    finding: str
    shows: str
    basis: str

    def __str__(self) -> str:
        return f"**{self.finding}** {self.shows} {self.basis}"


def save_figure(
    figure: Figure, name: str, folder: str | os.PathLike, *, caption: Caption, about: Mapping[str, Any]
) -> dict[str, pathlib.Path]:
    """Write a figure as PNG (300 dpi) and PDF, with a JSON of the numbers drawn; the same input gives the same bytes.

    Args:
        figure: The figure.
        name: File name without ending, such as `"fig01_sweep_training"`.
        folder: Where to write; a relative folder starts from the project (or `BATCHSCAPE_HOME`).
        caption: The caption.
        about: Profile, n, data, and the sha256 of the records behind it.

    Returns:
        The files, by ending; the figure is closed.
    """
    folder = paths.make(folder)
    files = {ending: folder / f"{name}.{ending}" for ending in ("png", "pdf", "json")}
    with paper():
        contents = {
            "png": _drawn(figure, "png", metadata={"Software": None}),
            "pdf": _drawn(figure, "pdf", metadata={"CreationDate": None}),
        }
    described = {
        "name": name,
        "caption": dataclasses.asdict(caption),
        **about,
        "versions": {package: metadata.version(package) for package in ("matplotlib", "numpy")},
        "plotted": [_plotted(ax) for ax in figure.axes],
    }
    plt.close(figure)
    contents["json"] = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    for ending, file in files.items():
        atomic.write(file, contents[ending])
    return files


def _drawn(figure: Figure, ending: str, **options: Any) -> bytes:
    """The bytes of a file of a figure: only what is complete is written."""
    stream = io.BytesIO()
    figure.savefig(stream, format=ending, **options)
    return stream.getvalue()


def _plotted(ax: Axes) -> dict[str, Any]:
    """The labelled curves of a panel, as numbers."""
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    return {
        "x": ax.get_xlabel(),
        "y": ax.get_ylabel(),
        "curves": [
            {"label": line.get_label(), "x": _numbers(line.get_xdata()), "y": _numbers(line.get_ydata())}
            for line in lines
        ],
    }


def _numbers(values) -> list[float | None]:
    rounded = [float(f"{float(value):.6g}") for value in np.asarray(values, dtype=np.float64)]
    return [value if math.isfinite(value) else None for value in rounded]
