"""The moment engine: moments of the summands, single steps, tau-leaps, and the law of recovery times.

Statistical tests reject at p < 1e-4 (two-sample Kolmogorov-Smirnov, conservative for integer times); there are 14 such
tests of equal laws here, so that one fails by chance for 0.14 % of seeds, and seeds are fixed.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from hdsgd import Initial, Problem, SpecificationError, Student, mean_map, simulate
from hdsgd.engines import _gaussian_kernels as kernels
from hdsgd.engines import find_engine
from hdsgd.engines._summand_kernels import new_formula, new_quadrature, population, summand_covariance
from hdsgd.engines.base import Law
from hdsgd.engines.gaussian import AutoRun, GaussianRun, quadrature_nodes, summand_tails
from hdsgd.engines.reduced import ReducedRun
from hdsgd.moments.tables import moment_tables
from hdsgd.parallel import Canceller, run_tasks
from hdsgd.policies import SaveAt, Scaling
from hdsgd.problem._table_types import ErrorRule
from hdsgd.problem.arrays import tabulate
from hdsgd.simulation.cells import GROUP, Cell

ALPHA = 1e-4


def state(problem, seed=0, dim=50):
    return Initial().draw(problem, dim, np.random.default_rng(seed), 1)[0]


def covariance_of_summands(problem, X, square, formula):
    p, k = problem.p, problem.k
    summands, covariance = kernels.new_workspace(p, k)[0], kernels.new_noise(1, p, k).covariance[0]
    tables = tabulate(problem)
    if formula:
        source = new_formula(moment_tables(problem), p, k)
    else:
        source = new_quadrature(quadrature_nodes(problem), p, k, problem.noise)
    errors = ErrorRule(square, 0)
    population(source, tables, errors, X, summands)
    summand_covariance(source, tables, errors, summands, covariance)
    return summands.mean, covariance


def by_quadrature(problem, X, square, nodes=24):
    """Mean and covariance of the entries of c u by a product Gauss-Hermite rule over u."""
    p, k = problem.p, problem.k
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(range(nodes), repeat=k + p)))
    u, weight = x[grid].T, (w[grid] / np.sqrt(2 * np.pi)).prod(axis=1)
    student, teacher = X @ u, problem.target.gram_root @ u[:k]
    sigma, a = problem.student.function, problem.student.a[:, None] / p
    slope = np.polynomial.Polynomial(sigma.power_coefficients()).deriv()(student)
    slope = slope + sum((link.derivative(student) for link in sigma.links), np.zeros_like(student))
    value = np.array([sigma(row[None]) for row in student])
    rest = a * slope  # c = rest · (error - sqrt(Δ) ξ)
    error = (a * value).sum(axis=0) * square - problem.target.function(teacher)
    inside = (rest[:, None] * u[None]).reshape(p * (k + p), -1)
    mean = (inside * error * weight).sum(axis=1)
    second = (inside * weight * (error**2 + problem.noise)) @ inside.T
    return mean, second - np.outer(mean, mean)


PROBLEMS = [
    Problem("he2", "he2"),
    Problem("he3", "he3", noise=0.3),
    Problem("he4(z1) + z1", "he3"),
    Problem("erf(z1/sqrt(2))", "erf(x/sqrt(2))"),
    Problem("he2(z1) - 0.5*he2(z2)", Student("square", 2, (1.0, -0.7)), noise=0.2),
]


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("formula", [True, False])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.target.expression)
def test_moments_of_the_summands(problem, formula, square):
    smooth = problem.student.function.is_polynomial
    if not (formula or smooth):
        assert quadrature_nodes(problem) == 0
        return
    X = state(problem, dim=6)
    mean, covariance = covariance_of_summands(problem, X, square, formula)
    expected = by_quadrature(problem, X, square, 12 if problem.p > 1 else 24 if smooth else 80)
    scale = np.sqrt(np.outer(np.diag(expected[1]), np.diag(expected[1])))
    np.testing.assert_allclose(mean.ravel(), expected[0], atol=1e-8 * np.sqrt(scale.max()))
    assert np.abs((covariance - expected[1]) / scale).max() < (2e-6 if formula else 1e-11)


def test_closed_form_of_the_fourth_moments():
    """E[e² x_j x_l x_a x_b] of a quadratic problem from the generating function of theory §3.

    Under the tilt e^{θe} fields have covariance Ω + 2θ Ω𝒜Ω + 4θ² Ω𝒜Ω𝒜Ω and weight 1 + z1 θ + z2 θ²; the moment is
    twice the coefficient of θ² in weight × Σ over pairings.
    """
    problem = PROBLEMS[-1]
    p, k = 2, 2
    X = state(problem, seed=3, dim=8)
    frame = np.vstack([X, np.eye(k, k + p)])
    omega = frame @ frame.T
    form = np.diag([0.5, -0.35, -1.0, 0.5])  # a_j/p, minus the target
    c0 = 1.0 - 0.5  # the target is z1² - 1 - 0.5 z2² + 0.5
    AO = form @ omega
    covariances = [omega, 2 * omega @ AO, 4 * omega @ AO @ AO]
    z1 = c0 + np.trace(AO)
    weight = [1.0, z1, z1**2 / 2 + np.trace(AO @ AO)]

    def moment(j, l, a, b):
        total = 0.0
        for pair, other in (((j, l), (a, b)), ((j, a), (l, b)), ((j, b), (l, a))):
            for m, n, o in itertools.product(range(3), repeat=3):
                if m + n + o == 2:
                    total += 2 * weight[m] * covariances[n][pair] * covariances[o][other]
            total += problem.noise * omega[pair] * omega[other]
        return total

    slopes = [1.0, -0.7]  # c_j = 2 (a_j/p) λ_j e
    mean, covariance = covariance_of_summands(problem, X, True, formula=False)
    r = k + p
    second = (covariance + np.outer(mean.ravel(), mean.ravel())).reshape(p, r, p, r)
    fields = np.einsum("jalb,ma,nb->jmln", second, frame, frame)
    for j, l, m, n in itertools.product(range(p), range(p), range(r), range(r)):
        assert fields[j, m, l, n] == pytest.approx(slopes[j] * slopes[l] * moment(j, l, m, n), rel=1e-10, abs=1e-10)


def deterministic(problem, dim, lr, steps, M0=0.05, batch=10**17):
    """M of the moment engine, with a batch so large that nothing fluctuates, and of the mean map."""
    start = Initial(M=[[M0]])
    cell = Cell(problem, dim=dim, batch=batch, lr=lr, initial=start, engine="moment")
    run = cell.replica(0)
    run.advance(steps)
    exact = mean_map(problem, dim=dim, scaling=Scaling(batch=batch, lr=lr), steps=steps, initial=start)
    return run, float(run.overlaps().M[0, 0]), float(exact["M"].isel(step=-1).squeeze())


@pytest.mark.parametrize("algorithm", ["projected", "correlation", "spherical"])
@pytest.mark.parametrize("q", [2, 3])
def test_single_steps_follow_the_mean_map(q, algorithm):
    problem = Problem.from_algorithm(algorithm, f"he{q}", f"he{q}")
    run, M, expected = deterministic(problem, 1000, 0.03, 4 if q == 2 else 3, M0=0.3)
    assert pytest.approx(expected, rel=1e-6) == M
    assert run.step < 10


@pytest.mark.parametrize("algorithm", ["projected", "correlation", "spherical"])
def test_tau_leaps_are_of_second_order(algorithm):
    """10^4 steps of the mean map in at most 300 tau-leaps: 1 % where a first-order scheme would be off by 5 %."""
    problem = Problem.from_algorithm(algorithm, "he2", "he2")
    run, M, expected = deterministic(problem, 10**6, 1e-4, 6000)
    assert 0.3 < expected < 0.95
    assert pytest.approx(expected, rel=2e-3) == M
    assert run.cost < 300 * 2 * run._costs.state, "it leapt"


def test_a_long_run_takes_few_tau_leaps():
    """ℓ = 3, d = 10^9, γ = 1e-12: the drift needs about 10^16 steps, and no more tau-leaps than at any other γ."""
    problem = Problem.from_algorithm("correlation", "he3", "he3")
    cell = Cell(problem, dim=10**9, batch=10**18, lr=1e-12, initial=Initial("positive"), engine="moment")
    run = cell.replica(0)
    run.advance(10**18, stop_at_recovery=True)
    assert run.recovery_step is not None
    assert run.recovery_step > 10**14
    assert run.cost < 1500 * run._costs.state


SETTINGS = {  # problem, d, n_b, γ, most steps, replicas of each engine
    "he1 projected": (Problem("he1", "he1"), 256, 4, 0.01, 2000, 1500),
    "he2 projected": (Problem("he2", "he2"), 512, 32, 0.004, 4000, 1500),
    "he2 online": (Problem("he2", "he2"), 128, 1, 0.0005, 10**5, 500),
    "he2 noisy": (Problem("he2", "he2", noise=2.0), 256, 64, 0.01, 4000, 1000),
    "he2 correlation": (Problem.from_algorithm("correlation", "he2", "he2"), 512, 300, 0.3, 400, 1500),
    "he2 spherical": (Problem.from_algorithm("spherical", "he2", "he2"), 512, 2048, 0.5, 400, 800),
    "he3 correlation": (Problem.from_algorithm("correlation", "he3", "he3"), 128, 64, 0.02, 10**4, 800),
    "he3 few steps": (Problem.from_algorithm("spherical", "he3", "he3"), 64, 256, 0.02, 1000, 1000),
    "he4 correlation": (Problem.from_algorithm("correlation", "he4", "he4"), 32, 32, 0.002, 10**4, 600),
    "p = 2, k = 2": (Problem("he2(z1) + 0.5*he2(z2)", Student("he2", 2)), 256, 64, 0.02, 2000, 800),
    "p = 4": (Problem.from_algorithm("spherical", "z1*z2", Student("he2", 4), noise=0.1), 256, 256, 0.3, 1000, 600),
    "gram": (Problem.from_algorithm("correlation", "he2(z1) + z1*z2", "he2"), 256, 64, 0.05, 1000, 1000),
    "erf": (Problem("erf(z1)", Student("erf(x)", 2)), 256, 8, 0.1, 1000, 800),
}


def times(engine, name, seed, tamper=None):
    problem, dim, batch, lr, steps, replicas = SETTINGS[name]
    law = "positive" if "he3" in name else "random"
    found = np.empty(replicas)

    def one(i):
        seeds = np.random.SeedSequence([seed, i]).spawn(2)
        X = Initial(law).draw(problem, dim, np.random.default_rng(seeds[0]), 1)[0]
        run = engine(Law(problem, dim, batch, lr), X, seeds[1])
        if tamper:
            tamper(run)
        run.advance(steps, stop_at_recovery=True)
        found[i] = steps if run.recovery_step is None else run.recovery_step

    run_tasks([lambda i=i: one(i) for i in range(replicas)], 2, Canceller())
    return found


@pytest.mark.compiled
@pytest.mark.parametrize("name", list(SETTINGS))
def test_law_of_recovery_times(name):
    exact, approximate = times(ReducedRun, name, 1), times(GaussianRun, name, 2)
    assert np.mean(exact < SETTINGS[name][4]) > 0.5, "the setting should recover, for the times to say something"
    assert stats.ks_2samp(exact, approximate).pvalue > ALPHA


@pytest.mark.compiled
def test_law_of_the_automatic_choice():
    exact, automatic = times(ReducedRun, "he2 projected", 1), times(AutoRun, "he2 projected", 2)
    assert stats.ks_2samp(exact, automatic).pvalue > ALPHA


@pytest.mark.compiled
def test_gaussian_sums_where_they_do_not_hold_are_noticed():
    """Negative control: heavy tails, few steps, and an engine told that all sums are Gaussian."""

    def careless(run):
        run._tails = np.zeros_like(run._tails)

    exact, wrong = times(ReducedRun, "he3 few steps", 1), times(GaussianRun, "he3 few steps", 2, careless)
    assert stats.ks_2samp(exact, wrong).pvalue < ALPHA


@pytest.mark.compiled
def test_a_wrong_batch_is_noticed():
    """Negative control: noise of sums over 30 % fewer samples."""

    def smaller(run):
        run.batch = int(0.7 * run.batch)

    exact, wrong = times(ReducedRun, "he2 projected", 1), times(GaussianRun, "he2 projected", 2, smaller)
    assert stats.ks_2samp(exact, wrong).pvalue < ALPHA


def test_saved_and_restored():
    problem = Problem("he2", Student("he2", 2), loss="adaptive", switch_fraction=0.9)
    cell = Cell(problem, dim=500, batch=10**5, lr=0.02, initial=Initial(), engine="moment")
    straight, first = cell.replica(0), cell.replica(0)
    for run in (straight, first):
        run.advance(150)
    saved = first.state()
    second = cell.replica(1)
    second.restore(saved)
    for run in (straight, second):
        run.advance(200)
    for name, array in straight.state().items():
        assert np.array_equal(array, second.state()[name], equal_nan=True), name


def test_work_is_bounded():
    cell = Cell(Problem("he2", "he2"), dim=10**6, batch=100, lr=1.0, initial=Initial(), engine="auto")
    run = cell.replica(0)
    run.advance(10**9, max_cost=1e5)
    assert run.exhausted
    assert 1e5 <= run.cost < 1.5e5
    assert run.step < 10**6


def test_crossings_are_interpolated():
    """The recovery step lies between those of the exact deterministic map at slightly lower and higher thresholds."""
    problem = Problem("he2", "he2")
    start = Initial(M=[[0.05]])
    cell = Cell(problem, dim=10**6, batch=10**17, lr=1e-4, initial=start, engine="moment")
    run = cell.replica(0)
    run.advance(10**5, stop_at_recovery=True)
    steps = run.recovery_step + 100
    scaling = Scaling(batch=10**17, lr=1e-4)
    path = mean_map(problem, dim=10**6, scaling=scaling, steps=steps, initial=start, save=SaveAt(steps))
    M = path["M"].squeeze().values
    expected = int(path["step"].values[np.argmax(M >= 0.5)])
    assert abs(run.recovery_step - expected) < 0.005 * expected
    assert run.step > run.recovery_step, "the crossing fell inside a leap"


def test_tails():
    """He1/He1, correlation loss, m = 0: c u_teacher = -y² has excess kurtosis 12, more than c u_own (6) and c² (2)."""
    tails = summand_tails(Problem("he1", "he1"))
    assert tails[1, 0] == pytest.approx(12, rel=0.15)
    assert (summand_tails(Problem("he3", "he3")) > 5 * summand_tails(Problem("he2", "he2"))).all()


def test_choice_of_engine():
    assert find_engine("auto", Problem("he2", "he2"), 100) is AutoRun
    assert find_engine("exact", Problem("he2", "he2"), 100) is ReducedRun
    wide = Problem("he2", Student("he2", 40))
    assert find_engine("auto", wide, 1000) is ReducedRun
    with pytest.raises(SpecificationError, match="needs p \\(p \\+ k\\) <= 256, not 1640; use engine 'reduced'"):
        find_engine("moment", wide, 1000)
    with pytest.raises(SpecificationError, match="the moment engine needs dim >= k \\+ 2p = 3"):
        find_engine("moment", Problem("he2", "he2"), 2)


def test_simulate_with_a_batch_beyond_counting():
    data = simulate(Problem("he2", "he2"), dim=10**9, scaling=Scaling(batch=10**18, lr=0.1), steps=200,
                    replicas=2, engine="moment")  # fmt: skip
    assert data["recovered"].all()


@pytest.mark.parametrize("loss", ["square", "adaptive"])
@pytest.mark.parametrize("engine", ["auto", "moment", "reduced"])
def test_replicas_run_together_are_what_they_are_alone(engine, loss):
    """More of them than are in one group; some recover at once, some later, some run out of steps or of work."""
    problem = Problem("he2(z1) + 0.5*he2(z2)", Student("he2", 2), loss=loss)
    cell = Cell(problem, dim=30, batch=200, lr=0.02, initial=Initial(), engine=engine)
    count, kinds = GROUP + 3, set()
    for most in ({"steps": 20, "max_cost": 1e9}, {"steps": 1000, "max_cost": 5e3}):
        ends = cell.recover(count, **most, canceller=Canceller())
        for r in [*range(0, count, 7), *range(GROUP - 1, count)]:
            run = cell.replica(r)
            run.advance(most["steps"], max_cost=most["max_cost"], stop_at_recovery=True)
            recovery = -1 if run.recovery_step is None else run.recovery_step
            assert (ends.step[r], ends.recovery_step[r], ends.diverged[r]) == (run.step, recovery, run.diverged)
            kinds.add("early" if recovery == 0 else "none" if recovery < 0 else "later")
    assert kinds == {"early", "later", "none"}
