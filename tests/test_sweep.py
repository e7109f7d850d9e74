"""Sweeps: only what is missing is computed, whatever happened before, in this process and in others."""

import contextlib
import dataclasses
import functools
import os
import re
import signal
import time

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput, StoreError, UserCodeError
from batchscape.landscape.of_runs import pair_runs
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.measure import code_of, measure_runs
from batchscape.sweep.store import Store
from batchscape.workers import executors, processes
from tests.toys import OneDense, tf

SERIAL = {"executor": "serial", "show_progress": False}


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def grid(**changes):
    """Runs under the engine that compiles quickest."""
    given = {"batch_size": [10, "full"], "epochs": 1, "learning_rate": 0.1, "seed": range(2), "engine": "stock"}
    return bs.Grid(**{**given, **changes})


def append(file, text):
    with file.open("a") as stream:
        return stream.write(text)


def files(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.is_file()}


def test_a_second_call_reads_the_store_and_added_seeds_cost_only_themselves(tmp_path, blobs):
    first = bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    before = files(tmp_path)
    assert len(first) == 4
    again = bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    assert files(tmp_path) == before
    assert again.equals(first)
    more = bs.run_sweep(
        grid(seed=range(3), batch_size=[10, 20, "full"]), store=tmp_path, build=net, data=blobs, **SERIAL
    )
    assert len(more) == 9
    assert before.items() <= files(tmp_path).items()


def test_the_frame_follows_the_order_of_the_grid(tmp_path, blobs):
    frame = bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    assert frame[["batch", "seed"]].to_numpy().tolist() == [[10, 0], [10, 1], [81, 0], [81, 1]]
    assert frame["model"].unique().tolist() == ["tests.test_sweep:net"]
    assert frame["dataset"].unique().tolist() == ["arrays"]


def test_a_run_of_a_sweep_equals_the_run_by_itself(tmp_path, blobs):
    bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    for record in Store(tmp_path).records():
        alone = bs.fit_one(record.cell, build=net, data=blobs)
        assert alone.hash == record.hash
        for a, b in zip(alone.weights["final"], record.weights["final"], strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_edited_model_or_other_data_are_other_runs(tmp_path, blobs):
    def wider():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3)])

    x, y = blobs
    names = set()
    for build, data in ((net, (x, y)), (wider, (x, y)), (net, (x + 1, y))):
        frame = bs.run_sweep(grid(seed=[0], batch_size=[10]), store=tmp_path, build=build, data=data, **SERIAL)
        names |= set(frame["hash"])
    assert len(names) == 3


def test_a_failed_cell_is_recorded_and_done_anew_and_a_diverged_one_is_a_result(tmp_path, blobs, caplog):
    class Fragile(OneDense):
        broken = True

        def train_step(self, data):
            if Fragile.broken:
                raise RuntimeError("out of luck")
            return super().train_step(data)

    cells = grid(batch_size=[10], learning_rate=[0.1, 1e38])
    frame = bs.run_sweep(cells, store=tmp_path, build=Fragile, data=blobs, **SERIAL)
    assert set(frame["status"]) == {"FAILED"}
    assert set(frame["reason"]) == {"RuntimeError: out of luck"}
    for record in Store(tmp_path).records():
        assert record.traceback.splitlines()[-3].endswith("in train_step")
        assert record.traceback.endswith("RuntimeError: out of luck")
    assert "4 of 4 runs failed" in caplog.text
    Fragile.broken = False
    frame = bs.run_sweep(cells, store=tmp_path, build=Fragile, data=blobs, **SERIAL)
    assert frame["status"].tolist() == ["COMPLETE", "COMPLETE", "DIVERGED", "DIVERGED"]
    before = files(tmp_path)
    bs.run_sweep(cells, store=tmp_path, build=Fragile, data=blobs, **SERIAL)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": [500]}, InvalidInput, "at most the number of training examples, 81"),
        ({"loss": "nonsense"}, InvalidInput, "Unknown loss"),
        ({"metrics": [("nonsense",)]}, InvalidInput, "Unknown metric"),
        (
            {"optimizer": "adam", "optimizer_options": {"momentum": 0.9}},
            InvalidInput,
            "optimizer_options do not fit adam",
        ),
        ({"initial_weights": "abcd"}, InvalidInput, "initial_weights must name a complete run"),
        ({"initial_weights": "../secret"}, InvalidInput, "initial_weights must name a complete run"),
        ({"train_size": 500}, InvalidInput, r"train_size must be in 1\.\.81"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(tmp_path, blobs, changes, error, message):
    cells = bs.Grid(batch_size=[10], epochs=1) + grid(**changes)
    with pytest.raises(error, match=message):
        bs.run_sweep(cells, store=tmp_path / "store", build=net, data=blobs, **SERIAL)
    assert not (tmp_path / "store").exists()


def test_a_build_that_raises_is_named_before_anything_runs(tmp_path, blobs):
    with pytest.raises(UserCodeError, match="raised ZeroDivisionError"):
        bs.run_sweep(grid(), store=tmp_path / "store", build=lambda: 1 / 0, data=blobs, **SERIAL)
    assert not (tmp_path / "store").exists()


def test_a_damaged_record_is_trained_anew_and_no_other_file_is_touched(tmp_path, blobs, caplog):
    frame = bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    file = tmp_path / f"{frame['hash'].iloc[0]}.json"
    file.write_text("half a rec")
    os.truncate(tmp_path / f"{frame['hash'].iloc[1]}.npz", 100)
    before = files(tmp_path)
    again = bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    timed = ["seconds", "compile_seconds", "seconds_per_update"]
    assert again.drop(columns=timed).equals(frame.drop(columns=timed))
    for name in frame["hash"][:2]:
        assert caplog.text.count(f"{name}.") == 1
    changed = {name for name, time in files(tmp_path).items() if before.get(name) != time}
    assert changed == {f"{name}{ending}" for name in frame["hash"][:2] for ending in (".json", ".npz")}


def test_a_sweep_refuses_a_store_of_another_version_and_leaves_it_as_it_is(tmp_path, blobs):
    frame = bs.run_sweep(grid(seed=[0]), store=tmp_path, build=net, data=blobs, **SERIAL)
    for run in frame["hash"]:
        file = tmp_path / f"{run}.json"
        file.write_text(file.read_text().replace('"schema_version":', '"schema_version":9'))
    before = files(tmp_path)
    with pytest.raises(StoreError, match="update batchscape or choose another store"):
        bs.run_sweep(grid(seed=[1]), store=tmp_path, build=net, data=blobs, **SERIAL)
    assert files(tmp_path) == before


def test_a_run_can_start_where_another_ended(tmp_path, blobs):
    first = bs.run_sweep(grid(seed=[0], batch_size=["full"]), store=tmp_path, build=net, data=blobs, **SERIAL)[
        "hash"
    ].iloc[0]
    second = bs.run_sweep(
        grid(seed=[1], batch_size=[10], initial_weights=first), store=tmp_path, build=net, data=blobs, **SERIAL
    )
    store = Store(tmp_path)
    for a, b in zip(
        store.load(first).weights["final"], store.load(second["hash"].iloc[0]).weights["initial"], strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_executor_and_no_workers_are_refused():
    with pytest.raises(InvalidInput, match="executor"):
        list(executors.run(abs, [1], executor="threads"))
    with pytest.raises(InvalidInput, match="workers=0"):
        list(executors.run(abs, [1], workers=0))


def test_measurements_are_made_once_and_only_on_complete_runs(tmp_path, blobs):
    cells = grid(batch_size=[10], learning_rate=[0.1, 1e38])
    runs = bs.run_sweep(cells, store=tmp_path, build=net, data=blobs, **SERIAL)
    calls = tmp_path / "calls"  # A list would be a value that the function closes over.

    def prepare(model, data, loss, *, power):
        append(calls, "prepare ")
        return lambda record: {"norm": float(np.linalg.norm(record.weights["final"][0]) ** power), "many": [1, 2]}

    for _ in range(2):
        frame = measure_runs(Store(tmp_path), runs["hash"], "norm", prepare, build=net, data=blobs, power=2, **SERIAL)
        assert calls.read_text().split() == ["prepare"]
        assert list(frame) == ["hash", "norm"]
        assert len(frame) == 2
    measure_runs(Store(tmp_path), runs["hash"], "norm", prepare, build=net, data=blobs, power=1, **SERIAL)
    assert calls.read_text().split() == ["prepare", "prepare"]


def same_results(one, other):
    """Whether two stores hold the same runs, but for times and where they were made."""
    names = one.hashes()
    assert names == other.hashes()
    for name in names:
        a, b = one.load(name), other.load(name)
        untimed = [{key: value for key, value in record.curves.items() if key != "seconds"} for record in (a, b)]
        assert untimed[0] == untimed[1]
        for stage in a.weights:
            for u, v in zip(a.weights[stage], b.weights[stage], strict=True):
                np.testing.assert_array_equal(u, v)
    return True


@pytest.mark.long
def test_worker_processes_give_what_this_process_gives_even_after_one_was_killed(tmp_path, blobs):
    """A worker dies by kill −9 in the middle of a cell: that cell is FAILED by name, the sweep goes on, and the next
    call completes it; the result equals an undisturbed one.
    """
    marker = tmp_path / "marker"
    parent = os.getpid()

    def build():
        if os.getpid() != parent:
            with contextlib.suppress(FileExistsError):  # Of two workers that come at once, one dies.
                marker.open("x").close()
                os.kill(os.getpid(), signal.SIGKILL)
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

    cells = grid(seed=range(3))
    undisturbed, disturbed = Store(tmp_path / "a"), Store(tmp_path / "b")
    marker.write_text("")
    bs.run_sweep(cells, store=undisturbed, build=build, data=blobs, **SERIAL)
    marker.unlink()
    frame = bs.run_sweep(
        cells, store=disturbed, build=build, data=blobs, executor="processes", workers=2, show_progress=False
    )
    assert sorted(frame["status"]) == ["COMPLETE"] * 5 + ["FAILED"]
    reason = frame.loc[frame["status"] == "FAILED", "reason"].iloc[0]
    assert reason.startswith("the worker process was ended by SIGKILL (by the system, out of memory? or by somebody)")
    assert re.search(r"when it held [\d.]+ GB: batch \d+, seed \d$", reason)
    frame = bs.run_sweep(
        cells, store=disturbed, build=build, data=blobs, executor="processes", workers=2, show_progress=False
    )
    assert set(frame["status"]) == {"COMPLETE"}
    assert same_results(undisturbed, disturbed)


def test_a_cell_that_takes_longer_than_the_time_limit_is_failed(tmp_path, blobs):
    parent = os.getpid()

    def build():
        if os.getpid() != parent:
            time.sleep(600)
        return net()

    frame = bs.run_sweep(
        grid(seed=[0], batch_size=[10]), store=tmp_path, build=build, data=blobs, time_limit=0.5, show_progress=False
    )
    assert frame["reason"].tolist() == ["took longer than the time limit of 0.5 s: batch 10, seed 0"]
    assert frame["status"].tolist() == ["FAILED"]


def test_a_time_limit_needs_processes_and_is_a_number_of_seconds(tmp_path, blobs):
    with pytest.raises(InvalidInput, match='time_limit needs executor="processes"'):
        bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, time_limit=5, **SERIAL)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="time_limit must be a number of seconds > 0"):
            bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, time_limit=wrong)
    assert executors.choose("auto", None, 1, 5.0)[0] == "processes"


def test_a_worker_that_ends_says_how_and_at_which_task(monkeypatch):
    monkeypatch.setattr(processes, "_start", lambda *arguments: None)

    def end(task):
        if task == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGABRT)

    ended = {task: died for task, _, died in executors.run(end, ["exit", "abort"], executor="processes", workers=1)}
    assert ended["exit"].startswith("the worker process exited with status 3")
    assert ended["abort"].startswith("the worker process was ended by SIGABRT (Aborted)")


def test_the_time_limit_of_a_task_is_that_of_its_cells_and_the_next_task_goes_on(monkeypatch):
    monkeypatch.setattr(processes, "_start", lambda *arguments: None)
    outcomes = executors.run(
        lambda task: time.sleep(600) if task else "done",
        [3, 0],
        executor="processes",
        workers=1,
        time_limit=0.1,
        size_of=lambda task: task or 100,
    )
    assert [(died, value) for _, value, died in outcomes] == [
        ("took longer than the time limit of 3 × 0.1 s", None),
        ("", "done"),
    ]


def test_a_workers_model_from_a_pipeline_function_is_fed_in_the_worker(tmp_path):
    def load():
        import tensorflow as tf

        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
        return tf.data.Dataset.from_tensor_slices((x, y))

    frame = bs.run_sweep(
        grid(seed=[0], batch_size=[8], engine="auto"),
        store=tmp_path,
        build=net,
        data=load,
        executor="processes",
        workers=1,
        show_progress=False,
    )
    assert frame[["status", "engine"]].iloc[0].tolist() == ["COMPLETE", "dataset"]
    with pytest.raises(InvalidInput, match="cannot be sent to worker processes"):
        bs.run_sweep(
            grid(engine="auto"), store=tmp_path, build=net, data=load(), executor="processes", show_progress=False
        )


def test_a_worker_is_replaced_after_its_share_of_tasks(monkeypatch):
    monkeypatch.setattr(executors, "TASKS_PER_WORKER", 2)
    monkeypatch.setattr(processes, "_start", lambda *arguments: None)
    found = [
        outcome.value for outcome in executors.run(lambda task: os.getpid(), range(5), executor="processes", workers=1)
    ]
    assert len(found) == 5
    assert len(set(found)) == 3


def test_cells_are_labelled_with_what_took_the_place_of_their_names(blobs):
    from batchscape.sweep.inputs import SweepInputs

    cell = SweepInputs(net, "digits").label(bs.Cell(seed=3))
    assert dataclasses.asdict(cell) | {"model": "", "dataset": ""} == dataclasses.asdict(bs.Cell(seed=3)) | {
        "model": "",
        "dataset": "",
    }
    assert (cell.model, cell.dataset) == ("tests.test_sweep:net", "digits")


def test_runs_are_only_measured_and_drawn_with_the_model_and_the_data_they_were_made_with(blobs, tmp_path):
    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

    def other():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])

    grid = bs.Grid(batch_size=[5, "full"], epochs=1, seed=0)
    runs = bs.run_sweep(grid, store=tmp_path, build=build, data=blobs, executor="serial", show_progress=False)
    lines = bs.lines_between(tmp_path, 5, "full", build=build, data=blobs, points=3, show_progress=False)
    assert lines["loss"].notna().all()
    for wrong in ({"build": other, "data": blobs}, {"build": build, "data": (blobs[0] + 1, blobs[1])}):
        with pytest.raises(InvalidInput, match="not those of run"):
            bs.lines_between(tmp_path, 5, "full", **wrong, show_progress=False)
        with pytest.raises(InvalidInput, match="not those of run"):
            bs.measure_runs(tmp_path, runs["hash"], "curvature", bs.measure_curvature, **wrong, show_progress=False)


def scaled(rate):
    def build():
        model = net()
        model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    return build


def residual():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs + keras.layers.Dense(4)(inputs)))


def test_names_tell_apart_what_is_different_and_nothing_else(tmp_path, blobs):
    """Closures, compiled rates and given data count; how many operations the process has made does not."""
    cells = grid(batch_size=10, seed=0, learning_rate=None)

    def name(build, data=blobs):
        return bs.run_sweep(cells, store=tmp_path, build=build, data=data, **SERIAL)["hash"].item()

    assert name(scaled(0.1)) != name(scaled(0.001))
    assert name(scaled(0.1)) == name(scaled(0.1))
    assert name(functools.partial(net)) == name(functools.partial(net))
    assert name(residual) == name(residual)
    data = bs.load_dataset(blobs)
    changed = dataclasses.replace(data, y_train=data.y_train[::-1].copy())
    assert name(net, data) == name(net, blobs) != name(net, changed)


def test_the_inputs_of_a_pipeline_count_unless_they_change_by_themselves(blobs):
    x, y = blobs
    pipeline = tf.data.Dataset.from_tensor_slices((x, y))

    def digest(given):
        return bs.load_dataset((given, pipeline)).meta["sha256"]

    assert digest(pipeline) == digest(pipeline.shuffle(100)) != digest(pipeline.map(lambda x, y: (0 * x, y)))
    augmented = pipeline.map(lambda x, y: (x + tf.random.normal((4,)), y))
    assert digest(augmented) == digest(augmented)


def test_an_interrupted_sweep_leaves_nothing_of_its_model_to_the_next(tmp_path, blobs, monkeypatch):
    def other():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)])

    monkeypatch.setattr(Store, "save", lambda self, record: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    monkeypatch.undo()
    other.__qualname__, other.__module__ = net.__qualname__, net.__module__
    runs = bs.run_sweep(grid(), store=tmp_path, build=other, data=blobs, **SERIAL)
    assert set(runs["n_parameters"]) == {4 * 6 + 6 + 6 * 3 + 3}


def test_an_edited_module_is_read_anew_by_a_live_process(tmp_path, blobs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stack = "[keras.Input((4,)), keras.layers.Dense(%d), keras.layers.Dense(3)]"
    text = f"import keras\ndef build():\n    return keras.Sequential({stack})\n"
    counts = []
    for width in (5, 16):
        (tmp_path / "edited_net.py").write_text(text % width)
        cell = bs.Cell(model="edited_net:build", batch_size=10, epochs=1)
        counts.append(bs.run_sweep(cell, store=tmp_path / "store", data=blobs, **SERIAL)["n_parameters"].item())
    assert counts == [4 * width + width + 3 * width + 3 for width in (5, 16)]


def test_a_run_whose_weights_are_gone_is_done_anew(tmp_path, blobs):
    runs = bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    (tmp_path / f"{runs['hash'][0]}.npz").unlink()
    bs.run_sweep(grid(), store=tmp_path, build=net, data=blobs, **SERIAL)
    assert (tmp_path / f"{runs['hash'][0]}.npz").exists()


def test_lines_keep_to_one_version_of_the_data(tmp_path, blobs):
    x, y = blobs
    for data in ((x, y), (3 * x, y)):
        bs.run_sweep(grid(), store=tmp_path, build=net, data=data, **SERIAL)
    for data in ((x, y), (3 * x, y)):
        pairs = pair_runs(Store(tmp_path), 10, "full", sources=SweepInputs(net, data))
        assert len(pairs) == 2
        digest = bs.load_dataset(data).meta["sha256"]
        assert all(record.facts["data"]["sha256"] == digest for pair in pairs for record in pair)


def test_every_cell_of_a_group_is_checked_for_a_rate_beside_a_schedule(tmp_path, blobs):
    def scheduled():
        model = net()
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 100, 0.9)
        model.compile(keras.optimizers.SGD(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    cells = [bs.Cell(batch_size=10, epochs=1, learning_rate=rate) for rate in (None, 0.1)]
    with pytest.raises(InvalidInput, match="learning-rate schedule"):
        bs.run_sweep(cells, store=tmp_path, build=scheduled, data=blobs, **SERIAL)
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_nothing_is_refused_and_one_of_a_cell_is_not(tmp_path, blobs):
    with pytest.raises(InvalidInput, match="at least one cell"):
        bs.run_sweep([], store=tmp_path)


def test_another_measuring_function_another_revision_and_other_options_are_other_measurements(tmp_path, blobs):
    runs = bs.run_sweep(grid(batch_size=[10], seed=[0]), store=tmp_path, build=net, data=blobs, **SERIAL)
    store, measured = Store(tmp_path), tmp_path / "measured"

    def norm(model, data, loss, *, power=1):
        return lambda record: append(measured, f"{power} ") and {"norm": float(power)}

    def other(model, data, loss, *, power=1):
        return lambda record: append(measured, f"{-power} ") and {"norm": -float(power)}

    def value(prepare, **options):
        how = {"build": net, "data": blobs, **SERIAL}
        return measure_runs(store, runs["hash"], "norm", prepare, **how, **options)["norm"].item()

    calls = [(norm, {"power": 1}), (norm, {"power": 2}), (other, {"power": 1}), (norm, {"power": 1, "revision": 2})]
    for _ in range(2):
        assert [value(prepare, **options) for prepare, options in calls] == [1, 2, -1, 1]
    assert measured.read_text().split() == ["1", "2", "-1", "1"]
    assert len(list((tmp_path / "measurements").iterdir())) == 4
    with pytest.raises(InvalidInput, match="what JSON knows"):
        value(norm, power=print)
    for mistyped, meant in (("pover", "power"), ("show_progres", "show_progress")):
        with pytest.raises(InvalidInput, match=f"did you mean {meant}"):
            value(norm, **{mistyped: 2})
    with pytest.raises(InvalidInput, match="it names a file"):
        measure_runs(store, runs["hash"], "../norm", norm, build=net, data=blobs, **SERIAL)


def test_a_measuring_function_of_batchscape_counts_by_its_revision_alone(monkeypatch):
    before = code_of(bs.measure_curvature)
    monkeypatch.setattr(bs.measure_curvature, "__module__", "batchscape.elsewhere")
    assert code_of(bs.measure_curvature) == before
    monkeypatch.setattr(bs.measure_curvature, "revision", 2)
    assert code_of(bs.measure_curvature) != before
