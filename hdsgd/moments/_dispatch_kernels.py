# mypy: ignore-errors
"""Entry points of the population moments: `moments` and `risk` for any kind of table, also at many overlaps at once."""

import numpy as np

from hdsgd._compile import kernel, overload
from hdsgd.moments._link_kernels import erf_moments, erf_risk, link_moments, link_risk
from hdsgd.moments._polynomial_kernels import polynomial_moments, polynomial_risk, quadratic_moments, quadratic_risk
from hdsgd.moments._quadrature_kernels import quadrature_moments, quadrature_risk
from hdsgd.moments._table_types import ErfTables, PolynomialTables, QuadraticTables, QuadratureTables

__all__ = ["fill_omega", "moments", "moments_many", "risk", "risk_many"]


def implementations(kind):
    """Kernels of the moments and of the risk for a type of tables."""
    if kind is QuadraticTables:
        return quadratic_moments, quadratic_risk
    if kind is PolynomialTables:
        return polynomial_moments, polynomial_risk
    if kind is QuadratureTables:
        return quadrature_moments, quadrature_risk
    return (erf_moments, erf_risk) if kind is ErfTables else (link_moments, link_risk)


def risk(tables, omega):
    """Population risk ½E[(y - f)²] including Δ/2; from Python and inside kernels.

    Parameters: the result of `hdsgd.moments.tables.moment_tables` and Ω of shape (p+k, p+k).  Inside a kernel the
    implementation is chosen by the type of `tables` when the kernel is compiled, so that only that one is.
    """
    return implementations(type(tables))[1](tables, omega)


@overload(risk, inline="always")
def _risk(tables, omega):
    function = implementations(tables.instance_class)[1]
    return lambda tables, omega: function(tables, omega)


def moments(tables, square, tangent, omega, G, A, D, Z, F, H):
    """Write the population moments at Ω into the given arrays; from Python and inside kernels.

    Parameters
    ----------
    tables : QuadraticTables, PolynomialTables, ErfTables, LinkTables or QuadratureTables
        From `hdsgd.moments.tables.moment_tables`.
    square : bool
        Error ``e = f - y`` of the square loss, else ``e = -y`` of the correlation loss; of no account where the tables
        have an error of their own.
    tangent : bool
        Whether `F` and `H` are wanted; otherwise any two-dimensional arrays may be passed for them.
    omega : (p+k, p+k)
    G, A : (p, p+k), written
        ``G_jb = E[∂c_j/∂x_b]`` and ``A_jb = E[c_j x_b]``, ``A = GΩ``.  The mean gradient is ``Σ_b G_jb w_b`` over the
        rows of (W, W*), so ``A Ω⁻¹ Aᵀ = A Gᵀ`` even where Ω is singular.
    D, Z : (p, p), written
        ``D_jl = E[c_j c_l]``, ``Z_jl = E[x·∇(c_j c_l)]``.
    F, H : (p, p), written if `tangent`
        ``F_jl = E[c_j c_l λ_j²]``, ``H_jl = E[c_j c_l λ_j λ_l]``.
    """
    implementations(type(tables))[0](tables, square, tangent, omega, G, A, D, Z, F, H)


@overload(moments, inline="always")
def _moments(tables, square, tangent, omega, G, A, D, Z, F, H):
    function = implementations(tables.instance_class)[0]
    return lambda tables, square, tangent, omega, G, A, D, Z, F, H: function(
        tables, square, tangent, omega, G, A, D, Z, F, H
    )


@kernel
def fill_omega(Q, M, P, omega):
    """omega = [[Q, M], [Mᵀ, P]]."""
    p, k = M.shape
    for j in range(p):
        for l in range(p):
            omega[j, l] = Q[j, l]
        for r in range(k):
            omega[j, p + r] = M[j, r]
            omega[p + r, j] = M[j, r]
    for r in range(k):
        for s in range(k):
            omega[p + r, p + s] = P[r, s]


@kernel
def risk_many(tables, Q, M, P, out):
    """out[n] = risk at (Q[n], M[n]); Q (N, p, p), M (N, p, k), P (k, k)."""
    size = M.shape[1] + M.shape[2]
    omega = np.empty((size, size))
    for n in range(len(out)):
        fill_omega(Q[n], M[n], P, omega)
        out[n] = risk(tables, omega)


@kernel
def moments_many(tables, square, tangent, Q, M, P, G, A, D, Z, F, H):
    """`moments` at each (Q[n], M[n]); outputs with a leading axis of length N (F, H of length 0 if not tangent)."""
    size = M.shape[1] + M.shape[2]
    omega = np.empty((size, size))
    for n in range(len(M)):
        fill_omega(Q[n], M[n], P, omega)
        f = n if tangent else 0
        moments(tables, square, tangent, omega, G[n], A[n], D[n], Z[n], F[f], H[f])
