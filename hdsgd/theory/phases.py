"""Weak recovery over the (μ, δ) plane, theory §4 and §5: exponents, regions, optimal points and prefactors.

Letters: ``γ = γ0 d^-δ``, ``n_b = n0 d^μ``, information (leap) exponent ``ℓ``, recovery time ``T ∝ d^θ`` in steps,
samples ``N = n_b T ∝ d^(θ+μ)``.  Which row of the table of theory §5 holds for a loss and a constraint is a record each
(`hdsgd.theory.rules`).

With ``c = max(ℓ, 2)`` the table of theory §5 is one rule: ``θ = δ + (c-2)/2`` where the drift beats the shrinkage,
``δ >= c/2 - μ``; ``ℓ = 1`` has the exponents of ``ℓ = 2`` (without its logarithm), because the drift is then constant,
but has to hold against the shrinkage at overlaps of order one.  In particular ``N ∝ d^max(ℓ-1, 1)`` on the critical
line.  Rounding makes every batch at least one sample, so ``μ < 0`` stands for ``μ = 0``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.model import Problem
from hdsgd.theory.hermite import Floats
from hdsgd.theory.rules import RULES, rule_of, with_algorithm
from hdsgd.theory.signals import signal

__all__ = [
    "REGIMES",
    "Line",
    "OptimalPoint",
    "algorithm_of",
    "best_exponent",
    "boundaries",
    "exponent",
    "optimal_point",
    "regime",
]

#: Dynamics as d → ∞ in the (μ, δ) plane (theory §4), from large to small learning rates' exponents δ.
REGIMES = ("population flow", "Saad & Solla", "noise dominated", "no ODE limit")

_SLACK = 1e-9  # a grid point this close to a line is on it


def algorithm_of(problem: Problem) -> str | None:
    """Name of the rule of theory §5 that governs weak recovery of a problem; None without normalisation.

    Correlation loss on the sphere and the adaptive loss (correlation until recovery) count as "correlation".

    Examples
    --------
    >>> algorithm_of(Problem("he2", "square", loss="adaptive"))
    'correlation'
    """
    rule = rule_of(problem.loss, problem.constraint)
    return None if rule is None else rule.name


def table_row(ell: int | Problem, algorithm: str | None) -> tuple[int, int, bool]:
    """``ℓ``, ``c = max(ℓ, 2)``, and whether learning goes on at learning rates beyond order one; checks both.

    A problem stands for its effective exponent, with its own loss and constraint or those of the algorithm named.
    """
    if isinstance(ell, Problem):
        problem = ell if algorithm is None else with_algorithm(ell, algorithm)
        found, rule = signal(problem), rule_of(problem.loss, problem.constraint)
        if found.reason or found.exponent is None:
            raise SpecificationError(found.reason)
        ell, subject = found.exponent, f"constraint {problem.constraint!r}"
    elif isinstance(ell, str) or not hasattr(ell, "__index__"):
        raise SpecificationError(f"give a Problem, or an exponent ℓ and an algorithm, not {ell!r}")
    elif algorithm is None:
        raise SpecificationError(f"give an algorithm beside an exponent; choose from {', '.join(ALGORITHMS)}")
    elif algorithm in RULES:
        rule, subject = RULES[algorithm], ""
    else:
        named = ALGORITHMS[algorithm]
        rule, subject = rule_of(named.loss, named.constraint), f"algorithm {algorithm!r}"
    if rule is None:
        raise SpecificationError(f"there is no theory for {subject}: its rows are not normalised")
    ell = whole("ell", ell, low=1)
    return ell, max(ell, 2), rule.stable


# ---------------------------------------------------------------- exponents over the plane


def exponent(
    mu: ArrayLike,
    delta: ArrayLike,
    ell: int | Problem,
    algorithm: str | None = None,
    *,
    log_dim: float | None = None,
) -> Floats:
    """Exponent ``θ`` of the weak-recovery time ``T ∝ d^θ`` at ``n_b = d^μ``, ``γ = d^-δ`` (theory §5).

    With ``c = max(ℓ, 2)``:

    - projected: ``δ + (c-2)/2`` if ``δ >= max(0, c/2 - μ)``;
    - correlation, spherical: ``max(0, δ + (c-2)/2)`` if ``δ >= c/2 - μ`` or ``μ >= c - 1``;
    - ``inf`` elsewhere: no recovery in polynomial time.

    For ``ℓ = 1``, projected, the table leaves out what happens at ``μ >= 1``, ``δ < 0``: the first step reaches an
    overlap of order one, which depends on the problem and does not grow from there; a small enough η counts that as
    recovery.

    Parameters
    ----------
    mu, delta : array_like
        Broadcast against each other; nan gives nan.
    ell : int or Problem
        Effective exponent ``ℓ >= 1``; a problem stands for its own (`hdsgd.theory.signals.effective_exponent`).
    algorithm : str, optional
        "projected", "correlation", "spherical", or one of your own; by default that of the problem.
    log_dim : float, optional
        A dimension d: for ``ℓ = 2`` and ``δ >= 0``, where ``T ∝ d^θ log d``, return the slope of ``ln T`` against
        ``ln d`` there, ``θ + 1/ln d``.

    Returns
    -------
    ndarray
        ``θ`` of the broadcast shape; lines belong to the learning side.

    Raises
    ------
    SpecificationError
        If the algorithm is unknown, ``ℓ < 1``, or there is no theory for the problem.

    Examples
    --------
    >>> exponent([0.5, 1.5], [1.0, 0.0], 3, "projected")
    array([1.5, 0.5])
    """
    ell, c, stable = table_row(ell, algorithm)
    m, d = np.broadcast_arrays(np.maximum(np.asarray(mu, dtype=np.float64), 0.0), np.asarray(delta, dtype=np.float64))
    learns = d >= c / 2 - m - _SLACK
    theta = d + (c - 2) / 2
    if stable:
        learns = learns | (m >= c - 1 - _SLACK)
        theta = np.maximum(theta, 0.0)
    else:
        learns = learns & (d >= -_SLACK)
    if log_dim is not None and ell == 2:
        theta = theta + np.where(d >= 0, 1 / math.log(finite("log_dim", log_dim, low=1.0, open_low=True)), 0.0)
    return np.where(np.isnan(m + d), np.nan, np.where(learns, theta, np.inf))


def best_exponent(mu: ArrayLike, ell: int | Problem, algorithm: str | None = None) -> Floats:
    """The smallest ``θ`` over all δ at batch size ``d^μ``: the (μ, θ) plane.

    Reached at the smallest learning δ, ``max(0, c/2 - μ)`` for projected and ``c/2 - μ`` for the others (any
    ``δ <= 1 - c/2`` once ``μ >= c - 1``): ``max(c - 1 - μ, c/2 - 1)`` for projected, ``max(c - 1 - μ, 0)`` for
    correlation and spherical, ``c = max(ℓ, 2)``.

    Parameters
    ----------
    mu, ell, algorithm
        As for `exponent`.

    Returns
    -------
    ndarray of the shape of `mu`

    Examples
    --------
    >>> best_exponent([0, 1, 2, 3], 3, "correlation")
    array([2., 1., 0., 0.])
    """
    _, c, stable = table_row(ell, algorithm)
    m = np.maximum(np.asarray(mu, dtype=np.float64), 0.0)
    return np.asarray(np.maximum(c - 1 - m, 0.0 if stable else c / 2 - 1))


def regime(mu: ArrayLike, delta: ArrayLike) -> NDArray[np.str_]:
    """Which of `REGIMES` the dynamics is in as ``d → ∞`` (theory §4).

    "no ODE limit" where ``δ <= max(0, (1-μ)/2)``; otherwise "population flow", "Saad & Solla" or "noise dominated" as
    ``δ + μ`` is above, at or below 1.

    Parameters
    ----------
    mu, delta : array_like
        Broadcast against each other.

    Returns
    -------
    ndarray of str, of the broadcast shape

    Examples
    --------
    >>> print(regime(0.5, [0.2, 0.4, 0.5, 1.0]))
    ['no ODE limit' 'noise dominated' 'Saad & Solla' 'population flow']
    """
    m, d = np.broadcast_arrays(np.maximum(np.asarray(mu, dtype=np.float64), 0.0), np.asarray(delta, dtype=np.float64))
    total = d + m
    conditions = [d <= np.maximum(0.0, (1 - m) / 2) + _SLACK, total > 1 + _SLACK, total >= 1 - _SLACK]
    return np.select(conditions, [REGIMES[3], REGIMES[0], REGIMES[1]], REGIMES[2])


# ---------------------------------------------------------------- lines and points to draw


@dataclass(frozen=True)
class Line:
    """A polyline of the (μ, δ) plane.

    Attributes
    ----------
    kind : {"recovery", "time", "one step", "regime"}
        Boundary of weak recovery; start of the region with ``T`` of order one; of that with ``T = 1``; a line of
        theory §4.
    label : str
        Short description.
    mu, delta : tuple of float
        Vertices.
    """

    kind: str
    label: str
    mu: tuple[float, ...]
    delta: tuple[float, ...]


def boundaries(
    ell: int | Problem,
    algorithm: str | None = None,
    mu_range: tuple[float, float] | None = None,
    delta_range: tuple[float, float] | None = None,
) -> list[Line]:
    """Lines to draw over the (μ, δ) plane: where recovery begins (theory §5) and the regimes of theory §4.

    Parameters
    ----------
    ell, algorithm
        As for `exponent`.
    mu_range, delta_range : (low, high), optional
        Box to which lines are clipped; by default one that holds every corner.

    Returns
    -------
    list of Line
        The recovery boundary first.  A line that the box cuts in two comes as two lines of the same label.

    Raises
    ------
    SpecificationError
        If the algorithm is unknown, ``ℓ < 1``, there is no theory for the problem, or a range is not increasing.

    Examples
    --------
    >>> line = boundaries(Problem("he3", "he3"), mu_range=(0, 3), delta_range=(-1, 2))[0]
    >>> line.label, line.mu, line.delta
    ('δ = max(0, 1.5 - μ)', (0.0, 1.5, 3.0), (1.5, 0.0, 0.0))
    """
    ell, c, stable = table_row(ell, algorithm)
    left, right = _interval("mu_range", mu_range or (0.0, max(c, ell) + 1.0))
    low, high = _interval("delta_range", delta_range or (-(c / 2) - 0.5, c / 2 + 0.5))
    far = max(abs(v) for v in (left, right, low, high)) + 2 * c + 1  # ends of lines, outside the box
    start = [(-far, c / 2), (0.0, c / 2)]
    paths: list[tuple[str, str, list[tuple[float, float]]]] = []
    if stable:
        label = f"δ = {c / 2:g} - μ, and μ = {c - 1}"
        paths.append(("recovery", label, [*start, (c - 1, 1 - c / 2), (c - 1, -far)]))
        paths.append(("time", "T = O(1) below", [(c - 1, 1 - c / 2), (far, 1 - c / 2)]))
        paths.append(("one step", "T = 1 below", [(ell, -far), (ell, (1 - ell) / 2), (far, (1 - ell) / 2)]))
    else:
        paths.append(("recovery", f"δ = max(0, {c / 2:g} - μ)", [*start, (c / 2, 0.0), (far, 0.0)]))
    paths += [
        ("regime", "δ = 1 - μ: Saad & Solla", [(0.0, 1.0), (1.0, 0.0)]),
        ("regime", "δ = (1 - μ)/2: no ODE limit below", [(0.0, 0.5), (1.0, 0.0)]),
        ("regime", "δ = 0: no ODE limit below", [(1.0, 0.0), (far, 0.0)]),
    ]
    return [
        Line(kind, label, tuple(float(m) for m, _ in piece), tuple(float(d) for _, d in piece))
        for kind, label, path in paths
        for piece in _clipped(path, (left, right), (low, high))
    ]


def _interval(name: str, value: Sequence[float]) -> tuple[float, float]:
    low, high = finite(name, value[0]), finite(name, value[1])
    if low >= high:
        raise SpecificationError(f"{name} must be increasing, not {low:g} to {high:g}")
    return low, high


def _clipped(
    path: list[tuple[float, float]], mu: tuple[float, float], delta: tuple[float, float]
) -> Iterable[list[tuple[float, float]]]:
    """Pieces of a path inside a box, by Liang and Barsky's rule for each segment."""
    pieces: list[list[tuple[float, float]]] = []
    for a, b in pairwise(path):
        enter, leave = 0.0, 1.0
        for axis, (low, high) in enumerate((mu, delta)):
            step = b[axis] - a[axis]
            for room, speed in ((high - a[axis], step), (a[axis] - low, -step)):
                if speed > 0:
                    leave = min(leave, room / speed)
                elif speed < 0:
                    enter = max(enter, room / speed)
                elif room < 0:
                    leave = -1.0
        if enter < leave:
            inside = [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for t in (enter, leave)]
            start, end = a if enter == 0.0 else inside[0], b if leave == 1.0 else inside[1]
            if pieces and pieces[-1][-1] == start:
                pieces[-1].append(end)
            else:
                pieces.append([start, end])
    return pieces


@dataclass(frozen=True)
class OptimalPoint:
    """A point of the (μ, δ) plane: ``n_b = d^μ``, ``γ = d^-δ``, ``T = d^θ``, ``N = d^samples``, up to prefactors."""

    mu: float
    delta: float
    theta: float
    samples: float


def optimal_point(ell: int | Problem, algorithm: str | None = None, *, one_step: bool = False) -> OptimalPoint:
    """The smallest batch that reaches the smallest recovery time (theory §5).

    With ``c = max(ℓ, 2)``: projected ``n_b = d^(c/2)``, ``δ = 0``, ``T = d^(c/2 - 1)``; correlation and spherical
    ``n_b = d^(c-1)``, ``δ = 1 - c/2``, ``T = O(1)``.  Both lie on the critical line ``δ = c/2 - μ`` and need
    ``N = d^(c-1)`` samples.

    Parameters
    ----------
    ell, algorithm
        As for `exponent`.
    one_step : bool
        The smallest batch that recovers in one giant step instead: ``n_b = d^ℓ``, ``δ = -(ℓ-1)/2``, ``T = 1``.

    Raises
    ------
    SpecificationError
        If the algorithm is unknown, ``ℓ < 1``, there is no theory for the problem, or one step is asked of an algorithm
        without that regime.

    Examples
    --------
    >>> optimal_point(3, "spherical")
    OptimalPoint(mu=2.0, delta=-0.5, theta=0.0, samples=2.0)
    """
    ell, c, stable = table_row(ell, algorithm)
    if one_step:
        if not stable:
            raise SpecificationError(
                "there is no one-step regime where the output acts back on the rows (projected): learning stops at "
                "δ < 0; choose correlation or spherical"
            )
        return OptimalPoint(float(ell), -(ell - 1) / 2, 0.0, float(ell))
    mu = float(c - 1) if stable else c / 2
    theta = max(c - 1 - mu, 0.0 if stable else c / 2 - 1)
    return OptimalPoint(mu, c / 2 - mu, theta, mu + theta)
