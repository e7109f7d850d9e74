"""Figures: what is drawn is what the table says, and the same table gives the same bytes."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from batchscape.plot import lines, style
from batchscape.study.main import figures
from tests.test_claims import runs_of


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


CAPTION = style.Caption("A finding.", "What is shown.", "What it rests on.")


def test_a_curve_is_the_geometric_mean_over_seeds_with_its_interval():
    runs = runs_of(0.5, 0.0, noise=0.3)
    with style.paper():
        _, ax = plt.subplots()
        figures.against_batch_size(ax, runs, "lambda_max", label="λ", log=True)
    curve = ax.get_lines()[0]
    assert curve.get_label() == "fixed η = 0.1"
    at_8 = runs.loc[(runs["batch"] == 8) & (runs["learning_rate"] == 0.1), "lambda_max"]
    assert curve.get_xdata().tolist() == [8, 32, 128]
    assert curve.get_ydata()[0] == pytest.approx(np.exp(np.log(at_8).mean()))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["8", "32", "128"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert len(ax.collections) == 2  # One band a family.


def test_labels_name_quantity_and_unit_and_panels_have_letters():
    runs = runs_of(0.5, 0.0).assign(**dict.fromkeys([*figures.TRAINING_PANELS, "seconds_per_update"], 1.0))
    with style.paper():
        figure = figures.training(runs)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list("abcdef")
    assert [ax.get_ylabel() for ax in figure.axes] == list(figures.TRAINING_PANELS.values())
    assert figure.get_size_inches()[0] == style.PAGE


def points():
    alphas = np.linspace(-1, 2, 13)
    return pd.concat(
        pd.DataFrame({"seed": seed, "split": split, "alpha": alphas, "loss": 1 + seed + alphas**2, "accuracy": 0.5})
        for seed in range(3)
        for split in ("train", "test")
    )


def test_a_line_shows_every_seed_and_their_median_and_keeps_nan():
    table = points()
    table.loc[(table["seed"] == 2) & (table["alpha"] > 1.5), "loss"] = np.inf
    with style.paper():
        _, ax = plt.subplots()
        lines.along_line(ax, table, "loss", label="loss", log=True)
    labelled = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in labelled] == ["train", "test"]
    assert labelled[0].get_ydata()[4] == 2  # α = 0: losses 1, 2, 3.
    faint = [line for line in ax.get_lines() if line.get_alpha() == 0.2]
    assert len(faint) == 6
    assert np.isnan(faint[2].get_ydata()[-1])


def test_the_same_figure_is_the_same_bytes_and_its_json_holds_the_numbers(tmp_path):
    contents = []
    for folder in ("a", "b"):
        with style.paper():
            figure = lines.interpolation(points(), start="B = 8", end="B = 1280")
            files = style.save_figure(
                figure, "fig", tmp_path / folder, caption=CAPTION, about={"profile": "smoke", "n": 3}
            )
        contents.append({ending: file.read_bytes() for ending, file in files.items()})
    assert contents[0] == contents[1]
    described = json.loads(contents[0]["json"])
    assert described["caption"]["finding"] == "A finding."
    assert (described["profile"], described["n"]) == ("smoke", 3)
    train = described["plotted"][0]["curves"][0]
    assert (train["label"], len(train["x"]), train["y"][4]) == ("train", 13, 2)


def test_the_style_stays_inside_its_context():
    before = mpl.rcParams["font.size"]
    with style.paper():
        assert mpl.rcParams["font.size"] == 8
    assert mpl.rcParams["font.size"] == before


def test_few_decades_get_more_ticks():
    with style.paper():
        _, ax = plt.subplots()
        ax.plot([1, 2], [2, 30])
        style.log_axis(ax.yaxis)
        ax.figure.canvas.draw()
    assert {2, 5, 10, 20} <= set(ax.get_yticks())
