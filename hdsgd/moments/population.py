"""Population moments under ``x = (λ, λ*) ~ N(0, Ω)``: what one sample's gradient and loss are on average.

With ``Ω = [[Q, M], [Mᵀ, P]]``, error ``e`` (``f - y`` of the square loss, ``-y`` of the correlation loss) and gradient
coefficients ``c_j = (a_j/p) σ'(λ_j) e``, so that the gradient of one sample with respect to ``w_j`` is ``c_j z``:

    A_jb = E[c_j x_b]   D_jl = E[c_j c_l]   Z_jl = E[c_j c_l (||z||² - d)] = E[x·∇(c_j c_l)]   risk = ½E[(y - f)²].

Label noise of variance ``Δ`` is part of ``y``: it adds ``Δ/2`` to the risk and ``Δ E[s_j s_l]`` (``s_j = (a_j/p)
σ'(λ_j)``) to ``D``, and correspondingly to ``Z``.  No formula used here inverts Ω, so collinear students (singular Ω)
need no special care.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdsgd.errors import SpecificationError
from hdsgd.moments._table_types import QuadratureTables
from hdsgd.moments.tables import moment_tables
from hdsgd.problem.losses import Loss, phases_of
from hdsgd.problem.model import Problem, as_problem

__all__ = ["Moments", "gradient_diversity", "population_moments", "population_risk"]

Floats = NDArray[np.float64]


class Moments(NamedTuple):
    """Population moments, each with the leading dimensions of the overlaps they belong to."""

    A: Floats  # (..., p, p+k) E[c_j x_b]
    D: Floats  # (..., p, p) E[c_j c_l]
    Z: Floats  # (..., p, p) E[c_j c_l (||z||² - d)]
    risk: Floats  # (...) ½E[(y - f)²]
    G: Floats  # (..., p, p+k) E[∂c_j/∂x_b]: A = GΩ, and the mean gradient is Σ_b G_jb w_b over the rows of (W, W*)
    error: Floats  # (...) estimated relative error of quadrature and of tanh's mixture of erfs; 0 where exact


def checked_overlaps(problem: Problem, Q: ArrayLike, M: ArrayLike) -> tuple[Floats, Floats, tuple[int, ...]]:
    """Validate and broadcast overlaps; returns Q (N, p, p), M (N, p, k) and the leading dimensions."""
    p, k = problem.p, problem.k
    arrays = []
    for name, value, shape in (("Q", Q, (p, p)), ("M", M, (p, k))):
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise SpecificationError(f"{name} must be an array of numbers, not {value!r}") from None
        if array.ndim < 2 or array.shape[-2:] != shape:
            raise SpecificationError(
                f"{name} must have shape (..., {shape[0]}, {shape[1]}) for this problem, not {array.shape}"
            )
        if not np.isfinite(array).all():
            raise SpecificationError(f"{name} must contain finite numbers only")
        arrays.append(array)
    q, m = arrays
    if np.abs(q - np.swapaxes(q, -1, -2)).max(initial=0.0) > 1e-9 * np.abs(q).max(initial=0.0):
        raise SpecificationError("Q must be symmetric")
    try:
        leading = np.broadcast_shapes(q.shape[:-2], m.shape[:-2])
    except ValueError:
        raise SpecificationError(
            f"the leading dimensions of Q {q.shape[:-2]} and M {m.shape[:-2]} do not broadcast"
        ) from None
    count = math.prod(leading)
    # Copies, because a read-only view would be another type and compile the kernels again.
    flat_q = np.array(np.broadcast_to(q, (*leading, p, p)), order="C").reshape(count, p, p)
    flat_m = np.array(np.broadcast_to(m, (*leading, p, k)), order="C").reshape(count, p, k)
    return flat_q, flat_m, leading


def resolved_loss(problem: Problem, loss: str | None) -> Loss:
    """The loss asked for, or the problem's own if that is one and the same throughout."""
    phases = phases_of(problem.loss if loss is None else loss)
    if len(phases) > 1:
        name, (first, later) = problem.loss if loss is None else loss, (phase.name for phase in phases)
        raise SpecificationError(
            f"the {name} loss is {first} at first and {later} later; pass loss={first!r} or loss={later!r}"
        )
    return phases[0]


def with_output(loss: Loss) -> bool:
    """Whether the error of a loss without an error of its own is ``f - y``, else ``-y``."""
    return loss.kappa == 1.0


def population_moments(problem: Problem, Q: ArrayLike, M: ArrayLike, loss: str | None = None) -> Moments:
    """Population moments ``A``, ``D``, ``Z``, the risk and ``G`` at given overlaps.

    Polynomial activation and target: exact, any p and k, by sums over edge multiplicities (the identity at the top of
    ``hdsgd/moments/_polynomial_kernels.py``); a target that mixes variables is first a sum of ridge functions.  For
    ``σ = αx² + c`` and ``h* = λ*ᵀBλ* + b`` the closed form of theory §3: with ``𝒜 = diag(αa/p) ⊕ (-B)`` (first block 0
    for the correlation loss), ``c0 = Σ_j a_j c/p - b`` (correlation: ``-b``), ``τ = tr(𝒜Ω) + c0``, ``s = 2αa/p``,

        A = diag(s) (τΩ + 2Ω𝒜Ω),   D = ssᵀ∘[(τ² + 2tr((𝒜Ω)²) + Δ)Ω + 4τΩ𝒜Ω + 8Ω𝒜Ω𝒜Ω],

    and ``Z`` is ``D`` with each part homogeneous in x weighted by its degree.

    Links: erf (also mixed with polynomials) in closed form; relu up to one integral by Gauss-Legendre quadrature; tanh
    as a mixture of erfs (errors near 1e-9; 1e-7 when mixed with other functions).  See the top of
    ``hdsgd/moments/_link_kernels.py``.  Limits: polynomials beside links have degree at most
    `hdsgd.moments.links.MAX_LINK_DEGREE`, and the number of expectations per evaluation is bounded
    (``MAX_LINK_WORK``), which allows p = k = 8 for relu and erf, and p = k = 4 for tanh mixed with other links or
    polynomials.

    Losses with an error of their own, and activations registered from outside: Gauss-Hermite quadrature over all
    p + k directions (and the label noise), with as many nodes as `hdsgd.moments.quadrature.MAX_POINTS` points allow:
    80 nodes for p + k = 2, 58 for 3, 20 for 4, 10 for 5, 6 for 6, and none beyond (fewer with label noise).

    Parameters
    ----------
    problem : Problem
    Q : array_like of shape (..., p, p)
    M : array_like of shape (..., p, k)
        Overlaps; leading dimensions broadcast.  The teacher's Gram matrix P is the problem's.
    loss : str, optional
        Loss whose gradient is meant; the problem's by default, required if that changes on the way (adaptive).

    Returns
    -------
    Moments
        ``A`` (..., p, p+k), ``D`` and ``Z`` (..., p, p), ``risk`` (...), ``G`` (..., p, p+k), ``error`` (...).  The
        error is 0 for polynomials and erf; otherwise it is the largest change of A, D, Z or the risk, relative to its
        largest entry, when fewer quadrature nodes and two erfs fewer for tanh are used (an overestimate; three times
        that change where all is quadrature).

    Raises
    ------
    SpecificationError
        If a shape is wrong or the moments of this problem are not supported.

    Examples
    --------
    He2/He2 at overlap m: ``A = (4 (1 - m²), 0)``, and ``D = 48 (1 - m²)``.

    >>> moments = population_moments(Problem("he2", "he2"), [[1.0]], [[0.5]])
    >>> moments.A.round(9).tolist(), round(float(moments.D[0, 0]), 9), float(moments.error)
    ([[3.0, 0.0]], 36.0, 0.0)
    """
    as_problem(problem)
    rule = resolved_loss(problem, loss)
    tables, square = moment_tables(problem, rule), with_output(rule)
    q, m, leading = checked_overlaps(problem, Q, M)
    results = [_evaluate(tables, square, q, m, problem.target.P)]
    error = np.zeros(len(m))
    # Three nodes in four make an error of first order in their number, as kinks do, larger by a third.
    factor = 3.0 if isinstance(tables, QuadratureTables) else 1.0
    if getattr(tables, "approximate", False):
        results.append(_evaluate(moment_tables(problem, rule, coarse=True), square, q, m, problem.target.P))
        for fine, coarse in list(zip(*results, strict=True))[:4]:
            axes = tuple(range(1, fine.ndim))
            size = np.maximum(np.abs(fine).max(axes), np.finfo(np.float64).tiny)
            error = np.maximum(error, factor * np.abs(fine - coarse).max(axes) / size)
    return Moments(*(x.reshape((*leading, *x.shape[1:])) for x in (*results[0], error)))


def _evaluate(tables: Any, square: bool, q: Floats, m: Floats, P: Floats) -> tuple[Floats, ...]:
    """A, D, Z, risk, G at each of the n overlaps."""
    from hdsgd.moments._dispatch_kernels import moments_many, risk_many

    (n, p, k), unused = m.shape, np.empty((1, 0, 0))
    G, A = np.empty((n, p, p + k)), np.empty((n, p, p + k))
    D, Z, risk = np.empty((n, p, p)), np.empty((n, p, p)), np.empty(n)
    moments_many(tables, square, False, q, m, P, G, A, D, Z, unused, unused)
    risk_many(tables, q, m, P, risk)
    return A, D, Z, risk, G


def population_risk(problem: Problem, Q: ArrayLike, M: ArrayLike) -> Floats:
    """Population risk ``½E[(y - f)²]``, label noise included.

    Parameters
    ----------
    problem : Problem
    Q : array_like of shape (..., p, p)
    M : array_like of shape (..., p, k)
        Overlaps, for example of shape (replica, step, p, k); leading dimensions broadcast.

    Returns
    -------
    ndarray of the leading shape

    Raises
    ------
    SpecificationError
        As `population_moments`.

    Examples
    --------
    >>> population_risk(Problem("he2", "he2"), [[1.0]], [[[0.0]], [[0.5]], [[1.0]]])
    array([2. , 1.5, 0. ])
    """
    as_problem(problem)
    q, m, leading = checked_overlaps(problem, Q, M)
    from hdsgd.moments._dispatch_kernels import risk_many

    out = np.empty(len(m))
    risk_many(moment_tables(problem), q, m, problem.target.P, out)
    return out.reshape(leading)


def gradient_diversity(
    problem: Problem, Q: ArrayLike, M: ArrayLike, d: int, loss: str | None = None
) -> NDArray[np.float64]:
    """Population gradient diversity ``E||g_i||²/||E g_i||² = tr(dD + Z) / tr(A Ω⁻¹ Aᵀ)`` (theory §7).

    The gradient is that of all first-layer weights before any projection.  The denominator is computed as
    ``tr(A Gᵀ)``, which equals ``tr(A Ω⁺ Aᵀ)`` for singular Ω as well; where the mean gradient vanishes the diversity is
    infinite.

    Parameters
    ----------
    problem, Q, M, loss
        As for `population_moments`.
    d : int
        Input dimension.

    Returns
    -------
    ndarray of the leading shape

    Examples
    --------
    >>> float(gradient_diversity(Problem("he2", "he2"), [[1.0]], [[0.5]], d=1000).round(6))
    3018.0
    """
    m = population_moments(problem, Q, M, loss)
    second = d * np.trace(m.D, axis1=-2, axis2=-1) + np.trace(m.Z, axis1=-2, axis2=-1)
    mean = np.maximum(np.einsum("...jb,...jb->...", m.A, m.G), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(second / mean)
