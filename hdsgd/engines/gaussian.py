"""Engines whose cost does not depend on the batch size: Gaussian batch sums, many steps as one (theory §3)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from hdsgd.engines import _gaussian_kernels as kernels
from hdsgd.engines._step_types import DIVERGED, RECOVERY, STATUS, STEP, StopAt
from hdsgd.engines._stream_types import SEED_WORDS, new_streams
from hdsgd.engines._summand_kernels import formula_covariance, formula_population, new_formula, new_quadrature
from hdsgd.engines.base import MAX_COST, Floats, Law, Outcomes, State
from hdsgd.engines.reduced import ReducedRun, overlap_squares
from hdsgd.errors import SpecificationError
from hdsgd.moments._table_types import ErfTables, LinkTables, PolynomialTables, QuadraticTables
from hdsgd.moments.tables import moment_tables
from hdsgd.parallel import Cancelled, Canceller
from hdsgd.problem._table_types import OWN, ErrorRule
from hdsgd.problem.activations import ACTIVATIONS
from hdsgd.problem.arrays import tabulate
from hdsgd.problem.model import Problem
from hdsgd.seeds import Children

__all__ = ["AutoRun", "GaussianRun", "summand_tails"]

#: Most entries of a batch sum, p (k + p): their covariance has the square of this.
MAX_ENTRIES = 256
#: Cost of the moments of one state, in samples drawn: ratios of times measured for p, k from 1 to 4.
COSTS = {QuadraticTables: 200, ErfTables: 70, PolynomialTables: 900, LinkTables: 100_000}
#: The same for quadrature: a constant, and so much for each point.  It is exact, and may cost this much more.
POINT_COSTS, PREFERENCE = (150, 0.6), 1.3
#: The covariance takes two more moments for each pair of directions; by quadrature so much for each point and p².
COVARIANCE_COST = 0.2
#: Overlaps at which the tails of the summands are tabulated, and samples of each.
TAIL_POINTS, TAIL_SAMPLES = 6, 2**16


class GaussianRun(ReducedRun):
    """Gaussian batch sums and tau-leaps where they hold, decided at every step from population moments, or exact sums.

    The state is that of `ReducedRun`.  Tau-leaps end at the steps asked of `advance`, so a run advanced in two parts
    takes others, and has other random numbers, than one advanced at once; its law is the same within the accuracy of
    the engine.  Saved and restored at the same step it goes on bit for bit.
    """

    name = "moment"
    exact = False
    cheapest: ClassVar[bool] = False

    @classmethod
    def invalid(cls, problem: Problem, dim: int) -> str | None:
        if reason := super().invalid(problem, dim):
            return reason
        entries = problem.p * (problem.p + problem.k)
        if entries > MAX_ENTRIES:
            return f"the {cls.name} engine needs p (p + k) <= {MAX_ENTRIES}, not {entries}; use engine 'reduced'"
        links = (*problem.student.function.links, *problem.target.function.links)
        own = [f"loss {loss.name!r}" for loss in problem.phases if loss.error is not None]
        own += [f"activation {link.name!r}" for link in links if ACTIVATIONS[link.name].code == OWN]
        if own:
            return f"the {cls.name} engine needs closed population moments, which {own[0]} has none of"
        try:
            moment_tables(problem)
        except SpecificationError as error:
            return f"the {cls.name} engine needs population moments: {error}"
        return None

    def start(self, X: Floats, seed: np.random.SeedSequence) -> None:
        super().start(X, seed)
        self._source, self._costs = moment_source(self.problem)
        self._tails = summand_tails(self.problem)
        self._room = kernels.new_workspace(self.problem.p, self.problem.k)
        noise = kernels.new_noise(1, self.problem.p, self.problem.k)
        self._noise = kernels.Noise(*(array[0] for array in noise))
        alone = (self._X, *self._stream, *self._noise, self._progress)
        self._states = kernels.States(*(array[None] for array in alone))

    def _advance(self, stop_at: StopAt) -> None:
        self._advance_states(stop_at, self._states)

    def _advance_states(self, stop_at: StopAt, states: kernels.States) -> None:
        kernels.advance(
            self._source, self.tables, self._tails, self.cheapest, self._costs, self._rule(), stop_at, states, self.dim,
            *self._room, self._workspace, self._cancel,
        )  # fmt: skip

    @classmethod
    def recover(
        cls, law: Law, X: Floats, seeds: Children, *, steps: int, max_cost: float, canceller: Canceller
    ) -> Outcomes:
        problem, eta = law.problem, law.eta
        if len(problem.phases) == 2:  # a switch, which is watched from outside the kernel
            return super().recover(law, X, seeds, steps=steps, max_cost=max_cost, canceller=canceller)
        # One call of the kernel for all: what a call takes, and what making a run takes, is as long as many runs.
        first = cls(law, X[0], next(iter(seeds)))
        progress = np.repeat(first._states.progress, len(X), axis=0)
        progress[:, RECOVERY] = np.where(overlap_squares(X, first.tables) >= eta**2, 0, -1)
        streams, noise = new_streams(seeds.generate_state(SEED_WORDS)), kernels.new_noise(len(X), problem.p, problem.k)
        states = kernels.States(*(X.copy(), *streams, *noise, progress))
        with canceller.covering(first):
            first._advance_states(StopAt(steps, eta**2, True, int(min(max_cost, MAX_COST))), states)
        if first._cancel[0]:
            raise Cancelled
        return Outcomes(progress[:, STEP], progress[:, RECOVERY], progress[:, STATUS] == DIVERGED)

    def arrays(self) -> State:
        return {**super().arrays(), **{f"noise_{name}": array for name, array in self._noise._asdict().items()}}


class AutoRun(GaussianRun):
    """As `GaussianRun`, but with exact sums wherever they cost less."""

    name = "auto"
    cheapest = True


def quadrature_nodes(problem: Problem) -> int:
    """Gauss-Hermite nodes for each direction of the span; 0 for functions that are no polynomials.

    The covariance is an integral of ``c_j c_l u_b u_h``, of degree ``2 (deg σ - 1 + max(deg σ, deg h*)) + 2``.
    """
    sigma, h = problem.student.function, problem.target.function
    return sigma.degree + 1 + max(sigma.degree, h.degree) if sigma.is_polynomial and h.is_polynomial else 0


def moment_source(problem: Problem) -> tuple[Any, kernels.Costs]:
    """Where the moments of a state come from, and what they cost."""
    p, k = problem.p, problem.k
    tables = moment_tables(problem)
    if nodes := quadrature_nodes(problem):
        points = nodes ** (p + k) * (2 if problem.noise > 0 else 1)
        cost = POINT_COSTS[0] + POINT_COSTS[1] * points
        if cost <= PREFERENCE * COSTS[type(tables)]:
            costs = kernels.Costs(int(cost), int(COVARIANCE_COST * points * p**2))
            return new_quadrature(nodes, p, k, problem.noise), costs
    if type(tables) not in _compiled:
        # `advance`, compiled without reference counting (`plain_kernel`), cannot compile what allocates.
        formula, summands = new_formula(tables, p, k), kernels.new_workspace(p, k)[0]
        errors, size = ErrorRule(True, 0), p * (k + p)
        formula_population(formula, tabulate(problem), errors, np.eye(p, k + p, k), summands)
        formula_covariance(formula, tabulate(problem), errors, summands, np.zeros((size, size)))
        _compiled.add(type(tables))
    cost = COSTS[type(tables)]
    return new_formula(tables, p, k), kernels.Costs(cost, cost * (k + p) * (k + p + 1))


_compiled: set[type] = set()


@lru_cache(maxsize=64)
def summand_tails(problem: Problem) -> Floats:
    """Excess kurtosis of the summands of H, and relative variance of those of C, whichever is largest.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    ndarray of shape (2, TAIL_POINTS)
        For the square and for the correlation loss, at overlaps |M_j| from 0 to 1 of every row with one teacher
        direction, the parts outside the teacher span orthogonal to each other.  Estimated from the same samples at
        every call: events too rare to be seen among them do not shape a sum of as many terms either.
    """
    p, k = problem.p, problem.k
    rng = np.random.default_rng(0)
    sigma, h, a = problem.student.function, problem.target.function, problem.student.a[:, None] / p
    tails = np.empty((2, TAIL_POINTS))
    u = rng.standard_normal((k + p, TAIL_SAMPLES))
    label = h(problem.target.gram_root @ u[:k]) + np.sqrt(problem.noise) * rng.standard_normal(TAIL_SAMPLES)
    for n, m in enumerate(np.linspace(0.0, 1.0, TAIL_POINTS)):
        overlap = min(m, 1.0 - 1e-3)
        fields = np.sqrt(1.0 - overlap**2) * u[k:]
        for j in range(p):
            fields[j] += overlap * u[j % k]
        values = np.array([sigma(field[None]) for field in fields])
        slopes = a * sigma.derivative(fields)
        for row, error in enumerate((np.sum(a * values, axis=0) - label, -label)):
            c = slopes * error
            tails[row, n] = max(_excess_kurtosis(c[j] * v) for j in range(p) for v in (u[j % k], u[k + j]))
            tails[row, n] = max(tails[row, n], *(float(np.mean(x**4) / np.mean(x**2) ** 2 - 1.0) for x in c))
    return tails


def _excess_kurtosis(x: Floats) -> float:
    x = x - x.mean()
    return float(np.mean(x**4) / np.mean(x**2) ** 2 - 3.0)
