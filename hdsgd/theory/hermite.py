"""Hermite coefficients, Hermite tensors and the directions along which they are largest, of targets and activations.

Everything is read off one object, the target smoothed by its own Gaussian inputs,

    ĥ(x) = E[h*(x + λ*)],   λ* ~ N(0, P),        f*(z) = h*(W* z):   E[f*(θ + z)] = ĥ(W* θ),   z ~ N(0, I_d),

whose part of degree q is ``T_q[θ, ..., θ]/q!``, with ``T_q = E[∇^q f*] = E[f* He_q]`` the Hermite tensor of order q.
It refers to directions of R^d alone, so that exponents do not depend on the basis in which the teacher is written.

Notation of theory §1 and §6.  Polynomials with rational coefficients and a rational Gram matrix, both of few digits,
are treated in exact arithmetic.  Anything else (irrational numbers and decimals that round them, links) is in floating
point, where a component below `TOLERANCE` of the absolute values that it is the sum of counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import whole
from hdsgd.errors import SpecificationError
from hdsgd.problem.functions import Function, Link
from hdsgd.problem.model import Student, Target

__all__ = ["TOLERANCE", "hermite_coefficients", "hermite_form", "strongest_direction"]

#: Relative size below which a component computed in floating point counts as zero.
TOLERANCE = 1e-9

Floats = NDArray[np.float64]
Number = Fraction | float
Exponents = tuple[int, ...]
# Coefficient and the sum of the absolute values that went into it, against which it is compared.
Terms = dict[Exponents, tuple[Number, float]]

_LINK_ORDERS = 8  # orders of a link that are examined beyond those which other terms could cancel
# Numbers of denominators this short are meant exactly, longer ones stand for the number that they round: coefficients
# (which may be products of several decimals) and entries of a Gram matrix.
_LONGEST_COEFFICIENT, _LONGEST_ENTRY = 10**12, 10**6
_CHUNK = 2000


# ---------------------------------------------------------------- the smoothed target


def rational_gram(P: Floats) -> NDArray[Any] | None:
    """P in exact numbers, read as the decimals that print it; None if they are too long to be meant."""
    entries = [Fraction(repr(float(v))) for v in P.flat]
    if any(v.denominator > _LONGEST_ENTRY for v in entries):
        return None
    return np.array(entries, dtype=object).reshape(P.shape)


def is_rational(function: Function) -> bool:
    """Whether the coefficients are meant exactly: rational and short."""
    return not function.links and all(
        isinstance(c, Fraction) and c.denominator <= _LONGEST_COEFFICIENT for c in function.terms.values()
    )


def _add(terms: Terms, exponents: Exponents, value: Number, size: float) -> None:
    old = terms.get(exponents, (Fraction(0), 0.0))
    terms[exponents] = (old[0] + value, old[1] + size)


def smoothed(function: Function, P: NDArray[Any], order: int | None = None) -> Terms:
    """Terms of ``ĥ = exp(½ Σ_rs P_rs ∂_r ∂_s) h``, those that are zero left out; links up to `order` or `top_order`."""
    total: Terms = {}
    rational = is_rational(Function(function.arity, function.terms))
    layer: Terms = {e: (c if rational else float(c), abs(float(c))) for e, c in function.terms.items()}
    pairs = [(r, s) for r in range(len(P)) for s in range(r, len(P)) if P[r, s] != 0]
    step = 1
    while layer:  # layer n is (½ P:∂∂)^n h / n!
        for e, (c, size) in layer.items():
            _add(total, e, c, size)
        below: Terms = {}
        for e, (c, size) in layer.items():
            for r, s in pairs:
                count = e[r] * (e[r] - 1) if r == s else 2 * e[r] * e[s]
                if count:
                    lower = tuple(n - (i == r) - (i == s) for i, n in enumerate(e))
                    weight = P[r, s] * Fraction(count, 2 * step)
                    _add(below, lower, c * weight, size * abs(float(weight)))
        layer, step = below, step + 1
    top = top_order(function) if order is None else order
    for link in function.links:
        series = _LINK_SERIES.get(link.name, _own_series)(link, float(P[link.index, link.index]), top)
        for n, (value, size) in enumerate(series):
            _add(total, tuple(n * (r == link.index) for r in range(function.arity)), value, size)
    return {e: (c, size) for e, (c, size) in total.items() if _significant(c, size)}


def _significant(value: Number, size: float) -> bool:
    return value != 0 if isinstance(value, Fraction) else abs(value) > TOLERANCE * size


def top_order(function: Function) -> int:
    """Highest order examined: a polynomial has no higher one, and each link could cancel one order of the others."""
    return function.degree + (2 * len(function.links) + _LINK_ORDERS if function.links else 0)


def _relu_series(link: Link, variance: float, order: int) -> list[tuple[float, float]]:
    """``E relu(u) = ½u + (1/√2π)(1 + Σ_m (-1)^(m-1) u^2m / (2^m m! (2m - 1)))`` around u, unit variance."""
    sigma, sign = math.sqrt(variance), math.copysign(1.0, link.scale)
    out = []
    for n in range(order + 1):
        if n % 2:
            t = 0.5 * sign if n == 1 else 0.0
        else:
            t = -((-0.5) ** (n // 2)) / (math.factorial(n // 2) * (n - 1) * math.sqrt(2 * math.pi))
        out.append(link.coef * abs(link.scale) * sigma ** (1 - n) * t)
    return [(t, abs(t)) for t in out]


def _erf_series(link: Link, variance: float, order: int) -> list[tuple[float, float]]:
    """``E erf(s(x + √v g)) = erf(s x/√(1 + 2 s² v))`` and the Taylor series of erf."""
    a = link.scale / math.sqrt(1 + 2 * link.scale**2 * variance)
    out = [0.0] * (order + 1)
    for m in range((order + 1) // 2):
        n = 2 * m + 1
        out[n] = link.coef * 2 / math.sqrt(math.pi) * (-1) ** m * a**n / (math.factorial(m) * n)
    return [(t, abs(t)) for t in out]


def _tanh_series(link: Link, variance: float, order: int) -> list[tuple[float, float]]:
    """``E[tanh(s√v g) He_n(g)]/(n! √v^n)`` by Gauss–Legendre panels; error below 1e-14 of its Cauchy–Schwarz bound."""
    sigma = math.sqrt(variance)
    s = abs(link.scale) * sigma
    edges = [0.0]  # panels as narrow as tanh is steep near 0, then wider
    width = min(0.5, 0.5 / s)
    while edges[-1] < 12.0:
        edges.append(edges[-1] + width)
        width = min(0.5, 1.5 * width)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    low, half = np.array(edges[:-1])[:, None], np.diff(edges)[:, None] / 2
    g = (low + half * (1 + nodes)).ravel()
    w = (half * weights).ravel() * np.exp(-(g**2) / 2) * 2 / math.sqrt(2 * math.pi)
    value = np.tanh(s * g) * math.copysign(link.coef, link.coef * link.scale)
    norm = math.sqrt(float(w @ value**2))
    previous, current = np.zeros_like(g), np.ones_like(g)  # He_n/√n!
    out = []
    for n in range(order + 1):
        unit = math.sqrt(math.factorial(n)) * sigma**n
        t = float(w @ (value * current)) / unit if n % 2 else 0.0
        out.append((t, abs(t) + 1e-13 / TOLERANCE * norm / unit if n % 2 else 0.0))
        previous, current = current, (g * current - math.sqrt(n) * previous) / math.sqrt(n + 1)
    return out


def _own_series(link: Link, variance: float, order: int) -> list[tuple[float, float]]:
    """``E[φ(s√v g) He_n(g)]/(n! √v^n)`` of an activation of one's own, by Gauss–Legendre panels that meet at 0."""
    sigma = math.sqrt(variance)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    width = min(0.5, 2.0 / (abs(link.scale) * sigma))
    edges = width * np.arange(math.ceil(12.0 / width) + 1)
    low, half = edges[:-1, None], np.diff(edges)[:, None] / 2
    g = (low + half * (1 + nodes)).ravel()
    w = (half * weights).ravel() * np.exp(-(g**2) / 2) / math.sqrt(2 * math.pi)
    g, w = np.concatenate([-g[::-1], g]), np.concatenate([w[::-1], w])
    value = link(sigma * g)
    norm = math.sqrt(float(w @ value**2))
    previous, current = np.zeros_like(g), np.ones_like(g)  # He_n/√n!
    out = []
    for n in range(order + 1):
        unit = math.sqrt(math.factorial(n)) * sigma**n
        t = float(w @ (value * current)) / unit
        out.append((t, abs(t) + 1e-13 / TOLERANCE * norm / unit))
        previous, current = current, (g * current - math.sqrt(n) * previous) / math.sqrt(n + 1)
    return out


_LINK_SERIES: dict[str, Callable[[Link, float, int], list[tuple[float, float]]]] = {
    "relu": _relu_series,
    "erf": _erf_series,
    "tanh": _tanh_series,
}


def hermite_coefficients(function: Function | Student, order: int | None = None) -> tuple[Number, ...]:
    """Hermite coefficients ``μ_q = E[h(x) He_q(x)] = E[h^(q)(x)]``, ``x ~ N(0, 1)``, of a function of one variable.

    ``h = Σ_q μ_q He_q / q!``.

    Parameters
    ----------
    function : Function or Student
        A student stands for its activation.
    order : int, optional
        Highest order; by default the degree of a polynomial, and 10 more than the degree of the rest for a link.

    Returns
    -------
    tuple of Fraction or float
        ``μ_0 ... μ_order``.  Exact (Fraction) for polynomials with rational coefficients.  Otherwise closed forms for
        relu and erf and quadrature for tanh (error below ``1e-14 √(q! E[tanh²])``) and activations of one's own, with
        zero for what is below `TOLERANCE` of the absolute values of its terms (by quadrature: below ten times the error
        just named).

    Raises
    ------
    SpecificationError
        If the function has several variables.

    Notes
    -----
    Theory §6.

    Examples
    --------
    >>> from hdsgd import Student
    >>> [str(mu) for mu in hermite_coefficients(Student("x**3"))]
    ['0', '3', '0', '6']
    """
    h = function.function if isinstance(function, Student) else function
    if h.arity != 1:
        raise SpecificationError("Hermite coefficients are those of a function of one variable; see hermite_form")
    wanted = top_order(h) if order is None else whole("order", order)
    terms = smoothed(h, np.array([[Fraction(1)]], dtype=object), wanted)
    return tuple(math.factorial(q) * terms.get((q,), (Fraction(0), 0.0))[0] for q in range(wanted + 1))


def hermite_form(target: Target | Function, order: int) -> Function:
    """The Hermite tensor of one order as a form, ``T_q[θ, ..., θ]/q!`` as a function of ``x = W* θ``.

    Parameters
    ----------
    target : Target or Function
        A function is one of orthonormal directions.
    order : int
        ``q >= 0``.

    Returns
    -------
    Function
        Homogeneous polynomial of degree q in k variables: the part of degree q of ``ĥ(x) = E[h*(x + λ*)]``.  For a unit
        vector ``v = Σ_r c_r w*_r`` it is to be evaluated at ``x = P c``.

    Examples
    --------
    >>> from hdsgd import Target
    >>> {e: str(c) for e, c in hermite_form(Target("z1*z2 + z1**3"), 1).terms.items()}
    {(1, 0): '3'}
    """
    h, P = target_parts(target)
    exact = rational_gram(P)
    terms = smoothed(h, P if exact is None else exact)
    return Function(h.arity, {e: c for e, (c, _) in terms.items() if sum(e) == order})


def target_parts(target: Target | Student | Function | str) -> tuple[Function, Floats]:
    """Function and Gram matrix of what can stand for a target."""
    if isinstance(target, str):
        target = Target(target)
    if isinstance(target, Target):
        return target.function, target.P
    h = target.function if isinstance(target, Student) else target
    if not isinstance(h, Function):
        raise SpecificationError(f"target must be a Target, such as Target('he2'), or text, not {target!r}")
    return h, np.eye(h.arity)


def strongest_direction(target: Target | Function, order: int, sign: float = 1.0) -> tuple[float, Floats]:
    """The unit vector along which the Hermite form of one order is largest.

    Parameters
    ----------
    target : Target or Function
    order : int
        ``q >= 1``.
    sign : float
        Sign of the form: -1 asks for the most negative value.

    Returns
    -------
    value : float
        Maximum of ``sign · T_q[v, ..., v]`` over unit vectors ``v`` in the span of the teacher's; negative or zero if
        q is even and the form takes no positive value.
    direction : ndarray of shape (k,)
        Coordinates c of the maximiser ``v = Σ_r c_r w*_r``.  The best of several local ascents if ``q >= 3``.

    Examples
    --------
    >>> from hdsgd import Target
    >>> value, direction = strongest_direction(Target("z1*z2"), 2)
    >>> round(value, 9), direction.round(3)
    (1.0, array([0.707, 0.707]))
    """
    form = hermite_form(target, whole("order", order, low=1))
    root = root_of(target_parts(target)[1])
    exponents = np.array(list(form.terms), dtype=np.int64).reshape(len(form.terms), form.arity)
    coefs = math.copysign(math.factorial(order), sign) * np.array([float(c) for c in form.terms.values()])
    starts = np.concatenate([root / np.linalg.norm(root, axis=1, keepdims=True), np.eye(root.shape[1])])
    starts = np.concatenate([starts, -starts, np.random.default_rng(0).standard_normal((64, root.shape[1]))])
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)

    def gradient(u: Floats) -> Floats:  # of the form in orthonormal coordinates; the value is u·gradient/q
        x = u @ root.T
        zero = np.zeros_like(x)
        return np.asarray(line_gradients(exponents, coefs, zero, x, order)[:, :, order - 1] @ root)

    if order == 2:
        hessian = gradient(np.eye(root.shape[1]))
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        top = vectors[:, values > values[-1] - 1e-9 * np.abs(values).max()]
        return float(values[-1]) / 2, tidy_basis(top @ top.T, root)[0]
    u = starts
    if order == 1:
        u = gradient(u)
        u = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)
    else:
        u = _ascend(gradient, u, order)
    values = np.einsum("sr,sr->s", u, gradient(u)) / order
    best = int(np.argmax(values > values.max() - 1e-9 * np.abs(values).max()))  # the first of the best
    c = np.linalg.pinv(root.T) @ u[best]
    return float(values[best]), np.where(np.abs(c) < 1e-9, 0.0, c)


def _ascend(gradient: Callable[[Floats], Floats], u: Floats, order: int) -> Floats:
    """Gradient ascent of a form on the unit sphere from several points at once, each with its own step."""
    step = np.full(len(u), 1.0)
    g = gradient(u)
    value = np.einsum("sr,sr->s", u, g) / order
    for _ in range(400):
        scale = np.linalg.norm(g, axis=1) + 1e-300
        tangent = (g - np.einsum("sr,sr->s", u, g)[:, None] * u) / scale[:, None]
        if (np.linalg.norm(tangent, axis=1) < 1e-13).all():
            break
        moved = u + step[:, None] * tangent
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        new_g = gradient(moved)
        new_value = np.einsum("sr,sr->s", moved, new_g) / order
        better = new_value >= value
        u, g = np.where(better[:, None], moved, u), np.where(better[:, None], new_g, g)
        value, step = np.where(better, new_value, value), np.where(better, 1.5 * step, 0.4 * step)
    return u


# ---------------------------------------------------------------- coordinates and series


def root_of(P: Floats) -> Floats:
    """A root ``P = root rootᵀ`` of full column rank, shape (k, r)."""
    values, vectors = np.linalg.eigh(P)
    kept = values > 1e-10 * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def tidy_basis(projector: Floats, root: Floats) -> Floats:
    """Orthonormal basis of a subspace, as near the teacher's directions as can be, in coordinates c; shape (n, k)."""
    count = round(float(np.trace(projector)))
    rest, chosen = projector.copy(), []
    axes = root / np.linalg.norm(root, axis=1, keepdims=True)
    for _ in range(count):
        shares = np.einsum("ri,ij,rj->r", axes, rest, axes)
        r = int(np.argmax(shares > shares.max() - 1e-9))  # the first of the best
        u = rest @ axes[r]
        u /= np.linalg.norm(u)
        rest = rest - np.outer(u, u)
        chosen.append(np.linalg.pinv(root.T) @ u)
    basis = np.array(chosen).reshape(count, len(root))
    basis[np.abs(basis) < 1e-12] = 0.0
    first = np.argmax(basis != 0, axis=1)
    return np.asarray(basis * np.sign(basis[np.arange(count), first])[:, None] + 0.0)  # no -0.0


def line_gradients(
    exponents: NDArray[np.int64], coefs: NDArray[Any], base: NDArray[Any], line: NDArray[Any], orders: int
) -> NDArray[Any]:
    """Coefficients of ``t^0 ... t^(orders-1)`` of ``∇ĥ(base + t line)``, shape (samples, k, orders)."""
    samples, k = base.shape
    zero = np.zeros((samples, orders), dtype=base.dtype)
    powers = []
    for r in range(k):
        ladder = [zero.copy()]
        ladder[0][:, 0] = 1
        for _ in range(int(exponents[:, r].max(initial=0))):
            up = ladder[-1] * base[:, r, None]
            up[:, 1:] += ladder[-1][:, :-1] * line[:, r, None]
            ladder.append(up)
        powers.append(np.stack(ladder))
    out = np.zeros((samples, k, orders), dtype=base.dtype)
    for r in range(k):
        held = np.nonzero(exponents[:, r])[0]
        for start in range(0, len(held), _CHUNK):
            chosen = held[start : start + _CHUNK]
            lowered = exponents[chosen].copy()
            lowered[:, r] -= 1
            product = (coefs[chosen] * exponents[chosen, r])[:, None, None] * powers[0][lowered[:, 0]]
            for s in range(1, k):
                if lowered[:, s].any():
                    product = _series_product(product, powers[s][lowered[:, s]])
            out[:, r] += product.sum(axis=0)
    return out


def _series_product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    out = a * b[..., :1]
    for j in range(1, a.shape[-1]):
        out[..., j:] += a[..., :-j] * b[..., j, None]
    return out
