"""The table of the gallery: measures every model, keeps the rows and writes the page; `python -m tests.gallery.table`."""

import pathlib
import tempfile

import numpy as np
import pandas as pd

from tests.gallery import GALLERY
from tests.gallery.measured import Swept, landscape

ROOT = pathlib.Path(__file__).parents[2]
ROWS, PAGE = ROOT / "figures" / "data" / "gallery" / "gallery.csv", ROOT / "figures" / "gallery.md"


def row(name: str) -> dict:
    """What is measured of one model."""
    entry = GALLERY[name]
    with tempfile.TemporaryDirectory() as folder:
        swept = Swept(entry, folder)
        found = {"model": name, "runs": " ".join(swept.runs["status"]), "engine": swept.runs["engine"].iloc[0]}
        found |= {
            "n_train": swept.data.n_train,
            "loss": swept.runs["loss"].iloc[0],
            "milliseconds": swept.milliseconds(),
        }
        if refusal := swept.refusal():
            return {**found, "refused": refusal}
        return {
            **found,
            "difference": swept.difference(),
            **landscape(swept.objective(), swept.weights["initial"], swept.weights["final"]),
        }


def page(rows: pd.DataFrame) -> str:
    """The page, in Markdown."""
    lines = [
        "# Models that people have",
        "",
        "Eighteen small models in the manner of the most used examples of Keras, each through a sweep of two batch sizes, the "
        "check with `evaluate`, a line between initial and trained weights, Hessian-vector products, the gradient noise and "
        "the probe. The models stand in [tests/gallery](../tests/gallery), the numbers in "
        "[data/gallery](data/gallery/gallery.csv); `make test-long` measures all of them again.",
        "",
        "*Difference*: the largest |ours - Keras'| / max(1, |Keras'|) of the loss over the batch sizes 8, 12 and all examples. "
        "*Batch*: whether the loss depends on the batch, so that batch sizes minimise different things. "
        "*Hessian*: how far Hessian-vector products are from symmetric.",
        "",
        "| model | what is particular | runs | difference | batch | Hessian |",
        "|---|---|---|---|---|---|",
    ]
    for each in rows.itertuples():
        runs = f"{each.runs.split().count('COMPLETE')} of 2"
        if isinstance(each.refused, str):
            numbers = "| trained, with the logs of its own step; no loss is said to measure | | |"
        else:
            batch = "yes" if each.depends_on_batch in (True, "True") else ""
            hessian = (
                "no second derivative of CTC in TensorFlow" if np.isnan(each.asymmetry) else f"{each.asymmetry:.0e}"
            )
            numbers = f"| {each.difference:.0e} | {batch} | {hessian} |"
        lines.append(f"| {each.model} | {GALLERY[each.model].how} | {runs} {numbers}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all and write the rows, each as soon as it is there, and the page."""
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in GALLERY:
        rows.append(row(name))
        pd.DataFrame(rows).to_csv(ROWS, index=False, float_format="%.4g")
    PAGE.write_text(page(pd.read_csv(ROWS)))


if __name__ == "__main__":
    main()
