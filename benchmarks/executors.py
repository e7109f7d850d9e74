"""A sweep of equal cells, one process against one process a core, interleaved.

    python benchmarks/executors.py [--cells 150] [--rounds 2] [--record figures/data/speed]

Both train the same cells into a fresh store each time; the seconds include the start of the workers, which pay the
import of TensorFlow and compile for themselves. The serial sweep may use all cores inside an operation, workers use one
thread each. A sweep of a third of the cells tells the start from the rest.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

from batchscape.backend.importing import import_keras

import_keras()

import pandas as pd

import batchscape as bs
from batchscape.system.cores import cores

EXECUTORS = ("serial", "processes")


def seconds(executor: str, cells: int) -> float:
    """Seconds of a sweep into a fresh store."""
    grid = bs.Grid(batch_size=8, epochs=200, learning_rate=0.1, engine="fused", seed=range(cells))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        frame = bs.run_sweep(grid, store=folder, executor=executor, show_progress=False)
        assert set(frame["status"]) == {"COMPLETE"}
        return time.perf_counter() - begin


def shown(ratios: list[float]) -> str:
    return f"× {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--record", type=pathlib.Path, help="folder for the table, figures/data/speed for ours")
    options = parser.parse_args()
    seconds("serial", 1)
    whole, marginal, rows = [], [], []
    for turn in range(options.rounds):
        few = {executor: seconds(executor, options.cells // 3) for executor in EXECUTORS}
        all_ = {executor: seconds(executor, options.cells) for executor in EXECUTORS}
        whole.append(all_["serial"] / all_["processes"])
        marginal.append((all_["serial"] - few["serial"]) / (all_["processes"] - few["processes"]))
        print(
            f"{options.cells} cells: serial {all_['serial']:.1f} s, {cores()} processes {all_['processes']:.1f} s",
            flush=True,
        )
        for cells, times in ((options.cells // 3, few), (options.cells, all_)):
            rows += [{"round": turn, "cells": cells, "executor": name, "seconds": times[name]} for name in EXECUTORS]
    print(f"processes are {shown(whole)} as fast, start included, and {shown(marginal)} once started")
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(options.record / "executors.csv", index=False, float_format="%.4g")
