"""Commands that train: `sweep`, `missing`; and what was trained: `results`."""

import sys
from typing import Annotated, Any

import typer

from batchscape.backend.importing import import_keras
from batchscape.cli import parse, show
from batchscape.cli.app import Executor, Quiet, Store, Workers, app
from batchscape.cli.cell_options import takes_a_grid
from batchscape.config import Grid
from batchscape.errors import InvalidInput


@app.command(
    epilog="Example: `batchscape sweep --batch-size 8,32,full --learning-rate 0.1 --seeds 6 --until-loss 0.01`"
)
@takes_a_grid
def sweep(
    *,
    grid: Grid,
    build: Any,
    parallel_seeds: Annotated[
        str, typer.Option(help="Seeds to train side by side as one model, or auto: where that is quicker.")
    ] = "1",
    store: Store = "runs/sweep",
    executor: Executor = "auto",
    workers: Workers = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds that a run may take in its worker process; longer ones fail.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train over batch sizes and seeds; what the store already holds is not trained again."""
    seeds_at_once = parse.parallel_seeds(parallel_seeds)
    import_keras()
    from batchscape.sweep.run import run_sweep

    frame = run_sweep(
        grid,
        store=store,
        build=build,
        executor=executor,
        workers=workers,
        parallel_seeds=seeds_at_once,
        time_limit=time_limit,
        show_progress=not quiet,
    )
    show.print_runs(frame)
    if (frame["status"] == "FAILED").any():
        sys.exit(1)


@app.command(
    epilog="Example: `batchscape missing --batch-size 8,32,full --learning-rate 0.1 --seeds 6 --until-loss 0.01`"
)
@takes_a_grid
def missing(*, grid: Grid, build: Any, store: Store = "runs/sweep") -> None:
    """Print the runs that a sweep with the same options would train; nothing is trained or written."""
    import_keras()
    from batchscape.sweep.run import missing_runs

    show.print_missing(missing_runs(grid, store=store, build=build), len(grid), store)


@app.command(epilog="Example: `batchscape results runs/sweep --csv > runs.csv`")
def results(
    store: Annotated[str, typer.Argument(help="Folder of the runs.")] = "runs/sweep",
    csv: Annotated[bool, typer.Option("--csv", help="All columns as CSV.")] = False,
    curves: Annotated[bool, typer.Option("--curves", help="One row an evaluation instead of one row a run.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="What went wrong in each run that failed.")] = False,
) -> None:
    """Print the runs of a store."""
    if failed:
        from batchscape.sweep.store import Store as RunStore

        show.print_failures(RunStore(store).require().records())
        return
    from batchscape.sweep.frames import load_results

    frame = load_results(store, curves=curves)
    if frame.empty:
        raise InvalidInput(f"{store} holds no runs yet; start with: batchscape sweep --store {store}")
    if csv or curves:
        frame.to_csv(sys.stdout, index=False)
    else:
        show.print_runs(frame)
