"""Deterministic dynamics at finite d: the mean map of one step, iterated from explicit overlaps ``(Q0, M0)``.

Also what it shares with `hdsgd.dynamics.ode`: checks of the initial overlaps, saved times, and the labelled Dataset
with the variables and dims that `hdsgd.simulate` returns.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import MAX_BATCH, check_dim, check_eta, finite, whole
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import checked_overlaps, population_risk, resolved_loss
from hdsgd.moments.tables import moment_tables
from hdsgd.problem.model import Problem
from hdsgd.results.schema import finish, outcome

__all__ = ["mean_map", "step_mean"]

Floats = NDArray[np.float64]

CONSTRAINT_CODES = {"projected": 0, "spherical": 1, "none": 2}  # of hdsgd._ode_kernels
LOSS_CODES = {"square": 0, "correlation": 1, "adaptive": 2}


def initial_overlaps(problem: Problem, Q0: ArrayLike, M0: ArrayLike) -> tuple[Floats, Floats]:
    """Checked initial overlaps with one leading replica dimension."""
    q, m, leading = checked_overlaps(problem, Q0, M0)
    if len(leading) > 1:
        raise SpecificationError(
            f"Q0 and M0 may have one leading dimension, the replicas; their leading shape is {leading}"
        )
    if not len(m):
        raise SpecificationError("Q0 and M0 hold no replica")
    smallest = np.linalg.eigvalsh(omega_of(problem, q, m))[:, 0]
    if (smallest < -1e-9 * np.maximum(1.0, q.max())).any():
        raise SpecificationError(
            f"Q0 and M0 are not overlaps of any vectors: [[Q, M], [Mᵀ, P]] has the eigenvalue {smallest.min():.3g}"
        )
    if problem.constraint != "none" and (np.diagonal(q, axis1=1, axis2=2) <= 0).any():
        raise SpecificationError("the diagonal of Q0, the squared norms of the student rows, must be positive")
    return q, m


def omega_of(problem: Problem, q: Floats, m: Floats) -> Floats:
    P = np.broadcast_to(problem.target.P, (*m.shape[:-2], problem.k, problem.k))
    return np.block([[q, m], [np.swapaxes(m, -1, -2), P]])


def saved_times(save: ArrayLike, end: float, *, whole_numbers: bool) -> Floats:
    """Saved times in [0, end]: about `save` equally spaced ones, or those given."""
    if np.ndim(save) == 0:
        count = whole("save", save, low=1)
        grid = np.linspace(0.0, end, count + 1)
        return np.unique(np.round(grid)) if whole_numbers else grid
    grid = np.asarray(save, dtype=np.float64)
    if grid.ndim != 1 or not grid.size or not (np.diff(grid) > 0).all() or grid[0] < 0 or grid[-1] > end:
        raise SpecificationError(f"save must be a number of points or increasing times between 0 and {end:g}")
    if whole_numbers and (grid != np.round(grid)).any():
        raise SpecificationError("save must hold whole steps")
    return grid


def labelled(
    problem: Problem,
    axis: str,
    coords: Mapping[str, Any],
    M: Floats,
    Q: Floats,
    variables: Mapping[str, NDArray[Any]],
    kind: str,
    specification: Mapping[str, Any],
    started: float,
) -> xr.Dataset:
    """The results with the variables and dims of a simulation."""
    risk = np.full(M.shape[:2], np.nan)
    good = np.isfinite(Q).all(axis=(2, 3)) & np.isfinite(M).all(axis=(2, 3))
    risk[good] = population_risk(problem, Q[good], M[good])
    dataset = xr.Dataset(
        {
            "M": (("replica", axis, "student", "teacher"), M),
            "Q": (("replica", axis, "student", "student_2"), Q),
            "risk": (("replica", axis), risk),
            **{name: ("replica", value) for name, value in variables.items()},
        },
        coords={
            "replica": np.arange(len(M)),
            "student": np.arange(problem.p),
            "student_2": np.arange(problem.p),
            "teacher": np.arange(problem.k),
            **coords,
        },
    )
    timings = {"total_seconds": clock.perf_counter() - started}
    return finish(dataset, kind, {"problem": problem.to_dict(), **specification}, None, timings)


def step_mean(
    problem: Problem,
    Q: ArrayLike,
    M: ArrayLike,
    *,
    dim: int,
    batch: int,
    lr: float,
    loss: str | None = None,
    intra_batch: bool = True,
) -> tuple[Floats, Floats]:
    """Exact means of the overlaps after one step, before normalisation, for any d, n_b and γ (theory §3).

    The formulas are in `mean_map`, which normalises and iterates them.

    Parameters
    ----------
    problem : Problem
    Q : array_like of shape (p, p)
    M : array_like of shape (p, k)
    dim, batch : int
        ``d`` and ``n_b``.
    lr : float
        ``γ``.
    loss : {"square", "correlation"}, optional
        The problem's by default, required if that is adaptive.
    intra_batch : bool
        Include the intra-batch interaction.

    Returns
    -------
    Q : ndarray of shape (p, p)
        ``E[Q']``.
    M : ndarray of shape (p, k)
        ``E[M']``.
    """
    square = resolved_loss(problem, loss) == "square"
    dim, batch, lr = check_dim(dim), whole("batch", batch, low=1, high=MAX_BATCH), finite("lr", lr)
    q, m = initial_overlaps(problem, Q, M)
    if len(m) != 1:
        raise SpecificationError("step_mean takes one pair of overlaps, without leading dimensions")
    from hdsgd.dynamics._dynamics_kernels import gradient_law, workspace

    omega = np.ascontiguousarray(omega_of(problem, q, m)[0])
    work = workspace(problem.p, problem.p + problem.k)
    spherical = problem.constraint == "spherical"
    gradient_law(moment_tables(problem), square, spherical, intra_batch, float(dim), float(batch), omega, work)
    S, N, p = work[6], work[7], problem.p
    return q[0] - lr * (S[:, :p] + S[:, :p].T) + lr * lr * N, m[0] - lr * S[:, p:]


def mean_map(
    problem: Problem,
    *,
    dim: int,
    batch: int,
    lr: float,
    steps: int,
    Q0: ArrayLike,
    M0: ArrayLike,
    intra_batch: bool = True,
    save: ArrayLike = 100,
    eta: float = 0.5,
) -> xr.Dataset:
    """Deterministic dynamics at finite d: the exact conditional mean of one step, iterated (theory §3).

    With ``S_jb = E[g_j·w_b]`` over the rows of (W, W*) and ``N_jl = E[g_j·g_l]`` of the batch gradient g,

        M ← M - γ S_{·,teacher},   Q ← Q - γ (S_{·,student} + transpose) + γ² N,

    then, unless unconstrained, rows are normalised: ``M_jr/sqrt(Q_jj)``, ``Q_jl/sqrt(Q_jj Q_ll)``.  For projected and
    unconstrained steps ``S = A`` and ``N = (d D + Z)/n_b + (1 - 1/n_b) A Ω⁻¹ Aᵀ``; the last term is the intra-batch
    interaction.  For spherical steps the gradient of each sample is ``c_j z_⊥j``, ``z_⊥j = z - λ_j w_j/Q_jj``, hence

        S_jb = A_jb - A_jj Ω_jb/Q_jj,
        E[c_j c_l z_⊥j·z_⊥l] = d D_jl + Z_jl - F_jl/Q_jj - F_lj/Q_ll + H_jl Q_jl/(Q_jj Q_ll),
        E[c_j z_⊥j]·E[c_l z_⊥l] = (AΩ⁻¹Aᵀ)_jl - A_jj A_lj/Q_jj - A_ll A_jl/Q_ll + A_jj A_ll Q_jl/(Q_jj Q_ll),

    with ``F_jl = E[c_j c_l λ_j²]``, ``H_jl = E[c_j c_l λ_j λ_l]``, and N combines the two as above.  The unnormalised
    step is exact for every d, n_b and γ; the normalisation of the means is where fluctuations are neglected.

    Parameters
    ----------
    problem : Problem
        The adaptive loss switches by the risk on the trajectory itself, as in a simulation.
    dim, batch : int
        ``d`` and ``n_b``.
    lr : float
        ``γ``.
    steps : int
    Q0 : array_like of shape (p, p) or (replica, p, p)
    M0 : array_like of shape (p, k) or (replica, p, k)
        Initial overlaps.
    intra_batch : bool
        Include the intra-batch interaction.
    save : int or array_like of int
        About how many equally spaced steps to save after step 0, or which steps.
    eta : float
        Threshold of weak recovery, in (0, 1).

    Returns
    -------
    xarray.Dataset
        ``M`` (replica, step, student, teacher), ``Q`` (replica, step, student, student_2), ``risk`` (replica, step),
        ``recovery_time`` (first step with ``||M||_F >= eta``, the last step if there is none), ``recovered``,
        ``status`` and, for the adaptive loss, ``switch_step``; coordinates ``step`` and ``t = γ step``.  After a
        divergence the state is NaN.

    Raises
    ------
    SpecificationError
        If an argument is out of range, or the moments of the problem are not supported.
    """
    started = clock.perf_counter()
    dim, batch = check_dim(dim), whole("batch", batch, low=1, high=MAX_BATCH)
    lr, steps, eta = finite("lr", lr, low=0.0, open_low=True), whole("steps", steps, low=1), check_eta(eta)
    q0, m0 = initial_overlaps(problem, Q0, M0)
    saved = saved_times(save, steps, whole_numbers=True).astype(np.int64)
    tables, P = moment_tables(problem), problem.target.P
    from hdsgd._compile import announced_compilation
    from hdsgd.dynamics._dynamics_kernels import DIVERGED, RECOVERY, STEP, SWITCH, MapRule, norm2, run_map

    replicas, p, k = m0.shape
    M, Q = np.full((replicas, len(saved), p, k), np.nan), np.full((replicas, len(saved), p, p), np.nan)
    progress = np.zeros((replicas, 4), dtype=np.int64)
    progress[:, [RECOVERY, SWITCH]] = -1
    with announced_compilation():
        start_risk = population_risk(problem, q0, m0)
        for n in range(replicas):
            rule = MapRule(
                loss=LOSS_CODES[problem.loss],
                constraint=CONSTRAINT_CODES[problem.constraint],
                dim=float(dim),
                batch=float(batch),
                lr=lr,
                intra_batch=intra_batch,
                switch_risk=problem.switch_fraction * float(start_risk[n]),
                switch_factor=problem.switch_factor,
                switch_decay=problem.switch_decay,
                eta=eta,
            )
            q, m, state = q0[n].copy(), m0[n].copy(), progress[n]
            if norm2(m) >= eta**2:
                state[RECOVERY] = 0
            for i, step in enumerate(saved):
                run_map(tables, rule, P, q, m, state, step)
                if state[DIVERGED]:
                    break
                M[n, i], Q[n, i] = m, q
            if not state[DIVERGED]:
                run_map(tables, rule, P, q, m, state, steps)
    recovered = progress[:, RECOVERY] >= 0
    diverged = progress[:, DIVERGED] > 0
    variables = {
        "recovery_time": np.where(recovered, progress[:, RECOVERY], progress[:, STEP]),
        "recovered": recovered,
        "status": outcome(recovered, diverged),
    }
    if problem.loss == "adaptive":
        variables["switch_step"] = progress[:, SWITCH]
    specification = {"dim": dim, "batch": batch, "lr": lr, "steps": steps, "eta": eta, "intra_batch": intra_batch}
    coords = {"step": saved, "t": ("step", lr * saved)}
    return labelled(problem, "step", coords, M, Q, variables, "mean-map", specification, started)
