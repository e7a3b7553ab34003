"""Phase diagrams: the weak-recovery time over the (μ, δ) plane, cell by cell."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError, choice
from hdsgd.initial import Initial
from hdsgd.model import ALGORITHMS, Problem, check_eta, finite, whole
from hdsgd.moments import population_moments
from hdsgd.parallel import Watch, count_threads, run_tasks
from hdsgd.scaling import batch_size, check_dim, learning_rate
from hdsgd.schema import STATUS, finish
from hdsgd.simulation import Cell, progress_bar
from hdsgd.theory import CriticalPrefactor, algorithm_of, critical_prefactor, exponent

__all__ = ["agreement", "cell_edges", "cell_times", "drift_time", "phase_diagram", "theory_row"]

logger = logging.getLogger("hdsgd")

#: ``--max-steps auto``: this many times the steps that the drift alone would need, and a few more.
PATIENCE = 10.0
EXTRA_STEPS = 20
MAX_STEPS = 10**7
#: Size of the overlap from which the drift starts, in units of d^-1/2, where it depends on it (ℓ >= 3).  Near the
#: critical line noise redraws the overlap from N(0, 1/d) while a run waits, and the drift takes off from the largest of
#: these: 2.3 is the median of the largest of 30.
START_SIZE = 2.3
MAX_SAMPLES = 1e7


def drift_time(exponent: int, rate: float, dim: int, eta: float) -> float:
    """Steps in which ``dm/dstep = rate · m^(ℓ-1)`` takes m from ``d^-1/2`` to η (theory §5).

    Parameters
    ----------
    exponent : int
        ``ℓ``.
    rate : float
        ``γ b`` with the drift coefficient b of `hdsgd.theory.critical_prefactor`.
    """
    m0 = min(dim**-0.5, eta)
    if exponent == 1:
        return (eta - m0) / rate
    if exponent == 2:
        return math.log(eta / m0) / rate
    return float(m0 ** (2 - exponent) - eta ** (2 - exponent)) / ((exponent - 2) * rate)


class _Plan(NamedTuple):
    """One algorithm of the sweep."""

    label: str
    problem: Problem
    n0: float
    gamma0: float
    drift: float  # coefficient b, nan where there is no prediction
    exponent: int


def phase_diagram(
    problem: Problem,
    *,
    dim: int = 1000,
    mu: Sequence[float] = tuple(np.linspace(0, 2, 21).round(12)),
    delta: Sequence[float] = tuple(np.linspace(-1, 1.5, 26).round(12)),
    algorithms: Sequence[str] = tuple(ALGORITHMS),
    loss: str | None = None,
    constraint: str | None = None,
    n0: float | str = "auto",
    gamma0: float | str = "auto",
    initial: Initial | str | None = None,
    eta: float = 0.5,
    replicas: int = 8,
    max_steps: int | str = "auto",
    max_samples: float = MAX_SAMPLES,
    engine: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Simulate every cell of a (μ, δ) grid until it recovers or its steps are spent.

    Parameters
    ----------
    problem : Problem
        Target, student and noise; its loss and constraint are replaced by those of each algorithm.
    dim : int
        Input dimension ``d``.
    mu, delta : sequence of float
        Exponents: ``n_b = max(1, round(n0 d^μ))``, ``γ = γ0 d^-δ``; distinct, put in increasing order.
    algorithms : sequence of str
        Of "projected", "correlation", "spherical".
    loss, constraint : str, optional
        Override that half of every algorithm.
    n0, gamma0 : float or "auto"
        "auto": for each algorithm the batch size at which giant steps begin to work (or, projected, at which stable
        steps are as large as they get), and half the critical learning rate at initialisation, so that the boundary
        measured at finite d lies on the asymptotic lines and not beside them (`hdsgd.theory.critical_prefactor`).
    initial : Initial or str, optional
        By default random rows, or, where an odd exponent ℓ >= 3 makes the sign of the overlap decisive, positive ones.
    eta : float
        Threshold of weak recovery.
    replicas : int
    max_steps : int or "auto"
        "auto": ten times the steps that the drift alone would need in this cell (and at least 20).
    max_samples : float
        Most samples ``n_b T`` a run may draw.  A cell that the drift alone would take beyond this is not begun, and
        marked as unaffordable: it says nothing.
    engine, seed, threads, progress
        As in `hdsgd.simulate`.

    Returns
    -------
    xarray.Dataset
        Dims ``algorithm, mu, delta, replica``; variables ``recovery_time``, ``recovered``, ``status``,
        ``steps_allowed``, ``predicted_time``; coordinates ``batch (algorithm, mu)`` and ``lr (algorithm, delta)``.
        Cells that raise are recorded as failed, their messages in the attribute ``errors``.

    Raises
    ------
    SpecificationError
        On any request that cannot be carried out, before anything is computed.
    """
    from hdsgd._compile import announced_compilation

    started = time.perf_counter()
    dim, eta, replicas = check_dim(dim), check_eta(eta), whole("replicas", replicas, low=1)
    threads, seed = count_threads(threads), whole("seed", seed)
    if max_steps != "auto":
        max_steps = whole("max_steps", max_steps, low=1)
    max_samples = finite("max_samples", max_samples, low=1.0)
    mu, delta = _axis("mu", mu), _axis("delta", delta)
    if not algorithms:
        raise SpecificationError(f"name at least one algorithm of {', '.join(ALGORITHMS)}")
    with announced_compilation():
        plans = [
            _plan(problem, name, loss, constraint, n0=n0, gamma0=gamma0, eta=eta) for name in dict.fromkeys(algorithms)
        ]
        initial = _initial(initial, plans)
        batches = np.array([[batch_size(dim, x, plan.n0) for x in mu] for plan in plans], dtype=np.int64)
        rates = np.array([[learning_rate(dim, x, plan.gamma0) for x in delta] for plan in plans])
        # One cell made ahead of the sweep reports an unfit engine, initial law or dimension as a user's error.
        for a, plan in enumerate(plans):
            Cell(
                plan.problem, dim=dim, batch=int(batches[a, 0]), lr=rates[a, 0], initial=initial, eta=eta, engine=engine
            )
        shape = (len(plans), len(mu), len(delta))
        predicted, allowed = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
        affordable = np.ones(shape, dtype=bool)
        for a, i, j in np.ndindex(shape):
            plan = plans[a]
            predicted[a, i, j] = drift_time(plan.exponent, float(rates[a, j]) * plan.drift, dim, eta)
            allowed[a, i, j], affordable[a, i, j] = _steps_allowed(
                float(predicted[a, i, j]), int(batches[a, i]), max_steps, max_samples
            )
        sweep = _Sweep(plans, dim, batches, rates, initial, eta, engine, seed, allowed, affordable, replicas)
        if max_steps == "auto":
            begun = allowed[allowed > 0]
            logger.info(
                "max-steps auto: %d to %d steps a run, at most %.3g samples; %d of %d cells cost more and are left out",
                begun.min(initial=MAX_STEPS),
                begun.max(initial=0),
                max_samples,
                int((allowed == 0).sum()),
                allowed.size,
            )
        sweep.run(threads, progress)
    dataset = xr.Dataset(
        {
            "recovery_time": (("algorithm", "mu", "delta", "replica"), sweep.time),
            "recovered": (("algorithm", "mu", "delta", "replica"), sweep.recovered),
            "status": (("algorithm", "mu", "delta", "replica"), sweep.status),
            "steps_allowed": (("algorithm", "mu", "delta"), allowed),
            "predicted_time": (("algorithm", "mu", "delta"), predicted),
        },
        coords={
            "algorithm": [plan.label for plan in plans],
            "mu": mu,
            "delta": delta,
            "replica": np.arange(replicas),
            "batch": (("algorithm", "mu"), batches),
            "lr": (("algorithm", "delta"), rates),
        },
    )
    specification = {
        "problem": problem.to_dict(),
        "algorithms": {
            plan.label: {
                "loss": plan.problem.loss,
                "constraint": plan.problem.constraint,
                "n0": plan.n0,
                "gamma0": plan.gamma0,
                "exponent": plan.exponent,
            }
            for plan in plans
        },
        "dim": dim, "mu": mu, "delta": delta, "initial": initial.to_dict(), "eta": eta,
        "replicas": replicas, "max_steps": max_steps, "max_samples": max_samples, "engine": engine, "seed": seed,
    }  # fmt: skip
    timings = {"total_seconds": time.perf_counter() - started}
    dataset = finish(dataset, "phase-diagram", specification, seed, timings)
    dataset.attrs["errors"] = json.dumps(sweep.errors)
    return dataset


def _axis(name: str, values: Sequence[float]) -> list[float]:
    axis = sorted(finite(name, value) for value in np.atleast_1d(np.asarray(values, dtype=object)))
    if not axis:
        raise SpecificationError(f"{name} needs at least one value")
    if len(set(axis)) < len(axis):
        raise SpecificationError(f"{name} holds the same value twice")
    return axis


def _plan(
    problem: Problem,
    name: str,
    loss: str | None,
    constraint: str | None,
    *,
    n0: float | str,
    gamma0: float | str,
    eta: float,
) -> _Plan:
    rule = ALGORITHMS[choice("algorithm", name, ALGORITHMS)]
    problem = replace(problem, loss=loss or rule[0], constraint=constraint or rule[1])
    critical = critical_prefactor(problem, eta=eta, size=START_SIZE)
    automatic = [what for what, value in (("n0", n0), ("gamma0", gamma0)) if value == "auto"]
    n0 = corner_batch(problem, critical, eta) if n0 == "auto" else finite("n0", n0, low=0.0, open_low=True)
    gamma0 = 0.5 * critical.ratio * n0 if gamma0 == "auto" else finite("gamma0", gamma0, low=0.0, open_low=True)
    if automatic:
        logger.info("%s: n0 = %.4g, gamma0 = %.4g (%s auto)", name, n0, gamma0, " and ".join(automatic))
    return _Plan(name, problem, n0, gamma0, critical.drift, critical.exponent)


def corner_batch(problem: Problem, critical: CriticalPrefactor, eta: float) -> float:
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
    loss = "square" if problem.loss == "square" else "correlation"
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
    if problem.constraint == "spherical":
        signal, square = signal + A[:, j] * m, square - A[:, j] ** 2
    room = (signal / m) ** 2 - square
    return float((moments.D[:, j, j] / room).max()) if (room > 0).all() else 1.0


def _initial(initial: Initial | str | None, plans: Sequence[_Plan]) -> Initial:
    if isinstance(initial, Initial):
        return initial
    if initial is not None:
        return Initial(initial)
    if any(plan.exponent % 2 and plan.exponent > 1 for plan in plans):
        logger.info("initial rows: positive overlaps (the exponent is odd, so that the sign of the overlap decides)")
        return Initial("positive")
    return Initial()


def _steps_allowed(predicted: float, batch: int, max_steps: int | str, max_samples: float) -> tuple[int, bool]:
    """Step budget of a cell, and whether spending it without recovery means something."""
    wanted = min(math.ceil(PATIENCE * predicted) + EXTRA_STEPS, MAX_STEPS) if isinstance(max_steps, str) else max_steps
    most = int(max_samples / batch)
    # A few steps are always worth trying (one giant step may do), but a run that is cut before its time is not.
    if most < min(wanted, predicted + 1):
        return 0, False
    return min(wanted, most), most >= min(wanted, 4 * predicted + EXTRA_STEPS / 2)


class _Sweep:
    """The runs of a phase diagram and the arrays they fill, each at its own place."""

    def __init__(
        self,
        plans: Sequence[_Plan],
        dim: int,
        batches: NDArray[np.int64],
        rates: NDArray[np.float64],
        initial: Initial,
        eta: float,
        engine: str,
        seed: int,
        allowed: NDArray[np.int64],
        affordable: NDArray[np.bool_],
        replicas: int,
    ) -> None:
        self.plans, self.dim, self.batches, self.rates = plans, dim, batches, rates
        self.initial, self.eta, self.engine, self.seed = initial, eta, engine, seed
        self.allowed, self.affordable, self.replicas = allowed, affordable, replicas
        shape = (*allowed.shape, replicas)
        self.time = np.zeros(shape, dtype=np.int64)
        self.recovered = np.zeros(shape, dtype=bool)
        self.status = np.full(shape, STATUS["unaffordable"], dtype=np.int8)
        self.errors: dict[str, str] = {}

    def run(self, threads: int, progress: bool) -> None:
        """Run all cells, the most expensive first, so that none is left over at the end."""
        cost = self.allowed * self.batches[:, :, None].astype(np.float64)
        order = [index for index in np.ndindex(self.allowed.shape) if self.allowed[index]]
        order.sort(key=lambda index: -cost[index])
        watch = Watch()

        def tasks() -> Any:
            for a, i, j in order:
                yield self._task(a, i, j, watch)

        with progress_bar(len(order), "cells", progress) as advance:
            try:
                run_tasks(tasks(), threads, watch, lambda: advance(1))
            except KeyboardInterrupt:
                done = int((self.status[..., -1] != STATUS["unaffordable"]).sum())
                raise KeyboardInterrupt(
                    f"interrupted after {done} of {len(order)} cells; nothing was written, and these cells are lost"
                ) from None

    def _task(self, a: int, i: int, j: int, watch: Watch) -> Callable[[], None]:
        def task() -> None:
            from hdsgd.engines.base import Cancelled

            try:
                self._cell(a, i, j, watch)
            except Cancelled:
                raise
            except Exception as error:  # a failed cell never kills a sweep
                self.status[a, i, j] = STATUS["failed"]
                self.errors[f"{a},{i},{j}"] = f"{type(error).__name__}: {error}"

        return task

    def _cell(self, a: int, i: int, j: int, watch: Watch) -> None:
        plan = self.plans[a]
        cell = Cell(
            plan.problem,
            dim=self.dim,
            batch=int(self.batches[a, i]),
            lr=float(self.rates[a, j]),
            initial=self.initial,
            eta=self.eta,
            engine=self.engine,
            seed=self.seed,
        )
        for r in range(self.replicas):
            run = cell.replica(r)
            watch.add(run)
            run.advance(int(self.allowed[a, i, j]), stop_at_recovery=True)
            watch.remove(run)
            recovered = run.recovery_step is not None
            self.recovered[a, i, j, r] = recovered
            self.time[a, i, j, r] = run.recovery_step if recovered else run.step
            if recovered:
                status = "ok"
            elif run.diverged:
                status = "diverged"
            else:
                status = "censored" if self.affordable[a, i, j] else "unaffordable"
            self.status[a, i, j, r] = STATUS[status]


def cell_times(panel: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """What became of each cell of one algorithm's panel.

    Parameters
    ----------
    panel : xarray.Dataset
        Dims ``mu, delta, replica``.

    Returns
    -------
    time : ndarray of shape (mu, delta)
        Median recovery time over replicas, censored runs counting as infinite; inf where the median is censored.
    kind : ndarray of str of shape (mu, delta)
        "recovered" where the median is finite, else what became of most of the other replicas: "censored",
        "unaffordable", "diverged" or "failed".
    """
    panel = panel.transpose("mu", "delta", "replica")
    times = np.where(panel["recovered"].values, panel["recovery_time"].values, np.inf)
    median = np.quantile(times, 0.5, axis=-1, method="inverted_cdf")
    counts = {name: (panel["status"].values == code).sum(axis=-1) for name, code in STATUS.items() if name != "ok"}
    names = np.array(list(counts))
    kind = names[np.argmax(np.stack(list(counts.values())), axis=0)]
    return median, np.where(np.isfinite(median), "recovered", kind)


def agreement(dataset: xr.Dataset, algorithm: str) -> dict[str, int] | None:
    """How the cells of one algorithm compare with the boundary of theory §5, leaving out those that touch the line.

    Returns
    -------
    dict or None
        Counts ``agree``, ``disagree``, ``touching`` and ``unaffordable``; None where there is no theory.
    """
    spec = json.loads(dataset.attrs["specification"])
    row = theory_row(spec, algorithm)
    if row is None:
        return None
    ell = spec["algorithms"][algorithm]["exponent"]
    panel = dataset.sel(algorithm=algorithm)
    # A batch holds at least one sample: below this exponent every cell has the batch of n_b = 1.
    least = -math.log(spec["algorithms"][algorithm]["n0"]) / math.log(spec["dim"])
    centres = np.maximum(panel["mu"].values, least)
    mu, delta = np.maximum(cell_edges(panel["mu"].values), least), cell_edges(panel["delta"].values)
    learns = np.isfinite(exponent(centres[:, None], panel["delta"].values[None, :], ell, row))
    at_corners = np.isfinite(exponent(mu[:, None], delta[None, :], ell, row))
    corners = [at_corners[i : i + len(mu) - 1, j : j + len(delta) - 1] for i in (0, 1) for j in (0, 1)]
    touching = np.any([corner != learns for corner in corners], axis=0)
    _, kind = cell_times(panel)
    unaffordable = (kind == "unaffordable") & ~touching
    counted = ~touching & ~unaffordable
    agree = (kind == "recovered") == learns
    return {
        "agree": int((agree & counted).sum()),
        "disagree": int((~agree & counted).sum()),
        "touching": int(touching.sum()),
        "unaffordable": int(unaffordable.sum()),
    }


def theory_row(specification: Mapping[str, Any], algorithm: str) -> str | None:
    """The row of the table of theory §5 for one algorithm of a phase diagram's specification."""
    rule = specification["algorithms"][algorithm]
    problem = Problem.from_dict({**specification["problem"], "loss": rule["loss"], "constraint": rule["constraint"]})
    return algorithm_of(problem)


def cell_edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of the cells of a sorted grid, halfway between their centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
