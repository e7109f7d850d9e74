"""Commands that measure runs: `landscape`, `noise`, `sharpness`, `rates`, `target`."""

from typing import Annotated

import typer

from batchscape import usercode
from batchscape.backend.importing import import_keras
from batchscape.cli import parse, show
from batchscape.cli.app import Executor, Fresh, Imports, Quiet, Workers, app
from batchscape.errors import InvalidInput
from batchscape.models.files import is_file

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", "--data", help="Name, .npz file or module:function (digits); of runs: what the sweep was given."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Name, module:function, or a .keras or .h5 file (mlp); of runs: what the sweep was given."),
]


@app.command(
    epilog="Example: `batchscape landscape runs/sweep --between 8 full`, `batchscape landscape runs/sweep --around 8`, or "
    "`batchscape landscape net.keras --data mydata:load`"
)
def landscape(
    where: Annotated[
        list[str] | None, typer.Argument(help="Folder of the runs, or one to three .keras or .h5 files.")
    ] = None,
    between: Annotated[tuple[str, str], typer.Option(help="Two batch sizes; every paired seed gives a line.")] = (
        "",
        "",
    ),
    around: Annotated[str, typer.Option(help="A batch size; a plane around its minimum.")] = "",
    dataset: Dataset = None,
    model: Model = None,
    fresh: Fresh = False,
    imports: Imports = None,
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
    if all(map(is_file, where)):
        _refuse_model(model, fresh, where)
        _import(imports)
        _landscape_of_files(where, dataset or "digits", out or "figures", sizes, show_progress=not quiet)
        return
    if bool(around) == all(between) or len(where) > 1:
        raise InvalidInput(
            "landscape needs two batch sizes, such as: --between 8 full, or one, such as: --around 8. Received: "
            f"{len(where)} folders, between {' and '.join(filter(None, between)) or 'none'}, around {around or 'none'}"
        )
    chosen = [parse.batch_size(item) for item in ([around] if around else between)]
    build = parse.model(model, fresh, imports)
    from batchscape.sweep.store import Store as RunStore

    runs = RunStore(where[0]).require()
    folder, basis = out or runs.path / "figures", f"Runs of {runs.path.name}"
    show.require_writable(folder)
    import_keras()
    from batchscape.landscape import of_runs
    from batchscape.plot import landscape as drawing

    how = {"learning_rate": learning_rate, "build": build, "data": dataset, "show_progress": not quiet, **sizes}
    if around:
        plane = of_runs.plane_around(runs, *chosen, **how)
        print(plane, *drawing.draw_plane(plane, f"plane_{around}", folder, basis=f"{basis}."), sep="\n")
    else:
        found = of_runs.lines_between(runs, *chosen, **how)
        print(drawing.summarise_barriers(found), drawing.draw_lines(found, folder, basis=basis), sep="\n")


def _landscape_of_files(files: list[str], dataset: str, out: str, sizes: dict, *, show_progress: bool) -> None:
    if len(files) > 3:
        raise InvalidInput(f"landscape takes one, two or three .keras or .h5 files. Received: {len(files)}")
    show.require_writable(out)
    import_keras()
    from batchscape.landscape import of_runs
    from batchscape.plot import landscape as drawing

    for file in files:
        print(of_runs.centre_of_file(file, dataset))
    if len(files) == 2:
        found = of_runs.line_of_files(*files, dataset, **sizes)
        print(drawing.summarise_barriers(found), drawing.draw_lines(found, out, basis=f"Data {dataset}"), sep="\n")
    else:
        plane = of_runs.planes_of_files(files, dataset, show_progress=show_progress, **sizes)
        print(plane, *drawing.draw_plane(plane, "plane", out, basis=f"Data {dataset}."), sep="\n")


@app.command(
    epilog="Example: `batchscape noise runs/sweep`, or `batchscape noise --model mynet:build --data mydata:load`"
)
def noise(
    store: Annotated[str | None, typer.Argument(help="Folder of runs to measure; none for untrained weights.")] = None,
    dataset: Dataset = None,
    model: Model = None,
    fresh: Fresh = False,
    imports: Imports = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Measure the gradient noise scale B_simple = tr Σ / ‖G‖²: the batch size whose noise is as large as its gradient."""
    build, runs = parse.model(model, fresh, imports), None
    if store is not None:
        runs = _store_with_runs(store)
    import_keras()
    if runs is not None:
        from batchscape.gradient.of_runs import noise_of_runs

        given = {"build": build, "data": dataset}
        found = noise_of_runs(runs, **given, executor=executor, workers=workers, show_progress=not quiet)
        print(found.to_string(index=False))
        return
    from batchscape.data import load_whole
    from batchscape.gradient.statistics import gradient_statistics
    from batchscape.landscape.objective import objective_of
    from batchscape.models.build import build_model

    build, dataset = build or "mlp", dataset or "digits"
    data = load_whole(dataset)
    f = objective_of(build_model(build, data, seed=0), data)
    state = "as it was saved" if is_file(model) and not fresh else "untrained"
    print(f"{model or build} on {dataset}, {state}: {gradient_statistics(f, f.weights)}")


@app.command(
    epilog="Example: `batchscape sharpness runs/sweep`, or `batchscape sharpness net.keras --data mydata:load`"
)
def sharpness(
    where: Annotated[str | None, typer.Argument(help="Folder of runs, or a .keras or .h5 file.")] = None,
    dataset: Dataset = None,
    model: Model = None,
    fresh: Fresh = False,
    imports: Imports = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Measure how sharp minima are: λ_max and trace of the Hessian, Keskar's Metric 2.1, worst and average cases."""
    if where is None:
        raise InvalidInput("sharpness needs the folder of a sweep, or a .keras or .h5 file. Received: none")
    if is_file(where):
        _refuse_model(model, fresh, [where])
        _import(imports)
        import_keras()
        from batchscape.landscape.of_runs import centre_of_file, sharpness_of_file

        print(centre_of_file(where, dataset or "digits"))
        print(sharpness_of_file(where, dataset or "digits").to_series().to_string(float_format="{:.4g}".format))
    else:
        build, runs = parse.model(model, fresh, imports), _store_with_runs(where)
        import_keras()
        from batchscape.landscape.of_runs import sharpness_of_runs

        found = sharpness_of_runs(
            runs, build=build, data=dataset, executor=executor, workers=workers, show_progress=not quiet
        )
        print(found.to_string(index=False, float_format="{:.4g}".format))


@app.command(epilog="Example: `batchscape rates runs/sweep`")
def rates(
    store: Annotated[str | None, typer.Argument(help="Folder of a sweep over batch sizes and learning rates.")] = None,
) -> None:
    """Find the learning rate that suits each batch size: chosen on validation, reported on test, edges of the grid flagged."""
    runs = _store_with_runs(_given("rates", store))
    from batchscape.stats.tuning import tune_learning_rate
    from batchscape.sweep.frames import load_results

    found = tune_learning_rate(load_results(runs), choose="best_val_loss", report="test_loss")
    print(found.to_string(index=False, float_format="{:.4g}".format))


@app.command(epilog="Example: `batchscape target runs/sweep --at 0.9`")
def target(
    store: Annotated[str | None, typer.Argument(help="Folder of a sweep.")] = None,
    at: Annotated[
        float | None, typer.Option(help="The value to reach; by default one that half of the runs reach.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What has to reach it, such as val_accuracy, val_loss or test_accuracy.")
    ] = "val_accuracy",
) -> None:
    """Say what it takes to reach a target: epochs, updates, examples and seconds, with runs that never do counted."""
    runs = _given("target", store)
    from batchscape.stats.time_to_target import describe_targets
    from batchscape.sweep.frames import load_results

    print(describe_targets(load_results(runs, curves=True), at, metric=metric))


def _refuse_model(model: str | None, fresh: bool, files: list[str]) -> None:
    if model is not None or fresh:
        given = "--fresh" if model is None else f"--model {model}"
        raise InvalidInput(f"--model and --fresh are for runs; a file is a model. Received: {given}, {files[0]}")


def _import(modules: list[str] | None) -> None:
    """Import modules that register layers of a model's file."""
    if modules:
        import_keras()
    for name in modules or ():
        usercode.import_module(name, "import")


def _store_with_runs(where: str):
    """The store at a folder; refused where it holds no runs."""
    from batchscape.sweep.store import Store as RunStore

    runs = RunStore(where).require()
    if not runs.hashes():
        raise InvalidInput(f"{where} holds no runs yet; start with: batchscape sweep --store {where}")
    return runs


def _given(command: str, store: str | None) -> str:
    """The folder that a command was given; refused where it was given none."""
    if store is None:
        raise InvalidInput(
            f"{command} needs the folder of a sweep, such as: batchscape {command} runs/sweep. Received: none"
        )
    return store
