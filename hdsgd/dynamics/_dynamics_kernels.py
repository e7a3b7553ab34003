# mypy: ignore-errors
"""Kernels of the mean map of one step (theory §3) and of the overlap ODEs (theory §4).

Index legend: j, l students (p); b rows of (W, W*), students first (p + k); r teacher directions (k).
"""

import math
from typing import NamedTuple

import numpy as np

from hdsgd._compile import kernel
from hdsgd.moments._dispatch_kernels import fill_omega, moments, risk

# Entries of the int64 array `progress` of the mean map: steps taken, first step with ||M|| >= eta, step of the switch
# to another loss (both -1 if there was none yet), and whether the state stopped being finite.
STEP, RECOVERY, SWITCH, DIVERGED = range(4)

# isfinite(a + b) is compiled as (a + b) - (a + b) == 0, which reassociation makes true for a = nan; a comparison works.
LARGEST = 1.7e308


class MapRule(NamedTuple):
    """The rule of one step of the mean map, in a phase of one loss."""

    square: bool  # error f - y, else -y
    tangential: bool
    normalised: bool
    dim: float
    batch: float
    lr: float
    intra_batch: bool  # whether the interaction of different samples of a batch is included
    switch_risk: float  # the phase ends below this risk; minus infinity: it does not
    factor: float  # the learning rate is lr * factor * (1 + step - start)^-decay once start >= 0
    decay: float
    start: int
    eta: float


class FlowRule(NamedTuple):
    """Right-hand side of the overlap ODEs in a phase of one loss."""

    square: bool
    tangential: bool
    normalised: bool
    drift: float  # 1, or 0 where the noise dominates
    nu: float  # coefficient of D
    finite_d: bool  # instead of nu D the second moment of the batch gradient at finite d
    dim: float
    batch: float
    lr: float
    intra_batch: bool
    factor: float  # the learning rate is lr * factor * (1 + (time - start)/lr)^-decay
    decay: float
    start: float


@kernel
def workspace(p, size):
    """G, A, D, Z, F, H of the moments and S, N of the gradient."""
    return (
        np.empty((p, size)),
        np.empty((p, size)),
        np.empty((p, p)),
        np.empty((p, p)),
        np.empty((p, p)),
        np.empty((p, p)),
        np.empty((p, size)),
        np.empty((p, p)),
    )


@kernel
def gradient_law(t, square, tangential, intra_batch, dim, batch, omega, work):
    """S_jb = E[g_j·w_b] over the rows w_b of (W, W*), and N_jl = E[g_j·g_l] of the batch gradient; see
    `hdsgd.dynamics.maps.mean_map`."""
    G, A, D, Z, F, H, S, N = work
    p, size = A.shape
    moments(t, square, tangential, omega, G, A, D, Z, F, H)
    for j in range(p):
        for b in range(size):
            S[j, b] = A[j, b]
            if tangential:
                S[j, b] -= A[j, j] * omega[j, b] / omega[j, j]
        for l in range(p):
            single = dim * D[j, l] + Z[j, l]
            mean = 0.0
            for b in range(size):
                mean += A[j, b] * G[l, b]
            if tangential:
                Qj, Ql, Qjl = omega[j, j], omega[l, l], omega[j, l]
                single += H[j, l] * Qjl / (Qj * Ql) - F[j, l] / Qj - F[l, j] / Ql
                mean += A[j, j] * A[l, l] * Qjl / (Qj * Ql) - A[l, l] * A[j, l] / Ql - A[j, j] * A[l, j] / Qj
            N[j, l] = single / batch
            if intra_batch:
                N[j, l] += (1.0 - 1.0 / batch) * mean


@kernel
def norm2(M):
    total = 0.0
    for j in range(M.shape[0]):
        for r in range(M.shape[1]):
            total += M[j, r] ** 2
    return total


@kernel
def run_map(t, rule, P, Q, M, progress, until):
    """Apply the mean map to Q (p, p) and M (p, k) in place until step `until`, or the end of the phase."""
    p, k = M.shape
    omega = np.empty((p + k, p + k))
    work = workspace(p, p + k)
    S, N = work[6], work[7]
    fill_omega(Q, M, P, omega)
    norms = np.empty(p)
    while progress[STEP] < until:
        lr = rule.lr
        if rule.start >= 0:
            lr *= rule.factor * (1.0 + (progress[STEP] - rule.start)) ** (-rule.decay)
        gradient_law(t, rule.square, rule.tangential, rule.intra_batch, rule.dim, rule.batch, omega, work)
        for j in range(p):
            for r in range(k):
                M[j, r] -= lr * S[j, p + r]
            for l in range(p):
                Q[j, l] = omega[j, l] - lr * (S[j, l] + S[l, j]) + lr * lr * N[j, l]
        if rule.normalised:
            for j in range(p):
                norms[j] = math.sqrt(Q[j, j])
            for j in range(p):
                for r in range(k):
                    M[j, r] /= norms[j]
                for l in range(p):
                    Q[j, l] /= norms[j] * norms[l]
                Q[j, j] = 1.0
        progress[STEP] += 1
        fill_omega(Q, M, P, omega)
        overlap2 = norm2(M)
        if not abs(overlap2 + Q.sum()) <= LARGEST:
            progress[DIVERGED] = 1
            return
        if progress[RECOVERY] < 0 and overlap2 >= rule.eta**2:
            progress[RECOVERY] = progress[STEP]
        if rule.switch_risk > -LARGEST and risk(t, omega) < rule.switch_risk:
            progress[SWITCH] = progress[STEP]
            return


@kernel
def unpack(state, normalised, P, omega):
    """omega from the state of the ODE: M, then the upper triangle of Q, without the diagonal where that is 1."""
    k = len(P)
    p = len(omega) - k
    n = 0
    for j in range(p):
        for r in range(k):
            omega[j, p + r] = state[n]
            omega[p + r, j] = state[n]
            n += 1
    for j in range(p):
        if normalised:
            omega[j, j] = 1.0
        for l in range(j + 1 if normalised else j, p):
            omega[j, l] = state[n]
            omega[l, j] = state[n]
            n += 1
    for r in range(k):
        for s in range(k):
            omega[p + r, p + s] = P[r, s]


@kernel
def flow(t, rule, P, p, time, state, out):
    """Write the time derivative of `state` to `out`; returns whether it is finite."""
    k = len(P)
    omega = np.empty((p + k, p + k))
    unpack(state, rule.normalised, P, omega)
    work = workspace(p, p + k)
    D, S, N = work[2], work[6], work[7]
    # Normalisation undoes what the tangential step leaves out, at leading order: only without it the two differ.
    tangential = rule.tangential and (rule.finite_d or not rule.normalised)
    gradient_law(t, rule.square, tangential, rule.intra_batch, rule.dim, rule.batch, omega, work)
    noise = rule.lr
    if not rule.finite_d:
        N, noise = D, rule.nu
    factor = rule.factor
    if rule.decay != 0.0:
        factor *= (1.0 + (time - rule.start) / rule.lr) ** (-rule.decay)
    drift = rule.drift * factor
    noise *= factor * factor
    for j in range(p):  # Φ⁰
        for l in range(j + 1):
            N[j, l] = noise * N[j, l] - drift * (S[j, l] + S[l, j])
            N[l, j] = N[j, l]
    n = 0
    for j in range(p):
        for r in range(k):
            out[n] = -drift * S[j, p + r]
            if rule.normalised:
                out[n] -= 0.5 * N[j, j] * omega[j, p + r]
            n += 1
    for j in range(p):
        for l in range(j + 1 if rule.normalised else j, p):
            out[n] = N[j, l]
            if rule.normalised:
                out[n] -= 0.5 * (N[j, j] + N[l, l]) * omega[j, l]
            n += 1
    return abs(out.sum()) <= LARGEST


@kernel
def state_risk(t, normalised, P, p, state):
    """Population risk at a state of the ODE."""
    omega = np.empty((p + len(P), p + len(P)))
    unpack(state, normalised, P, omega)
    return risk(t, omega)
