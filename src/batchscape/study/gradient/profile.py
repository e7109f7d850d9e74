"""How large the study of the gradient is."""

import dataclasses

from batchscape.config import Grid
from batchscape.study import profiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseProfile:
    """How large the study of the gradient is.

    Runs of one batch size, and random batches of many at their weights; where `curve_batch_sizes` is given, also runs of
    a few epochs at many batch sizes, with and without a last batch of one, the shape of the loss around the weights, and
    what a full gradient costs.

    Attributes:
        name: `"smoke"`, `"quick"`, `"paper"`, or one of the studies of MNIST.
        seeds: Number of seeds.
        epochs: Epochs after which the gradient is looked at, besides the start.
        batch_sizes: Sizes of the random batches.
        n_batches: Batches of each size.
        train_size: Training examples; 1,001 leave a last batch of one at a batch size of 100.
        trained_at: Batch size of the runs.
        learning_rate: Their rate, η.
        curve_batch_sizes: Batch sizes of the runs of `curve_epochs` epochs at that rate.
        curve_families: The same at a fixed η/B: tuples of (batch size, learning rate) pairs of equal ratio.
        curve_epochs: Their epochs; the wobble of a curve is that of its last two thirds.
        radii: Distances from the weights, as shares of ‖w‖, at which the loss is compared with a bowl.
        costs_of: Numbers of examples whose full gradient is timed.
        target_batch_sizes: Batch sizes of the runs that train until `target_loss`.
        target_rates: Learning rates of them, each tried at each batch size.
        target_loss: Training loss at which they stop.
        path_updates: Updates after which the way over the error surface is looked at.
    """

    name: str
    seeds: int
    epochs: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    n_batches: int
    train_size: int | None = 1001
    trained_at: int = 32
    learning_rate: float = 0.1
    dataset: str = "digits"
    model: str = "mlp"
    curve_batch_sizes: tuple[int, ...] = ()
    curve_families: tuple[tuple[tuple[int, float], ...], ...] = ()
    curve_epochs: int = 30
    radii: tuple[float, ...] = ()
    costs_of: tuple[int, ...] = ()
    target_batch_sizes: tuple[int, ...] = ()
    target_rates: tuple[float, ...] = ()
    target_loss: float = 0.1
    path_updates: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 35, 40, 50, 60)

    @property
    def surface_directions(self) -> int:
        """Random directions in which the loss is compared with a bowl."""
        return 8 if self.name == "smoke" else 50

    @property
    def plane_points(self) -> int:
        """Points a side of the plane around the ways over the error surface."""
        return 7 if self.name == "smoke" else 31

    def grid(self) -> Grid:
        """The runs at whose weights gradients are compared."""
        return self._grid(train_size=self.train_size, batch_size=self.trained_at, epochs=self.epochs)

    def curve_grid(self) -> Grid:
        """The runs of a few epochs, both strata, each run once."""
        pairs = [(batch_size, self.learning_rate) for batch_size in self.curve_batch_sizes]
        pairs += [pair for family in self.curve_families for pair in family]
        grids = [
            self._grid(learning_rate=rate, batch_size=batch_size, epochs=self.curve_epochs)
            for batch_size, rate in dict.fromkeys(pairs)
        ]
        return Grid(cell for grid in grids for cell in grid)

    def tail_grid(self) -> Grid:
        """Runs at B = 100, looked at after every update, that keep or drop the last batch of an epoch."""
        return Grid(
            cell
            for last_batch, per_epoch in (("keep", 11), ("drop", 10))
            for cell in self._grid(
                train_size=1001,
                batch_size=100,
                epochs=max(self.epochs),
                last_batch=last_batch,
                evaluate_every=1 / per_epoch,
            )
        )

    def target_grid(self) -> Grid:
        """The runs that train until a target, at every batch size and rate."""
        return self._grid(
            batch_size=self.target_batch_sizes,
            learning_rate=self.target_rates,
            until_loss=self.target_loss,
            max_updates=6000,
            evaluate_every=0.1,
        )

    def path_grid(self, dataset: str, model: str) -> Grid:
        """Runs of single examples, mini-batches and everything, one for each update to look at."""
        return self._grid(
            dataset=dataset,
            model=model,
            train_size=self.train_size,
            batch_size=(1, 32, "full"),
            updates=self.path_updates,
            learning_rate=0.05,
            seed=0,
            evaluate_every=100,
        )

    def surface_grid(self, model: str) -> Grid:
        """The longest runs of `grid`, of any model."""
        return self._grid(train_size=self.train_size, batch_size=self.trained_at, epochs=max(self.epochs), model=model)

    def _grid(self, **axes) -> Grid:
        shared = {"dataset": self.dataset, "model": self.model, "optimizer": "sgd", "seed": range(self.seeds)}
        return Grid(**{**shared, "learning_rate": self.learning_rate, **axes})


NOISE_PROFILES = {
    profile.name: profile
    for profile in (
        NoiseProfile(
            name="smoke",
            seeds=2,
            epochs=(1, 2),
            batch_sizes=(1, 10, 100, 201),
            n_batches=10,
            train_size=201,
            curve_batch_sizes=(64, 320),
            curve_families=(((64, 0.1), (128, 0.2)),),
            curve_epochs=3,
            radii=(0.01, 1.0),
            costs_of=(1_000, 2_000),
            target_batch_sizes=(16, 128, 640),
            target_rates=(0.2,),
            target_loss=0.5,
            path_updates=(1, 3),
        ),
        NoiseProfile(
            name="quick",
            seeds=6,
            epochs=(1, 5, 20),
            batch_sizes=(1, 4, 16, 32, 100, 256, 500, 1001),
            n_batches=100,
            curve_batch_sizes=(4, 16, 64, 320),
            curve_families=(((4, 0.0125), (16, 0.05), (64, 0.2), (256, 0.8)),),
            radii=(0.001, 0.01, 0.1, 1.0),
            costs_of=(100_000, 200_000, 400_000),
            target_batch_sizes=(4, 16, 64, 256, 1280),
            target_rates=(0.05, 0.1, 0.2, 0.4, 0.8),
        ),
        NoiseProfile(
            name="paper",
            seeds=10,
            epochs=(1, 5, 20),
            batch_sizes=(1, 2, 4, 8, 16, 32, 64, 100, 128, 256, 500, 1001),
            n_batches=300,
            curve_batch_sizes=(4, 8, 16, 32, 64, 128, 320, 1280),
            curve_families=(((4, 0.0125), (8, 0.025), (16, 0.05), (32, 0.1), (64, 0.2), (128, 0.4), (256, 0.8)),),
            radii=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
            costs_of=(100_000, 200_000, 400_000),
            target_batch_sizes=(2, 4, 8, 16, 32, 64, 128, 256, 640, 1280),
            target_rates=(0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
        ),
        NoiseProfile(
            name="mnist",
            seeds=6,
            epochs=(1, 5, 20),
            batch_sizes=(1, 10, 100, 1000, 5000),
            n_batches=20,
            train_size=10_000,
            trained_at=100,
            dataset="mnist",
            model="lenet",
        ),
        NoiseProfile(
            name="mnist-first-epoch",
            seeds=6,
            epochs=(0.1, 0.25, 0.5, 1),
            batch_sizes=(128,),
            n_batches=2,
            train_size=None,
            trained_at=128,
            learning_rate=0.01,
            dataset="mnist",
            model="lenet",
        ),
    )
}

profiles.register("gradient", NOISE_PROFILES)
