"""The `.npz` file of a run: its weights by stage, read when they are asked for and checked against the record."""

import io
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from batchscape.sweep.stored_record import Arrays, StoredArray, reading
from batchscape.train.record import Weights

LONGEST_HEADER = 1024
"""Bytes that stand before the numbers of an array, at most: NumPy writes 128 up to some twenty dimensions."""


def to_bytes(weights: Mapping[str, Weights]) -> tuple[bytes, Arrays]:
    """Weights as the content of an `.npz` file, and what the record is to say of them."""
    weights = {stage: list(map(_storable, arrays)) for stage, arrays in weights.items()}
    stream = io.BytesIO()
    named = {_name(stage, i): array for stage, arrays in weights.items() for i, array in enumerate(arrays)}
    np.savez(stream, **named)
    with zipfile.ZipFile(stream) as archive:
        crc = {member.filename: member.CRC for member in archive.infolist()}
    listed = {
        stage: [
            StoredArray(array.dtype.name, array.shape, crc[f"{_name(stage, i)}.npy"]) for i, array in enumerate(arrays)
        ]
        for stage, arrays in weights.items()
    }
    return stream.getvalue(), listed


class StoredWeights(Mapping):
    """Weights by stage, read from the `.npz` file when asked for.

    Args:
        file: The `.npz` file.
        arrays: What the record says of the arrays, by stage.
        finite: Whether NaN and infinity are damage: they are what diverged runs end in.
    """

    def __init__(self, file: pathlib.Path, arrays: Arrays, *, finite: bool):
        self._file, self._arrays, self._finite = file, arrays, finite

    def check(self) -> None:
        """Compare names, sizes and checksums of the arrays in the file with the record, without reading the arrays.

        Raises:
            DamagedRun: If the file is missing, cut off, or of other arrays.
            StoreError: If it cannot be read.
        """
        if self._arrays:
            with reading(self._file), zipfile.ZipFile(self._file) as archive:
                self._check(archive)

    def _check(self, archive: zipfile.ZipFile) -> None:
        expected = {
            f"{_name(stage, i)}.npy": one for stage in self._arrays for i, one in enumerate(self._arrays[stage])
        }
        members = {member.filename: member for member in archive.infolist()}
        if members.keys() != expected.keys():
            raise ValueError("it does not hold the arrays that the record names")
        room = os.stat(self._file).st_size
        for name, array in expected.items():
            size, member = math.prod(array.shape) * np.dtype(array.dtype).itemsize, members[name]
            fits = member.compress_type == zipfile.ZIP_STORED and size < member.file_size <= size + LONGEST_HEADER
            if not fits or member.file_size > room:
                raise ValueError(f"{name} is not of the size that the record says")
            if array.crc != member.CRC:
                raise ValueError(f"{name} does not have the checksum that the record says")

    def __getitem__(self, stage: str) -> Weights:
        arrays = self._arrays[stage]  # KeyError for a stage that the run does not have.
        with reading(self._file), zipfile.ZipFile(self._file) as archive:
            self._check(archive)
            return [self._read(archive, f"{_name(stage, i)}.npy", one) for i, one in enumerate(arrays)]

    def _read(self, archive: zipfile.ZipFile, name: str, said: StoredArray) -> np.ndarray:
        with archive.open(name) as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError(f"{name} is no array that a sweep writes")
            found, by_column, kind = np.lib.format.read_array_header_1_0(stream)
            if (found, kind) != (said.shape, np.dtype(said.dtype)):
                raise ValueError(f"{name} is not of the shape and type that the record says")
            array = np.frombuffer(stream.read(), kind).reshape(said.shape, order="F" if by_column else "C").copy()
        if self._finite and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
        return array

    def __contains__(self, stage: object) -> bool:
        return stage in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _storable(array: np.ndarray) -> np.ndarray:
    """An array of a type that NumPy's files know; bfloat16 becomes float32, which holds all its values."""
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _name(stage: str, i: int) -> str:
    return f"{stage}/{i:03d}"
