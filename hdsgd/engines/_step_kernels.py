# mypy: ignore-errors
"""What both exact engines share: per-sample gradient coefficients, and the bookkeeping of a step.

Index legend: j, l student rows (p); r teacher rows (k); s samples of a block (n).

A block of samples is stored as rows of n numbers, one row per field, laid end to end in a one-dimensional array
(`row` cuts one out), so that every inner loop runs over contiguous samples and vectorises, for any n.
"""

import math
from typing import NamedTuple

from hdsgd._compile import inlined, inner
from hdsgd.problem.arrays import ERF, RELU

# Entries of the int64 array `progress`, which a kernel updates in place.
STEP, RECOVERY, STATUS, COST = range(4)
# Values of progress[STATUS].
RUNNING, DIVERGED = range(2)
LARGEST = 1.7e308
# Codes of the constraint.
PROJECTED, SPHERICAL, UNCONSTRAINED = range(3)


class Rule(NamedTuple):
    """How to take one step."""

    square_loss: bool  # square loss, else correlation loss
    constraint: int
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


@inner
def polynomial(coefs, x, out):
    """out = Σ_m coefs[m] x^m by Horner's rule, four coefficients a pass; their number is a multiple of four."""
    for s in range(len(x)):
        out[s] = 0.0
    for m in range(len(coefs) - 4, -1, -4):
        c3, c2, c1, c0 = coefs[m + 3], coefs[m + 2], coefs[m + 1], coefs[m]
        for s in range(len(x)):
            out[s] = (((out[s] * x[s] + c3) * x[s] + c2) * x[s] + c1) * x[s] + c0


@inner
def add_link(code, scale, coef, x, out):
    """out += coef φ(scale x); codes as in hdsgd.tables."""
    if code == RELU:
        for s in range(len(x)):
            out[s] += coef * max(scale * x[s], 0.0)
    elif code == ERF:
        for s in range(len(x)):
            out[s] += coef * math.erf(scale * x[s])
    else:
        for s in range(len(x)):
            out[s] += coef * math.tanh(scale * x[s])


@inner
def add_link_slope(code, scale, coef, x, out):
    """out += d/dx coef φ(scale x)."""
    factor = coef * scale
    if code == RELU:
        for s in range(len(x)):
            out[s] += factor if scale * x[s] > 0.0 else 0.0
    elif code == ERF:
        factor *= 2.0 / math.sqrt(math.pi)
        for s in range(len(x)):
            out[s] += factor * math.exp(-((scale * x[s]) ** 2))
    else:
        for s in range(len(x)):
            out[s] += factor * (1.0 - math.tanh(scale * x[s]) ** 2)


@inlined
def row(flat, j, n):
    """Row j of a block."""
    return flat[j * n : (j + 1) * n]


@inlined
def subtract_target(tables, teacher, error, work):
    """error -= h*(λ*), `teacher` holding one row per direction; `work` is one row of scratch."""
    n = len(error)
    for r in range(tables.additive.shape[0]):
        polynomial(tables.additive[r], row(teacher, r, n), work)
        for s in range(n):
            error[s] -= work[s]
    for t in range(len(tables.cross_coefs)):
        coef = tables.cross_coefs[t]
        for s in range(n):
            work[s] = coef
        for r in range(tables.cross_exponents.shape[1]):
            field = row(teacher, r, n)
            for _ in range(tables.cross_exponents[t, r]):
                for s in range(n):
                    work[s] *= field[s]
        for s in range(n):
            error[s] -= work[s]
    for u in range(len(tables.target_codes)):
        field = row(teacher, tables.target_indices[u], n)
        add_link(tables.target_codes[u], tables.target_scales[u], -tables.target_link_coefs[u], field, error)


@inner
def coefficients(tables, square_loss, student, teacher, error, c, work):
    """Gradient coefficients of a block of samples: c_j = (a_j/p) σ'(λ_j) e (theory §1).

    On entry the row `error` holds minus the label noise; on return e = f - y (square loss) or -y (correlation loss).
    """
    n = len(error)
    subtract_target(tables, teacher, error, work)
    for j in range(len(tables.output)):
        field, slope, weight = row(student, j, n), row(c, j, n), tables.output[j]
        if square_loss:
            polynomial(tables.activation, field, work)
            for u in range(len(tables.activation_codes)):
                add_link(
                    tables.activation_codes[u], tables.activation_scales[u], tables.activation_coefs[u], field, work
                )
            for s in range(n):
                error[s] += weight * work[s]
        polynomial(tables.slope, field, slope)
        for u in range(len(tables.activation_codes)):
            add_link_slope(
                tables.activation_codes[u], tables.activation_scales[u], tables.activation_coefs[u], field, slope
            )
    for j in range(len(tables.output)):
        slope, weight = row(c, j, n), tables.output[j]
        for s in range(n):
            slope[s] *= weight * error[s]


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
