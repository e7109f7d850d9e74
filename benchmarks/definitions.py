"""Count what batch, iteration and epoch mean in Keras and, where an environment has it, in PyTorch; write the table.

python benchmarks/definitions.py [--peers PYTHON] [--record figures/data/definitions]
"""

import argparse
import pathlib
import subprocess

from batchscape.backend.importing import import_keras

import_keras()

import json

import pandas as pd
from training import find_peers

import batchscape as bs
from batchscape.train.record import environment

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="interpreter of an environment with PyTorch")
    parser.add_argument("--record", help="folder for the table, figures/data/definitions for ours")
    options = parser.parse_args()
    counts, about = bs.study.count_definitions(), {"profile": "paper", "environment": environment()}
    if python := find_peers(options.peers):
        script = pathlib.Path(__file__).with_name("peers") / "torch_definitions.py"
        answer = json.loads(subprocess.run([python, script], capture_output=True, text=True, check=True).stdout)
        counts = pd.concat([counts, pd.DataFrame(answer["rows"])], ignore_index=True)
        about["environment"]["torch"] = answer["torch"]
    if options.record:
        bs.study.Tables({"definitions": counts}, about).save(options.record)
    print(counts.to_string(index=False))
