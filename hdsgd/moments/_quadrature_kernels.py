# mypy: ignore-errors
"""Kernels of the population moments by Gauss-Hermite quadrature: any loss, any activation, few fields.

The fields are ``x = L u`` with a lower triangular root ``L Lᵀ = Ω`` and independent standard normals u; a field that
depends on those before it has a zero column.  A weighted batch of points u goes through the code that gives the exact
engines their coefficients, so that nothing is said twice of what a loss or an activation is.  With ``B = E[c u]``:

    G L = B,   A = B Lᵀ,   Z_jl = E[c_j c_l (|u|² - r)],

for ``E[x·∇(c_j c_l)] = E[u·∇_u (c_j c_l)]``; columns of L that are zero have ``B = 0``.

Index legend: j, l students (p); b, i fields and coordinates of u (r = p + k); s points of a block (n).
"""

import math

import numpy as np

from hdsgd._compile import kernel
from hdsgd.problem._coefficient_kernels import coefficients, row
from hdsgd.problem._table_types import ErrorRule


@kernel
def triangular_root(omega):
    """L with ``L Lᵀ = Ω``; a pivot that vanishes, up to rounding, gives a zero column."""
    r = len(omega)
    L = np.zeros((r, r))
    for i in range(r):
        for b in range(i + 1):
            rest = omega[i, b]
            for n in range(b):
                rest -= L[i, n] * L[b, n]
            if i == b:
                L[i, i] = math.sqrt(rest) if rest > 1e-15 * omega[i, i] else 0.0
            elif L[b, b] > 0.0:
                L[i, b] = rest / L[b, b]
    return L


@kernel
def evaluate(t, errors, L, points, noise, fields, error, c, work):
    """Fields, error and coefficients of one block of points."""
    r, n, p = len(L), len(work), len(t.problem.output)
    for i in range(r):
        field = row(fields, i, n)
        for s in range(n):
            field[s] = 0.0
        for b in range(i + 1):
            weight = L[i, b]
            if weight != 0.0:
                u = row(points, b, n)
                for s in range(n):
                    field[s] += weight * u[s]
    for s in range(n):
        error[s] = noise[s]
    coefficients(t.problem, errors, fields[: p * n], fields[p * n :], error, c, work)


@kernel
def quadrature_moments(t, square, tangent, omega, G, A, D, Z, F, H):
    """See `hdsgd.moments._dispatch_kernels.moments`."""
    p, r = A.shape
    n = t.points.shape[1] // r
    errors = t.errors if t.errors.function != 0 else ErrorRule(square, 0)
    L = triangular_root(omega)
    fields, error, c, work = np.empty(r * n), np.empty(n), np.empty(p * n), np.empty(n)
    B = np.zeros((p, r))
    D[:, :] = 0.0
    Z[:, :] = 0.0
    if tangent:
        F[:, :] = 0.0
        H[:, :] = 0.0
    for block in range(len(t.points)):
        points, weights, radius = t.points[block], t.weights[block], t.radius[block]
        evaluate(t, errors, L, points, t.noise[block], fields, error, c, work)
        for j in range(p):
            value = row(c, j, n)
            for s in range(n):
                work[s] = weights[s] * value[s]
            for b in range(r):
                u, total = row(points, b, n), 0.0
                for s in range(n):
                    total += work[s] * u[s]
                B[j, b] += total
            for l in range(j + 1):
                other, first, second = row(c, l, n), 0.0, 0.0
                for s in range(n):
                    product = work[s] * other[s]
                    first += product
                    second += product * radius[s]
                D[j, l] += first
                Z[j, l] += second
                if tangent:
                    x, y = row(fields, j, n), row(fields, l, n)
                    jj, ll, jl = 0.0, 0.0, 0.0
                    for s in range(n):
                        product = work[s] * other[s]
                        jj += product * x[s] * x[s]
                        ll += product * y[s] * y[s]
                        jl += product * x[s] * y[s]
                    F[j, l] += jj
                    if l != j:
                        F[l, j] += ll
                    H[j, l] += jl
    for j in range(p):
        for l in range(j):
            D[l, j], Z[l, j] = D[j, l], Z[j, l]
            if tangent:
                H[l, j] = H[j, l]
        for b in range(r):
            A[j, b] = 0.0
            for i in range(b + 1):
                A[j, b] += B[j, i] * L[b, i]
        for b in range(r - 1, -1, -1):
            G[j, b] = 0.0
            if L[b, b] > 0.0:
                rest = B[j, b]
                for i in range(b + 1, r):
                    rest -= G[j, i] * L[i, b]
                G[j, b] = rest / L[b, b]


@kernel
def quadrature_risk(t, omega):
    """½E[(y - f)²]."""
    r, p = len(omega), len(t.problem.output)
    n = t.points.shape[1] // r
    errors = ErrorRule(True, 0)
    L = triangular_root(omega)
    fields, error, c, work = np.empty(r * n), np.empty(n), np.empty(p * n), np.empty(n)
    total = 0.0
    for block in range(len(t.points)):
        evaluate(t, errors, L, t.points[block], t.noise[block], fields, error, c, work)
        for s in range(n):
            total += t.weights[block, s] * error[s] * error[s]
    return 0.5 * total


@kernel
def quadrature_coefficients(t, omega, out):
    """out[block] = c of each block, rows of n, for tables with an error of their own."""
    r = len(omega)
    n = t.points.shape[1] // r
    L = triangular_root(omega)
    fields, error, work = np.empty(r * n), np.empty(n), np.empty(n)
    for block in range(len(t.points)):
        evaluate(t, t.errors, L, t.points[block], t.noise[block], fields, error, out[block], work)
