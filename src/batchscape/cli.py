"""The command line: parse, call, print. Heavy imports happen inside the commands, so that `--help` is quick."""

import logging
import sys
from typing import Annotated

import typer

from batchscape import config, paths, profiles
from batchscape.errors import BatchscapeError, InvalidInput, unknown_name
from batchscape.quiet import import_tensorflow

app = typer.Typer(
    name="batchscape",
    help="What does batch size do? Sweep it in Keras and measure the path, the minimum, the clock and the memory.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Start with `batchscape reproduce`. Your own model: `--model module:function`.",
)

UsageError = typer.BadParameter.__base__
"""What Typer raises for options and commands that it does not know."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, which Typer catches itself."""

STUDIES = (
    "figures/data/digits",
    "figures/data/noise",
    "figures/data/mnist",
    "figures/data/definitions",
    "figures/data/minima",
    "figures/data/keskar-f1",
    "figures/data/rates",
    "figures/data/rates-fashion",
    "figures/data/rates-mnist",
)
"""The committed tables."""

Folders = Annotated[
    list[str] | None, typer.Option(help="Folder with the tables of a study; the committed ones by default.")
]
Store = Annotated[str, typer.Option(help="Folder of the runs; a relative one starts from the project.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; one a core by default.")]
Executor = Annotated[str, typer.Option(help="auto, serial or processes.")]


def main() -> None:
    """Run the command line; bad input ends in one line and exit status 2."""
    log = logging.getLogger("batchscape")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (BatchscapeError, UsageError) as error:
        message = error.format_message() if isinstance(error, UsageError) else str(error)
        print(f"batchscape: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:  # Older versions of Typer.
        status = INTERRUPTED
    if status == INTERRUPTED:
        print("batchscape: interrupted; finished runs are kept, the same command goes on from here", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)


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
    import_tensorflow()
    from batchscape import study
    from batchscape.tables import Tables

    done = study.reproduce(profile, out=out, executor=executor, workers=workers, show_progress=not quiet)
    if tables:
        Tables.load(done.tables).save(tables)
    _print_verdicts(done.verdicts)
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
    store: Store = "runs/sweep",
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Train over batch sizes and seeds; what the store already holds is not trained again."""
    grid = config.Grid(
        dataset=dataset,
        model=model,
        batch_size=[_batch_size(item) for item in _items("batch-size", batch_size)],
        batch_steps=dict(_pair("batch-steps", item) for item in _items("batch-steps", batch_steps))
        if batch_steps is not None
        else {},
        micro_batch_size=micro_batch_size,
        workers=data_workers,
        learning_rate=[_number("learning-rate", item) for item in _items("learning-rate", learning_rate)]
        if learning_rate is not None
        else None,
        lr_policy=lr_policy,
        base_batch_size=base_batch_size,
        warmup=warmup,
        warmup_from=warmup_from,
        decay=decay,
        decay_over=decay_over,
        decay_at=tuple(_number("decay-at", item) for item in _items("decay-at", decay_at))
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
        seed=range(_at_least_one("seeds", seeds)),
    )
    import_tensorflow()
    from batchscape.sweep.run import run_sweep

    frame = run_sweep(grid, store=store, executor=executor, workers=workers, show_progress=not quiet)
    _print_runs(frame)
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
        _print_runs(frame)


@app.command(
    epilog="Example: `batchscape landscape runs/sweep --between 8 full`, `batchscape landscape runs/sweep --around 8`, or "
    "`batchscape landscape net.keras --data mydata:load`"
)
def landscape(
    where: Annotated[list[str] | None, typer.Argument(help="Folder of the runs, or one to three .keras files.")] = None,
    between: Annotated[tuple[str, str], typer.Option(help="Two batch sizes; every paired seed gives a line.")] = (
        "",
        "",
    ),
    around: Annotated[str, typer.Option(help="A batch size; a plane around its minimum.")] = "",
    dataset: Annotated[
        str, typer.Option("--dataset", "--data", help="For .keras files: name, .npz or module:function.")
    ] = "digits",
    learning_rate: Annotated[float | None, typer.Option(help="Runs at this rate, where the store has several.")] = None,
    points: Annotated[
        int | None, typer.Option(help="Points on a line, α = −1 to 2 (61), or along each axis of a plane (25).")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the figures; STORE/figures by default.")] = None,
    quiet: Quiet = False,
) -> None:
    """Draw the loss on the lines between minima of two batch sizes, or on a plane around one; or so for models you saved."""
    where = where or ["runs/sweep"]
    if points is not None and points < 3:
        raise InvalidInput(f"--points must be an integer ≥ 3, or nothing lies between the ends. Received: {points}")
    sizes = {} if points is None else {"points": points}
    if all(name.endswith(".keras") for name in where):
        _landscape_of_files(where, dataset, out or "figures", sizes, show_progress=not quiet)
        return
    if bool(around) == all(between) or len(where) > 1:
        raise InvalidInput(
            "landscape needs two batch sizes, such as: --between 8 full, or one, such as: --around 8. Received: "
            f"{len(where)} folders, between {' and '.join(filter(None, between)) or 'none'}, around {around or 'none'}"
        )
    chosen = [_batch_size(item) for item in ([around] if around else between)]
    from batchscape.sweep.store import Store as RunStore

    runs = RunStore(where[0]).require()
    import_tensorflow()
    from batchscape import landscape as drawn

    folder, basis = out or runs.path / "figures", f"Runs of {runs.path.name}"
    how = {"learning_rate": learning_rate, "show_progress": not quiet, **sizes}
    if around:
        plane = drawn.plane_around(runs, *chosen, **how)
        print(plane, *drawn.draw_plane(plane, f"plane_{around}", folder, basis=f"{basis}."), sep="\n")
    else:
        found = drawn.lines_between(runs, *chosen, **how)
        print(drawn.summarise_barriers(found), drawn.draw_lines(found, folder, basis=basis), sep="\n")


def _landscape_of_files(files: list[str], dataset: str, out: str, sizes: dict, *, show_progress: bool) -> None:
    if len(files) > 3:
        raise InvalidInput(f"landscape takes one, two or three .keras files. Received: {len(files)}")
    import_tensorflow()
    from batchscape import landscape as drawn

    if len(files) == 2:
        found = drawn.line_of_files(*files, dataset, **sizes)
        print(drawn.summarise_barriers(found), drawn.draw_lines(found, out, basis=f"Data {dataset}"), sep="\n")
    else:
        plane = drawn.planes_of_files(files, dataset, show_progress=show_progress, **sizes)
        print(plane, *drawn.draw_plane(plane, "plane", out, basis=f"Data {dataset}."), sep="\n")


@app.command(
    epilog="Example: `batchscape noise runs/sweep`, `batchscape noise --model mynet:build --data mydata:load`, or "
    "`batchscape noise --study quick`"
)
def noise(
    store: Annotated[str | None, typer.Argument(help="Folder of runs to measure; none for untrained weights.")] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", "--data", help="Without runs: name, .npz or module:function.")
    ] = "digits",
    model: Annotated[str, typer.Option(help="Without runs: name or module:function.")] = "mlp",
    study: Annotated[
        str | None, typer.Option(help="Run the study of the gradient at this profile: smoke, quick, paper or mnist.")
    ] = None,
    tables: Annotated[str | None, typer.Option(help="With --study: folder for its tables.")] = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Measure the gradient noise scale B_simple = tr Σ / ‖G‖²: the batch size whose noise is as large as its gradient."""
    if study is not None:
        if store is not None:
            raise InvalidInput(f"--study trains runs of its own. Received: the store {store}")
        _print_study(study, tables, executor=executor, workers=workers, show_progress=not quiet)
        return
    runs = None
    if store is not None:
        from batchscape.sweep.store import Store as RunStore

        runs = RunStore(store).require()
    import_tensorflow()
    if runs is not None:
        from batchscape import noise_study

        found = noise_study.noise_of_runs(runs, executor=executor, workers=workers, show_progress=not quiet)
        print(found.to_string(index=False))
        return
    from batchscape.data import load_dataset
    from batchscape.minima.objective import objective_of
    from batchscape.models import build_model
    from batchscape.noise.statistics import gradient_statistics

    data = load_dataset(dataset)
    f = objective_of(build_model(model, data, seed=0), data)
    print(f"{model} on {dataset}, untrained: {gradient_statistics(f, f.weights)}")


@app.command(
    epilog="Example: `batchscape sharpness runs/sweep`, `batchscape sharpness net.keras --data mydata:load`, or "
    "`batchscape sharpness --study quick`"
)
def sharpness(
    where: Annotated[str | None, typer.Argument(help="Folder of runs, or a .keras file.")] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", "--data", help="For a .keras file: name, .npz or module:function.")
    ] = "digits",
    study: Annotated[
        str | None,
        typer.Option(help="Run the study of the minima: smoke, quick, paper, or a replication such as keskar-f1."),
    ] = None,
    tables: Annotated[str | None, typer.Option(help="With --study: folder for its tables.")] = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Measure how sharp minima are: λ_max and trace of the Hessian, Keskar's Metric 2.1, worst and average cases."""
    if (where is None) == (study is None):
        raise InvalidInput(
            f"sharpness needs runs, a .keras file, or --study. Received: {where or 'none'}, {study or 'none'}"
        )
    how = {"executor": executor, "workers": workers, "show_progress": not quiet}
    if study is not None:
        if study not in (known := (*profiles.MINIMA_PROFILES, *profiles.REPLICATIONS)):
            raise unknown_name("study", study, known)
        import_tensorflow()
        from batchscape import minima_study
        from batchscape.study import folder_of

        if study in profiles.MINIMA_PROFILES:
            folder = folder_of(study)
            found = minima_study.run_minima_study(study, folder / "store", **how)
        else:
            folder = paths.resolve(f"runs/{study}")
            found = minima_study.run_replication(study, folder, **how)
        _print_tables(found, tables or folder / "minima", folder / "figures")
    elif where.endswith(".keras"):
        import_tensorflow()
        from batchscape import minima_study

        print(minima_study.sharpness_of_file(where, dataset).to_string(float_format="{:.4g}".format))
    else:
        from batchscape.sweep.store import Store as RunStore

        runs = RunStore(where).require()
        import_tensorflow()
        from batchscape import minima_study

        found = minima_study.sharpness_of_runs(runs, **how)
        print(found.to_string(index=False, float_format="{:.4g}".format))


@app.command(epilog="Example: `batchscape rates runs/sweep`, or `batchscape rates --study quick`")
def rates(
    store: Annotated[str | None, typer.Argument(help="Folder of a sweep over batch sizes and learning rates.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Run the study of the learning rate: smoke, quick, paper, fashion or mnist.")
    ] = None,
    tables: Annotated[str | None, typer.Option(help="With --study: folder for its tables.")] = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Find the learning rate that suits each batch size: chosen on validation, reported on test, edges of the grid flagged."""
    if (store is None) == (study is None):
        raise InvalidInput(f"rates needs runs, or --study. Received: {store or 'none'}, {study or 'none'}")
    if store is not None:
        from batchscape.judge.tuned import tune_learning_rate
        from batchscape.sweep.results import load_results

        found = tune_learning_rate(load_results(store), choose="best_val_loss", report="test_loss")
        print(found.to_string(index=False, float_format="{:.4g}".format))
        return
    profiles.find(study, profiles.RATES_PROFILES)
    import_tensorflow()
    from batchscape.rates_study import run_rates_study
    from batchscape.study import folder_of

    folder = folder_of(study) / "rates" if study in profiles.PROFILES else paths.resolve(f"runs/rates-{study}")
    made = run_rates_study(study, folder, executor=executor, workers=workers, show_progress=not quiet)
    _print_tables(made, tables or folder / "tables", folder / "figures")


Model = Annotated[str, typer.Option(help="Name, module:function, or a .keras file.")]
Dataset = Annotated[str, typer.Option("--dataset", "--data", help="Name, .npz file or module:function.")]
Sizes = Annotated[
    str | None, typer.Option("--batch-size", help="Sizes such as 8,32,128; powers of two by default, while they pay.")
]
MemoryLimit = Annotated[
    str | None, typer.Option(help="What training may take, such as 2GB; by default 80 % of what is free.")
]
Repeats = Annotated[int, typer.Option(help="Rounds of timings.")]
Loss = Annotated[str | None, typer.Option(help="A Keras loss; the compiled one, or what the labels say.")]
Precision = Annotated[str | None, typer.Option(help="A Keras dtype policy, such as mixed_bfloat16.")]
Engine = Annotated[str, typer.Option(help="stock (model.fit by itself) or fused (our blocks of updates).")]
Jit = Annotated[bool | None, typer.Option("--jit/--no-jit", help="With or without XLA; chosen for you by default.")]


@app.command(
    epilog="Example: `batchscape probe`, `batchscape probe --model mynet:build --data mydata:load --memory-limit 2GB`, or "
    "`batchscape probe --model net.keras --data mydata:load`"
)
def probe(
    model: Model = "mlp",
    dataset: Dataset = "digits",
    batch_size: Sizes = None,
    memory_limit: MemoryLimit = None,
    repeats: Repeats = 5,
    loss: Loss = None,
    precision: Precision = None,
    engine: Engine = "stock",
    jit: Jit = None,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all of it to this file as well.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure what a batch costs in time and memory, and find the largest that fits, in a process of its own."""
    from batchscape.cost.probe import probe_batch_sizes

    found = probe_batch_sizes(
        model,
        dataset,
        batch_sizes=_sizes(batch_size),
        memory_limit=_limit(memory_limit),
        repeats=repeats,
        loss=loss,
        precision=precision,
        engine=engine,
        jit=jit,
        show_progress=not quiet,
    )
    print(found.to_text())
    if json_file:
        print(found.save(json_file))


@app.command(
    epilog="Example: `batchscape advise`, `batchscape advise --model mynet:build --data mydata:load`, or "
    "`batchscape advise --model net.keras --data mydata:load --memory-limit 2GB`"
)
def advise(
    model: Model = "mlp",
    dataset: Dataset = "digits",
    batch_size: Sizes = None,
    memory_limit: MemoryLimit = None,
    repeats: Repeats = 5,
    loss: Loss = None,
    precision: Precision = None,
    engine: Engine = "stock",
    jit: Jit = None,
    out: Annotated[str, typer.Option(help="Folder for the figure and the JSON.")] = "runs/advice",
    quiet: Quiet = False,
) -> None:
    """Advise a batch size and its learning rate: what fits, where throughput saturates, where more examples stop helping."""
    from batchscape.cost.advise import advise as ask

    found = ask(
        model,
        dataset,
        batch_sizes=_sizes(batch_size),
        memory_limit=_limit(memory_limit),
        repeats=repeats,
        loss=loss,
        precision=precision,
        engine=engine,
        jit=jit,
        show_progress=not quiet,
    )
    from batchscape.draw import cost

    print(found.to_text())
    print(found.save(f"{out}/advice.json"), cost.draw(found, out), sep="\n")


def _sizes(text: str | None) -> list[int] | None:
    """Batch sizes of a probe."""
    if text is None:
        return None
    sizes = [_batch_size(item) for item in _items("batch-size", text)]
    if "full" in sizes:
        raise InvalidInput("A probe takes batch sizes as integers ≥ 1. Received: full")
    return sizes


def _limit(text: str | None) -> str | float | None:
    """A memory limit as the library takes it: bytes, or a text with a unit."""
    return float(text) if text is not None and text.lstrip("-").isdigit() else text


@app.command(epilog="Example: `batchscape claims C42 --tables figures/data/digits`")
def claims(
    ids: Annotated[list[str] | None, typer.Argument(help="Statements, such as C42; all of them by default.")] = None,
    tables: Folders = None,
) -> None:
    """Print what the records say of the statements in the register."""
    verdicts = _verdicts(tables or STUDIES, ids)
    for data in dict.fromkeys(verdict.data for verdict in verdicts):
        _print_verdicts([verdict for verdict in verdicts if verdict.data == data])


@app.command(epilog="Example: `batchscape figures`")
def figures(
    tables: Folders = None,
    out: Annotated[str, typer.Option(help="Folder for the figures.")] = "figures",
) -> None:
    """Draw the figures from the committed tables, and write the verdicts with all their evidence."""
    from batchscape.draw import gallery
    from batchscape.judge import claims as register

    folders = tables or STUDIES
    for folder in folders:
        for file in gallery.draw_all(folder, out).values():
            print(file)
    file = paths.make(out) / "verdicts.md"
    file.write_text(f"# Verdicts\n\n{register.to_markdown(_verdicts(folders))}\n", encoding="utf-8")
    print(file)


def _verdicts(folders: list[str] | tuple[str, ...], ids: list[str] | None = None) -> list:
    """What the tables in some folders say of statements."""
    from batchscape.judge import claims as register
    from batchscape.tables import Tables

    return register.verdicts_of((frame for folder in folders for frame in Tables.load(folder).frames.values()), ids)


def _print_study(name: str, tables: str | None, **how) -> None:
    """Run a study of the gradient, and say what its records say."""
    if name not in (known := (*profiles.PROFILES, "mnist")):
        raise unknown_name("study", name, known)
    import_tensorflow()
    from batchscape import noise_study
    from batchscape.study import folder_of

    folder = folder_of(name) / "noise" if name != "mnist" else paths.resolve("runs/mnist")
    found = (noise_study.run_mnist_study if name == "mnist" else noise_study.run_noise_study)(name, folder, **how)
    _print_tables(found, tables or folder / "tables", folder / "figures")


def _print_tables(found, tables, figures) -> None:
    """Keep the tables of a study, say what they say of statements, and draw them."""
    from batchscape.draw import gallery
    from batchscape.judge import claims as register

    written = found.save(tables)
    verdicts = register.verdicts_of(found.frames.values())
    for data in dict.fromkeys(verdict.data for verdict in verdicts):
        _print_verdicts([verdict for verdict in verdicts if verdict.data == data])
    for file in gallery.draw_all(written, figures).values():
        print(file)


def _items(name: str, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise InvalidInput(f"--{name} needs at least one value. Received: {text!r}")
    return items


def _batch_size(text: str) -> int | str:
    if text == "full":
        return text
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f'A batch size must be an integer ≥ 1 or "full". Received: {text!r}') from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"--{name} must be a number. Received: {text!r}") from None


def _pair(name: str, text: str) -> tuple[int, int]:
    try:
        epoch, size = map(int, text.split(":"))
    except ValueError:
        raise InvalidInput(f"--{name} must be EPOCH:SIZE pairs, such as 30:160. Received: {text!r}") from None
    return epoch, size


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InvalidInput(f"--{name} must be an integer ≥ 1. Received: {value}")
    return value


def _print_runs(frame) -> None:
    """One line for each batch size and rate: how many runs ended how, and means over seeds."""
    from batchscape.sweep.results import summarise

    print(summarise(frame).to_string(index=False))


def _print_verdicts(verdicts) -> None:
    from rich import box, console, table

    shown = table.Table("id", "statement", "verdict", "evidence (95 % interval)", box=box.SIMPLE)
    for item in verdicts:
        shown.add_row(item.claim.id, item.claim.statement, item.word, "\n".join(item.lines))
    width = None if sys.stdout.isatty() else 160
    console.Console(width=width).print(shown)
    print(f"({verdicts[0].data})")
