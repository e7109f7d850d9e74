"""The result of a probe: in words, as a table and as JSON."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd

from batchscape.cost.limit import Limit
from batchscape.cost.line import LineFit
from batchscape.errors import StoreError
from batchscape.landscape import files
from batchscape.system import atomic, html, memory, paths
from batchscape.system.damaged import DAMAGED

COLUMNS = ("batch", "ms", "ms_low", "ms_high", "samples_per_second", "epoch_seconds", "compile_seconds", "peak_bytes")

SATURATED = 0.9
"""Share of the best throughput from which it counts as saturated."""


@dataclasses.dataclass(frozen=True, repr=False)
class Probe:
    """Time and memory of training steps against batch size.

    Attributes:
        table: One row a batch size: `batch`, `ms` (an update, the median over repeats), `ms_low` and `ms_high` (the range
            over repeats), `samples_per_second`, `epoch_seconds` (updates, and what `fit` does between two epochs),
            `compile_seconds`, `peak_bytes` (on a CPU of a few sizes), and `outcome`, which says why the rest is missing.
        time: ms = a + b B, fitted with errors relative to ms.
        memory: Peak bytes = a + b B.
        limit: The largest batch that fits; see `Limit`.
        memory_limit: What it had to fit into, in bytes; resident memory of the whole process, or memory of the GPU.
        epoch_ms: Milliseconds that `fit` spends between two epochs, whatever the batch; 0 where no timing was so long.
        stopped: Why the ladder ended where it did.
        about: Model, optimizer, loss, engine, device, data (sha256), examples, versions, ...
    """

    table: pd.DataFrame
    time: LineFit | None
    memory: LineFit | None
    limit: Limit
    memory_limit: int
    epoch_ms: float
    stopped: str
    about: dict[str, Any]

    @property
    def measured(self) -> pd.DataFrame:
        """The rows of the batch sizes that were timed."""
        return self.table.dropna(subset=["ms"])

    @property
    def saturates(self) -> int:
        """The smallest batch size with 90 % of the best throughput."""
        rows = self.measured
        enough = rows["samples_per_second"] >= SATURATED * rows["samples_per_second"].max()
        return int(rows.loc[enough, "batch"].min())

    @property
    def cost_of_an_update(self) -> float:
        """What an update costs besides its examples, in examples: a / b of the line of time; infinite without a slope."""
        if self.time is None or self.time.slope <= 0:
            return math.inf
        return max(0.0, self.time.intercept / self.time.slope)

    def describe_limit(self) -> str:
        """The largest batch that fits, in words."""
        found, n, bound = self.limit, self.about["n_train"], memory.text(self.memory_limit)
        if found.fails is not None:
            near = "" if found.confirmed else ", not closed in on"
            return f"B = {found.fits} fits into {bound}, B = {found.fails} does not{near} ({found.reason})"
        if found.fits >= n:
            return f"all {n} examples fit into {bound} as one batch"
        if self.memory is None:
            beyond = "one size makes no line to predict more"
        elif not self.memory.rises:
            beyond = "memory does not rise measurably with the batch"
        elif found.predicted >= n:
            beyond = f"by the line of memory all {n} examples do"
        else:
            beyond = f"by the line of memory {int(found.predicted)} do, which was not tried"
        return f"B = {found.fits} fits into {bound}; {beyond}"

    def to_json(self) -> str:
        """Everything, as JSON; what is missing is null, and infinity is "Infinity"."""
        rows = self.table.to_dict("records")
        described = {**files.heading(self), **dataclasses.asdict(self), "table": rows, "saturates": self.saturates}
        return json.dumps(plain(described), indent=1, ensure_ascii=False)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The probe that `to_json` wrote, from what `json.loads` gives."""
        lines = {name: fields[name] and restore(LineFit, fields[name]) for name in ("time", "memory")}
        limit = restore(Limit, fields["limit"])
        return restore(cls, {**fields, **lines, "table": table_of(fields["table"]), "limit": limit})

    @classmethod
    def load(cls, file: str | os.PathLike) -> Self:
        """Read a probe that `save` has written.

        Raises:
            StoreError: If the file cannot be read, is damaged, or holds something else.
        """
        return load_json(cls, file)

    def to_text(self) -> str:
        """The table and what it says, for a terminal."""
        shown = self.table.drop(columns="outcome").assign(peak_MB=self.table["peak_bytes"] / 1e6)
        shown = shown.drop(columns="peak_bytes").rename(
            columns={"compile_seconds": "compile_s", "epoch_seconds": "epoch_s"}
        )
        lines = [shown.to_string(index=False, float_format="{:.4g}".format, na_rep="-"), self.describe_limit()]
        if self.time is not None:
            lines += [f"ms = {self.time!r}"]
        if self.epoch_ms:
            lines += [f"an epoch of fit costs {self.epoch_ms:.3g} ms besides its updates"]
        if self.memory is not None:
            lines += [f"bytes = {self.memory!r}"]
        lines += self._evaluation()
        return "\n".join([*lines, f"90 % of the best throughput from B = {self.saturates}; {self.stopped}"])

    def _evaluation(self) -> list[str]:
        """What an evaluation takes, in a line, where it was measured."""
        peak = self.about.get("evaluation_bytes")
        if not isinstance(peak, (int, float)) or math.isnan(peak):
            return []
        if peak > self.memory_limit:
            return [
                f"an evaluation, which a sweep makes between epochs, does not fit into {memory.text(self.memory_limit)}"
            ]
        return [
            f"with an evaluation, which a sweep makes between epochs, the process takes {memory.text(peak)} at the least"
        ]

    def save(self, file: str | os.PathLike) -> pathlib.Path:
        """Write `to_json()`; a relative file starts from the project (or `BATCHSCAPE_HOME`)."""
        return save_text(self.to_json(), file)

    def __repr__(self) -> str:
        return (
            f"Probe({self.about['model']} on {self.about['data']}, {self.about['device']}: B = "
            f"{int(self.measured['batch'].min())} to {int(self.measured['batch'].max())}, 90 % of the best throughput "
            f"from B = {self.saturates}; {self.describe_limit()})"
        )

    def _repr_html_(self) -> str:
        return html.paragraph(repr(self)) + html.frame(self.table, digits=4)


def plain(value: Any) -> Any:
    """A tree of results as JSON has it: numbers, texts, lists and objects; NaN is null, infinity is "Infinity"."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        infinite = "Infinity" if value > 0 else "-Infinity"
        return float(value) if math.isfinite(value) else None if math.isnan(value) else infinite
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (int, str, bool, type(None))) else str(value)


_Kind = TypeVar("_Kind")


def restore(kind: type[_Kind], fields: Mapping[str, Any]) -> _Kind:
    """A dataclass from its fields as `plain` wrote them; null is NaN where the class has a float, lists are tuples."""
    values = {field.name: (field.type, fields[field.name]) for field in dataclasses.fields(kind)}
    return kind(**{name: number_of(value) if of is float else _tuple(value) for name, (of, value) in values.items()})


def number_of(value: float | str | None) -> float:
    """A number as `plain` wrote it: null is NaN, "Infinity" is infinite."""
    return math.nan if value is None else float(value) if isinstance(value, str) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A table from its rows as `plain` wrote them; all of its columns but these two are numbers."""
    table = pd.DataFrame(rows)
    return table.assign(**{name: pd.to_numeric(table[name]) for name in table if name not in ("outcome", "advice")})


def load_json(kind: type[_Kind], file: str | os.PathLike) -> _Kind:
    """Read a `Probe` or an `Advice`; a relative file starts from the project (or `BATCHSCAPE_HOME`)."""
    fields = files.read_json(file)
    files.require_kind(kind.__name__, fields, file)
    try:
        return kind.of_fields(fields)
    except DAMAGED as error:
        raise StoreError(f"{file} is no readable result of batchscape.") from error


def save_text(text: str, file: str | os.PathLike) -> pathlib.Path:
    """Write a text; a relative file starts from the project (or `BATCHSCAPE_HOME`)."""
    file = paths.resolve(file)
    atomic.write(file, f"{text}\n")
    return file
