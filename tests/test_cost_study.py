"""What a batch costs: readings of made-up costs that are known exactly, the study on a small scale, and its figure."""

import functools

import keras
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import batchscape as bs
from batchscape.models import networks
from batchscape.study import gallery, judge, readings
from batchscape.study.cost import captions, run
from batchscape.study.cost import readings as on_costs
from batchscape.study.cost.profile import COST_PROFILES, CostProfile, Net
from batchscape.study.definitions.count import count_updates

SIZES = np.array([1, 4, 16, 64, 256, 1024, 4096])
NETS = {"MLP × 1": (1.0, 0.005, 1), "MLP × 4": (1.5, 0.02, 4), "MLP × 16": (4.0, 0.2, 16), "LeNet": (2.0, 0.1, 1)}
"""a and b of ms = a + b B, and the width."""


def timings(rounds=6, nets=NETS, sizes=SIZES, noise=0.01):
    rng = np.random.default_rng(0)
    rows = []
    for net, (a, b, width) in nets.items():
        for number in range(rounds):
            of_process = np.exp(noise * rng.normal(size=len(sizes)))
            for repeat in range(3):
                disturbed = 11 if repeat == 2 else 1  # Which the median does not see.
                place = {"net": net, "width": width, "round": number, "repeat": repeat, "batch": sizes}
                rows.append(pd.DataFrame({**place, "milliseconds": (a + b * sizes) * of_process * disturbed}))
    frame = pd.concat(rows).assign(dataset="mnist", n_train=50_000)
    frame["model"] = np.where(frame["net"] == "LeNet", "lenet", "mlp")
    return frame.assign(samples_per_second=1e3 * frame["batch"] / frame["milliseconds"])


def peaks(slopes=None, rounds=6, noise=0.0):
    rng = np.random.default_rng(0)
    sizes = np.array([1, 2048, 4096, 8192, 16384])
    frame = pd.concat(
        pd.DataFrame({
            "net": net, "round": number, "batch": sizes, "activation_bytes": 1000,
            "peak_bytes": 8e8 + slope * sizes + noise * rng.normal(size=len(sizes)),
        })
        for net, slope in (slopes or {"MLP × 16": 2000.0}).items() for number in range(rounds)
    )  # fmt: skip
    return frame.assign(dataset="mnist", model="mlp", width=1, n_train=50_000)


def of_net(frame, net="MLP × 1", number=0):
    return frame[(frame["net"] == net) & (frame["round"] == number)]


def test_values_of_times_are_those_of_the_line_they_were_made_of():
    a, b, _ = NETS["MLP × 16"]
    rows = of_net(timings(noise=0), "MLP × 16")
    assert on_costs.line_of_time(rows) == pytest.approx((a, b))
    updates = -(-50_000 // SIZES)
    epoch = updates * (a + b * SIZES)
    assert on_costs.epoch_of_largest(rows) == pytest.approx(epoch[-1] / epoch[0])
    assert on_costs.last_gain(rows) == pytest.approx(4 * (a + b * 1024) / (a + b * 4096))
    assert on_costs.fixed_share_of_smallest(rows) == pytest.approx(a / (a + b))
    assert on_costs.fixed_share_of_largest(rows) == pytest.approx(a / (a + b * 4096))
    assert on_costs.examples_of_an_update(rows) == pytest.approx(a / b)
    assert on_costs.widest_by_narrowest(rows) is None


def test_the_widest_net_is_compared_with_the_narrowest_of_its_kind():
    table = timings(noise=0)
    places = dict(readings._places(table))
    assert list(places) == [*NETS, "mlp, width 1 → 16"]
    pair = places["mlp, width 1 → 16"]
    assert on_costs.widest_by_narrowest(pair[pair["round"] == 0]) == pytest.approx((4.0 / 0.2) / (1.0 / 0.005))
    assert on_costs.epoch_of_largest(pair) is None


def test_lines_are_those_of_least_squares():
    """Against SciPy; errors of times are relative, so that y / y = a / y + b B / y has equal ones."""
    rows = of_net(timings(noise=0.3).assign(milliseconds=lambda t: t["milliseconds"] * (1 + 0.1 * np.sin(t["batch"]))))
    medians = rows.groupby("batch")["milliseconds"].median()
    scaled = np.column_stack([1 / medians, medians.index / medians])
    assert on_costs.line_of_time(rows) == pytest.approx(np.linalg.lstsq(scaled, np.ones(len(medians)))[0])
    held = peaks(noise=1e6, rounds=1)
    found = stats.linregress(held["batch"], held["peak_bytes"])
    assert on_costs.line_of_memory(held) == pytest.approx((found.intercept, found.slope, found.rvalue**2))


def test_memory_that_does_not_rise_is_no_line_that_rises():
    rows = of_net(peaks({"odd": -50.0}), "odd")
    assert on_costs.r_squared_of_memory(rows) == 0
    assert np.isnan(on_costs.slope_by_activations(rows))


def test_an_interval_is_that_of_student_over_rounds():
    table = timings(noise=0.2)
    (found,) = [reading for reading in judge.verdict("C61", table).comparisons if reading.place == "LeNet"]
    logs = np.log([on_costs.epoch_of_largest(of_net(table, "LeNet", number)) for number in range(6)])
    low, high = stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))
    assert (found.value, found.low, found.high) == pytest.approx(np.exp((logs.mean(), low, high)))
    assert found.n == 6


def test_verdicts_on_times_follow_from_the_costs():
    said = {item.claim.id: item for item in judge.verdicts(timings())}
    assert set(said) == {"C61", "C61b", "C61c", "C61d", "C62", "C62b"}
    assert said["C61"].word == "holds"
    assert said["C61d"].word == "holds"
    assert said["C62"].word == "holds"
    slow = judge.verdict("C61b", timings(nets={"slow": (1000.0, 0.001, 1)}))
    assert slow.word == "fails"
    assert judge.verdict("C62b", timings(nets={"slow": (1000.0, 0.001, 1)})).word == "fails"
    assert judge.verdict("C62", timings(nets={"free": (1e-6, 1.0, 1)})).word == "fails"
    assert judge.verdict("C61c", timings(nets={"MLP × 1": (1.0, 0.005, 1)})).word == "not measured"
    published = timings(nets={"LeNet": (118.0, 1.0, 1)}, sizes=np.array([5, 50, 500, 5000]))
    assert judge.verdict("C61c", published).word == "holds"


def test_verdicts_on_memory_follow_from_the_slopes():
    table = peaks({"wide": 2000.0, "lean": 500.0, "flat": 0.0}, noise=1e5)
    assert judge.verdict("C60", table).word == "holds wide, lean; fails flat"
    words = {reading.place: reading.outcome for reading in judge.verdict("C60b", table).comparisons}
    assert (words["wide"], words["lean"]) == ("holds", "fails")


def test_updates_of_an_epoch_are_counted_by_the_optimizer():
    counted = [count_updates(103, batch) for batch in (1, 10, 103)]
    assert counted == [103, 11, 1]
    table = pd.DataFrame({"batch": [1, 10, 103], "counted": counted}).assign(
        dataset="digits",
        model="one weight",
        n_train=103,
        status="COMPLETE",
        last_batch="keep",
        budget="epochs",
        budget_amount=1,
    )
    assert judge.verdict("C22b", table).word == "holds"
    assert judge.verdict("C22b", table.assign(counted=[103, 10, 1])).word == "fails"


def test_activations_are_the_input_and_what_layers_put_out():
    data = bs.load_dataset("digits")
    assert run.activation_bytes(bs.build_model("mlp", data)) == 4 * (64 + 128 + 64 + 10)
    wide = bs.build_model(functools.partial(networks.mlp, width=3), data)
    assert run.activation_bytes(wide) == 4 * (64 + 3 * 128 + 3 * 64 + 10)
    half = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, dtype="float16")])
    assert run.activation_bytes(half) == 6 * 4 + 5 * 2


def test_all_profiles_are_sound():
    for profile in COST_PROFILES.values():
        for net in profile.nets:
            assert list(net.batch_sizes) == sorted(net.batch_sizes)
            assert all(net.peak_sizes[-1] % size == 0 for size in net.peak_sizes)
            assert (profile.timed_on or 1280) >= net.batch_sizes[-1]
            assert net.batch_sizes[-1] >= 2 * net.batch_sizes[-2]


@pytest.fixture(scope="module")
def study():
    tiny = CostProfile(
        name="smoke", dataset="digits", rounds=1, repeats=1, seconds=0.01, counted=(640, 1280),
        nets=(Net(name="MLP × 2", width=2, batch_sizes=(8, 640), peak_sizes=(640, 1280)),),
    )  # fmt: skip
    return bs.study.run_cost_study(tiny, show_progress=False)


@pytest.mark.long
def test_the_study_times_updates_and_measures_memory_in_processes_of_their_own(study):
    assert sorted(study.timings["batch"]) == [8, 640]
    assert (study.timings["milliseconds"] > 0).all()
    assert study.timings["n_parameters"].unique() == [64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10]
    assert (study.peaks["peak_bytes"] > 1e8).all()
    assert study.peaks["activation_bytes"].unique() == [4 * (64 + 256 + 128 + 10)]
    assert study.counts["counted"].tolist() == [2, 1]
    assert {item.claim.subject for item in judge.verdicts_of(study.frames.values())} == {
        "timings",
        "peaks",
        "counts",
    }


def test_the_figure_shows_the_costs_beside_the_published_times(tmp_path):
    table = timings()
    made_up = bs.study.Tables({"timings": table, "peaks": peaks()}, {"profile": "smoke", "description": "made up"})
    made_up.save(tmp_path / "tables")
    files = gallery.draw_all(tmp_path / "tables", tmp_path / "figures")
    assert files["fig15_cost"].stat().st_size > 10_000
    figure, caption = captions.cost_figure(made_up)
    throughput, update, memory, epoch = figure.axes
    drawn = {line.get_label(): line for line in throughput.get_lines()}
    expected = np.exp(np.log(of_median(table, "MLP × 4", "samples_per_second")).groupby("batch").mean())
    np.testing.assert_allclose(drawn["MLP × 4"].get_ydata(), expected)
    published = next(line for line in epoch.get_lines() if line.get_label().startswith("published"))
    assert published.get_ydata().max() == 24.055
    assert "R^2" in " ".join(text.get_text() for text in memory.get_legend().get_texts())
    assert "profile smoke" in str(caption)
    assert update.get_ylabel() == "time of an update [ms]"


def of_median(table, net, quantity):
    """The median over repeats, by round and batch size."""
    return table[table["net"] == net].groupby(["round", "batch"])[quantity].median()
