"""Prefactors and times of weak recovery from the balance of drift and shrinkage (theory §3 to §5)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hdsgd.checks import check_dim, check_eta, finite
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import population_moments
from hdsgd.policies import ETA, Scaling
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.model import Problem, as_problem
from hdsgd.problem.scaling import batch_size, learning_rate
from hdsgd.theory.rules import with_algorithm
from hdsgd.theory.signals import signal

__all__ = [
    "CriticalPrefactor",
    "Resolved",
    "critical_prefactor",
    "critical_prefactors",
    "drift_time",
    "resolve_gamma0",
    "resolve_scaling",
]

logger = logging.getLogger("hdsgd")


@dataclass(frozen=True)
class CriticalPrefactor:
    """Where drift and shrinkage balance at initialisation; see `critical_prefactor`.

    Attributes
    ----------
    ratio : float
        Critical ``γ0/n0`` on the line ``δ = c/2 - μ``, ``c = max(ℓ, 2)``.
    exponent : int
        Effective exponent ``ℓ``.
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

    (for either loss; others: `hdsgd.theory.signals`), and normalisation shrinks it by ``½γ² (d/n_b) D_jj m``.  At the
    typical initial overlap ``m = s d^(-1/2)``, and for ``ℓ = 1`` at the threshold ``m = η``, these are equal at

        γ0/n0 = 2 b s^(ℓ-2)/D_jj   (ℓ >= 2),        γ0/n0 = 2 b/(η D_jj)   (ℓ = 1).

    v is the direction with the largest drift, j the unit with the largest ratio, ``D`` at ``Q = I``, ``M = 0``.
    He2/He2, p = 1, no noise: square loss ``b = 4``, ``D = 48``, ratio 1/6; correlation loss ``b = 4``, ``D = 8``,
    ratio 1.

    At a ratio between `sustained` and `ratio` the overlap leaves its initial size but stops short of η on that line
    (for ``ℓ <= 2``): He2/He2 with the correlation loss has ratio 1 but sustains η = 0.5 only up to 0.375.

    Parameters
    ----------
    problem : Problem
        A loss that changes counts as the first of the two (adaptive: correlation); constraint "none" as projected.
    dim : int, optional
        If given, `sustained` is computed too: the smallest ``2 f(m) d^(c/2-1)/(m D_jj(m))`` over overlaps from
        ``s d^(-1/2)`` to ``η``, ``f`` and ``D`` being the population moments at ``Q = I`` and overlap m of row j alone.
    eta : float
        Recovery threshold ``η`` in (0, 1).
    size : float
        ``s``, size of the initial overlap in units of ``d^(-1/2)``.

    Returns
    -------
    CriticalPrefactor

    Raises
    ------
    SpecificationError
        If nothing is learnt, if the signal has the wrong sign for every unit (an even ``ℓ`` with second-layer weights
        of the other sign), or the moments of this problem are not supported.

    Notes
    -----
    Theory §3 to §5.

    Examples
    --------
    >>> critical = critical_prefactor(Problem("he2", "he2", loss="correlation"), 10**6)
    >>> round(critical.ratio, 9), round(critical.sustained, 9)
    (1.0, 0.375)
    """
    as_problem(problem)
    eta = check_eta(eta)
    size = finite("size", size, low=0.0, open_low=True)
    if dim is not None:
        dim = check_dim(dim)
    found = signal(problem)
    if found.reason or found.exponent is None:
        raise SpecificationError(found.reason)
    ell, pulls, directions = found.exponent, found.drifts, found.directions
    p, k, loss = problem.p, problem.k, problem.phases[0].name
    noise = np.diag(population_moments(problem, np.eye(p), np.zeros((p, k)), loss).D)
    # A unit with weight zero has neither drift nor noise.
    ratios = np.divide(2 * pulls, noise, out=np.zeros(p), where=noise > 0) * (
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
    return CriticalPrefactor(float(ratios[j]), ell, float(pulls[j]), float(noise[j]), j, direction, sustained)


def critical_prefactors(
    problem: Problem, algorithms: Sequence[str] | str | None = None, dim: int | None = None, *, eta: float = ETA
) -> dict[str, CriticalPrefactor]:
    """`critical_prefactor` of a problem with the loss and constraint of each named algorithm.

    Parameters
    ----------
    problem : Problem
    algorithms : str or sequence of str, optional
        Names; all by default.
    dim : int, optional
        With it `CriticalPrefactor.sustained` is found too.
    eta : float
        Recovery threshold ``η``.

    Returns
    -------
    dict from name to CriticalPrefactor

    Raises
    ------
    SpecificationError
        As `critical_prefactor`, or if an algorithm is unknown.

    Examples
    --------
    >>> found = critical_prefactors(Problem("he2", "he2"))
    >>> {name: round(each.ratio, 4) for name, each in found.items()}
    {'projected': 0.1667, 'correlation': 1.0, 'spherical': 0.1667}
    """
    as_problem(problem)
    names = tuple(ALGORITHMS) if algorithms is None else (algorithms,) if isinstance(algorithms, str) else algorithms
    return {name: critical_prefactor(with_algorithm(problem, name), dim, eta=eta) for name in names}


def drift_time(exponent: int, rate: float, dim: int, eta: float) -> float:
    """Steps in which ``dm/dstep = rate · m^(ℓ-1)`` takes m from ``d^-1/2`` to η (theory §5).

    Parameters
    ----------
    exponent : int
        ``ℓ``.
    rate : float
        ``γ b`` with the drift coefficient b of `hdsgd.theory.prefactors.critical_prefactor`.

    Examples
    --------
    >>> round(drift_time(1, 0.01, 10**6, 0.5), 3)
    49.9
    """
    m0 = min(dim**-0.5, eta)
    if exponent == 1:
        return (eta - m0) / rate
    if exponent == 2:
        return math.log(eta / m0) / rate
    return float(m0 ** (2 - exponent) - eta ** (2 - exponent)) / ((exponent - 2) * rate)


class Resolved(NamedTuple):
    """A `hdsgd.policies.Scaling` at one dimension, in numbers."""

    batch: int  # n_b
    lr: float  # γ
    scaling: dict[str, Any]  # exponents and prefactors used; empty where the number was given directly


def resolve_gamma0(problem: Problem, scaling: Scaling, eta: float = ETA) -> float:
    """Prefactor ``γ0`` of the learning rate; "auto" is half the critical one at initialisation.

    Parameters
    ----------
    problem : Problem
    scaling : Scaling
    eta : float
        Threshold of weak recovery.

    Raises
    ------
    SpecificationError
        If it is to be found and there is none.

    Examples
    --------
    >>> round(resolve_gamma0(Problem("he2", "he2"), Scaling()), 4)
    0.0833
    """
    if not isinstance(scaling.gamma0, str):
        return scaling.gamma0
    gamma0 = 0.5 * scaling.n0 * critical_prefactor(problem, eta=eta).ratio
    logger.info("gamma0 = %.6g (half the critical prefactor at initialisation)", gamma0)
    return finite("gamma0", gamma0, low=0.0, open_low=True)


def resolve_scaling(problem: Problem, dim: int, scaling: Scaling, eta: float = ETA) -> Resolved:
    """Batch size and learning rate at one dimension.

    Parameters
    ----------
    problem : Problem
        Of which "auto" takes the critical prefactor.
    dim : int
        Input dimension ``d``.
    scaling : Scaling
    eta : float
        Threshold of weak recovery.

    Returns
    -------
    Resolved

    Raises
    ------
    SpecificationError
        If a number is out of range, or ``γ0`` is to be found and there is no critical prefactor.

    Examples
    --------
    >>> resolve_scaling(Problem("he2", "he2"), 100, Scaling(mu=1.5, delta=0.5, gamma0=2))
    Resolved(batch=1000, lr=0.2, scaling={'mu': 1.5, 'n0': 1.0, 'delta': 0.5, 'gamma0': 2.0})
    """
    used: dict[str, Any] = {}
    batch, lr = scaling.batch, scaling.lr
    if batch is None:
        mu = 1.0 if scaling.mu is None else scaling.mu
        batch = batch_size(dim, mu, scaling.n0)
        used |= {"mu": mu, "n0": scaling.n0}
    if lr is None:
        delta, gamma0 = 0.0 if scaling.delta is None else scaling.delta, resolve_gamma0(problem, scaling, eta)
        lr = learning_rate(dim, delta, gamma0)
        used |= {"delta": delta, "gamma0": gamma0}
    return Resolved(batch, lr, used)
