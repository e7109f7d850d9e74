"""Records are checked when they are read: a damaged one is named and left out, and blocks no other."""

import io
import json
import os
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest

from batchscape.cli import main
from batchscape.config import Cell
from batchscape.errors import BatchscapeError, DamagedRun, OtherVersion
from batchscape.stats.time_to_target import describe_targets
from batchscape.stats.tuning import tune_learning_rate
from batchscape.sweep.frames import load_complete, load_results, summarise, to_frame
from batchscape.sweep.store import Store
from batchscape.train.record import SCHEMA_VERSION, Record, Status

GOOD, BAD = "00000000000000aa", "00000000000000bb"


def make_record(name, seed=0, status=Status.COMPLETE):
    """A record with all that readers use."""
    curve = {
        "epoch": [0.0, 1.0, 2.0],
        "updates": [0, 160, 320],
        "examples": [0, 1280, 2560],
        "seconds": [0.0, 0.1, 0.2],
    }
    losses = {"train_loss": [2.3, 1.0, 0.5], "val_loss": [2.4, 1.1, 0.6], "val_accuracy": [0.1, 0.8, 0.9]}
    final = {"epoch": 2.0, "updates": 320, "seconds": 0.2, "train_loss": 0.5, "val_loss": 0.6, "test_loss": 0.7}
    return Record(
        cell=Cell(batch_size=8, optimizer="sgd", optimizer_options={"momentum": 0.9}, epochs=2, seed=seed),
        hash=name,
        status=status,
        curves={**curve, **losses},
        final={**final, "best_val_loss": 0.6, "best_val_epoch": 2.0, "reached": None},
        facts={
            "batch": 8,
            "n_train": 1280,
            "updates_per_epoch": 160,
            "n_parameters": 9,
            "learning_rate": 0.1,
            "engine": "fused",
            "jit": True,
            "optimizer": "SGD",
            "loss": "mse",
            "data": {"sha256": "d"},
            "compile_seconds": 1.0,
            "seconds_per_update": 1e-4,
        },
        environment={"tensorflow": "2", "cores": 2},
        weights={stage: [np.full((2, 3), 1.5, np.float32), np.zeros(3)] for stage in ("initial", "final")},
    )


@pytest.fixture
def store(tmp_path):
    """A store of a good record and of one to damage."""
    made = Store(tmp_path / "store")
    made.save(make_record(GOOD))
    made.save(make_record(BAD, seed=1))
    return made


def rewrite(store, change):
    """Change the fields of the record to damage, and write them without any check."""
    file = store.path / f"{BAD}.json"
    fields = json.loads(file.read_bytes())
    fields = change(fields) or fields
    file.write_text(json.dumps(fields))


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(fields):
        for step in path:
            fields = fields[step]
        fields[last] = value

    return change


def without(*path):
    *path, last = path

    def change(fields):
        for step in path:
            fields = fields[step]
        del fields[last]

    return change


DAMAGES = {
    "cell of unknown model": (put("cell", "model", "nonsense"), "Unknown model"),
    "cell with a field too many": (put("cell", "colour", "red"), "TypeError"),
    "cell with a field too few": (without("cell", "seed"), "cell is not what a sweep writes"),
    "cell null": (put("cell", None), "cell must be a mapping"),
    "hash of another run": (put("hash", GOOD), "it is the record of another run"),
    "hash with a path": (put("hash", f"../{BAD}"), "it is the record of another run"),
    "unknown status": (put("status", "FINE"), "'FINE' is not a valid Status"),
    "status a list": (put("status", []), "is not a valid Status"),
    "reason null": (put("reason", None), "reason must be text"),
    "traceback a number": (put("traceback", 7), "traceback must be text"),
    "curves null": (put("curves", None), "curves must be a mapping"),
    "curves of unequal lengths": (put("curves", "epoch", [0.0]), "curves differ in length"),
    "curves of texts": (put("curves", "epoch", ["a", "b", "c"]), "curve epoch must be a list of numbers"),
    "curves of bools": (put("curves", "epoch", [True] * 3), "curve epoch must be a list of numbers"),
    "a curve that is a text": (put("curves", "epoch", "abc"), "curve epoch must be a list of numbers"),
    "curves empty": (put("curves", {}), "curves lacks epoch and updates and examples and seconds"),
    "a cost that is null": (put("curves", "seconds", [0.0, None, 0.2]), "curve seconds must be a list of numbers"),
    "metrics that are lists": (put("cell", "metrics", [[]]), "metrics must be names"),
    "loss that is a number": (put("cell", "loss", 7), "loss must be a name"),
    "weights empty": (put("weights", {}), "weights lacks initial and final"),
    "final null": (put("final", None), "final must be a mapping"),
    "final a list": (put("final", []), "final must be a mapping"),
    "final empty": (put("final", {}), "final lacks epoch and updates"),
    "final with a text": (put("final", "train_loss", "low"), "train_loss must be a number or null"),
    "final without updates": (put("final", "updates", None), "updates must be a number"),
    "reached a text": (put("final", "reached", "yes"), "reached must be true, false or null"),
    "facts null": (put("facts", None), "facts must be a mapping"),
    "facts empty": (put("facts", {}), "facts lacks batch and n_train and learning_rate"),
    "batch a text": (put("facts", "batch", "8"), "batch must be a number"),
    "learning rate a list": (put("facts", "learning_rate", [0.1]), "learning_rate must be a number or null"),
    "engine a mapping": (put("facts", "engine", {}), "engine must be text"),
    "data a text": (put("facts", "data", "digits"), "data must be a mapping"),
    "digest a list": (put("facts", "data", {"sha256": []}), "the digest of the data must be text"),
    "environment null": (put("environment", None), "environment must be a mapping"),
    "weights null": (put("weights", None), "weights must be a mapping"),
    "weights counts": (put("weights", {"initial": 2, "final": 2}), "the weights of a stage must be a list"),
    "weights of objects": (put("weights", "final", [["object", [1], 0]]), "weights cannot be of type object"),
    "weights of negative shape": (put("weights", "final", [["float32", [-1], 0]]), "integers ≥ 0"),
    "a field missing": (without("facts"), "facts missing"),
    "no schema": (without("schema_version"), "schema_version missing"),
    "a list": (lambda fields: [fields], "it must be a mapping"),
    "a huge number": (put("final", "updates", 10**400), "is too large a number"),
    "a huge seed": (put("cell", "seed", 10**30), "is too large a number"),
}

CONTENTS = {
    "empty": (b"", "it is no JSON"),
    "cut off": (b'{"schema_version": 1, "cel', "it is no JSON"),
    "not text": (b"\x00\xff\xfe", "codec can't decode"),
    "nested too deep": (b"[" * 100_000, "RecursionError"),
    "a number without end": (b"9" * 10_000, "is too large a number"),
    "infinite": (b'{"schema_version": ' + str(SCHEMA_VERSION).encode() + b', "final": 1e999}', "missing"),
}


def check_left_out(store, caplog, why):
    """The bad record is named once, in one line, and the good one is read."""
    caplog.clear()
    frame = load_results(store)
    assert frame["hash"].tolist() == [GOOD]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{store.path / BAD}.json is left out: ")
    assert why in message
    assert "\n" not in message
    assert "delete" not in message
    assert store.status(BAD) is None, "a sweep trains it anew"
    assert why in store.damage(BAD)
    with pytest.raises(DamagedRun, match=re.escape(why)):
        store.load(BAD)
    assert len(load_results(store, curves=True)) == 3


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_with_a_damaged_field_is_named_and_left_out(store, caplog, damage):
    change, why = DAMAGES[damage]
    rewrite(store, change)
    check_left_out(store, caplog, why)


@pytest.mark.parametrize("damage", CONTENTS)
def test_a_file_that_is_no_record_is_named_and_left_out(store, caplog, damage):
    content, why = CONTENTS[damage]
    (store.path / f"{BAD}.json").write_bytes(content)
    check_left_out(store, caplog, why)


def leaves(fields, path=()):
    """Paths of all values in nested mappings, and of the last ones in lists."""
    yield path
    if isinstance(fields, dict):
        for step, value in fields.items():
            yield from leaves(value, (*path, step))
    elif isinstance(fields, list) and fields:
        yield from leaves(fields[-1], (*path, len(fields) - 1))


READERS = (
    lambda sound, record: record.weights["final"] and repr(record) + record._repr_html_(),
    lambda sound, record: summarise(to_frame([sound, record])).to_string(),
    lambda sound, record: tune_learning_rate(to_frame([sound, record]), choose="best_val_loss"),
    lambda sound, record: describe_targets(to_frame([sound, record], curves=True)),
)
ODD = [None, True, -1, 2**62, "text", [[]], {"a": [None]}]


def test_whatever_stands_in_a_field_readers_end_in_one_line_or_go_on(store):
    """Every value of a record by every odd value: what the checks let pass, tables, summaries and targets must bear."""
    file = store.path / f"{BAD}.json"
    text, sound = file.read_text(), store.load(GOOD)
    for path in list(leaves(json.loads(text)))[1:]:
        for odd in ODD[:3] if path[0] == "cell" else ODD:
            fields = json.loads(text)
            put(*path, odd)(fields)
            file.write_text(json.dumps(fields))
            try:
                record = store.load(BAD, weights=True)
            except (DamagedRun, OtherVersion):
                continue
            for read in READERS:
                try:
                    read(sound, record)
                except BatchscapeError:
                    pass
                except Exception as error:
                    raise AssertionError(f"{path} = {odd!r}") from error


def test_nan_in_json_is_null(store):
    file = store.path / f"{BAD}.json"
    file.write_text(file.read_text().replace("2.3", "NaN"))
    assert store.load(BAD).curves["train_loss"] == [None, 1.0, 0.5]


def test_a_store_of_another_version_is_refused_in_one_line_and_stays_as_it_is(store, capsys, monkeypatch):
    for name in (GOOD, BAD):
        file = store.path / f"{name}.json"
        file.write_text(file.read_text().replace(f'"schema_version":{SCHEMA_VERSION}', '"schema_version":99'))
    before = {file.name: file.read_bytes() for file in store.path.iterdir()}
    said = (
        rf"written by another version of batchscape \(schema 99; this one reads {SCHEMA_VERSION}\): update batchscape or "
        "choose another store$"
    )
    for refused in (store.require_version, lambda: load_results(store), lambda: store.load(BAD)):
        with pytest.raises(OtherVersion, match=said):
            refused()
    code, printed = run(monkeypatch, capsys, "results", store.path)
    assert code == 2
    assert "delete" not in printed.err
    assert {file.name: file.read_bytes() for file in store.path.iterdir()} == before


def test_one_record_of_another_version_is_left_out(store, caplog):
    rewrite(store, put("schema_version", 99))
    assert load_results(store)["hash"].tolist() == [GOOD]
    assert re.search(r"Left out: .*bb\.json was written by another version", caplog.text)
    store.require_version()


def spoil_npz(store, change):
    file = store.path / f"{BAD}.npz"
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    np.savez(file, **arrays)


def bomb(store):
    """An array of 10⁶ × 10⁶ numbers by its header, of the size of the true one by the directory."""
    file = store.path / f"{BAD}.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            if name == "final/000":
                archive.writestr(f"{name}.npy", header.getvalue() + array.tobytes())
            else:
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array)
    with zipfile.ZipFile(file) as archive:  # The record agrees with the directory.
        crc = archive.getinfo("final/000.npy").CRC
    rewrite(store, lambda fields: fields["weights"]["final"][0].__setitem__(2, crc))


def flip(store):
    """A byte in the middle of the file is another."""
    file = store.path / f"{BAD}.npz"
    content = bytearray(file.read_bytes())
    place = content.index(np.full((2, 3), 1.5, np.float32).tobytes(), len(content) // 3)
    content[place + 1] ^= 1
    file.write_bytes(content)


def nan(store):
    record = make_record(BAD, seed=1)
    record.weights["final"][1][0] = np.nan
    store.save(record)


SEEN_AT_ONCE = {
    "missing": (lambda store: (store.path / f"{BAD}.npz").unlink(), "it is missing"),
    "cut off": (lambda store: os.truncate(store.path / f"{BAD}.npz", 700), "not a zip file"),
    "empty": (lambda store: os.truncate(store.path / f"{BAD}.npz", 0), "not a zip file"),
    "array missing": (lambda store: spoil_npz(store, lambda a: a.pop("final/001")), "does not hold the arrays"),
    "array too many": (lambda store: spoil_npz(store, lambda a: a.update(more=np.ones(2))), "does not hold the arrays"),
    "other shape": (
        lambda store: spoil_npz(store, lambda a: a.update({"final/000": np.ones((2, 600))})),
        "not of the size",
    ),
    "other values": (
        lambda store: spoil_npz(store, lambda a: a.update({"final/001": np.ones(3)})),
        "does not have the checksum",
    ),
    "objects": (
        lambda store: spoil_npz(store, lambda a: a.update({"final/000": np.array([print], object)})),
        "final/000.npy",
    ),
    "weights of another run": (
        lambda store: (store.path / f"{BAD}.npz").write_bytes(other_weights()),
        "does not have the checksum",
    ),
    "an absurd record": (
        lambda store: rewrite(store, put("weights", "final", 0, ["float32", [10**6, 10**6], 0])),
        "not of the size",
    ),
}
SEEN_WHEN_READ = {
    "header of absurd size": (bomb, "not of the shape"),
    "a byte flipped": (flip, "Bad CRC-32"),
    "NaN": (nan, "holds NaN or infinity"),
}


def other_weights():
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{stage}/{i:03d}": a for stage in ("initial", "final") for i, a in enumerate(OTHER)})
    return buffer.getvalue()


OTHER = [np.full((2, 3), 2.5, np.float32), np.zeros(3)]


@pytest.mark.parametrize("damage", SEEN_AT_ONCE)
def test_damaged_weights_are_seen_without_reading_them(store, caplog, damage):
    spoil, why = SEEN_AT_ONCE[damage]
    spoil(store)
    assert load_complete(store)["hash"].tolist() == [GOOD]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{store.path / BAD}.npz is left out: ")
    assert why in message
    assert store.status(BAD) is None, "a sweep trains it anew"
    with pytest.raises(DamagedRun, match=re.escape(why)):
        store.load(BAD).weights["final"]
    assert len(load_results(store)) == 2, "its numbers are whole"


@pytest.mark.parametrize("damage", SEEN_WHEN_READ)
def test_damaged_weights_are_seen_when_they_are_read(store, damage):
    spoil, why = SEEN_WHEN_READ[damage]
    spoil(store)
    with pytest.raises(DamagedRun, match=re.escape(why)) as caught:
        store.load(BAD).weights["final"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "workers send it home"
    with pytest.raises(KeyError):
        store.load(BAD).weights["middle"]


def test_diverged_runs_keep_weights_that_are_not_finite(store):
    record = make_record(BAD, seed=1, status=Status.DIVERGED)
    record.weights["final"][1][0] = np.nan
    store.save(record)
    assert np.isnan(store.load(BAD).weights["final"][1][0])


def test_a_record_replaced_half_way_is_damaged(store, monkeypatch):
    """Killed between the two files, the old record stands beside the new weights (F30)."""
    record = make_record(BAD, seed=1)
    record.weights["final"][0] += 1
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: real(a, b) if str(b).endswith(".npz") else interrupt())
    with pytest.raises(KeyboardInterrupt):
        store.save(record)
    monkeypatch.undo()
    assert store.status(BAD) is None
    assert "does not have the checksum" in store.damage(BAD)


def interrupt():
    raise KeyboardInterrupt


def test_bfloat16_weights_come_back_as_the_same_numbers(store):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    record = make_record(BAD, seed=1)
    record.weights["final"][0] = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    store.save(record)
    np.testing.assert_array_equal(store.load(BAD).weights["final"][0], np.arange(6.0).reshape(2, 3))


def test_a_damaged_measurement_is_measured_anew(store, caplog):
    for content in (b"{", b"[" * 100_000, b"null", json.dumps({"schema_version": SCHEMA_VERSION}).encode()):
        store.save_measurement(GOOD, "noise", {}, {"simple": 1.0})
        (file,) = (store.path / "measurements").iterdir()
        file.write_bytes(content)
        assert store.load_measurement(GOOD, "noise", {}) is None
        assert "it is measured anew" in caplog.text


def run(monkeypatch, capsys, *arguments):
    """Exit status and lines on standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["batchscape", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, capsys.readouterr()


@pytest.mark.parametrize("command", ["results", "rates", "target", "sharpness", "noise"])
@pytest.mark.parametrize("runs", ["none", "damaged", "failed"])
def test_a_store_without_runs_to_use_is_one_line(store, monkeypatch, capsys, command, runs, caplog):
    for file in store.path.iterdir():
        if runs == "none":
            file.unlink()
        elif runs == "damaged" and file.suffix == ".json":
            file.write_text("{")
    if runs == "failed" and command not in ("sharpness", "noise"):
        return  # Failed runs are rows.
    if runs == "failed":
        for name in (GOOD, BAD):
            store.save(Record(Cell(), name, Status.FAILED, "it broke"))
    code, printed = run(
        monkeypatch, capsys, command, store.path, *(["-q"] if command in ("sharpness", "noise") else [])
    )
    assert code == 2
    lines = [line for line in printed.err.splitlines() if line.startswith("batchscape: ")]
    assert len(lines) == 1
    assert "Traceback" not in printed.err
    assert not re.search(r"(with|and|:)$", lines[0]), "a whole sentence"


def test_commands_go_on_beside_a_damaged_record(store, monkeypatch, capsys, caplog):
    (store.path / f"{BAD}.json").write_text("{")
    for command in (["results"], ["results", "--csv"], ["target"], ["rates"]):
        code, printed = run(monkeypatch, capsys, command[0], store.path, *command[1:])
        assert code == 0
        assert "8" in printed.out
    assert caplog.text.count("is left out: it is no JSON") == 4
