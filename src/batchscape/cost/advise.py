"""Advice on the batch size: memory, throughput and the gradient noise scale, joined."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from batchscape import usercode
from batchscape.config import LR_POLICIES
from batchscape.cost.probe import probe_batch_sizes
from batchscape.cost.probe_input import ProbeInput, pack, to_send
from batchscape.cost.result import Probe, load_json, number_of, plain, restore, save_text, table_of
from batchscape.data import load_dataset
from batchscape.errors import BatchscapeError, InvalidInput
from batchscape.landscape import files
from batchscape.models.starts import WEIGHTS, announce
from batchscape.system import html, memory, progress
from batchscape.workers.watched_process import SECONDS, Child, ChildFailed

SHORT_TRAININGS = "batchscape.cost.short_trainings"

REFERENCE = 32
"""Keras' own batch size, to which the rest is compared."""

NEARLY, WITHIN = 1.1, 1.25
"""The default is the smallest batch size within 10 % of the shortest expected time; the range holds those within 25 %."""

ROSE = 1.05
"""In the range test the loss has risen once it is so many times the smallest seen before."""

BACK_OFF = 4
"""The rate advised is the largest before the loss rose, divided by this."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """The gradient noise scale along a short training.

    Attributes:
        simple: B_simple in examples, the geometric mean over the places where it could be told from zero.
        low, high: The lowest and the highest end of their 95 % intervals, 0 and infinite where there is no bound.
        places: One dict a place: `epoch`, `simple`, `low`, `high`.
    """

    simple: float
    low: float
    high: float
    places: tuple[dict[str, float], ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Advice:
    """The advised batch size and learning rate, and the reasons.

    Attributes:
        batch_size: The default that is advised, in examples per update.
        low, high: The range of batch sizes whose expected time is within 25 % of the shortest.
        learning_rates: The rate for `batch_size` under each policy; None where there is none.
        reference: The batch size to which times are relative, and at which the rate was found.
        stable_rate: The largest rate at `reference` before the loss rose.
        noise: The noise scale, or None.
        table: One row a batch size that fits: `batch`, `ms`, `samples_per_second`, `updates`, `examples` and `seconds` to a
            target, relative to `reference`, `seconds_low` and `seconds_high` from the interval of the noise scale, the
            rates `fixed`, `sqrt` and `linear`, and `advice`.
        reasons: Why, one sentence each.
        rates: (rate, training loss) of the range test.
        probe: What was measured of time and memory.
    """

    batch_size: int
    low: int
    high: int
    learning_rates: dict[str, float] | None
    reference: int
    stable_rate: float | None
    noise: Noise | None
    table: pd.DataFrame
    reasons: tuple[str, ...]
    rates: tuple[tuple[float, float], ...]
    probe: Probe

    @property
    def about(self) -> dict[str, Any]:
        """Model, optimizer, loss, engine, device, data (sha256), examples, versions: those of the probe."""
        return self.probe.about

    def to_json(self) -> str:
        """Everything, as JSON; what is missing is null, and infinity is "Infinity"."""
        probe = json.loads(self.probe.to_json())
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        noise = None if self.noise is None else dataclasses.asdict(self.noise)
        described = {
            **files.heading(self),
            **fields,
            "noise": noise,
            "table": self.table.to_dict("records"),
            "probe": probe,
        }
        return json.dumps(plain(described), indent=1, ensure_ascii=False)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The advice that `to_json` wrote, from what `json.loads` gives."""
        noise = fields["noise"] and restore(Noise, fields["noise"])
        if noise:
            places = ({name: number_of(value) for name, value in place.items()} for place in noise.places)
            noise = dataclasses.replace(noise, places=tuple(places))
        rates = tuple(tuple(map(number_of, pair)) for pair in fields["rates"])
        made = {"noise": noise, "rates": rates, "table": table_of(fields["table"])}
        return restore(cls, {**fields, **made, "probe": Probe.of_fields(fields["probe"])})

    @classmethod
    def load(cls, file: str | os.PathLike) -> Self:
        """Read an advice that `save` has written.

        Raises:
            StoreError: If the file cannot be read, is damaged, or holds something else.
        """
        return load_json(cls, file)

    def save(self, file: str | os.PathLike) -> pathlib.Path:
        """Write `to_json()`; a relative file starts from the project (or `BATCHSCAPE_HOME`)."""
        return save_text(self.to_json(), file)

    def to_text(self) -> str:
        """The table and the reasons, for a terminal."""
        table = self.table.to_string(index=False, float_format="{:.3g}".format, na_rep="-")
        return "\n".join([table, f"{self!r}", *(f"- {reason}" for reason in self.reasons)])

    def __repr__(self) -> str:
        rates = self.learning_rates or {}
        said = ", ".join(f"{policy} {rate:.3g}" for policy, rate in rates.items()) or "none found"
        return f"Advice(batch_size={self.batch_size}, range {self.low} to {self.high}; learning rate: {said})"

    def _repr_html_(self) -> str:
        return html.paragraph(repr(self)) + html.bullets(self.reasons) + html.frame(self.table, digits=3)


def advise(
    build: str | os.PathLike | Callable,
    data: Any,
    *,
    batch_sizes: Sequence[int] | None = None,
    memory_limit: int | float | str | None = None,
    repeats: int = 5,
    loss: str | None = None,
    precision: str | None = None,
    engine: str = "stock",
    jit: bool | None = None,
    time_limit: float = SECONDS,
    show_progress: bool = True,
) -> Advice:
    """Advise a batch size, and the learning rate that goes with it.

    Updates to a target follow S ∝ 1 + B_noise / B (McCandlish et al. 2018, arXiv 1812.06162, eq. 2.11), with the noise
    scale in place of the critical batch size; times the measured time of an update they give the expected time. The noise
    scale is measured at the start of a short training and along it. The learning rate comes from a range test (Smith
    2015, arXiv 1506.01186): it grows with every update at B = 32, and a quarter of the largest rate before the loss rose
    is advised. All this is one seed of a short training: a place to begin, not a verdict; `run_sweep` gives those.

    Args:
        build, data, batch_sizes, memory_limit, repeats, loss, precision, engine, jit, time_limit, show_progress: See
            `probe_batch_sizes`.

    Returns:
        An `Advice`. Nothing of the caller's is changed.

    Raises:
        InvalidInput, UserCodeError: As `probe_batch_sizes` does, and where a short training from the weights of a model that is
            given does not lower its loss. A noise scale or a rate that cannot be had raises nothing; the reasons say so.
    """
    how = {"memory_limit": memory_limit, "repeats": repeats, "loss": loss, "precision": precision, "engine": engine}
    how |= {"jit": jit, "time_limit": time_limit, "show_progress": show_progress}
    build = to_send(build)
    announce(build)
    probe = probe_batch_sizes(build, data, batch_sizes=batch_sizes, **how)
    reference = _nearest(probe.measured["batch"], REFERENCE)
    with tempfile.TemporaryDirectory(prefix="batchscape-") as folder:
        packed = pack(data, load_dataset(data), pathlib.Path(folder))
        source = ProbeInput(build=build, data=packed, loss=loss, precision=precision, device_limit=None)
        with progress.report("short trainings", 2, show=show_progress) as advance:
            with _a_child(time_limit) as child:
                rates, no_rate = _ask(child, "range_test", source, reference)
                advance(1, "learning rate")
                rate, stable = suggested_rate(rates or ())
                if rates and rate is None:
                    _require_untrained(build, rates)
                if not no_rate:
                    scales, no_noise = _ask(child, "noise_scales", source, reference, rate)
            if no_rate:  # What failed may have ended the child.
                with _a_child(time_limit) as child:
                    scales, no_noise = _ask(child, "noise_scales", source, reference, rate)
            advance(1, "noise scale")
    noise = noise_of(scales or ())
    why_not = {
        "noise": no_noise or "no estimate could be told from zero",
        "rate": no_rate or ("the model has a schedule of its own" if rates is None else "the loss did not fall"),
    }
    return join(probe, noise, rate, stable, tuple(map(tuple, rates or ())), why_not)


def _require_untrained(build: Any, rates: Sequence[tuple[float, float]]) -> None:
    """Refuse a model given with weights that a short training does not improve: nothing can be told of what helps it."""
    if isinstance(build, usercode.Builder) and build.starts_from == WEIGHTS:
        losses = [loss for _, loss in rates]
        raise InvalidInput(
            "advise needs a model whose loss falls in a short training; begin anew with batchscape.fresh(build), or --fresh. "
            f"Received: {build.label} with its trained weights, loss {losses[0]:.3g} at first and {min(losses):.3g} at best"
        )


@contextlib.contextmanager
def _a_child(seconds: float) -> Iterator[Child]:
    """A fresh process, each of whose calls may take so many seconds."""
    child = Child(int(memory.SHARE * memory.available()), seconds)
    try:
        yield child
    finally:
        child.stop()


def _ask(child: Child, name: str, *arguments: Any) -> tuple[Any, str]:
    """The result of a function of `short_trainings` in a child, or None and the reason why there is none."""
    try:
        return child.call(f"{SHORT_TRAININGS}:{name}", *arguments), ""
    except (ChildFailed, BatchscapeError) as error:
        return None, str(error)


def suggested_rate(rates: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    """The learning rate to begin with, and the largest before the loss rose by 5 % above the smallest seen before.

    Args:
        rates: (rate, loss) of a range test, rates rising.

    Returns:
        (rate, stable rate); None twice where the loss never fell by 5 %.

    Example:
        >>> suggested_rate([(0.01, 2.3), (0.1, 2.0), (1.0, 1.0), (2.0, 3.0)])
        (0.25, 1.0)
    """
    smallest, stable = math.inf, None
    for rate, loss in rates:
        if not loss <= ROSE * smallest:  # NaN has risen too.
            break
        smallest, stable = min(smallest, loss), rate
    if stable is None or not smallest * ROSE < rates[0][1]:
        return None, None
    return float(f"{stable / BACK_OFF:.2g}"), stable


def noise_of(places: Sequence[dict[str, float]]) -> Noise | None:
    """One noise scale from several; None where none is above zero.

    Example:
        >>> found = noise_of([{"epoch": 0, "simple": 10.0, "low": 5.0, "high": 20.0},
        ...                   {"epoch": 1, "simple": 40.0, "low": -1.0, "high": 90.0}])
        >>> round(found.simple, 9), found.low, found.high
        (20.0, 0.0, 90.0)
    """
    known = [place for place in places if place["simple"] > 0 and math.isfinite(place["simple"])]
    if not known:
        return None
    return Noise(
        simple=math.exp(np.mean([math.log(place["simple"]) for place in known])),
        low=max(0.0, min(place["low"] for place in known)),
        high=max(place["high"] for place in known),
        places=tuple(places),
    )


def relative_updates(batch: np.ndarray, reference: int, noise: float) -> np.ndarray:
    """Updates to a target relative to those at `reference`: (1 + N / B) / (1 + N / B₀).

    Example:
        >>> relative_updates(np.array([8, 32, 96]), 32, 96.0).tolist()
        [3.25, 1.0, 0.5]
    """
    if math.isinf(noise):
        return reference / batch
    return (1 + noise / batch) / (1 + noise / reference)


def join(
    probe: Probe,
    noise: Noise | None,
    rate: float | None,
    stable: float | None,
    rates: tuple[tuple[float, float], ...] = (),
    why_not: dict[str, str] | None = None,
) -> Advice:
    """Compute an advice from measurements of time, memory, noise scale and learning rate.

    Args:
        probe: Time and memory.
        noise: The noise scale, or None.
        rate, stable: The rate advised at the reference batch, and the largest stable one there; or None.
        rates: The range test.
        why_not: Why `noise` or `rate` is missing, by these names.
    """
    rows = probe.measured
    fails = probe.limit.fails or math.inf
    rows = rows[rows["batch"] < fails].reset_index(drop=True)
    batch = rows["batch"].to_numpy()
    reference = _nearest(batch, REFERENCE)
    at = int(np.flatnonzero(batch == reference)[0])
    # What `fit` does between two epochs is shared by the updates of an epoch.
    seconds = rows["epoch_seconds"].to_numpy() / np.ceil(probe.about["n_train"] / batch)
    slower = seconds / seconds[at]
    table = pd.DataFrame({"batch": batch, "ms": rows["ms"], "samples_per_second": rows["samples_per_second"]})
    for name, value in (("", "simple"), ("_low", "low"), ("_high", "high")):
        updates = relative_updates(batch, reference, getattr(noise, value)) if noise else np.full(len(batch), np.nan)
        if not name:
            table["updates"], table["examples"] = updates, updates * batch / reference
        table[f"seconds{name}"] = updates * slower
    ends = table[["seconds_low", "seconds_high"]].to_numpy()
    table["seconds_low"], table["seconds_high"] = ends.min(axis=1), ends.max(axis=1)
    for policy, power in LR_POLICIES.items():
        table[policy] = math.nan if rate is None else rate * (batch / reference) ** power
    score = table["seconds"] if noise else slower * reference / batch  # Without a noise scale: the time of an epoch.
    default = int(batch[np.flatnonzero(score <= NEARLY * score.min())[0]])
    inside = batch[np.asarray(score <= WITHIN * score.min())]
    table["advice"] = np.where(batch == default, "default", np.where(np.isin(batch, inside), "in range", ""))
    row = table[table["batch"] == default].iloc[0]
    return Advice(
        batch_size=default,
        low=int(inside.min()),
        high=int(inside.max()),
        learning_rates=None if rate is None else {policy: float(f"{row[policy]:.2g}") for policy in LR_POLICIES},
        reference=reference,
        stable_rate=stable,
        noise=noise,
        table=table,
        reasons=tuple(_reasons(probe, noise, rate, stable, row, reference, why_not or {})),
        rates=rates,
        probe=probe,
    )


def _reasons(probe: Probe, noise: Noise | None, rate, stable, row, reference: int, why_not: dict[str, str]):
    """Why, one sentence each."""
    facts = probe.about
    yield f"What fits: {probe.describe_limit()}."
    between = f"; each epoch of fit costs {probe.epoch_ms:.3g} ms besides its updates" if probe.epoch_ms else ""
    yield (
        f"Throughput reaches 90 % of its best at B = {probe.saturates} ({facts['device']}, engine {facts['engine']}); an "
        f"update costs as much as {probe.cost_of_an_update:.3g} examples before the first one{between}."
    )
    default, tried = int(row["batch"]), probe.measured["batch"]
    if default in (tried.min(), tried.max()):
        yield f"B = {default} is at the edge of the sizes that were timed ({probe.stopped}): a better one may lie beyond."
    if noise is not None:
        places = ", ".join(f"{place['simple']:.3g} {_when(place['epoch'])}" for place in noise.places)
        yield (
            f"Gradient noise scale {noise.simple:.3g} [{noise.low:.3g}, {noise.high:.3g}] examples ({places}): larger "
            "batches save ever fewer updates."
        )
        if default == reference:
            yield f"No batch size is expected to reach a target more than 10 % sooner than B = {reference}."
        else:
            yield (
                f"B = {default} takes {row['seconds']:.3g} [{row['seconds_low']:.3g}, {row['seconds_high']:.3g}] of the time "
                f"of B = {reference} to a target, {row['updates']:.3g} of its updates and {row['examples']:.3g} of its "
                "examples, by S ∝ 1 + B_noise / B."
            )
    else:
        yield (
            f"The noise scale is not available ({why_not.get('noise', 'not measured')}), so this is the time of an epoch "
            f"alone: larger batches may need more epochs than B = {default} saves time."
        )
    if rate is None:
        yield f"No learning rate is advised: {why_not.get('rate', 'not measured')}."
    else:
        above = [policy for policy in LR_POLICIES if row[policy] > stable]
        too_high = f"; at B = {default} {' and '.join(above)} would exceed it: warm up, or stay below" if above else ""
        yield (
            f"Learning rate {rate:.2g} at B = {reference} ({facts['optimizer']}): a quarter of {stable:.2g}, the largest "
            f"before the loss rose in a range test{too_high}."
        )
    if not facts["was_compiled"]:
        yield f"The model was not compiled: {facts['optimizer']} and {facts['loss']} stood in."
    yield "Your own batch size is left as it is; one seed of a short training stands behind this: a place to begin."


def _when(epoch: int) -> str:
    return "at the start" if epoch == 0 else f"after {epoch} epoch{'s' if epoch > 1 else ''}"


def _nearest(batches, wanted: int) -> int:
    """The batch size nearest to the one wanted, in octaves."""
    return int(min(batches, key=lambda batch: abs(math.log2(batch / wanted))))
