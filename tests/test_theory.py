"""Predicted exponents, regions, optimal points and prefactors."""

import json
import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from hdsgd import simulate
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import population_moments
from hdsgd.policies import SaveAt, Scaling
from hdsgd.problem.constraints import ALGORITHMS, Algorithm
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem, Student, Target
from hdsgd.registry import register
from hdsgd.theory.hermite import hermite_coefficients
from hdsgd.theory.phases import REGIMES, algorithm_of, best_exponent, boundaries, exponent, optimal_point, regime
from hdsgd.theory.predictions import predict
from hdsgd.theory.prefactors import critical_prefactor, critical_prefactors, drift_time
from hdsgd.theory.rules import Rule
from hdsgd.theory.signals import effective_exponent, signal

INF = math.inf
MU = np.linspace(0, 5, 81)
DELTA = np.linspace(-3, 3, 97)
PLANE = np.meshgrid(MU, DELTA, indexing="ij")


# ---------------------------------------------------------------- exponents over the plane


@pytest.mark.parametrize(
    ("ell", "mu", "delta", "projected", "others"),
    [
        # ℓ = 1: θ = δ where δ >= 1 - μ
        (1, 0, 1, 1, 1),
        (1, 0, 0.9, INF, INF),
        (1, 0.5, 0.5, 0.5, 0.5),
        (1, 1, 0, 0, 0),
        (1, 1, -1, INF, 0),
        (1, 3, 0.25, 0.25, 0.25),
        # ℓ = 2: the same
        (2, 0, 1, 1, 1),
        (2, 0.5, 0.4, INF, INF),
        (2, 1.5, 0, 0, 0),
        (2, 1.5, -0.1, INF, 0),
        # ℓ = 3: θ = δ + 1/2 where δ >= 3/2 - μ
        (3, 0, 1.5, 2, 2),
        (3, 0, 1.4, INF, INF),
        (3, 1.5, 0, 0.5, 0.5),
        (3, 1.75, -0.25, INF, 0.25),
        (3, 1.75, -0.5, INF, INF),
        (3, 2, -0.5, INF, 0),
        (3, 2, -3, INF, 0),
        (3, 4, 1, 1.5, 1.5),
        # ℓ = 4: θ = δ + 1 where δ >= 2 - μ
        (4, 0, 2, 3, 3),
        (4, 2, 0, 1, 1),
        (4, 2.5, -0.5, INF, 0.5),
        (4, 3, -5, INF, 0),
    ],
)
def test_table(ell, mu, delta, projected, others):
    assert exponent(mu, delta, ell, "projected") == projected
    assert exponent(mu, delta, ell, "correlation") == others
    assert exponent(mu, delta, ell, "spherical") == others


@pytest.mark.parametrize("ell", [2, 3, 4, 5])
def test_drift_against_shrinkage(ell):
    """The table from first principles: with M = d^(-x) at x = 1/2, drift γ M^(ℓ-1), shrinkage γ² d/n_b M."""
    mu, delta = PLANE
    drift, shrinkage = -delta - (ell - 1) / 2, -2 * delta + 1 - mu - 1 / 2
    learns = (drift >= shrinkage - 1e-9) & (delta >= -1e-9)
    steps = np.where(learns, -1 / 2 - drift, INF)
    assert exponent(mu, delta, ell, "projected") == pytest.approx(steps)


def test_shapes_and_nan():
    assert exponent(np.zeros((3, 1)), np.zeros(4), 2, "projected").shape == (3, 4)
    assert np.isnan(exponent([0.0, np.nan], [np.nan, 1.0], 2, "spherical")).all()
    # A batch is at least one sample.
    assert exponent(-3.0, 1.0, 2, "projected") == exponent(0.0, 1.0, 2, "projected") == 1.0


def test_grid_points_on_a_line_learn():
    for mu in np.linspace(0, 2, 21):
        for algorithm in ALGORITHMS:
            delta = (1.5 - mu).round(12)
            if delta >= 0:
                assert np.isfinite(exponent(mu, delta, 3, algorithm))
                assert np.isinf(exponent(mu, delta - 1e-6, 3, algorithm))


def test_logarithm():
    """T = d^δ log d has slope δ + 1/log d; only ℓ = 2, and not at giant steps."""
    d, h = 1000.0, 1e-4
    slope = (np.log(np.log(d * math.exp(h))) - np.log(np.log(d * math.exp(-h)))) / (2 * h) + 0.5
    assert exponent(2, 0.5, 2, "projected", log_dim=d) == pytest.approx(slope)
    assert exponent(2, -0.5, 2, "correlation", log_dim=d) == 0
    assert exponent(2, 0.5, 3, "projected", log_dim=d) == exponent(2, 0.5, 3, "projected")
    assert np.isinf(exponent(0, 0, 2, "projected", log_dim=d))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("ell", [1, 2, 3, 4])
def test_best_exponent_is_the_minimum_over_delta(ell, algorithm):
    theta = exponent(*PLANE, ell, algorithm).min(axis=1)
    assert best_exponent(MU, ell, algorithm) == pytest.approx(theta)
    # Batches buy time, not samples: N = d^max(ℓ-1, 1) up to the optimal batch, more beyond it.
    point = optimal_point(ell, algorithm)
    samples = MU + theta
    assert samples[point.mu >= MU] == pytest.approx(max(ell - 1, 1))
    assert (np.diff(samples[point.mu <= MU]) > 0).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("ell", [1, 2, 3, 4])
def test_optimal_point_is_the_smallest_batch_of_the_fastest(ell, algorithm):
    point = optimal_point(ell, algorithm)
    theta = best_exponent(MU, ell, algorithm)
    assert point.theta == theta.min() == exponent(point.mu, point.delta, ell, algorithm)
    assert point.mu == MU[theta <= theta.min() + 1e-9].min()
    assert point.samples == point.mu + point.theta
    assert np.isinf(exponent(point.mu, point.delta - 0.01, ell, algorithm)) or point.theta == 0


def test_optimal_points():
    for ell in (2, 3, 4):
        assert optimal_point(ell, "projected").mu == ell / 2
        assert optimal_point(ell, "projected").theta == (ell - 2) / 2
        for algorithm in ("correlation", "spherical"):
            assert optimal_point(ell, algorithm).mu == ell - 1
            giant = optimal_point(ell, algorithm, one_step=True)
            assert (giant.mu, giant.delta, giant.theta, giant.samples) == (ell, -(ell - 1) / 2, 0, ell)
    with pytest.raises(SpecificationError, match="one-step"):
        optimal_point(2, "projected", one_step=True)


def test_regimes():
    population, saad_solla, noise, none = REGIMES
    cases = [
        (0, 1.2, population), (0, 1, saad_solla), (0, 0.7, noise), (0, 0.5, none), (0, 0.2, none),
        (0.5, 0.6, population), (0.5, 0.5, saad_solla), (0.5, 0.3, noise), (0.5, 0.25, none),
        (1, 0, none), (1, 0.1, population), (2, 0.1, population), (2, 0, none), (2, -1, none), (-1, 1, saad_solla),
    ]  # fmt: skip
    mu, delta, names = zip(*cases, strict=True)
    assert list(regime(mu, delta)) == list(names)
    assert regime(*PLANE).shape == PLANE[0].shape


# ---------------------------------------------------------------- lines


def distance(mu, delta, line):
    """From points to a polyline."""
    points = np.stack([mu, delta], axis=-1)
    found = np.full(np.shape(mu), INF)
    vertices = np.stack([line.mu, line.delta], axis=-1)
    for a, b in pairwise(vertices):
        t = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        found = np.minimum(found, np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1))
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("ell", [1, 2, 3, 4])
def test_recovery_line_separates_what_learns(ell, algorithm):
    lines = [line for line in boundaries(ell, algorithm, (0, 5), (-3, 3)) if line.kind == "recovery"]
    assert len(lines) == 1
    rng = np.random.default_rng(0)
    mu, delta = rng.uniform(0, 5, 4000), rng.uniform(-3, 3, 4000)
    learns = np.isfinite(exponent(mu, delta, ell, algorithm))
    # Walk from each point to a neighbour: the verdict changes only across the line.
    for shift in ((0.05, 0), (0, 0.05)):
        other = np.isfinite(exponent(mu + shift[0], delta + shift[1], ell, algorithm))
        crossing = learns != other
        assert crossing.any() or shift[0]
        assert (distance(mu, delta, lines[0])[crossing] <= 0.05).all()
    # Every vertex strictly inside the box is on the boundary, and learns.
    for m, d in zip(lines[0].mu, lines[0].delta, strict=True):
        assert np.isfinite(exponent(m, d, ell, algorithm))
        assert np.isinf(exponent(m - 0.01, d - 0.01, ell, algorithm)) or m == 0


def test_other_lines():
    lines = {line.kind: line for line in boundaries(3, "correlation", (0, 4), (-2, 2))}
    assert (lines["time"].mu, lines["time"].delta) == ((2, 4), (-0.5, -0.5))
    assert (lines["one step"].mu, lines["one step"].delta) == ((3, 3, 4), (-2, -1, -1))
    regimes = [line for line in boundaries(2, "projected", (0, 2), (-1, 1)) if line.kind == "regime"]
    assert [(line.mu, line.delta) for line in regimes] == [
        ((0, 1), (1, 0)), ((0, 1), (0.5, 0)), ((1, 2), (0, 0)),
    ]  # fmt: skip
    for line in regimes:
        middle = sum(line.mu) / 2, sum(line.delta) / 2
        above, below = (str(regime(middle[0], middle[1] + e)) for e in (1e-3, -1e-3))
        assert above != below
        assert line.label


def test_lines_are_clipped_to_the_box():
    for algorithm in ALGORITHMS:
        for box in (((0, 2), (-1, 1.5)), ((0.3, 0.9), (0.2, 0.4)), ((-1, 6), (-4, 4)), ((1.9, 2.1), (-0.2, 3))):
            for line in boundaries(3, algorithm, *box):
                for values, (low, high) in zip((line.mu, line.delta), box, strict=True):
                    assert min(values) >= low - 1e-12
                    assert max(values) <= high + 1e-12
    # The boundary of ℓ = 2 meets this box at two of its sides, and the corner inside is kept.
    (line,) = (line for line in boundaries(2, "projected", (0.5, 1.5), (-0.5, 0.25)) if line.kind == "recovery")
    assert line.mu == pytest.approx((0.75, 1.0, 1.5))
    assert line.delta == pytest.approx((0.25, 0.0, 0.0))
    # Nothing to draw: the whole box learns.
    assert not [line for line in boundaries(2, "projected", (2, 3), (1, 2)) if line.kind == "recovery"]


# ---------------------------------------------------------------- prefactors


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


# ---------------------------------------------------------------- rules, and problems of one's own


def test_rules(own):
    """What a rule depends on: whether the output acts back on the rows."""
    register(Loss("sign", "|y - f|", error=lambda f, y: math.copysign(1.0, f - y)))
    register(Loss("linear", "1 - y³ f", error=lambda f, y: -(y**3)))
    expected = {
        ("square", "projected"): "projected",
        ("quartic", "projected"): "projected",
        ("sign", "projected"): "projected",
        ("linear", "projected"): "correlation",
        ("linear", "spherical"): "correlation",
        ("quartic", "spherical"): "spherical",
        ("adaptive", "projected"): "correlation",
        ("quartic", "none"): None,
        ("square", "tangential"): None,
    }
    for (loss, constraint), name in expected.items():
        assert algorithm_of(Problem("he2", "square", loss=loss, constraint=constraint)) == name
    register(Algorithm("cubic", "quartic loss on the sphere", "quartic", "spherical"))
    assert optimal_point(3, "cubic") == optimal_point(3, "spherical")
    register(Algorithm("free", "quartic loss, rows left as they are", "quartic", "none"))
    with pytest.raises(SpecificationError, match="not normalised"):
        exponent(1, 1, 2, "free")


def test_a_rule_of_ones_own(own):
    register(Rule("slow", "a test", lambda loss, constraint: loss.name == "quartic", stable=False))
    assert algorithm_of(Problem("he2", "square", loss="quartic", constraint="spherical")) == "slow"
    assert exponent(2, -1, 2, "slow") == INF


def test_problems_stand_for_their_exponents(own):
    problem = Problem("he3", "he3", constraint="spherical")
    assert boundaries(problem) == boundaries(3, "spherical")
    assert boundaries(problem, "projected") == boundaries(3, "projected")
    assert optimal_point(problem) == optimal_point(3, "spherical")
    assert best_exponent(1.5, problem) == best_exponent(1.5, 3, "spherical")
    with pytest.raises(SpecificationError, match="none in common"):
        boundaries(Problem("he3", "square"))
    with pytest.raises(SpecificationError, match="not normalised"):
        optimal_point(Problem("he2", "square", constraint="none"))
    with pytest.raises(SpecificationError, match="choose from projected"):
        boundaries(2)
    found = critical_prefactors(Problem("he2", "he2"), dim=10**4)
    assert list(found) == list(ALGORITHMS)
    for name, each in found.items():
        assert each == critical_prefactor(Problem.from_algorithm(name, "he2", "he2"), 10**4)
    assert list(critical_prefactors(Problem("he2", "he2"), "spherical")) == ["spherical"]


@pytest.mark.compiled
def test_the_page_of_a_quartic_loss(own):
    """It is an algorithm more, with its own exponent where that differs from the others'."""
    problem = Problem("he2", "he2", loss="quartic")
    found = predict(problem, 10**4)
    assert list(found.algorithms) == [*ALGORITHMS, "quartic"]
    own, plain = found.algorithms["quartic"], found.algorithms["projected"]
    assert own.condition == plain.condition
    assert own.prefactor == critical_prefactor(problem, 10**4)
    assert own.optimal.lr == pytest.approx(own.prefactor.reliable / 2)
    json.dumps(found.to_dict(), allow_nan=False)
    assert any("by quadrature" in note for note in found.notes)
    register(Loss("even", "1 - y² f", error=lambda f, y: -y * y))
    mixed = predict(Problem("he3", "square", loss="even"), 10**4)
    assert mixed.student.exponent is None
    assert list(mixed.algorithms) == ["even"]
    assert mixed.exponent == 2
    assert mixed.algorithms["even"].condition == plain.condition.replace("max(0, 1 - μ)", "1 - μ or μ >= 1")
    pushed = predict(Problem("he3", "square", loss="quartic"), 10**4)
    assert not pushed.algorithms
    assert any(note.startswith("quartic: at order 2 the signal has the wrong sign") for note in pushed.notes)
    assert "ℓ = 2" in mixed.summary()
    wide = predict(Problem("he2", Student("he2", 7), loss="quartic"), 100, prefactor=False)
    assert list(wide.algorithms) == list(ALGORITHMS)
    assert any(note.startswith("quartic: population moments by quadrature") for note in wide.notes)


@pytest.mark.compiled
def test_softplus_on_the_theory_page(own):
    """softplus is x/2 plus an even function, and its second derivative is s (1 - s), s the logistic function."""
    mu = hermite_coefficients(Student("softplus"), 7)
    second, _ = quad(lambda x: 1 / (2 + 2 * math.cosh(x)) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi), -12, 12)
    assert mu[1] == pytest.approx(0.5, rel=1e-12)
    assert mu[2] == pytest.approx(second, rel=1e-10)
    assert [float(mu[q]) for q in (3, 5, 7)] == [0, 0, 0]
    assert effective_exponent(Problem("he2", "softplus")) == 2
    assert effective_exponent(Problem("he3", "softplus")) is None
    assert "softplus" in predict(Problem("he2", "softplus"), 1000).summary()


# ---------------------------------------------------------------- predictions


def test_algorithm_of():
    for name in ALGORITHMS:
        assert algorithm_of(Problem.from_algorithm(name, "he2", "square")) == name
    assert algorithm_of(Problem("he2", "square", loss="adaptive")) == "correlation"
    assert algorithm_of(Problem("he2", "square", loss="correlation", constraint="spherical")) == "correlation"
    assert algorithm_of(Problem("he2", "square", constraint="none")) is None


@pytest.mark.parametrize(("ell", "loss"), [(1, "projected"), (2, "correlation"), (2, "projected"), (3, "projected")])
def test_time_is_that_of_drift_and_shrinkage(ell, loss):
    dim, eta = 10**7, 0.5
    found = predict(Problem(f"he{ell}", f"he{ell}"), dim, loss, eta=eta).algorithms[loss]
    critical, setting = found.prefactor, found.optimal
    assert setting.lr == pytest.approx(critical.reliable / 2 * dim**-setting.point.delta)
    share = critical.reliable / critical.ratio / 2
    m0 = dim**-0.5

    def pace(m):
        if ell == 1:
            return setting.lr * critical.drift * (1 - share * m / eta)
        return setting.lr * critical.drift * (m ** (ell - 1) - share * m0 ** (ell - 2) * m)

    low, high = (0.0, eta) if ell == 1 else (math.log(m0), math.log(eta))
    steps, _ = quad((lambda m: 1 / pace(m)) if ell == 1 else (lambda s: math.exp(s) / pace(math.exp(s))), low, high)
    assert setting.steps == pytest.approx(max(1.0, steps), rel=2e-3)
    assert setting.samples == setting.batch * setting.steps


def test_prediction_collects_everything():
    problem = Problem("he3(z1) + z1*z2*z3", "he3", noise=0.01)
    found = predict(problem, 1000)
    assert found.exponent == 3
    assert list(found.algorithms) == list(ALGORITHMS)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["exponent"] == data["information_exponent"] == 3
    assert data["problem"] == problem.to_dict()
    assert data["algorithms"]["projected"]["optimal"]["point"] == {
        "mu": 1.5,
        "delta": 0.0,
        "theta": 0.5,
        "samples": 2.0,
    }
    assert data["algorithms"]["projected"]["one_step"] is None
    assert data["algorithms"]["correlation"]["one_step"]["batch"] == pytest.approx(1e9)
    text = found.summary()
    assert len(text.splitlines()) < 40
    for piece in ("he3", "projected", "correlation", "spherical", "δ >= max(0, 1.5 - μ)", "exponent 3", "odd"):
        assert piece in text
    assert list(predict(problem, 1000, "spherical", prefactor=False).algorithms) == ["spherical"]
    assert list(predict(problem, 1000, ["spherical", "projected"], prefactor=False).algorithms) == [
        "spherical",
        "projected",
    ]


def test_prediction_without_prefactors():
    found = predict(Problem("he2", "square"), 1000, prefactor=False).algorithms["projected"]
    assert found.prefactor is None
    assert found.optimal.lr == 1.0
    assert found.optimal.batch == pytest.approx(1000)
    assert found.optimal.steps == pytest.approx(math.log(1000))


def test_prediction_of_what_cannot_be_learnt():
    found = predict(Problem("he3", "square"), 1000)
    assert found.exponent is None
    assert found.algorithms == {}
    assert "none in common" in found.summary()
    assert "no weak recovery" in found.summary()
    json.dumps(found.to_dict(), allow_nan=False)
    repelled = predict(Problem("-he2(z1)", "square"), 1000)
    assert repelled.exponent is None
    assert "away" in repelled.summary()
    hidden = predict(Problem("he2(z1) + he3(z2)", "square"), 1000, prefactor=False)
    assert "z2 can never be learnt" in hidden.summary()


def test_notes():
    def notes(*args, **options):
        return " ".join(predict(Problem(*args, **options), 1000, prefactor=False).notes)

    assert "log d" in notes("he2", "square")
    assert "mean" in notes("he3(z1) + 1", "he3(x) + he2(x)")
    assert "mean" not in notes("he3(z1) + 1", "he3")
    assert "constraint none" in notes("he2", "square", constraint="none")
    assert "acts like exponent 3" in notes("he3(0.7071*z1 + 0.7071*z2)", "he3(x) + he1(x)")
    assert "acts like" not in notes("he3(0.7071*z1 + 0.7071*z2)", "he3")  # that student sees order 3 only
    assert "does not grow" in notes("he1", "he1")


@pytest.mark.parametrize(
    "call",
    [
        lambda: exponent(1, 1, 2, "adam"),
        lambda: exponent(1, 1, 0, "projected"),
        lambda: exponent(1, 1, 2.5, "projected"),
        lambda: exponent(1, 1, 2, "projected", log_dim=1),
        lambda: best_exponent(1, 2, "sgd"),
        lambda: boundaries(2, "sgd"),
        lambda: boundaries(2, "projected", (1, 0)),
        lambda: boundaries(2, "projected", (0, math.nan)),
        lambda: predict(Problem("he2", "square"), 0),
        lambda: predict(Problem("he2", "square"), 10, "adam"),
        lambda: predict(Problem("he2", "square"), 10, eta=2),
    ],
)
def test_bad_requests_are_refused(call):
    with pytest.raises(SpecificationError) as error:
        call()
    assert "\n" not in str(error.value)


def test_import_is_light():
    code = (
        "import sys, hdsgd.theory.predictions; print([m for m in ('numba', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
