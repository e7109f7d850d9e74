"""How large the study of what a batch costs is."""

import dataclasses

from batchscape.study import profiles

PUBLISHED_SIZES = (5, 10, 20, 50, 100, 256, 500, 1000, 2000, 5000)
"""Batch sizes of the published table of LeNet on MNIST that has a time for each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A net whose updates are timed, and whose memory is measured.

    Attributes:
        name: What to call it.
        model: The name of a model.
        width: By how much its hidden layers are widened; only `"mlp"` can be.
        batch_sizes: Batch sizes that are timed, rising.
        peak_sizes: Batch sizes whose memory is measured, rising; the largest is a multiple of each. None of them by default.
    """

    name: str
    model: str = "mlp"
    width: int = 1
    batch_sizes: tuple[int, ...]
    peak_sizes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostProfile:
    """How large the study of what a batch costs is.

    Attributes:
        name: `"smoke"`, `"quick"` or `"paper"`.
        dataset: What is trained on.
        nets: The nets.
        rounds: Replicates. In each of them every net is timed in a fresh process, and every batch size of every net has a
            fresh process in which its memory is measured.
        repeats: Timings of each batch size in a process, after one that compiles.
        seconds: How long each of them lasts, at least.
        timed_on: Examples that a process holds that times, at least the largest batch; None for all.
        counted: Batch sizes at which the updates of an epoch are counted.
    """

    name: str
    dataset: str
    nets: tuple[Net, ...]
    rounds: int
    repeats: int = 3
    seconds: float = 0.1
    timed_on: int | None = None
    counted: tuple[int, ...]


_POWERS = (1, 4, 16, 64, 256, 1024, 4096)
_ON_DIGITS = {"batch_sizes": (1, 4, 16, 64, 256, 1280), "peak_sizes": (1, 320, 640, 1280)}

COST_PROFILES = {
    profile.name: profile
    for profile in (
        CostProfile(
            name="smoke",
            dataset="digits",
            nets=(
                Net(name="MLP × 1", batch_sizes=(1, 32, 1280), peak_sizes=(1, 1280)),
                Net(name="MLP × 16", width=16, batch_sizes=(1, 32, 1280)),
            ),
            rounds=1,
            repeats=1,
            seconds=0.02,
            counted=(100, 1280),
        ),
        CostProfile(
            name="quick",
            dataset="digits",
            nets=(Net(name="MLP × 1", **_ON_DIGITS), Net(name="MLP × 16", width=16, **_ON_DIGITS)),
            rounds=3,
            counted=(1, 10, 100, 1000),
        ),
        CostProfile(
            name="paper",
            dataset="mnist",
            nets=(
                Net(name="MLP × 1", batch_sizes=_POWERS, peak_sizes=(1, 4096, 8192, 16384)),
                Net(name="MLP × 4", width=4, batch_sizes=_POWERS),
                Net(name="MLP × 16", width=16, batch_sizes=_POWERS, peak_sizes=(1, 4096, 8192, 16384)),
                Net(name="LeNet", model="lenet", batch_sizes=PUBLISHED_SIZES, peak_sizes=(1, 1024, 2048, 4096)),
            ),
            timed_on=10_000,
            rounds=6,
            counted=PUBLISHED_SIZES,
        ),
    )
}

profiles.register("cost", COST_PROFILES)
