# mypy: ignore-errors
"""What the engines share in a step: its learning rate, and its bookkeeping."""

from hdsgd._compile import inlined
from hdsgd.engines._step_types import COST, DIVERGED, RECOVERY, STATUS, STEP

LARGEST = 1.7e308


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
