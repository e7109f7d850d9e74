"""The registry of profiles: how large our own studies are.

`smoke` takes seconds, `quick` minutes, and the stored figures come from `paper`. Each study registers its profiles in its
own `profile.py`.
"""

from collections.abc import Mapping
from typing import Any

from batchscape.errors import unknown_name

PROFILES: dict[str, Mapping[str, Any]] = {}
"""The profiles of each study by name; those of published comparisons stand under `"replication"`."""


def register(study: str, profiles: Mapping[str, Any]) -> None:
    """Make the profiles of a study known."""
    PROFILES[study] = profiles


def find(study: str, profile: Any) -> Any:
    """Return the profile of a study by its name; a profile itself is given back.

    Raises:
        InvalidInput: If the study has no profile of that name.
    """
    if not isinstance(profile, str):
        return profile
    if profile not in PROFILES[study]:
        raise unknown_name("profile", profile, PROFILES[study])
    return PROFILES[study][profile]


def execution(profile: Any, *, executor: str, workers: int | None, show_progress: bool) -> dict[str, Any]:
    """Return how `run_sweep` executes a profile: as asked for, but `"auto"` is this process for `"smoke"`.

    A smoke study is done before worker processes have started.
    """
    if executor == "auto" and profile.name == "smoke":
        executor = "serial"
    return {"executor": executor, "workers": workers, "show_progress": show_progress}
