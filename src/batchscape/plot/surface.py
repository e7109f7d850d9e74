"""Pictures of the loss on a plane: contours and heat maps."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import artist, cm, colors, patches, patheffects
from matplotlib import path as mpl_path
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from batchscape.errors import InvalidInput
from batchscape.plot import style
from batchscape.plot.loss_scale import as_list, extend_of, few_of, is_log, levels_of, limits_in

LOOKS = (
    {"color": style.VERMILLION, "linestyle": "-", "marker": "o"},
    {"color": style.BLUE, "linestyle": "--", "marker": "s"},
    {"color": "#000000", "linestyle": "-.", "marker": "^"},
    {"color": style.GREEN, "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": "-", "marker": "v"},
    {"color": "#E69F00", "linestyle": "--", "marker": "P"},
)
"""Looks of up to six runs."""

SKEW = 0.1
"""Axes with a cosine beyond this do not stand at right angles: a picture that draws them so says it."""

NEEDLE = 6.0
"""Where one side is longer than so many times the other, each axis gets a scale of its own, and the picture says it."""

SAME_PLANE = ("model", "data", "weights", "directions")
"""What a plane and a trajectory on it have in common, of all they keep about themselves."""


def contours(
    plane: Any,
    trajectory: Any = None,
    *,
    limits: tuple[float, float] | None = None,
    unit: str = "nats",
    ax: Axes | None = None,
) -> Figure:
    """Contours of the loss on a plane, its marks, and the paths of runs over it.

    Axes are distances in the space of weights, coordinates times norms, at one scale. Levels are logarithmic where losses span
    a decade or more. Nothing is made up where a corner of a cell has no finite loss: the cell is hatched, and the legend
    counts. A checkpoint has the colour of its own loss: one that differs from the ground lies off the plane, by so much at
    most as the legend says. The large marker is the last checkpoint.

    Args:
        plane: A `Plane`.
        trajectory: A `Trajectory` on it, of up to six runs.
        limits: Smallest and largest loss of the scale, one for all pictures that are compared: see `limits_of`. Losses beyond
            it have the colour of its end, and the bar an arrow.
        unit: Unit of the loss, for the bar of colours.
        ax: Axes of a larger figure, whose legend is up to the caller; None for a figure of its own.

    Returns:
        The figure.

    Raises:
        InvalidInput: For fewer than two rows or columns, no finite loss, or a trajectory on another plane or of too many runs.
    """
    plane = sorted_plane(plane)
    x, y = distances_of(plane)
    levels = levels_of(*limits_in(limits, plane, trajectory))
    extend = extend_of(levels[0], levels[-1], plane, *as_list(trajectory))
    norm = colors.BoundaryNorm(levels, 256, extend=extend)
    ax, own = _axes(plane, trajectory, ax)
    shown = np.ma.masked_invalid(plane.loss)
    ax.contourf(x, y, shown, levels=levels, norm=norm, cmap="viridis", extend=extend, corner_mask=False)
    if ((levels > shown.min()) & (levels < shown.max())).any():
        ax.contour(x, y, shown, levels=levels, colors="white", linewidths=0.3, corner_mask=False)
    lost = ~np.isfinite(plane.loss)
    _hatch(ax, x, y, lost[:-1, :-1] | lost[1:, :-1] | lost[:-1, 1:] | lost[1:, 1:], plane)
    _ways(ax, trajectory, norm)
    _color_bar(ax, norm, unit, extend=extend, ticks=levels)
    return _finish(ax, plane, trajectory, own=own)


def heat_map(
    plane: Any,
    trajectory: Any = None,
    *,
    limits: tuple[float, float] | None = None,
    unit: str = "nats",
    ax: Axes | None = None,
) -> Figure:
    """The loss on a plane, one cell a point that was evaluated, with nothing between them; see `contour` for the rest."""
    plane = sorted_plane(plane)
    sides = [_edges(places) for places in distances_of(plane)]
    low, high = limits_in(limits, plane, trajectory)
    norm = (colors.LogNorm if is_log(low, high) else colors.Normalize)(low, high)
    ax, own = _axes(plane, trajectory, ax)
    shown = np.ma.masked_invalid(plane.loss)
    if isinstance(norm, colors.LogNorm):  # A loss of 0 is below the scale; its logarithm would count as missing.
        shown = np.ma.maximum(shown, low / 2)
    ax.pcolormesh(*sides, shown, norm=norm, cmap="viridis", rasterized=True)
    _hatch(ax, *sides, ~np.isfinite(plane.loss), plane)
    _ways(ax, trajectory, norm)
    _color_bar(ax, norm, unit, extend=extend_of(low, high, plane, *as_list(trajectory)), ticks=levels_of(low, high))
    return _finish(ax, plane, trajectory, own=own)


def sorted_plane(plane: Any) -> Any:
    """A plane with rising coordinates, each of them once."""
    a, columns = np.unique(plane.a, return_index=True)
    b, rows = np.unique(plane.b, return_index=True)
    if min(len(a), len(b)) < 2:
        raise InvalidInput(f"A picture of a plane needs two rows and columns. Received: {len(b)} × {len(a)} points")
    values = {name: getattr(plane, name)[np.ix_(rows, columns)] for name in ("loss", "accuracy")}
    return dataclasses.replace(plane, a=a, b=b, **values)


def distances_of(plane: Any) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the columns and rows from the origin, along each direction."""
    return plane.a * plane.norms[0], plane.b * plane.norms[1]


def _edges(places: np.ndarray) -> np.ndarray:
    """Borders of cells around rising places, half-way between them."""
    middles = (places[:-1] + places[1:]) / 2
    return np.concatenate([[2 * places[0] - middles[0]], middles, [2 * places[-1] - middles[-1]]])


def _axes(plane: Any, trajectory: Any, ax: Axes | None) -> tuple[Axes, bool]:
    """Where to draw, and whether that is a figure of its own, as high as the plane asks for."""
    check_trajectory(plane, trajectory)
    if ax is not None:
        return ax, False
    width, height = (np.ptp(places) for places in distances_of(plane))
    tall = 0.75 if is_needle(plane) else height / width
    entries = 0 if trajectory is None else len(trajectory.names) + 2
    size = min((style.COLUMN - 1.2) * tall, 3.5) + 0.6 + 0.14 * (entries + (not np.isfinite(plane.loss).all()))
    return plt.subplots(figsize=(style.COLUMN, max(size, 1.6)))[1], True


def check_trajectory(plane: Any, trajectory: Any) -> None:
    """That a trajectory is one of the plane, with no more runs than there are looks."""
    if trajectory is None:
        return
    other = [
        key
        for key in SAME_PLANE
        if key in plane.about and plane.about[key] != trajectory.about.get(key, plane.about[key])
    ]
    if other:
        raise InvalidInput(f"The trajectory must be one on this plane. Received: another {' and '.join(other)}")
    if len(trajectory.names) > len(LOOKS):
        raise InvalidInput(f"A picture holds up to {len(LOOKS)} runs. Received: {len(trajectory.names)}")


def is_needle(plane: Any) -> bool:
    """Whether one side is much longer than the other."""
    sides = sorted(np.ptp(places) for places in distances_of(plane))
    return bool(sides[1] > NEEDLE * sides[0])


def _hatch(ax: Axes, x: np.ndarray, y: np.ndarray, cells: np.ndarray, plane: Any) -> None:
    """Hatch cells, shape (rows, columns), between places of columns and rows; one path, so that no seams show."""
    if not cells.any():
        return
    boxes = [
        mpl_path.Path(
            [(x[j], y[i]), (x[j + 1], y[i]), (x[j + 1], y[i + 1]), (x[j], y[i + 1]), (x[j], y[i])], closed=True
        )
        for i, j in np.argwhere(cells)
    ]
    look = {"facecolor": "0.88", "edgecolor": "0.45", "hatch": "//////", "linewidth": 0}
    ax.add_patch(patches.PathPatch(mpl_path.Path.make_compound_path(*boxes), label=lost_points(plane.loss), **look))


def lost_points(loss: np.ndarray) -> str:
    """How many losses are not finite, and what they are."""
    kinds = {"NaN": np.isnan(loss), "∞": np.isposinf(loss), "−∞": np.isneginf(loss)}
    counts = ", ".join(f"{name} at {found.sum()}" for name, found in kinds.items() if found.any())
    return f"no finite loss: {counts} of {loss.size} points"


def _ways(ax: Axes, trajectory: Any, norm: colors.Normalize) -> None:
    """The paths of runs: a line and checkpoints in the colour of their own losses, the last one large."""
    if trajectory is None:
        return
    for name, look in zip(trajectory.names, LOOKS, strict=False):
        places, losses = trajectory.coordinates[name], trajectory.losses[name]
        line = {"linewidth": 1.0, "markersize": 3.5, "markerfacecolor": "white", "path_effects": _halo(2.2)}
        ax.plot(*places.T, **look, **line, zorder=3, clip_on=False, label=way_of(trajectory, name))
        finite, last = np.isfinite(losses), np.arange(len(places)) == len(places) - 1
        own = np.maximum(losses[finite], _floor(norm))
        sizes = np.where(last, 45, 13)[finite]
        edge = {"marker": look["marker"], "edgecolors": look["color"], "linewidths": 0.8}
        ax.scatter(*places[finite].T, c=own, s=sizes, **edge, cmap="viridis", norm=norm, zorder=4, clip_on=False)
        if not finite.all():
            label = f"{name}, without a finite loss: {(~finite).sum()}"
            ax.plot(*places[~finite].T, "x", color=style.GREY, markersize=5, zorder=5, clip_on=False, label=label)


def _halo(width: float) -> list[patheffects.AbstractPathEffect]:
    return [patheffects.withStroke(linewidth=width, foreground="white")]


def _floor(norm: colors.Normalize) -> float:
    """What losses are raised to before they get a colour: below a logarithmic scale, but above zero."""
    return norm.vmin / 2 if isinstance(norm, colors.LogNorm) else -np.inf


def way_of(trajectory: Any, name: str) -> str:
    """A run, and how far it leaves the plane."""
    farthest, extent = trajectory.off_plane[name].max(), np.ptp(trajectory.points, axis=0).max()
    return f"{name}, " + ("in the plane" if farthest <= 1e-6 * extent else f"up to {farthest:.2g} off the plane")


def _color_bar(ax: Axes, norm: colors.Normalize, unit: str, *, extend: str, ticks: Sequence[float]) -> None:
    """A bar as high as the picture, with round numbers."""
    beside = ax.inset_axes((1.04, 0, 0.05, 1))
    shown = cm.ScalarMappable(norm, "viridis")
    ends = {} if isinstance(norm, colors.BoundaryNorm) else {"extend": extend}
    bar = ax.figure.colorbar(shown, cax=beside, label=f"loss [{unit}]", format="%g", **ends)
    bar.set_ticks(few_of([tick for tick in ticks if norm.vmin <= tick <= norm.vmax], 9))
    bar.ax.minorticks_off()


def _finish(ax: Axes, plane: Any, trajectory: Any, *, own: bool) -> Figure:
    """Scales, labels, marks and legend."""
    if not is_needle(plane):
        ax.set_aspect("equal")
    ax.margins(0)
    for axis, label in zip((ax.xaxis, ax.yaxis), labels_of(plane, trajectory), strict=True):
        axis.set_label_text(label)
    if own and ax.get_legend_handles_labels()[0]:
        title = None if trajectory is None else "fill of a marker: its own loss; large: the last one"
        look = {"loc": "outside lower center", "handlelength": 2.8, "title": title, "title_fontsize": 7}
        ax.figure.legend(*ax.get_legend_handles_labels(), **look)
    _name_marks(ax, plane, trajectory)
    return ax.figure


def labels_of(plane: Any, trajectory: Any) -> list[str]:
    """Texts of the two axes."""
    shares = ["", ""] if trajectory is None else [f"\n({share:.1%} explained)" for share in trajectory.explained]
    labels = [f"distance along $d_{k}${share}" for k, share in zip((1, 2), shares, strict=True)]
    if abs(plane.cosine) > SKEW:
        labels[0] += f"\naxes at {math.degrees(math.acos(plane.cosine)):.0f}°, drawn at 90°"
    if is_needle(plane):
        labels[0] += "\naxes at scales of their own"
    return labels


def _name_marks(ax: Axes, plane: Any, trajectory: Any) -> None:
    """Stars at the marks, and their names where they cover no other name, star or checkpoint, as far as there is room."""
    if not plane.marks:
        return
    places = np.array(list(plane.marks.values()), np.float64) * plane.norms
    star = {"color": "black", "markeredgecolor": "white", "markeredgewidth": 0.5, "markersize": 8}
    ax.plot(*places.T, "*", **star, zorder=6, clip_on=False)
    look = {"fontsize": 7, "ha": "center", "va": "center", "zorder": 7, "path_effects": _halo(2)}
    line = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    names = [
        ax.annotate(name, place, (0, 0), textcoords="offset points", arrowprops=line, annotation_clip=False, **look)
        for name, place in zip(plane.marks, places, strict=True)
    ]
    others = np.zeros((0, 2)) if trajectory is None else trajectory.points
    ax.add_artist(_Apart(names, others))


class _Apart(artist.Artist):
    """Shows nothing: it moves names apart each time before they are drawn, when sizes and places are settled."""

    def __init__(self, names: list[Annotation], others: np.ndarray):
        super().__init__()
        self._names, self._others = names, others
        self.set_zorder(min(name.get_zorder() for name in names) - 0.1)
        for one in (self, *names):
            one.set_in_layout(False)

    def draw(self, renderer):
        """Move the names."""
        boxes = [Text.get_window_extent(name, renderer) for name in self._names]  # Without the lines to the stars.
        sizes = np.array([(box.width, box.height) for box in boxes])
        stars, others = (self.axes.transData.transform(at) for at in ([name.xy for name in self._names], self._others))
        point = self.axes.figure.dpi / 72
        for name, offset in zip(
            self._names, _offsets(stars, sizes, others, self.axes.bbox.extents, point), strict=True
        ):
            name.set_position(offset / point)


def _offsets(
    stars: np.ndarray, sizes: np.ndarray, others: np.ndarray, frame: np.ndarray, point: float
) -> list[np.ndarray]:
    """Where the middles of names go, from their stars: for each the best of 8 sides at 4 distances; all in pixels.

    Args:
        stars: Shape (marks, 2).
        sizes: Widths and heights of the names, shape (marks, 2).
        others: What else is better not covered, shape (n, 2).
        frame: Left, bottom, right and top of the picture.
        point: Pixels in a point.
    """
    sides = np.array([(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)])
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    best = []
    for star, size in zip(stars, sizes, strict=True):

        def cost(offset: np.ndarray, star=star, size=size) -> float:
            low, high = star + offset - size / 2, star + offset + size / 2
            names = sum(bool((low < top).all() and (bottom < high).all()) for bottom, top in taken)
            hidden = ((stars > low - 4 * point) & (stars < high + 4 * point)).all(axis=1).sum()
            covered = ((others > low) & (others < high)).all(axis=1).sum()
            outside = np.sum(np.maximum(frame[:2] - low, 0) + np.maximum(high - frame[2:], 0))
            return 1000 * names + 100 * hidden + 10 * outside + 10 * covered + 0.1 * np.linalg.norm(offset)

        best.append(min((side * (away * point + size / 2) for away in (3, 9, 18, 30) for side in sides), key=cost))
        taken.append((star + best[-1] - size / 2, star + best[-1] + size / 2))
    return best
