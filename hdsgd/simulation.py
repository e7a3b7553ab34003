"""Monte Carlo of one problem: replicas of a run, as one labelled Dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError, choice
from hdsgd.initial import Initial
from hdsgd.model import Problem, check_eta, finite, whole
from hdsgd.parallel import Watch, count_threads, run_tasks
from hdsgd.scaling import MAX_BATCH, batch_size, check_dim, learning_rate
from hdsgd.schema import STATUS, finish
from hdsgd.seeds import Children, cell_seed, child

if TYPE_CHECKING:
    from hdsgd.engines.base import Ends, Run

__all__ = ["Cell", "resolve_scaling", "simulate"]

logger = logging.getLogger("hdsgd")

SPACINGS = ("linear", "log")
#: Replicas whose initial states are drawn together, and which an engine may advance together.
GROUP = 64


class Cell:
    """Everything that fixes the law of a run but the number of its steps, and the seed; makes its replicas.

    Parameters
    ----------
    problem : Problem
    dim, batch : int
    lr : float
    initial : Initial
    eta : float
        Threshold of weak recovery, in (0, 1).
    engine : str
    seed : int

    Raises
    ------
    SpecificationError
        If the engine or the initial law does not fit, or a number is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        dim: int,
        batch: int,
        lr: float,
        initial: Initial,
        eta: float = 0.5,
        engine: str = "auto",
        seed: int = 0,
    ) -> None:
        from hdsgd.engines import find_engine

        self.problem, self.initial = problem, initial
        self.dim = check_dim(dim)
        self.batch = whole("batch", batch, low=1, high=MAX_BATCH)
        self.lr = finite("lr", lr, low=0.0, open_low=True)
        self.eta = check_eta(eta)
        initial.check(problem, self.dim)
        self.engine = find_engine(engine, problem, self.dim)
        # eta is not part of it: it observes the run and does not change it.
        self.specification: dict[str, Any] = {
            "problem": problem.to_dict(),
            "dim": self.dim,
            "batch": self.batch,
            "lr": self.lr,
            "initial": initial.to_dict(),
            "engine": self.engine.name,
        }
        self._seed = cell_seed(seed, self.specification)

    def replica(self, index: int, executor: Executor | None = None) -> Run:
        """Replica `index` at step 0: the same run whatever else is run, in whatever order."""
        X, seed = self._initial(index // GROUP)[index % GROUP], child(self._seed, index, 1)
        return self.engine(self.problem, self.dim, self.batch, self.lr, X, seed, self.eta, executor)

    def _initial(self, group: int) -> NDArray[np.float64]:
        """Initial coordinates of a whole group of replicas."""
        return self.initial.draw(self.problem, self.dim, np.random.default_rng(child(self._seed, group, 0)), GROUP)

    def recover(self, replicas: int, *, steps: int, max_work: float, watch: Watch) -> Ends:
        """Run so many replicas, each until it recovers, diverges, or its steps or its work are spent.

        Raises
        ------
        hdsgd.engines.base.Cancelled
            If `watch` stopped them.
        """
        ends = []
        for first in range(0, replicas, GROUP):
            members = range(first, min(first + GROUP, replicas))
            X, seeds = self._initial(first // GROUP), Children(self._seed, [(index, 1) for index in members])
            law = (self.problem, self.dim, self.batch, self.lr, X[: len(members)], seeds, self.eta)
            ends.append(self.engine.recover(*law, steps=steps, max_work=max_work, watch=watch))
        return type(ends[0])(*(np.concatenate(arrays) for arrays in zip(*ends, strict=True)))


def resolve_scaling(
    problem: Problem,
    dim: int,
    *,
    batch: int | None = None,
    lr: float | None = None,
    n0: float = 1.0,
    mu: float | None = None,
    gamma0: float | str = "auto",
    delta: float | None = None,
    eta: float = 0.5,
) -> tuple[int, float, dict[str, Any]]:
    """Batch size and learning rate, given directly or as powers of d.

    Returns
    -------
    batch : int
    lr : float
    scaling : dict
        The exponents and prefactors used, empty where the number was given directly.

    Raises
    ------
    SpecificationError
        If each is not given exactly one way.
    """
    for number, exponent, name in ((batch, mu, "batch and mu"), (lr, delta, "lr and delta")):
        if (number is None) == (exponent is None):
            raise SpecificationError(f"give exactly one of {name} ({'neither' if number is None else 'both'} given)")
    scaling: dict[str, Any] = {}
    if mu is not None:
        batch = batch_size(dim, mu, n0)
        scaling |= {"mu": mu, "n0": n0}
    if delta is not None:
        if gamma0 == "auto":
            from hdsgd.theory import critical_prefactor

            gamma0 = 0.5 * n0 * critical_prefactor(problem, eta=eta).ratio
            logger.info("gamma0 = %.6g (half the critical prefactor at initialisation)", gamma0)
        gamma0 = finite("gamma0", gamma0, low=0.0, open_low=True)
        lr = learning_rate(dim, delta, gamma0)
        scaling |= {"delta": delta, "gamma0": gamma0}
    assert batch is not None
    assert lr is not None
    return batch, lr, scaling


def saved_steps(steps: int, points: int | Sequence[int], spacing: str) -> NDArray[np.int64]:
    """Steps at which the state is saved: 0, the last, and about `points` in all after step 0, or those given."""
    choice("save spacing", spacing, SPACINGS)
    if not isinstance(points, int | np.integer):
        given = [whole("a saved step", step, high=steps) for step in points]
        return np.unique(np.array([0, *given, steps], dtype=np.int64))
    points = whole("save_points", points, low=1)
    if spacing == "linear":
        grid = np.linspace(0, steps, min(points, steps) + 1)
    else:
        grid = np.concatenate([[0], np.geomspace(1, max(steps, 1), points)])
    return np.unique(np.round(grid).astype(np.int64).clip(0, steps))


def simulate(
    problem: Problem,
    *,
    dim: int,
    steps: int,
    batch: int | None = None,
    lr: float | None = None,
    n0: float = 1.0,
    mu: float | None = None,
    gamma0: float | str = "auto",
    delta: float | None = None,
    initial: Initial | str | None = None,
    eta: float = 0.5,
    save_points: int | Sequence[int] = 100,
    save_spacing: str = "linear",
    replicas: int = 8,
    engine: str = "exact",
    seed: int = 0,
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
    batch, lr : int and float, optional
        Batch size ``n_b`` and learning rate ``γ``; or, instead of either,
    n0, mu : float, optional
        ``n_b = max(1, round(n0 d^μ))``,
    gamma0, delta : float or "auto", and float, optional
        ``γ = γ0 d^-δ``; "auto" is half the critical prefactor (`hdsgd.theory.critical_prefactor`).
    initial : Initial or str, optional
        Initial condition or the name of its law; random rows by default.
    eta : float
        Threshold of weak recovery ``||M||_F >= eta``, in (0, 1).
    save_points : int or sequence of int
        How many states to save after step 0 (fewer if there are fewer steps), or after which steps.
    save_spacing : {"linear", "log"}
    replicas : int
        Independent repetitions.
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
        ``recovery_time``, ``recovered``, ``status``.  After a divergence the state is NaN.  The specification is in
        the attributes.

    Raises
    ------
    SpecificationError
        On any request that cannot be carried out, before anything is computed.
    """
    from hdsgd._compile import announced_compilation
    from hdsgd.moments import population_risk

    started = time.perf_counter()
    dim = check_dim(dim)
    eta = check_eta(eta)
    steps, replicas = whole("steps", steps, low=1), whole("replicas", replicas, low=1)
    threads = count_threads(threads)
    times = saved_steps(steps, save_points, save_spacing)
    initial = Initial(initial) if isinstance(initial, str) else initial or Initial()
    with announced_compilation():
        batch, lr, scaling = resolve_scaling(
            problem, dim, batch=batch, lr=lr, n0=n0, mu=mu, gamma0=gamma0, delta=delta, eta=eta
        )
        cell = Cell(problem, dim=dim, batch=batch, lr=lr, initial=initial, eta=eta, engine=engine, seed=seed)
        p, k = problem.p, problem.k
        M = np.full((replicas, len(times), p, k), np.nan)
        Q = np.full((replicas, len(times), p, p), np.nan)
        misalignment = np.full((replicas, len(times), p), np.nan)
        recovery = np.full(replicas, -1, dtype=np.int64)
        last, diverged = np.zeros(replicas, dtype=np.int64), np.zeros(replicas, dtype=bool)
        watch = Watch()
        # Threads beyond the replicas work inside the steps of an engine that can use them.
        outer = min(threads, replicas)
        inner = ThreadPoolExecutor(threads) if threads // outer > 1 else None

        with progress_bar(steps * replicas, "steps", progress) as advance_bar:

            def one(index: int) -> None:
                run = cell.replica(index, inner)
                with watch.watching(run):
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
                run_tasks((partial(one, i) for i in range(replicas)), outer, watch)
            finally:
                if inner is not None:
                    inner.shutdown()
        simulated = time.perf_counter()
        risk = np.full(M.shape[:2], np.nan)
        finite_states = np.isfinite(Q).all(axis=(2, 3))
        risk[finite_states] = population_risk(problem, Q[finite_states], M[finite_states])
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
            "status": ("replica", np.where(diverged, STATUS["diverged"], STATUS["ok"]).astype(np.int8)),
        },
        coords={
            "replica": np.arange(replicas),
            "step": times,
            "student": np.arange(p),
            "student_2": np.arange(p),
            "teacher": np.arange(k),
        },
    )
    specification = {**cell.specification, "steps": steps, "eta": eta, "replicas": replicas, "scaling": scaling}
    asked = save_points if isinstance(save_points, int | np.integer) else [int(step) for step in save_points]
    specification |= {"save_points": asked, "save_spacing": save_spacing, "seed": seed}
    timings = {"total_seconds": time.perf_counter() - started, "simulation_seconds": simulated - started}
    return finish(dataset, "simulate", specification, seed, timings)


class progress_bar:
    """Context manager: a progress bar on standard error, as a function that advances it; silent unless `shown`."""

    def __init__(self, total: int, unit: str, shown: bool) -> None:
        self._total, self._unit, self._shown = total, unit, shown
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        if not self._shown:
            return lambda amount: None
        from tqdm.auto import tqdm

        self._bar = tqdm(total=self._total, unit=f" {self._unit}", unit_scale=True, dynamic_ncols=True, leave=False)
        # Threads report at the same time; tqdm takes its own lock.
        update: Callable[[int], None] = self._bar.update
        return update

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
