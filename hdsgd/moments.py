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
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdsgd.errors import SpecificationError, choice
from hdsgd.expressions import Exponents, Function, Number
from hdsgd.model import Problem

__all__ = [
    "MAX_RIDGES",
    "Moments",
    "PolynomialTables",
    "gradient_diversity",
    "moment_tables",
    "population_moments",
    "population_risk",
    "ridge_form",
]

Floats = NDArray[np.float64]

#: Most ridge functions a non-additive polynomial target may need.
MAX_RIDGES = 128


class PolynomialTables(NamedTuple):
    """A polynomial problem as the moment kernels see it; ``h*(v) = Σ_s ridge_s(directions_s · v)``."""

    output: Floats  # (p,) a_j / p
    activation: Floats  # (n,) ascending power coefficients of σ
    functions: Floats  # (m, q), m = p + K: ascending power coefficients of (a_j/p) σ and of -ridge_s
    lift: Floats  # (m, p+k): the fields they act on are lift · x, that is λ_j and directions_s · λ*
    plain: bool  # lift is the identity
    quadratic: bool  # σ = αx² + c and h* = vᵀ form v + form_constant: closed matrix formulas apply
    form: Floats  # (k, k), symmetric
    form_constant: float
    noise: float  # variance Δ of the label noise


class Moments(NamedTuple):
    """Population moments, each with the leading dimensions of the overlaps they belong to."""

    A: Floats  # (..., p, p+k) E[c_j x_b]
    D: Floats  # (..., p, p) E[c_j c_l]
    Z: Floats  # (..., p, p) E[c_j c_l (||z||² - d)]
    risk: Floats  # (...) ½E[(y - f)²]
    G: Floats  # (..., p, p+k) E[∂c_j/∂x_b]: A = GΩ, and the mean gradient is Σ_b G_jb w_b over the rows of (W, W*)


def ridge_form(function: Function) -> dict[tuple[Number, ...], dict[int, Number]]:
    """Write a polynomial as a sum of ridge functions: ``f(v) = Σ_s ridge_s(h_s · v)``.

    A power of one variable is a ridge function already.  A mixed monomial of exponents ``a`` and degree ``D`` is
    (R. Kan, J. Multivariate Anal. 99 (2008), "From moments of sum to moments of product", the identity behind its
    Proposition 1)

        Π_i v_i^{a_i} = (1/D!) Σ_{0 <= ν <= a} (-1)^{|ν|} Π_i binom(a_i, ν_i) (h·v)^D,   h_i = a_i/2 - ν_i.

    Parallel forms are merged, so a product of two variables takes two ridge functions and one of three takes four.

    Returns
    -------
    dict
        From linear form (first non-zero entry 1) to the ridge function's coefficients by power.  The constant of `f`
        is in the first ridge function.

    Raises
    ------
    SpecificationError
        If more than `MAX_RIDGES` ridge functions are needed.
    """
    ridges: dict[tuple[Number, ...], dict[int, Number]] = {}
    constant: Number = Fraction(0)
    for exponents, coef in sorted(function.terms.items()):
        degree = sum(exponents)
        if degree == 0:
            constant = coef
            continue
        for form, weight in _powers_of_forms(exponents):
            ridge = ridges.setdefault(form, {})
            ridge[degree] = ridge.get(degree, Fraction(0)) + coef * weight
        if len(ridges) > MAX_RIDGES:
            raise _too_many(exponents)
    ridges = {form: ridge for form, ridge in ridges.items() if any(ridge.values())}
    if not ridges:
        ridges[(Fraction(1),) + (Fraction(0),) * (function.arity - 1)] = {}
    if constant:
        next(iter(ridges.values()))[0] = constant
    return ridges


def _too_many(exponents: Exponents) -> SpecificationError:
    name = "*".join(f"z{r + 1}**{n}" if n > 1 else f"z{r + 1}" for r, n in enumerate(exponents) if n)
    return SpecificationError(
        f"target: the term {name} mixes too many variables for its exact population moments "
        f"(more than {MAX_RIDGES} ridge functions)"
    )


def _powers_of_forms(exponents: Exponents) -> list[tuple[tuple[Number, ...], Fraction]]:
    """(form, weight) such that the monomial is ``Σ weight (form·v)^degree``."""
    degree = sum(exponents)
    if degree in exponents:
        return [(tuple(Fraction(int(n > 0)) for n in exponents), Fraction(1))]
    if math.prod(n + 1 for n in exponents) > 2 * MAX_RIDGES + 1:
        raise _too_many(exponents)
    weights: dict[tuple[Number, ...], Fraction] = {}
    for nu in product(*(range(n + 1) for n in exponents)):
        form = [Fraction(n, 2) - v for n, v in zip(exponents, nu, strict=True)]
        scale = next((h for h in form if h), None)
        if scale is None:
            continue
        weight = Fraction((-1) ** sum(nu) * math.prod(map(math.comb, exponents, nu)), math.factorial(degree))
        unit = tuple(h / scale for h in form)
        weights[unit] = weights.get(unit, Fraction(0)) + weight * scale**degree
    return [(form, weight) for form, weight in weights.items() if weight]


def _check_cancellation(function: Function, directions: Floats, ridges: Floats) -> None:
    """Refuse a ridge form whose parts are so much larger than their sum that rounding spoils the moments."""

    def mean_square(coefs: Floats, variance: float) -> float:
        square = np.convolve(coefs, coefs)[::2]
        return float(sum(c * variance**n * math.prod(range(1, 2 * n, 2)) for n, c in enumerate(square)))

    parts = sum(
        math.sqrt(max(mean_square(ridge, float(h @ h)), 0.0)) for ridge, h in zip(ridges, directions, strict=True)
    )
    whole = 0.0
    for e1, c1 in function.terms.items():
        for e2, c2 in function.terms.items():
            total = tuple(a + b for a, b in zip(e1, e2, strict=True))
            if all(n % 2 == 0 for n in total):
                whole += float(c1) * float(c2) * math.prod(math.prod(range(1, n, 2)) for n in total)
    if parts**2 * 2e-16 > 1e-7 * whole:
        raise SpecificationError(
            "target: a term of high degree mixes variables; its population moments cannot be computed to seven digits"
        )


@lru_cache(maxsize=256)
def moment_tables(problem: Problem) -> Any:
    """Arrays of a `Problem` for `hdsgd._moments_kernels.moments` and `risk`.

    Returns
    -------
    PolynomialTables

    Raises
    ------
    SpecificationError
        If the population moments of this problem are not supported (see `population_moments`).
    """
    sigma, h = problem.student.function, problem.target.function
    p, k = problem.p, problem.k
    if sigma.links or h.links:
        raise SpecificationError("population moments of links are not available yet")
    forms = ridge_form(h)
    if h.is_additive and len(forms) == k:  # keep the order of the directions
        forms = dict(sorted(forms.items(), key=lambda item: [float(v) for v in item[0]], reverse=True))
    activation, output = sigma.power_coefficients(), problem.student.a / p
    functions = np.zeros((p + len(forms), 1 + max(sigma.degree, *(max(ridge, default=0) for ridge in forms.values()))))
    functions[:p, : len(activation)] = output[:, None] * activation
    for row, ridge in zip(functions[p:], forms.values(), strict=True):
        for n, coef in ridge.items():
            row[n] = -float(coef)
    lift = np.zeros((len(functions), p + k))
    lift[:p, :p] = np.eye(p)
    lift[p:, p:] = [[float(v) for v in form] for form in forms]
    form, form_constant = np.zeros((k, k)), 0.0
    quadratic = len(activation) == 3 and activation[1] == 0.0 and all(sum(e) in (0, 2) for e in h.terms)
    if quadratic:
        for exponents, coef in h.terms.items():
            used = [r for r, n in enumerate(exponents) for _ in range(n)]
            if used:
                form[used[0], used[1]] += 0.5 * float(coef)
                form[used[1], used[0]] += 0.5 * float(coef)
            else:
                form_constant = float(coef)
    elif not h.is_additive:
        _check_cancellation(h, lift[p:, p:], functions[p:])
    return PolynomialTables(
        output=output,
        activation=activation,
        functions=functions,
        lift=lift,
        plain=np.array_equal(lift, np.eye(p + k)),
        quadratic=quadratic,
        form=form,
        form_constant=form_constant,
        noise=problem.noise,
    )


def checked_overlaps(problem: Problem, Q: ArrayLike, M: ArrayLike) -> tuple[Floats, Floats, tuple[int, ...]]:
    """Validate and broadcast overlaps; returns Q (N, p, p), M (N, p, k) and the leading dimensions."""
    p, k = problem.p, problem.k
    arrays = []
    for name, value, shape in (("Q", Q, (p, p)), ("M", M, (p, k))):
        array = np.asarray(value, dtype=np.float64)
        if array.ndim < 2 or array.shape[-2:] != shape:
            raise SpecificationError(
                f"{name} must have shape (..., {shape[0]}, {shape[1]}) for this problem, not {array.shape}"
            )
        if not np.isfinite(array).all():
            raise SpecificationError(f"{name} must contain finite numbers only")
        arrays.append(array)
    q, m = arrays
    if not np.allclose(q, np.swapaxes(q, -1, -2), rtol=1e-9, atol=1e-12):
        raise SpecificationError("Q must be symmetric")
    try:
        leading = np.broadcast_shapes(q.shape[:-2], m.shape[:-2])
    except ValueError:
        raise SpecificationError(
            f"the leading dimensions of Q {q.shape[:-2]} and M {m.shape[:-2]} do not broadcast"
        ) from None
    count = math.prod(leading)
    flat_q = np.array(np.broadcast_to(q, (*leading, p, p)), order="C").reshape(count, p, p)  # writable, for one signature
    flat_m = np.array(np.broadcast_to(m, (*leading, p, k)), order="C").reshape(count, p, k)
    return flat_q, flat_m, leading


def resolved_loss(problem: Problem, loss: str | None) -> str:
    """The loss asked for, or the problem's own if it has one fixed loss."""
    if loss is None:
        loss = problem.loss
        if loss == "adaptive":
            raise SpecificationError(
                "the adaptive loss is correlation at first and square later; pass loss='correlation' or loss='square'"
            )
    return choice("loss", loss, ("square", "correlation"))


def population_moments(problem: Problem, Q: ArrayLike, M: ArrayLike, loss: str | None = None) -> Moments:
    """Population moments ``A``, ``D``, ``Z``, the risk and ``G`` at given overlaps.

    Polynomial activation and target: exact, any p and k, by sums over edge multiplicities (the identity at the top of
    ``hdsgd/_moments_kernels.py``); a target that mixes variables is first written as a sum of ridge functions.  For
    ``σ = αx² + c`` and ``h* = λ*ᵀBλ* + b`` the closed form of theory §3: with ``𝒜 = diag(αa/p) ⊕ (-B)`` (first block 0
    for the correlation loss), ``c0 = Σ_j a_j c/p - b`` (correlation: ``-b``), ``τ = tr(𝒜Ω) + c0``, ``s = 2αa/p``,

        A = diag(s) (τΩ + 2Ω𝒜Ω),   D = ssᵀ∘[(τ² + 2tr((𝒜Ω)²) + Δ)Ω + 4τΩ𝒜Ω + 8Ω𝒜Ω𝒜Ω],

    and ``Z`` is ``D`` with each part homogeneous in x weighted by its degree.

    Parameters
    ----------
    problem : Problem
    Q : array_like of shape (..., p, p)
    M : array_like of shape (..., p, k)
        Overlaps; leading dimensions broadcast.  The teacher's Gram matrix P is the problem's.
    loss : {"square", "correlation"}, optional
        Loss whose gradient is meant; the problem's by default, required if that is adaptive.

    Returns
    -------
    Moments
        ``A`` (..., p, p+k), ``D`` and ``Z`` (..., p, p), ``risk`` (...), ``G`` (..., p, p+k).

    Raises
    ------
    SpecificationError
        If a shape is wrong or the moments of this problem are not supported.
    """
    square = resolved_loss(problem, loss) == "square"
    q, m, leading = checked_overlaps(problem, Q, M)
    tables, P = moment_tables(problem), problem.target.P
    from hdsgd._moments_kernels import moments_many, risk_many

    n, p, b = len(m), problem.p, problem.p + problem.k
    G, A = np.empty((n, p, b)), np.empty((n, p, b))
    D, Z = np.empty((n, p, p)), np.empty((n, p, p))
    unused, risk = np.empty((1, 0, 0)), np.empty(n)
    moments_many(tables, square, False, q, m, P, G, A, D, Z, unused, unused)
    risk_many(tables, q, m, P, risk)
    return Moments(
        A=A.reshape(*leading, p, b),
        D=D.reshape(*leading, p, p),
        Z=Z.reshape(*leading, p, p),
        risk=risk.reshape(leading),
        G=G.reshape(*leading, p, b),
    )


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
    """
    q, m, leading = checked_overlaps(problem, Q, M)
    from hdsgd._moments_kernels import risk_many

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
    """
    m = population_moments(problem, Q, M, loss)
    second = d * np.trace(m.D, axis1=-2, axis2=-1) + np.trace(m.Z, axis1=-2, axis2=-1)
    mean = np.maximum(np.einsum("...jb,...jb->...", m.A, m.G), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(second / mean)
