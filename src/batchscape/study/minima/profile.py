"""How large the study of the minima is."""

import dataclasses
from collections.abc import Mapping

from batchscape.config import Cell, Grid
from batchscape.study import profiles
from batchscape.study.main.profile import PROFILES, Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimaProfile:
    """How large the study of the minima is; it goes on from the runs of the main job of that name.

    Attributes:
        name: `"smoke"`, `"quick"` or `"paper"`.
        measures: Names in `measures.MEASURES`.
        escape_to: The small batch that goes on from where full batch ended.
        escape_epochs: Epochs after which it is looked at.
        rescale_by: Factors α of Dinh's rescaling.
        flip_batches: The two batch sizes of the comparison with and without weight decay.
        flip_decays: Weight decays.
        flip_epochs: Epochs of these runs.
        n_directions: Random directions around each minimum.
        n_alphas: Points on each line.
    """

    name: str
    measures: tuple[str, ...]
    escape_to: int = 32
    escape_epochs: tuple[int, ...]
    rescale_by: tuple[float, ...]
    flip_batches: tuple[int, int]
    flip_decays: tuple[float, float]
    flip_epochs: int
    n_directions: int
    n_alphas: int

    @property
    def main(self) -> Profile:
        """The main job whose minima are measured."""
        return PROFILES[self.name]

    @property
    def spectrum(self) -> tuple[int, int]:
        """Random vectors of each spectrum, and Lanczos steps of each vector."""
        return (2, 20) if self.name == "smoke" else (4, 60)

    def escape_grid(self, starts: Mapping[int, str], n_train: int) -> Grid:
        """Runs that go on from the minima of full batch: with a small batch, at the same η and at the same η/B, and as before.

        Args:
            starts: Names of the runs of full batch, by seed.
            n_train: Examples in a full batch.
        """
        main, rows = self.main, []
        updates = [epochs * -(-n_train // self.escape_to) for epochs in self.escape_epochs]
        arms = (
            (self.escape_to, main.learning_rate),
            (self.escape_to, main.learning_rate * self.escape_to / n_train),
            ("full", main.learning_rate),
        )
        for seed, start in starts.items():
            for batch_size, rate in arms:
                rows += [
                    Cell(
                        dataset=main.dataset,
                        train_size=main.train_size,
                        model=main.model,
                        optimizer="sgd",
                        learning_rate=rate,
                        batch_size=batch_size,
                        updates=count,
                        initial_weights=start,
                        evaluate_every=1000,
                        seed=seed,
                    )
                    for count in updates
                ]
        return Grid(rows)

    def flip_grid(self, model: str) -> Grid:
        """Runs of a small and a large batch, with and without weight decay."""
        return Grid(
            dataset=self.main.dataset,
            train_size=self.main.train_size,
            model=model,
            optimizer="sgd",
            optimizer_options={"momentum": 0.9},
            learning_rate=self.main.learning_rate,
            batch_size=self.flip_batches,
            weight_decay=self.flip_decays,
            epochs=self.flip_epochs,
            evaluate_every=self.flip_epochs,
            seed=range(self.main.seeds),
        )


_MEASURES = (
    "phi",
    "phi_half",
    "phi_subspace",
    "worst",
    "average",
    "worst_of_128",
    "adaptive_worst",
    "adaptive_average",
)

MINIMA_PROFILES = {
    profile.name: profile
    for profile in (
        MinimaProfile(
            name="smoke",
            measures=("phi", "worst", "average", "adaptive_worst", "adaptive_average"),
            escape_epochs=(1,),
            rescale_by=(2.0,),
            flip_batches=(32, 160),
            flip_decays=(0.0, 0.02),
            flip_epochs=1,
            n_directions=2,
            n_alphas=5,
        ),
        MinimaProfile(
            name="quick",
            measures=_MEASURES,
            escape_epochs=(1, 5, 20, 50),
            rescale_by=(0.1, 0.3, 3.0, 10.0),
            flip_batches=(32, 640),
            flip_decays=(0.0, 0.02),
            flip_epochs=100,
            n_directions=10,
            n_alphas=61,
        ),
        MinimaProfile(
            name="paper",
            measures=_MEASURES,
            escape_epochs=(1, 5, 20, 50),
            rescale_by=(0.1, 0.2, 0.5, 2.0, 5.0, 10.0),
            flip_batches=(32, 640),
            flip_decays=(0.0, 0.02),
            flip_epochs=100,
            n_directions=10,
            n_alphas=61,
        ),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replication:
    """A published comparison of a small and a large batch, done again.

    Three arms: the small batch, the large one at the same rate η, and the large one at the same η/B. Each is trained for a
    number of epochs, and until a training loss.

    Attributes:
        name: Name of the study.
        source: Where the original stands.
        dataset, model, optimizer, learning_rate: What is trained, and how.
        small, large: The two batch sizes.
        epochs: Epochs of the first budget.
        until_loss: Training loss that ends the second; None for no second.
        max_updates: Updates after which the second is given up, at the small and at the large batch.
        seeds: Number of paired seeds.
        train_size: Training examples, None for all.
        hessian_examples: Examples of the Hessian; the sharpness takes all.
        n_probes: Random probes of each trace.
        measures: What is measured after the first budget; the first of them after the second.
    """

    name: str
    source: str
    dataset: str
    model: str
    small: int
    large: int
    epochs: int
    until_loss: float | None
    max_updates: tuple[int, int] = (0, 0)
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    seeds: int = 6
    train_size: int | None = None
    hessian_examples: int = 5000
    n_probes: int = 16
    measures: tuple[str, ...] = ("phi", "phi_half", "phi_subspace", "phi_subspace_half")

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
            if None not in budget.values()
        )


REPLICATIONS = {
    profile.name: profile
    for profile in (
        Replication(
            name="keskar-smoke",
            source="Keskar et al. 2017, on a small net",
            dataset="digits",
            model="mlp",
            small=32,
            large=160,
            epochs=1,
            until_loss=2.0,
            max_updates=(20, 20),
            seeds=2,
            train_size=320,
            hessian_examples=100,
            n_probes=2,
            measures=("phi",),
        ),
        Replication(
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
        Replication(
            name="keskar-c1",
            source="Keskar et al. 2017, net C1",
            dataset="cifar10_5k",
            model="keskar_c1",
            small=25,
            large=500,
            epochs=20,
            until_loss=None,
            seeds=6,
            hessian_examples=250,
            n_probes=8,
            measures=("phi",),
        ),
    )
}

profiles.register("minima", MINIMA_PROFILES)
profiles.register("replication", REPLICATIONS)
