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

from batchscape.errors import StoreError
from batchscape.system import atomic, paths
from batchscape.system.damaged import DAMAGED

STUDIES = (
    "figures/data/digits",
    "figures/data/noise",
    "figures/data/mnist",
    "figures/data/definitions",
    "figures/data/minima",
    "figures/data/keskar-f1",
    "figures/data/keskar-c1",
    "figures/data/rates",
    "figures/data/rates-fashion",
    "figures/data/rates-cifar",
    "figures/data/rates-mnist",
    "figures/data/cost",
    "figures/data/target",
)
"""The committed tables."""

ON_GPU = "figures/data/gpu"
"""The tables of `benchmarks/gpu.py`, which no statement is judged by; there once it has run on a GPU."""


@dataclasses.dataclass(frozen=True, repr=False)
class Tables:
    """The results of one study; `tables.runs` is the table of that name.

    Attributes:
        frames: Tables by name. The main job has `runs` (one row a run, curvature included), `curves` (one row an
            evaluation, thinned) and `lines` (one row a point of a line between paired minima); the study of
            gradients `noise` (one row a seed, epoch, batch size and way of drawing).
        about: Profile, data, model, budget, and the environment the runs were made in.
    """

    frames: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any]

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name.startswith("_") or name not in self.frames:
            raise AttributeError(f"This study has no table {name!r}, but {', '.join(self.frames)}")
        return self.frames[name]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(frame)} {name}" for name, frame in self.frames.items())
        return f"Tables({self.about.get('profile')}: {sizes})"

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Write the tables as `.csv.gz` files and `about.json`; the same tables give the same bytes."""
        folder = paths.make(folder)
        for name, frame in self.frames.items():
            text = frame.to_csv(index=False, float_format="%.9g")
            atomic.write(folder / f"{name}.csv.gz", gzip.compress(text.encode(), mtime=0))
        text = json.dumps(self.about, indent=1, sort_keys=True, ensure_ascii=False)
        atomic.write(folder / "about.json", text + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Self:
        """Read what `save` has written."""
        folder = paths.resolve(folder)
        try:
            about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            files = sorted(folder.glob("*.csv.gz"))
            if "profile" not in about or not files:
                raise ValueError("one of them is missing or empty")
            return cls({file.name.removesuffix(".csv.gz"): pd.read_csv(file) for file in files}, about)
        except (OSError, *DAMAGED) as error:
            raise StoreError(f"{folder} must hold the tables of a study, *.csv.gz and about.json: {error}") from error


def sha256(folder: str | os.PathLike) -> dict[str, str]:
    """The digests of the tables in a folder, by file name."""
    files = sorted(paths.resolve(folder).glob("*.csv.gz"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
