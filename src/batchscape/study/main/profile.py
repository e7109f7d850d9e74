"""How large the main job is."""

import dataclasses

from batchscape.config import Cell, Grid
from batchscape.study import profiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """How large the main job is.

    The job trains `model` on `dataset` until the training loss is at most `until_loss`, at a fixed learning rate over
    `batch_sizes` and at fixed η/B over every family in `families`, then measures the minima.

    Attributes:
        name: `"smoke"`, `"quick"` or `"paper"`.
        seeds: Number of paired seeds.
        batch_sizes: Batch sizes of the stratum with a fixed rate.
        learning_rate: That rate, η.
        families: For the stratum with a fixed η/B, tuples of (batch size, learning rate) pairs of equal ratio.
        until_loss: Training loss at which runs stop.
        max_updates: Updates after which a run is given up.
        train_size: Training examples to keep, or None for all.
        n_probes: Random probes of each trace of the Hessian.
        n_alphas: Points on each line between two minima.
    """

    name: str
    seeds: int
    batch_sizes: tuple[int | str, ...]
    learning_rate: float
    families: tuple[tuple[tuple[int, float], ...], ...]
    until_loss: float
    max_updates: int
    dataset: str = "digits"
    train_size: int | None = None
    model: str = "mlp"
    n_probes: int = 64
    n_alphas: int = 61

    def grid(self) -> Grid:
        """The cells of the main job, both strata, each run once."""
        pairs = [(batch_size, self.learning_rate) for batch_size in self.batch_sizes]
        pairs += [pair for family in self.families for pair in family]
        return Grid(
            Cell(
                dataset=self.dataset,
                train_size=self.train_size,
                model=self.model,
                optimizer="sgd",
                learning_rate=learning_rate,
                batch_size=batch_size,
                until_loss=self.until_loss,
                max_updates=self.max_updates,
                seed=seed,
            )
            for batch_size, learning_rate in dict.fromkeys(pairs)
            for seed in range(self.seeds)
        )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            seeds=2,
            batch_sizes=(8, 32, "full"),
            learning_rate=0.2,
            families=(((8, 0.2), (32, 0.8)),),
            until_loss=0.5,
            max_updates=400,
            train_size=320,
            n_probes=4,
            n_alphas=7,
        ),
        Profile(
            name="quick",
            seeds=6,
            batch_sizes=(8, 32, 128, 320, "full"),
            learning_rate=0.1,
            families=(((8, 0.025), (32, 0.1), (128, 0.4)), ((8, 0.1), (32, 0.4), (64, 0.8))),
            until_loss=0.01,
            max_updates=20_000,
        ),
        Profile(
            name="paper",
            seeds=10,
            batch_sizes=(4, 8, 16, 32, 64, 128, 320, 640, "full"),
            learning_rate=0.1,
            families=(
                ((8, 0.025), (16, 0.05), (32, 0.1), (64, 0.2), (128, 0.4)),
                ((4, 0.05), (8, 0.1), (16, 0.2), (32, 0.4), (64, 0.8)),
            ),
            until_loss=0.01,
            max_updates=20_000,
            n_probes=128,
            n_alphas=121,
        ),
    )
}

profiles.register("main", PROFILES)
