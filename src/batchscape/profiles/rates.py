"""How large the study of the learning rate is."""

import dataclasses

from batchscape.config import Cell, Grid
from batchscape.profiles.main import PROFILES


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatesProfile:
    """How large the study of the learning rate is: every batch size at every rate, with two budgets.

    Rates are `base_rate` × 2ᵏ, so that a fixed rate, one ∝ √B, one ∝ B and the best one are all among them.

    Attributes:
        name: `"smoke"`, `"quick"`, `"paper"` or `"fashion"`.
        dataset, train_size, model: What is trained.
        seeds: Number of paired seeds.
        batch_sizes: Batch sizes.
        base_batch_size, base_rate: Where all policies agree.
        powers: Exponents k, from the first to the last.
        epochs: Epochs of the first budget; the second is as many updates as these take at `base_batch_size`.
        by_updates: Whether there is a second budget.
        looks: Evaluations along each run.
    """

    name: str
    dataset: str = PROFILES["paper"].dataset
    train_size: int | None = None
    model: str = PROFILES["paper"].model
    seeds: int
    batch_sizes: tuple[int | str, ...]
    base_batch_size: int = 32
    base_rate: float = PROFILES["paper"].learning_rate
    powers: tuple[int, int]
    epochs: int
    by_updates: bool = True
    looks: int = 10

    @property
    def rates(self) -> list[float]:
        """All learning rates, rising."""
        return [self.base_rate * 2.0**power for power in range(self.powers[0], self.powers[1] + 1)]

    def grid(self, n_train: int) -> Grid:
        """The cells on `n_train` training examples: budgets, batch sizes, rates, seeds."""
        updates = self.epochs * -(-n_train // self.base_batch_size)
        cells = []
        for batch_size in self.batch_sizes:
            size = n_train if batch_size == "full" else batch_size
            budgets = [({"epochs": self.epochs}, self.epochs)]
            if self.by_updates:
                budgets.append(({"updates": updates}, updates / -(-n_train // size)))
            cells += [
                Cell(
                    dataset=self.dataset,
                    train_size=self.train_size,
                    model=self.model,
                    optimizer="sgd",
                    learning_rate=rate,
                    batch_size=batch_size,
                    evaluate_every=epochs / self.looks,
                    seed=seed,
                    **budget,
                )
                for budget, epochs in budgets
                for rate in self.rates
                for seed in range(self.seeds)
            ]
        return Grid(cells)


RATES_PROFILES = {
    profile.name: profile
    for profile in (
        RatesProfile(
            name="smoke", train_size=320, seeds=2, batch_sizes=(8, 32, 128), powers=(-2, 2), epochs=1, looks=2
        ),
        RatesProfile(name="quick", seeds=6, batch_sizes=(8, 32, 128, 512, "full"), powers=(-4, 5), epochs=30),
        RatesProfile(name="paper", seeds=10, batch_sizes=(1, 8, 32, 128, 512, "full"), powers=(-6, 5), epochs=30),
        RatesProfile(
            name="fashion",
            dataset="fashion_mnist",
            train_size=5000,
            model="cnn",
            seeds=10,
            batch_sizes=(32, 128, 256),
            base_rate=0.01,
            powers=(0, 3),
            epochs=20,
            by_updates=False,
            looks=10,
        ),
    )
}
