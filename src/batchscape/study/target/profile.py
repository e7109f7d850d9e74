"""How large the study of the time to a target is."""

import dataclasses

from batchscape.config import LR_POLICIES, Cell, Grid
from batchscape.study import profiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetProfile:
    """How large the study of the time to a target is: every batch size at a rate that follows it in several ways.

    Attributes:
        name: `"smoke"`, `"quick"`, `"paper"` or `"full"`.
        dataset, train_size, model: What is trained.
        seeds: Number of paired seeds of `batch_sizes`.
        batch_sizes: Batch sizes with all seeds.
        other_sizes: Batch sizes with one seed only.
        fewer_seeds: Policies with fewer seeds, and how many; they are not tried at `other_sizes`.
        base_batch_size, base_rate: B₀ and η₀, where all policies agree.
        epochs: Epochs of every run.
        target: The validation accuracy to reach.
        repeats: Interleaved timings of each batch size in a process of its own; with 0 the runs' own records count.
    """

    name: str
    dataset: str = "mnist"
    train_size: int | None = None
    model: str = "lenet"
    seeds: int = 6
    batch_sizes: tuple[int, ...]
    other_sizes: tuple[int, ...] = ()
    fewer_seeds: tuple[tuple[str, int], ...] = ()
    base_batch_size: int = 50
    base_rate: float = 0.1
    epochs: int
    target: float
    repeats: int = 5

    def rate(self, batch_size: int, policy: str) -> float:
        """The learning rate of a batch size under one of `LR_POLICIES`, η₀ (B / B₀)ᵖ."""
        return self.base_rate * (batch_size / self.base_batch_size) ** LR_POLICIES[policy]

    def grid(self, seed: int | None = None) -> Grid:
        """The cells, seed by seed, or those of one seed; a cell on which policies agree is there once."""
        seeds = range(self.seeds) if seed is None else [seed]
        cells = [
            self._cell(batch_size, policy, number)
            for number in seeds
            for batch_size in sorted(self.batch_sizes + (self.other_sizes if number == 0 else ()))
            for policy in LR_POLICIES
            if self.is_tried(batch_size, policy, number)
        ]
        return Grid(dict.fromkeys(cells))

    def is_tried(self, batch_size: int, policy: str, seed: int) -> bool:
        """Whether there is such a run."""
        fewer = dict(self.fewer_seeds)
        return policy not in fewer or (batch_size in self.batch_sizes and seed < fewer[policy])

    def _cell(self, batch_size: int, policy: str, seed: int) -> Cell:
        return Cell(
            dataset=self.dataset,
            train_size=self.train_size,
            model=self.model,
            learning_rate=self.rate(batch_size, policy),
            batch_size=batch_size,
            epochs=self.epochs,
            seed=seed,
        )


TARGET_PROFILES = {
    profile.name: profile
    for profile in (
        TargetProfile(
            name="smoke",
            dataset="digits",
            train_size=320,
            model="mlp",
            seeds=2,
            batch_sizes=(8, 32, 320),
            base_batch_size=32,
            epochs=8,
            target=0.8,
            repeats=0,
        ),
        TargetProfile(
            name="quick",
            dataset="digits",
            model="mlp",
            batch_sizes=(2, 8, 32, 128, 1280),
            base_batch_size=32,
            epochs=30,
            target=0.95,
        ),
        TargetProfile(
            name="paper",
            train_size=10_000,
            batch_sizes=(5, 20, 50, 256, 1000, 5000),
            other_sizes=(1, 2, 10, 100, 500, 2000),
            fewer_seeds=(("sqrt", 4),),
            epochs=20,
            target=0.97,
        ),
        TargetProfile(
            name="full",
            batch_sizes=(1, 2, 5, 10, 20, 50, 100, 256, 500, 1000, 2000, 5000),
            epochs=200,
            target=0.99,
        ),
    )
}

profiles.register("target", TARGET_PROFILES)
