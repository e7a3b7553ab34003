# mypy: ignore-errors
"""Steps of the overlaps' chain with Gaussian batch sums, one at a time or many as one, a tau-leap [1]_ (theory §3,
'Large batches').

The sums H and C of theory §2 are sums of n_b independent terms: H is drawn from the Gaussian with its exact mean and
covariance, C is set to its mean (its own fluctuations are smaller by the factor that decides whether the Gaussian
holds).  The moments come from `_summand_kernels`, at a cost that depends on neither d nor n_b.

State and coordinates are those of `_reduced_kernels`.  Index legend: j, l student rows (p); b, h basis vectors of the
span (r = k + p); i = (j, b) entries of H; fields (p + k) as in `hdsgd.moments._polynomial_kernels`.

References
----------
.. [1] D. T. Gillespie, "Approximate accelerated stochastic simulation", J. Chem. Phys. 115 (2001), 1716.
"""

import math
from typing import NamedTuple

import numpy as np

from hdsgd._compile import inlined, inner, plain_kernel
from hdsgd.engines import _reduced_kernels as reduced
from hdsgd.engines._normal_kernels import normals
from hdsgd.engines._step_kernels import learning_rate, record_step
from hdsgd.engines._step_types import COST, RECOVERY, RUNNING, STATUS, STEP, StopAt
from hdsgd.engines._stream_types import Stream
from hdsgd.engines._summand_kernels import Summands, population, summand_covariance

# What a state may change by in one tau-leap.  Means: of the size of an overlap or of a row's part outside the teacher
# span; noise: standard deviation, of the size of an overlap; fresh: share of the squared norm that is new noise.
MEAN_CHANGE, NOISE_CHANGE, FRESH = 0.05, 0.2, 0.1
# Steps are taken as one from this many on: a tau-leap costs about two single steps, and is not exact in the mean.
SHORTEST_TAU_LEAP = 4
# Sums count as Gaussian when the excess kurtosis of the sum over the steps in which the state changes is below this.
GAUSSIAN = 0.02
# Coordinates may move by this before the covariance of the summands is computed anew.
STALE = 0.01
# What an exact step costs beside its samples, in samples.
OVERHEAD = 30
# Evaluating the state costs as much as many a step.  Where it asks for exact steps again and again, each burst of them
# is twice as long as the last, up to so many times the cost of an evaluation; being late by that costs nothing either.
LONGEST_BURST = 64


class States(NamedTuple):
    """States of several runs, along the first axis: that of a `ReducedRun`, `Noise`, and the progress."""

    X: np.ndarray
    lanes: np.ndarray
    buffer: np.ndarray
    position: np.ndarray
    loss: np.ndarray
    reference: np.ndarray
    covariance: np.ndarray
    root: np.ndarray
    progress: np.ndarray


class Noise(NamedTuple):
    """Covariance of the entries of c u, which is part of the state of a run: it is renewed only when due."""

    loss: np.ndarray  # (1,) the loss and
    reference: np.ndarray  # (p, r) the coordinates for which it holds
    covariance: np.ndarray  # (p r, p r)
    root: np.ndarray  # (p r, p r) its Cholesky root


class Costs(NamedTuple):
    """Cost of the moments of a state and of their covariance, in samples drawn."""

    state: int
    covariance: int


class Motion(NamedTuple):
    """What one step does to each row on average, without what normalisation undoes."""

    drift: np.ndarray  # (p, r) mean displacement within the span
    rate: np.ndarray  # (p,) learning rate of the tangential gradient
    fresh: np.ndarray  # (p,) squared norm of the noise


class Workspace(NamedTuple):
    """Room for what a step computes."""

    normal: np.ndarray  # (p r,)
    V: np.ndarray  # (p, r)
    middle: np.ndarray  # (p, r)
    product: np.ndarray  # (p, p)
    root: np.ndarray  # (p, p)
    bartlett: np.ndarray  # (p, p)
    orthogonal: np.ndarray  # (p, 2 p)


def new_noise(n, p, k):
    """Noise of n runs, along the first axis, before its first use."""
    rows, entries = (n, p, k + p), (n, p * (k + p), p * (k + p))
    return Noise(np.full((n, 1), -1.0), *(np.zeros(shape) for shape in (rows, entries, entries)))


def new_workspace(p, k):
    """Summands, Motion and Workspace."""
    square, rows = (p, p), (p, k + p)
    groups = (
        (Summands, (rows, square)),
        (Motion, (rows, (p,), (p,))),
        (Workspace, ((p * (k + p),), rows, rows, square, square, square, (p, 2 * p))),
    )
    return [kind(*(np.zeros(shape) for shape in shapes)) for kind, shapes in groups]


@inner
def renew_covariance(t, tables, errors, X, m, noise):
    """Compute the covariance of the summands at X (where `population` was called last) and its root, if due."""
    loss = 1.0 if errors.with_output else 0.0
    change = 0.0 if noise.loss[0] == loss else 1.0
    noise.loss[0] = loss
    for j in range(X.shape[0]):
        for b in range(X.shape[1]):
            change = max(change, abs(X[j, b] - noise.reference[j, b]))
    if change <= STALE:
        return 0
    summand_covariance(t, tables, errors, m, noise.covariance)
    reduced.cholesky(noise.covariance, noise.root)
    for j in range(X.shape[0]):
        for b in range(X.shape[1]):
            noise.reference[j, b] = X[j, b]
    return 1


@inner
def tangential(rule, gamma, dim, X, m, covariance, motion, V):
    """Mean displacement and new noise of one step, for tau-leaps: into `motion`.

    normalise(w - γ g) = normalise(w - (γ/s) g_t) with g_t the part of g orthogonal to w and s = 1 - γ g·w/|w|²: a
    projected step is a spherical one of learning rate γ/s.  The fluctuations of s correlate with those of g_t, which
    gives the mean displacement its second term.  Returns False where one step may turn a row around, or its length is
    mostly noise: nothing is slow there.
    """
    p, r = X.shape
    for j in range(p):
        radial, norm2, trace, along = 0.0, 0.0, 0.0, 0.0
        for b in range(r):
            radial += m.mean[j, b] * X[j, b]
            norm2 += X[j, b] ** 2
        for b in range(r):
            total = 0.0
            for h in range(r):
                total += covariance[j * r + b, j * r + h] * X[j, h]
            V[j, b] = total
            trace += covariance[j * r + b, j * r + b]
            along += total * X[j, b]
        if not rule.tangential and not rule.normalised:
            motion.rate[j] = gamma
            for b in range(r):
                motion.drift[j, b] = -gamma * m.mean[j, b]
            motion.fresh[j] = gamma**2 / rule.batch * ((dim - r) * m.D[j, j] + trace)
            continue
        s = 1.0
        if not rule.tangential:
            s = 1.0 - gamma * radial / norm2
            if s <= 0.0 or gamma**2 * along > 0.01 * rule.batch * s * s:
                return False
        rate = gamma / s
        motion.rate[j] = rate
        for b in range(r):
            motion.drift[j, b] = -rate * (m.mean[j, b] - radial / norm2 * X[j, b])
            if not rule.tangential:
                motion.drift[j, b] -= rate * rate / rule.batch * (V[j, b] - along / norm2 * X[j, b])
        motion.fresh[j] = rate * rate / rule.batch * ((dim - r) * m.D[j, j] + trace - along / norm2)
    return True


@inner
def slowness(rule, dim, X, covariance, motion):
    """Number of steps, as a real number, after which the state has changed as much as a tau-leap may change it."""
    p, r = X.shape
    k = r - p
    steps = 1e18
    for j in range(p):
        overlap2, outside2, drift2, drift_outside2, noise2 = 0.0, 0.0, 0.0, 0.0, 0.0
        for b in range(k):
            overlap2 += X[j, b] ** 2
            drift2 += motion.drift[j, b] ** 2
            noise2 += covariance[j * r + b, j * r + b]
        for b in range(k, r):
            outside2 += X[j, b] ** 2
            drift_outside2 += motion.drift[j, b] ** 2
        noise2 *= motion.rate[j] ** 2 / rule.batch
        size2 = max(overlap2, k / dim)
        if drift2 > 0.0:
            steps = min(steps, MEAN_CHANGE * math.sqrt(size2 / drift2))
        if drift_outside2 > 0.0:
            steps = min(steps, MEAN_CHANGE * math.sqrt(outside2 / drift_outside2))
        if noise2 > 0.0:
            steps = min(steps, NOISE_CHANGE**2 * size2 / noise2)
        if motion.fresh[j] > 0.0:
            steps = min(steps, FRESH * outside2 / motion.fresh[j])
    return steps


@inner
def gaussian_step(rule, gamma, X, stream, dim, m, root, workspace):
    """One step with Gaussian batch sums."""
    p, r = X.shape
    normals(stream, workspace.normal)
    scale = 1.0 / math.sqrt(rule.batch)
    for j in range(p):
        for b in range(r):
            total = 0.0
            for i in range(j * r + b + 1):
                total += root[j * r + b, i] * workspace.normal[i]
            workspace.V[j, b] = m.mean[j, b] + scale * total
    reduced.cholesky(m.D, workspace.root)
    reduced.bartlett(stream, dim - r, workspace.bartlett)
    reduced.descend(rule, gamma, X, workspace.V)
    normalised = rule.normalised
    reduced.displace(
        X, workspace.V, -gamma * scale, workspace.root, workspace.bartlett, normalised, workspace.orthogonal
    )


@inner
def geometric(ratio_less_one, steps):
    """Σ_{i < steps} (1 + ratio_less_one)^i."""
    if abs(ratio_less_one) * steps < 1e-12:
        return float(steps)
    return math.expm1(steps * math.log1p(ratio_less_one)) / ratio_less_one


@inner
def outside_root(rule, steps, D, motion, workspace):
    """Root of the covariance, per dimension outside the span, of what `steps` steps add to the rows."""
    p = len(motion.rate)
    normalised = rule.normalised
    for j in range(p):
        for l in range(j + 1):
            growth = math.sqrt((1.0 + motion.fresh[j]) * (1.0 + motion.fresh[l])) - 1.0 if normalised else 0.0
            workspace.product[j, l] = motion.rate[j] * motion.rate[l] / rule.batch * D[j, l] * geometric(growth, steps)
    reduced.cholesky(workspace.product, workspace.root)


@inner
def tau_leap(t, tables, rule, gamma, steps, X, stream, dim, m, noise, motion, workspace):
    """Many steps as one, to second order in the drift.

    Between normalisations a row grows by the factor (1 + fresh)^½ a step, so that means add up as a geometric series of
    that ratio and variances as one of its square; one normalisation at the end undoes it.  The drift is that of the
    state half a tau-leap ahead.
    """
    p, r = X.shape
    normalised = rule.normalised
    half = 0.5 * steps
    for j in range(p):
        growth = math.sqrt(1.0 + motion.fresh[j]) - 1.0 if normalised else 0.0
        for b in range(r):
            workspace.middle[j, b] = X[j, b]
            workspace.V[j, b] = motion.drift[j, b] * geometric(growth, half)
        for l in range(p):
            workspace.bartlett[j, l] = math.sqrt(dim - r) if l == j else 0.0
    outside_root(rule, half, m.D, motion, workspace)
    reduced.displace(
        workspace.middle, workspace.V, 1.0, workspace.root, workspace.bartlett, normalised, workspace.orthogonal
    )
    population(t, tables, rule.errors, workspace.middle, m)
    if not tangential(rule, gamma, dim, workspace.middle, m, noise.covariance, motion, workspace.V):
        return False
    normals(stream, workspace.normal)
    for j in range(p):
        growth = math.sqrt(1.0 + motion.fresh[j]) - 1.0 if normalised else 0.0
        mean_steps = geometric(growth, steps)
        spread = motion.rate[j] * math.sqrt(geometric(motion.fresh[j] if normalised else 0.0, steps) / rule.batch)
        radial, norm2 = 0.0, 0.0
        for b in range(r):
            total = 0.0
            for i in range(j * r + b + 1):
                total += noise.root[j * r + b, i] * workspace.normal[i]
            workspace.V[j, b] = spread * total
            radial += total * X[j, b]
            norm2 += X[j, b] ** 2
        for b in range(r):
            if rule.tangential or normalised:
                workspace.V[j, b] -= spread * radial / norm2 * X[j, b]
            workspace.V[j, b] += mean_steps * motion.drift[j, b]
    outside_root(rule, steps, m.D, motion, workspace)
    reduced.bartlett(stream, dim - r, workspace.bartlett)
    reduced.displace(X, workspace.V, 1.0, workspace.root, workspace.bartlett, normalised, workspace.orthogonal)
    return True


@inner
def tail(tails, with_output, X, k):
    """Excess kurtosis of the summands at the largest overlap |M_j|/|w_j| of a row, from a table over [0, 1]."""
    largest = 0.0
    for j in range(X.shape[0]):
        overlap2, norm2 = 0.0, 0.0
        for b in range(X.shape[1]):
            norm2 += X[j, b] ** 2
            if b < k:
                overlap2 += X[j, b] ** 2
        largest = max(largest, overlap2 / norm2)
    place = math.sqrt(largest) * (tails.shape[1] - 1)
    n = min(int(place), tails.shape[1] - 2)
    row = 0 if with_output else 1
    return tails[row, n] + (place - n) * (tails[row, n + 1] - tails[row, n])


@inlined
def advance_one(
    t,
    tables,
    tails,
    cheapest,
    costs,
    rule,
    stop_at,
    X,
    stream,
    dim,
    m,
    noise,
    motion,
    workspace,
    exact,
    progress,
    cancel,
):
    """Take steps, each way chosen from the state: exact batch sums, Gaussian sums, or tau-leaps.

    Exact where the sums are not Gaussian and, if `cheapest`, where that is cheaper.
    """
    p, r = X.shape
    k = r - p
    if progress[STATUS] != RUNNING or (stop_at.at_recovery and progress[RECOVERY] >= 0):
        return
    last = progress[STEP] + stop_at.steps
    burst = 1
    while progress[STEP] < last:
        if cancel[0]:
            return
        left = last - progress[STEP]
        gamma = learning_rate(rule, progress[STEP])
        population(t, tables, rule.errors, X, m)
        cost = costs.state
        if renew_covariance(t, tables, rule.errors, X, m, noise) > 0:
            cost += costs.covariance
        slow = 0.0
        if tangential(rule, gamma, dim, X, m, noise.covariance, motion, workspace.V):
            slow = slowness(rule, dim, X, noise.covariance, motion)
            if rule.decay > 0.0:
                slow = min(slow, MEAN_CHANGE * (1.0 + progress[STEP] - rule.decay_start) / rule.decay)
        steps = max(1, int(min(slow, float(left))))
        independent = rule.batch * max(1.0, slow / MEAN_CHANGE)  # samples in the time in which the state changes
        is_gaussian = tail(tails, rule.errors.with_output, X, k) <= GAUSSIAN * independent
        progress[COST] += cost
        if not is_gaussian or (cheapest and (float(rule.batch) + OVERHEAD) * steps <= costs.state):
            count = min(left, max(steps, burst * costs.state // (rule.batch + OVERHEAD)))
            burst = min(2 * burst, LONGEST_BURST)
            progress[COST] += OVERHEAD * count
            reduced.advance(
                tables, rule, StopAt(count, stop_at.eta2, stop_at.at_recovery, stop_at.cost), X, stream, dim, exact,
                progress, cancel,
            )  # fmt: skip
            if cancel[0] or progress[STATUS] != RUNNING or progress[COST] >= stop_at.cost:
                return
            if stop_at.at_recovery and progress[RECOVERY] >= 0:
                return
            continue
        burst = 1
        before = math.sqrt(reduced.overlap_square(X, tables))
        leapt = False
        if steps >= SHORTEST_TAU_LEAP:
            middle = learning_rate(rule, progress[STEP] + 0.5 * steps)
            leapt = tau_leap(t, tables, rule, middle, steps, X, stream, dim, m, noise, motion, workspace)
            if not leapt:  # `m` is that of the state half a tau-leap ahead
                population(t, tables, rule.errors, X, m)
        if not leapt:
            steps = 1
            gaussian_step(rule, gamma, X, stream, dim, m, noise.root, workspace)
        fresh = progress[RECOVERY] < 0
        overlap2 = reduced.overlap_square(X, tables)
        progress[STEP] += steps - 1
        stop = record_step(progress, stop_at, overlap2, costs.state if leapt else 0)
        if fresh and progress[RECOVERY] >= 0 and steps > 1:
            eta = math.sqrt(stop_at.eta2)
            share = (eta - before) / (math.sqrt(overlap2) - before)
            progress[RECOVERY] += max(1, math.ceil(share * steps)) - steps
        if stop:
            return


@plain_kernel
def advance(t, tables, tails, cheapest, costs, rule, stop_at, states, dim, m, motion, workspace, exact, cancel):
    """`advance_one` for several runs, one after the other: threads hand over the interpreter once, not for each."""
    for n in range(len(states.X)):
        stream = Stream(states.lanes[n], states.buffer[n], states.position[n])
        noise = Noise(states.loss[n], states.reference[n], states.covariance[n], states.root[n])
        advance_one(
            t, tables, tails, cheapest, costs, rule, stop_at, states.X[n], stream, dim, m, noise, motion, workspace,
            exact, states.progress[n], cancel,
        )  # fmt: skip
