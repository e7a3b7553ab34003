"""Information exponents and leap exponents, of targets and of what a given student can learn of them.

Notation of theory §1 and §6; `hdsgd.theory.hermite` says what is exact and what counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.problem.functions import Function
from hdsgd.problem.model import Problem, Student, Target
from hdsgd.theory.hermite import (
    TOLERANCE,
    Floats,
    Terms,
    hermite_coefficients,
    is_rational,
    line_gradients,
    rational_gram,
    root_of,
    smoothed,
    target_parts,
    tidy_basis,
    top_order,
)

__all__ = [
    "Leap",
    "LeapSequence",
    "Learnability",
    "information_exponent",
    "leaps",
    "learnability",
]

_EXACT_BUDGET = 1_000_000  # products of rational numbers, half a second; beyond, floating point takes over


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
        Orthonormal basis of the directions in the span of the teacher's that are never reached; of a
        target alone those on which it does not depend.
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


def _projector(orthonormal: Floats) -> Floats:
    return np.asarray(orthonormal.T @ orthonormal)


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
        gradients = line_gradients(exponents, coefs, base, line, most)
        sizes = np.zeros_like(gradients)
        if not span.exact:
            bounds = np.array([size for _, size in terms.values()])
            sizes = line_gradients(exponents, bounds, np.abs(base), np.abs(line), most)
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


def _sequence(function: Function, P: Floats, learnable: Collection[int] | None) -> LeapSequence:
    """Leap sequence of the Hermite components of orders in `learnable` (all if None)."""
    root = root_of(P)
    gram: NDArray[Any] | None = rational_gram(P)
    if gram is None or not is_rational(function) or len(_row_echelon(gram)) != root.shape[1]:
        gram = P
    terms = {e: t for e, t in smoothed(function, gram).items() if sum(e) and (learnable is None or sum(e) in learnable)}
    orders = max((sum(e) for e in terms), default=0)
    if gram is not P and len(terms) * (2 * len(P) + 4) * (orders * len(P)) ** 2 > _EXACT_BUDGET:
        gram = P
        terms = {e: (float(c), abs(float(c))) for e, (c, _) in terms.items()}
    span = _Span(gram, root)
    rng = np.random.default_rng(0)  # generic points; the answer does not depend on them
    leaps, before = [], span.projector()
    while terms and len(span.rows) < root.shape[1]:
        exponent = _next_exponent(terms, span, orders, rng)
        if exponent is None:
            break
        after = span.projector()
        leaps.append(Leap(exponent, tidy_basis(after - before, root)))
        before = after
    return LeapSequence(tuple(leaps), tidy_basis(np.eye(root.shape[1]) - before, root), span.exact)


def leaps(target: Target | Function | Problem | str) -> LeapSequence:
    """Leap exponents of a target, with the subspaces in the order learnt; of a problem, what its student can learn.

    Start from ``U = {0}``.  Given the span ``U`` learnt so far, let q be the smallest order for which
    ``E[f*(z) | z_U]`` has a non-zero Hermite tensor of order q in directions orthogonal to U, that is for which the
    part of degree q in ``θ_⊥`` of ``ĥ(W*(θ_U + θ_⊥))`` does not vanish for generic ``θ_U``.  The directions in the row
    space of these tensors are learnt next, with exponent q, and join U.  Taking the smallest order at each stage is the
    best order there is: a larger U never raises an exponent.

    Parameters
    ----------
    target : Target, Function, Problem or str
        A function is one of orthonormal directions, text the expression of a target; of a problem the sequence is that
        of `learnability`.

    Returns
    -------
    LeapSequence
        Directions in the coordinates of the teacher's, orthonormal in ``R^d`` for any Gram matrix.

    Notes
    -----
    Theory §6; Abbe, Boix-Adserà & Misiakiewicz (2023).  Directions reached at the same order count as one stage
    although their signals may differ in strength and sign.  Links are examined up to order ``degree + 2 links + 8``,
    where ``degree`` is that of the polynomial beside them.

    Examples
    --------
    >>> print(leaps("z1 + z1*z2*z3 + he4(z4)"))
    z1 (exponent 1), then z2, z3 (exponent 2), then z4 (exponent 4)
    >>> from hdsgd import Problem
    >>> print(leaps(Problem("he2(z1) + he3(z2)", "square")))
    z1 (exponent 2)
    """
    if isinstance(target, Problem):
        return learnability(target).leaps
    return _sequence(*target_parts(target), None)


def information_exponent(target: Target | Student | Function | str) -> int:
    """Information exponent: smallest ``q >= 1`` whose Hermite tensor ``E[f* He_q]`` is not zero (theory §6).

    Parameters
    ----------
    target : Target, Student, Function or str
        A student stands for its activation, a function for one of independent standard normals, text for the
        expression of a target.

    Raises
    ------
    SpecificationError
        If the function is constant (up to the tolerance, or because the terms cancel).

    Examples
    --------
    >>> information_exponent("he3(z1) + z1*z2"), information_exponent("relu")
    (2, 1)
    """
    exponents = _sequence(*target_parts(target), None).exponents
    if not exponents:
        raise SpecificationError("the function is constant: all of its Hermite components beyond order 0 vanish")
    return exponents[0]


# ---------------------------------------------------------------- what a student can learn


@dataclass(frozen=True)
class Learnability:
    """What a student can learn of a target.

    Attributes
    ----------
    exponent : int or None
        Smallest order ``>= 1`` at which both activation and target have a Hermite component; None if there is none.
    orders, target_orders : tuple of int
        Orders ``>= 1`` at which activation and target have a component; of links up to the highest order examined.
    target, leaps : LeapSequence
        Leap sequence of the target itself, and of what the student can learn of it.
    unlearnable : ndarray of shape (n, k)
        Orthonormal directions on which the target depends but of which the student never gets a signal.
    verdict, explanation : str
        What comes of it, in one clause; the same after the orders that it follows from.
    """

    exponent: int | None
    orders: tuple[int, ...]
    target_orders: tuple[int, ...]
    target: LeapSequence
    leaps: LeapSequence
    unlearnable: Floats
    verdict: str
    explanation: str

    @property
    def information(self) -> int | None:
        """Information exponent of the target itself; None if it is constant."""
        return next(iter(self.target.exponents), None)


def learnability(problem: Problem) -> Learnability:
    """What the student of a problem can and cannot learn of its target.

    The mean gradient of the correlation loss pulls a unit row w towards ``(a_j/p) Σ_q μ_q(σ)/(q-1)! T_q[w, ..., w, ·]``
    (up to a multiple of w): the target's Hermite tensor of order q acts through the activation's coefficient
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
    Learnability

    Notes
    -----
    Theory §1 (a square student has a signal of order 2 only), §6; of the square and the correlation loss.  A loss with
    an error of its own mixes orders (`hdsgd.theory.signals`).

    Examples
    --------
    >>> from hdsgd import Problem
    >>> found = learnability(Problem("z1 + he2(z2)", "square"))
    >>> found.exponent, found.information, found.unlearnable
    (2, 1, array([[1., 0.]]))
    """
    h, P = target_parts(problem.target)
    sigma = problem.student.function
    top = max(top_order(h), top_order(sigma), 1)
    mu = hermite_coefficients(sigma, top)
    orders = tuple(q for q in range(1, top + 1) if mu[q] != 0)
    active = problem.student.a.any()
    full = _sequence(h, P, None)
    seen = _sequence(h, P, orders if active else ())
    root = root_of(P)
    unlearnable = tidy_basis(_projector(full.reached @ root) - _projector(seen.reached @ root), root)
    candidates = sorted({sum(e) for e in smoothed(h, P)} - {0})
    target_orders = tuple(q for q in candidates if _sequence(h, P, (q,)).leaps)
    if not active:
        verdict = explanation = "all second-layer weights are zero: the gradient vanishes"
    elif not full.leaps:
        verdict = explanation = f"the target {problem.target.expression} is constant: there is nothing to learn"
    else:
        verdict = _verdict(full, seen, unlearnable)
        explanation = (
            f"activation {problem.student.activation} has Hermite components of order {format_orders(orders, sigma)} "
            f"and target {problem.target.expression} of order {format_orders(target_orders, h)}: {verdict}"
        )
    first = next(iter(seen.exponents), None)
    return Learnability(first, orders, target_orders, full, seen, unlearnable, verdict, explanation)


def _verdict(full: LeapSequence, seen: LeapSequence, unlearnable: Floats) -> str:
    first = full.exponents[0]
    if not seen.leaps:
        return f"none in common, so the student cannot learn (an activation with order {first} could)"
    if seen.exponents[0] > first:
        text = f"order {first} is unlearnable, and the signal begins at order {seen.exponents[0]}"
    else:
        text = f"the signal begins at order {first}, the target's own exponent"
    if len(unlearnable):
        text += f"; {format_directions(unlearnable)} can never be learnt"
    elif seen.index != full.index:
        text += f"; the leap index is {seen.index} instead of {full.index}"
    return text


def format_orders(orders: Sequence[int], function: Function) -> str:
    """Orders of the components of a function as text; a link has infinitely many."""
    if function.links:
        return ", ".join(map(str, [*orders[:4], "..."]))
    return ", ".join(map(str, orders)) or "0 only"
