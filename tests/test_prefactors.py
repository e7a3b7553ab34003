"""Signals and critical prefactors: by hand, against the mean step, and against runs on both sides of the line."""

import math

import numpy as np
import pytest

from hdsgd import simulate
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import population_moments
from hdsgd.policies import SaveAt, Scaling
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem, Student, Target
from hdsgd.registry import register
from hdsgd.theory.prefactors import critical_prefactor, drift_time
from hdsgd.theory.signals import signal


@pytest.mark.parametrize(
    ("loss", "activation", "target", "drift", "noise", "ratio"),
    [
        # E[(He2(x) - He2(y))² (2x)²] = 4 E[x²(He2(x)² + 2)] = 4 (10 + 2); E[He2(y)² (2x)²] = 8
        ("square", "he2", "he2", 4, 48, 1 / 6),
        ("correlation", "he2", "he2", 4, 8, 1),
        ("adaptive", "he2", "he2", 4, 8, 1),
        # E[(x - y)²] = 2, E[y²] = 1; 2b/(ηD) with η = 1/2
        ("square", "he1", "he1", 1, 2, 2),
        ("correlation", "he1", "he1", 1, 1, 4),
        # b = μ_3 T_3/2! = 36/2; E[y²] E[(3 He2)²] = 6 · 18
        ("correlation", "he3", "he3", 18, 108, 1 / 3),
        # b = μ_2 · (largest eigenvalue 2 of 2 z1 z2's Hessian) = 4; E[y² 4x²] = 4 · 4
        ("correlation", "square", "2*z1*z2", 4, 16, 1 / 2),
        # two equal directions: either, drift as for one, twice the noise
        ("correlation", "he2", "he2(z1) + he2(z2)", 4, 16, 1 / 2),
        # relu: b = μ_1 T_1 = 1/4, D = E[y²] P(x > 0) = 1/4
        ("correlation", "relu", "relu", 0.25, 0.25, 4),
    ],
)
def test_prefactor_by_hand(loss, activation, target, drift, noise, ratio):
    found = critical_prefactor(Problem(target, activation, loss=loss), 10**4)
    assert found.drift == pytest.approx(drift)
    assert found.noise == pytest.approx(noise, rel=1e-7)
    assert found.ratio == pytest.approx(ratio, rel=1e-7)
    assert critical_prefactor(Problem(target, activation, loss=loss)).ratio == found.ratio


@pytest.mark.parametrize("loss", ["square", "correlation"])
@pytest.mark.parametrize(
    ("target", "activation", "width", "layer"),
    [
        ("he2", "square", 1, None),
        ("he3", "he3", 2, (1.0, -0.5)),
        ("relu(z1) + he3(z2)", "erf(x)", 2, (1.0, 2.0)),
        ("z1*z2", "relu", 3, (1.0, -1.0, 0.3)),
        ("he4(z1) - z1**2*z2**2 + z1*z2", "he4", 1, None),
    ],
)
def test_drift_is_the_limit_of_the_mean_step(loss, target, activation, width, layer):
    """b = lim f(m)/m^(ℓ-1), f(m) = -A_teacher·v + A_jj m with the population moments at Q = I."""
    target = Target(target)
    B = np.eye(target.k) + 0.3 * np.tri(target.k, k=-1)
    problem = Problem(Target(target.expression, B @ B.T), Student(activation, width, layer), loss=loss, noise=0.1)
    found = critical_prefactor(problem)
    j, v = found.unit, np.array(found.direction)
    assert v @ problem.target.P @ v == pytest.approx(1.0)
    m = np.array([1e-2, 2e-2])
    M = np.zeros((2, problem.p, problem.k))
    M[:, j] = m[:, None] * (problem.target.P @ v)
    moments = population_moments(problem, np.eye(problem.p), M)
    ratio = (moments.A[:, j, j] * m - moments.A[:, j, problem.p :] @ v) / m ** (found.exponent - 1)
    assert 2 * ratio[0] - ratio[1] == pytest.approx(found.drift, rel=5e-3)
    assert moments.D[0, j, j] == pytest.approx(found.noise, rel=0.2)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("target", "activation", "width", "layer", "gram", "ell"),
    [
        ("he2", "he2", 1, None, None, 2),
        ("he3", "he3 + he1", 1, None, None, 1),
        ("he2(z1) + he2(z2)", "he2", 1, None, None, 2),
        ("z1*z2", "softplus", 1, (2.0,), [[1.0, 0.3], [0.3, 1.0]], 2),
        ("he3", "square", 1, None, None, 2),
        ("he2", "he2 + he1", 2, (1.0, 1.5), None, 2),
    ],
)
def test_drift_of_a_loss_that_mixes_orders(target, activation, width, layer, gram, ell, own):
    """b against the mean step at small m, with noise; another exponent must not fit."""
    activation = activation.replace("he3 + he1", "he3(x) + he1(x)").replace("he2 + he1", "he2(x) + he1(x)")
    register(Loss("even", "1 - y² f", error=lambda f, y: -y * y))
    loss = "even" if target == "he3" and activation == "square" else "quartic"
    problem = Problem(Target(target, gram), Student(activation, width, layer), 0.1, loss=loss)
    found = signal(problem)
    assert (found.exponent, found.sign, found.reason) == (ell, 1, "")
    j = int(np.argmax(found.drifts))
    v = found.directions[j]
    assert v @ problem.target.P @ v == pytest.approx(1.0)
    m = np.array([1e-3, 2e-3])
    M = np.zeros((2, problem.p, problem.k))
    M[:, j] = m[:, None] * (problem.target.P @ v)
    A = population_moments(problem, np.eye(problem.p), M).A
    f = A[:, j, j] * m - A[:, j, problem.p :] @ v
    ratio = f / m ** (ell - 1)
    assert 2 * ratio[0] - ratio[1] == pytest.approx(found.drifts[j], rel=2e-3)
    if ell > 1:
        assert f[0] < 0.1 * found.drifts[j]
    # No other direction is better, for the orders at which all are examined.
    other = np.linalg.solve(np.linalg.cholesky(problem.target.P).T, np.random.default_rng(0).standard_normal(problem.k))
    other /= math.sqrt(other @ problem.target.P @ other)
    M[:, j] = m[:, None] * (problem.target.P @ other)
    A = population_moments(problem, np.eye(problem.p), M).A
    elsewhere = (A[0, j, j] * m[0] - A[0, j, problem.p :] @ other) / m[0] ** (ell - 1)
    assert elsewhere < found.drifts[j] * (1 + 2e-2)


@pytest.mark.compiled
def test_signal_by_quadrature_is_that_of_hermite_coefficients(own):
    """The square loss given by its error: same exponent, drifts and directions, whatever the route."""
    for target, student in (("he3", Student("he3")), ("z1 - 2*z2", Student("erf", 2, (1.0, -1.0))),
                            ("he2(z1) - 3*he2(z2)", Student("square", 2, (1.0, -1.0))), ("-he2(z1)", Student("square")),
                            ("he2", Student("he3"))):  # fmt: skip
        plain, copy = (signal(Problem(target, student, loss=loss)) for loss in ("square", "copy"))
        assert plain.exponent == copy.exponent
        assert plain.sign == copy.sign
        np.testing.assert_allclose(copy.drifts, plain.drifts, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(copy.directions, plain.directions, atol=1e-6)
    assert "up to order 10" in copy.reason


@pytest.mark.compiled
def test_recovery_on_both_sides_of_the_line_of_a_quartic_loss(own):
    """He2 by He2, error (f - y)³, on the line δ = 1 - μ: a third of the critical prefactor recovers, three do not."""
    problem, dim = Problem("he2", "he2", loss="quartic"), 4000
    critical = critical_prefactor(problem, dim)
    assert critical.exponent == 2
    recovered = []
    for factor in (1 / 3, 3.0):
        lr = factor * critical.reliable
        steps = 3 * int(drift_time(2, critical.reliable / 3 * critical.drift, dim, 0.5))
        run = simulate(problem, dim=dim, steps=steps, scaling=Scaling(mu=1, delta=0, gamma0=lr), engine="reduced",
                       replicas=8, save=SaveAt(1))  # fmt: skip
        recovered.append(int(run.recovered.sum()))
    assert recovered == [8, 0]


def test_prefactor_options():
    problem = Problem.from_algorithm("correlation", "he3", "he3")
    plain = critical_prefactor(problem)
    assert plain.sustained is None
    assert plain.reliable == plain.ratio
    assert critical_prefactor(problem, size=2.0).ratio == pytest.approx(2 * plain.ratio)
    assert critical_prefactor(problem, eta=0.1).ratio == plain.ratio
    line = Problem.from_algorithm("correlation", "he1", "he1")
    assert critical_prefactor(line, eta=0.1).ratio == pytest.approx(5 * critical_prefactor(line, eta=0.5).ratio)
    noisy = Problem.from_algorithm("correlation", "he2", "he2", noise=2.0)
    assert critical_prefactor(noisy).ratio == pytest.approx(0.5)  # D = 4 (2 + Δ)


def test_sustained():
    """He2/He2, correlation: f = 4m(1 - m²), D = 4 E[x² He2(y)²] = 8 + 32m², so 2f/(mD) = (1 - m²)/(1 + 4m²)."""
    found = critical_prefactor(Problem.from_algorithm("correlation", "he2", "he2"), 10**6, eta=0.5)
    assert found.sustained == pytest.approx(0.375)
    assert found.reliable == found.sustained
    assert critical_prefactor(
        Problem.from_algorithm("correlation", "he2", "he2"), 100, eta=0.1
    ).sustained == pytest.approx(0.99 / 1.04)
    # ℓ = 3: shrinkage matters at the start only.
    cubic = critical_prefactor(Problem.from_algorithm("projected", "he3", "he3"), 10**6)
    assert cubic.sustained == pytest.approx(cubic.ratio, rel=1e-2)
    # He1: f = 1 - m², square loss D = 2 - 2m, so 2f/(mD) = (1 + m)/m
    line = critical_prefactor(Problem.from_algorithm("projected", "he1", "he1"), 10**6, eta=0.5)
    assert line.sustained == pytest.approx(3.0)


def test_best_unit_and_direction():
    found = critical_prefactor(
        Problem("he2(z1) - 3*he2(z2)", Student("square", 3, (1.0, -1.0, 0.0)), loss="correlation")
    )
    assert found.unit == 1  # pulled to -z2² three times as strongly
    assert found.direction == pytest.approx((0.0, 1.0))
    assert found.drift == pytest.approx(3 * 4 / 3)


def test_prefactor_says_why_there_is_none():
    with pytest.raises(SpecificationError, match="order 3"):
        critical_prefactor(Problem("he3", "square"), 100)
    with pytest.raises(SpecificationError, match="away"):
        critical_prefactor(Problem("-he2(z1)", "square"), 100)
    assert critical_prefactor(Problem("-he2(z1)", Student("square", 1, (-1.0,)))).ratio > 0
    with pytest.raises(SpecificationError, match="eta"):
        critical_prefactor(Problem("he2", "square"), eta=0.0)
    with pytest.raises(SpecificationError, match="dim"):
        critical_prefactor(Problem("he2", "square"), 1)
