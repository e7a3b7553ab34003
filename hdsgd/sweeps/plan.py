"""The plan of a phase diagram: its algorithms with their prefactors, and how many steps each cell may take."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.engines import is_exact
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import population_moments
from hdsgd.policies import Plane
from hdsgd.problem.constraints import ALGORITHMS, CONSTRAINTS, Algorithm
from hdsgd.problem.initial import Initial
from hdsgd.problem.losses import phases_of
from hdsgd.problem.model import Problem
from hdsgd.problem.scaling import batch_size, learning_rate
from hdsgd.theory.phases import algorithm_of
from hdsgd.theory.prefactors import CriticalPrefactor, critical_prefactor, drift_time

__all__ = ["Grid", "Plan", "automatic_initial", "automatic_n0", "find_algorithms", "in_order", "make_grid", "make_plan"]

logger = logging.getLogger("hdsgd")

#: Size of the overlap from which the drift starts, in units of d^-1/2, where it depends on it (ℓ >= 3).  Near the
#: critical line noise redraws the overlap from N(0, 1/d) while a run waits, and the drift takes off from the largest of
#: these: 2.3 is the median of the largest of 30.
START_SIZE = 2.3
#: ``max_steps="auto"``: this many times the steps that the drift alone would need, and a few more.
PATIENCE = 10.0
EXTRA_STEPS = 20
MAX_STEPS = 10**18


class Plan(NamedTuple):
    """One algorithm of a phase diagram, with the numbers that were chosen for it."""

    name: str
    problem: Problem
    n0: float
    gamma0: float
    drift: float  # coefficient b of `hdsgd.theory.prefactors.CriticalPrefactor`
    exponent: int


def in_order(names: Iterable[str]) -> list[str]:
    """Names of algorithms in the order of results: those that come with hdsgd as they are listed, others by alphabet.

    Examples
    --------
    >>> in_order(["mine", "spherical", "another", "projected"])
    ['projected', 'spherical', 'another', 'mine']
    """
    listed = [name for name in ALGORITHMS if ALGORITHMS.is_own(name)]
    return sorted(names, key=lambda name: (listed.index(name) if name in listed else len(listed), name))


def find_algorithms(algorithms: Iterable[str | Algorithm]) -> list[Algorithm]:
    """Algorithms from their names or records, each once.

    Raises
    ------
    SpecificationError
        If there is none, a name is unknown, or two have the same name.
    """
    if isinstance(algorithms, str | Algorithm) or not isinstance(algorithms, Iterable):
        algorithms = [algorithms]
    found = list(dict.fromkeys(x if isinstance(x, Algorithm) else ALGORITHMS[x] for x in algorithms))
    if not found:
        raise SpecificationError(f"name at least one algorithm of {', '.join(ALGORITHMS)}")
    if len({x.name for x in found}) < len(found):
        raise SpecificationError("two algorithms have the same name; give each its own")
    return found


def make_plan(problem: Problem, algorithm: Algorithm, plane: Plane, eta: float) -> Plan:
    """An algorithm with its prefactors; those that are "auto" are chosen, and said.

    Raises
    ------
    SpecificationError
        If there is no weak recovery to be had.
    """
    problem = replace(problem, loss=algorithm.loss, constraint=algorithm.constraint)
    critical = critical_prefactor(problem, eta=eta, size=START_SIZE)
    automatic = [what for what in ("n0", "gamma0") if getattr(plane, what) == "auto"]
    n0 = automatic_n0(problem, critical, eta) if isinstance(plane.n0, str) else plane.n0
    gamma0 = 0.5 * critical.ratio * n0 if isinstance(plane.gamma0, str) else plane.gamma0
    if automatic:
        logger.info("%s: n0 = %.4g, gamma0 = %.4g (%s auto)", algorithm.name, n0, gamma0, " and ".join(automatic))
    return Plan(algorithm.name, problem, n0, gamma0, critical.drift, critical.exponent)


def automatic_n0(problem: Problem, critical: CriticalPrefactor, eta: float) -> float:
    """Prefactor of the batch size that puts the corner of the finite-d boundary at that of the asymptotic one.

    - correlation and spherical: ``n0 d^(c-1)`` is the batch from which on steps of any size enlarge the overlap m of
      a row with its best direction, from its start almost up to η.  A giant step leaves the normalised gradient, so the
      condition is ``S² > m² (G + D_jj d/n_b)``: ``-S`` is the gradient's mean component along the direction and
      ``G = A Ω⁻¹ Aᵀ`` its mean's squared norm (both without the radial part if the step is tangential).
    - projected: ``n0 d^(c/2)`` is the batch at which the critical learning rate of theory §5 reaches the largest stable
      one, ``2/(2 A_jj - b)`` for ℓ = 2 and ``1/A_jj`` beyond: the normalised mean step then stops enlarging m.

    He2/He2, p = 1: 3 (projected, spherical) and 1/2 (correlation).  1 where neither happens.
    """
    p, ell, j = problem.p, critical.exponent, critical.unit
    loss = phases_of(problem.loss)[0].name
    direction = np.array(critical.direction)
    if algorithm_of(problem) == "projected":
        own = float(population_moments(problem, np.eye(p), np.zeros((p, problem.k)), loss).A[j, j])
        stable = 2 * own - critical.drift if ell == 2 else 2 * own
        return float(2 / stable / critical.ratio) if stable > 0 else 1.0
    if ell > 2:
        return float(critical.noise / (critical.drift * START_SIZE ** (ell - 2)) ** 2)
    # Fluctuations of the steps carry the overlap the last quarter of the way.
    m = np.geomspace(0.01, 0.75 * eta, 25) if ell == 2 else np.array([eta])
    M = np.zeros((len(m), p, problem.k))
    M[:, j] = m[:, None] * (problem.target.P @ direction)
    moments = population_moments(problem, np.eye(p), M, loss)
    omega = np.zeros((len(m), p + problem.k, p + problem.k))
    omega[:, :p, :p], omega[:, p:, p:] = np.eye(p), problem.target.P
    omega[:, :p, p:], omega[:, p:, :p] = M, M.transpose(0, 2, 1)
    A = moments.A[:, j]
    signal = -A[:, p:] @ direction
    square = np.einsum("ma,mab,mb->m", A, np.linalg.pinv(omega, hermitian=True), A)
    if CONSTRAINTS[problem.constraint].tangential:
        signal, square = signal + A[:, j] * m, square - A[:, j] ** 2
    excess = (signal / m) ** 2 - square
    return float((moments.D[:, j, j] / excess).max()) if (excess > 0).all() else 1.0


def automatic_initial(initial: Initial | str | None, plans: Sequence[Plan]) -> Initial:
    """The start: random rows unless another is given, or an odd exponent asks for positive ones."""
    if isinstance(initial, Initial):
        return initial
    if initial is not None:
        return Initial(initial)
    if any(plan.exponent % 2 and plan.exponent > 1 for plan in plans):
        logger.info("initial rows: positive overlaps (the exponent is odd, so that the sign of the overlap decides)")
        return Initial("positive")
    return Initial()


class Grid(NamedTuple):
    """The numbers of the cells, along algorithm, dim, mu and delta."""

    batch: NDArray[np.int64]  # (algorithm, dim, mu)
    lr: NDArray[np.float64]  # (algorithm, dim, delta)
    predicted: NDArray[np.float64]  # (algorithm, dim, mu, delta) steps by the drift alone
    allowed: NDArray[np.int64]  # (algorithm, dim, mu, delta) step budget; 0: left out as too costly


def make_grid(plans: Sequence[Plan], specification: Mapping[str, Any]) -> Grid:
    """The cells of a phase diagram from its specification.

    Raises
    ------
    SpecificationError
        If a batch size or a learning rate is out of range.
    """
    dims, mu, delta = (specification[name] for name in ("dims", "mu", "delta"))
    batch = np.array([[[batch_size(dim, x, plan.n0) for x in mu] for dim in dims] for plan in plans], dtype=np.int64)
    lr = np.array([[[learning_rate(dim, x, plan.gamma0) for x in delta] for dim in dims] for plan in plans])
    times = np.empty(lr.shape)
    for a, n, j in np.ndindex(lr.shape):
        rate = float(lr[a, n, j]) * plans[a].drift
        times[a, n, j] = drift_time(plans[a].exponent, rate, dims[n], specification["eta"])
    predicted = np.ascontiguousarray(np.broadcast_to(times[:, :, None, :], (*batch.shape, len(delta))))
    wanted = steps_wanted(predicted, specification["max_steps"])
    if not is_exact(specification["engine"]):
        return Grid(batch, lr, predicted, wanted)
    # The cost of an exact engine is known: cells for which it is too much are left out.  A few steps are always worth
    # trying (one giant step may do), but a run that is cut before its time is not.
    most = np.trunc(specification["max_cost"] / batch)[..., None]
    left_out = most < np.minimum(wanted, predicted + 1)
    allowed = np.where(left_out, 0, np.minimum(wanted, np.minimum(most, 2.0**62).astype(np.int64)))
    return Grid(batch, lr, predicted, allowed)


def steps_wanted(predicted: NDArray[np.float64], max_steps: int | str) -> NDArray[np.int64]:
    """Steps that a run may take if its cost does not matter."""
    if not isinstance(max_steps, str):
        return np.full(predicted.shape, max_steps, dtype=np.int64)
    return np.ceil(np.minimum(PATIENCE * predicted + EXTRA_STEPS, MAX_STEPS)).astype(np.int64)


def steps_telling(predicted: float, max_steps: int | str) -> float:
    """Steps after which not having recovered means something."""
    return min(int(steps_wanted(np.asarray(predicted), max_steps)), 4 * predicted + EXTRA_STEPS / 2)
