"""Phase diagrams: the weak-recovery time over the (μ, δ) plane, cell by cell, at one dimension or several."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from hdsgd.checks import check_dim, check_eta, finite, whole
from hdsgd.engines import is_exact
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import population_moments
from hdsgd.outcomes import OUTCOMES
from hdsgd.parallel import Canceller, completed, count_threads
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem
from hdsgd.problem.scaling import batch_size, learning_rate
from hdsgd.results.schema import finish
from hdsgd.simulation.cells import Cell
from hdsgd.sweeps.cells import DIMS, complete, run_cell, run_sweep, steps_wanted, unfinished_cells
from hdsgd.theory.phases import algorithm_of
from hdsgd.theory.prefactors import CriticalPrefactor, critical_prefactor, drift_time

__all__ = ["phase_diagram"]

logger = logging.getLogger("hdsgd")

#: Size of the overlap from which the drift starts, in units of d^-1/2, where it depends on it (ℓ >= 3).  Near the
#: critical line noise redraws the overlap from N(0, 1/d) while a run waits, and the drift takes off from the largest of
#: these: 2.3 is the median of the largest of 30.
START_SIZE = 2.3
MAX_COST = 1e7


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
    dims: int | Sequence[int] = 1000,
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
    max_cost: float = MAX_COST,
    engine: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    scheduler: str | None = None,
    store: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> xr.Dataset:
    """Simulate every cell of a (μ, δ) grid until it recovers or its steps are spent.

    Parameters
    ----------
    problem : Problem
        Target, student and noise; its loss and constraint are replaced by those of each algorithm.
    dims : int or sequence of int
        Input dimensions ``d``; distinct, put in increasing order.
    mu, delta : sequence of float
        Exponents: ``n_b = max(1, round(n0 d^μ))``, ``γ = γ0 d^-δ``; distinct, put in increasing order.
    algorithms : sequence of str
        Of "projected", "correlation", "spherical".
    loss, constraint : str, optional
        Override that half of every algorithm.
    n0, gamma0 : float or "auto"
        "auto": for each algorithm the batch size at which giant steps begin to work (or, projected, at which stable
        steps are as large as they get), and half the critical learning rate at initialisation, so that the boundary
        measured at finite d lies on the asymptotic lines and not beside them
        (`hdsgd.theory.prefactors.critical_prefactor`).  The same for every dimension.
    initial : Initial or str, optional
        By default random rows, or, where an odd exponent ℓ >= 3 makes the sign of the overlap decisive, positive ones.
    eta : float
        Threshold of weak recovery.
    replicas : int
    max_steps : int or "auto"
        "auto": ten times the steps that the drift alone would need in this cell (and at least 20).
    max_cost : float
        Work a run may cost, in samples drawn (what an engine does instead is converted).  A run that ends by it before
        it has taken enough steps to mean something is over budget: neither recovered nor censored.
    engine, seed, threads, progress
        As in `hdsgd.simulate`.
    scheduler : str, optional
        Address of a Dask scheduler, "tcp://host:8786", whose workers run the cells instead of threads here.
    store : path, optional
        A ``.zarr`` or ``.nc`` file for the result.  Cells are kept as they are done, in the ``.zarr`` itself or in
        ``FILE.nc.partial.zarr`` until the end.
    resume : bool
        Continue the sweep in `store`, if there is one; the result is the same as without an interruption.
    overwrite : bool
        Replace what is in `store`.

    Returns
    -------
    xarray.Dataset
        Dims ``algorithm, dim, mu, delta, replica``; variables ``recovery_time``, ``recovered``, ``status``,
        ``samples``, ``steps_allowed``, ``predicted_time``, and with several dimensions those of `hdsgd.fit_exponents`;
        coordinates ``batch (algorithm, dim, mu)`` and ``lr (algorithm, dim, delta)``.  Cells that raise are recorded as
        failed, their messages in the attribute ``errors``.

    Raises
    ------
    SpecificationError
        On any request that cannot be carried out, before anything is computed.
    hdsgd.sweeps.store.StoreError
        If `store` cannot be written, for example because the disk is full; an OSError.
    KeyboardInterrupt
        On an interruption; the message says what is kept.
    """
    from hdsgd._compile import announced_compilation

    started = time.perf_counter()
    eta, replicas = check_eta(eta), whole("replicas", replicas, low=1)
    threads, seed = count_threads(threads), whole("seed", seed)
    if max_steps != "auto":
        max_steps = whole("max_steps", max_steps, low=1)
    max_cost = finite("max_cost", max_cost, low=1.0)
    axes = _Axes(
        dims=_distinct("dims", sorted(check_dim(dim) for dim in np.atleast_1d(np.asarray(dims, dtype=object)))),
        mu=_axis("mu", mu),
        delta=_axis("delta", delta),
    )
    if store is None and (resume or overwrite):
        raise SpecificationError(
            f"{'resume' if resume else 'overwrite'} needs a store (-o): without one nothing is kept"
        )
    if not algorithms:
        raise SpecificationError(f"name at least one algorithm of {', '.join(ALGORITHMS)}")
    with announced_compilation(), contextlib.ExitStack() as stack:
        plans = [
            _plan(problem, name, loss, constraint, n0=n0, gamma0=gamma0, eta=eta) for name in dict.fromkeys(algorithms)
        ]
        initial = _initial(initial, plans)
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
            **axes._asdict(), "initial": initial.to_dict(), "eta": eta, "replicas": replicas,
            "max_steps": max_steps, "max_cost": max_cost, "engine": engine, "seed": seed,
        }  # fmt: skip
        dataset = _blank(plans, axes, specification)
        # One cell of each kind made ahead of the sweep reports an unfit engine, initial law or dimension as a user's
        # error.
        for a, n in np.ndindex(len(plans), len(axes.dims)):
            batch, lr = int(dataset["batch"][a, n, 0]), float(dataset["lr"][a, n, 0])
            Cell(
                plans[a].problem,
                dim=axes.dims[n],
                batch=batch,
                lr=lr,
                initial=initial,
                eta=eta,
                engine=engine,
                seed=seed,
            )
        cluster = None
        if scheduler is not None:
            from hdsgd.sweeps.cluster import Cluster

            cluster = stack.enter_context(Cluster(scheduler))
        kept = None
        if store is not None:
            from hdsgd.sweeps.store import SweepStore

            kept = stack.enter_context(
                contextlib.closing(SweepStore(store, dataset, resume=resume, overwrite=overwrite))
            )
            dataset = kept.dataset
            if resume:
                kept.report()
            if kept.finished:
                return dataset
        cells = unfinished_cells(dataset)
        if cluster is not None:
            results = cluster.completed(cells)
        else:
            canceller = Canceller()
            results = completed(lambda index: run_cell(cells[index], canceller), cells, threads, canceller)
        try:
            run_sweep(dataset, cells, results, kept, progress)
            dataset = complete(dataset)
            dataset.attrs["timings"] = json.dumps({"total_seconds": round(time.perf_counter() - started, 6)})
            if kept is not None:
                kept.finish(dataset)
                dataset = kept.dataset
        except KeyboardInterrupt:
            if kept is None:
                raise KeyboardInterrupt("interrupted; nothing was written, and all cells are lost") from None
            raise KeyboardInterrupt(f"interrupted; {kept.kept()}") from None
        except ConnectionError as error:
            raise ConnectionError(f"{error}; {'all cells are lost' if kept is None else kept.kept()}") from None
    return dataset


class _Axes(NamedTuple):
    dims: list[int]
    mu: list[float]
    delta: list[float]


def _axis(name: str, values: Sequence[float]) -> list[float]:
    return _distinct(name, sorted(finite(name, value) for value in np.atleast_1d(np.asarray(values, dtype=object))))


def _distinct(name: str, axis: list[Any]) -> list[Any]:
    if not axis:
        raise SpecificationError(f"{name} needs at least one value")
    if len(set(axis)) < len(axis):
        raise SpecificationError(f"{name} holds the same value twice")
    return axis


def _blank(plans: Sequence[_Plan], axes: _Axes, specification: dict[str, Any]) -> xr.Dataset:
    """The sweep before its first cell: all are pending but those that are left out as too costly."""
    eta, max_steps, max_cost = (specification[name] for name in ("eta", "max_steps", "max_cost"))
    batch = np.array(
        [[[batch_size(dim, x, plan.n0) for x in axes.mu] for dim in axes.dims] for plan in plans], dtype=np.int64
    )
    lr = np.array([[[learning_rate(dim, x, plan.gamma0) for x in axes.delta] for dim in axes.dims] for plan in plans])
    shape = (len(plans), len(axes.dims), len(axes.mu), len(axes.delta))
    predicted, allowed = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    for a, n, i, j in np.ndindex(shape):
        plan = plans[a]
        predicted[a, n, i, j] = drift_time(plan.exponent, float(lr[a, n, j]) * plan.drift, axes.dims[n], eta)
        allowed[a, n, i, j] = _steps_allowed(
            float(predicted[a, n, i, j]), int(batch[a, n, i]), max_steps, max_cost, specification["engine"]
        )
    if max_steps == "auto":
        begun = allowed[allowed > 0]
        logger.info(
            "max-steps auto: %.4g to %.4g steps a run, at most %.3g samples of work%s",
            begun.min(initial=allowed.max()),
            allowed.max(),
            max_cost,
            f"; {allowed.size - begun.size} of {allowed.size} cells cost more and are left out"
            * (begun.size < allowed.size),
        )
    cells = (*shape, specification["replicas"])
    left_out = np.broadcast_to((allowed == 0)[..., None], cells)
    dataset = xr.Dataset(
        {
            "recovery_time": ((*DIMS, "replica"), np.zeros(cells, dtype=np.int64)),
            "status": (
                (*DIMS, "replica"),
                np.where(left_out, OUTCOMES["over_budget"], OUTCOMES["pending"]).astype(np.int8),
            ),
            "steps_allowed": (DIMS, allowed),
            "predicted_time": (DIMS, predicted),
        },
        coords={
            "algorithm": [plan.label for plan in plans],
            "dim": np.array(axes.dims, dtype=np.int64),
            "mu": axes.mu,
            "delta": axes.delta,
            "replica": np.arange(specification["replicas"]),
            "batch": (("algorithm", "dim", "mu"), batch),
            "lr": (("algorithm", "dim", "delta"), lr),
        },
    )
    dataset = finish(dataset, "phase-diagram", specification, specification["seed"], {})
    dataset.attrs["errors"] = "{}"
    return dataset


def _steps_allowed(predicted: float, batch: int, max_steps: int | str, max_cost: float, engine: str) -> int:
    """Step budget of a cell; 0 where the work of an exact engine is known to be too much."""
    wanted = steps_wanted(predicted, max_steps)
    if not is_exact(engine):
        return wanted
    most = int(max_cost / batch)
    # A few steps are always worth trying (one giant step may do), but a run that is cut before its time is not.
    return 0 if most < min(wanted, predicted + 1) else min(wanted, most)


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
    rule = ALGORITHMS[name]
    problem = replace(problem, loss=loss or rule.loss, constraint=constraint or rule.constraint)
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
