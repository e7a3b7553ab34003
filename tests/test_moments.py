"""Population moments, each by independent routes: closed form or algebra, Gauss-Hermite quadrature, Monte Carlo.

The references use nothing of `hdsgd.moments.population` or its kernels.  ``Z`` is always compared with its definition,
the mean of ``c_j c_l (||z||² - d)``; outside the span of the weights that factor averages to zero, so in the quadrature
z is replaced by the coordinates of the span.
"""

import itertools
import math
import os

import numpy as np
import pytest
from scipy.special import ndtri

from hdsgd import Problem, SpecificationError, Student, Target
from hdsgd.moments._dispatch_kernels import moments, risk
from hdsgd.moments._link_kernels import erf_moments, erf_risk, four_signs
from hdsgd.moments._polynomial_kernels import polynomial_moments, polynomial_risk
from hdsgd.moments._table_types import ErfTables, QuadraticTables
from hdsgd.moments.links import TANH_ERRORS, TANH_MIXTURES
from hdsgd.moments.polynomial import ridge_form
from hdsgd.moments.population import gradient_diversity, population_moments, population_risk
from hdsgd.moments.quadrature import quadrature_tables
from hdsgd.moments.tables import moment_tables

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
FALSE_ALARM = 1e-6  # of one Monte Carlo test, whatever the number of values it compares (normal approximation)


def threshold(values):
    return -ndtri(FALSE_ALARM / (2 * values))


def sample(problem, fields, square):
    """c (p, n) without label noise, s (p, n), e (n,) and ½(h* - f)² (n,) from fields (p + k, n)."""
    p, sigma = problem.p, problem.student.function
    a = problem.student.a / p
    h = problem.target.function(fields[p:])
    f = a @ sigma(fields[None, :p])
    slope = np.polynomial.Polynomial(sigma.power_coefficients()).deriv()(fields[:p])
    slope = slope + sum(link.derivative(fields[:p]) for link in sigma.links)
    s = a[:, None] * slope
    e = f - h if square else -h
    return s * e, s, e, 0.5 * (h - f) ** 2


def root_of(omega):
    values, vectors = np.linalg.eigh(omega)
    return vectors * np.sqrt(np.maximum(values, 0))


def averages(problem, square, u, root, weights):
    """A, D, Z, risk, F, H from points u (p + k, n) with weights; label noise enters by its variance."""
    x, p = root @ u, problem.p
    c, s, e, loss = sample(problem, x, square)
    second = e**2 + problem.noise
    pairs = s[:, None] * s[None] * (second * weights)
    radius = (u**2).sum(0) - len(u)
    return (
        (c * weights) @ x.T,
        pairs.sum(-1),
        (pairs * radius).sum(-1),
        float(loss @ weights) + problem.noise / 2,
        (pairs * x[:p, None] ** 2).sum(-1),
        (pairs * x[:p, None] * x[None, :p]).sum(-1),
    )


def quadrature(problem, omega, square, nodes):
    """Gauss-Hermite rule in all p + k coordinates: exact for polynomials of degree below 2 nodes in each."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    m = len(omega)
    u = np.stack([g.ravel() for g in np.meshgrid(*[points] * m)])
    w = np.prod([g.ravel() for g in np.meshgrid(*[weights] * m)], axis=0)
    return averages(problem, square, u, root_of(omega), w)


def computed(problem, omega, square, tables=None):
    """A, D, Z, risk, F, H and G from the kernels."""
    p, b = problem.p, problem.p + problem.k
    G, A = np.empty((p, b)), np.empty((p, b))
    D, Z, F, H = (np.empty((p, p)) for _ in range(4))
    tables = tables or moment_tables(problem)
    moments(tables, square, True, omega, G, A, D, Z, F, H)
    return A, D, Z, risk(tables, omega), F, H, G


def close(got, want, rtol):
    for name, x, y in zip(("A", "D", "Z", "risk", "F", "H"), got, want, strict=False):
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(y).max(), 1e-3), err_msg=name)


def overlaps(problem, seed, *, unit=True, collinear=False, d=6):
    """Ω of random students, with unit norms or not, the last two collinear if asked for."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((problem.p, d))
    if collinear:
        W[-1] = -0.7 * W[-2]
    W /= np.linalg.norm(W, axis=1)[:, None] if unit else math.sqrt(d)
    teacher = problem.target.gram_root @ np.linalg.qr(rng.standard_normal((d, d)))[0][: problem.k]
    both = np.concatenate([W, teacher])
    return both @ both.T


GRAM = ((1.5, 0.3), (0.3, 0.8))
A2 = (1.3, -0.6)
POLYNOMIALS = {
    "he2/he2": Problem("he2", "he2"),
    "square, mixed form, gram, noise": Problem(
        Target("z1*z2 + z1**2 - 0.2*z2**2 + 0.7", GRAM), Student("x**2 + 0.3", 2, A2), noise=0.4
    ),
    "linear term": Problem("z1*z2 + z1", Student("x**2 + x", 2, A2), noise=0.3),
    "he3 committee": Problem("he3(z1) + he2(z2) - 0.5", Student("he3", 2, A2), noise=0.2),
    "students beyond the target": Problem("z1", Student("he3(x) + 0.4*x**2", 2, A2)),
    "targets beyond the students": Problem(Target("he4(z1) - z2", GRAM), Student("x", 2, A2), noise=0.1),
    "three directions": Problem("z1 + z1*z2 + z1*z2*z3", Student("he2", 1), noise=0.2),
    "mixed powers, gram": Problem(Target("z1**2*z2 + 0.5*z2**2 + 1", GRAM), Student("he2(x) + 0.1*he3(x)", 2, A2)),
}


@pytest.mark.parametrize("square", [True, False], ids=["square", "correlation"])
@pytest.mark.parametrize("name", POLYNOMIALS)
@pytest.mark.parametrize("shape", ["unit norms", "free norms", "collinear"])
def test_polynomials_equal_quadrature(name, square, shape):
    problem = POLYNOMIALS[name]
    if shape == "collinear" and problem.p == 1:
        omega = np.ones((1 + problem.k, 1 + problem.k))  # the student lies on the (parallel) directions
        omega[1:, 1:] = problem.target.P
        omega[0, 1:] = omega[1:, 0] = problem.target.P[0] / math.sqrt(problem.target.P[0, 0])
    else:
        omega = overlaps(problem, 1, unit=shape == "unit norms", collinear=shape == "collinear")
    degree = max(problem.student.function.degree, problem.target.function.degree)
    nodes = problem.student.function.degree + degree + 2  # c_j c_l x² has degree 2 (deg σ - 1) + 2 degree + 2
    close(computed(problem, omega, square), quadrature(problem, omega, square, nodes), 2e-12)


@pytest.mark.parametrize("square", [True, False], ids=["square", "correlation"])
def test_closed_matrix_form_equals_graph_sum(square):
    """The two polynomial routes share no formula; p = k = 3, a dense form, general norms and P."""
    problem = Problem(
        Target("z1*z2 - z2*z3 + 0.3*z1**2 + 2*z3**2 - 1", np.eye(3) + 0.2),
        Student("2*x**2 - 0.3", 3, (1, -2, 0.5)),
        0.3,
    )
    omega = overlaps(problem, 2, unit=False, d=8)
    assert isinstance(moment_tables(problem), QuadraticTables)
    fast, slow = (computed(problem, omega, square, moment_tables(problem, general=g)) for g in (False, True))
    close(fast, slow, 1e-12)
    np.testing.assert_allclose(fast[6], slow[6], atol=1e-12)  # G


@pytest.mark.parametrize("m", [0.0, 0.3, 0.9])
def test_he2_against_hand_calculation(m):
    """p = k = 1, e = λ² - λ*²: A = (4 (1 - m²), 0), and at m = 0 D = 4 E[λ² (λ² - λ*²)²] = 4 (15 - 6 + 3) = 48."""
    got = population_moments(Problem("he2", "he2"), [[1.0]], [[m]])
    np.testing.assert_allclose(got.A, [[4 * (1 - m**2), 0]], atol=1e-14)
    assert got.risk == pytest.approx(2 * (1 - m**2))
    if m == 0:
        assert got.D[0, 0] == pytest.approx(48)
        assert got.Z[0, 0] == pytest.approx(6 * 48)  # homogeneous of degree six
    assert got.error == 0


@pytest.mark.parametrize("omega_kind", ["regular", "collinear", "students in the teacher's span"])
@pytest.mark.parametrize("activation", ["he3", "erf(x/sqrt(2))"])
def test_mean_gradient_without_inverting_omega(omega_kind, activation):
    """A = GΩ and A Gᵀ = A Ω⁺ Aᵀ, also where Ω is singular."""
    problem = Problem("he3(z1) + z2" if activation == "he3" else "erf(z1) + erf(z2)", Student(activation, 2, A2))
    omega = overlaps(problem, 3, collinear=omega_kind == "collinear")
    if omega_kind.startswith("students"):
        M = np.array([[0.6, 0.8], [-1.0, 0.0]])
        omega[:2, :2], omega[:2, 2:], omega[2:, :2] = M @ M.T, M, M.T
    got = population_moments(problem, omega[:2, :2], omega[:2, 2:])
    np.testing.assert_allclose(got.A, got.G @ omega, atol=1e-12)
    pseudo = got.A @ np.linalg.pinv(omega, rcond=1e-10, hermitian=True) @ got.A.T
    np.testing.assert_allclose(got.A @ got.G.T, pseudo, atol=1e-10)


def test_many_directions_and_units():
    """p = k = 8 against Hermite orthogonality: e = Σ_i b_i He2(x_i) + Σ_j λ_j/16, and E[x He2(y) z] = 2 xy·yz."""
    problem = Problem("+".join(f"he2(z{r + 1})" for r in range(8)), Student("he2(x) + 0.5*x", 8))
    omega = overlaps(problem, 5, d=20)
    b = np.repeat([1 / 8, -1], 8)
    Q = omega[:8, :8]
    assert risk(moment_tables(problem), omega) == pytest.approx(b @ omega**2 @ b + Q.sum() / 512, rel=1e-12)
    if JIT:
        A = computed(problem, omega, True)[0]
        np.testing.assert_allclose(A, (omega[:8] * b) @ omega / 2 + omega[:8].sum(0) / 256, atol=1e-13)


@pytest.mark.compiled
def test_closed_matrix_form_equals_graph_sum_for_wide_students():
    form = np.random.default_rng(0).standard_normal((8, 8))
    target = "+".join(f"({form[r, s]})*z{r + 1}*z{s + 1}" for r in range(8) for s in range(8))
    problem = Problem(target, Student("x**2 - 1", 8), 0.3)
    omega = overlaps(problem, 2, unit=False, d=20)
    fast, slow = (computed(problem, omega, True, moment_tables(problem, general=g)) for g in (False, True))
    close(fast, slow, 1e-11)


@pytest.mark.parametrize("square", [True, False], ids=["square", "correlation"])
def test_monte_carlo_in_d_dimensions(square):
    """A, D, Z and the risk against averages over explicit z in R^d, label noise included; half of Z must fail."""
    problem = Problem("he2(z1) + z2", Student("he2(x) + 0.5*x", 2, (1.0, 0.7)), noise=0.5)
    d, n, rng = 12, 200_000, np.random.default_rng(11)
    W = rng.standard_normal((2, d)) / math.sqrt(d)
    both = np.concatenate([W, np.linalg.qr(rng.standard_normal((d, d)))[0][:2]])
    A, D, Z, mean_risk, *_ = computed(problem, both @ both.T, square)
    z = rng.standard_normal((d, n))
    x, xi = both @ z, math.sqrt(problem.noise) * rng.standard_normal(n)
    _, s, e, _ = sample(problem, x, square)
    c = s * (e - xi)
    radius = (z**2).sum(0) - d
    pairs = [(0, 0), (0, 1), (1, 1)]
    values = [c[j] * c[l] * radius for j, l in pairs] + [c[j] * c[l] for j, l in pairs]
    values += [c[j] * x[b] for j in range(2) for b in range(4)]
    values.append(0.5 * (sample(problem, x, True)[2] - xi) ** 2)
    want = np.array([*(Z[jl] for jl in pairs), *(D[jl] for jl in pairs), *A.ravel(), mean_risk])
    means, errors = np.mean(values, axis=1), np.std(values, axis=1) / math.sqrt(n)
    assert (np.abs(means - want) < threshold(len(want)) * errors).all()
    assert abs(means[0] - 0.5 * Z[0, 0]) > threshold(len(want)) * errors[0]


def test_noise_adds_to_the_moments():
    quiet, noisy = (Problem("he3", Student("he3", 2), noise=v) for v in (0.0, 0.7))
    omega = overlaps(quiet, 4)
    before, after = computed(quiet, omega, True), computed(noisy, omega, True)
    np.testing.assert_allclose(after[0], before[0])
    assert after[3] - before[3] == pytest.approx(0.35)
    q = omega[0, 1]  # s_j = 3 He2(λ_j)/2 on unit norms: E[s_1 s_2] = (9/4) 2 q²
    assert after[1][0, 1] - before[1][0, 1] == pytest.approx(0.7 * 4.5 * q**2)


# ---------------------------------------------------------------- links


def saad_solla_pair(a, b, c):
    """E[erf(x/√2) erf(y/√2)] of variances a, b and covariance c."""
    return 2 / math.pi * math.asin(c / math.sqrt((1 + a) * (1 + b)))


def test_erf_risk_is_the_arcsin_formula():
    problem = Problem("erf(z1/sqrt(2)) + erf(z2/sqrt(2))", Student("erf(x/sqrt(2))", 2, (2, 2)), noise=0.1)
    omega = overlaps(problem, 6, unit=False)
    sign = np.array([1, 1, -1, -1])
    total = sum(
        sign[i] * sign[h] * saad_solla_pair(omega[i, i], omega[h, h], omega[i, h])
        for i, h in itertools.product(range(4), repeat=2)
    )
    assert risk(moment_tables(problem), omega) == pytest.approx(0.5 * total + 0.05, rel=1e-13)


SMOOTH = {
    "erf": ("erf(z1)", "erf", 1e-13),
    "erf with constants and negative scales": ("0.5*erf(-2*z1) + 0.3", "erf(x/2) - 0.2", 1e-12),
    "erf and polynomials": ("erf(z1) + z1**2", "erf(x) + 0.2*x**2", 1e-12),
    "erf student, polynomial target": ("he3(z1)", "erf(x/sqrt(2))", 1e-12),
    "polynomial student, erf target": ("erf(z1)", "he3", 1e-12),
    "tanh": ("tanh(z1)", "tanh", 1e-7),
    "tanh and polynomials": ("tanh(2*z1) + z1", "tanh(x) - 0.1*x**3", 3e-6),
    "tanh and erf": ("erf(z1)", "tanh", 1e-7),
}


@pytest.mark.parametrize("square", [True, False], ids=["square", "correlation"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.compiled) if n == "tanh and polynomials" else n for n in SMOOTH]
)
def test_smooth_links_equal_quadrature(name, square):
    target, activation, tolerance = SMOOTH[name]
    problem = Problem(target, activation, noise=0.3)
    omega = np.array([[0.5, 0.2], [0.2, 0.6]])
    problem = Problem(Target(target, ((0.6,),)), activation, noise=0.3)
    close(computed(problem, omega, square), quadrature(problem, omega, square, 160), tolerance)


def test_smooth_links_of_a_committee():
    """p = 2, k = 1 with different norms; both routes for sums of erfs (conditioned arcsines, groups) agree too."""
    problem = Problem(Target("erf(z1)", ((0.4,),)), Student("erf(x/sqrt(2))", 2, A2), noise=0.3)
    omega = overlaps(problem, 7, unit=False) * np.outer([0.7, 0.6, 1], [0.7, 0.6, 1])
    got, want = computed(problem, omega, True), quadrature(problem, omega, True, 44)
    close(got, want, 1e-9)
    assert isinstance(moment_tables(problem), ErfTables)
    close(computed(problem, omega, True, moment_tables(problem, general=True)), got, 1e-13)


def polar(problem, omega, square):
    """p = k = 1 with kinks at the origin of each field: Gauss-Legendre in radius and, between the kinks, in angle."""
    root = np.linalg.cholesky(omega)
    kinks = np.sort(np.concatenate([np.arctan2(-r[0], r[1]) + np.pi * np.arange(2) for r in root]) % (2 * np.pi))
    x, w = np.polynomial.legendre.leggauss(60)
    angle, angle_weight = [], []
    for a, b in zip(kinks, np.roll(kinks, -1), strict=True):
        width = (b - a) % (2 * np.pi)
        angle.append(a + width * (x + 1) / 2)
        angle_weight.append(width / 2 * w)
    phi, v = np.concatenate(angle), np.concatenate(angle_weight)
    x, w = np.polynomial.legendre.leggauss(160)
    r, rw = 7 * (x + 1), 7 * w
    u = np.stack([np.outer(r, np.cos(phi)).ravel(), np.outer(r, np.sin(phi)).ravel()])
    weights = np.outer(rw * r * np.exp(-(r**2) / 2), v).ravel() / (2 * np.pi)
    return averages(problem, square, u, root, weights)


RELUS = {
    "relu": ("relu(z1)", "relu", 1e-12),
    "relu with constants and a negative scale": ("0.3*relu(-2*z1)", "relu(x) - 1/sqrt(2*pi)", 1e-12),
    "relu student, he2 target": ("he2(z1)", "relu", 1e-12),
    "he3 student, relu target": ("relu(z1)", "he3", 1e-12),
    "relu student, erf target": ("erf(z1)", "relu", 1e-11),
    "relu and polynomials": ("he3(z1) - relu(z1)", "relu(x) + 0.2*x**2", 1e-12),
}


@pytest.mark.parametrize("square", [True, False], ids=["square", "correlation"])
@pytest.mark.parametrize("name", RELUS)
def test_relu_equals_quadrature_in_polar_coordinates(name, square):
    target, activation, tolerance = RELUS[name]
    problem = Problem(target, activation, noise=0.3)
    omega = np.array([[0.8, 0.3], [0.3, 1.0]])
    # The signs of one field that occurs in several places are treated as nearly equal: 1e-8, see the kernels.
    close(computed(problem, omega, square), polar(problem, omega, square), max(tolerance, 3e-8))


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["relu", "relu and he2", "relu, erf and tanh"])
def test_relu_committee_by_monte_carlo(name):
    """p = k = 2, where four signs occur; the same numbers with two signs of D exchanged must fail."""
    target, activation = {
        "relu": ("relu(z1) + 0.5*relu(z2)", "relu"),
        "relu and he2": ("he2(z1) + z1*z2", "relu(x) - 0.4"),
        "relu, erf and tanh": ("erf(z1) + tanh(z2)", "relu"),
    }[name]
    problem = Problem(target, Student(activation, 2, A2), noise=0.2)
    omega = overlaps(problem, 8)
    got = computed(problem, omega, True)
    rng, n = np.random.default_rng(3), 400_000
    u, root = rng.standard_normal((4, n)), root_of(omega)
    batches = [averages(problem, True, part, root, np.full(n // 400, 400 / n)) for part in np.split(u, 400, axis=1)]
    scores = []
    for g, parts in zip(got, zip(*batches, strict=True), strict=False):
        parts = np.array(parts)
        scores.append(((parts.mean(0) - g) / (parts.std(0) / 20)).ravel())
    scores = np.concatenate(scores)
    assert np.abs(scores).max() < threshold(len(scores)) + 0.5  # 400 batches: Student's t, hardly wider
    parts = np.array([b[1] for b in batches])
    assert abs((parts[:, 0, 1].mean() + got[1][0, 1]) / (parts[:, 0, 1].std() / 20)) > 10


@pytest.mark.parametrize(("rho", "exact"), [(0.5, 0.2), (0.0, 0.0)])
def test_four_signs_known(rho, exact):
    """Equicorrelated at ½ the orthant has probability 1/5, hence E[s1 s2 s3 s4] = 16/5 - 1 - 6/3."""
    tables = moment_tables(Problem("relu", "relu"))
    unit = np.zeros((4, 8))
    unit[:, :4] = np.linalg.cholesky(np.full((4, 4), rho) + (1 - rho) * np.eye(4))
    assert four_signs(unit, tables.nodes, tables.weights) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 0.0])
def test_relu_near_collinear_students(gap):
    """D, Z of two relu students that all but coincide approach those of one unit with both weights."""
    two = Problem("relu(z1)", Student("relu", 2, (1.0, 1.0)))
    one = Problem("relu(z1)", "relu")
    q = 1 - gap
    got = population_moments(two, [[1, q], [q, 1]], [[0.3], [0.3]])
    want = population_moments(one, [[1]], [[0.3]])
    slack = 1e-7 + 3 * math.sqrt(gap)
    assert got.risk == pytest.approx(float(want.risk), abs=slack)
    for j, l in itertools.product(range(2), repeat=2):
        assert 4 * got.D[j, l] == pytest.approx(want.D[0, 0], abs=slack)
        assert 4 * got.Z[j, l] == pytest.approx(want.Z[0, 0], abs=3 * slack)
    assert got.error < 1e-7


def test_quadrature_error_is_reported():
    omega_of = {"Q": [[1, 0.3], [0.3, 1]], "M": [[0.2, 0.1], [0.0, 0.5]]}
    errors = {
        act: float(population_moments(Problem(f"{act}(z1) + {act}(z2)", Student(act, 2)), *omega_of.values()).error)
        for act in ("he3", "erf", "relu", "tanh")
    }
    assert errors["he3"] == errors["erf"] == 0
    assert 0 < errors["relu"] < 1e-8
    assert 0 < errors["tanh"] < 1e-5


@pytest.mark.parametrize("terms", TANH_MIXTURES)
def test_tanh_mixture(terms):
    from scipy.special import erf

    c, b = (np.array(v)[:, None] for v in TANH_MIXTURES[terms])
    x = np.linspace(-20, 20, 40_001)
    assert c.sum() == pytest.approx(1)
    error = np.abs((c * erf(b * x)).sum(0) - np.tanh(x)).max()
    slope = 2 / math.sqrt(math.pi) * (c * b * np.exp(-((b * x) ** 2))).sum(0)
    assert max(error, np.abs(slope - 1 / np.cosh(x) ** 2).max()) <= TANH_ERRORS[terms]


# ---------------------------------------------------------------- quadrature


@pytest.mark.parametrize("square", [True, False], ids=["square", "correlation"])
@pytest.mark.parametrize("name", ["he2/he2", "linear term", pytest.param("he3 committee", marks=pytest.mark.compiled)])
@pytest.mark.parametrize("shape", ["free norms", "collinear"])
def test_quadrature_equals_closed_moments(name, square, shape, monkeypatch):
    """Forced through quadrature, polynomials lose nothing; A = GΩ and A Gᵀ hold where Ω is singular too."""
    if not JIT:
        monkeypatch.setattr("hdsgd.moments.quadrature.MAX_POINTS", 5000)
    problem = POLYNOMIALS[name]
    omega = overlaps(problem, 1, unit=False, collinear=shape == "collinear" and problem.p > 1)
    closed, got = computed(problem, omega, square), computed(problem, omega, square, quadrature_tables(problem))
    close(got, closed, 1e-10)
    A, G = got[0], got[6]
    np.testing.assert_allclose(G @ omega, A, atol=1e-9 * np.abs(A).max())
    np.testing.assert_allclose(A @ G.T, closed[0] @ closed[6].T, atol=1e-9 * np.abs(A @ G.T).max())


def test_an_error_of_ones_own_that_is_the_square_loss(own):
    problem = Problem("he3(z1)", "he2(x) + x", noise=0.3)
    omega = np.array([[0.8, 0.3], [0.3, 1.0]])
    closed = population_moments(problem, omega[:1, :1], omega[:1, 1:])
    got = population_moments(problem, omega[:1, :1], omega[:1, 1:], loss="copy")
    for name in ("A", "D", "Z", "risk", "G"):
        np.testing.assert_allclose(getattr(got, name), getattr(closed, name), atol=1e-11, err_msg=name)
    assert 0 < got.error < 1e-10


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["quartic", "softplus", "quartic, gram", "softplus target"])
def test_quadrature_by_monte_carlo(name, own):
    """Against averages over fields and label noise drawn anew; a tenth more noise must fail for the quartic loss."""
    problem = {
        "quartic": Problem("he2", "he2", noise=0.3, loss="quartic"),
        "softplus": Problem("he2(z1)", Student("softplus(x) - 0.5*x", 2, A2), noise=0.2),
        "quartic, gram": Problem(Target("z1*z2", GRAM), "softplus", noise=0.1, loss="quartic"),
        "softplus target": Problem("softplus(2*z1) - z1", "he2(x) + x", loss="correlation"),
    }[name]
    omega = overlaps(problem, 8)
    p, q, m = problem.p, omega[: problem.p, : problem.p], omega[: problem.p, problem.p :]
    want = population_moments(problem, q, m)
    assert want.error < 1e-5
    rng, batches, size = np.random.default_rng(3), 400, 5000
    sigma, a, scores, noisier = problem.student.function, problem.student.a[:, None] / p, [], []
    for noise, into in ((problem.noise, scores), (1.1 * problem.noise, noisier)):
        parts = []
        for _ in range(batches):
            u = rng.standard_normal((len(omega), size))
            x = root_of(omega) @ u
            y = problem.target.function(x[p:]) + math.sqrt(noise) * rng.standard_normal(size)
            f = (a * sigma(x[None, :p])).sum(0)
            error = (f - y) ** 3 if problem.loss == "quartic" else f - y if problem.loss == "square" else -y
            c = a * sigma.derivative(x[:p]) * error
            cc = c[:, None] * c
            parts.append([
                (c @ x.T / size).ravel(), cc.mean(-1).ravel(), (cc * ((u**2).sum(0) - len(u))).mean(-1).ravel(),
                [0.5 * ((y - f) ** 2).mean()],
            ])  # fmt: skip
        for index, expected in enumerate((want.A, want.D, want.Z, want.risk)):
            values = np.array([part[index] for part in parts])
            into.extend((values.mean(0) - np.ravel(expected)) / (values.std(0) / math.sqrt(batches)))
    # Batch means of heavy-tailed products are skewed: half a standard error more than for normal ones.
    assert np.abs(scores).max() < threshold(len(scores)) + 0.5
    if name == "quartic":
        assert abs(noisier[-1]) > threshold(len(scores)) + 0.5


def test_quadrature_tells_its_error_and_its_limits(own):
    smooth = population_moments(Problem("he2", "softplus"), [[1]], [[0.3]])
    kinked = population_moments(Problem("relu", "relu"), [[1]], [[0.3]], loss="copy")
    exact = population_moments(Problem("relu", "relu"), [[1]], [[0.3]])
    assert smooth.error < 1e-9
    true = max(np.abs(kinked[n] - exact[n]).max() / np.abs(exact[n]).max() for n in range(4))
    assert true / 3 < kinked.error < 3 * true < 0.02
    with pytest.raises(SpecificationError, match=r"at least 2\.8e\+05 points for width 5 .* at most 2e\+05"):
        moment_tables(Problem("z1 + he2(z2)", Student("softplus", 5)))
    assert moment_tables(Problem("z1 + he2(z2)", Student("softplus", 4))).weights.size <= 200_000
    # The risk does not ask for the gradient's loss: it has its closed form still.
    assert population_risk(Problem("z1", Student("he2", 7), loss="quartic"), np.eye(7), np.zeros((7, 1))) > 0


# ---------------------------------------------------------------- ridge functions


@pytest.mark.parametrize(
    ("text", "count"),
    [("z1*z2", 2), ("z1*z2*z3", 4), ("z1**2*z2**2 + z1 - 3", 4), ("z1*z2*z3*z4 + z1**3*z2", 8 + 4), ("he4(z1)", 1)],
)
def test_ridge_form_is_the_polynomial(text, count):
    function = Target(text).function
    ridges = ridge_form(function)
    assert len(ridges) <= count + 1
    z = np.random.default_rng(0).standard_normal((function.arity, 50))
    total = np.zeros(50)
    for form, ridge in ridges.items():
        v = np.array([float(h) for h in form]) @ z
        total += sum(float(c) * v**n for n, c in ridge.items())
    np.testing.assert_allclose(total, function(z), atol=1e-11)


def test_targets_that_mix_too_much_are_refused():
    with pytest.raises(SpecificationError, match="mixes too many variables"):
        moment_tables(Problem("*".join(f"z{r + 1}" for r in range(10)), "he2"))
    with pytest.raises(SpecificationError, match="seven digits"):
        moment_tables(Problem("z1**15*z2**14", "he2"))
    with pytest.raises(SpecificationError, match="take too long"):
        moment_tables(Problem("+".join(f"tanh(z{r + 1})" for r in range(8)), Student("tanh(x) + x", 8)))
    with pytest.raises(SpecificationError, match="degree at most"):
        moment_tables(Problem("erf(z1) + z1**13", "erf"))


# ---------------------------------------------------------------- the Python functions


def test_broadcasting_and_shapes():
    problem = Problem("he2(z1) + he2(z2)", Student("he2", 3))
    rng = np.random.default_rng(0)
    M = 0.2 * rng.standard_normal((4, 5, 3, 2))
    risks = population_risk(problem, np.eye(3), M)
    assert risks.shape == (4, 5)
    got = population_moments(problem, np.broadcast_to(np.eye(3), (5, 3, 3)), M)
    assert got.A.shape == (4, 5, 3, 5)
    assert got.D.shape == got.Z.shape == (4, 5, 3, 3)
    assert got.error.shape == (4, 5)
    np.testing.assert_allclose(got.risk, risks)
    single = population_moments(problem, np.eye(3), M[2, 3])
    np.testing.assert_allclose(got.Z[2, 3], single.Z)
    assert single.risk.shape == ()
    assert population_risk(problem, np.eye(3), M[:0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("Q", "M", "message"),
    [
        (np.eye(3), np.zeros((2, 1)), "Q must have shape"),
        (np.eye(2), np.zeros(2), "M must have shape"),
        ([[1, 0.5], [0.4, 1]], np.zeros((2, 1)), "symmetric"),
        (np.eye(2), [[np.nan], [0]], "finite"),
        (np.ones((3, 2, 2)), np.zeros((2, 2, 1)), "broadcast"),
    ],
)
def test_wrong_overlaps_are_refused(Q, M, message):
    with pytest.raises(SpecificationError, match=message):
        population_moments(Problem("he2", Student("he2", 2)), Q, M)


def test_adaptive_loss_must_be_resolved():
    problem = Problem("he2", "he2", loss="adaptive")
    with pytest.raises(SpecificationError, match="adaptive"):
        population_moments(problem, [[1]], [[0]])
    assert population_moments(problem, [[1]], [[0]], loss="square").D[0, 0] == pytest.approx(48)
    assert population_risk(problem, [[1]], [[0]]) == pytest.approx(2)


@pytest.mark.parametrize("collinear", [False, True])
def test_gradient_diversity(collinear):
    """Against E||g||²/||E g||² over explicit samples; half the value must fail."""
    problem = Problem("z1 + he2(z1)", Student("he2(x) + x", 2), noise=0.1)
    d, n, rng = 8, 60_000, np.random.default_rng(2)
    W = rng.standard_normal((2, d))
    W /= np.linalg.norm(W, axis=1)[:, None]
    if collinear:
        W[1] = W[0]
    teacher = np.eye(d)[:1]
    z = rng.standard_normal((d, n))
    _, s, e, _ = sample(problem, np.concatenate([W, teacher]) @ z, True)
    c = s * (e - math.sqrt(problem.noise) * rng.standard_normal(n))
    squared = (c**2).sum(0) * (z**2).sum(0)
    mean = c @ z.T / n
    bias = (squared.mean() - (mean**2).sum()) / n  # of the squared norm of the mean
    estimate = squared.mean() / ((mean**2).sum() - bias)
    got = gradient_diversity(problem, W @ W.T, W @ teacher.T, d)
    assert estimate == pytest.approx(float(got), rel=0.1)
    assert estimate != pytest.approx(0.5 * float(got), rel=0.1)


def test_gradient_diversity_where_the_mean_vanishes():
    assert gradient_diversity(Problem("he3", "he3", loss="correlation"), [[1.0]], [[0.0]], 10) == np.inf


@pytest.mark.compiled
def test_entry_points_inside_kernels():
    """`risk` and `moments` dispatch on the tables when a calling kernel is compiled."""
    import numba

    @numba.njit
    def both(tables, omega, G, A, D, Z):
        moments(tables, True, False, omega, G, A, D, Z, D, D)
        return risk(tables, omega)

    omega = np.array([[1.0, 0.3], [0.3, 1.0]])
    for problem, direct in ((Problem("he3", "he3"), polynomial_risk), (Problem("erf", "erf"), erf_risk)):
        tables = moment_tables(problem)
        arrays = [np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 1)), np.zeros((1, 1))]
        assert both(tables, omega, *arrays) == direct(tables, omega)
        kernel = polynomial_moments if direct is polynomial_risk else erf_moments
        expected = [a.copy() for a in arrays]
        kernel(tables, True, False, omega, *expected, np.zeros((1, 1)), np.zeros((1, 1)))
        for x, y in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(x, y)
