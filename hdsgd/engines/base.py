"""What an engine is: a `Run`, one replica in progress, whatever simulates it.

An engine says how a run starts, how it takes a step and what is seen of it.  Counting steps, recovery, divergence,
cost, a change of loss on the way, and saving are done here for all.  One of your own in plain NumPy is `Run.start`,
`Run.take_step`, `Run.overlaps` and `Run.arrays`; those whose kernels take many steps a call override `Run._advance`
instead of `take_step`.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from concurrent.futures import Executor
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.engines._step_types import COST, DIVERGED, RECOVERY, STATUS, STEP, Rule, StopAt
from hdsgd.parallel import Cancelled, Canceller
from hdsgd.problem._table_types import ErrorRule, Tables
from hdsgd.problem.arrays import error_rule, tabulate
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem
from hdsgd.seeds import Children

__all__ = ["Law", "Outcomes", "Overlaps", "Run"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
State = dict[str, NDArray[np.generic]]

MAX_COST = 2**62


class Law(NamedTuple):
    """Everything that fixes the law of a run but its start."""

    problem: Problem
    dim: int  # d
    batch: int  # n_b
    lr: float  # γ
    eta: float = 0.5  # threshold of weak recovery, ||M||_F >= η


class Overlaps(NamedTuple):
    """What is observed of a state."""

    M: Floats  # (p, k)
    Q: Floats  # (p, p)
    misalignment: Floats  # (p,) share of the squared norm of each row outside the teacher span; 1 - m² for p = k = 1

    @classmethod
    def of_rows(cls, W: Floats, teacher: Floats) -> Overlaps:
        """Overlaps of student rows W (p, d) with teacher rows (k, d)."""
        M, Q = W @ teacher.T, W @ W.T
        rest = W - np.linalg.lstsq(teacher @ teacher.T, M.T, rcond=None)[0].T @ teacher
        return cls(M, Q, (rest**2).sum(axis=1) / np.diag(Q))


class Outcomes(NamedTuple):
    """Where several runs have ended."""

    step: Integers  # (n,) steps taken
    recovery_step: Integers  # (n,) -1 where there was no recovery
    diverged: NDArray[np.bool_]  # (n,)


class Run(ABC):
    """One replica: its state, and how far it has come.

    Parameters
    ----------
    law : Law
        Problem, dimension, batch size, learning rate and threshold; attributes of the run by their names.
    X : ndarray of shape (p, k + p)
        Initial coordinates (see `hdsgd.problem.initial`).
    seed : numpy.random.SeedSequence
        Fixes every random number of the run.
    executor : concurrent.futures.Executor, optional
        Threads that an engine may use inside a step.  They never change a result.

    Attributes
    ----------
    name, summary : str
        Of the engine; the name is part of the address from which seeds are derived.
    exact : bool
        Every sample is drawn: a step costs n_b samples.
    protocols : tuple of str
        Training protocols that the engine can simulate.
    rng : numpy.random.Generator, optional
        Generator of an engine in NumPy, which sets it in `start`; saved and restored with the state.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    exact: ClassVar[bool] = True
    protocols: ClassVar[tuple[str, ...]] = ("one-pass",)
    rng: np.random.Generator | None = None

    def __init__(self, law: Law, X: Floats, seed: np.random.SeedSequence, executor: Executor | None = None) -> None:
        self.problem, self.dim, self.batch, self.lr, self.eta = law
        self.executor = executor
        self._phases, self._constraint = self.problem.phases, CONSTRAINTS[self.problem.constraint]
        # A recovery step of -1 means not yet; ||M_0|| >= eta counts as recovery at step 0.
        self._progress = np.array([0, -1, 0, 0], dtype=np.int64)
        self._cancel = np.zeros(1, dtype=np.int64)
        self.exhausted = False  # whether the last `advance` ended because of its bound on the cost
        self.switch_step: int | None = None  # of a loss that switches
        self.start(X, seed)
        if self._overlap2() >= self.eta**2:
            self._progress[RECOVERY] = 0
        self._switch_risk = math.nan
        if len(self._phases) == 2:
            self._switch_risk = self.problem.switch_fraction * self._risk(self.overlaps())

    # ---- what an engine says

    @classmethod
    def invalid(cls, problem: Problem, dim: int) -> str | None:
        """Why this engine cannot simulate the problem at this dimension; None if it can."""
        return None

    @abstractmethod
    def start(self, X: Floats, seed: np.random.SeedSequence) -> None:
        """Set up the state and the random streams."""

    def take_step(self, loss: Loss, lr: float) -> None:
        """Take one step with this loss and learning rate; a state that stops being finite has diverged."""
        raise NotImplementedError

    @abstractmethod
    def overlaps(self) -> Overlaps:
        """Overlaps of the present state."""

    @abstractmethod
    def arrays(self) -> State:
        """Every array of the engine's own state, by name; they are updated in place."""

    def _advance(self, stop_at: StopAt) -> None:
        """Take steps until `stop_at` says so, the state is not finite, or the run is cancelled."""
        from hdsgd.engines._step_kernels import learning_rate, record_step  # imports Numba

        rate, record = (getattr(function, "py_func", function) for function in (learning_rate, record_step))
        loss, rule = self._loss(), self._rule(ErrorRule(False, 0))  # whose error is for kernels
        for _ in range(stop_at.steps):
            if self._cancel[0]:
                return
            with np.errstate(all="ignore"):
                self.take_step(loss, rate(rule, self.step))
                overlap2 = self._overlap2()
            if record(self._progress, stop_at, overlap2, self.batch):
                return

    def _overlap2(self) -> float:
        """``||M||_F²`` of the present state."""
        return float((self.overlaps().M ** 2).sum())

    # ---- what is the same for all

    @cached_property
    def tables(self) -> Tables:
        """The problem as kernels see it."""
        return tabulate(self.problem)

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
            watching = len(self._phases) == 2 and self.switch_step is None
            self._advance(StopAt(1 if watching else last - self.step, self.eta**2, stop_at_recovery, most))
            if self._cancel[0]:
                raise Cancelled
            if watching and not self.diverged and self._risk(self.overlaps()) < self._switch_risk:
                self.switch_step = self.step
        self.exhausted = self.cost >= most

    @classmethod
    def recover(
        cls, law: Law, X: Floats, seeds: Children, *, steps: int, max_cost: float, canceller: Canceller
    ) -> Outcomes:
        """Advance several runs, each until it recovers: as `advance` does one after the other, perhaps sooner.

        Parameters
        ----------
        law : Law
            Of each run.
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
        outcomes = Outcomes(*(np.zeros(len(X), dtype=dtype) for dtype in (np.int64, np.int64, bool)))
        for n, seed in enumerate(seeds):
            run = cls(law, X[n], seed)
            with canceller.covering(run):
                run.advance(steps, stop_at_recovery=True, max_cost=max_cost)
            outcomes.step[n], outcomes.diverged[n] = run.step, run.diverged
            outcomes.recovery_step[n] = run._progress[RECOVERY]
        return outcomes

    def _loss(self) -> Loss:
        """The loss of the next step."""
        return self._phases[0 if self.switch_step is None else 1]

    @cached_property
    def _errors(self) -> tuple[ErrorRule, ...]:
        """What kernels are told of each phase."""
        return tuple(error_rule(loss) for loss in self._phases)

    def _rule(self, errors: ErrorRule | None = None) -> Rule:
        """The rule of the next steps."""
        problem, constraint, lr, decay, start = self.problem, self._constraint, self.lr, 0.0, 0
        if self.switch_step is not None:
            lr, decay, start = lr * problem.switch_factor, problem.switch_decay, self.switch_step
        errors = errors or self._errors[0 if self.switch_step is None else 1]
        return Rule(errors, constraint.tangential, constraint.normalised, self.batch, lr, decay, start)

    def _risk(self, overlaps: Overlaps) -> float:
        from hdsgd.moments.population import population_risk

        return float(population_risk(self.problem, overlaps.Q, overlaps.M))

    def state(self) -> State:
        """Copy of everything that changes during the run, random streams included."""
        arrays = {name: array.copy() for name, array in self.arrays().items()}
        arrays["progress"] = self._progress.copy()
        arrays["switch"] = np.array(
            [-1.0 if self.switch_step is None else self.switch_step, self._switch_risk], dtype=np.float64
        )
        if self.rng is not None:
            arrays["rng"] = np.frombuffer(json.dumps(self.rng.bit_generator.state).encode(), dtype=np.uint8)
        return arrays

    def restore(self, state: State) -> None:
        """Continue from a `state`: the run goes on bit for bit as the one it was taken from."""
        for name, array in self.arrays().items():
            array[...] = state[name]
        self._progress[...] = state["progress"]
        switch: Any = state["switch"]
        self.switch_step = None if switch[0] < 0 else int(switch[0])
        self._switch_risk = float(switch[1])
        if self.rng is not None:
            self.rng.bit_generator.state = json.loads(state["rng"].tobytes())
