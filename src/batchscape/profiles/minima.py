"""How large the study of the minima is."""

import dataclasses

from batchscape.config import Cell, Grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimaProfile:
    """A published comparison of a small and a large batch, done again.

    Three arms: the small batch, the large one at the same rate η, and the large one at the same η/B. Each is trained for a
    number of epochs, and until a training loss.

    Attributes:
        name: Name of the study.
        source: Where the original stands.
        dataset, model, optimizer, learning_rate: What is trained, and how.
        small, large: The two batch sizes.
        epochs: Epochs of the first budget.
        until_loss: Training loss that ends the second.
        max_updates: Updates after which the second is given up, at the small and at the large batch.
        seeds: Number of paired seeds.
        train_size: Training examples, None for all.
        hessian_examples: Examples of the Hessian; the sharpness takes all.
        n_probes: Random probes of each trace.
    """

    name: str
    source: str
    dataset: str
    model: str
    small: int
    large: int
    epochs: int
    until_loss: float
    max_updates: tuple[int, int]
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    seeds: int = 6
    train_size: int | None = None
    hessian_examples: int = 5000
    n_probes: int = 16

    def grid(self) -> Grid:
        """The cells: three arms, two budgets."""
        ratio = self.large / self.small
        arms = (
            (self.small, self.learning_rate, self.max_updates[0]),
            (self.large, self.learning_rate, self.max_updates[1]),
            (self.large, self.learning_rate * ratio, self.max_updates[1]),
        )
        return Grid(
            Cell(
                dataset=self.dataset,
                train_size=self.train_size,
                model=self.model,
                optimizer=self.optimizer,
                learning_rate=rate,
                batch_size=batch_size,
                seed=seed,
                **budget,
            )
            for seed in range(self.seeds)
            for batch_size, rate, most in arms
            for budget in ({"epochs": self.epochs}, {"until_loss": self.until_loss, "max_updates": most})
        )


MINIMA_PROFILES = {
    profile.name: profile
    for profile in (
        MinimaProfile(
            name="keskar-f1",
            source="Keskar et al. 2017, net F1",
            dataset="mnist",
            model="keskar_f1",
            small=256,
            large=5000,
            epochs=20,
            until_loss=0.01,
            max_updates=(4000, 400),
        ),
        MinimaProfile(
            name="keskar-c1",
            source="Keskar et al. 2017, net C1",
            dataset="cifar10_5k",
            model="keskar_c1",
            small=25,
            large=500,
            epochs=30,
            until_loss=0.1,
            max_updates=(5400, 540),
        ),
    )
}
