"""Phase diagrams: the weak-recovery time over the (μ, δ) plane, cell by cell, at one dimension or several."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import check_dims, instance, whole
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import DIM, REPLICAS, SEED, Plane, StopRule, Store, Workers
from hdsgd.problem.constraints import ALGORITHMS, Algorithm
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem, as_problem
from hdsgd.studies.runner import check_before, run_study
from hdsgd.studies.study import Index, Results, Study
from hdsgd.sweeps.assembling import DIMS, assemble
from hdsgd.sweeps.cells import SweepCell
from hdsgd.sweeps.plan import (
    Grid,
    Plan,
    automatic_initial,
    find_algorithms,
    in_order,
    make_grid,
    make_plan,
    steps_telling,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PhaseDiagram", "phase_diagram"]

logger = logging.getLogger("hdsgd")

#: Cost of starting a run (0.3 ms), in samples.
START_COST = 1e5


def phase_diagram(
    problem: Problem,
    *,
    dims: int | Sequence[int] = DIM,
    plane: Plane = Plane(),
    algorithms: Sequence[str | Algorithm] = tuple(ALGORITHMS),
    initial: Initial | str | None = None,
    stop: StopRule = StopRule(),
    replicas: int = REPLICAS,
    engine: str = "auto",
    seed: int = SEED,
    store: Store | str | os.PathLike[str] | None = None,
    workers: Workers = Workers(),
    progress: bool = False,
) -> xr.Dataset:
    """Simulate every cell of a (μ, δ) grid until it recovers or its steps are spent.

    Parameters
    ----------
    problem : Problem
        Target, student and noise; its loss and constraint are replaced by those of each algorithm.
    dims : int or sequence of int
        Input dimensions ``d``; distinct, put in increasing order.
    plane : Plane
        Grid of exponents, and prefactors.
    algorithms : sequence of str or Algorithm
        Names ("projected", "correlation", "spherical" and those registered), or records: a loss and a constraint under
        a name of one's own.  Results list those that come with hdsgd first, then others by alphabet.
    initial : Initial or str, optional
        By default random rows, or, where an odd exponent ℓ >= 3 makes the sign of the overlap decisive, positive ones.
    stop : StopRule
        Threshold of weak recovery, and the steps and the cost that a run may have.
    replicas : int
    engine, seed, progress
        As in `hdsgd.simulate`.
    store : Store or path, optional
        A ``.nc`` or ``.zarr`` file for the result; finished cells are kept beside it until the end.
    workers : Workers
        Threads, or a Dask cluster.

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
    hdsgd.studies.study.StoreError
        If `store` cannot be written, for example because the disk is full; an OSError.
    KeyboardInterrupt
        On an interruption; the message says what is kept.

    Examples
    --------
    >>> from hdsgd import Plane, Problem, phase_diagram
    >>> plane = Plane(mu=[0, 1], delta=[0, 1])
    >>> data = phase_diagram(Problem("he2", "he2"), dims=50, plane=plane, algorithms=["spherical"], replicas=2)
    >>> dict(data.sizes)
    {'algorithm': 1, 'dim': 1, 'mu': 2, 'delta': 2, 'replica': 2}
    """
    as_problem(problem)
    from hdsgd._compile import announced_compilation

    started = time.perf_counter()
    replicas, seed = whole("replicas", replicas, low=1), whole("seed", seed)
    sizes = check_dims(dims)
    instance("plane", plane, Plane)
    instance("stop", stop, StopRule)
    check_before(store, workers)
    found = find_algorithms(algorithms)
    with announced_compilation():
        plans = [make_plan(problem, algorithm, plane, stop.eta) for algorithm in found]
        specification = {
            "problem": problem.to_dict(),
            "algorithms": {
                plan.name: {
                    "loss": plan.problem.loss,
                    "constraint": plan.problem.constraint,
                    "n0": plan.n0,
                    "gamma0": plan.gamma0,
                    "exponent": plan.exponent,
                }
                for plan in plans
            },
            "dims": sizes, "mu": list(plane.mu), "delta": list(plane.delta),
            "initial": automatic_initial(initial, plans).to_dict(), "eta": stop.eta, "replicas": replicas,
            "max_steps": stop.max_steps, "max_cost": stop.max_cost, "engine": engine, "seed": seed,
        }  # fmt: skip
        study = PhaseDiagram(specification, {"drift": {plan.name: plan.drift for plan in plans}})
        study.check()
        return run_study(study, store=store, workers=workers, progress=progress, started=started)


class PhaseDiagram(Study):
    """A phase diagram as a study: the plan and the coordinates from the specification, cells, and the Dataset.

    ``resolved`` holds the drift coefficient of each algorithm.
    """

    kind = "phase-diagram"
    dims = DIMS
    grouped = 2

    def __init__(self, specification: Mapping[str, Any], resolved: Mapping[str, Any] | None = None) -> None:
        # JSON does not say in which order they were asked for, and cells are numbered in one.
        rules = specification["algorithms"]
        ordered = {name: rules[name] for name in in_order(rules)}
        super().__init__({**specification, "algorithms": ordered}, resolved)

    def resolve(self) -> dict[str, Any]:
        """The drift coefficients, from the moments of the problem."""
        spec, drift = self.specification, {}
        for name, rule in spec["algorithms"].items():
            algorithm = Algorithm(name, "", rule["loss"], rule["constraint"])
            plane = Plane(n0=rule["n0"], gamma0=rule["gamma0"])
            drift[name] = make_plan(self.problem, algorithm, plane, spec["eta"]).drift
        return {"drift": drift}

    @cached_property
    def problem(self) -> Problem:
        """Target, student and noise."""
        return Problem.from_dict(self.specification["problem"])

    @cached_property
    def initial(self) -> Initial:
        """The start."""
        return Initial.from_dict(self.specification["initial"])

    @cached_property
    def plans(self) -> list[Plan]:
        """The algorithms."""
        return [
            Plan(
                name,
                replace(self.problem, loss=rule["loss"], constraint=rule["constraint"]),
                rule["n0"],
                rule["gamma0"],
                self.resolved["drift"][name],
                rule["exponent"],
            )
            for name, rule in self.specification["algorithms"].items()
        ]

    @cached_property
    def grid(self) -> Grid:
        """Batch sizes, learning rates and step budgets."""
        return make_grid(self.plans, self.specification)

    def check(self) -> None:
        """Refuse an unfit engine, start or dimension, and say the step budgets that were chosen.

        Raises
        ------
        SpecificationError
        """
        allowed = self.grid.allowed
        for a, n in np.ndindex(allowed.shape[:2]):
            self.cell((a, n, 0, 0))
        if self.specification["max_steps"] == "auto":
            begun = allowed[allowed > 0]
            left_out = f"; {allowed.size - begun.size} of {allowed.size} cells cost more and are left out"
            logger.info(
                "max-steps auto: %.4g to %.4g steps a run, at most %.3g samples of cost%s",
                begun.min(initial=allowed.max()),
                allowed.max(),
                self.specification["max_cost"],
                left_out * (begun.size < allowed.size),
            )

    def labels(self, dim: str) -> list[str]:
        """Values along a dim."""
        values = self.specification["algorithms" if dim == "algorithm" else "dims" if dim == "dim" else dim]
        return [f"{value:g}" if isinstance(value, float) else str(value) for value in values]

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Times and statuses of the replicas."""
        shape = (self.specification["replicas"],)
        return {"recovery_time": ("i8", shape), "status": ("i1", shape)}

    def costs(self) -> NDArray[np.float64]:
        """What a cell may cost at most, in samples drawn; 0 for those that are left out."""
        grid, spec = self.grid, self.specification
        steps, batch = grid.allowed, grid.batch[..., None].astype(np.float64)
        cost = (np.minimum(steps * batch, spec["max_cost"]) + START_COST) * spec["replicas"]
        return np.where(steps > 0, cost, 0.0)

    def cell(self, index: Index) -> SweepCell:
        """One cell."""
        a, n, i, j = index
        spec, grid = self.specification, self.grid
        return SweepCell(
            problem=self.plans[a].problem,
            dim=spec["dims"][n],
            batch=int(grid.batch[a, n, i]),
            lr=float(grid.lr[a, n, j]),
            initial=self.initial,
            engine=spec["engine"],
            seed=spec["seed"],
            eta=spec["eta"],
            replicas=spec["replicas"],
            steps=int(grid.allowed[index]),
            steps_telling=steps_telling(float(grid.predicted[index]), spec["max_steps"]),
            max_cost=spec["max_cost"],
        )

    def blank(self) -> Results:
        """All cells pending but those that are left out as too costly."""
        results = super().blank()
        left_out = (self.grid.allowed == 0).ravel()
        results.state[left_out] = OUTCOMES["over_budget"]
        results.table["status"][left_out] = OUTCOMES["over_budget"]
        return results

    def assemble(self, results: Results) -> xr.Dataset:
        """Times, statuses, samples and, from several dims, exponents."""
        values = (self.values(results, name) for name in ("recovery_time", "status"))
        return assemble(self.specification, [plan.name for plan in self.plans], self.grid, *values)

    def describe(self) -> list[str]:
        """Problem and sweep."""
        spec, student = self.specification, self.specification["problem"]["student"]
        names, sizes = list(spec["algorithms"]), spec["dims"]
        return [
            f"problem {spec['problem']['target']['expression']} learnt by {student['activation']}, "
            f"width {student['width']}, noise {spec['problem']['noise']:g}; d = {', '.join(map(str, sizes))}",
            f"sweep   {len(spec['mu'])} x {len(spec['delta'])} cells x {len(names)} algorithm{'s' * (len(names) > 1)}"
            f"{f' x {len(sizes)} dimensions' if len(sizes) > 1 else ''} x {spec['replicas']} replicas; "
            f"mu {_span(spec['mu'])}, delta {_span(spec['delta'])}, eta {spec['eta']:g}, "
            f"engine {spec['engine']}, max-steps {spec['max_steps']}, max-cost {spec['max_cost']:g}, "
            f"seed {spec['seed']}",
        ]

    def place(self, index: Index) -> str:
        """A cell's place in words."""
        name, dim, mu, delta = (self.labels(what)[i] for what, i in zip(DIMS, index, strict=True))
        return f"{name} at d = {dim}, mu = {mu}, delta = {delta}"


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} ... {values[-1]:g}"
