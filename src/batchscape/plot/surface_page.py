"""The loss on a plane as a surface to turn in a browser."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from batchscape.plot import style
from batchscape.plot.loss_scale import as_list, few_of, is_log, levels_of, limits_of
from batchscape.plot.surface import (
    LOOKS,
    check_trajectory,
    distances_of,
    is_needle,
    labels_of,
    lost_points,
    sorted_plane,
    way_of,
)
from batchscape.system import atomic, html


def surface_html(
    plane: Any, file: str | os.PathLike, trajectory: Any = None, *, unit: str = "nats", title: str = ""
) -> pathlib.Path:
    """Write the loss on a plane as a surface to turn, zoom and point at: one file that needs no network.

    Pointing at it shows coordinates, loss and accuracy. Height and colour are logarithmic where losses span a decade or more.
    Points without a finite loss are holes, with a grey square each on the floor; so is a loss of 0 on a logarithmic scale.

    Args:
        plane: A `Plane`.
        file: Where to, about 5 MB; the ending `.html` is added where it is missing.
        trajectory: A `Trajectory` on it; each checkpoint stands at the height of its own loss.
        unit: Unit of the loss.
        title: Text above.

    Returns:
        The file.

    Raises:
        InvalidInput: As for `contour`.
        StoreError: If the file cannot be written.
    """
    from plotly import graph_objects

    plane = sorted_plane(plane)
    check_trajectory(plane, trajectory)
    scene = _Scene(plane, trajectory, limits_of(plane, *as_list(trajectory)), unit)
    traces = [scene.surface(), *scene.lost(), *scene.ways(), *scene.marks()]
    figure = graph_objects.Figure(traces, scene.layout(title))
    body = figure.to_html(
        full_html=False, default_height="100%", div_id="surface", config=OFFLINE, include_plotlyjs=True
    )
    file = pathlib.Path(file)
    file = file if file.suffix == ".html" else file.with_name(f"{file.name}.html")
    atomic.write(file, PAGE.format(title=html.text(title or "Loss on a plane"), body=body))
    return file


OFFLINE = {"displaylogo": False, "showSendToCloud": False, "responsive": True}
"""Plotly.js 4 has a button, on where nothing is said, that uploads the data of the picture."""

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>html, body {{height: 100%; margin: 0}}</style></head>
<body>{body}</body>
</html>
"""


@dataclasses.dataclass(frozen=True)
class _Scene:
    """What stands in a turning picture, as Plotly takes it."""

    plane: Any
    trajectory: Any
    limits: tuple[float, float]
    unit: str

    def surface(self) -> dict[str, Any]:
        """The loss, with all that pointing at it shows."""
        plane = self.plane
        x, y = distances_of(plane)
        text = [
            [self._says(*at, loss) + _accuracy(share) for at, loss, share in zip(row, losses, shares, strict=True)]
            for row, losses, shares in zip(_points(plane), plane.loss, plane.accuracy, strict=True)
        ]
        places = {"x": x.tolist(), "y": y.tolist(), "z": _listed(self.heights(plane.loss))}
        bar = {"title": {"text": self._loss()}, "len": 0.7, "y": 0.45, **self._ticks()}
        shown = {"text": np.array(text), "hoverinfo": "text", "name": "surface"}  # Of lists Plotly would join each row.
        return {"type": "surface", **places, **shown, "opacity": 0.85, "colorbar": bar, **self._colors()}

    def lost(self) -> list[dict[str, Any]]:
        """Squares on the floor where there is no loss, or no logarithm of it."""
        plane, heights = self.plane, self.heights(self.plane.loss)
        not_finite = ~np.isfinite(plane.loss)
        below = np.isnan(heights) & ~not_finite
        kinds = {
            lost_points(plane.loss): not_finite,
            f"loss 0, below the scale: {below.sum()} of {below.size} points": below,
        }
        return [
            self._squares(name, _points(plane)[chosen], plane.loss[chosen])
            for name, chosen in kinds.items()
            if chosen.any()
        ]

    def ways(self) -> list[dict[str, Any]]:
        """Lines through the checkpoints of each run, at the heights of their own losses."""
        traces = []
        for name, look in zip(self.trajectory.names if self.trajectory else (), LOOKS, strict=False):
            places, losses = self.trajectory.coordinates[name], self.trajectory.losses[name]
            heights, off = self.heights(losses), self.trajectory.off_plane[name]
            text = [
                f"{html.text(name)}, checkpoint {k} of {len(off)}<br>{self._says(*place, loss)}<br>{away:.3g} off the plane"
                for k, (place, loss, away) in enumerate(zip(places, losses, off, strict=True), 1)
            ]
            edge = {"color": look["color"], "width": 2}
            marker = {"size": 4, "color": _listed(np.nan_to_num(heights)), "line": edge, **self._colors()}
            line = {"color": look["color"], "width": 5}
            show = {"text": text, "hoverinfo": "text", "name": html.text(way_of(self.trajectory, name))}
            traces.append(self._scatter(places, heights, mode="lines+markers", marker=marker, line=line, **show))
            lost = np.isnan(heights)
            if lost.any():
                label = f"{name}, without a place on the scale: {lost.sum()}"
                traces.append(self._squares(label, places[lost], losses[lost]))
        return traces

    def marks(self) -> list[dict[str, Any]]:
        """A pole at each mark with its name on top, each higher than the one before it, so that names keep apart."""
        low, high = self.heights(self.limits)
        look = {"mode": "lines+text", "line": {"color": "black", "width": 4}, "hoverinfo": "name", "showlegend": False}
        traces = []
        for k, (name, place) in enumerate(self.plane.marks.items()):
            text = html.text(name)
            ends = np.array([low, high + 0.1 * k * (high - low)])
            traces.append(self._scatter(np.array([place, place]), ends, text=["", text], name=text, **look))
        return traces

    def layout(self, title: str) -> dict[str, Any]:
        """Axes to scale along the floor, and the legend out of the way."""
        sides = np.array([np.ptp(places) for places in distances_of(self.plane)])
        sides = np.ones(2) if is_needle(self.plane) else sides / sides.max()
        labels = [
            label.replace("$d_1$", "d₁").replace("$d_2$", "d₂").replace("\n", "<br>")
            for label in labels_of(self.plane, self.trajectory)
        ]
        return {
            "title": {"text": html.text(title)},
            "template": "plotly_white",
            "legend": {"x": 0, "y": 1},
            "margin": {"l": 0, "r": 0, "b": 0, "t": 50 if title else 0},
            "scene": {
                "xaxis": {"title": {"text": labels[0]}},
                "yaxis": {"title": {"text": labels[1]}},
                "zaxis": {"title": {"text": self._loss()}, **self._ticks(6)},
                "aspectmode": "manual",
                "aspectratio": {"x": 1.2 * sides[0], "y": 1.2 * sides[1], "z": 0.6},
                "camera": {"eye": {"x": -0.5, "y": -1.3, "z": 1.2}, "center": {"x": 0, "y": 0, "z": -0.15}},
            },
        }

    def heights(self, losses: Any) -> np.ndarray:
        """Heights of losses, NaN where they have none."""
        losses = np.asarray(losses, np.float64)
        if not is_log(*self.limits):
            return np.where(np.isfinite(losses), losses, np.nan)
        return np.log10(losses, out=np.full(losses.shape, np.nan), where=np.isfinite(losses) & (losses > 0))

    def _squares(self, name: str, points: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
        floor = np.full(len(points), self.heights(self.limits)[0])
        text = [self._says(*point, loss) for point, loss in zip(points, losses, strict=True)]
        look = {"mode": "markers", "marker": {"symbol": "square", "size": 3, "color": style.GREY}}
        return self._scatter(points, floor, text=text, hoverinfo="text", name=html.text(name), **look)

    def _scatter(self, points: np.ndarray, heights: np.ndarray, **look: Any) -> dict[str, Any]:
        x, y = (np.asarray(points) * self.plane.norms).T
        return {"type": "scatter3d", "x": x.tolist(), "y": y.tolist(), "z": _listed(heights), **look}

    def _loss(self) -> str:
        return f"loss [{html.text(self.unit)}]"

    def _colors(self) -> dict[str, Any]:
        low, high = self.heights(self.limits)
        return {"colorscale": "Viridis", "cmin": low, "cmax": high}

    def _ticks(self, most: int = 10) -> dict[str, Any]:
        levels = levels_of(*self.limits)
        levels = levels[(levels >= self.limits[0]) & (levels <= self.limits[1])]
        levels = few_of(levels, most)
        return {"tickvals": self.heights(levels).tolist(), "ticktext": [f"{level:g}" for level in levels]}

    def _says(self, a: float, b: float, loss: float) -> str:
        """What pointing at a place shows."""
        far = [
            "" if abs(norm - 1) < 1e-9 else f" (distance {at * norm:.4g})"
            for at, norm in zip((a, b), self.plane.norms, strict=True)
        ]
        return f"a = {a:.5g}{far[0]}<br>b = {b:.5g}{far[1]}<br>loss {loss:.5g} {html.text(self.unit)}"


def _points(plane: Any) -> np.ndarray:
    """(a, b) of all points of a plane, shape (rows, columns, 2)."""
    return np.stack(np.meshgrid(plane.a, plane.b), axis=-1)


def _accuracy(share: float) -> str:
    return f"<br>accuracy {share:.2%}" if np.isfinite(share) else ""


def _listed(values: np.ndarray) -> list:
    """Numbers as lists, None where there is none, which JSON has a word for."""
    return np.where(np.isfinite(values), values, None).tolist()
