"""Data in files, on their way to another process: one `.npy` file an array, mapped into memory there.

Nothing in the files is unpickled. The digest of the arrays travels beside them, so that a process never trains on others.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import optree

from batchscape.data.dataset import Data, load_dataset
from batchscape.errors import InvalidInput, StoreError

FIELDS = tuple(f"{part}_{split}" for split in ("train", "val", "test") for part in ("x", "y", "sample_weight"))
"""The fields of a `Data` that hold arrays."""


@dataclasses.dataclass(frozen=True)
class DataFiles:
    """A `Data` whose arrays are in files; small enough to travel with every task.

    Attributes:
        folder: Where the files are.
        sha256: Digest of all arrays, as in the `meta` of the `Data`.
        names: Names of the files, in the structure of the arrays, by field.
        meta: `meta` of the `Data`.
    """

    folder: pathlib.Path
    sha256: str
    names: Mapping[str, Any] = dataclasses.field(compare=False)
    meta: Mapping[str, Any] = dataclasses.field(compare=False)

    def load(self) -> Data:
        """The data, mapped into memory and checked once, shared by all processes.

        Raises:
            StoreError: If a file is missing, broken, or holds something else than what was written.
        """
        return _load(self)


def write(data: Data, folder: pathlib.Path) -> DataFiles:
    """Write the arrays of a `Data` into a fresh folder inside of another.

    Raises:
        InvalidInput: If an array holds objects, which only pickle could write.
        StoreError: If the folder cannot be written.
    """
    arrays = {name: getattr(data, name) for name in FIELDS}
    leaves, structure = optree.tree_flatten(arrays)
    names = [f"{number}.npy" for number in range(len(leaves))]
    try:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="data.", dir=folder))
        for name, leaf in zip(names, leaves, strict=True):
            np.save(folder / name, leaf, allow_pickle=False)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or f'{error}; is the disk full?'}") from error
    except ValueError as error:
        raise InvalidInput(
            f"Arrays for other processes must hold numbers or strings. Received: objects in {data.meta['name']}"
        ) from error
    return DataFiles(folder, data.meta["sha256"], optree.tree_unflatten(structure, names), data.meta)


@functools.cache
def _load(files: DataFiles) -> Data:
    def read(name: str) -> np.ndarray:
        return np.load(files.folder / name, mmap_mode="r", allow_pickle=False)

    try:
        trees = {name: optree.tree_map(read, tree) for name, tree in files.names.items()}
        data = load_dataset(Data(**trees, meta=files.meta))
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"The arrays in {files.folder} cannot be read: {error}") from error
    check_digest(data, files.sha256, files.folder)
    return data


def check_digest(data: Data, sha256: str, origin: Any) -> None:
    """Refuse data other than those that a digest was taken of."""
    if data.meta["sha256"] != sha256:
        raise StoreError(
            f"The data of a task must be those that its runs are named by, of sha256 {sha256[:16]}. "
            f"Received: {data.meta['sha256'][:16]} from {origin}"
        )
