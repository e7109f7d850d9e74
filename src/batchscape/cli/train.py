"""Commands that train: `reproduce`, `sweep`; and what was trained: `results`."""

import sys
from typing import Annotated

import typer

from batchscape import config, profiles
from batchscape.cli import parse, show
from batchscape.cli.app import Executor, Quiet, Store, Workers, app
from batchscape.errors import InvalidInput
from batchscape.quiet import import_keras


@app.command(epilog="Example: `batchscape reproduce --profile quick`")
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke (seconds), quick (minutes) or paper (five minutes).")] = "quick",
    out: Annotated[
        str | None, typer.Option(help="Folder for runs, tables and figures; runs/PROFILE by default.")
    ] = None,
    tables: Annotated[str | None, typer.Option(help="Write the tables to this folder as well.")] = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Run the main job: sweep the batch size on digits, measure the minima, judge the statements, draw the figures."""
    profiles.find(profile)
    import_keras()
    from batchscape import study
    from batchscape.tables import Tables

    done = study.reproduce(profile, out=out, executor=executor, workers=workers, show_progress=not quiet)
    if tables:
        Tables.load(done.tables).save(tables)
    show.print_verdicts(done.verdicts)
    for file in done.figures.values():
        print(file)


@app.command(
    epilog="Example: `batchscape sweep --batch-size 8,32,full --learning-rate 0.1 --seeds 6 --until-loss 0.01`"
)
def sweep(
    dataset: Annotated[str, typer.Option("--dataset", "--data", help="Name, .npz file or module:function.")] = "digits",
    model: Annotated[str, typer.Option(help="Name or module:function.")] = "mlp",
    batch_size: Annotated[str, typer.Option(help="One or more sizes, such as 8,32,full.")] = "8,32,128",
    batch_steps: Annotated[
        str | None, typer.Option(help="EPOCH:SIZE pairs: the batch size from these epochs on, such as 30:160,60:800.")
    ] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(help="Compute each update in parts of so many examples: batches larger than memory.")
    ] = None,
    data_workers: Annotated[
        int, typer.Option(help="Devices that share each batch (data parallel); --batch-size is that of each.")
    ] = 1,
    learning_rate: Annotated[str | None, typer.Option(help="One or more rates, such as 0.05,0.1.")] = None,
    lr_policy: Annotated[str, typer.Option(help="fixed, sqrt or linear in the batch size.")] = "fixed",
    base_batch_size: Annotated[int, typer.Option(help="Batch size at which the policy leaves the rate alone.")] = 32,
    warmup: Annotated[float, typer.Option(help="Length of the gradual warm-up, in --schedule-unit.")] = 0.0,
    warmup_from: Annotated[str, typer.Option(help="zero, or base: the rate before the policy.")] = "zero",
    decay: Annotated[
        str, typer.Option(help="constant, steps, linear, cosine, exponential or inverse, after the warm-up.")
    ] = "constant",
    decay_over: Annotated[float | None, typer.Option(help="Length of the decay; the rest of the run.")] = None,
    decay_at: Annotated[str | None, typer.Option(help="Where the steps are, such as 30,60,80.")] = None,
    decay_factor: Annotated[float, typer.Option(help="What is left after the decay, or after each step.")] = 0.1,
    schedule_unit: Annotated[
        str, typer.Option(help="What warm-up and decay are counted in: epochs, updates or examples.")
    ] = "epochs",
    optimizer: Annotated[str | None, typer.Option(help="A Keras optimizer or rprop; the compiled one, or sgd.")] = None,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay.")] = 0.0,
    loss: Annotated[str | None, typer.Option(help="A Keras loss; the compiled one, or what the labels say.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in epochs (10 if no budget is given).")] = None,
    updates: Annotated[int | None, typer.Option(help="Budget in updates.")] = None,
    examples: Annotated[int | None, typer.Option(help="Budget in examples.")] = None,
    until_loss: Annotated[float | None, typer.Option(help="Stop at this training loss.")] = None,
    max_updates: Annotated[int, typer.Option(help="Give up on --until-loss after this many updates.")] = 20_000,
    last_batch: Annotated[str, typer.Option(help="keep or drop the last partial batch.")] = "keep",
    train_size: Annotated[int | None, typer.Option(help="Keep this many training examples.")] = None,
    engine: Annotated[str, typer.Option(help="auto, stock, dataset or fused.")] = "auto",
    seeds: Annotated[int, typer.Option(help="Number of paired seeds, 0, 1, 2, ...")] = 3,
    replicas: Annotated[
        str, typer.Option(help="Seeds to train side by side as one model, or auto: where that is quicker.")
    ] = "1",
    store: Store = "runs/sweep",
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Train over batch sizes and seeds; what the store already holds is not trained again."""
    grid = config.Grid(
        dataset=dataset,
        model=model,
        batch_size=[parse.batch_size(item) for item in parse.items("batch-size", batch_size)],
        batch_steps=dict(parse.pair("batch-steps", item) for item in parse.items("batch-steps", batch_steps))
        if batch_steps is not None
        else {},
        micro_batch_size=micro_batch_size,
        workers=data_workers,
        learning_rate=[parse.number("learning-rate", item) for item in parse.items("learning-rate", learning_rate)]
        if learning_rate is not None
        else None,
        lr_policy=lr_policy,
        base_batch_size=base_batch_size,
        warmup=warmup,
        warmup_from=warmup_from,
        decay=decay,
        decay_over=decay_over,
        decay_at=tuple(parse.number("decay-at", item) for item in parse.items("decay-at", decay_at))
        if decay_at is not None
        else (),
        decay_factor=decay_factor,
        schedule_unit=schedule_unit,
        optimizer=optimizer,
        optimizer_options={"momentum": momentum} if momentum else {},
        weight_decay=weight_decay,
        loss=loss,
        epochs=epochs,
        updates=updates,
        examples=examples,
        until_loss=until_loss,
        max_updates=max_updates,
        last_batch=last_batch,
        train_size=train_size,
        engine=engine,
        seed=range(parse.at_least_one("seeds", seeds)),
    )
    import_keras()
    from batchscape.sweep.run import run_sweep

    frame = run_sweep(
        grid,
        store=store,
        executor=executor,
        workers=workers,
        replicas=parse.replicas(replicas),
        show_progress=not quiet,
    )
    show.print_runs(frame)
    if (frame["status"] == "FAILED").any():
        sys.exit(1)


@app.command(epilog="Example: `batchscape results runs/sweep --csv > runs.csv`")
def results(
    store: Annotated[str, typer.Argument(help="Folder of the runs.")] = "runs/sweep",
    csv: Annotated[bool, typer.Option("--csv", help="All columns as CSV.")] = False,
    curves: Annotated[bool, typer.Option("--curves", help="One row an evaluation instead of one row a run.")] = False,
) -> None:
    """Print the runs of a store."""
    from batchscape.sweep.results import load_results

    frame = load_results(store, curves=curves)
    if frame.empty:
        raise InvalidInput(f"{store} holds no runs yet; start with: batchscape sweep --store {store}")
    if csv or curves:
        frame.to_csv(sys.stdout, index=False)
    else:
        show.print_runs(frame)
