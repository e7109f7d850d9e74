"""The register of statements, and the verdict that records give each of them.

A verdict is written once, here; notebooks, command line, report and README print it and nothing of their own.
"""

import dataclasses
import functools
import math
import tomllib
from collections.abc import Iterable
from importlib import resources

import numpy as np
import pandas as pd

from batchscape.errors import InvalidInput, unknown_name
from batchscape.stats import families
from batchscape.stats.paired import PairedEffect, paired_effect
from batchscape.study import columns, readings
from batchscape.study.subjects import SUBJECTS, describe, subject_of
from batchscape.system import html

SMALLEST_EFFECT = math.log(1.1)
"""Smallest effect of interest: a ratio of 1.1. An interval within it on both sides says "no effect"."""

SIGNIFICANCE = 0.05

MEASURED_BY_HESSIAN = ("lambda_max",)
"""Quantities that count only where Lanczos has converged."""

LOSS_TOLERANCE = 0.1
"""Runs compared at matched training loss whose losses differ by more than this share are flagged."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the register; `claims.toml` says what the fields of a rule mean."""

    id: str
    statement: str
    articles: list[str]
    prediction: str
    subject: str = "training"
    exact: str = ""
    reading: str = ""
    between: tuple[float, float] = (-math.inf, math.inf)
    outside: bool = False
    quantity: str = ""
    label: str = ""
    predicted: str = ""
    needs_target: bool = False
    where: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The largest batch size of a family against the smallest, seeds paired.

    Attributes:
        stratum, fixed: What is kept fixed, and at which value.
        small, large: The two batch sizes.
        ratio, low, high: Geometric mean of large / small with its 95 % interval.
        p_value: Exact sign-flip test.
        detectable: Smallest ratio (or its inverse) that would have shown.
        n: Number of pairs compared.
        left_out: Pairs that could not be compared, because a run diverged, failed or missed its target.
        outcome: `"holds"`, `"reversed"`, `"no effect"` or `"not shown"`.
        note: Flags, such as losses that do not match.
    """

    stratum: str
    fixed: str
    small: int
    large: int
    ratio: float
    low: float
    high: float
    p_value: float
    detectable: float
    n: int
    left_out: int
    outcome: str
    note: str = ""

    def __str__(self) -> str:
        if not self.n:
            return f"{self.fixed}: no pair to compare ({self.left_out} left out)"
        left_out = f", {self.left_out} left out" if self.left_out else ""
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.fixed}, B {self.small} → {self.large}: × {self.ratio:.3g} "
            f"[{self.low:.3g}, {self.high:.3g}], n = {self.n}{left_out}: {self.outcome}{note}"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
    """The verdict of the records on a statement.

    Attributes:
        claim: The statement.
        word: `"holds"`, `"holds at fixed rate only"`, `"reversed"`, `"no effect"`, `"not shown"`, ... .
        comparisons: The comparisons it rests on.
        evidence: The evidence of an exact rule, in words.
        data: The data set, the model and the budget.
    """

    claim: Claim
    word: str
    comparisons: tuple[Comparison, ...] | tuple[readings.Reading, ...]
    evidence: str
    data: str

    def __repr__(self) -> str:
        return "\n  ".join([f"{self.claim.id} {self.claim.statement}", f"{self.word} ({self.data})", *self.lines])

    def _repr_html_(self) -> str:
        return html.preformatted(repr(self))

    @property
    def lines(self) -> list[str]:
        """The evidence, one line a comparison."""
        return [self.evidence] if self.evidence else [f"{self.claim.label}: {found}" for found in self.comparisons]

    @property
    def summary(self) -> str:
        """The evidence in one line."""
        return self.evidence or "; ".join(map(str, self.comparisons))


@functools.cache
def register() -> dict[str, Claim]:
    """All statements, by id."""
    text = resources.files("batchscape.study").joinpath("claims.toml").read_text(encoding="utf-8")
    claims = [Claim(**entry) for entry in tomllib.loads(text)["claim"]]
    return {claim.id: claim for claim in sorted(claims, key=lambda claim: claim.id)}


def verdict(claim: str | Claim, runs: pd.DataFrame) -> Verdict:
    """Return the verdict of a table of runs on a statement.

    Args:
        claim: A statement, or its id.
        runs: One row a run: the frame of `load_results`, with the column that the rule of the statement names; for a
            statement about the gradient, the noise table of a study.

    Returns:
        A `Verdict`. "holds" without a condition needs both strata; "not shown" is a verdict.

    Raises:
        InvalidInput: For an unknown id, or runs without the column that the rule needs.
    """
    if isinstance(claim, str):
        if claim not in register():
            raise unknown_name("claim", claim, register())
        claim = register()[claim]
    if runs.empty:
        raise InvalidInput(f"A verdict on {claim.id} needs runs. Received: none")
    if subject_of(runs) != claim.subject:
        raise InvalidInput(
            f"A verdict on {claim.id} needs {SUBJECTS[claim.subject].called}. Received: a table of {list(runs.columns)}"
        )
    if claim.subject == "words":
        return _verdict_of_counts(claim, runs)
    runs = columns.add_seconds(_rows_where(claim, runs))
    if runs.empty:
        return Verdict(claim, "not measured", (), "no runs of this kind", "")
    if claim.reading:
        return _verdict_of_readings(claim, runs)
    if claim.exact:
        return _exact_verdict(claim, runs)
    if claim.quantity not in runs:
        raise InvalidInput(
            f"A verdict on {claim.id} needs the column {claim.quantity!r}. Received: {list(runs.columns)}"
        )
    least = min(3, runs["batch"].nunique())
    comparisons = tuple(_compare(claim, family) for family in families.families(runs, least=least))
    return Verdict(claim, _combine(comparisons), comparisons, "", describe(runs))


def verdicts(runs: pd.DataFrame, claims: Iterable[str] | None = None) -> list[Verdict]:
    """Return the verdicts on several statements, by default on all that this kind of table answers."""
    about_it = (id for id, claim in register().items() if claim.subject == subject_of(runs))
    return [verdict(id, runs) for id in claims or about_it]


def verdicts_of(frames: Iterable[pd.DataFrame], claims: Iterable[str] | None = None) -> list[Verdict]:
    """Return the verdicts on several statements, by default the whole register, each from the first table that answers it.

    Args:
        frames: Tables of studies; of those that a statement is about the first one counts that has rows of its kind.
        claims: Ids.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for frame in frames:
        tables.setdefault(subject_of(frame), []).append(frame)
    unknown = [id for id in claims or () if id not in register()]
    if unknown:
        raise unknown_name("claim", unknown[0], register())
    chosen = [register()[id] for id in claims or register()]
    return [verdict(claim, _table_of(claim, tables[claim.subject])) for claim in chosen if claim.subject in tables]


def _table_of(claim: Claim, tables: list[pd.DataFrame]) -> pd.DataFrame:
    return next((table for table in tables if len(_rows_where(claim, table))), tables[0])


def _rows_where(claim: Claim, table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a statement is about."""
    for column, value in claim.where.items():
        table = table[table[column] == value]
    return table


def to_table(given: Iterable[Verdict]) -> pd.DataFrame:
    """Verdicts as a frame, one row a comparison."""
    rows = []
    for item in given:
        shared = {"id": item.claim.id, "verdict": item.word, "statement": item.claim.statement, "data": item.data}
        found = [dataclasses.asdict(comparison) for comparison in item.comparisons] or [{"note": item.evidence}]
        quantity = item.claim.quantity or item.claim.exact or item.claim.reading or "count"
        rows += [{**shared, "quantity": quantity, **row} for row in found]
    return pd.DataFrame(rows)


def to_markdown(given: Iterable[Verdict], *, evidence: bool = True) -> str:
    """Verdicts as a Markdown table, one row a statement, with the evidence in a last column."""
    given = list(given)
    heads = ["id", "statement", "verdict", *(["evidence, 95 % interval"] if evidence else [])]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for item in given:
        cells = [
            item.claim.id,
            item.claim.statement,
            f"**{item.word}**",
            *(["<br>".join(item.lines)] if evidence else []),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"({'; '.join(dict.fromkeys(item.data for item in given if item.data))})"])


def _verdict_of_counts(claim: Claim, counts: pd.DataFrame) -> Verdict:
    """What the counts of a statement are: it holds if each of them is what it makes one expect."""
    rows = counts[counts["id"] == claim.id]
    if rows.empty:
        raise InvalidInput(f"A verdict on {claim.id} needs its counts. Received: those of {sorted(set(counts['id']))}")
    word = "holds" if (rows["said"] == rows["found"]).all() else "fails"
    evidence = "; ".join(
        f"{row.asked}: {row.found:g}" + ("" if row.found == row.said else f", not {row.said:g}")
        for row in rows.itertuples()
    )
    return Verdict(claim, word, (), evidence, "counted in model.fit")


def _verdict_of_readings(claim: Claim, noise: pd.DataFrame) -> Verdict:
    """What the value of a statement is at each place of training; "holds" without a condition needs all of them."""
    found = readings.read(noise, claim.reading, claim.between, outside=claim.outside)
    places: dict[str, list[str]] = {}
    for reading in found:
        places.setdefault(reading.outcome, []).append(reading.place)
    if not found:
        word = "not measured"
    elif len(places) == 1:
        word = found[0].outcome
    else:
        word = "; ".join(f"{outcome} {', '.join(where)}" for outcome, where in places.items())
    return Verdict(claim, word, found, "", SUBJECTS[claim.subject].describe(noise))


def _exact_verdict(claim: Claim, runs: pd.DataFrame) -> Verdict:
    """C22: the number of updates an epoch is a count, so every run must have it exactly."""
    done = runs[runs["status"] != "FAILED"]
    keeps = done["last_batch"] == "keep"
    expected = np.where(keeps, -(-done["n_train"] // done["batch"]), done["n_train"] // done["batch"])
    right = int((done[claim.exact] == expected).sum())
    word = "holds" if right == len(done) else "fails"
    return Verdict(claim, word, (), f"{right} of {len(done)} runs have exactly this count", describe(runs))


def _compare(claim: Claim, family: families.Family) -> Comparison:
    usable = family.runs["status"] == "COMPLETE"
    if claim.quantity in MEASURED_BY_HESSIAN and "hessian_converged" in family.runs:
        usable &= family.runs["hessian_converged"] != False  # noqa: E712 (the column may hold NaN)
    if claim.needs_target:
        usable &= family.runs["reached"] == True  # noqa: E712 (the column also holds None)
    pairs = family.pairs(claim.quantity, usable)
    logs = np.log(pairs[(pairs > 0).all(axis=1)]).replace([np.inf, -np.inf], np.nan).dropna()
    place = (family.stratum, family.label, family.batches[0], family.batches[-1])
    left_out = len(pairs) - len(logs)
    if logs.empty:
        return Comparison(*place, *(math.nan,) * 5, n=0, left_out=left_out, outcome="not shown")
    effect = paired_effect((logs["large"] - logs["small"]).to_numpy())
    return Comparison(
        *place,
        *(math.exp(value) for value in (effect.mean, effect.low, effect.high)),
        p_value=effect.p_value,
        detectable=math.exp(effect.detectable),
        n=effect.n,
        left_out=left_out,
        outcome=_outcome(effect, claim.predicted),
        note=_flag_losses(family, logs.index) if claim.needs_target else "",
    )


def _outcome(effect: PairedEffect, predicted: str) -> str:
    """The rule: direction from interval and exact test together; absence only from an interval that is narrow enough."""
    clear = effect.p_value <= SIGNIFICANCE and (effect.low > 0 or effect.high < 0)
    if effect.low > -SMALLEST_EFFECT and effect.high < SMALLEST_EFFECT:
        return "no effect"
    if not clear:
        return "not shown"
    return "holds" if (effect.mean > 0) == (predicted == "larger") else "reversed"


def _flag_losses(family: families.Family, seeds) -> str:
    """Whether runs that are compared at matched training loss really match."""
    losses = family.pairs("train_loss").loc[seeds]
    apart = (np.abs(np.log(losses["large"] / losses["small"])) > LOSS_TOLERANCE).sum()
    pairs = "pair" if apart == 1 else "pairs"
    return f"training losses differ by more than {LOSS_TOLERANCE:.0%} in {apart} {pairs}" if apart else ""


def _combine(comparisons: Iterable[Comparison]) -> str:
    """One word for a statement from what its two strata say; "holds" without a condition needs both."""
    said: dict[str, str] = {}
    for stratum in (families.FIXED_RATE, families.FIXED_RATIO):
        outcomes = {comparison.outcome for comparison in comparisons if comparison.stratum == stratum}
        said[stratum] = " / ".join(sorted(outcomes)) or "not measured"
    at_rate, at_ratio = said.values()
    if at_rate == at_ratio:
        return at_rate
    if at_rate == "holds":
        return f"holds at {families.FIXED_RATE} only ({at_ratio} at {families.FIXED_RATIO})"
    return f"{at_rate} at {families.FIXED_RATE}, {at_ratio} at {families.FIXED_RATIO}"
