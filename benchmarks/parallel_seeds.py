"""Updates a second of seeds trained side by side, against one seed alone.

    [KERAS_BACKEND=jax] python benchmarks/parallel_seeds.py [--rounds 9] [--record figures/data/speed]

All are compiled once and timed in turn, a few blocks of updates each; an update of R seeds counts R times. A ratio is
taken within a round, 1 being no gain; what cannot be compiled as it is for one is left out. The table says which backend
and device it is of.
"""

import argparse
import pathlib
import statistics
from collections.abc import Callable, Sequence

from batchscape.backend.importing import import_keras

import_keras()

import pandas as pd

import batchscape as bs
from batchscape import backend
from batchscape.train.parallel_seeds import ParallelSeedsPlan, ParallelSeedsTrainer
from batchscape.train.plan import Plan
from batchscape.train.trainer import Trainer

SEEDS = (1, 2, 4, 8)
BATCH_SIZES = (1, 8, 32, 128)


def compare(build: str | Callable, data: bs.Data, batch_sizes: Sequence[int], rounds: int) -> pd.DataFrame:
    """One row a batch size and number of parallel seeds."""
    rows = []
    for batch_size in batch_sizes:
        cell = bs.Cell(batch_size=batch_size, epochs=1, learning_rate=0.01)
        timers = {count: time for count in SEEDS if (time := timer(cell, build, data, count))}
        times = {count: [] for count in timers}
        for _ in range(rounds):
            for count, time in timers.items():
                times[count].append(time())
        for count, seconds in times.items():
            gains = [alone / own for alone, own in zip(times[1], seconds, strict=True)]
            spread = {"ratio": statistics.median(gains), "ratio_low": min(gains), "ratio_high": max(gains)}
            speed = {"updates_per_s": 1 / statistics.median(seconds), "rounds": rounds}
            rows.append({"batch_size": batch_size, "parallel_seeds": count, **speed, **spread})
    return pd.DataFrame(rows)


def timer(cell: bs.Cell, build: str | Callable, data: bs.Data, count: int) -> Callable[[], float] | None:
    """What gives the seconds of an update, divided by the number of parallel seeds; None where they cannot be compiled."""
    plan = Plan.of(cell, data.n_train)
    if count == 1:
        trainer = Trainer(cell, data, build)
    else:
        trainer, plan = ParallelSeedsTrainer(cell, data, build, count), ParallelSeedsPlan.together([plan] * count)
    try:
        trainer.seconds_per_update(cell)  # Compiles.
    except Exception as error:
        print(f"B = {cell.batch_size}, {count} seeds: {type(error).__name__}", flush=True)
        return None
    return lambda: trainer._time_update(plan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--record", type=pathlib.Path, help="folder for the table, figures/data/speed for ours")
    options = parser.parse_args()
    digits = bs.load_dataset("digits")
    tables = [
        compare(model, digits, BATCH_SIZES, options.rounds).assign(model=model, backend=backend.name())
        for model in ("mlp", "cnn")
    ]
    table = pd.concat(tables, ignore_index=True).assign(device=backend.device())
    print(table.to_string(index=False, float_format="{:.3g}".format))
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.record / f"parallel_seeds_{backend.name()}.csv", index=False, float_format="%.5g")
