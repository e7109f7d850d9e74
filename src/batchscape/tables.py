"""The compact tables behind figures and verdicts: what is committed under `figures/data/`."""

import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import pandas as pd

from batchscape import paths
from batchscape.errors import StoreError

NAMES = ("runs", "curves", "lines")


@dataclasses.dataclass(frozen=True, repr=False)
class Tables:
    """The results of one study.

    Attributes:
        runs: One row a run, curvature included.
        curves: One row an evaluation, thinned: `hash`, `epoch`, `updates`, losses, distance.
        lines: One row a point of a line between paired minima: `seed`, `split`, `alpha`, `loss`, `accuracy`.
        about: Profile, data, model, budget, and the environment the runs were made in.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    lines: pd.DataFrame
    about: Mapping[str, Any]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, name))} {name}" for name in NAMES)
        return f"Tables({self.about.get('profile')}: {sizes})"

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Write the tables as `.csv.gz` files and `about.json`; the same tables give the same bytes."""
        folder = paths.resolve(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            text = getattr(self, name).to_csv(index=False, float_format="%.7g")
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        text = json.dumps(self.about, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / "about.json").write_text(text + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Self:
        """Read what `save` has written."""
        folder = paths.resolve(folder)
        try:
            frames = {name: pd.read_csv(folder / f"{name}.csv.gz") for name in NAMES}
            return cls(**frames, about=json.loads((folder / "about.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            files = ", ".join(f"{name}.csv.gz" for name in NAMES)
            raise StoreError(f"{folder} must hold {files} and about.json: {error}") from error


def sha256(folder: str | os.PathLike) -> dict[str, str]:
    """The digests of the tables in a folder, by file name."""
    files = sorted(paths.resolve(folder).glob("*.csv.gz"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
