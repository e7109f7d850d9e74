"""What the words mean, counted: the counter against a counter of its own, and the verdicts."""

import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def counts():
    """The recorded counts on Keras; notebook 01 counts them anew and compares."""
    recorded = bs.study.Tables.load(ROOT / "figures/data/definitions").definitions
    return recorded[~recorded["asked"].str.startswith("PyTorch")].reset_index(drop=True)


def test_a_fit_that_is_watched_uses_each_example_once_an_epoch_in_batches_of_the_size_asked_for():
    watched = bs.study.watch_fit(23, batch_size=5, epochs=2)
    assert watched.sizes == [5, 5, 5, 5, 3] * 2
    assert watched.updates == 10
    assert watched.continued == 9
    first, second = np.concatenate(watched.batches[:5]), np.concatenate(watched.batches[5:])
    assert sorted(first) == sorted(second) == list(range(23))
    assert list(first) != list(range(23))  # Keras shuffles; after a global seed, in every epoch alike.
    assert list(np.concatenate(bs.study.watch_fit(23, batch_size=5, shuffle=False).batches)) == list(range(23))


def test_a_step_is_the_gradient_of_the_mean_times_the_rate():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    errors = x @ np.full((3, 1), 0.5) + 0.5 - y
    gradient = np.append(2 * (x * errors).mean(axis=0), 2 * errors.mean())
    assert bs.study.watch_fit(8, batch_size=8).step == pytest.approx(0.001 * np.linalg.norm(gradient), rel=1e-3)


def test_the_words_mean_what_the_articles_say_but_for_two_statements(counts):
    words = {found.claim.id: found.word for found in bs.study.verdicts(counts)}
    assert {id for id, word in words.items() if word == "fails"} == {"C10", "C11"}
    assert {id for id, word in words.items() if word == "holds"} == {
        *("C01", "C02", "C03", "C04", "C05", "C07", "C08", "C09")
    }
    evidence = bs.study.verdict("C11", counts).evidence
    assert "10, not 20" in evidence


def test_one_wrong_count_refutes_a_statement_and_missing_ones_are_named(counts):
    spoilt = counts.copy()
    spoilt.loc[spoilt["id"].eq("C05").idxmax(), "found"] = 10
    assert bs.study.verdict("C05", spoilt).word == "fails"
    with pytest.raises(InvalidInput, match="needs its counts"):
        bs.study.verdict("C05", counts[counts["id"] != "C05"])
    with pytest.raises(InvalidInput, match="count_definitions"):
        bs.study.verdict("C05", counts.drop(columns="said"))
