"""The tables of speed in the README, from the records in figures/data/speed.

python benchmarks/speed_table.py
"""

import pathlib

import pandas as pd

RECORDS = pathlib.Path(__file__).parents[1] / "figures" / "data" / "speed"
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


if __name__ == "__main__":
    print(training(), gradients(), sep="\n\n")
