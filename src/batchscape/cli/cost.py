"""Commands that say what a batch costs and which one to choose: `probe`, `advise`."""

from typing import Annotated

import typer

from batchscape.cli import parse, show
from batchscape.cli.app import Fresh, Imports, Quiet, app
from batchscape.system import atomic, paths

Model = Annotated[str, typer.Option(help="Name, module:function, or a .keras or .h5 file.")]
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
TimeLimit = Annotated[float, typer.Option(help="Seconds that building, or one measurement, may take.")]
Engine = Annotated[str, typer.Option(help="stock (model.fit by itself) or fused (our blocks of updates).")]
Jit = Annotated[bool | None, typer.Option("--jit/--no-jit", help="With or without XLA; chosen for you by default.")]


@app.command(
    epilog="Example: `batchscape probe`, `batchscape probe --model mynet:build --data mydata:load --memory-limit 2GB`, "
    "or `batchscape probe --model net.keras --data mydata:load`"
)
def probe(
    model: Model = "mlp",
    fresh: Fresh = False,
    imports: Imports = None,
    dataset: Dataset = "digits",
    batch_size: Sizes = None,
    memory_limit: MemoryLimit = None,
    repeats: Repeats = 5,
    loss: Loss = None,
    precision: Precision = None,
    engine: Engine = "stock",
    jit: Jit = None,
    time_limit: TimeLimit = 600.0,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all of it to this file as well.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure what a batch costs in time and memory, and find the largest that fits, in a process of its own."""
    if json_file:
        atomic.require_writable(paths.resolve(json_file))
    from batchscape.cost.probe import probe_batch_sizes

    found = probe_batch_sizes(
        parse.model(model, fresh, imports),
        dataset,
        batch_sizes=parse.sizes(batch_size),
        memory_limit=parse.limit(memory_limit),
        repeats=repeats,
        loss=loss,
        precision=precision,
        engine=engine,
        jit=jit,
        time_limit=time_limit,
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
    fresh: Fresh = False,
    imports: Imports = None,
    dataset: Dataset = "digits",
    batch_size: Sizes = None,
    memory_limit: MemoryLimit = None,
    repeats: Repeats = 5,
    loss: Loss = None,
    precision: Precision = None,
    engine: Engine = "stock",
    jit: Jit = None,
    time_limit: TimeLimit = 600.0,
    out: Annotated[str, typer.Option(help="Folder for the figure and the JSON.")] = "runs/advice",
    quiet: Quiet = False,
) -> None:
    """Advise a batch size and its learning rate: what fits, where throughput saturates, where more examples stop helping."""
    show.require_writable(out)
    from batchscape.cost.advise import advise as ask

    found = ask(
        parse.model(model, fresh, imports),
        dataset,
        batch_sizes=parse.sizes(batch_size),
        memory_limit=parse.limit(memory_limit),
        repeats=repeats,
        loss=loss,
        precision=precision,
        engine=engine,
        jit=jit,
        time_limit=time_limit,
        show_progress=not quiet,
    )
    from batchscape.plot import advice

    print(found.to_text())
    print(found.save(f"{out}/advice.json"), advice.draw(found, out), sep="\n")
