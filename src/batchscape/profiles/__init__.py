"""How large our own jobs are: `smoke` takes seconds, `quick` minutes, `paper` is behind the stored figures."""

from collections.abc import Mapping
from typing import Any, TypeVar

from batchscape.errors import unknown_name
from batchscape.profiles.cost import COST_PROFILES, CostProfile, Net
from batchscape.profiles.main import PROFILES, Profile
from batchscape.profiles.minima import MINIMA_PROFILES, REPLICATIONS, MinimaProfile, Replication
from batchscape.profiles.noise import NOISE_PROFILES, NoiseProfile
from batchscape.profiles.rates import RATES_PROFILES, RatesProfile
from batchscape.profiles.target import TARGET_PROFILES, TargetProfile

AnyProfile = TypeVar(
    "AnyProfile", Profile, NoiseProfile, MinimaProfile, Replication, RatesProfile, TargetProfile, CostProfile
)

__all__ = [
    "COST_PROFILES",
    "MINIMA_PROFILES",
    "NOISE_PROFILES",
    "PROFILES",
    "RATES_PROFILES",
    "REPLICATIONS",
    "TARGET_PROFILES",
    "CostProfile",
    "MinimaProfile",
    "Net",
    "NoiseProfile",
    "Profile",
    "RatesProfile",
    "Replication",
    "TargetProfile",
    "execution",
    "find",
]


def execution(profile: AnyProfile, how: Mapping[str, Any]) -> dict[str, Any]:
    """How to execute a profile: as asked for, but `"auto"` is this process for `"smoke"`, done before workers start."""
    asked = how.get("executor", "auto")
    return {**how, "executor": "serial" if asked == "auto" and profile.name == "smoke" else asked}


def find(profile: str | AnyProfile, profiles: Mapping[str, AnyProfile] = PROFILES) -> AnyProfile:
    """The profile of that name; a profile itself is given back."""
    if not isinstance(profile, str):
        return profile
    if profile not in profiles:
        raise unknown_name("profile", profile, profiles)
    return profiles[profile]
