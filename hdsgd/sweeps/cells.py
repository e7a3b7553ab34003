"""One cell of a phase diagram: a frozen value that holds all its outcome depends on, from plan to worker to store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdsgd.outcomes import OUTCOMES
from hdsgd.simulation.cells import Cell
from hdsgd.studies.study import Context

__all__ = ["SweepCell"]


@dataclass(frozen=True, kw_only=True)
class SweepCell(Cell):
    """All replicas of one cell, each until it recovers or gives up.

    Parameters
    ----------
    replicas : int
    steps : int
        Steps that a run may take.
    steps_telling : float
        Steps after which not having recovered means something.
    max_cost : float
        Cost that a run may have, in samples drawn.
    """

    replicas: int
    steps: int
    steps_telling: float
    max_cost: float

    def run(self, context: Context) -> Mapping[str, Any]:
        """``recovery_time`` (replica,), where there was no recovery the last step, and ``status`` (replica,)."""
        found = self.recover(self.replicas, steps=self.steps, max_cost=self.max_cost, canceller=context.canceller)
        recovered = found.recovery_step >= 0
        silent = np.where(found.step >= self.steps_telling, OUTCOMES["censored"], OUTCOMES["over_budget"])
        status = np.where(recovered, OUTCOMES["recovered"], np.where(found.diverged, OUTCOMES["diverged"], silent))
        return {"recovery_time": np.where(recovered, found.recovery_step, found.step), "status": status}
