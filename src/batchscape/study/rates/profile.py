"""How large the study of the learning rate is."""

import dataclasses

from batchscape.config import Cell, Grid
from batchscape.study import profiles
from batchscape.study.main.profile import PROFILES


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatesProfile:
    """How large the study of the learning rate is: every batch size at every rate, with two budgets.

    Rates are `base_rate` × 2ᵏ, so that a fixed rate, one ∝ √B, one ∝ B and the best one are all among them.

    Attributes:
        name: `"smoke"`, `"quick"`, `"paper"`, `"fashion"`, `"cifar"` or `"mnist"`.
        dataset, train_size, model: What is trained.
        seeds: Number of paired seeds.
        batch_sizes: Batch sizes.
        base_batch_size, base_rate: Where all policies agree.
        powers: Exponents k, from the first to the last.
        epochs: Epochs of the first budget; the second is as many updates as these take at `base_batch_size`.
        by_updates: Whether there is a second budget.
        looks: Evaluations along each run.
        warmup: Epochs of gradual warm-up.
        warm_batches: Batch sizes that are trained with and without it, at a rate ∝ B and multiples of that.
        multiples: These multiples.
        rules: Rates of other optimizers, by name, compared with SGD at equal updates.
        rule_batches: Batch sizes of that comparison.
        grow_from: Batch size and rate at the start of a run whose batch grows, or whose rate decays.
        grow_by: By which factor, each time.
        grow_at: Before which epochs.
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
    warmup: float = 5.0
    warm_batches: tuple[int, ...] = ()
    multiples: tuple[float, ...] = (1.0, 2.0, 4.0)
    rules: tuple[tuple[str, tuple[float, ...]], ...] = ()
    rule_batches: tuple[int | str, ...] = ()
    grow_from: tuple[int, float] = (16, 0.2)
    grow_by: int = 5
    grow_at: tuple[int, ...] = ()

    @property
    def rates(self) -> list[float]:
        """All learning rates, rising."""
        return [self.base_rate * 2.0**power for power in range(self.powers[0], self.powers[1] + 1)]

    def grid(self, n_train: int) -> Grid:
        """The cells on `n_train` training examples: budgets, batch sizes, rates, seeds."""
        budgets = ("epochs", "updates") if self.by_updates else ("epochs",)
        return Grid(
            self._cell(n_train, budget, batch_size=batch_size, learning_rate=rate, seed=seed)
            for batch_size in self.batch_sizes
            for budget in budgets
            for rate in self.rates
            for seed in range(self.seeds)
        )

    def warm_grid(self, n_train: int) -> Grid:
        """Large batches at large rates, with and without warm-up, for equal epochs."""
        return Grid(
            self._cell(n_train, "epochs", batch_size=batch_size, learning_rate=rate, warmup=warmup, seed=seed)
            for batch_size in self.warm_batches
            for rate in (self.base_rate * batch_size / self.base_batch_size * multiple for multiple in self.multiples)
            for warmup in (0.0, self.warmup)
            for seed in range(self.seeds)
        )

    def rule_grid(self, n_train: int) -> Grid:
        """SGD and other optimizers, for equal updates."""
        return Grid(
            self._cell(n_train, "updates", batch_size=batch_size, optimizer=rule, learning_rate=rate, seed=seed)
            for batch_size in self.rule_batches
            for rule, rates in (("sgd", self.rates), *self.rules)
            for rate in rates
            for seed in range(self.seeds)
        )

    def grow_grids(self) -> dict[str, Grid]:
        """The cells of twins, by what they do: the rate decays, or the batch grows, or neither, or it is large at once."""
        size, rate = self.grow_from
        sizes = [size * self.grow_by ** (step + 1) for step in range(len(self.grow_at))]
        arms = {
            "rate decays": {"decay": "steps", "decay_at": self.grow_at, "decay_factor": 1 / self.grow_by},
            "batch grows": {"batch_steps": tuple(zip(self.grow_at, sizes, strict=True))},
            "neither": {},
            "large at once": {"batch_size": sizes[-1]},
        }
        return {
            arm: Grid(
                Cell(
                    dataset=self.dataset,
                    train_size=self.train_size,
                    model=self.model,
                    epochs=self.epochs,
                    seed=seed,
                    **{"batch_size": size, "learning_rate": rate, **fields},
                )
                for seed in range(self.seeds)
            )
            for arm, fields in arms.items()
        }

    def _cell(self, n_train: int, budget: str, **fields) -> Cell:
        size = n_train if fields["batch_size"] == "full" else fields["batch_size"]
        updates = self.epochs * -(-n_train // self.base_batch_size)
        epochs = self.epochs if budget == "epochs" else updates / -(-n_train // size)
        return Cell(
            dataset=self.dataset,
            train_size=self.train_size,
            model=self.model,
            evaluate_every=epochs / self.looks,
            **{"optimizer": "sgd", budget: self.epochs if budget == "epochs" else updates, **fields},
        )


_RULES = (
    ("rmsprop", tuple(1e-4 * 4.0**power for power in range(5))),
    ("rprop", (1e-4, 1e-3, 1e-2)),
)

_PUBLISHED = RatesProfile(
    name="fashion",
    dataset="fashion_mnist",
    train_size=5000,
    model="cnn",
    seeds=10,
    batch_sizes=(32, 256),
    base_rate=0.01,
    powers=(0, 3),
    epochs=20,
    by_updates=False,
)
"""The comparison of Chang and Pathak (2020): B = 256 at one rate and at eight times that, against 32."""

RATES_PROFILES = {
    profile.name: profile
    for profile in (
        RatesProfile(
            name="smoke",
            train_size=320,
            seeds=2,
            batch_sizes=(32, "full"),
            powers=(0, 1),
            epochs=2,
            looks=1,
            warmup=0.5,
            warm_batches=(128,),
            multiples=(1.0,),
            rules=(("rprop", (1e-3,)),),
            rule_batches=("full",),
            grow_at=(1,),
        ),
        RatesProfile(
            name="quick",
            seeds=6,
            batch_sizes=(8, 32, 128, 512, "full"),
            powers=(-4, 5),
            epochs=30,
            warm_batches=(512,),
            rules=_RULES,
            rule_batches=(32, "full"),
            grow_at=(10, 20),
        ),
        RatesProfile(
            name="paper",
            seeds=10,
            batch_sizes=(1, 8, 32, 128, 512, "full"),
            powers=(-6, 5),
            epochs=30,
            warm_batches=(128, 512),
            rules=_RULES,
            rule_batches=(32, 128, 512, "full"),
            grow_at=(10, 20),
        ),
        _PUBLISHED,
        dataclasses.replace(_PUBLISHED, name="cifar", dataset="cifar10_5k", train_size=None),
        RatesProfile(
            name="mnist",
            dataset="mnist",
            seeds=6,
            batch_sizes=(256, "full"),
            base_batch_size=256,
            powers=(0, 0),
            epochs=3,
            looks=6,
        ),
    )
}

profiles.register("rates", RATES_PROFILES)
