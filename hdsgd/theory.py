"""Predictions of theory §4 and §5: exponents, regions, optimal points and prefactors of weak recovery.

Letters: ``γ = γ0 d^-δ``, ``n_b = n0 d^μ``, information (leap) exponent ``ℓ``, recovery time ``T ∝ d^θ`` in steps,
samples ``N = n_b T ∝ d^(θ+μ)``.  The three algorithms are those of `hdsgd.model.ALGORITHMS`.

With ``c = max(ℓ, 2)`` the table of theory §5 is one rule: ``θ = δ + (c-2)/2`` where the drift beats the shrinkage,
``δ >= c/2 - μ``; ``ℓ = 1`` has the exponents of ``ℓ = 2`` (without its logarithm), because the drift is then constant,
but has to hold against the shrinkage at overlaps of order one.  In particular ``N ∝ d^max(ℓ-1, 1)`` on the critical
line.  Rounding makes every batch at least one sample, so ``μ < 0`` stands for ``μ = 0``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdsgd.errors import SpecificationError, choice
from hdsgd.exponents import (
    Visibility,
    format_directions,
    hermite_coefficients,
    hermite_form,
    strongest_direction,
    visibility,
)
from hdsgd.model import ALGORITHMS, Problem, finite, whole
from hdsgd.scaling import check_dim

__all__ = [
    "REGIMES",
    "CriticalPrefactor",
    "Line",
    "OptimalPoint",
    "Prediction",
    "algorithm_of",
    "best_exponent",
    "boundaries",
    "critical_prefactor",
    "exponent",
    "optimal_point",
    "predict",
    "regime",
]

Floats = NDArray[np.float64]

#: Dynamics as d → ∞ in the (μ, δ) plane (theory §4), from large to small learning rates' exponents δ.
REGIMES = ("population flow", "Saad & Solla", "noise dominated", "no ODE limit")

_SLACK = 1e-9  # a grid point this close to a line is on it


def _checked(ell: int, algorithm: str) -> tuple[int, bool]:
    """``c = max(ℓ, 2)`` and whether the algorithm stays stable at learning rates beyond order one."""
    choice("algorithm", algorithm, ALGORITHMS)
    return max(whole("ell", ell, low=1), 2), algorithm != "projected"


def algorithm_of(problem: Problem) -> str | None:
    """The row of the table of theory §5 that governs weak recovery of a problem; None without normalisation.

    Correlation loss on the sphere and the adaptive loss (correlation until recovery) count as "correlation".
    """
    if problem.constraint == "none":
        return None
    if problem.loss != "square":
        return "correlation"
    return "projected" if problem.constraint == "projected" else "spherical"


# ---------------------------------------------------------------- exponents over the plane


def exponent(mu: ArrayLike, delta: ArrayLike, ell: int, algorithm: str, *, log_dim: float | None = None) -> Floats:
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
    ell : int
        Exponent ``ℓ >= 1`` that the student sees (`hdsgd.exponents.visible_exponent`).
    algorithm : {"projected", "correlation", "spherical"}
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
        If the algorithm is unknown or ``ℓ < 1``.
    """
    c, stable = _checked(ell, algorithm)
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


def best_exponent(mu: ArrayLike, ell: int, algorithm: str) -> Floats:
    """The smallest ``θ`` over all δ at batch size ``d^μ``: the (μ, θ) plane of the poster.

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
    """
    c, stable = _checked(ell, algorithm)
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
    ell: int,
    algorithm: str,
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
        If the algorithm is unknown, ``ℓ < 1``, or a range is not increasing.
    """
    c, stable = _checked(ell, algorithm)
    left, right = _interval("mu_range", mu_range or (0.0, max(c, ell) + 1.0))
    low, high = _interval("delta_range", delta_range or (-(c / 2) - 0.5, c / 2 + 0.5))
    far = max(abs(v) for v in (left, right, low, high)) + 2 * c + 1  # ends of lines, outside the box
    start = [(-far, c / 2), (0.0, c / 2)]
    paths: list[tuple[str, str, list[tuple[float, float]]]] = []
    if stable:
        label = f"δ = {_number(c / 2)} - μ, and μ = {c - 1}"
        paths.append(("recovery", label, [*start, (c - 1, 1 - c / 2), (c - 1, -far)]))
        paths.append(("time", "T = O(1) below", [(c - 1, 1 - c / 2), (far, 1 - c / 2)]))
        paths.append(("one step", "T = 1 below", [(ell, -far), (ell, (1 - ell) / 2), (far, (1 - ell) / 2)]))
    else:
        paths.append(("recovery", f"δ = max(0, {_number(c / 2)} - μ)", [*start, (c / 2, 0.0), (far, 0.0)]))
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
            ends = [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for t in (enter, leave)]
            if enter == 0.0 and pieces and pieces[-1][-1] == a:
                pieces[-1].append(ends[1])
            else:
                pieces.append([a if enter == 0.0 else ends[0], ends[1]])
            if leave == 1.0:
                pieces[-1][-1] = b
    return pieces


@dataclass(frozen=True)
class OptimalPoint:
    """A point of the (μ, δ) plane: ``n_b = d^μ``, ``γ = d^-δ``, ``T = d^θ``, ``N = d^samples``, up to prefactors."""

    mu: float
    delta: float
    theta: float
    samples: float


def optimal_point(ell: int, algorithm: str, *, one_step: bool = False) -> OptimalPoint:
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
        If the algorithm is unknown, ``ℓ < 1``, or one step is asked of the projected algorithm.
    """
    c, stable = _checked(ell, algorithm)
    if one_step:
        if not stable:
            raise SpecificationError(
                "projected SGD with the square loss has no one-step regime: it is unstable at δ < 0; "
                "choose correlation or spherical"
            )
        return OptimalPoint(float(ell), -(ell - 1) / 2, 0.0, float(ell))
    mu = float(c - 1) if stable else c / 2
    theta = float(best_exponent(mu, ell, algorithm))
    return OptimalPoint(mu, c / 2 - mu, theta, mu + theta)


# ---------------------------------------------------------------- prefactor at initialisation


@dataclass(frozen=True)
class CriticalPrefactor:
    """Where drift and shrinkage balance at initialisation; see `critical_prefactor`.

    Attributes
    ----------
    ratio : float
        Critical ``γ0/n0`` on the line ``δ = c/2 - μ``, ``c = max(ℓ, 2)``.
    exponent : int
        ``ℓ``, as the student sees it.
    drift : float
        ``b`` of the mean step ``γ b m^(ℓ-1)`` of the overlap along `direction`.
    noise : float
        ``D_jj`` of the mean shrinkage ``½γ² (d/n_b) D_jj m`` per step.
    unit : int
        The hidden unit j (from 0) for which the ratio is largest.
    direction : tuple of float
        Coordinates of the teacher direction ``Σ_r c_r w*_r`` (unit norm) along which the drift is strongest.
    sustained : float or None
        Largest ``γ0/n0`` at which drift beats shrinkage not only at initialisation but at every overlap on the way to
        `eta`, with the other units as they started; None where it was not asked for.
    """

    ratio: float
    exponent: int
    drift: float
    noise: float
    unit: int
    direction: tuple[float, ...]
    sustained: float | None = None

    @property
    def reliable(self) -> float:
        """The smaller of `ratio` and `sustained`, as far as `sustained` is known and positive."""
        return min(self.ratio, self.sustained or self.ratio)


def critical_prefactor(
    problem: Problem, dim: int | None = None, *, eta: float = 0.5, size: float = 1.0
) -> CriticalPrefactor:
    """``γ0/n0`` on the line ``δ = c/2 - μ`` at which drift and noise-induced shrinkage balance at initialisation.

    Independent unit rows (``Q = I``), a small overlap m of row j with a teacher direction v.  One step moves m on
    average by ``γ f(m)``, ``f(m) = -A_{j,teacher}·v + A_jj m = b m^(ℓ-1) + ...``, with

        b = (a_j/p) μ_ℓ(σ)/(ℓ-1)! T_ℓ[v, ..., v]

    (for either loss), and normalisation shrinks it by ``½γ² (d/n_b) D_jj m``.  At the typical initial overlap
    ``m = s d^(-1/2)``, and for ``ℓ = 1`` at the threshold ``m = η``, these are equal at

        γ0/n0 = 2 b s^(ℓ-2)/D_jj   (ℓ >= 2),        γ0/n0 = 2 b/(η D_jj)   (ℓ = 1).

    v is the direction with the largest drift, j the unit with the largest ratio, ``D`` at ``Q = I``, ``M = 0``.
    He2/He2, p = 1, no noise: square loss ``b = 4``, ``D = 48``, ratio 1/6; correlation loss ``b = 4``, ``D = 8``,
    ratio 1.

    At a ratio between `sustained` and `ratio` the overlap leaves its initial size but stops short of η on that line
    (for ``ℓ <= 2``): He2/He2 with the correlation loss has ratio 1 but sustains η = 0.5 only up to 0.375.

    Parameters
    ----------
    problem : Problem
        The adaptive loss counts as correlation, with which it starts; constraint "none" as projected.
    dim : int, optional
        If given, `sustained` is computed too: the smallest ``2 f(m) d^(c/2-1)/(m D_jj(m))`` over overlaps from
        ``s d^(-1/2)`` to ``η``, ``f`` and ``D`` being the population moments at ``Q = I`` and overlap m of row j alone.
    eta : float
        Recovery threshold ``η`` in (0, 1].
    size : float
        ``s``, size of the initial overlap in units of ``d^(-1/2)``.

    Returns
    -------
    CriticalPrefactor

    Raises
    ------
    SpecificationError
        If the student sees nothing of the target, if the signal repels every unit from the teacher (an even ``ℓ`` with
        second-layer weights of the wrong sign), or the moments of this problem are not supported.

    Notes
    -----
    Theory §3 to §5.
    """
    eta = finite("eta", eta, low=0.0, high=1.0, open_low=True)
    size = finite("size", size, low=0.0, open_low=True)
    if dim is not None:
        dim = check_dim(dim)
    seen = visibility(problem)
    if seen.exponent is None:
        raise SpecificationError(f"no weak recovery: {seen.explanation}")
    ell = seen.exponent
    drifts, directions = _drifts(problem, ell)
    if drifts.max() <= 0:
        raise SpecificationError(f"no weak recovery: {_repelled(ell)}")
    from hdsgd.moments import population_moments

    p, k = problem.p, problem.k
    loss = "correlation" if problem.loss == "adaptive" else problem.loss
    noise = np.diag(population_moments(problem, np.eye(p), np.zeros((p, k)), loss).D)
    # A unit with weight zero has neither drift nor noise.
    ratios = np.divide(2 * drifts, noise, out=np.zeros(p), where=noise > 0) * (
        1 / eta if ell == 1 else size ** (ell - 2)
    )
    j = int(np.argmax(ratios > ratios.max() * (1 - 1e-12)))
    sustained = None
    if dim is not None:
        # Below 0.01 the balance at initialisation decides, and the drift would be lost in rounding errors.
        m = np.geomspace(min(max(size * dim**-0.5, 0.01), eta), eta, 25)
        M = np.zeros((len(m), p, k))
        M[:, j] = m[:, None] * (problem.target.P @ directions[j])
        moments = population_moments(problem, np.eye(p), M, loss)
        f = moments.A[:, j, j] * m - moments.A[:, j, p:] @ directions[j]
        along = 2 * f * float(dim) ** (max(ell, 2) / 2 - 1) / (m * moments.D[:, j, j])
        sustained = max(0.0, min(float(along.min()), float(ratios[j]) if ell > 1 else math.inf))
    direction = tuple(float(c) for c in directions[j])
    return CriticalPrefactor(float(ratios[j]), ell, float(drifts[j]), float(noise[j]), j, direction, sustained)


def _drifts(problem: Problem, ell: int) -> tuple[Floats, Floats]:
    """Drift coefficients b (p,) of the units, and the directions (p, k) along which they are largest."""
    a = problem.student.a
    mu = float(hermite_coefficients(problem.student.function, ell)[ell])
    values, directions = np.zeros(len(a)), np.zeros((len(a), problem.k))
    for sign in sorted({math.copysign(1.0, v * mu) for v in a if v}):
        value, direction = strongest_direction(problem.target, ell, sign)
        chosen = a * mu * sign > 0
        values[chosen] = value
        directions[chosen] = direction
    return np.abs(a * mu) / len(a) / math.factorial(ell - 1) * values, directions


def _repelled(ell: int) -> str:
    return (
        f"at order {ell} the signal pushes every unit away from the target's directions; "
        "second-layer weights of the other sign would be attracted"
    )


# ---------------------------------------------------------------- everything about one problem


@dataclass(frozen=True)
class Setting:
    """An `OptimalPoint` in numbers at one dimension: batch size, learning rate, steps and samples."""

    point: OptimalPoint
    batch: float
    lr: float
    steps: float
    samples: float


@dataclass(frozen=True)
class AlgorithmPrediction:
    """What theory §5 says about one algorithm.

    Attributes
    ----------
    condition, time : str
        Where it recovers, and ``T`` there.
    lines : tuple of Line
        From `boundaries`.
    optimal : Setting
    one_step : Setting or None
        None where there is no one-step regime.
    prefactor : CriticalPrefactor or None
        None if it was not asked for, or the population moments of this problem are not available.
    """

    condition: str
    time: str
    lines: tuple[Line, ...]
    optimal: Setting
    one_step: Setting | None
    prefactor: CriticalPrefactor | None


@dataclass(frozen=True)
class Prediction:
    """Theory of one problem at one dimension; from `predict`.

    Attributes
    ----------
    problem : Problem
    dim : int
    eta : float
    student : Visibility
        Leaps of the target itself, and what the student sees of it.
    attracted : bool
        Whether the signal at the student's exponent pulls any unit towards the target's directions.
    algorithms : dict from name to AlgorithmPrediction
        Empty if nothing is learnt.
    notes : tuple of str
        What qualifies these predictions.
    """

    problem: Problem
    dim: int
    eta: float
    student: Visibility
    attracted: bool
    algorithms: dict[str, AlgorithmPrediction]
    notes: tuple[str, ...]

    @property
    def exponent(self) -> int | None:
        """``ℓ`` of the first recovery; None if there is none."""
        return self.student.exponent if self.attracted else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "problem": self.problem.to_dict(),
            "dim": self.dim,
            "eta": self.eta,
            "information_exponent": self.student.information,
            "exponent": self.exponent,
            "target": self.student.target.to_dict(),
            "student": {
                "exponent": self.student.exponent,
                "orders": list(self.student.orders),
                "leaps": self.student.leaps.to_dict(),
                "hidden": self.student.hidden.tolist(),
                "explanation": self.student.explanation,
                "attracted": self.attracted,
            },
            "algorithms": {name: asdict(found) for name, found in self.algorithms.items()},
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """One screen of text."""
        target, student, leaps = self.problem.target, self.problem.student, self.student.target
        lines = [
            f"target   {target.expression}: {target.k} direction{'s' * (target.k > 1)}, "
            f"information exponent {self.student.information}, leap index {leaps.index}",
            f"leaps    {leaps}",
        ]
        if len(leaps.unreached):
            lines.append(f"         does not depend on {format_directions(leaps.unreached)}")
        lines.append(f"student  {student.activation}, width {student.width}: {self.student.explanation}")
        if self.student.exponent is not None and self.student.leaps.exponents != leaps.exponents:
            lines.append(f"         as it sees them: {self.student.leaps}")
        if not self.algorithms:
            lines += ["", "no weak recovery, whatever the batch size, learning rate and algorithm"]
        for name, found in self.algorithms.items():
            lines += ["", f"{name}: recovers iff {found.condition}; T ~ {found.time}"]
            for what, setting in (("optimal", found.optimal), ("one step", found.one_step)):
                if setting is not None:
                    lines.append(f"  {what:8}  {_described(setting)}")
        if self.algorithms:
            prefactors = [
                f"{name} {f.prefactor.ratio:.4g}"
                + (
                    f" (up to η: {f.prefactor.sustained:.4g})"
                    if f.prefactor.reliable < 0.99 * f.prefactor.ratio
                    else ""
                )
                for name, f in self.algorithms.items()
                if f.prefactor
            ]
            lines += ["", f"d = {self.dim}, n_b = n0 d^μ, γ = γ0 d^-δ, recovery at overlap {self.eta:g}"]
            if prefactors:
                lines.append(
                    f"critical γ0/n0 at initialisation: {', '.join(prefactors)}; half of the smaller is used above"
                )
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _power(value: float) -> str:
    return f"d^{_number(value)}" if value else "d^0"


def _described(s: Setting) -> str:
    return (
        f"n_b = {_power(s.point.mu)} = {s.batch:.4g}, γ ~ {_power(-s.point.delta)}: {s.lr:.4g}, "
        f"T ~ {_power(s.point.theta)}: {s.steps:.3g}, N ~ {_power(s.point.samples)}: {s.samples:.3g}"
    )


def predict(
    problem: Problem,
    dim: int,
    algorithm: str | Sequence[str] | None = None,
    *,
    eta: float = 0.5,
    prefactor: bool = True,
) -> Prediction:
    """Collect what theory says about a problem: exponents, what the student sees, regions, optimal points.

    Numbers at this dimension are for ``n0 = 1`` and ``γ0`` half the critical prefactor (`CriticalPrefactor.reliable`),
    a fraction ``F <= 1/2`` of the `ratio` at initialisation.  From drift and shrinkage, which cancel at ``F = 1`` and
    ``m0 = d^(-1/2)`` (for ``ℓ = 1`` at η),

        dm/dstep = γ b (m^(ℓ-1) - F m0^(ℓ-2) m)   (ℓ >= 2),        γ b (1 - F m/η)   (ℓ = 1),

    it takes from m0 to η, for small m0,

        T = η/(γ b) · L  (ℓ = 1),    ln(η/m0)/(γ b (1 - F))  (ℓ = 2),    m0^(2-ℓ)/((ℓ-2) γ b) · L  (ℓ >= 3),

    with ``L = -ln(1 - F)/F``; at least one step.  One giant step takes ``γ = d^((ℓ-1)/2)/b``.  Without prefactor
    ``γ0 = b = 1`` and ``T = d^θ``, times ``ln d`` for ``ℓ = 2``.

    Parameters
    ----------
    problem : Problem
        Its loss and constraint are replaced by those of each algorithm.
    dim : int
        Input dimension ``d``.
    algorithm : str or sequence of str, optional
        Of "projected", "correlation", "spherical"; all by default.
    eta : float
        Recovery threshold ``η``.
    prefactor : bool
        Compute the prefactors from the population moments.  Where these are not available the prediction goes on
        without them, with a note.

    Returns
    -------
    Prediction

    Raises
    ------
    SpecificationError
        If the algorithm is unknown, or `dim` or `eta` is out of range.
    """
    dim, eta = check_dim(dim), finite("eta", eta, low=0.0, high=1.0, open_low=True)
    names = tuple(ALGORITHMS) if algorithm is None else (algorithm,) if isinstance(algorithm, str) else tuple(algorithm)
    for name in names:
        choice("algorithm", name, ALGORITHMS)
    student = visibility(problem)
    ell = student.exponent
    attracted = ell is not None and bool(_drifts(problem, ell)[0].max() > 0)
    if ell is None or not attracted:
        return Prediction(problem, dim, eta, student, False, {}, () if ell is None else (_repelled(ell),))
    found, notes = {}, _notes(problem, ell, names, student.orders)
    for name in names:
        critical, trouble = _prefactor(problem, name, dim, eta) if prefactor else (None, None)
        if trouble is not None and trouble not in notes:
            notes += (trouble,)
        found[name] = _algorithm_prediction(ell, name, dim, eta, critical)
    return Prediction(problem, dim, eta, student, True, found, notes)


def _prefactor(problem: Problem, name: str, dim: int, eta: float) -> tuple[CriticalPrefactor | None, str | None]:
    loss, constraint = ALGORITHMS[name]
    changed = Problem(problem.target, problem.student, problem.noise, loss, constraint)
    try:
        return critical_prefactor(changed, dim, eta=eta), None
    except SpecificationError as error:
        return None, f"numbers are powers of d without prefactors: {error}"


def _algorithm_prediction(
    ell: int, name: str, dim: int, eta: float, critical: CriticalPrefactor | None
) -> AlgorithmPrediction:
    c, stable = _checked(ell, name)
    half, slope = _number(c / 2), f"δ + {_number((c - 2) / 2)}" if c > 2 else "δ"
    log = " log d" if ell == 2 else ""
    if stable:
        condition, time = f"δ >= {half} - μ or μ >= {c - 1}", f"d^max(0, {slope}){log}"
    else:
        condition, time = f"δ >= max(0, {half} - μ)", (f"d^({slope})" if c > 2 else "d^δ") + log
    point = optimal_point(ell, name)
    lr = float(dim) ** -point.delta
    if critical is None:
        steps = float(dim) ** point.theta * (math.log(dim) if ell == 2 else 1.0)
    else:
        lr *= critical.reliable / 2
        fraction = critical.reliable / critical.ratio / 2
        slowing = -math.log1p(-fraction) / fraction
        m0 = min(dim**-0.5, eta)
        if ell == 1:
            moves = eta * slowing
        elif ell == 2:
            moves = math.log(eta / m0) / (1 - fraction)
        else:
            moves = m0 ** (2 - ell) / (ell - 2) * slowing
        steps = max(1.0, moves / (lr * critical.drift))
    batch = float(dim) ** point.mu
    one_step = None
    if stable:
        giant = optimal_point(ell, name, one_step=True)
        n = float(dim) ** giant.mu
        one_step = Setting(giant, n, float(dim) ** -giant.delta / (critical.drift if critical else 1.0), 1.0, n)
    return AlgorithmPrediction(
        condition,
        time,
        tuple(boundaries(ell, name)),
        Setting(point, batch, lr, steps, batch * steps),
        one_step,
        critical,
    )


def _notes(problem: Problem, ell: int, names: Sequence[str], orders: Sequence[int]) -> tuple[str, ...]:
    """What qualifies the predictions, as far as it does not depend on the dimension."""
    notes = []
    if ell == 1 and "projected" in names:
        notes.append(
            "ℓ = 1, projected: at δ < 0 and μ >= 1 one step reaches an overlap of order one, but it does not grow"
        )
    if ell == 2:
        notes.append("ℓ = 2: T carries an extra log d where δ >= 0")
    if ell % 2 and ell > 2:
        notes.append(f"ℓ = {ell} is odd: a unit whose initial overlap has the wrong sign is not attracted")
    if problem.constraint == "none":
        notes.append("constraint none: norms are free, and these predictions are for normalised rows")
    mu = [abs(float(m)) for m in hermite_coefficients(problem.student.function, max(orders))]
    mean = float(sum(float(v) for v in hermite_form(problem.target, 0).terms.values()))
    if "correlation" in names and ell > 2 and mean and mu[2]:
        notes.append(
            f"the labels have mean {mean:.3g} and the activation a component of order 2: the correlation loss then "
            "pulls every row along itself, which slows it at δ < 0 as it does the projected square loss; centre them"
        )
    # The size of the two normalised Hermite components of each order, for a random direction.
    root = problem.target.gram_root
    u = np.random.default_rng(0).standard_normal((root.shape[1], 64))
    x = root @ (u / np.linalg.norm(u, axis=0))
    sizes = {q: mu[q] * float(np.sqrt(np.mean(hermite_form(problem.target, q)(x) ** 2))) for q in orders if q >= ell}
    strongest = max(sizes, key=lambda q: sizes[q])
    if sizes[ell] < 1e-2 * sizes[strongest]:
        notes.append(
            f"the signal of order {ell} is {sizes[ell] / sizes[strongest]:.1g} times that of order {strongest}: below "
            f"very large d it acts like exponent {strongest} (coefficients rounded to few digits do this)"
        )
    return tuple(notes)
