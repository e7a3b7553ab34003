"""Exponents, boundaries, regimes and optimal points over the plane, and the rules they follow."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hdsgd.errors import SpecificationError
from hdsgd.problem.constraints import ALGORITHMS, Algorithm
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem
from hdsgd.registry import register
from hdsgd.theory.phases import REGIMES, algorithm_of, best_exponent, boundaries, exponent, optimal_point, regime
from hdsgd.theory.prefactors import critical_prefactor, critical_prefactors
from hdsgd.theory.rules import Rule

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


def test_algorithm_of():
    for name in ALGORITHMS:
        assert algorithm_of(Problem.from_algorithm(name, "he2", "square")) == name
    assert algorithm_of(Problem("he2", "square", loss="adaptive")) == "correlation"
    assert algorithm_of(Problem("he2", "square", loss="correlation", constraint="spherical")) == "correlation"
    assert algorithm_of(Problem("he2", "square", constraint="none")) is None
