"""Where tasks run: in this process, or in long-lived worker processes, one thread each.

Each worker is an executor of its own, so that one that ends takes one task with it, and we know which.
"""

import importlib
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

from batchscape import backend
from batchscape.errors import InvalidInput, UserCodeError, reason_of, unknown_name
from batchscape.system import cores
from batchscape.workers import processes

EXECUTORS = ("auto", "serial", "processes")

ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that a worker finds at 1."""

TASKS_PER_WORKER = 200
"""A worker is replaced after this many tasks: TensorFlow keeps some memory of every model."""

FEWEST_TASKS_FOR_PROCESSES = 4
"""With fewer tasks, `auto` stays in this process: a worker pays TensorFlow's import first."""


SECONDS_BETWEEN_LOOKS = 0.5
"""How often workers are looked at: for how long they have been at a task, and how much memory they hold."""


class Outcome(NamedTuple):
    """What became of a task: its value, or why its worker process ended before it was done."""

    task: Any
    value: Any = None
    died: str = ""


def run(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    executor: str = "auto",
    workers: int | None = None,
    time_limit: float | None = None,
    size_of: Callable[[Any], int] = lambda task: 1,
) -> Iterator[Outcome]:
    """Run a function on many tasks, and give the outcomes as they come.

    Args:
        function: Called with one task; what it raises ends the whole run.
        tasks: The tasks, in the order in which they are to start.
        executor: `"serial"`, `"processes"`, or `"auto"`: processes where there are several cores and tasks, and no GPU.
        workers: Number of processes; one a core by default.
        time_limit: Seconds after which a worker process is killed, times the size of its task; None for no limit.
        size_of: Size of a task.

    Yields:
        An `Outcome` for every task.
    """
    tasks = list(tasks)
    executor, workers = choose(executor, workers, len(tasks), time_limit)
    if executor == "serial":
        yield from (Outcome(task, function(task)) for task in tasks)
    else:
        yield from _run_in_processes(function, tasks, workers, math.inf if time_limit is None else time_limit, size_of)


def choose(executor: str, workers: int | None, n_tasks: int, time_limit: float | None = None) -> tuple[str, int]:
    """What `"auto"` stands for with so many tasks, and how many run at once; one process where there is a GPU, which is one.

    With a time limit `"auto"` stands for processes: nothing ends a task in this one.
    """
    check(executor, workers, time_limit)
    on_gpu = executor == "auto" and backend.device() != "CPU"
    workers = min(workers or cores.cores(), n_tasks)
    if executor == "auto":
        many = workers > 1 and n_tasks >= FEWEST_TASKS_FOR_PROCESSES and not on_gpu
        executor = "processes" if many or time_limit is not None else "serial"
    return executor, 1 if executor == "serial" or on_gpu else workers


def check(executor: str, workers: int | None, time_limit: float | None = None) -> None:
    """Refuse an executor that does not exist, fewer than one worker, and a time limit without processes."""
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers must be an integer ≥ 1. Received: workers={workers}")
    if time_limit is None:
        return
    if not 0 < time_limit < math.inf:
        raise InvalidInput(f"time_limit must be a number of seconds > 0. Received: time_limit={time_limit}")
    if executor == "serial":
        raise InvalidInput(
            'time_limit needs executor="processes": nothing ends a run in this process. Received: executor="serial"'
        )


def _run_in_processes(
    function: Callable, tasks: list, workers: int, time_limit: float, size_of: Callable[[Any], int]
) -> Iterator[Outcome]:
    waiting = list(reversed(tasks))
    everyone = [_Worker() for _ in range(workers)]
    idle = list(everyone)
    busy: dict[futures.Future, tuple[_Worker, Any]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.pop()
                busy[worker.submit(function, task)] = worker, task
            futures.wait(busy, timeout=SECONDS_BETWEEN_LOOKS, return_when=futures.FIRST_COMPLETED)
            for future, (worker, task) in list(busy.items()):
                size = size_of(task)
                if not future.done() and worker.seconds() <= size * time_limit:
                    continue
                del busy[future]
                idle.append(worker)
                limit = f"{time_limit:g} s" if size == 1 else f"{size} × {time_limit:g} s"
                yield _outcome(future, worker, task, limit)
    finally:
        for (
            worker
        ) in everyone:  # All at once: a second Ctrl-C, which ends the tidying up below, must find none at work.
            worker.kill()
        for worker in everyone:
            worker.stop()


def _outcome(future: futures.Future, worker: "_Worker", task: Any, limit: str) -> Outcome:
    """What became of a task that is done or over its time limit; a worker that ended is replaced."""
    if not future.done():
        worker.stop()
        return Outcome(task, died=f"took longer than the time limit of {limit}")
    try:
        return Outcome(task, future.result())
    except pickle.PicklingError as error:
        raise UserCodeError(
            'build and data must be such that worker processes can be sent them; use executor="serial". '
            f"Received: {reason_of(error.__cause__ or error)}"
        ) from error
    except futures.process.BrokenProcessPool as error:
        return Outcome(task, died=f"the worker process {worker.how_it_ended(error)}")


def _import_all(modules: list[str]) -> None:
    """Import our own modules, by name: sent as functions they would be imported before Keras is silenced."""
    for module in modules:
        importlib.import_module(module)


class _Worker:
    """One process, started when it is first needed and replaced when it has ended or has done its share."""

    def __init__(self) -> None:
        self._process: processes.Process | None = None
        self._tasks_done = 0
        self._submitted_at = 0.0

    def submit(self, function: Callable, task: Any) -> futures.Future:
        if self._tasks_done >= TASKS_PER_WORKER:
            self.stop()
        if self._process is None:
            ours = [function.__module__] if function.__module__.startswith("batchscape.") else []
            self._process = processes.Process(dict.fromkeys(ONE_THREAD, "1"), _import_all, ours)
        self._tasks_done += 1
        self._submitted_at = time.monotonic()
        return self._process.submit(function, task)

    def seconds(self) -> float:
        """For how long the worker has been at its task; importing Keras does not count."""
        self._process.look()
        begin = self._process.ready_at
        return 0.0 if begin is None else time.monotonic() - max(begin, self._submitted_at)

    def how_it_ended(self, error: BaseException) -> str:
        """See `processes.Process.how_it_ended`."""
        how = self._process.how_it_ended(error)
        self._process, self._tasks_done = None, 0
        return how

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        self._process, self._tasks_done = None, 0
