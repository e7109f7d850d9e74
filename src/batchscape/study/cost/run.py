"""The study of what a batch costs: time of an update and memory against batch size, for nets of several widths."""

import concurrent.futures
import functools
import math
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd

from batchscape.cost.probe import STEPS
from batchscape.cost.probe_input import ProbeInput
from batchscape.data import Data, files, load_dataset
from batchscape.data.files import DataFiles
from batchscape.errors import InvalidInput
from batchscape.models import build, networks
from batchscape.study import profiles
from batchscape.study.cost.profile import CostProfile, Net
from batchscape.study.definitions import count
from batchscape.study.tables import Tables
from batchscape.system import cores, memory, progress
from batchscape.train.record import environment
from batchscape.workers.watched_process import Child, ChildFailed


def run_cost_study(profile: str | CostProfile, *, show_progress: bool = True) -> Tables:
    """Time updates, measure memory and count updates; nothing is kept, for times are those of this machine, now.

    A replicate is a round: times of two processes differ by more than those within one, so that a repeat inside of a
    process is none. Times come from one process after the other; memory, which does not depend on the load of the
    machine, from as many at once as there are cores.

    Args:
        profile: The name of a profile in `COST_PROFILES`, or a `CostProfile`.
        show_progress: Whether to show progress.

    Returns:
        `Tables` with `timings` (one row a net, round, batch size and repeat: `milliseconds` of an update and
        `samples_per_second`), `peaks` (one row a net, round and batch size: `peak_bytes`, the largest resident memory of a
        process that trains two updates, and `activation_bytes` of an example) and `counts` (one row a batch size: updates
        `counted` in an epoch of `model.fit`).

    Raises:
        InvalidInput: If a process fails, say because a batch does not fit into memory.
    """
    profile = profiles.find("cost", profile)
    data = load_dataset(profile.dataset)
    labels = pd.DataFrame([_labels(net, data) for net in profile.nets])
    sizes = {(net.name, size) for net in profile.nets for size in net.peak_sizes}
    total = profile.rounds * (len(profile.nets) + len(sizes))
    with (
        tempfile.TemporaryDirectory(prefix="batchscape-") as folder,
        progress.report("cost", total, show=show_progress) as advance,
    ):
        timings = _timings(profile, _packed(profile.dataset, profile.timed_on, folder), advance)
        peaks = _peaks(profile, folder, advance)
    frames = {
        "timings": timings.merge(labels.drop(columns="activation_bytes"), on="net"),
        "peaks": peaks.merge(labels, on="net"),
        "counts": _counts(profile, data.n_train),
    }
    description = f"{profile.dataset}, N = {data.n_train}, {', '.join(labels['net'])}, SGD"
    about = {"profile": profile.name, "description": description, "environment": environment()}
    return Tables({name: frame for name, frame in frames.items() if len(frame)}, about)


def activation_bytes(model: keras.Model) -> int:
    """Bytes of one example's input and of the outputs of all layers, less those that only change its shape.

    Σₗ nₗ × 4 in float32: what backpropagation has to keep of an example if every output is kept once.

    Args:
        model: A built sequential model.

    Example:
        >>> layers = [keras.Input((2, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
        >>> activation_bytes(keras.Sequential(layers))  # (6 + 5) × 4
        44
    """
    reshape = (keras.layers.Flatten, keras.layers.Reshape)
    tensors = [*model.inputs, *(layer.output for layer in model.layers if not isinstance(layer, reshape))]
    return sum(math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize for tensor in tensors)


def _builder(net: Net) -> str | Callable[[Data], keras.Model]:
    return net.model if net.width == 1 else functools.partial(networks.BUILDERS[net.model], width=net.width)


def _labels(net: Net, data: Data) -> dict[str, Any]:
    """What is the same in all rows of a net."""
    model = build.build_model(_builder(net), data, seed=0)
    return {
        "net": net.name,
        "dataset": data.meta["name"],
        "model": net.model,
        "width": net.width,
        "n_train": data.n_train,
        "n_parameters": model.count_params(),
        "activation_bytes": activation_bytes(model),
    }


def _timings(profile: CostProfile, data: DataFiles, advance: progress.Advance) -> pd.DataFrame:
    """All nets in turn in every round, so that a machine that drifts does not decide which is the quicker."""
    rows = []
    for number in range(profile.rounds):
        for net in profile.nets:
            source = ProbeInput(build=_builder(net), data=data)
            found = _in_a_child(source, functools.partial(_time, net=net, profile=profile, seed=number))
            rows += [{"net": net.name, "round": number, **row} for row in found]
            advance(1, f"{net.name}, round {number + 1}")
    frame = pd.DataFrame(rows)
    return frame.assign(samples_per_second=1e3 * frame["batch"] / frame["milliseconds"])


def _time(child: Child, *, net: Net, profile: CostProfile, seed: int) -> list[dict[str, float]]:
    """Compile for every batch size, then time all of them in a random order, again and again."""
    rng, rows = np.random.default_rng(seed), []
    for batch in net.batch_sizes:
        child.call(f"{STEPS}:try_out", batch)
    for repeat in range(profile.repeats):
        for batch in rng.permutation(net.batch_sizes).tolist():
            seconds, _ = child.call(f"{STEPS}:time_updates", batch, profile.seconds)
            rows.append({"batch": batch, "repeat": repeat, "milliseconds": 1e3 * seconds})
    return rows


def _peaks(profile: CostProfile, folder: str, advance: progress.Advance) -> pd.DataFrame:
    """Every batch size in a process of its own, on as many examples as the largest has: what they take is the same."""
    measured = [net for net in profile.nets if net.peak_sizes]
    packed = {net.name: _packed(profile.dataset, net.peak_sizes[-1], folder) for net in measured}
    asked = [(net, number, batch) for number in range(profile.rounds) for net in measured for batch in net.peak_sizes]

    def measure(net: Net, number: int, batch: int) -> dict[str, Any]:
        source = ProbeInput(build=_builder(net), data=packed[net.name])
        peak = _in_a_child(source, lambda child: child.call(f"{STEPS}:try_out", batch))
        advance(1, f"memory of {net.name}, batch {batch}")
        return {"net": net.name, "round": number, "batch": batch, "n_held": net.peak_sizes[-1], "peak_bytes": peak}

    with concurrent.futures.ThreadPoolExecutor(cores.cores()) as pool:
        return pd.DataFrame(list(pool.map(lambda one: measure(*one), asked)))


def _counts(profile: CostProfile, n_train: int) -> pd.DataFrame:
    """Updates of an epoch, counted by the optimizer."""
    counted = [count.count_updates(n_train, batch) for batch in profile.counted]
    labels = {"dataset": profile.dataset, "model": "one weight", "n_train": n_train, "status": "COMPLETE"}
    budget = {"last_batch": "keep", "budget": "epochs", "budget_amount": 1.0}
    return pd.DataFrame({"batch": profile.counted, "counted": counted}).assign(**labels, **budget)


def _in_a_child(source: ProbeInput, work: Callable[[Child], Any]) -> Any:
    """What is done in a fresh process with the model built."""
    child = Child(int(memory.SHARE * memory.available()))
    try:
        child.call(f"{STEPS}:prepare", source)
        return work(child)
    except ChildFailed as error:
        raise InvalidInput(f"The study needs a machine on which all of its batches train. Received: {error}") from None
    finally:
        child.stop()


def _packed(dataset: str, size: int | None, folder: str) -> DataFiles:
    """Some of the training examples, or all, in files."""
    return files.write(load_dataset(dataset, train_size=size), pathlib.Path(folder))
