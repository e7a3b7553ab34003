"""The reduced engine: the exact Markov chain of the overlaps (theory §2), at a cost independent of d."""

from __future__ import annotations

import numpy as np

from hdsgd.engines import _reduced_kernels as kernels
from hdsgd.engines._step_types import StopAt
from hdsgd.engines._stream_types import Stream, new_stream
from hdsgd.engines.base import Floats, Overlaps, Run, State
from hdsgd.problem._table_types import Tables
from hdsgd.problem.initial import overlaps_of
from hdsgd.problem.model import Problem

__all__ = ["ReducedRun", "overlap_squares"]


def overlap_squares(X: Floats, tables: Tables) -> Floats:
    """``||M||_F²`` (n,) of coordinates X (n, p, k + p)."""
    M = X[..., : len(tables.gram_root)] @ tables.gram_root.T
    return np.asarray((M * M).sum(axis=(-2, -1)))


class ReducedRun(Run):
    """In-span fields and Wishart-distributed rest; memory O((p + k)²) (theory §2)."""

    name = "reduced"

    @classmethod
    def invalid(cls, problem: Problem, dim: int) -> str | None:
        least = problem.k + 2 * problem.p
        if dim < least:
            return (
                f"the {cls.name} engine needs dim >= k + 2p = {least} for this problem, not {dim}; use engine 'direct'"
            )
        return None

    def start(self, X: Floats, seed: np.random.SeedSequence) -> None:
        self._X = np.ascontiguousarray(X, dtype=np.float64).copy()
        self._stream: Stream = new_stream(seed)
        self._workspace = kernels.new_workspace(self.problem.p, self.problem.k, self.batch)

    def _advance(self, stop_at: StopAt) -> None:
        kernels.advance(
            self.tables, self._rule(), stop_at, self._X, self._stream, self.dim, self._workspace, self._progress,
            self._cancel,
        )  # fmt: skip

    def arrays(self) -> State:
        return {"X": self._X, **{f"stream_{name}": array for name, array in self._stream._asdict().items()}}

    def _overlap2(self) -> float:
        return float(overlap_squares(self._X[None], self.tables)[0])

    def overlaps(self) -> Overlaps:
        M, Q = overlaps_of(self._X, self.problem)
        outside = (self._X[:, self.problem.k :] ** 2).sum(axis=1)
        with np.errstate(invalid="ignore"):  # 0/0 and ∞/∞ of a divergence
            return Overlaps(M, Q, outside / np.diag(Q))
