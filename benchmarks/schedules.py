"""Updates a second under a learning-rate schedule, against the plain fused engine.

    python benchmarks/schedules.py [--rounds 15] [--record figures/data/speed]

All trainers are compiled once and timed in turn, a block of updates each (as `Record.facts["seconds_per_update"]` is); a
ratio is taken within a round, 1 being no loss.
"""

import argparse
import pathlib
import statistics

from batchscape.backend.importing import import_keras

import_keras()

import pandas as pd

import batchscape as bs
from batchscape.train.plan import Plan
from batchscape.train.trainer import Trainer

SCHEDULES = {
    "plain": {},
    "warm-up, cosine": {"warmup": 1.0, "decay": "cosine"},
    "warm-up, three steps": {"warmup": 1.0, "decay": "steps", "decay_at": (2, 4, 6)},
}
SIZES = (("mlp", 1), ("mlp", 32), ("mlp", 256), ("cnn", 8), ("cnn", 128))


def compare(model: str, batch_size: int, rounds: int) -> list[dict]:
    """One row a schedule."""
    data, timers = bs.load_dataset("digits"), {}
    for name, changes in SCHEDULES.items():
        cell = bs.Cell(model=model, batch_size=batch_size, learning_rate=0.1, engine="fused", **changes)
        trainer = Trainer(cell, data, model)
        trainer.run(cell)
        timers[name] = trainer, Plan.of(cell, data.n_train)
    times = {name: [] for name in timers}
    for _ in range(rounds):
        for name, (trainer, plan) in timers.items():
            times[name].append(trainer._engine.time_update(plan))
    rows = []
    for name, seconds in times.items():
        ratios = [plain / own for plain, own in zip(times["plain"], seconds, strict=True)]
        spread = {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        speed = {"updates_per_s": 1 / statistics.median(seconds), "rounds": rounds}
        rows.append({"model": model, "batch_size": batch_size, "schedule": name, **speed, **spread})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", type=pathlib.Path, help="folder for the table, figures/data/speed for ours")
    options = parser.parse_args()
    table = pd.DataFrame([row for size in SIZES for row in compare(*size, options.rounds)])
    print(table.to_string(index=False, float_format="{:.3g}".format))
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.record / "schedules.csv", index=False, float_format="%.5g")
