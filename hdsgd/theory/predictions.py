"""What theory says about one problem at one dimension: leaps, regions, optimal points and numbers to run.

Letters and formulas of `hdsgd.theory.phases` (theory §5); what the student can learn of the target is
`hdsgd.theory.leaps.learnability` (theory §6), and for losses with an error of their own `hdsgd.theory.signals`.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hdsgd.checks import check_dim, check_eta
from hdsgd.errors import SpecificationError
from hdsgd.policies import DIM, ETA
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.model import Problem, as_problem
from hdsgd.theory.hermite import hermite_coefficients, hermite_form
from hdsgd.theory.leaps import Learnability, format_directions, format_orders, learnability
from hdsgd.theory.phases import Line, OptimalPoint, boundaries, optimal_point
from hdsgd.theory.prefactors import CriticalPrefactor, critical_prefactor
from hdsgd.theory.rules import Rule, rule_of, with_algorithm
from hdsgd.theory.signals import Signal, signal

__all__ = ["AlgorithmPrediction", "Prediction", "Setting", "predict"]

_COLUMNS = 80


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
    exponent : int
        Effective exponent ``ℓ`` with its loss.
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

    exponent: int
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
    student : Learnability
        Leaps of the target itself, and what the student can learn of it with the square or the correlation loss.
    sign : int
        Sign of the signal at that exponent: 1 if it pulls some unit towards the target's directions, -1 if it pushes
        all of them away, 0 without signal.
    algorithms : dict from name to AlgorithmPrediction
        Empty if nothing is learnt.
    notes : tuple of str
        What qualifies these predictions.
    """

    problem: Problem
    dim: int
    eta: float
    student: Learnability
    sign: int
    algorithms: dict[str, AlgorithmPrediction]
    notes: tuple[str, ...]

    @property
    def exponent(self) -> int | None:
        """``ℓ`` of the first recovery, the smallest of the algorithms'; None if there is none."""
        return min((found.exponent for found in self.algorithms.values()), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "problem": self.problem.to_dict(),
            "dim": self.dim,
            "eta": self.eta,
            "information_exponent": self.student.information,
            "exponent": self.exponent,
            "target": {"orders": list(self.student.target_orders), **self.student.target.to_dict()},
            "student": {
                "exponent": self.student.exponent,
                "orders": list(self.student.orders),
                "leaps": self.student.leaps.to_dict(),
                "unlearnable": self.student.unlearnable.tolist(),
                "explanation": self.student.explanation,
                "sign": self.sign,
            },
            "algorithms": {name: asdict(found) for name, found in self.algorithms.items()},
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def summary(self) -> str:
        """One screen of text, 80 columns wide.

        Examples
        --------
        >>> print(predict(Problem("he3", "square"), 1000).summary())
        target   he3(z1); Hermite orders 3
        leaps    z1 (exponent 3)
        student  square(x), width 1; Hermite orders 2
        learns   nothing
                 none in common, so the student cannot learn (an activation with order 3
                 could)
        <BLANKLINE>
        no weak recovery, whatever the batch size, learning rate and algorithm
        """
        return "\n".join([*self._leaps(), "", *self._plane(), *self._remarks()])

    def _leaps(self) -> Iterator[str]:
        learnt, target, student = self.student, self.problem.target, self.problem.student
        noise = f"; label noise {self.problem.noise:g}" if self.problem.noise else ""
        orders = format_orders(learnt.target_orders, target.function)
        yield from _entry("target", f"{target.expression}; Hermite orders {orders}{noise}")
        yield from _entry("leaps", str(learnt.target))
        if rest := format_directions(learnt.target.unreached):
            if len(rest) > 2 * _COLUMNS:
                rest = f"{len(learnt.target.unreached)} directions in the span of its variables"
            yield from _entry("", f"does not depend on {rest}")
        orders = format_orders(learnt.orders, student.function)
        yield from _entry("student", f"{student.activation}, width {student.width}; Hermite orders {orders}")
        if learnt.leaps.exponents != learnt.target.exponents or len(learnt.unlearnable):
            yield from _entry("learns", str(learnt.leaps))
        for clause in learnt.verdict.split("; "):
            yield from _entry("", clause)

    def _plane(self) -> Iterator[str]:
        if not self.algorithms:
            yield "no weak recovery, whatever the batch size, learning rate and algorithm"
            return
        found = self.algorithms.items()
        balanced = any(f.prefactor for _, f in found)
        yield f"Weak recovery at d = {self.dim}: |M| >= {self.eta:g} by the first leap, ℓ = {self.exponent}."
        yield "Batch n_b = n0 d^μ, learning rate γ = γ0 d^-δ, T steps, N = n_b T samples."
        yield ""
        yield f"{'':13}{'recovers where':26}{'T grows as':25}{'critical γ0/n0' if balanced else ''}".rstrip()
        for name, f in found:
            critical = _number(f.prefactor.reliable) if f.prefactor else ""
            yield f"{name:13}{f.condition:26}{f.time:25}{critical}".rstrip()
        if balanced:
            half = max(self.exponent or 0, 2) / 2
            yield f"(on the line δ = {half:g} - μ noise undoes the drift above the critical value)"
        yield ""
        yield f"Fewest steps, at the smallest batch for them; n0 = 1, γ0 {'half the critical' if balanced else '= 1'}"
        yield f"{'':13}{'n_b':16}{'γ':16}{'T, about':16}N, about"
        for name, f in found:
            yield _row(name, f.optimal)
        giants = [(name, f.one_step) for name, f in found if f.one_step]
        if giants:
            point = giants[0][1].point
            region = f"μ >= {point.mu:g}, δ <= {point.delta:g}"
            yield f"One giant step ({region}), at the smallest batch and learning rate"
        for name, setting in giants:
            yield _row(name, setting)

    def _remarks(self) -> Iterator[str]:
        for note in self.notes:
            yield from textwrap.wrap(f"note: {note}", _COLUMNS, subsequent_indent="  ", break_on_hyphens=False)


def _entry(label: str, text: str) -> list[str]:
    indent = f"{label:9}"
    return textwrap.wrap(text, _COLUMNS, initial_indent=indent, subsequent_indent=" " * 9, break_on_hyphens=False)


def _row(name: str, s: Setting) -> str:
    rough = (float(f"{value:.2g}") for value in (s.steps, s.samples))
    values = (round(s.batch), s.lr, *rough)
    powers = (s.point.mu, 0.0 - s.point.delta, s.point.theta, s.point.samples)
    cells = (f"{f'd^{power:g}':7}{_number(value):9}" for power, value in zip(powers, values, strict=True))
    return f"{name:13}{''.join(cells)}".rstrip()


def _number(value: float) -> str:
    """At least three digits in eight characters."""
    if 1000 <= value < 1e6:
        return f"{value:.0f}"
    return f"{value:.{4 if 0.1 <= value < 1000 else 3}g}"


def predict(
    problem: Problem,
    dim: int = DIM,
    algorithm: str | Sequence[str] | None = None,
    *,
    eta: float = ETA,
    prefactor: bool = True,
) -> Prediction:
    """Collect what theory says about a problem: exponents, what the student can learn, regions, optimal points.

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
        Its loss and constraint are replaced by those of each algorithm; a loss with an error of its own that none of
        these has is an algorithm more, under its own name.
    dim : int
        Input dimension ``d``.
    algorithm : str or sequence of str, optional
        Names of registered algorithms ("projected", "correlation", "spherical" ...); all by default.
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
        If the algorithm is unknown, `dim` or `eta` is out of range, or ``d^ℓ`` exceeds double precision.

    Examples
    --------
    >>> found = predict(Problem("he3", "he3"), 10**6)
    >>> found.exponent, found.algorithms["spherical"].condition
    (3, 'δ >= 1.5 - μ or μ >= 2')
    """
    as_problem(problem)
    dim, eta = check_dim(dim), check_eta(eta)
    algorithms = _algorithms(problem, algorithm)
    student = learnability(problem)
    sign = signal(Problem(problem.target, problem.student, problem.noise)).sign
    found: dict[str, AlgorithmPrediction] = {}
    notes = list(_notes(problem, student.exponent, tuple(algorithms), student)) if student.exponent and sign > 0 else []
    for name, changed in algorithms.items():
        rule = rule_of(changed.loss, changed.constraint)
        if rule is None:
            notes.append(f"{name}: no theory, as rows are not normalised")
            continue
        try:
            seen = signal(changed)
        except SpecificationError as error:
            notes.append(f"{name}: {error}")
            continue
        notes += [text for text in (seen.note,) if text]
        if seen.reason or seen.exponent is None:
            notes += _why_not(name, seen, changed)
            continue
        ell = seen.exponent
        if ell * math.log(dim) > 700:
            raise SpecificationError(f"dim = {dim} is too large for ℓ = {ell}: d^{ell} exceeds double precision")
        critical, trouble = _prefactor(changed, dim, eta) if prefactor else (None, None)
        notes += [trouble] if trouble else []
        found[name] = _algorithm_prediction(ell, rule, dim, eta, critical)
    if len({f.exponent for f in found.values()}) > 1:
        notes.append("ℓ is " + ", ".join(f"{f.exponent} ({name})" for name, f in found.items()))
    return Prediction(problem, dim, eta, student, sign, found, tuple(dict.fromkeys(notes)))


def _algorithms(problem: Problem, algorithm: str | Sequence[str] | None) -> dict[str, Problem]:
    """The problem with loss and constraint of each algorithm asked for, by name; its own beside them."""
    names = tuple(ALGORITHMS) if algorithm is None else (algorithm,) if isinstance(algorithm, str) else tuple(algorithm)
    problems = {name: with_algorithm(problem, name) for name in names}
    own = problem.phases[0]
    known = {(each.loss, each.constraint) for each in problems.values()}
    if algorithm is None and own.error is not None and (own.name, problem.constraint) not in known:
        problems[own.name] = Problem(problem.target, problem.student, problem.noise, own.name, problem.constraint)
    return problems


def _why_not(name: str, seen: Signal, problem: Problem) -> list[str]:
    """Why an algorithm has no weak recovery, where the page does not say so otherwise."""
    reason = seen.reason.removeprefix("no weak recovery: ")
    if problem.phases[0].error is not None:
        return [f"{name}: {reason}"]
    return [] if seen.exponent is None else [reason]


def _prefactor(problem: Problem, dim: int, eta: float) -> tuple[CriticalPrefactor | None, str | None]:
    try:
        return critical_prefactor(problem, dim, eta=eta), None
    except SpecificationError as error:
        return None, f"numbers are powers of d without prefactors: {error}"


def _algorithm_prediction(
    ell: int, rule: Rule, dim: int, eta: float, critical: CriticalPrefactor | None
) -> AlgorithmPrediction:
    name, c, stable = rule.name, max(ell, 2), rule.stable
    slope, log = f"δ + {c / 2 - 1:g}" if c > 2 else "δ", " log d" if ell == 2 else ""
    if stable:
        condition, time = f"δ >= {c / 2:g} - μ or μ >= {c - 1}", f"d^max(0, {slope}){log}"
    else:
        condition, time = f"δ >= max(0, {c / 2:g} - μ)", (f"d^({slope})" if c > 2 else "d^δ") + log
    point = optimal_point(ell, name)
    batch, lr = float(dim) ** point.mu, float(dim) ** -point.delta
    if critical is None:
        steps = float(dim) ** point.theta * (math.log(dim) if ell == 2 else 1.0)
    else:
        lr *= critical.reliable / 2
        rate = lr * critical.drift
        if not 0.0 < rate < math.inf:
            raise SpecificationError(
                f"the steps of {name} cannot be counted: a learning rate of {lr:.3g} times a drift of "
                f"{critical.drift:.3g} exceeds double precision; scale target, second layer or noise"
            )
        steps = max(1.0, _moves(ell, dim, eta, critical.reliable / critical.ratio / 2) / rate)
    optimal = Setting(point, batch, lr, steps, batch * steps)
    one_step = None
    if stable:
        giant = optimal_point(ell, name, one_step=True)
        n = float(dim) ** giant.mu
        one_step = Setting(giant, n, float(dim) ** -giant.delta / (critical.drift if critical else 1.0), 1.0, n)
    return AlgorithmPrediction(ell, condition, time, tuple(boundaries(ell, name)), optimal, one_step, critical)


def _moves(ell: int, dim: int, eta: float, fraction: float) -> float:
    """``γ b T`` of `predict` at the fraction F of the critical prefactor."""
    m0 = min(dim**-0.5, eta)
    if ell == 2:
        return math.log(eta / m0) / (1 - fraction)
    slowing = -math.log1p(-fraction) / fraction
    return slowing * (eta if ell == 1 else m0 ** (2 - ell) / (ell - 2))


def _notes(problem: Problem, ell: int, names: Sequence[str], student: Learnability) -> tuple[str, ...]:
    """What qualifies the predictions, as far as it does not depend on the dimension."""
    notes, orders = [], student.orders
    if ell == 1 and "projected" in names:
        notes.append(
            "ℓ = 1, projected: at δ < 0 and μ >= 1 one step reaches an overlap of order one, but it does not grow"
        )
    if ell == 2:
        notes.append("ℓ = 2: the log d is there for δ >= 0 only")
    later = student.leaps.index or ell
    if later > ell:
        notes.append(f"a later leap has exponent {later}: its own time scales as for ℓ = {later}")
    if ell % 2 and ell > 2:
        notes.append(f"ℓ = {ell} is odd: a unit whose initial overlap has the wrong sign does not recover")
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
