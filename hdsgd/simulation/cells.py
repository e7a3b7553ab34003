"""One cell: everything that fixes the law of a run, and the replicas of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import MAX_BATCH, check_dim, check_eta, finite, whole
from hdsgd.engines import find_engine
from hdsgd.parallel import Canceller
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem
from hdsgd.seeds import Children, cell_seed, child

if TYPE_CHECKING:
    from hdsgd.engines.base import Law, Outcomes, Run

__all__ = ["GROUP", "Cell"]

#: Replicas whose initial states are drawn together, and which an engine may advance together.
GROUP = 64


@dataclass(frozen=True)
class Cell:
    """Everything that fixes the law of a run but the number of its steps, and the seed; makes its replicas.

    A frozen value that can be pickled.

    Parameters
    ----------
    problem : Problem
    dim, batch : int
    lr : float
    initial : Initial
    engine : str
        Resolved to the name of the engine that runs.
    seed : int
    eta : float
        Threshold of weak recovery, in (0, 1).

    Raises
    ------
    SpecificationError
        If the engine or the initial distribution does not fit, or a number is out of range.
    """

    problem: Problem
    _: KW_ONLY
    dim: int
    batch: int
    lr: float
    initial: Initial
    engine: str = "auto"
    seed: int = 0
    eta: float = 0.5

    def __post_init__(self) -> None:
        checked = {
            "dim": check_dim(self.dim),
            "batch": whole("batch", self.batch, low=1, high=MAX_BATCH),
            "lr": finite("lr", self.lr, low=0.0, open_low=True),
            "eta": check_eta(self.eta),
            "seed": whole("seed", self.seed),
        }
        self.initial.check(self.problem, checked["dim"])  # type: ignore[arg-type]
        run_class = find_engine(self.engine, self.problem, checked["dim"])  # type: ignore[arg-type]
        for name, value in {**checked, "engine": run_class.name}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_run_class", run_class)

    def __reduce__(self) -> tuple[Any, ...]:
        # Texts instead of parsed functions and cached arrays, since cells travel to other machines.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["problem"], values["initial"]
        return _unpickled, (type(self), self.problem.to_json(), self.initial.to_json(), values)

    @property
    def specification(self) -> dict[str, Any]:
        """What fixes the law of the run; eta is not part of it: it observes the run and does not change it."""
        return {
            "problem": self.problem.to_dict(),
            "dim": self.dim,
            "batch": self.batch,
            "lr": self.lr,
            "initial": self.initial.to_dict(),
            "engine": self.engine,
        }

    @property
    def run_class(self) -> type[Run]:
        """The engine."""
        return self._run_class  # type: ignore[attr-defined]

    @cached_property
    def _seed(self) -> np.random.SeedSequence:
        addresses = {"problem": self.problem.address(), "initial": self.initial.address()}
        return cell_seed(self.seed, {**self.specification, **addresses})

    @property
    def _law(self) -> Law:
        from hdsgd.engines.base import Law

        return Law(self.problem, self.dim, self.batch, self.lr, self.eta)

    def replica(self, index: int, executor: Executor | None = None) -> Run:
        """Replica `index` at step 0: the same run whatever else is run, in whatever order."""
        X, seed = self._initial(index // GROUP)[index % GROUP], child(self._seed, index, 1)
        return self.run_class(self._law, X, seed, executor)

    def _initial(self, group: int) -> NDArray[np.float64]:
        """Initial coordinates of a whole group of replicas."""
        return self.initial.draw(self.problem, self.dim, np.random.default_rng(child(self._seed, group, 0)), GROUP)

    def recover(self, replicas: int, *, steps: int, max_cost: float, canceller: Canceller) -> Outcomes:
        """Run so many replicas, each until it recovers, diverges, or its steps or its work are spent.

        Raises
        ------
        hdsgd.parallel.Cancelled
            If `canceller` stopped them.
        """
        outcomes = []
        for first in range(0, replicas, GROUP):
            members = range(first, min(first + GROUP, replicas))
            X, seeds = self._initial(first // GROUP), Children(self._seed, [(index, 1) for index in members])
            start = X[: len(members)], seeds
            limits: dict[str, Any] = {"steps": steps, "max_cost": max_cost, "canceller": canceller}
            outcomes.append(self.run_class.recover(self._law, *start, **limits))
        return type(outcomes[0])(*(np.concatenate(arrays) for arrays in zip(*outcomes, strict=True)))


@lru_cache(maxsize=64)
def _problem(text: str) -> Problem:
    return Problem.from_json(text)


@lru_cache(maxsize=64)
def _initial(text: str) -> Initial:
    return Initial.from_json(text)


def _unpickled(kind: type[Cell], problem: str, initial: str, values: Mapping[str, Any]) -> Cell:
    return kind(problem=_problem(problem), initial=_initial(initial), **values)
