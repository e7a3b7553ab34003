"""One cell: everything that fixes the law of a run, and the replicas of it."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import MAX_BATCH, check_dim, check_eta, finite, whole
from hdsgd.parallel import Canceller
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem
from hdsgd.seeds import Children, cell_seed, child

if TYPE_CHECKING:
    from hdsgd.engines.base import Outcomes, Run

__all__ = ["GROUP", "Cell"]

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
        from hdsgd.engines.base import Law

        self._law = Law(problem, self.dim, self.batch, self.lr, self.eta)
        # eta is not part of it: it observes the run and does not change it.
        self.specification: dict[str, Any] = {
            "problem": problem.to_dict(),
            "dim": self.dim,
            "batch": self.batch,
            "lr": self.lr,
            "initial": initial.to_dict(),
            "engine": self.engine.name,
        }
        addresses = {"problem": problem.address(), "initial": initial.address()}
        self._seed = cell_seed(seed, {**self.specification, **addresses})

    def replica(self, index: int, executor: Executor | None = None) -> Run:
        """Replica `index` at step 0: the same run whatever else is run, in whatever order."""
        X, seed = self._initial(index // GROUP)[index % GROUP], child(self._seed, index, 1)
        return self.engine(self._law, X, seed, executor)

    def _initial(self, group: int) -> NDArray[np.float64]:
        """Initial coordinates of a whole group of replicas."""
        return self.initial.draw(self.problem, self.dim, np.random.default_rng(child(self._seed, group, 0)), GROUP)

    def recover(self, replicas: int, *, steps: int, max_cost: float, canceller: Canceller) -> Outcomes:
        """Run so many replicas, each until it recovers, diverges, or its steps or its work are spent.

        Raises
        ------
        hdsgd.engines.base.Cancelled
            If `canceller` stopped them.
        """
        outcomes = []
        for first in range(0, replicas, GROUP):
            members = range(first, min(first + GROUP, replicas))
            X, seeds = self._initial(first // GROUP), Children(self._seed, [(index, 1) for index in members])
            start = X[: len(members)], seeds
            outcomes.append(self.engine.recover(self._law, *start, steps=steps, max_cost=max_cost, canceller=canceller))
        return type(outcomes[0])(*(np.concatenate(arrays) for arrays in zip(*outcomes, strict=True)))
