# mypy: ignore-errors
"""What the engines share: the rule of a step, and its bookkeeping."""

from typing import NamedTuple

from hdsgd._compile import inlined
from hdsgd.problem._table_types import ErrorRule

# Entries of the int64 array `progress`, which a kernel updates in place.
STEP, RECOVERY, STATUS, COST = range(4)
# Values of progress[STATUS].
RUNNING, DIVERGED = range(2)
LARGEST = 1.7e308


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


@inlined
def learning_rate(rule, step):
    if rule.decay == 0.0:
        return rule.lr
    return rule.lr * (1.0 + (step - rule.decay_start)) ** (-rule.decay)


@inlined
def dot(x, y):
    total = 0.0
    for s in range(len(x)):
        total += x[s] * y[s]
    return total


@inlined
def record_step(progress, stop_at, overlap2, cost):
    """Count a step that cost `cost` and whose new overlap has ||M||_F^2 = overlap2; return whether to stop."""
    progress[STEP] += 1
    progress[COST] += cost
    # Not isfinite: it is compiled as x - x == 0, which reassociation may make true of a sum that is nan.
    if not overlap2 <= LARGEST:
        progress[STATUS] = DIVERGED
        return True
    if progress[RECOVERY] < 0 and overlap2 >= stop_at.eta2:
        progress[RECOVERY] = progress[STEP]
    return (stop_at.at_recovery and progress[RECOVERY] >= 0) or progress[COST] >= stop_at.cost
