"""Pictures of planes: losses, holes, marks and ways stand where the numbers say, and the HTML needs no network."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.text import Annotation, Text

from batchscape.errors import InvalidInput, StoreError
from batchscape.landscape.plane import Plane, evaluate_plane
from batchscape.landscape.trajectory import Trajectory, trajectory_plane
from batchscape.plot import loss_scale, style, surface, surface_page
from tests.toys import probe

SIDE = np.linspace(-2, 2, 9)
BOTH = [surface.contours, surface.heat_map]


@pytest.fixture(autouse=True)
def paper():
    with style.paper():
        yield
    plt.close("all")


def plane_of(loss=lambda x, y: 0.1 + x**2 + 3 * y**2, a=SIDE, b=SIDE, **fields):
    x, y = np.meshgrid(a, b)
    values = {"norms": (1.0, 1.0), "cosine": 0.0, **fields}
    return Plane(np.asarray(a, float), np.asarray(b, float), loss(x, y), np.full(x.shape, 0.5), **values)


def way_of(runs, **fields):
    """A trajectory by hand, of coordinates and losses by name; checkpoint number k lies k/10 off the plane."""
    places, losses = (np.concatenate([run[k] for run in runs.values()]).astype(float) for k in (0, 1))
    lengths = tuple(len(run[1]) for run in runs.values())
    away = np.concatenate([np.arange(length) / 10 for length in lengths])
    return Trajectory(np.eye(2), (0.71, 0.183), tuple(runs), lengths, places, losses, away, **fields)


WAY = {"B = 8": ([[1.5, 1.5], [1, 0.5], [0, 0]], [9, 2, 0.3]), "B = 64": ([[1.5, 1.5], [-1, 0.5]], [9, 4])}


def artists(figure, kind):
    return [one for one in figure.axes[0].get_children() if type(one) is kind]


def holed():
    """NaN in the upper right corner, 4 points; infinity at the left edge, 9 points."""

    def loss(x, y):
        values = 0.1 + x**2 + 3 * y**2
        values[(x > 1) & (y > 1)] = np.nan
        values[x < -1.5] = np.inf
        return values

    return plane_of(loss)


def test_a_heat_map_has_the_loss_of_each_point_and_none_where_there_is_none():
    plane = holed()
    (mesh,) = artists(surface.heat_map(plane), QuadMesh)
    drawn = mesh.get_array().reshape(plane.loss.shape)
    np.testing.assert_array_equal(np.ma.getmaskarray(drawn), ~np.isfinite(plane.loss))
    np.testing.assert_array_equal(drawn.compressed(), plane.loss[np.isfinite(plane.loss)])
    edges = mesh.get_coordinates()
    np.testing.assert_allclose(edges[0, :, 0], np.linspace(-2.25, 2.25, 10))


@pytest.mark.parametrize("draw", BOTH)
def test_what_is_not_finite_is_hatched_and_named(draw):
    figure = draw(holed())
    (patch,) = artists(figure, PathPatch)
    assert patch.get_hatch()
    assert patch.get_label() == "no finite loss: NaN at 4, ∞ at 9 of 81 points"
    (legend,) = figure.legends
    assert patch.get_label() in [text.get_text() for text in legend.get_texts()]
    path = patch.get_path()
    assert len(path.vertices) == 5 * (13 if draw is surface.heat_map else 12)  # Points, or cells with such a corner.
    for inside in ((1.9, 1.9), (1.6, 1.6), (-1.9, 0.2), (-1.9, -1.9)):
        assert path.contains_point(inside), inside
    for outside in ((0, 0), (0.9, 1.9), (1.9, 0.9), (-1.2, 0)):
        assert not path.contains_point(outside), outside


def test_contours_leave_out_exactly_the_cells_that_are_hatched():
    figure = surface.contours(holed())
    (patch,) = artists(figure, PathPatch)
    filled = artists(figure, QuadContourSet)[0]
    for at in itertools.product(np.linspace(-1.97, 1.97, 40), repeat=2):
        in_a_band = any(path.contains_point(at) for path in filled.get_paths() if len(path.vertices))
        assert in_a_band != patch.get_path().contains_point(at)


@pytest.mark.parametrize("draw", BOTH)
def test_nothing_is_hatched_where_all_is_finite(draw):
    figure = draw(plane_of())
    assert not artists(figure, PathPatch)
    assert not figure.legends


def test_levels_are_logarithmic_where_losses_span_a_decade():
    def levels(loss):
        return artists(surface.contours(plane_of(loss)), QuadContourSet)[0].levels

    rounded = levels(lambda x, y: 0.02 * 10 ** (x**2 / 2))  # 0.02 to 2
    np.testing.assert_allclose(rounded, [0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2])
    even = np.diff(levels(lambda x, y: 5 + x**2))
    np.testing.assert_allclose(even, even[0])
    assert levels(lambda x, y: 10.0 ** (5 * x)).tolist() == [10.0**k for k in range(-10, 12, 2)]


@pytest.mark.parametrize(
    "span", [(1e-9, 1e9), (0.3, 0.31), (0.01, 0.1), (1, 9.99), (1, 10), (3e-4, 7e2), (-5, 100), (0, 1)]
)
def test_levels_hold_all_losses_and_are_not_too_many(span):
    levels = loss_scale.levels_of(*span)
    assert levels[0] <= span[0] < span[1] <= levels[-1]
    assert 4 <= len(levels) <= 18
    assert (np.diff(levels) > 0).all()


def test_pictures_that_are_compared_have_one_scale():
    planes = [plane_of(), plane_of(lambda x, y: 50 + x)]
    limits = loss_scale.limits_of(*planes)
    assert limits == (0.1, 52)
    figures = [surface.contours(plane, limits=limits) for plane in planes]
    levels = [artists(figure, QuadContourSet)[0].levels for figure in figures]
    np.testing.assert_array_equal(*levels)
    ticks = [figure.axes[0].child_axes[0].get_yticks() for figure in figures]
    np.testing.assert_array_equal(*ticks)


@pytest.mark.parametrize(
    ("limits", "extend"), [(None, "neither"), ((1, 5), "both"), ((0.1, 5), "max"), ((1, 90), "min")]
)
def test_losses_beyond_the_scale_are_told(limits, extend):
    figure = surface.heat_map(plane_of(), limits=limits)
    (mesh,) = artists(figure, QuadMesh)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (limits or loss_scale.limits_of(plane_of()))
    assert loss_scale.extend_of(*(limits or loss_scale.limits_of(plane_of())), plane_of()) == extend
    surface.contours(plane_of(), limits=limits)


@pytest.mark.parametrize("draw", BOTH)
def test_a_loss_of_zero_is_below_a_logarithmic_scale_and_no_hole(draw):
    plane = plane_of(lambda x, y: x**2 + y**2)
    assert loss_scale.limits_of(plane) == (0.25, 8)
    figure = draw(plane)
    assert not artists(figure, PathPatch)
    if draw is surface.heat_map:
        assert not np.ma.getmaskarray(artists(figure, QuadMesh)[0].get_array()).any()


@pytest.mark.parametrize("draw", BOTH)
def test_the_order_of_coordinates_makes_no_difference(draw, tmp_path):
    plane = holed()
    columns, rows = np.random.default_rng(0).permutation(9), np.random.default_rng(1).permutation(9)
    shuffled = dataclasses.replace(
        plane,
        a=plane.a[columns],
        b=plane.b[rows],
        loss=plane.loss[np.ix_(rows, columns)],
        accuracy=plane.accuracy[np.ix_(rows, columns)],
    )
    for k, one in enumerate((plane, shuffled)):
        draw(one).savefig(tmp_path / f"{k}.png")
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


MARKS = {
    "a minimum": (0.0, 0.0),
    "another one": (0.1, 0.05),
    "a third": (-0.1, 0.02),
    "corner": (2.0, 2.0),
    "x": (-2, -2),
}


@pytest.mark.parametrize("draw", BOTH)
def test_marks_are_at_their_places_with_names_that_keep_apart(draw):
    figure = draw(plane_of(marks=MARKS, norms=(2.0, 3.0)), way_of(WAY))
    ax = figure.axes[0]
    (stars,) = [line for line in ax.get_lines() if line.get_marker() == "*"]
    np.testing.assert_allclose(stars.get_xydata(), np.array(list(MARKS.values())) * [2, 3])
    figure.canvas.draw()
    names = artists(figure, Annotation)
    assert [name.get_text() for name in names] == list(MARKS)
    np.testing.assert_allclose([name.xy for name in names], stars.get_xydata())
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    for box in boxes:
        assert not any(box.contains(*star) for star in ax.transData.transform(stars.get_xydata()))
        assert ax.bbox.x0 - 1 < box.x0 < box.x1 < ax.bbox.x1 + 1


def test_names_keep_apart_in_a_larger_figure_too():
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.6))
    for ax, draw in zip(axes, BOTH, strict=True):
        assert draw(plane_of(marks=MARKS), ax=ax) is figure
    figure.canvas.draw()
    for ax in axes:
        boxes = [Text.get_window_extent(one) for one in ax.get_children() if isinstance(one, Annotation)]
        assert len(boxes) == len(MARKS)
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("draw", BOTH)
def test_distances_have_one_scale_and_axes_say_what_they_are(draw):
    ax = draw(plane_of(norms=(2.0, 3.0))).axes[0]
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("distance along $d_1$", "distance along $d_2$")
    assert ax.get_xlim()[1] == pytest.approx(4 if draw is surface.contours else 4.5)
    assert ax.child_axes[0].get_ylabel() == "loss [nats]"
    assert draw(plane_of(), unit="bits").axes[0].child_axes[0].get_ylabel() == "loss [bits]"


def test_axes_that_cannot_be_compared_say_so():
    needle = surface.contours(plane_of(norms=(20.0, 1.0))).axes[0]
    assert needle.get_aspect() == "auto"
    assert "scales of their own" in needle.get_xlabel()
    oblique = surface.contours(plane_of(cosine=0.5)).axes[0]
    assert "axes at 60°, drawn at 90°" in oblique.get_xlabel()


@pytest.mark.parametrize("draw", BOTH)
def test_ways_go_through_their_checkpoints_in_the_colours_of_their_own_losses(draw):
    figure = draw(plane_of(), way_of(WAY))
    ax = figure.axes[0]
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["B = 8, up to 0.2 off the plane", "B = 64, up to 0.1 off the plane"]
    dots = artists(figure, PathCollection)
    ground = artists(figure, QuadContourSet if draw is surface.contours else QuadMesh)[0]
    for line, dot, (places, losses) in zip(lines, dots, WAY.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), places)
        np.testing.assert_array_equal(dot.get_offsets(), places)
        np.testing.assert_array_equal(dot.get_array(), losses)
        assert np.argmax(dot.get_sizes()) == len(losses) - 1  # The last one is large.
        assert dot.norm is ground.norm
    assert ax.get_xlabel() == "distance along $d_1$\n(71.0% explained)"
    assert ax.get_ylabel() == "distance along $d_2$\n(18.3% explained)"


@pytest.mark.parametrize("draw", BOTH)
def test_checkpoints_without_a_finite_loss_are_crossed_and_counted(draw):
    way = way_of({"B = 8": ([[1, 1], [0.5, 1], [0, 0]], [np.inf, np.nan, 1])})
    figure = draw(plane_of(), way)
    (crosses,) = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    np.testing.assert_array_equal(crosses.get_xydata(), [[1, 1], [0.5, 1]])
    assert crosses.get_label() == "B = 8, without a finite loss: 2"
    assert len(artists(figure, PathCollection)[0].get_offsets()) == 1


def test_a_way_in_the_plane_says_so():
    way = dataclasses.replace(way_of(WAY), distances=np.full(5, 1e-12))
    labels = [line.get_label() for line in surface.contours(plane_of(), way).axes[0].get_lines()]
    assert labels == ["B = 8, in the plane", "B = 64, in the plane"]


@pytest.mark.parametrize("draw", [*BOTH, lambda plane, way=None: surface_page.surface_html(plane, "nowhere", way)])
def test_what_cannot_be_drawn_is_refused(draw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plane = plane_of(about={"weights": "a", "directions": "b"})
    way = way_of(WAY, about={"weights": "a", "directions": "c"})
    with pytest.raises(InvalidInput, match="Received: another directions"):
        draw(plane, way)
    with pytest.raises(InvalidInput, match="Received: 7"):
        draw(plane, way_of({str(k): ([[k, k]], [1]) for k in range(7)}))
    with pytest.raises(InvalidInput, match="Received: 1 × 9 points"):
        draw(plane_of(b=[0]))
    with pytest.raises(InvalidInput, match="Received: none"):
        draw(plane_of(lambda x, y: x * np.nan))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(InvalidInput, match="limits must be"):
        surface.contours(plane_of(), limits=limits)


@pytest.mark.parametrize("draw", BOTH)
def test_flat_and_lost_surfaces_are_drawn_too(draw):
    kind = QuadContourSet if draw is surface.contours else QuadMesh
    for level in (0.0, 2.3):
        figure = draw(plane_of(lambda x, y, level=level: 0 * x + level))
        figure.canvas.draw()
        (flat,) = artists(figure, kind)
        low, high = flat.get_clim()
        assert low <= level < high
        assert not artists(figure, PathPatch)
    figure = draw(plane_of(lambda x, y: np.nan * x), way_of(WAY))
    figure.canvas.draw()
    (lost,) = artists(figure, PathPatch)
    assert lost.get_label() == "no finite loss: NaN at 81 of 81 points"
    assert len(artists(figure, Line2D)) == len(WAY)


def test_the_same_picture_is_the_same_bytes(tmp_path):
    caption = style.Caption("A finding.", "What is shown.", "What it rests on.")
    contents = []
    for folder in "ab":
        figure = surface.contours(holed(), way_of(WAY))
        files = style.save_figure(figure, "fig", tmp_path / folder, caption=caption, about={})
        contents.append({ending: file.read_bytes() for ending, file in files.items()})
    assert contents[0] == contents[1]
    curves = json.loads(contents[0]["json"])["plotted"][0]["curves"]
    assert curves[0]["x"] == [1.5, 1, 0]


def test_a_real_trajectory_stands_on_its_plane():
    f = probe(lambda w: 1 + w[0] ** 2 + 5 * w[1] ** 2 + w[2] ** 2, n=3)
    steps = [np.array([3 * 0.6**t, 2 * 0.1**t, 0.1 * (t % 2)]) for t in range(6)]
    way = trajectory_plane(f, {"descent": [[w] for w in steps]})
    plane = evaluate_plane(f, [steps[-1]], way.directions, *way.grids(9), show_progress=False)
    figure = surface.contours(plane, way)
    (dots,) = artists(figure, PathCollection)
    np.testing.assert_allclose(dots.get_array(), [1 + w[0] ** 2 + 5 * w[1] ** 2 + w[2] ** 2 for w in steps])
    low, high = figure.axes[0].viewLim.get_points()
    assert ((low <= way.points) & (way.points <= high)).all()
    other = evaluate_plane(f, [steps[0]], way.directions, [0, 1], [0, 1], show_progress=False)
    with pytest.raises(InvalidInput, match="another weights"):
        surface.contours(other, way)


def plotted(file):
    """Traces, layout and configuration in a file."""
    text = file.read_text(encoding="utf-8")
    start = text.index("Plotly.newPlot(", text.rindex("<script"))
    decoder, rest, parts = json.JSONDecoder(), text[start + len("Plotly.newPlot(") :], []
    for _ in range(4):
        part, end = decoder.raw_decode(rest.lstrip())
        rest = rest.lstrip()[end:].lstrip().removeprefix(",")
        parts.append(part)
    return parts[1:]


def test_the_html_holds_every_number_and_tells_it(tmp_path):
    plane = dataclasses.replace(holed(), marks={"<here>": (0.5, -0.5)}, norms=(2.0, 1.0))
    file = surface_page.surface_html(plane, tmp_path / "plane", way_of(WAY), title="A title")
    assert file == tmp_path / "plane.html"
    traces, layout, _ = plotted(file)
    ground = traces[0]
    finite = np.isfinite(plane.loss)
    z = np.array(ground["z"], float)  # None is NaN.
    np.testing.assert_array_equal(np.isnan(z), ~finite)
    np.testing.assert_allclose(10 ** z[finite], plane.loss[finite])
    np.testing.assert_allclose(ground["x"], plane.a * 2)
    np.testing.assert_allclose(ground["y"], plane.b)
    assert np.shape(ground["text"]) == plane.loss.shape
    assert ground["text"][3][6] == "a = 1 (distance 2)<br>b = -0.5<br>loss 1.85 nats<br>accuracy 50.00%"
    assert layout["title"]["text"] == "A title"
    assert layout["scene"]["aspectratio"]["x"] == 2 * layout["scene"]["aspectratio"]["y"]
    by_name = {trace["name"]: trace for trace in traces[1:]}
    assert list(by_name) == [
        "no finite loss: NaN at 4, ∞ at 9 of 81 points",
        "B = 8, up to 0.2 off the plane",
        "B = 64, up to 0.1 off the plane",
        "&lt;here&gt;",
    ]
    assert len(by_name["no finite loss: NaN at 4, ∞ at 9 of 81 points"]["x"]) == 13
    run = by_name["B = 8, up to 0.2 off the plane"]
    np.testing.assert_allclose(10 ** np.array(run["z"]), WAY["B = 8"][1])  # Their own losses.
    assert "B = 8, checkpoint 3 of 3<br>" in run["text"][2]
    assert "0.2 off the plane" in run["text"][2]
    assert by_name["&lt;here&gt;"]["x"] == [1, 1]


def test_zeros_are_squares_on_the_floor_of_a_logarithmic_surface(tmp_path):
    file = surface_page.surface_html(plane_of(lambda x, y: x**2 + y**2), tmp_path / "zero.html")
    traces, _, _ = plotted(file)
    assert traces[0]["z"][4][4] is None
    assert (traces[1]["name"], traces[1]["x"], traces[1]["y"]) == ("loss 0, below the scale: 1 of 81 points", [0], [0])


def test_the_html_fetches_and_sends_nothing(tmp_path):
    file = surface_page.surface_html(plane_of(), tmp_path / "plane.html")
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"""<script[^>]*\ssrc=|src=["']?(?:https?:)?//|<link|@import|<iframe""", text)
    assert len(text) > 1_000_000  # Plotly itself.
    _, _, config = plotted(file)
    assert config["showSendToCloud"] is False  # The button of Plotly.js 4 that uploads.


def test_the_html_is_the_same_bytes_and_whole_or_not_there(tmp_path, monkeypatch):
    files = [surface_page.surface_html(plane_of(), tmp_path / name) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    before = files[0].read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(surface_page.os, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        surface_page.surface_html(holed(), tmp_path / "a")
    assert files[0].read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
