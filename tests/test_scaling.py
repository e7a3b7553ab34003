"""Batch sizes and learning rates from exponents."""

import pytest

from hdsgd import Problem, SpecificationError
from hdsgd.checks import check_dim
from hdsgd.policies import SaveAt, Scaling
from hdsgd.problem.scaling import batch_size, learning_rate
from hdsgd.simulation.runs import saved_steps
from hdsgd.theory.prefactors import resolve_scaling


@pytest.mark.parametrize(
    ("dim", "mu", "n0", "expected"),
    [(1000, 0, 1, 1), (1000, 1, 1, 1000), (1000, 0.5, 1, 32), (1000, -2, 1, 1), (100, 1, 0.255, 26),
     (10**9, 1, 1, 10**9), (1000, 2, 1, 10**6), (7, 1.5, 3, 56)],
)  # fmt: skip
def test_batch_size(dim, mu, n0, expected):
    assert batch_size(dim, mu, n0) == expected


def test_learning_rate():
    assert learning_rate(100, 0.5, 2.0) == pytest.approx(0.2)
    assert learning_rate(100, -1, 0.5) == pytest.approx(50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batch_size(1000, 7), r"mu = 7 gives a batch of 1·1000\^7 = 10\^21.0"),
        (lambda: batch_size(1000, float("nan")), "finite"),
        (lambda: batch_size(1000, 1, 0), "more than 0"),
        (lambda: learning_rate(1000, 1, -1), "more than 0"),
        (lambda: learning_rate(1000, 500, 1), "out of range"),
        (lambda: check_dim(1), "from 2"),
        (lambda: check_dim("many"), "whole number"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(SpecificationError, match=message):
        call()


def test_scaling():
    """Powers by default, numbers where given; "auto" is half the critical prefactor, 1/6 for He2/He2."""
    problem = Problem("he2", "he2")
    batch, lr, used = resolve_scaling(problem, 100, Scaling(), 0.5)
    assert (batch, used) == (100, {"mu": 1.0, "n0": 1.0, "delta": 0.0, "gamma0": lr})
    assert lr == pytest.approx(1 / 12)
    assert resolve_scaling(problem, 100, Scaling(batch=7, lr=0.1)) == (7, 0.1, {})
    assert resolve_scaling(problem, 100, Scaling(mu=0.5, lr=0.1, n0=3)) == (30, 0.1, {"mu": 0.5, "n0": 3.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 3, "mu": 1}, "give batch or mu, not both"),
        ({"lr": 1, "delta": 0}, "give lr or delta, not both"),
        ({"batch": 0}, "from 1"),
        ({"batch": 10**19}, "from 1"),
        ({"lr": 0.0}, "more than 0"),
        ({"lr": float("nan")}, "finite"),
        ({"gamma0": "half"}, "must be a number"),
    ],
)
def test_each_is_given_one_way(given, message):
    with pytest.raises(SpecificationError, match=message):
        Scaling(**given)


def test_resolved_scaling():
    problem = Problem("he2", "he2")
    batch, lr, used = resolve_scaling(problem, 100, Scaling(mu=1.5, n0=0.5, lr=0.2))
    assert (batch, lr, used) == (500, 0.2, {"mu": 1.5, "n0": 0.5})
    resolved = resolve_scaling(problem, 100, Scaling(delta=0.5, n0=2.0))
    assert resolved.batch == 200
    assert resolved.scaling["gamma0"] == pytest.approx(2 / 12)  # half of the critical 1/6, for twice the batch
    assert resolved.lr == pytest.approx(resolved.scaling["gamma0"] / 10)
    with pytest.raises(SpecificationError, match="none in common"):
        resolve_scaling(Problem("he3", "he2"), 100, Scaling())


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_saved_steps(spacing):
    for steps, points in ((1, 1), (5, 100), (1000, 10), (7, 3)):
        grid = saved_steps(steps, SaveAt(points, spacing))
        assert grid[0] == 0
        assert grid[-1] == steps
        assert (grid[1:] > grid[:-1]).all()
        assert len(grid) <= points + 1


def test_saved_points():
    assert SaveAt([0, 10.0, 2.5]).points == (0, 10, 2.5)
    for points, spacing, message in ((0, "linear", "at least 1"), (3, "cubic", "choose from linear, log"),
                                     ([-1], "linear", "at least 0"), ("many", "linear", "whole")):  # fmt: skip
        with pytest.raises(SpecificationError, match=message):
            SaveAt(points, spacing)
