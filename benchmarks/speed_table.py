"""The tables of speed and of agreement in the README, from the records in figures/data.

python benchmarks/speed_table.py
"""

import pathlib

import numpy as np
import pandas as pd

DATA = pathlib.Path(__file__).parents[1] / "figures" / "data"
RECORDS = DATA / "speed"
ALTERNATIVES = {"fit": "`fit`", "PyTorch DataLoader": "PyTorch", "hand-written loop": "hand-written"}


def ratio(row: pd.Series) -> str:
    """How many times ours is as fast: median and range over rounds."""
    return f"{row['ratio']:.2g} [{row['ratio_low']:.2g}, {row['ratio_high']:.2g}]"


def training() -> str:
    """Updates a second, ours ÷ the alternatives, one row a batch size."""
    found = {model: pd.read_csv(RECORDS / f"training_{model}.csv") for model in ("mlp", "cnn")}
    heads = [
        f"{model.upper() + ' ' if first else ''}÷ {name}"
        for model in found
        for first, name in zip((True, False, False), ALTERNATIVES.values(), strict=True)
    ]
    lines = [f"| B | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for batch in found["mlp"]["batch_size"].unique():
        rows = [table[table["batch_size"] == batch].set_index("way") for table in found.values()]
        lines.append(f"| {batch} | {' | '.join(ratio(table.loc[way]) for table in rows for way in ALTERNATIVES)} |")
    return "\n".join(lines)


def gradients() -> str:
    """Norms of single examples' gradients a second, ours ÷ the alternatives, one row a way."""
    found = pd.read_csv(RECORDS / "noise.csv").dropna(subset=["images_per_s"])
    lines = [
        "| ‖gᵢ‖ of 10,000 MNIST images | images/s, MLP | ours is × | images/s, LeNet | ours is × |",
        "|---|---|---|---|---|",
    ]
    for way in found["way"].unique():
        rows = [found[(found["model"] == model) & (found["way"] == way)].iloc[0] for model in ("mlp", "lenet")]
        cells = [f"{row['images_per_s']:,.0f} | {'' if way == 'batchscape' else ratio(row)}" for row in rows]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def minima() -> str:
    """Points, products, eigenvalues and traces: ours, its share of the limit, and the quickest of the alternatives."""
    lines = [
        "| net | quantity | batchscape | of the limit | ours is × | the quickest alternative |",
        "|---|---|---|---|---|---|",
    ]
    for model in ("mlp", "lenet"):
        found = pd.read_csv(RECORDS / f"minima_{model}.csv")
        for quantity, rows in found.groupby("quantity", sort=False):
            ours, others = rows[rows["way"] == "batchscape"].iloc[0], rows[~rows["way"].str.contains("same|batchscape")]
            best = others.loc[others["ratio"].idxmin()]
            value = f"{ours['value']:.3g} [{ours['low']:.3g}, {ours['high']:.3g}] {ours['unit']}"
            cells = [model, quantity, value, f"{100 * ours['share_of_limit']:.0f} %", ratio(best), best["way"]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parallel_seeds() -> str:
    """Updates of eight seeds trained side by side ÷ of one alone, one row a net and backend."""
    found = pd.concat(pd.read_csv(RECORDS / f"parallel_seeds_{name}.csv") for name in ("tensorflow", "jax"))
    eight = found[found["parallel_seeds"] == 8]
    sizes = eight["batch_size"].unique()
    lines = [f"| eight seeds ÷ one | {' | '.join(f'B = {size}' for size in sizes)} |", "|---" * (1 + len(sizes)) + "|"]
    for (model, backend), rows in eight.groupby(["model", "backend"], sort=False):
        rows = rows.set_index("batch_size")
        cells = [ratio(rows.loc[size]) if size in rows.index else "alone" for size in sizes]
        lines.append(f"| {model}, {backend} | {' | '.join(cells)} |")
    return "\n".join(lines)


KINDS = {
    "training": "weights and curves after three epochs",
    "losses": "losses on lines and planes, BatchNorm anew",
    "gradients": "gradients, their norms and noise scale",
    "hessian": "Hessian: products, eigenvalues, trace",
}


def agreement() -> str:
    """How far JAX is from TensorFlow: the largest difference of each kind, relative to the largest value."""
    found = pd.read_csv(DATA / "backends" / "agreement_jax.csv", keep_default_na=False)
    losses = ("loss", "accuracy", "line", "plane", "loss_of_moments", "rho_sharpness")
    kind = np.select(
        [found["engine"] != "", found["quantity"].str.contains("hessian"), found["quantity"].isin(losses)],
        ["training", "hessian", "losses"],
        "gradients",
    )
    table = found.assign(kind=kind).pivot_table(index="kind", columns="net", values="difference", aggfunc="max")
    nets = ["mlp", "convnet", "recurrent", "scheduled"]
    lines = [f"| JAX against TensorFlow | {' | '.join(nets)} |", "|---" * (1 + len(nets)) + "|"]
    for name, text in KINDS.items():
        cells = ["" if np.isnan(value) else f"{value:.0e}" for value in table.loc[name, nets]]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


NOT_YET = (
    "GPU: not yet run. `python benchmarks/gpu.py` takes at most eight minutes: the loop over batch sizes and the line between "
    "its minima, seeds side by side, curvature of a CNN, updates a second, throughput and memory. It has run on CPU, on JAX."
)


def gpu(folder: pathlib.Path = DATA / "gpu") -> str:
    """Updates a second on a GPU, ÷ stock and ÷ the processor, one row a net; one sentence where there are no records."""
    if not (folder / "gpu_speed.csv.gz").exists():
        return NOT_YET
    found = pd.read_csv(folder / "gpu_speed.csv.gz")
    device, updates = found["device"].iloc[0], _updates(found)
    cpu = _updates(pd.read_csv(folder / "cpu_speed.csv.gz")) if (folder / "cpu_speed.csv.gz").exists() else None
    sizes = updates.index.unique("batch")
    lines = [
        f"| updates a second on {device}, fused | {' | '.join(f'B = {size}' for size in sizes)} |",
        "|---" * (1 + len(sizes)) + "|",
    ]
    for net in updates.index.unique("net"):
        cells = []
        for size in sizes:
            if (net, size) not in updates.index:
                cells.append("")
                continue
            of_one = updates.loc[(net, size)]
            text = f"{of_one['fused']:,.2g}, {of_one['fused'] / of_one['stock']:.2g} × stock"
            if cpu is not None and (net, size) in cpu.index:
                text += f", {of_one['fused'] / cpu.loc[(net, size), 'fused']:.2g} × two CPU cores"
            cells.append(text)
        lines.append(f"| {net} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _updates(found: pd.DataFrame) -> pd.DataFrame:
    """Updates a second by net and batch size, a column an engine."""
    rows = found[found["quantity"] == "updates"]
    return rows.pivot(index=["net", "batch"], columns="engine", values="per_s")


if __name__ == "__main__":
    print(training(), gradients(), minima(), parallel_seeds(), agreement(), gpu(), sep="\n\n")
