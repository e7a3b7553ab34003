"""The direct engine: d-dimensional vectors, simulated as the model is written (theory §1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hdsgd.engines import _direct_kernels as kernels
from hdsgd.engines._normal_kernels import Stream, new_stream
from hdsgd.engines._step_kernels import Rule, Until
from hdsgd.engines.base import Floats, Overlaps, Run
from hdsgd.model import Problem
from hdsgd.seeds import child

__all__ = ["DirectRun"]

# A step of more numbers than this is split into groups of samples that threads can share.  Each group has its own
# random stream and the groups' gradients are added in a fixed order, so the number of groups, which depends on d and
# n_b alone, is part of the result and the number of threads is not.
GROUP_NUMBERS = 2**22
MAX_GROUPS = 8

# Memory the rows and their gradients may take; beyond it the reduced engine is the tool.
MAX_BYTES = 8 * 2**30


class DirectRun(Run):
    """Student and teacher rows in d dimensions; memory O((p + k) d), whatever the batch size."""

    name = "direct"

    @staticmethod
    def invalid(problem: Problem, dim: int) -> str | None:
        if dim < problem.k + 1:
            return f"the direct engine needs dim > k = {problem.k}, not {dim}"
        size = 8 * dim * ((3 + MAX_GROUPS) * problem.p + 2 * problem.k)
        if size > MAX_BYTES:
            return f"the direct engine would need {size / 2**30:.0f} GiB at dim = {dim}; use engine 'reduced'"
        return None

    def _start(self, X: Floats, seed: np.random.SeedSequence) -> None:
        p, k, d = self.problem.p, self.problem.k, self.dim
        frame_seed = child(seed, 0)
        # The coordinates are relative to orthonormal directions; those are taken uniformly at random.  For d < k + p
        # the coordinates beyond the d-th are zero (see `hdsgd.initial`).
        size = min(k + p, d)
        frame = np.linalg.qr(np.random.default_rng(frame_seed).standard_normal((d, size)))[0].T
        self._rows = np.empty((p + k, d))  # students above teachers
        self._rows[:p] = X[:, :size] @ frame
        self._rows[p:] = self.problem.target.gram_root @ frame[:k]
        self._groups = max(1, min(MAX_GROUPS, self.batch * d // GROUP_NUMBERS, self.batch))
        self._streams: list[Stream] = [new_stream(child(seed, 1, g)) for g in range(self._groups)]
        self._gradients = np.empty((self._groups, p, d))
        self._scratch = [kernels.new_scratch(p, k, d, self.batch) for _ in range(self._groups)]

    def _advance(self, rule: Rule, until: Until) -> None:
        rows, gradients, progress, cancel = self._rows, self._gradients, self._progress, self._cancel
        if self._groups == 1:
            stream, scratch = self._streams[0], self._scratch[0]
            kernels.advance(self.tables, rule, until, rows, stream, gradients, scratch, progress, cancel)
            return

        def accumulate(g: int) -> None:
            samples = rule.batch // self._groups + (g < rule.batch % self._groups)
            stream, scratch = self._streams[g], self._scratch[g]
            kernels.accumulate(self.tables, rule.square_loss, rows, stream, samples, gradients[g], scratch, cancel)

        for _ in range(until.steps):
            for _ in (self.executor.map if self.executor else map)(accumulate, range(self._groups)):
                pass
            if cancel[0] or kernels.finish_step(rule, until, rows, gradients, progress):
                return

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        streams = {
            f"stream_{g}_{name}": array for g, s in enumerate(self._streams) for name, array in s._asdict().items()
        }
        return {"rows": self._rows, **streams}

    def overlaps(self) -> Overlaps:
        p = self.problem.p
        W, teacher = self._rows[:p], self._rows[p:]
        M, Q = W @ teacher.T, W @ W.T
        rest = W - np.linalg.lstsq(teacher @ teacher.T, M.T, rcond=None)[0].T @ teacher
        return Overlaps(M, Q, (rest**2).sum(axis=1) / np.diag(Q))
