"""The protocol of the engines: a `Run` is one replica in progress, whatever simulates it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from concurrent.futures import Executor
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.engines._step_kernels import COST, DIVERGED, RECOVERY, STATUS, STEP, Rule, StopAt
from hdsgd.parallel import Cancelled, Canceller
from hdsgd.problem._table_types import Tables
from hdsgd.problem.arrays import error_rule, tabulate
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.model import Problem
from hdsgd.seeds import Children

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_COST = 2**62


class Overlaps(NamedTuple):
    """What is observed of a state."""

    M: Floats  # (p, k)
    Q: Floats  # (p, p)
    misalignment: Floats  # (p,) share of the squared norm of each row outside the teacher span; 1 - m² for p = k = 1


class Outcomes(NamedTuple):
    """Where several runs have ended."""

    step: Integers  # (n,) steps taken
    recovery_step: Integers  # (n,) -1 where there was no recovery
    diverged: NDArray[np.bool_]  # (n,)


class Run(ABC):
    """One replica: its state, and how far it has come.

    Parameters
    ----------
    problem : Problem
    dim, batch : int
        ``d`` and ``n_b``.
    lr : float
        ``γ``.
    X : ndarray of shape (p, k + p)
        Initial coordinates (see `hdsgd.problem.initial`).
    seed : numpy.random.SeedSequence
        Fixes every random number of the run.
    eta : float
        Threshold of weak recovery, ``||M||_F >= eta``.
    executor : concurrent.futures.Executor, optional
        Threads that an engine may use inside a step.  They never change a result.
    """

    name: ClassVar[str]

    def __init__(
        self,
        problem: Problem,
        dim: int,
        batch: int,
        lr: float,
        X: Floats,
        seed: np.random.SeedSequence,
        eta: float = 0.5,
        executor: Executor | None = None,
    ) -> None:
        self.problem, self.dim, self.batch, self.lr, self.eta = problem, dim, batch, lr, eta
        self.tables: Tables = tabulate(problem)
        self.executor = executor
        # A recovery step of -1 means not yet; ||M_0|| >= eta counts as recovery at step 0.
        self._progress = np.array([0, -1, 0, 0], dtype=np.int64)
        self._cancel = np.zeros(1, dtype=np.int64)
        self.exhausted = False  # whether the last `advance` ended because of its bound on the work
        self.switch_step: int | None = None  # of a loss that switches
        self._start(X, seed)
        if self._overlap2() >= eta**2:
            self._progress[RECOVERY] = 0
        switches = len(problem.phases) == 2
        self._switch_risk = problem.switch_fraction * self._risk(self.overlaps()) if switches else math.nan

    @classmethod
    @abstractmethod
    def invalid(cls, problem: Problem, dim: int) -> str | None:
        """Why this engine cannot simulate the problem at this dimension; None if it can."""

    @abstractmethod
    def _start(self, X: Floats, seed: np.random.SeedSequence) -> None:
        """Set up the state and the random streams."""

    @abstractmethod
    def _advance(self, rule: Rule, stop_at: StopAt) -> None:
        """Take steps in the kernel."""

    @abstractmethod
    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array of the engine's own state, by name; they are updated in place."""

    @abstractmethod
    def overlaps(self) -> Overlaps:
        """Overlaps of the present state."""

    def _overlap2(self) -> float:
        """``||M||_F²`` of the present state."""
        return float((self.overlaps().M ** 2).sum())

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self._progress[STEP])

    @property
    def recovery_step(self) -> int | None:
        """First step with ``||M||_F >= eta``, None if there was none so far."""
        return None if self._progress[RECOVERY] < 0 else int(self._progress[RECOVERY])

    @property
    def cost(self) -> int:
        """Cost of the steps taken, in samples: what an exact step draws, or what takes as long."""
        return int(self._progress[COST])

    @property
    def diverged(self) -> bool:
        """Whether the state stopped being finite."""
        return bool(self._progress[STATUS] == DIVERGED)

    def cancel(self) -> None:
        """Make a running `advance`, in whatever thread, raise `Cancelled` soon."""
        self._cancel[0] = 1

    def advance(self, steps: int, *, stop_at_recovery: bool = False, max_cost: float = math.inf) -> None:
        """Take `steps` steps, fewer if the run diverges or, on request, recovers.

        Parameters
        ----------
        steps : int
        stop_at_recovery : bool
        max_cost : float
            Stop once `cost` has reached this; `exhausted` tells.

        Raises
        ------
        Cancelled
            If `cancel` was called; the state must not be used again.
        """
        last = self.step + steps
        most = int(min(max_cost, MAX_COST))
        while self.step < last and not self.diverged and not (stop_at_recovery and self.recovery_step is not None):
            if self.cost >= most:
                break
            watching = len(self.problem.phases) == 2 and self.switch_step is None
            self._advance(
                self._rule(), StopAt(1 if watching else last - self.step, self.eta**2, stop_at_recovery, most)
            )
            if self._cancel[0]:
                raise Cancelled
            if watching and not self.diverged and self._risk(self.overlaps()) < self._switch_risk:
                self.switch_step = self.step
        self.exhausted = self.cost >= most

    @classmethod
    def recover(
        cls,
        problem: Problem,
        dim: int,
        batch: int,
        lr: float,
        X: Floats,
        seeds: Children,
        eta: float,
        *,
        steps: int,
        max_cost: float,
        canceller: Canceller,
    ) -> Outcomes:
        """Advance several runs, each until it recovers: as `advance` does one after the other, perhaps sooner.

        Parameters
        ----------
        problem, dim, batch, lr, eta
            As of one run.
        X : ndarray of shape (n, p, k + p)
        seeds : Children
            n of them.
        steps, max_cost
            As of `advance`.
        canceller : Canceller
            May cancel them.

        Raises
        ------
        Cancelled
        """
        ends = Outcomes(*(np.zeros(len(X), dtype=dtype) for dtype in (np.int64, np.int64, bool)))
        for n, seed in enumerate(seeds):
            run = cls(problem, dim, batch, lr, X[n], seed, eta)
            with canceller.covering(run):
                run.advance(steps, stop_at_recovery=True, max_cost=max_cost)
            ends.step[n], ends.recovery_step[n], ends.diverged[n] = run.step, run._progress[RECOVERY], run.diverged
        return ends

    def _rule(self) -> Rule:
        problem, lr = self.problem, self.lr
        decay, start, loss = 0.0, 0, problem.phases[0]
        if self.switch_step is not None:
            loss, lr = problem.phases[1], lr * problem.switch_factor
            decay, start = problem.switch_decay, self.switch_step
        constraint = CONSTRAINTS[problem.constraint]
        errors = error_rule(loss)
        return Rule(errors, constraint.tangential, constraint.normalised, self.batch, lr, decay, start)

    def _risk(self, overlaps: Overlaps) -> float:
        from hdsgd.moments.population import population_risk

        return float(population_risk(self.problem, overlaps.Q, overlaps.M))

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Copy of everything that changes during the run, random streams included."""
        arrays = {name: array.copy() for name, array in self._arrays().items()}
        arrays["progress"] = self._progress.copy()
        arrays["switch"] = np.array(
            [-1.0 if self.switch_step is None else self.switch_step, self._switch_risk], dtype=np.float64
        )
        return arrays

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `state`: the run goes on bit for bit as the one it was taken from."""
        for name, array in self._arrays().items():
            array[...] = state[name]
        self._progress[...] = state["progress"]
        switch = state["switch"]
        self.switch_step = None if switch[0] < 0 else int(switch[0])
        self._switch_risk = float(switch[1])
