# mypy: ignore-errors
"""Mean and covariance of the summands of a batch sum at a state of the chain, in two ways.

Exactly by Gauss-Hermite quadrature over the span, for polynomials and few dimensions: a deterministic, weighted batch
through the code of the exact chain.  Otherwise from the closed moments of `hdsgd.moments._polynomial_kernels`.

Index legend: j, l student rows (p); b, h basis vectors of the span (r = k + p); s quadrature points (n); fields
(p + k) as in `hdsgd.moments._polynomial_kernels`.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from hdsgd._compile import kernel, overload, plain_kernel
from hdsgd.engines._reduced_kernels import combine
from hdsgd.engines._step_kernels import dot
from hdsgd.engines._stream_types import aligned_empty
from hdsgd.moments._dispatch_kernels import moments
from hdsgd.problem._coefficient_kernels import coefficients, row

# Half the difference by which the covariance of the inputs is varied to find fourth moments.
VARIATION = 2e-4


class Summands(NamedTuple):
    """Moments of c and c u for one sample."""

    mean: np.ndarray  # (p, r) E[c u]
    D: np.ndarray  # (p, p) E[c cᵀ]


class Quadrature(NamedTuple):
    """Points at which products of four polynomials of the problem are integrated exactly, and room for their values."""

    points: np.ndarray  # (r n,) rows u_b of the points
    weights: np.ndarray  # (n,)
    noise: np.ndarray  # (n,) minus the label noise
    block: np.ndarray  # k + 2p + 2 rows of n: students, coefficients, error, work, teachers


class Formula(NamedTuple):
    """Tables of the closed moments, and room for them."""

    tables: Any  # from hdsgd.moment_tables
    frame: np.ndarray  # (p + k, r) rows of student and teacher
    omega: np.ndarray  # (p + k, p + k)
    varied: np.ndarray  # (p + k, p + k)
    G: np.ndarray  # (p, p + k)
    A: np.ndarray  # (p, p + k)
    Z: np.ndarray  # (p, p)
    higher: np.ndarray  # (p, p)
    lower: np.ndarray  # (p, p)
    unused: np.ndarray  # (1, 1)


def new_formula(tables, p, k):
    fields, rows, square = (p + k, p + k), (p, p + k), (p, p)
    shapes = fields, fields, fields, rows, rows, square, square, square, (1, 1)
    return Formula(tables, *(np.zeros(shape) for shape in shapes))


@lru_cache(maxsize=64)
def product_rule(nodes, size, noise):
    """Rows of points, weights and minus the noise of a product rule: `nodes` in each direction of the span, and two
    (exact for squares) in the noise.
    """
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    axes, weights = [x] * size, [w / w.sum()] * size
    if noise > 0.0:
        axes, weights = [*axes, np.sqrt(noise) * np.array([-1.0, 1.0])], [*weights, np.array([0.5, 0.5])]
    grid = [values.ravel() for values in np.meshgrid(*axes, indexing="ij")]
    weight = np.prod([values.ravel() for values in np.meshgrid(*weights, indexing="ij")], axis=0)
    return np.concatenate(grid[:size]), weight, grid[size] if noise > 0.0 else np.zeros(len(weight))


def new_quadrature(nodes, p, k, noise):
    points, weights, xi = product_rule(nodes, k + p, noise)
    return Quadrature(points, weights, xi, aligned_empty((2 * k + 2 * p + 2) * len(weights), np.float64))


@plain_kernel
def quadrature_population(t, tables, errors, X, m):
    p, r = X.shape
    k = r - p
    n = len(t.weights)
    student, c, error = t.block[: p * n], t.block[p * n : 2 * p * n], row(t.block, 2 * p, n)
    work = row(t.block, 2 * p + 1, n)
    combine(X, k, t.points, n, student)
    for s in range(n):
        error[s] = t.noise[s]
    if tables.orthonormal:
        coefficients(tables, errors, student, t.points, error, c, work)
    else:
        teacher = t.block[(2 * p + 2) * n : (2 * p + 2 + k) * n]
        combine(tables.gram_root, 0, t.points, n, teacher)
        coefficients(tables, errors, student, teacher, error, c, work)
    for j in range(p):
        value = row(c, j, n)
        for s in range(n):
            work[s] = t.weights[s] * value[s]
        for b in range(r):
            m.mean[j, b] = dot(work, row(t.points, b, n))
        for l in range(j + 1):
            m.D[j, l] = dot(work, row(c, l, n))
            m.D[l, j] = m.D[j, l]


@plain_kernel
def quadrature_covariance(t, tables, errors, m, covariance):
    p, r = m.mean.shape
    n = len(t.weights)
    c, work = t.block[p * n : 2 * p * n], row(t.block, 2 * p + 1, n)
    for j in range(p):
        for l in range(j + 1):
            for b in range(r):
                first, second, point = row(c, j, n), row(c, l, n), row(t.points, b, n)
                for s in range(n):
                    work[s] = t.weights[s] * first[s] * second[s] * point[s]
                for h in range(r):
                    value = dot(work, row(t.points, h, n)) - m.mean[j, b] * m.mean[l, h]
                    covariance[j * r + b, l * r + h] = value
                    covariance[l * r + h, j * r + b] = value


@kernel
def formula_population(t, tables, errors, X, m):
    p, r = X.shape
    k = r - p
    frame, omega, mean = t.frame, t.omega, m.mean
    for b in range(r):
        for j in range(p):
            frame[j, b] = X[j, b]
        for h in range(k):
            frame[p + h, b] = tables.gram_root[h, b] if b < k else 0.0
    for i in range(r):
        for h in range(i + 1):
            total = 0.0
            for b in range(r):
                total += frame[i, b] * frame[h, b]
            omega[i, h] = total
            omega[h, i] = total
    moments(t.tables, errors.with_output, False, omega, t.G, t.A, m.D, t.Z, t.unused, t.unused)
    for j in range(p):
        for b in range(r):
            total = 0.0
            for i in range(r):
                total += t.G[j, i] * frame[i, b]
            mean[j, b] = total


@kernel
def formula_covariance(t, tables, errors, m, covariance):
    """By Stein's lemma, for u ~ N(0, I + ε S) with symmetric S: dE[F(u)]/dε = ½ Σ_bh S_bh (E[F u_b u_h] - δ_bh E[F]) at
    ε = 0.  So E[c_j c_l u_b u_h], the fourth-order moments of theory §3, are derivatives of D along Ω; they are taken
    as central differences, for polynomials with relative errors of about 1e-7.
    """
    p, r = m.mean.shape
    frame, omega, varied, mean = t.frame, t.omega, t.varied, m.mean
    for b in range(r):
        for h in range(b, r):
            for sign in range(2):
                amount = VARIATION if sign == 0 else -VARIATION
                for i in range(r):
                    for n in range(r):
                        change = frame[i, b] * frame[n, h]
                        if h != b:
                            change += frame[i, h] * frame[n, b]
                        varied[i, n] = omega[i, n] + amount * change
                D = t.higher if sign == 0 else t.lower
                moments(t.tables, errors.with_output, False, varied, t.G, t.A, D, t.Z, t.unused, t.unused)
            for j in range(p):
                for l in range(p):
                    second = (t.higher[j, l] - t.lower[j, l]) / (2.0 * VARIATION)
                    if h == b:
                        second = 2.0 * second + m.D[j, l]
                    covariance[j * r + b, l * r + h] = second - mean[j, b] * mean[l, h]
                    covariance[l * r + h, j * r + b] = covariance[j * r + b, l * r + h]


def implementations(kind):
    """Kernels of the mean and of the covariance for `Quadrature` or `Formula`."""
    if kind is Quadrature:
        return quadrature_population, quadrature_covariance
    return formula_population, formula_covariance


def population(t, tables, errors, X, m):
    """Mean of c u and D = E[c cᵀ] at coordinates X, into the `Summands` m; `t` is a `Quadrature` or a `Formula`."""
    implementations(type(t))[0](t, tables, errors, X, m)


@overload(population, inline="always")
def _population(t, tables, errors, X, m):
    function = implementations(t.instance_class)[0]
    return lambda t, tables, errors, X, m: function(t, tables, errors, X, m)


def summand_covariance(t, tables, errors, m, covariance):
    """Covariance (p r, p r) of the entries of c u, row by row, at the state of the last `population`."""
    implementations(type(t))[1](t, tables, errors, m, covariance)


@overload(summand_covariance, inline="always")
def _summand_covariance(t, tables, errors, m, covariance):
    function = implementations(t.instance_class)[1]
    return lambda t, tables, errors, m, covariance: function(t, tables, errors, m, covariance)
