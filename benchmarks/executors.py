"""A sweep of equal cells, one process against one process a core, interleaved.

    python benchmarks/executors.py [--cells 80] [--rounds 2]

Both train the same cells into a fresh store each time; the seconds include the start of the workers, which pay the
import of TensorFlow and compile for themselves. The serial sweep may use all cores inside an operation, workers use one
thread each.
"""

import argparse
import statistics
import tempfile
import time

from batchscape.quiet import import_tensorflow

import_tensorflow()

import batchscape as bs
from batchscape.cpu import cores


def seconds(executor: str, cells: int) -> float:
    """Seconds of a sweep into a fresh store."""
    grid = bs.Grid(batch_size=32, epochs=200, learning_rate=0.1, engine="fused", seed=range(cells))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        frame = bs.run_sweep(grid, store=folder, executor=executor, show_progress=False)
        assert set(frame["status"]) == {"COMPLETE"}
        return time.perf_counter() - begin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    seconds("serial", 1)
    ratios = []
    for _ in range(options.rounds):
        serial, processes = (seconds(executor, options.cells) for executor in ("serial", "processes"))
        ratios.append(serial / processes)
        print(f"{options.cells} cells: serial {serial:.1f} s, {cores()} processes {processes:.1f} s", flush=True)
    print(f"processes are × {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
