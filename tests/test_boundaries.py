"""Phase diagrams read against theory: which cells count."""

import pytest
from synthetic import phase_diagram

from hdsgd import SpecificationError, compare_boundaries
from hdsgd.analysis.boundaries import theory_cells
from hdsgd.outcomes import OUTCOMES
from hdsgd.results.summaries import specification_of

ALGORITHM = "spherical"


@pytest.fixture
def data():
    return phase_diagram(3, dims=(128, 512), mu=(0.0, 0.75, 1.5, 2.25, 3.0), delta=(-1.0, 0.0, 1.0, 2.0))


def counts_when_a_cell_ends(data, status):
    """The counts before and after a cell off the boundary, where theory has recovery, ends without it."""
    before = compare_boundaries(data, ALGORITHM)
    axes = (data["mu"].values, data["delta"].values)
    theta, on_boundary = theory_cells(specification_of(data), ALGORITHM, *axes, 512)
    i, j = next((i, j) for i, j in zip(*(~on_boundary).nonzero(), strict=True) if theta[i, j] < 10)
    cell = {"algorithm": list(data["algorithm"].values).index(ALGORITHM), "dim": 1, "mu": i, "delta": j}
    data["recovered"][cell] = False
    data["status"][cell] = OUTCOMES[status]
    return before, compare_boundaries(data, ALGORITHM)


def test_counts_are_all_cells(data):
    found = compare_boundaries(data, ALGORITHM)
    assert sum(found.values()) == 20
    assert found["agree"] > 0
    assert found["on_boundary"] > 0
    assert found["undecided"] == 0
    assert found == compare_boundaries(data, ALGORITHM, 512)


@pytest.mark.parametrize("status", ["failed", "pending", "over_budget"])
def test_a_cell_that_says_nothing_is_neither_agreement_nor_disagreement(data, status):
    """Where theory has recovery, a cell that failed would otherwise be a cell that did not recover."""
    before, after = counts_when_a_cell_ends(data, status)
    assert after == {**before, "agree": before["agree"] - 1, "undecided": 1}


@pytest.mark.parametrize("status", ["censored", "diverged"])
def test_a_cell_that_did_not_recover_disagrees_where_theory_does(data, status):
    before, after = counts_when_a_cell_ends(data, status)
    assert after == {**before, "agree": before["agree"] - 1, "disagree": before["disagree"] + 1}


def test_what_is_not_there_is_named(data):
    with pytest.raises(SpecificationError, match="no algorithm 'adam' in this Dataset; it has projected"):
        compare_boundaries(data, "adam")
    with pytest.raises(SpecificationError, match="no dim 64 in this Dataset; it has 128, 512"):
        compare_boundaries(data, ALGORITHM, 64)
