"""Types of a step as the kernels see it, and codes in them."""

from __future__ import annotations

from typing import NamedTuple

from hdsgd.problem._table_types import ErrorRule

# Entries of the int64 array `progress`, which a kernel updates in place.
STEP, RECOVERY, STATUS, COST = range(4)
# Values of progress[STATUS].
RUNNING, DIVERGED = range(2)


class Rule(NamedTuple):
    """How to take one step."""

    errors: ErrorRule
    tangential: bool  # the part of the gradient along a row is removed before the step
    normalised: bool  # rows are divided by their norms after it
    batch: int
    lr: float
    decay: float  # the learning rate is lr * (1 + step - decay_start)^-decay
    decay_start: int


class StopAt(NamedTuple):
    """When to stop: after `steps` steps, once ||M||_F^2 >= eta2 if `at_recovery`, or once progress[COST] >= cost."""

    steps: int
    eta2: float
    at_recovery: bool
    cost: int
