"""What batch size does on the GPU at hand, in one call of at most eight minutes; on the processor where there is no GPU.

    [KERAS_BACKEND=jax] python benchmarks/gpu.py [--record figures/data/gpu] [--small]

Five parts, the important ones first, each in a process of its own with a time limit. A part writes its tables whenever a row
is finished; a part that fails or runs over its limit leaves its reason in `about.json`, and the next one goes on.

- `loop` (90 s): the loop of notebook 03 on MNIST, `for batch_size in (8, 32, 128, 512): model.fit(...)`, at one learning rate
  and with the rate scaled; then the loss on the line from the smallest batch's minimum to the largest one's.
- `seeds` (60 s): complete trainings of the digits net, seeds side by side, as many as fit; a hundred of them compared with
  the run alone.
- `cifar` (120 s): CIFAR-10-5k and a CNN with BatchNorm at six batch sizes, both strata, ten seeds side by side: updates,
  losses, test accuracy, λ_max.
- `speed` (60 s): updates a second by `stock` and by `fused`; points of a line and Hessian-vector products a second.
- `throughput` (the rest): examples a second and peak memory against batch size, in float32, then bfloat16.

`--small` runs all of it on a few digits, within a minute on two idle cores, to see that everything works.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

LIMITS = {"loop": 90, "seeds": 60, "cifar": 120, "speed": 60, "throughput": None}
"""Seconds that each part may take, its start included; None for what is left of the total."""

TOTAL = 480
"""Seconds for all parts together."""

SLOWER = 3
"""Limits of the small scale are so many times as long: a busy processor compiles slowly."""

MARGIN = 0.1
"""The share of its limit that a part keeps back: it stops by itself before it is stopped."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Attributes:
        status: `"done"`, `"failed"`, `"over its limit"` or `"no time left"`.
        seconds: What it took.
        limit: What it was allowed.
        reason: The last line of what a failed part printed on stderr, else "".
    """

    status: str
    seconds: float
    limit: float
    reason: str = ""


def run_part(command: list[str], limit: float) -> Outcome:
    """Run a part in a process group of its own, and end all of it at the limit."""
    if limit < 1:
        return Outcome("no time left", 0.0, max(0.0, limit))
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stderr=errors, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.perf_counter() - begin
        errors.seek(0)
        lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    if code is None:
        return Outcome("over its limit", seconds, limit)
    if code:
        return Outcome("failed", seconds, limit, lines[-1][:500] if lines else f"exit status {code}")
    return Outcome("done", seconds, limit)


def run_all(
    record: pathlib.Path, *, small: bool, total: float = TOTAL, parts: dict | None = None
) -> dict[str, Outcome]:
    """Run all parts one after the other.

    Args:
        record: Folder for the tables.
        small: Whether to run at the small scale.
        total: Seconds for all parts together.
        parts: Names and limits of the parts; `LIMITS` by default.

    Returns:
        How each part ended, by name; `about.json` has it too.
    """
    slower = SLOWER if small else 1
    outcomes, end = {}, time.perf_counter() + slower * total
    record.mkdir(parents=True, exist_ok=True)
    for name, limit in (parts or LIMITS).items():
        left = end - time.perf_counter()
        limit = left if limit is None else min(slower * limit, left)
        print(f"== {name}: at most {max(0, limit):.0f} s", flush=True)
        seconds = f"{(1 - MARGIN) * limit:.1f}"
        command = [sys.executable, __file__, "--part", name, "--seconds", seconds, "--record", str(record)]
        outcomes[name] = outcome = run_part([*command, *(["--small"] if small else [])], limit)
        print(f"== {name}: {outcome.status} in {outcome.seconds:.0f} s {outcome.reason}\n", flush=True)
        note(record, parts={key: dataclasses.asdict(value) for key, value in outcomes.items()})
    return outcomes


def note(record: pathlib.Path, **fields) -> None:
    """Add to what `about.json` says of the tables."""
    file = record / "about.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def main() -> int:
    """Run all parts, or the one that is asked for; 1 where a part was not done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=pathlib.Path, help="folder for the tables, figures/data/gpu for ours")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that all of it runs")
    parser.add_argument("--part", choices=tuple(LIMITS), help="this part alone, in this process")
    parser.add_argument("--seconds", type=float, default=60.0, help="with --part: how long it may take")
    options = parser.parse_args()
    record = options.record or pathlib.Path(tempfile.mkdtemp(prefix="batchscape-gpu-"))
    if options.part is None:
        outcomes = run_all(record, small=options.small)
        print(f"Tables: {record}")
        return int(any(outcome.status != "done" for outcome in outcomes.values()))
    begin = time.perf_counter()
    import gpu_parts

    gpu_parts.run(options.part, record, end=begin + options.seconds, small=options.small)
    return 0


if __name__ == "__main__":
    sys.exit(main())
