"""What became of a run: one vocabulary for simulations, sweeps and trained networks."""

from __future__ import annotations

__all__ = ["OUTCOMES"]

#: Codes of the variable ``status``.
OUTCOMES = {
    "recovered": 0,  # reached what it was to reach: the threshold of weak recovery, or the target of a training
    "censored": 1,  # took all steps allowed without that
    "over_budget": 2,  # cut short, or not begun, by its cost, before it had taken enough steps to tell
    "diverged": 3,  # its state stopped being finite
    "failed": 4,  # raised an error, which is recorded in the attributes
    "pending": -1,  # not run so far
}
