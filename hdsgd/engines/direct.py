"""The direct engine: d-dimensional vectors, simulated as the model is written (theory §1)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from hdsgd.engines import _direct_kernels as kernels
from hdsgd.engines._step_types import Rule, StopAt
from hdsgd.engines._stream_types import Stream, Stream32, new_stream, new_stream32
from hdsgd.engines.base import Floats, Overlaps, Run, State
from hdsgd.problem.model import Problem
from hdsgd.seeds import child

__all__ = ["Direct32Run", "DirectRun"]

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
    dtype: ClassVar[type[np.floating]] = np.float64

    @classmethod
    def invalid(cls, problem: Problem, dim: int) -> str | None:
        if dim < problem.k + 1:
            return f"the direct engine needs dim > k = {problem.k}, not {dim}"
        size = 8 * dim * ((3 + MAX_GROUPS) * problem.p + 2 * problem.k)
        if size > MAX_BYTES:
            return f"the direct engine would need {size / 2**30:.0f} GiB at dim = {dim}; use engine 'reduced'"
        return None

    def start(self, X: Floats, seed: np.random.SeedSequence) -> None:
        p, k, d = self.problem.p, self.problem.k, self.dim
        frame_seed = child(seed, 0)
        # The coordinates are relative to orthonormal directions; those are taken uniformly at random.  For d < k + p
        # the coordinates beyond the d-th are zero (see `hdsgd.problem.initial`).
        size = min(k + p, d)
        frame = np.linalg.qr(np.random.default_rng(frame_seed).standard_normal((d, size)))[0].T
        self._rows = np.empty((p + k, d))  # students above teachers
        self._rows[:p] = X[:, :size] @ frame
        self._rows[p:] = self.problem.target.gram_root @ frame[:k]
        self._groups = max(1, min(MAX_GROUPS, self.batch * d // GROUP_NUMBERS, self.batch))
        self._streams = [self._new_stream(child(seed, 1, g)) for g in range(self._groups)]
        self._gradients = np.empty((self._groups, p, d))
        self._workspace = [kernels.new_workspace(p, k, d, self.batch, self.dtype) for _ in range(self._groups)]

    @staticmethod
    def _new_stream(seed: np.random.SeedSequence) -> Stream | Stream32:
        return new_stream(seed)

    def _accumulate(self, rule: Rule, samples: int, g: int) -> None:
        kernels.accumulate(
            self.tables, rule.errors, self._rows, self._streams[g], samples, self._gradients[g], self._workspace[g],
            self._cancel,
        )  # fmt: skip

    def _advance(self, stop_at: StopAt) -> None:
        rule = self._rule()
        if self._groups > 1:
            self._advance_in_groups(rule, stop_at)
            return
        kernels.advance(
            self.tables, rule, stop_at, self._rows, self._streams[0], self._gradients, self._workspace[0],
            self._progress, self._cancel,
        )  # fmt: skip

    def _advance_in_groups(self, rule: Rule, stop_at: StopAt) -> None:
        counts = [rule.batch // self._groups + (g < rule.batch % self._groups) for g in range(self._groups)]
        for _ in range(stop_at.steps):
            parts = (self.executor.map if self.executor else map)(
                partial(self._accumulate, rule), counts, range(self._groups)
            )
            for _ in parts:
                pass
            if self._cancel[0] or kernels.finish_step(rule, stop_at, self._rows, self._gradients, self._progress):
                return

    def arrays(self) -> State:
        streams = {
            f"stream_{g}_{name}": array for g, s in enumerate(self._streams) for name, array in s._asdict().items()
        }
        return {"rows": self._rows, **streams}

    def overlaps(self) -> Overlaps:
        p = self.problem.p
        return Overlaps.of_rows(self._rows[:p], self._rows[p:])


class Direct32Run(DirectRun):
    """As `DirectRun` with inputs and fields in single precision; rows, coefficients and gradients stay in double.

    Relative errors of the fields are about 1e-7 √d; inputs have tails to 6.7 standard deviations.
    """

    name = "direct32"
    dtype = np.float32

    @staticmethod
    def _new_stream(seed: np.random.SeedSequence) -> Stream | Stream32:
        return new_stream32(seed)

    def _accumulate(self, rule: Rule, samples: int, g: int) -> None:
        kernels.accumulate32(
            self.tables, rule.errors, self._rows32, self._streams[g], samples, self._gradients[g],
            self._workspace[g], self._cancel,
        )  # fmt: skip

    def _advance(self, stop_at: StopAt) -> None:
        rule = self._rule()
        for _ in range(stop_at.steps):
            with np.errstate(over="ignore"):  # a row beyond single precision has diverged, and is found to have
                self._rows32 = self._rows.astype(np.float32)
            before = self.step
            self._advance_in_groups(rule, stop_at._replace(steps=1))
            stop = stop_at.at_recovery and self.recovery_step is not None
            if self.step == before or self.diverged or stop or self.cost >= stop_at.cost:
                return
