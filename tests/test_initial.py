"""Laws of the initial overlaps against explicit d-dimensional vectors."""

import numpy as np
import pytest
from scipy import stats

from hdsgd.errors import SpecificationError
from hdsgd.problem.initial import Initial, overlaps_of
from hdsgd.problem.model import Problem, Student, Target

D = 7
COUNT = 4000
ALPHA = 1e-4  # 8 Kolmogorov-Smirnov tests in this file: false alarm below 0.1 %
GRAM = [[1.0, 0.6], [0.6, 2.0]]


def problem(gram=None, p=3, constraint="projected"):
    return Problem(Target("he2(z1) + he2(z2)", gram), Student("square", p), constraint=constraint)


def draws(initial, prob, dim=D, count=COUNT, seed=0):
    rng = np.random.default_rng(seed)
    return [overlaps_of(X, prob) for X in initial.draw(prob, dim, rng, count)]


def explicit_vectors(prob, dim=D, count=COUNT, seed=1):
    rng = np.random.default_rng(seed)
    teacher = np.hstack([prob.target.gram_root, np.zeros((prob.k, dim - prob.k))])
    for _ in range(count):
        W = rng.standard_normal((prob.p, dim))
        W /= np.linalg.norm(W, axis=1, keepdims=True)
        yield W @ teacher.T, W @ W.T


@pytest.mark.parametrize("gram", [None, GRAM])
def test_random_rows(gram):
    prob = problem(gram)
    ours, theirs = draws(Initial(), prob), list(explicit_vectors(prob))
    for observe in (
        lambda M, Q: M[1, 1],
        lambda M, Q: Q[0, 2],
        lambda M, Q: np.linalg.norm(M),
        lambda M, Q: np.linalg.det(Q - M @ np.linalg.inv(prob.target.P) @ M.T),
    ):
        assert stats.ks_2samp([observe(*o) for o in ours], [observe(*o) for o in theirs]).pvalue > ALPHA


def test_wrong_dimension_is_rejected():
    """Negative control: one dimension too many is noticed at this sample size."""
    prob = problem()
    ours, theirs = draws(Initial(), prob, dim=D + 1), list(explicit_vectors(prob))
    values = ([np.linalg.norm(M) for M, _ in sample] for sample in (ours, theirs))
    assert stats.ks_2samp(*values).pvalue < ALPHA


@pytest.mark.parametrize("gram", [None, GRAM, [[1.0, -0.5], [-0.5, 1.0]]])
def test_positive_is_the_conditioned_distribution(gram):
    prob = problem(gram, p=1)
    ours = draws(Initial("positive"), prob)
    assert all((M > 0).all() for M, _ in ours)
    theirs = [o for o in explicit_vectors(prob, count=8 * COUNT) if (o[0] > 0).all()]
    assert len(theirs) > COUNT / 4
    assert stats.ks_2samp([M[0, 0] for M, _ in ours], [M[0, 0] for M, _ in theirs]).pvalue > ALPHA


def test_huge_dimension_has_overlaps_of_order_inverse_root():
    prob = problem(p=1)
    dim = 10**12
    values = np.array([M[0, 0] for M, _ in draws(Initial(), prob, dim=dim)]) * np.sqrt(dim)
    assert stats.kstest(values, "norm").pvalue > ALPHA


@pytest.mark.parametrize("dim", [3, 4, 100])
def test_given_overlap(dim):
    prob = problem(GRAM)
    for M, Q in draws(Initial(overlap=0.25), prob, dim=dim, count=20):
        np.testing.assert_allclose(M[:, 0], 0.25, atol=1e-14)
        np.testing.assert_allclose(np.diag(Q), 1.0, atol=1e-14)


def test_explicit_overlaps():
    M = [[0.3, 0.1], [0.0, -0.2], [0.5, 0.4]]
    Q = [[1.0, 0.2, 0.3], [0.2, 1.0, -0.1], [0.3, -0.1, 1.0]]
    for prob in (problem(), problem(GRAM)):
        ((M0, Q0),) = draws(Initial(M=M, Q=Q), prob, count=1)
        np.testing.assert_allclose(M0, M, atol=1e-14)
        np.testing.assert_allclose(Q0, Q, atol=1e-14)
        ((_, Q0),) = draws(Initial(M=M), prob, count=1)
        np.testing.assert_allclose(np.diag(Q0), 1.0, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "uniform"}, "choose from random, positive"),
        ({"distribution": "overlap"}, "needs the value"),
        ({"distribution": "positive", "overlap": 0.1}, "does not go with"),
        ({"overlap": float("nan")}, "finite"),
        ({"overlap": 1.5}, "between -1 and 1"),
        ({"distribution": "explicit"}, "needs M"),
        ({"Q": [[1.0]]}, "M and Q"),
        ({"M": [[0.1]]}, "3×2"),
        ({"M": [[0.9, 0.9]] * 3}, "positive semi-definite"),
        ({"M": [[0.1, float("inf")]] * 3}, "finite"),
        ({"M": [[0.1, 0.1]] * 3, "Q": [[1.0, 2.0, 0], [2.0, 1.0, 0], [0, 0, 1.0]]}, "positive semi-definite"),
        ({"M": [[0.1, 0.1]] * 3, "Q": [[2.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]}, "unit norm"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(SpecificationError, match=message):
        Initial(**options).check(problem(), D)


def test_dimension_must_exceed_the_directions():
    with pytest.raises(SpecificationError, match="k = 2"):
        Initial().check(problem(), 2)
