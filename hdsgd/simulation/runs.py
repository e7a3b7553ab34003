"""Monte Carlo of one problem: replicas of a run, as one labelled Dataset."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import MAX_STEPS, check_dim, check_eta, instance, whole
from hdsgd.errors import SpecificationError
from hdsgd.parallel import Canceller, count_threads, run_tasks
from hdsgd.policies import DIM, ETA, REPLICAS, SEED, STEPS, SaveAt, Scaling
from hdsgd.problem.initial import Initial, as_initial
from hdsgd.problem.model import Problem, as_problem
from hdsgd.progress import progress_bar
from hdsgd.results.schema import check_states, finish, note, outcome
from hdsgd.simulation.cells import Cell
from hdsgd.theory.prefactors import resolve_scaling

__all__ = ["saved_steps", "simulate"]

logger = logging.getLogger("hdsgd")

Floats = NDArray[np.float64]


def saved_steps(steps: int, save: SaveAt) -> NDArray[np.int64]:
    """Steps at which the state is saved: 0, the last, and about as many as asked for in between, or those given."""
    if not isinstance(save.points, int):
        given = [whole("a saved step", step, high=steps) for step in save.points]
        return np.unique(np.array([0, *given, steps], dtype=np.int64))
    if save.spacing == "linear":
        grid = np.linspace(0, steps, min(save.points, steps) + 1)
    else:
        grid = np.concatenate([[0], np.geomspace(1, max(steps, 1), save.points)])
    return np.unique(np.round(grid).astype(np.int64).clip(0, steps))


def simulate(
    problem: Problem,
    *,
    dim: int = DIM,
    steps: int = STEPS,
    scaling: Scaling = Scaling(),
    initial: Initial | str = "random",
    save: SaveAt = SaveAt(),
    replicas: int = REPLICAS,
    eta: float = ETA,
    engine: str = "exact",
    seed: int = SEED,
    threads: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Simulate replicas of one-pass SGD and record the overlaps.

    Parameters
    ----------
    problem : Problem
        What is learnt and the rule of a step.
    dim : int
        Input dimension ``d``.
    steps : int
        Number of gradient steps.
    scaling : Scaling
        Batch size ``n_b`` and learning rate ``γ``, each as a number or as a power of d.
    initial : Initial or str
        Where the student starts, or the name of a distribution.
    save : SaveAt
        After which steps the state is saved.
    replicas : int
        Independent repetitions.
    eta : float
        Threshold of weak recovery ``||M||_F >= eta``, in (0, 1).
    engine : {"exact", "auto", "direct", "direct32", "reduced", "moment"}
        "exact" draws every sample; "auto" takes many steps as one, and large batches as Gaussian, where that holds
        (`hdsgd.engines.find_engine`).
    seed : int
    threads : int, optional
        All cores by default.  Never changes a number.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    xarray.Dataset
        Dims ``replica, step, student, teacher, student_2``; variables ``M``, ``Q``, ``misalignment``, ``risk``,
        ``recovery_time``, ``recovered``, ``status`` (recovered, censored or diverged).  After a divergence the state
        is NaN.  Where the moments of the problem are not available the risk is NaN, and the attribute ``notes`` says
        why.  The specification is in the attributes.

    Raises
    ------
    SpecificationError
        On any request that cannot be carried out, before the first step; also if the saved states would not fit into
        memory.

    Examples
    --------
    >>> from hdsgd import Initial, Problem, SaveAt, Scaling, simulate
    >>> problem = Problem("he2", "he2")
    >>> run = simulate(problem, dim=10**6, scaling=Scaling(mu=1, delta=0), initial=Initial(overlap=0.3),
    ...                steps=20, save=SaveAt(5), replicas=2, engine="auto")
    >>> dict(run.M.sizes)
    {'replica': 2, 'step': 6, 'student': 1, 'teacher': 1}
    >>> bool(run.recovered.all())
    True
    """
    from hdsgd._compile import announced_compilation

    started = time.perf_counter()
    as_problem(problem)
    instance("scaling", scaling, Scaling)
    instance("save", save, SaveAt)
    dim, eta, seed = check_dim(dim), check_eta(eta), whole("seed", seed)
    steps, replicas = whole("steps", steps, low=1, high=MAX_STEPS), whole("replicas", replicas, low=1)
    threads = count_threads(threads)
    check_states(problem, replicas, steps, save)
    times = saved_steps(steps, save)
    with announced_compilation():
        batch, lr, used = resolve_scaling(problem, dim, scaling, eta)
        cell = Cell(
            problem, dim=dim, batch=batch, lr=lr, initial=as_initial(initial), eta=eta, engine=engine, seed=seed
        )
        no_risk = _why_no_risk(problem)
        p, k = problem.p, problem.k
        M = np.full((replicas, len(times), p, k), np.nan)
        Q = np.full((replicas, len(times), p, p), np.nan)
        misalignment = np.full((replicas, len(times), p), np.nan)
        recovery = np.full(replicas, -1, dtype=np.int64)
        last, diverged = np.zeros(replicas, dtype=np.int64), np.zeros(replicas, dtype=bool)
        canceller = Canceller()
        # Threads beyond the replicas work inside the steps of an engine that can use them.
        outer = min(threads, replicas)
        inner = ThreadPoolExecutor(threads) if threads // outer > 1 else None

        with progress_bar(steps * replicas, "steps", progress) as advance_bar:

            def one(index: int) -> None:
                run = cell.replica(index, inner)
                with canceller.covering(run):
                    for i, when in enumerate(times):
                        before = run.step
                        run.advance(int(when) - before)
                        if run.diverged:
                            break
                        M[index, i], Q[index, i], misalignment[index, i] = run.overlaps()
                        advance_bar(run.step - before)
                recovery[index] = -1 if run.recovery_step is None else run.recovery_step
                last[index], diverged[index] = run.step, run.diverged

            try:
                run_tasks((partial(one, i) for i in range(replicas)), outer, canceller)
            finally:
                if inner is not None:
                    inner.shutdown()
        simulated = time.perf_counter()
        risk = np.full(M.shape[:2], np.nan)
        if no_risk is None:
            no_risk = _fill_risk(problem, M, Q, risk)
    if diverged.any():
        logger.warning("%d of %d replicas diverged; a smaller learning rate avoids it", diverged.sum(), replicas)
    recovered = recovery >= 0
    dataset = xr.Dataset(
        {
            "M": (("replica", "step", "student", "teacher"), M),
            "Q": (("replica", "step", "student", "student_2"), Q),
            "misalignment": (("replica", "step", "student"), misalignment),
            "risk": (("replica", "step"), risk),
            "recovery_time": ("replica", np.where(recovered, recovery, last)),
            "recovered": ("replica", recovered),
            "status": ("replica", outcome(recovered, diverged)),
        },
        coords={
            "replica": np.arange(replicas),
            "step": times,
            "student": np.arange(p),
            "student_2": np.arange(p),
            "teacher": np.arange(k),
        },
    )
    if no_risk is not None:
        logger.warning("no population risk: %s", no_risk)
        note(dataset, f"no population risk: {no_risk}")
    specification = {**cell.specification, "steps": steps, "eta": eta, "replicas": replicas, "scaling": used}
    asked = save.points if isinstance(save.points, int) else list(save.points)
    specification |= {"save_points": asked, "save_spacing": save.spacing, "seed": seed}
    timings = {"total_seconds": time.perf_counter() - started, "simulation_seconds": simulated - started}
    return finish(dataset, "simulate", specification, seed, timings)


def _why_no_risk(problem: Problem) -> str | None:
    """Why the population risk of this problem cannot be computed; None if it can."""
    from hdsgd.moments.population import population_risk

    try:
        population_risk(problem, np.eye(problem.p), np.zeros((problem.p, problem.k)))
    except SpecificationError as error:
        return str(error)
    return None


def _fill_risk(problem: Problem, M: Floats, Q: Floats, risk: Floats) -> str | None:
    """Write the population risk of the states that are finite; if that fails, say why and keep what was simulated."""
    from hdsgd.moments.population import population_risk

    there = np.isfinite(Q).all(axis=(2, 3))
    try:
        risk[there] = population_risk(problem, Q[there], M[there])
    except (ValueError, ArithmeticError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None
