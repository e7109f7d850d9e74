"""A model in a file, as what builds it."""

import dataclasses
import hashlib
import os
import random
from typing import Any

from batchscape import usercode
from batchscape.errors import UserCodeError
from batchscape.models.files import load_model, require_file
from batchscape.models.starts import FRESH, SEED, WEIGHTS


@dataclasses.dataclass(frozen=True)
class ModelFile(usercode.Builder):
    """What loads a model from its file anew at each call, and can be sent to other processes.

    Args:
        file: The file; `fresh:` before it asks for new initial weights.
        fresh: Whether the model begins from new initial weights, which the seed draws.
        imports: Modules to import first, since they register layers of the model.

    Raises:
        UserCodeError: If there is no such file.
    """

    file: str
    fresh: bool = False
    imports: tuple[str, ...] = ()
    _stamp: tuple[int, int] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fresh", self.fresh or self.file.startswith(FRESH))
        object.__setattr__(self, "file", self.file.removeprefix(FRESH))
        require_file(self.file)
        object.__setattr__(self, "_stamp", _stamp_of(self.file))

    @property
    def label(self) -> str:
        """The name of the file, which stands in records in place of its path."""
        return (FRESH if self.fresh else "") + os.path.basename(self.file)

    @property
    def starts_from(self) -> str:
        """From what a training starts."""
        return SEED if self.fresh else WEIGHTS

    def __call__(self, data: Any = None) -> Any:
        """The model: built on an example of the data where it has to be made anew."""
        require_file(self.file)
        if _stamp_of(self.file) != self._stamp:
            raise UserCodeError(f"The file of a model must not change meanwhile; call again. Received: {self.file}")
        state = random.getstate()
        model = load_model(self.file, self.imports)
        if not self.fresh:
            return model
        from batchscape.models.copying import ModelCopy

        random.setstate(state)  # The seed draws the same weights as for a model that is given as an object.
        return dataclasses.replace(ModelCopy.of(model), fresh=True)(data)

    def named(self) -> Any:
        """What stands for it in the name of a run, beside the model that it gives."""
        modules = [usercode.import_module(name, "import") for name in self.imports]
        if self.fresh:
            return FRESH, modules
        with open(self.file, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), modules


def _stamp_of(file: str) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns
