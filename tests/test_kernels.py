"""Each engine's kernel against the naive version, number for number."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest

from hdsgd.engines import _reduced_kernels as kernels
from hdsgd.engines._normal_kernels import chi_square, next_normal, normals, normals32
from hdsgd.engines._stream_types import Stream32
from hdsgd.engines.base import Law
from hdsgd.engines.direct import Direct32Run, DirectRun
from hdsgd.engines.reduced import ReducedRun
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem, Student, Target

PROBLEMS = {
    "he2": ("he2", "he2", 1),
    "he3, p=3": ("he3", "he3", 3),
    "square, k=2, p=3": ("0.5*he2(z1) + z1*z2 - 0.3", "square", 3),
    "cross, k=2": ("z1 + z1**2*z2", "x**5 - 0.2*x**2 + 0.1", 1),
    "relu": ("relu(z1) + 0.3*z2", "relu(0.7*x) + 0.1*x**2", 3),
    "erf": ("erf(z1/sqrt(2)) - erf(z2)", "erf(x/sqrt(2))", 3),
    "tanh": ("tanh(2*z1)", "tanh(x)", 2),
}
LOSSES = ("square", "correlation")


def make(name, loss, constraint, noise=0.3, gram=None):
    target, activation, width = PROBLEMS[name]
    layer = [1.0, -0.7, 1.3][:width]
    return Problem(
        Target(target, gram), Student(activation, width, layer), noise=noise, loss=loss, constraint=constraint
    )


def start(engine, problem, dim, batch, seed=3):
    X = Initial("overlap", 0.3).draw(problem, dim, np.random.default_rng(seed), 1)[0]
    return engine(Law(problem, dim, batch, 0.07), X, np.random.SeedSequence(seed))


class Numbers:
    """The numbers a run is about to draw, from a copy of its stream."""

    def __init__(self, stream):
        self.stream = type(stream)(*(array.copy() for array in stream))

    def __call__(self, *shape):
        single = isinstance(self.stream, Stream32)
        out = np.empty(int(np.prod(shape)), dtype=np.float32 if single else np.float64)
        (normals32 if single else normals)(self.stream, out)
        return out.reshape(shape).astype(np.float64)

    def noise(self, problem, n):
        return self(n) if problem.noise > 0 else np.zeros(n)

    def bartlett(self, q, df):
        A = np.zeros((q, q))
        for i in range(q):
            A[i, i] = np.sqrt(chi_square(self.stream, df - i))
            for l in range(i):
                A[i, l] = next_normal(self.stream)
        return A


def in_blocks(total, size):
    return [min(size, total - done) for done in range(0, total, size)]


def naive_reduced(run, problem):
    numbers, k, p = Numbers(run._stream), problem.k, problem.p
    blocks = []
    for n in in_blocks(run.batch, kernels.BLOCK):
        u = numbers(k + p, n)
        blocks.append((u, numbers.noise(problem, n)))
    u, xi = (np.concatenate(parts, axis=-1) for parts in zip(*blocks, strict=True))
    A = numbers.bartlett(min(p, run.batch), run.dim - k - p)
    return naive.reduced_step(problem, run.lr, run._X, u, xi, A)


def naive_direct(run, problem):
    p, groups = problem.p, len(run._streams)
    blocks = []
    for g, stream in enumerate(run._streams):
        numbers, samples = Numbers(stream), run.batch // groups + (g < run.batch % groups)
        for n in in_blocks(samples, max(1, min(32768 // run.dim, 256, samples))):
            xi = numbers.noise(problem, n)
            blocks.append((numbers(n, run.dim), xi))
    z, xi = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    W, teacher = run._rows[:p].copy(), run._rows[p:].copy()
    W = naive.direct_step(problem, run.lr, W, teacher, z, xi)
    return W @ teacher.T, W @ W.T


def check_steps(engine, problem, dim, batch, steps=3, tolerance=1e-10):
    expected_step = naive_reduced if engine is ReducedRun else naive_direct
    run = start(engine, problem, dim, batch)
    for step in range(1, steps + 1):
        M, Q = expected_step(run, problem)
        run.advance(1)
        assert run.step == step
        overlaps = run.overlaps()
        np.testing.assert_allclose(overlaps.M, M, rtol=tolerance, atol=tolerance / 100)
        np.testing.assert_allclose(overlaps.Q, Q, rtol=tolerance, atol=tolerance / 100)


@pytest.mark.parametrize("engine", [ReducedRun, DirectRun])
@pytest.mark.parametrize(("loss", "constraint"), list(itertools.product(LOSSES, CONSTRAINTS)))
@pytest.mark.parametrize("name", ["he2", "he3, p=3", "square, k=2, p=3"])
def test_step_equals_naive(engine, loss, constraint, name):
    check_steps(engine, make(name, loss, constraint), dim=11, batch=7)


@pytest.mark.parametrize("engine", [ReducedRun, DirectRun])
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_every_kind_of_function(engine, name):
    check_steps(engine, make(name, "square", "projected", noise=0.0), dim=13, batch=9, steps=2)


@pytest.mark.parametrize(("loss", "constraint"), list(itertools.product(LOSSES, CONSTRAINTS)))
def test_single_precision_inputs(loss, constraint):
    """Fields carry rounding errors of 6e-8 per term, and polynomials of degree 5 enlarge them."""
    check_steps(Direct32Run, make("he3, p=3", loss, constraint), dim=40, batch=9, tolerance=1e-4)


@pytest.mark.parametrize("engine", [ReducedRun, DirectRun])
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_batches_smaller_than_the_width(engine, batch):
    """With n_b <= p the sum of c cᵀ is singular and the engine works with the coefficients themselves."""
    check_steps(engine, make("he3, p=3", "square", "spherical"), dim=12, batch=batch)


@pytest.mark.parametrize("engine", [ReducedRun, DirectRun])
@pytest.mark.parametrize("gram", [[[1.0, 0.6], [0.6, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
def test_gram_matrix(engine, gram):
    check_steps(engine, make("square, k=2, p=3", "square", "projected", gram=gram), dim=12, batch=8)


@pytest.mark.parametrize(
    ("engine", "dim", "batch"), [(ReducedRun, 40, 600), (DirectRun, 9000, 7), (DirectRun, 40, 600)]
)
@pytest.mark.compiled
def test_batches_of_several_blocks(engine, dim, batch):
    check_steps(engine, make("square, k=2, p=3", "square", "projected"), dim, batch)


@pytest.mark.compiled
def test_groups_of_samples():
    """A large step is split into groups with streams of their own; threads share them and change nothing."""
    problem = make("square, k=2, p=3", "square", "spherical")
    serial = start(DirectRun, problem, 6001, 2101)
    assert len(serial._streams) == 3
    M, Q = naive_direct(serial, problem)
    serial.advance(1)
    np.testing.assert_allclose(serial.overlaps().M, M, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(serial.overlaps().Q, Q, rtol=1e-9, atol=1e-12)
    threaded = start(DirectRun, problem, 6001, 2101)
    with ThreadPoolExecutor(3) as executor:
        threaded.executor = executor
        threaded.advance(1)
    assert np.array_equal(threaded._rows, serial._rows)


def test_a_wrong_step_is_noticed():
    """Negative control: the comparison rejects a learning rate that is off by a millionth."""
    problem = make("he2", "square", "projected")
    run = start(ReducedRun, problem, 11, 7)
    run.lr *= 1 + 1e-6
    M, _ = naive_reduced(run, problem)
    run.lr /= 1 + 1e-6
    run.advance(1)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(run.overlaps().M, M, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("p", "m"), [(1, 2), (3, 6), (4, 5)])
def test_lower_triangular_form(p, m):
    rng = np.random.default_rng(p)
    block = rng.standard_normal((p, m))
    block[-1] = block[0]  # collinear rows, as after learning
    expected = block @ block.T
    kernels.lower_triangular(block)
    np.testing.assert_allclose(np.tril(block[:, :p]) @ np.tril(block[:, :p]).T, expected, rtol=1e-12, atol=1e-14)
    assert (np.diag(block) >= 0).all()


def test_cholesky_of_singular_matrix():
    root = np.empty((3, 3))
    rows = np.array([[1.0, 2.0], [2.0, 4.0], [0.5, -1.0]])
    kernels.cholesky(rows @ rows.T, root)
    np.testing.assert_allclose(root @ root.T, rows @ rows.T, atol=1e-12)
    assert root[1, 1] == 0.0


def test_misalignment_keeps_its_relative_accuracy():
    """Near full recovery 1 - m² falls far below the resolution of m (theory §2, numerics)."""
    problem = Problem("he2", "he2")
    X = Initial("overlap", 0.9).draw(problem, 50, np.random.default_rng(0), 1)[0]
    run = ReducedRun(Law(problem, 50, 400, 0.05), X, np.random.SeedSequence(0))
    run.advance(160)
    overlaps = run.overlaps()
    assert overlaps.M[0, 0] == pytest.approx(1.0, abs=1e-15)
    assert 0.0 < overlaps.misalignment[0] < 1e-20
