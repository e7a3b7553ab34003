"""Population moments from their definition, and how tests compare with them.

The references use nothing of `hdsgd.moments.population` or its kernels.  ``Z`` is always compared with its definition,
the mean of ``c_j c_l (||z||² - d)``; outside the span of the weights that factor averages to zero, so in the quadrature
z is replaced by the coordinates of the span.
"""

import numpy as np
from starts import random_start

from hdsgd import Problem, Student, Target
from hdsgd.moments._dispatch_kernels import moments, risk
from hdsgd.moments.tables import moment_tables


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
    W, teacher, *_ = random_start(problem, seed, d, unit=unit, collinear=collinear)
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
