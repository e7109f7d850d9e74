"""Many training runs."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchscape.config.cell import PLAIN_SEQUENCES, Cell
from batchscape.errors import InvalidInput, unknown_name


class Grid(Sequence):
    """The cells of a sweep: the product of axes, each a field of `Cell` with one value or several.

    Cells come in the order of the axes as written, the last one fastest. Grids add up: `fixed + scaled`.

    Example:
        >>> grid = Grid(batch_size=[8, 32], learning_rate=0.1, seed=range(3))
        >>> len(grid), grid[0].batch_size, grid[-1].seed
        (6, 8, 2)
        >>> len(grid + Grid(batch_size="full", seed=range(3)))
        9
    """

    def __init__(self, cells: Iterable[Cell] | None = None, /, **axes: Any):
        if cells is not None and axes:
            raise InvalidInput("A Grid is made of cells or of axes, not of both.")
        unique = dict.fromkeys(_product(axes) if cells is None else cells)
        if not unique:
            raise InvalidInput("A grid needs at least one cell. Received: none")
        self.cells = tuple(unique)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index):
        return self.cells[index]

    def __add__(self, other: "Grid") -> "Grid":
        return Grid([*self, *other])

    def __repr__(self) -> str:
        varying = {
            field.name: list(dict.fromkeys(getattr(cell, field.name) for cell in self))
            for field in dataclasses.fields(Cell)
            if len({getattr(cell, field.name) for cell in self}) > 1
        }
        return f"Grid of {len(self)} cells: " + ", ".join(f"{name} in {values}" for name, values in varying.items())


def _product(axes: Mapping[str, Any]) -> Iterator[Cell]:
    fields = {field.name for field in dataclasses.fields(Cell)}
    for name in axes:
        if name not in fields:
            raise unknown_name("field of Cell", name, fields)
    columns = {name: _values(name, value) for name, value in axes.items()}
    for name, values in columns.items():
        if not values:
            raise InvalidInput(f"An axis needs at least one value. Received: {name}=[]")
    for combination in itertools.product(*columns.values()):
        yield Cell(**dict(zip(columns, combination, strict=True)))


def _values(name: str, value: Any) -> list:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        return [value]
    values = list(value)
    if name in PLAIN_SEQUENCES and not any(isinstance(item, (Mapping, tuple, list)) for item in values):
        return [tuple(values)]
    return values
