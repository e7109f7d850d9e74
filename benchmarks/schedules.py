"""Time of an update under a learning-rate schedule against the plain fused engine, as a table.

    python benchmarks/schedules.py [REPEATS]

Both models are compiled once and timed in turns (a block of updates each, as `Record.facts["seconds_per_update"]` is);
the ratio is of the shortest times, 1 being no loss: a busy machine only ever adds.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import batchscape as bs
from batchscape.train.fit import Trainer
from batchscape.train.plan import Plan

SCHEDULES = {
    "plain": {},
    "warm-up, cosine": {"warmup": 1.0, "decay": "cosine"},
    "warm-up, three steps": {"warmup": 1.0, "decay": "steps", "decay_at": (2, 4, 6)},
}


def seconds_per_update(model: str, batch_size: int, repeats: int) -> dict[str, float]:
    """Shortest seconds of an update under each schedule."""
    data, trainers = bs.load_dataset("digits"), {}
    for name, changes in SCHEDULES.items():
        cell = bs.Cell(model=model, batch_size=batch_size, learning_rate=0.1, engine="fused", **changes)
        trainer = Trainer(cell, data, model)
        trainer.run(cell)
        trainers[name] = trainer, Plan.of(cell, data.n_train)
    times = {name: [] for name in trainers}
    for _ in range(repeats):
        for name, (trainer, plan) in trainers.items():
            times[name].append(trainer._engine.time_update(plan))
    return {name: min(seconds) for name, seconds in times.items()}


def main(repeats: str = "15") -> None:
    print(f"{'model':8}{'batch':>6}  {'schedule':22}{'µs/update':>10}{'speed':>8}")
    for model, batch_size in (("mlp", 1), ("mlp", 32), ("mlp", 256), ("cnn", 8), ("cnn", 128)):
        times = seconds_per_update(model, batch_size, int(repeats))
        for name, seconds in times.items():
            print(f"{model:8}{batch_size:6}  {name:22}{1e6 * seconds:10.1f}{times['plain'] / seconds:8.2f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
