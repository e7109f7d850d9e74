"""Commands that measure runs: `landscape`, `noise`, `sharpness`, `rates`, `target`."""

from collections.abc import Callable
from typing import Annotated

import typer

from batchscape import paths, profiles
from batchscape.cli import parse, show
from batchscape.cli.app import Executor, Quiet, Tables, Workers, app
from batchscape.errors import InvalidInput, unknown_name
from batchscape.quiet import import_keras


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
    chosen = [parse.batch_size(item) for item in ([around] if around else between)]
    from batchscape.sweep.store import Store as RunStore

    runs = RunStore(where[0]).require()
    import_keras()
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
    import_keras()
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
    tables: Tables = None,
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
    import_keras()
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
    tables: Tables = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Measure how sharp minima are: λ_max and trace of the Hessian, Keskar's Metric 2.1, worst and average cases."""
    _check_one("sharpness needs runs, a .keras file, or --study", where, study)
    how = {"executor": executor, "workers": workers, "show_progress": not quiet}
    if study is not None:
        if study not in (known := (*profiles.MINIMA_PROFILES, *profiles.REPLICATIONS)):
            raise unknown_name("study", study, known)
        import_keras()
        from batchscape import minima_study
        from batchscape.study import folder_of

        if study in profiles.MINIMA_PROFILES:
            folder = folder_of(study)
            found = minima_study.run_minima_study(study, folder / "store", **how)
        else:
            folder = paths.resolve(f"runs/{study}")
            found = minima_study.run_replication(study, folder, **how)
        show.print_tables(found, tables or folder / "minima", folder / "figures")
    elif where.endswith(".keras"):
        import_keras()
        from batchscape import minima_study

        print(minima_study.sharpness_of_file(where, dataset).to_string(float_format="{:.4g}".format))
    else:
        from batchscape.sweep.store import Store as RunStore

        runs = RunStore(where).require()
        import_keras()
        from batchscape import minima_study

        found = minima_study.sharpness_of_runs(runs, **how)
        print(found.to_string(index=False, float_format="{:.4g}".format))


@app.command(epilog="Example: `batchscape rates runs/sweep`, or `batchscape rates --study quick`")
def rates(
    store: Annotated[str | None, typer.Argument(help="Folder of a sweep over batch sizes and learning rates.")] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Run the study of the learning rate: smoke, quick, paper, fashion, cifar or mnist."),
    ] = None,
    tables: Tables = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Find the learning rate that suits each batch size: chosen on validation, reported on test, edges of the grid flagged."""
    _check_one("rates needs runs, or --study", store, study)
    if store is not None:
        from batchscape.judge.tuned import tune_learning_rate
        from batchscape.sweep.results import load_results

        found = tune_learning_rate(load_results(store), choose="best_val_loss", report="test_loss")
        print(found.to_string(index=False, float_format="{:.4g}".format))
        return
    profiles.find(study, profiles.RATES_PROFILES)
    import_keras()
    from batchscape.rates_study import run_rates_study

    _print_profile("rates", study, run_rates_study, tables, executor=executor, workers=workers, show_progress=not quiet)


@app.command(epilog="Example: `batchscape target runs/sweep --at 0.9`, or `batchscape target --study quick`")
def target(
    store: Annotated[str | None, typer.Argument(help="Folder of a sweep.")] = None,
    at: Annotated[
        float | None, typer.Option(help="The value to reach; by default one that half of the runs reach.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What has to reach it, such as val_accuracy, val_loss or test_accuracy.")
    ] = "val_accuracy",
    study: Annotated[
        str | None, typer.Option(help="Run the study of the time to a target: smoke, quick, paper or full.")
    ] = None,
    tables: Tables = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Say what it takes to reach a target: epochs, updates, examples and seconds, with runs that never do counted."""
    _check_one("target needs runs, or --study", store, study)
    if store is not None:
        from batchscape.judge.target import describe_targets
        from batchscape.sweep.results import load_results

        print(describe_targets(load_results(store, curves=True), at, metric=metric))
        return
    profiles.find(study, profiles.TARGET_PROFILES)
    import_keras()
    from batchscape.target_study import run_target_study

    _print_profile(
        "target", study, run_target_study, tables, executor=executor, workers=workers, show_progress=not quiet
    )


def _check_one(needs: str, where: str | None, study: str | None) -> None:
    if (where is None) == (study is None):
        raise InvalidInput(f"{needs}. Received: {where or 'none'}, {study or 'none'}")


def _print_profile(kind: str, profile: str, run: Callable, tables: str | None, **how) -> None:
    """Run a study at a profile, and say what its records say."""
    from batchscape.study import folder_of

    folder = folder_of(profile) / kind if profile in profiles.PROFILES else paths.resolve(f"runs/{kind}-{profile}")
    show.print_tables(run(profile, folder, **how), tables or folder / "tables", folder / "figures")


def _print_study(name: str, tables: str | None, **how) -> None:
    """Run a study of the gradient, and say what its records say."""
    if name not in (known := (*profiles.PROFILES, "mnist")):
        raise unknown_name("study", name, known)
    import_keras()
    from batchscape import noise_study
    from batchscape.study import folder_of

    folder = folder_of(name) / "noise" if name != "mnist" else paths.resolve("runs/mnist")
    found = (noise_study.run_mnist_study if name == "mnist" else noise_study.run_noise_study)(name, folder, **how)
    show.print_tables(found, tables or folder / "tables", folder / "figures")
