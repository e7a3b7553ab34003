"""Hermite coefficients, information exponents and leap exponents, of targets and as a given student sees them.

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
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.expressions import Function, Link
from hdsgd.model import Problem, Student, Target, whole

__all__ = [
    "TOLERANCE",
    "Leap",
    "LeapSequence",
    "Visibility",
    "hermite_coefficients",
    "hermite_form",
    "information_exponent",
    "leap_sequence",
    "strongest_direction",
    "visibility",
    "visible_exponent",
]

#: Relative size below which a component computed in floating point counts as zero.
TOLERANCE = 1e-9

Floats = NDArray[np.float64]
Number = Fraction | float
Exponents = tuple[int, ...]
# Coefficient and the sum of the absolute values that went into it, against which it is compared.
Terms = dict[Exponents, tuple[Number, float]]

_LINK_ORDERS = 8  # orders of a link that are examined beyond those which other terms could cancel
_EXACT_BUDGET = 1_000_000  # products of rational numbers, half a second; beyond, floating point takes over
# Numbers of denominators this short are meant exactly, longer ones stand for the number that they round: coefficients
# (which may be products of several decimals) and entries of a Gram matrix.
_LONGEST_COEFFICIENT, _LONGEST_ENTRY = 10**12, 10**6
_CHUNK = 2000


# ---------------------------------------------------------------- the smoothed target


def _rational(P: Floats) -> NDArray[Any] | None:
    """P in exact numbers, read as the decimals that print it; None if they are too long to be meant."""
    entries = [Fraction(repr(float(v))) for v in P.flat]
    if any(v.denominator > _LONGEST_ENTRY for v in entries):
        return None
    return np.array(entries, dtype=object).reshape(P.shape)


def _is_rational(function: Function) -> bool:
    """Whether the coefficients are meant exactly: rational and short."""
    return not function.links and all(
        isinstance(c, Fraction) and c.denominator <= _LONGEST_COEFFICIENT for c in function.terms.values()
    )


def _add(terms: Terms, exponents: Exponents, value: Number, size: float) -> None:
    old = terms.get(exponents, (Fraction(0), 0.0))
    terms[exponents] = (old[0] + value, old[1] + size)


def _smoothed(function: Function, P: NDArray[Any]) -> Terms:
    """Terms of ``ĥ = exp(½ Σ_rs P_rs ∂_r ∂_s) h``, those that are zero left out; links up to `_top_order`."""
    total: Terms = {}
    rational = _is_rational(Function(function.arity, function.terms))
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
    for link in function.links:
        series = _LINK_SERIES[link.name](link, float(P[link.index, link.index]), _top_order(function))
        for n, (value, size) in enumerate(series):
            _add(total, tuple(n * (r == link.index) for r in range(function.arity)), value, size)
    return {e: (c, size) for e, (c, size) in total.items() if _significant(c, size)}


def _significant(value: Number, size: float) -> bool:
    return value != 0 if isinstance(value, Fraction) else abs(value) > TOLERANCE * size


def _top_order(function: Function) -> int:
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
        relu and erf and quadrature for tanh (error below ``1e-14 √(q! E[tanh²])``), with zero for what is below
        `TOLERANCE` of the absolute values of its terms (tanh: below ten times the error just named).

    Raises
    ------
    SpecificationError
        If the function has several variables.

    Notes
    -----
    Theory §6.
    """
    h = function.function if isinstance(function, Student) else function
    if h.arity != 1:
        raise SpecificationError("Hermite coefficients are those of a function of one variable; see hermite_form")
    wanted = _top_order(h) if order is None else whole("order", order)
    padded = Function(1, {**h.terms, (wanted,): h.terms.get((wanted,), Fraction(0))}, h.links)
    terms = _smoothed(padded, np.array([[Fraction(1)]], dtype=object))
    zero = Fraction(0)
    return tuple(math.factorial(q) * terms[q,][0] if (q,) in terms else zero for q in range(wanted + 1))


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
    """
    h, P = _target_parts(target)
    exact = _rational(P)
    terms = _smoothed(h, P if exact is None else exact)
    return Function(h.arity, {e: c for e, (c, _) in terms.items() if sum(e) == order})


def _target_parts(target: Target | Student | Function) -> tuple[Function, Floats]:
    if isinstance(target, Target):
        return target.function, target.P
    h = target.function if isinstance(target, Student) else target
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
    """
    form = hermite_form(target, whole("order", order, low=1))
    root = _root(_target_parts(target)[1])
    exponents = np.array(list(form.terms), dtype=np.int64).reshape(len(form.terms), form.arity)
    coefs = math.copysign(math.factorial(order), sign) * np.array([float(c) for c in form.terms.values()])
    starts = np.concatenate([root / np.linalg.norm(root, axis=1, keepdims=True), np.eye(root.shape[1])])
    starts = np.concatenate([starts, -starts, np.random.default_rng(0).standard_normal((64, root.shape[1]))])
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)

    def gradient(u: Floats) -> Floats:  # of the form in orthonormal coordinates; the value is u·gradient/q
        x = u @ root.T
        zero = np.zeros_like(x)
        return np.asarray(_line_gradients(exponents, coefs, zero, x, order)[:, :, order - 1] @ root)

    if order == 2:
        hessian = gradient(np.eye(root.shape[1]))
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        top = vectors[:, values > values[-1] - 1e-9 * np.abs(values).max()]
        return float(values[-1]) / 2, _tidy_basis(top @ top.T, root)[0]
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


# ---------------------------------------------------------------- leaps


@dataclass(frozen=True)
class Leap:
    """One stage: directions reached together.

    Attributes
    ----------
    exponent : int
        Smallest order in the new directions of a Hermite tensor component, all other indices in the span learnt before.
    directions : ndarray of shape (n, k)
        Orthonormal directions ``v_i = Σ_r directions[i, r] w*_r``, orthogonal to those of earlier stages.
    """

    exponent: int
    directions: Floats


@dataclass(frozen=True)
class LeapSequence:
    """Leap exponents in the order learnt.

    Attributes
    ----------
    leaps : tuple of Leap
        Empty if nothing can be learnt.
    unreached : ndarray of shape (n, k)
        Orthonormal basis of the directions in the span of the teacher's that are never reached (for
        `leap_sequence`: on which the target does not depend).
    exact : bool
        Whether it was found in exact arithmetic.
    """

    leaps: tuple[Leap, ...]
    unreached: Floats
    exact: bool

    @property
    def exponents(self) -> tuple[int, ...]:
        """Exponent of each stage."""
        return tuple(leap.exponent for leap in self.leaps)

    @property
    def index(self) -> int | None:
        """The leap index, the largest exponent of all stages; None if there is no stage."""
        return max(self.exponents, default=None)

    @property
    def reached(self) -> Floats:
        """Orthonormal basis (n, k) of everything learnt."""
        empty = np.zeros((0, self.unreached.shape[1]))
        return np.concatenate([empty, *(leap.directions for leap in self.leaps)])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "leaps": [{"exponent": s.exponent, "directions": s.directions.tolist()} for s in self.leaps],
            "index": self.index,
            "unreached": self.unreached.tolist(),
            "exact": self.exact,
        }

    def __str__(self) -> str:
        stages = [f"{format_directions(s.directions)} (exponent {s.exponent})" for s in self.leaps]
        return ", then ".join(stages) or "nothing"


def format_directions(directions: Floats) -> str:
    """Directions as text, such as ``z1, 0.6 z2 + 0.8 z3``, with ``z_r`` for ``w*_r``."""
    texts = []
    for row in directions:
        text = ""
        for r, c in enumerate(row):
            if abs(c) > 5e-7:
                number = "" if abs(abs(c) - 1) < 5e-7 else f"{abs(c):.3g} "
                sign = (" - " if c < 0 else " + ") if text else ("-" if c < 0 else "")
                text += f"{sign}{number}z{r + 1}"
        texts.append(text)
    return ", ".join(texts)


class _Span:
    """A growing span of directions ``Σ_r c_r w*_r``, as P-orthogonal vectors c in exact or floating-point numbers."""

    def __init__(self, P: NDArray[Any], root: Floats) -> None:
        self.P, self.root, self.rows = P, root, []  # type: NDArray[Any], Floats, list[NDArray[Any]]
        self.exact = P.dtype == object

    def outside(self, c: NDArray[Any]) -> NDArray[Any]:
        """The part of c (rows) orthogonal to the span."""
        for _ in range(1 if self.exact else 2):  # the second pass removes rounding errors
            for row in self.rows:
                dual = self.P @ row
                c = c - np.multiply.outer(c @ dual / (row @ dual), row)
        return c

    def extend(self, candidates: NDArray[Any], threshold: float) -> None:
        """Add the span of vectors (rows) that are orthogonal to it already."""
        if self.exact:
            for c in _row_echelon(candidates):
                rest = self.outside(c)
                if any(v != 0 for v in self.P @ rest):
                    self.rows.append(_primitive(rest))
            return
        _, values, vectors = np.linalg.svd(candidates @ self.root, full_matrices=False)
        for value, u in zip(values, vectors, strict=True):
            if value > threshold:
                self.rows.append(np.linalg.pinv(self.root.T) @ u)

    def projector(self) -> Floats:
        """Projector on the span in the orthonormal coordinates ``u = rootᵀ c``, shape (r, r)."""
        u = np.array(self.rows, dtype=np.float64).reshape(len(self.rows), len(self.P)) @ self.root
        return _projector(u / np.linalg.norm(u, axis=1, keepdims=True))


def _primitive(values: NDArray[Any]) -> NDArray[Any]:
    """The shortest vector of whole numbers along a rational one."""
    scale = math.lcm(*(Fraction(v).denominator for v in values.flat))
    whole = [int(Fraction(v) * scale) for v in values.flat]
    common = math.gcd(*whole) or 1
    return np.array([v // common for v in whole], dtype=object).reshape(values.shape)


def _row_echelon(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Reduced row echelon basis of a rational row space: the shortest numbers for it, whatever the rows."""
    rest = [_primitive(row) for row in rows]
    basis: list[NDArray[Any]] = []
    for column in range(rows.shape[1]):
        pivot = next((row for row in rest if row[column] != 0), None)
        if pivot is None:
            continue
        rest, basis = (
            [_primitive(row * pivot[column] - pivot * row[column]) for row in group if row is not pivot]
            for group in (rest, basis)
        )
        rest = [row for row in rest if any(row)]
        basis.append(pivot)
    return basis


def _root(P: Floats) -> Floats:
    """A root ``P = root rootᵀ`` of full column rank, shape (k, r)."""
    values, vectors = np.linalg.eigh(P)
    kept = values > 1e-10 * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _projector(orthonormal: Floats) -> Floats:
    return np.asarray(orthonormal.T @ orthonormal)


def _tidy_basis(projector: Floats, root: Floats) -> Floats:
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


def _line_gradients(
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


def _next_exponent(terms: Terms, span: _Span, orders: int, rng: np.random.Generator) -> int | None:
    """Smallest order q of ``ĥ(P(c_U + c_⊥))`` in ``c_⊥`` for generic ``c_U`` in the span; extends the span.

    The form of order q in ``c_⊥`` vanishes iff its gradient does at generic points, and the gradients at more generic
    points than there are directions span the row space of the unfolded tensor.  In exact numbers the points are random
    integers: what is found non-zero is so, and a wrong zero has probability below ``(degree/2^40)^(2k+4)``.
    """
    k = len(span.P)
    samples = 2 * k + 4
    exponents = np.array(list(terms), dtype=np.int64).reshape(len(terms), k)

    def draw(*shape: int) -> NDArray[Any]:
        return rng.integers(-(2**40), 2**40, shape).astype(object) if span.exact else rng.standard_normal(shape)

    coefs = np.array([c if span.exact else float(c) for c, _ in terms.values()], dtype=object if span.exact else float)
    if span.exact:
        coefs = _primitive(coefs)
    learnt = np.zeros((samples, k), dtype=coefs.dtype)
    for row in span.rows:
        learnt = learnt + np.multiply.outer(draw(samples), row)
    base, line = learnt @ span.P, span.outside(draw(samples, k)) @ span.P
    if span.exact:
        base, line = (np.array([_primitive(x) for x in points], dtype=object) for points in (base, line))
    else:
        scales = np.sqrt(np.diag(span.P))
        base, line = (x / np.maximum(np.abs(x / scales).max(axis=1, keepdims=True), 1e-300) for x in (base, line))
    for most in sorted({min(3, orders), orders}):  # low orders are the usual answer and cost little
        gradients = _line_gradients(exponents, coefs, base, line, most)
        sizes = np.zeros_like(gradients)
        if not span.exact:
            bounds = np.array([size for _, size in terms.values()])
            sizes = _line_gradients(exponents, bounds, np.abs(base), np.abs(line), most)
        for q in range(1, most + 1):
            c = span.outside(gradients[:, :, q - 1])
            if span.exact:
                found = bool(((c @ span.P) != 0).any())
            else:
                c = c / np.maximum(sizes[:, :, q - 1] @ np.sqrt(np.diag(span.P)), 1e-300)[:, None]
                found = float(np.linalg.norm(c @ span.root, axis=1).max()) > TOLERANCE
            if found:
                span.extend(c, TOLERANCE * math.sqrt(samples))
                return q
    return None


def _sequence(function: Function, P: Floats, visible: Collection[int] | None) -> LeapSequence:
    """Leap sequence of the Hermite components of orders in `visible` (all if None)."""
    root = _root(P)
    rational = _rational(P)
    exact = rational is not None and _is_rational(function) and len(_row_echelon(rational)) == root.shape[1]
    terms = _smoothed(function, rational if exact and rational is not None else P)
    terms = {e: t for e, t in terms.items() if sum(e) and (visible is None or sum(e) in visible)}
    orders = max((sum(e) for e in terms), default=0)
    if exact and len(terms) * (2 * len(P) + 4) * (orders * len(P)) ** 2 > _EXACT_BUDGET:
        exact = False
        terms = {e: (float(c), abs(float(c))) for e, (c, _) in terms.items()}
    span = _Span(rational if exact and rational is not None else P, root)
    rng = np.random.default_rng(0)  # generic points; the answer does not depend on them
    leaps, before = [], span.projector()
    while terms and len(span.rows) < root.shape[1]:
        exponent = _next_exponent(terms, span, orders, rng)
        if exponent is None:
            break
        after = span.projector()
        leaps.append(Leap(exponent, _tidy_basis(after - before, root)))
        before = after
    return LeapSequence(tuple(leaps), _tidy_basis(np.eye(root.shape[1]) - before, root), bool(exact))


def leap_sequence(target: Target | Function) -> LeapSequence:
    """Leap exponents of a target, with the subspaces in the order learnt.

    Start from ``U = {0}``.  Given the span ``U`` learnt so far, let q be the smallest order for which
    ``E[f*(z) | z_U]`` has a non-zero Hermite tensor of order q in directions orthogonal to U, that is for which the
    part of degree q in ``θ_⊥`` of ``ĥ(W*(θ_U + θ_⊥))`` does not vanish for generic ``θ_U``.  The directions in the row
    space of these tensors are learnt next, with exponent q, and join U.  Taking the smallest order at each stage is the
    best order there is: a larger U never raises an exponent.

    Parameters
    ----------
    target : Target or Function
        A function is one of orthonormal directions.

    Returns
    -------
    LeapSequence
        Directions in the coordinates of the teacher's, orthonormal in ``R^d`` for any Gram matrix.

    Notes
    -----
    Theory §6; Abbe, Boix-Adserà & Misiakiewicz (2023).  Directions reached at the same order count as one stage
    although their signals may differ in strength and sign.  Links are examined up to order ``degree + 2 links + 8``,
    where ``degree`` is that of the polynomial beside them.
    """
    return _sequence(*_target_parts(target), None)


def information_exponent(target: Target | Student | Function) -> int:
    """Information exponent: smallest ``q >= 1`` whose Hermite tensor ``E[f* He_q]`` is not zero (theory §6).

    Parameters
    ----------
    target : Target, Student or Function
        A student stands for its activation, a function for one of independent standard normals.

    Raises
    ------
    SpecificationError
        If the function is constant (up to the tolerance, or because the terms cancel).
    """
    exponents = _sequence(*_target_parts(target), None).exponents
    if not exponents:
        raise SpecificationError("the function is constant: all of its Hermite components beyond order 0 vanish")
    return exponents[0]


# ---------------------------------------------------------------- what a student sees


@dataclass(frozen=True)
class Visibility:
    """What a student can learn of a target.

    Attributes
    ----------
    exponent : int or None
        Smallest order ``>= 1`` at which both activation and target have a Hermite component; None if there is none.
    orders : tuple of int
        Orders ``>= 1`` at which the activation has a component, as far as the target has orders.
    target, leaps : LeapSequence
        Leap sequence of the target itself, and as the student sees it.
    hidden : ndarray of shape (n, k)
        Orthonormal directions on which the target depends but of which the student never gets a signal.
    explanation : str
        One sentence.
    """

    exponent: int | None
    orders: tuple[int, ...]
    target: LeapSequence
    leaps: LeapSequence
    hidden: Floats
    explanation: str

    @property
    def information(self) -> int | None:
        """Information exponent of the target itself; None if it is constant."""
        return next(iter(self.target.exponents), None)


def visibility(problem: Problem) -> Visibility:
    """What the student of a problem can and cannot learn of its target.

    The mean gradient of the correlation loss pulls a unit row w towards ``(a_j/p) Σ_q μ_q(σ)/(q-1)! T_q[w, ..., w, ·]``
    (up to a multiple of w): the target's Hermite tensor of order q is seen through the activation's coefficient
    ``μ_q(σ)`` of the same order only.  The other part of the square loss, the student's own output, points along the
    rows themselves and does not tell the teacher's directions from any other.  Hence weak recovery is governed by the
    smallest order present in both.

    When the rows have components in the span U learnt, a direction v orthogonal to U is reached with order q through
    tensor components with n indices in U and q along v, provided ``μ_(n+q)(σ) ≠ 0``.  The sequence is therefore that of
    the target with the orders missing in σ removed.  This assumes rows in general position within U (several units, no
    exact alignment with a fixed point where the terms cancel), second-layer weights of the sign that the signal asks
    for, and rows of unit norm; with constraint "none" norms change, and a polynomial activation then has other orders
    too.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Visibility

    Notes
    -----
    Theory §1 (a square student sees order 2 only), §6.
    """
    h, P = _target_parts(problem.target)
    sigma = problem.student.function
    top = max(_top_order(h), _top_order(sigma), 1)
    mu = hermite_coefficients(sigma, top)
    orders = tuple(q for q in range(1, top + 1) if mu[q] != 0)
    active = problem.student.a.any()
    full = _sequence(h, P, None)
    seen = _sequence(h, P, orders if active else ())
    root = _root(P)
    hidden = _tidy_basis(_projector(full.reached @ root) - _projector(seen.reached @ root), root)
    if not active:
        text = "all second-layer weights are zero: the gradient vanishes"
    else:
        candidates = sorted({sum(e) for e in _smoothed(h, P)} - {0})
        held = [q for q in candidates if _sequence(h, P, (q,)).leaps]
        text = _explain(problem, full, seen, orders, held, hidden)
    return Visibility(next(iter(seen.exponents), None), orders, full, seen, hidden, text)


def visible_exponent(problem: Problem) -> int | None:
    """Smallest ``q >= 1`` with both ``μ_q(σ) ≠ 0`` and ``T_q ≠ 0``: the exponent that governs this student's recovery.

    None if there is no such order: then the gradient carries no signal.  `visibility` says why.
    """
    return visibility(problem).exponent


def _explain(
    problem: Problem, full: LeapSequence, seen: LeapSequence, orders: Iterable[int], held: Iterable[int], hidden: Floats
) -> str:
    sigma, target = problem.student.activation, problem.target.expression
    if not full.leaps:
        return f"the target {target} is constant: there is nothing to learn"
    first = full.exponents[0]
    components = (
        f"activation {sigma} has Hermite components of order {_listed(orders, problem.student.function)} and "
        f"target {target} of order {_listed(held, problem.target.function)}"
    )
    if not seen.leaps:
        return f"{components}: none in common, so the student cannot learn (an activation with order {first} could)"
    text = f"{components}: "
    if seen.exponents[0] > first:
        text += f"order {first} is invisible, and the signal begins at order {seen.exponents[0]}"
    else:
        text += f"the signal begins at order {first}, the target's own exponent"
    if len(hidden):
        text += f"; {format_directions(hidden)} can never be learnt"
    elif seen.index != full.index:
        text += f"; the leap index is {seen.index} instead of {full.index}"
    return text


def _listed(orders: Iterable[int], function: Function) -> str:
    orders = list(orders)
    if function.links:
        return ", ".join(map(str, [*orders[:4], "..."]))
    return ", ".join(map(str, orders)) or "0 only"
