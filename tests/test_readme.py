"""The README is true: its numbers are those of the records, its links lead somewhere, its code runs."""

import re

import keras
import numpy as np
import pandas as pd

from batchscape.study import judge
from batchscape.system import cores
from benchmarks import speed_table
from tests.conftest import ROOT, intervals_in

DETAILED = (
    *("minima", "escapes", "rescaled", "flip", "published"),
    *("policies", "warm-up", "optimizers", "growth", "training"),
    *("timings", "peaks", "counts", "target"),
)
"""Subjects whose parts of statements stand in the table of all the evidence alone."""

README = (ROOT / "README.md").read_text()


def test_the_table_of_verdicts_is_what_the_records_say(committed_verdicts):
    table = re.search(r"<!-- verdicts -->\n(.*)\n<!-- /verdicts -->", README, re.DOTALL)[1]
    shown = [item for item in committed_verdicts if item.claim.id[-1].isdigit() or item.claim.subject not in DETAILED]
    assert table == judge.to_markdown(shown, evidence=False)
    assert judge.to_markdown(committed_verdicts) in (ROOT / "figures/verdicts.md").read_text()


def test_the_tables_of_speed_are_those_of_the_records():
    assert f"<!-- speed -->\n{speed_table.training()}" in README
    assert speed_table.gradients() in README
    assert speed_table.minima() in README
    assert speed_table.parallel_seeds() in README
    memory = pd.read_csv(speed_table.RECORDS / "minima_memory.csv").set_index("model").loc["mlp"]
    share = memory["added"] / memory["three_first_outputs"]
    assert f"takes {memory['added'] / 1e6:.0f} MB for that, {share:.2f} of three outputs" in README
    points = [
        pd.read_csv(speed_table.RECORDS / f"minima_{model}.csv").set_index(["quantity", "way"])
        for model in ("mlp", "lenet")
    ]
    keras = [table.loc[("points of a line", "Keras evaluate, B = 32"), "ratio"] for table in points]
    assert f"takes {keras[0]:.3g} times and {keras[1]:.3g} times as long" in README
    assert f"{points[1].loc[('points of a line', 'loss-landscapes'), 'ratio']:.3g} times as many" in README
    assert f"<!-- agreement -->\n{speed_table.agreement()}\n<!-- /agreement -->" in README
    assert f"<!-- gpu -->\n{speed_table.gpu()}\n<!-- /gpu -->" in README
    matrices = [pd.read_csv(speed_table.RECORDS / f"training_{model}.csv").set_index("way") for model in ("mlp", "cnn")]
    shares = [rows.loc["batchscape fused"].iloc[-1]["share_of_limit"] for rows in matrices]
    assert f"reaches {shares[0]:.0%} of the rate".replace("%", " %") in README
    assert f"on the CNN {shares[1]:.0%}".replace("%", " %") in README
    seconds = pd.read_csv(speed_table.RECORDS / "executors.csv").pivot(
        index="cells", columns="executor", values="seconds"
    )
    few, cells = seconds.index
    whole = seconds.loc[cells, "serial"] / seconds.loc[cells, "processes"]
    later = np.subtract(*seconds.loc[[cells, few], "serial"]) / np.subtract(*seconds.loc[[cells, few], "processes"])
    assert (
        f"{cells} equal cells {whole:.2f} times as fast as one process, start included, and {later:.2f} times" in README
    )
    ratios = pd.read_csv(ROOT / "figures/data/speed/schedules.csv").query("schedule != 'plain'")["ratio"]
    assert f"as many updates a second as without one (× {ratios.min():.3g} to {ratios.max():.3g}" in README


def test_every_interval_is_one_of_the_records(measured):
    timed = re.search(r"<!-- speed -->\n(.*)\n<!-- /speed -->", README, re.DOTALL)[1]
    said = intervals_in(README.replace(timed, ""))
    assert len(said) > 10
    assert set(said) <= measured


def test_means_beside_published_numbers_are_those_of_the_records(study):
    runs = study.runs
    at_one_rate = runs[(runs["learning_rate"] == 0.1) & (runs["batch"] >= 8)]
    updates = at_one_rate.groupby("batch")["updates"].mean()
    assert f"{updates.min():,.0f} to {updates.max():,.0f} updates for B = 8 to 1,280" in README


def test_every_link_leads_to_a_tracked_place():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)|`make (\w+)`", README, re.MULTILINE))
    assert {one or other for one, other in named} <= targets


def test_the_five_lines_for_a_model_of_ones_own_run_as_they_stand(tmp_path, monkeypatch, capsys):
    """As on a machine of one core, where no workers are worth their start."""
    monkeypatch.setattr(cores, "cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) == 5
    x = np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)

    def build():
        return keras.Sequential([keras.Input((20,)), keras.layers.Dense(2)])

    exec(code.replace("epochs=20", "epochs=1"), {"build": build, "x": x, "y": y})
    printed = capsys.readouterr().out
    assert "train_loss" in printed
    assert "alpha" in printed
