"""Where tasks run: in this process, or in long-lived worker processes, one thread each.

Each worker is an executor of its own, so that one that dies takes one task with it, and we know which.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

from batchscape import backend, cpu, processes
from batchscape.errors import InvalidInput, telling_line, unknown_name

EXECUTORS = ("auto", "serial", "processes")

ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that a worker finds at 1."""

TASKS_PER_WORKER = 200
"""A worker is replaced after this many tasks: TensorFlow keeps some memory of every model."""

FEWEST_TASKS_FOR_PROCESSES = 4
"""With fewer tasks, `auto` stays in this process: a worker pays TensorFlow's import first."""


class Outcome(NamedTuple):
    """What became of a task: its value, or why its worker died."""

    task: Any
    value: Any = None
    died: str = ""


def run(
    function: Callable[[Any], Any], tasks: Iterable[Any], *, executor: str = "auto", workers: int | None = None
) -> Iterator[Outcome]:
    """Run a function on many tasks, and give the outcomes as they come.

    Args:
        function: Called with one task; what it raises ends the whole run.
        tasks: The tasks, in the order in which they are to start.
        executor: `"serial"`, `"processes"`, or `"auto"`: processes where there are several cores and tasks, and no GPU.
        workers: Number of processes; one a core by default.

    Yields:
        An `Outcome` for every task.
    """
    tasks = list(tasks)
    executor, workers = choose(executor, workers, len(tasks))
    if executor == "serial":
        yield from (Outcome(task, function(task)) for task in tasks)
    else:
        yield from _run_in_processes(function, tasks, workers)


def choose(executor: str, workers: int | None, n_tasks: int) -> tuple[str, int]:
    """What `"auto"` stands for with so many tasks, and how many run at once; one process where there is a GPU, which is one."""
    check(executor, workers)
    workers = min(workers or cpu.cores(), n_tasks)
    if executor == "auto":
        many = workers > 1 and n_tasks >= FEWEST_TASKS_FOR_PROCESSES and backend.device() == "CPU"
        executor = "processes" if many else "serial"
    return executor, 1 if executor == "serial" else workers


def check(executor: str, workers: int | None) -> None:
    """Refuse an executor that does not exist, and fewer than one worker."""
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers must be an integer ≥ 1. Received: workers={workers}")


def _run_in_processes(function: Callable, tasks: list, workers: int) -> Iterator[Outcome]:
    waiting = list(reversed(tasks))
    idle = [_Worker() for _ in range(workers)]
    busy: dict[futures.Future, tuple[_Worker, Any]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.pop()
                busy[worker.submit(function, task)] = worker, task
            done, _ = futures.wait(busy, return_when=futures.FIRST_COMPLETED)
            for future in done:
                worker, task = busy.pop(future)
                idle.append(worker)
                try:
                    outcome = Outcome(task, future.result())
                except futures.process.BrokenProcessPool as error:
                    worker.stop()
                    outcome = Outcome(task, died=f"the worker process died: {telling_line(error)}")
                yield outcome
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.stop()


class _Worker:
    """One process, started when it is first needed and replaced when it dies or has done its share."""

    def __init__(self) -> None:
        self._executor = None
        self._tasks_done = 0

    def submit(self, function: Callable, task: Any) -> futures.Future:
        if self._tasks_done >= TASKS_PER_WORKER:
            self.stop()
        if self._executor is None:
            self._executor = processes.start(dict.fromkeys(ONE_THREAD, "1"))
        self._tasks_done += 1
        return self._executor.submit(function, task)

    def stop(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
        self._executor, self._tasks_done = None, 0
