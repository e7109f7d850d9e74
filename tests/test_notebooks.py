"""The notebooks as papers: their anatomy, and that what they say is what the committed records say."""

import ast
import re

import nbformat
import pytest

from tests.conftest import ROOT, intervals_in

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda file: file.stem)
def notebook(request):
    found = nbformat.read(request.param, as_version=4)
    nbformat.validate(found)
    return found


def sources(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_the_first_cell_asks_a_question_and_answers_it_with_a_number_and_n(notebook, measured):
    first = notebook.cells[0].source
    assert re.match(r"# .+\?\n", first)
    assert "**Question.**" in first
    assert re.search(r"Run time: .*smoke.*quick.*paper", first)
    answer = first.split("**Answer.**")[1]
    assert re.search(r"n = \d+", answer)
    said = intervals_in(answer)
    assert said or "counts, not estimates" in answer
    assert set(said) <= measured


def test_means_in_an_answer_are_those_of_the_records(study):
    answer = nbformat.read(ROOT / "notebooks/03_what_does_batch_size_change.ipynb", as_version=4).cells[0].source
    updates = study.runs[study.runs["learning_rate"] == 0.1].groupby("batch")["updates"].mean()
    assert f"between {updates.min():,.0f} and {updates.max():,.0f} on average" in answer
    accuracy = study.runs.groupby(["batch", "learning_rate"])["test_accuracy"].mean()
    assert f"Test accuracy is {accuracy.min():.2f} to {accuracy.max():.2f} everywhere" in answer


def test_notebooks_have_the_sections_and_the_shape_of_a_paper(notebook):
    prose = "\n".join(sources(notebook, "markdown"))
    for heading in ("## Background", "## Verdict", "## Limits", "## Next"):
        assert heading in prose
    code = sources(notebook, "code")
    assert 15 <= len(notebook.cells) <= 30
    assert sorted(len(source.splitlines()) for source in code)[len(code) // 2] <= 8
    assert len(re.findall(r"\w+", prose)) >= len(re.findall(r"\w+", "\n".join(code))) / 2
    assert any("assert " in source for source in code), "a sanity cell asserts a known law"


def test_code_cells_are_portable_and_logic_lives_in_the_package(notebook):
    code = "\n".join(sources(notebook, "code"))
    definitions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(definitions) <= 1
    assert not re.search(r"^\s*[!%]|sys\.path|['\"]/\w", code, re.MULTILINE)


def test_there_is_one_parameters_cell_which_takes_the_profile_from_the_environment(notebook):
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert 'PROFILE = os.environ.get("PROFILE", "quick")' in tagged[0]


def test_only_figures_and_verdicts_are_stored_and_they_come_from_the_paper_profile(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    kept = [cell for cell in notebook.cells if "keep_output" in cell.metadata.get("tags", [])]
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell not in kept)
    pictures = [output for cell in kept for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures
    captions = [output["data"]["text/markdown"] for cell in kept for output in cell.outputs if "data" in output
                and "text/markdown" in output["data"] and "profile" in output["data"]["text/markdown"]]  # fmt: skip
    assert captions
    assert all("profile paper" in caption for caption in captions)


def test_stored_verdicts_are_those_of_the_committed_records(notebook, measured):
    tables = [
        "".join(output["data"]["text/markdown"])
        for cell in notebook.cells
        if "bs.study.to_markdown" in cell.source and cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert tables
    assert set(intervals_in(" ".join(tables))) <= measured
