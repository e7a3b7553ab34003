"""The signal that a problem's mean gradient carries at initialisation: its order, its strength and its directions.

At independent unit rows (``Q = I``), row j with a small overlap m with a unit vector v of the teacher span, one step
moves that overlap on average by ``γ f(m)``.  With ``z = v·λ*`` and Stein's lemma

    f(m) = -E[c_j (z - m λ_j)] = (1 - m²) Σ_q m^q κ_q(v),      κ_q(v) = -E[c_j He_q(λ_j) He_{q+1}(z)]/q!,

the averages on the right at ``m = 0``.  The effective exponent ℓ is one more than the smallest q with κ_q ≠ 0, and the
drift coefficient is ``b = κ_{ℓ-1}``.  For the square and the correlation loss the average factors into Hermite
coefficients of activation and target, ``b = (a_j/p) μ_ℓ(σ)/(ℓ-1)! T_ℓ[v, ..., v]``, exact (`hdsgd.theory.leaps`).
A loss with an error of its own mixes orders: there κ_q is found by quadrature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.moments.quadrature import CoefficientSamples, coefficient_samples
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem
from hdsgd.theory.hermite import TOLERANCE, Floats, hermite_coefficients, strongest_direction
from hdsgd.theory.leaps import learnability

__all__ = ["Signal", "drifts", "effective_exponent", "signal"]

#: Highest exponent looked for by quadrature.
MAX_EXPONENT = 10
#: Largest relative change of a coefficient with the coarser rule at which it still counts as known.
RELIABLE = 0.1


@dataclass(frozen=True)
class Signal:
    """What pulls the rows at initialisation; from `signal`.

    Attributes
    ----------
    exponent : int or None
        Effective exponent ``ℓ``; None if there is no signal.
    drifts : ndarray of shape (p,)
        Drift coefficient ``b`` of each unit along the direction where it is largest: positive if that direction
        attracts, negative if all of them push away (even ``ℓ``).
    directions : ndarray of shape (p, k)
        Coordinates of these directions ``Σ_r c_r w*_r`` of unit norm.
    reason : str
        Why there is no weak recovery, where there is none.
    note : str
        How the exponent was found, where that limits what it says.
    """

    exponent: int | None
    drifts: Floats
    directions: Floats
    reason: str = ""
    note: str = ""

    @property
    def sign(self) -> int:
        """Sign of the signal for the unit that it favours most: 1 attracts, -1 pushes away; 0 without signal."""
        return 0 if self.exponent is None else 1 if self.drifts.max() > 0 else -1


def signal(problem: Problem) -> Signal:
    """The signal of a problem's own loss, of the first of two where it changes.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Signal

    Raises
    ------
    SpecificationError
        If the loss has an error of its own, and the quadrature takes too many points or cannot tell the exponent.

    Examples
    --------
    >>> from hdsgd import Problem
    >>> found = signal(Problem("he3", "he3"))
    >>> found.exponent, found.sign, found.drifts
    (3, 1, array([18.]))
    """
    if problem.phases[0].error is not None:
        found = _by_quadrature(problem, problem.phases[0])
    else:
        learnt = learnability(problem)
        if learnt.exponent is None:
            none = np.zeros(problem.p), np.zeros((problem.p, problem.k))
            return Signal(None, *none, reason=f"no weak recovery: {learnt.explanation}")
        found = Signal(learnt.exponent, *drifts(problem, learnt.exponent))
    if found.sign < 0:
        reason = (
            f"no weak recovery: at order {found.exponent} the signal has the wrong sign, it pushes every unit away "
            "from the target's directions"
        )
        if problem.phases[0].error is None:  # whose error is at most linear in the second layer, and its drift too
            reason += "; second-layer weights of the other sign would be pulled to them"
        return Signal(found.exponent, found.drifts, found.directions, reason, found.note)
    return found


def effective_exponent(problem: Problem) -> int | None:
    """The exponent ``ℓ`` that governs weak recovery of a problem with its own loss; None if nothing is learnt.

    For the square and the correlation loss the smallest ``q >= 1`` for which both ``μ_q(σ)`` and ``T_q`` are not zero.
    `signal` says more.

    Examples
    --------
    >>> from hdsgd import Problem
    >>> effective_exponent(Problem("z1 + he3(z1)", "he3")), effective_exponent(Problem("he3", "square"))
    (3, None)
    """
    return signal(problem).exponent


def drifts(problem: Problem, ell: int) -> tuple[Floats, Floats]:
    """Drift coefficients b (p,) of the units from Hermite coefficients, and the directions (p, k) of the largest."""
    a = problem.student.a
    mu = float(hermite_coefficients(problem.student.function, ell)[ell])
    values, directions = np.zeros(len(a)), np.zeros((len(a), problem.k))
    for sign in sorted({math.copysign(1.0, v * mu) for v in a if v}):
        value, direction = strongest_direction(problem.target, ell, sign)
        chosen = a * mu * sign > 0
        values[chosen] = value
        directions[chosen] = direction
    return np.abs(a * mu) / len(a) / math.factorial(ell - 1) * values, directions


# ---------------------------------------------------------------- losses with an error of their own


@lru_cache(maxsize=64)
def _by_quadrature(problem: Problem, loss: Loss) -> Signal:
    """The smallest order at which any unit has a signal, and its strongest direction among those examined."""
    fine, coarse = (coefficient_samples(problem, loss, coarse=c) for c in (False, True))
    p, root = problem.p, problem.target.gram_root
    size = np.sqrt((fine.c**2) @ fine.weights)
    note = f"loss {loss.name}: the signal was found by quadrature, up to order {MAX_EXPONENT}"
    if problem.k > 1:
        note += "; from order 3 on along single directions of the target only"
    for q in range(MAX_EXPONENT):
        frames = [_candidates(problem, q, fine, j) for j in range(p)]
        values = [_kappa(fine, q, j, frames[j]) for j in range(p)]
        bounds = size * math.sqrt(math.factorial(q + 1) / math.factorial(q))
        if all((np.abs(values[j]) <= TOLERANCE * bounds[j]).all() for j in range(p)):
            continue
        others = [_kappa(coarse, q, j, frames[j]) for j in range(p)]
        change = max(float(np.abs(values[j] - others[j]).max()) for j in range(p))
        largest = max(float(np.abs(values[j]).max()) for j in range(p))
        if change > RELIABLE * largest:
            raise SpecificationError(
                f"the exponent of loss {loss.name!r} cannot be told: its signal of order {q + 1}, {largest:.2g}, "
                f"changes by {change:.2g} with the number of quadrature points"
            )
        best = [int(np.argmax(v)) for v in values]
        drift = np.array([values[j][best[j]] for j in range(p)])
        drift[np.abs(drift) <= TOLERANCE * bounds] = 0.0
        coordinates = np.array([np.linalg.pinv(root.T) @ frames[j][best[j]] for j in range(p)])
        coordinates[np.abs(coordinates) < 1e-9] = 0.0
        if q % 2:  # of even order: both ways along a direction are the same
            first = np.argmax(coordinates != 0.0, axis=1)
            coordinates *= np.sign(coordinates[np.arange(p), first])[:, None]
        return Signal(q + 1, drift, coordinates, note=note)
    reason = f"no weak recovery: no signal up to order {MAX_EXPONENT} for loss {loss.name}"
    return Signal(None, np.zeros(p), np.zeros((p, problem.k)), reason, note)


def _candidates(problem: Problem, q: int, samples: CoefficientSamples, j: int) -> Floats:
    """Unit vectors, in orthonormal coordinates of the teacher span, among which the strongest is looked for."""
    root = problem.target.gram_root
    x, u, c = samples.u[j], samples.u[problem.p :], samples.c[j] * samples.weights
    axes = root / np.linalg.norm(root, axis=1, keepdims=True)
    if q == 0:
        gradient = -(u @ c)
        length = float(np.linalg.norm(gradient))
        return gradient[None] / length if length > 0 else axes
    if q == 1:
        hessian = -((u * (c * x)) @ u.T - np.eye(len(u)) * float(c @ x))
        span = np.linalg.svd(root.T)[0][:, : np.linalg.matrix_rank(root)]
        vectors = np.linalg.eigh(span.T @ hessian @ span)[1]
        return np.asarray((span @ vectors).T)
    return np.concatenate([axes, -axes])


def _kappa(samples: CoefficientSamples, q: int, j: int, frame: Floats) -> Floats:
    """``κ_q`` of unit j along unit vectors (n, k)."""
    hermite = np.polynomial.hermite_e.hermeval
    c = samples.c[j] * samples.weights * hermite(samples.u[j], [0.0] * q + [1.0])
    z = frame @ samples.u[len(samples.c) :]
    return np.asarray(-(hermite(z, [0.0] * (q + 1) + [1.0]) @ c) / math.factorial(q))
