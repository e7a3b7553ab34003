"""Deterministic dynamics at finite d: the mean of one step, once (`step_mean`) or iterated (`mean_map`)."""

from __future__ import annotations

import math
import time as clock
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import MAX_BATCH, MAX_STEPS, check_dim, check_eta, finite, instance, whole
from hdsgd.dynamics.common import Start, initial_overlaps, labelled, omega_of, saved_times, starts
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import population_risk, resolved_loss, with_output
from hdsgd.moments.tables import moment_tables
from hdsgd.policies import DIM, ETA, SEED, STEPS, SaveAt, Scaling
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.losses import phases_of
from hdsgd.problem.model import Problem, as_problem
from hdsgd.results.schema import check_states, outcome
from hdsgd.theory.prefactors import resolve_scaling

__all__ = ["mean_map", "step_mean"]

Floats = NDArray[np.float64]


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
    loss : str, optional
        The problem's by default, required if that changes on the way (adaptive).
    intra_batch : bool
        Include the intra-batch interaction.

    Returns
    -------
    Q : ndarray of shape (p, p)
        ``E[Q']``.
    M : ndarray of shape (p, k)
        ``E[M']``.

    Examples
    --------
    He2/He2: ``A = 4 (1 - m²)``, so a step of 0.01 raises the overlap of 1/2 by 0.03/2 before normalisation.

    >>> from hdsgd import Problem
    >>> Q, M = step_mean(Problem("he2", "he2"), [[1.0]], [[0.5]], dim=1000, batch=100, lr=0.01)
    >>> round(float(M[0, 0]), 6)
    0.5
    """
    rule = resolved_loss(problem, loss)
    dim, batch, lr = check_dim(dim), whole("batch", batch, low=1, high=MAX_BATCH), finite("lr", lr)
    q, m = initial_overlaps(problem, Q, M)
    if len(m) != 1:
        raise SpecificationError("step_mean takes one pair of overlaps, without leading dimensions")
    from hdsgd.dynamics._dynamics_kernels import gradient_law, workspace

    omega = np.ascontiguousarray(omega_of(problem, q, m)[0])
    work = workspace(problem.p, problem.p + problem.k)
    tangential = CONSTRAINTS[problem.constraint].tangential
    tables, square = moment_tables(problem, rule), with_output(rule)
    gradient_law(tables, square, tangential, intra_batch, float(dim), float(batch), omega, work)
    S, N, p = work[6], work[7], problem.p
    return q[0] - lr * (S[:, :p] + S[:, :p].T) + lr * lr * N, m[0] - lr * S[:, p:]


def mean_map(
    problem: Problem,
    *,
    dim: int = DIM,
    steps: int = STEPS,
    scaling: Scaling = Scaling(),
    initial: Start = "random",
    seed: int = SEED,
    intra_batch: bool = True,
    save: SaveAt = SaveAt(),
    eta: float = ETA,
) -> xr.Dataset:
    """Deterministic dynamics at finite d: the exact conditional mean of one step, iterated (theory §3).

    With ``S_jb = E[g_j·w_b]`` over the rows of (W, W*) and ``N_jl = E[g_j·g_l]`` of the batch gradient g,

        M ← M - γ S_{·,teacher},   Q ← Q - γ (S_{·,student} + transpose) + γ² N,

    then, if the constraint says so, rows are normalised: ``M_jr/sqrt(Q_jj)``, ``Q_jl/sqrt(Q_jj Q_ll)``.  Where the
    gradient is not made tangent (projected and unconstrained steps), ``S = A`` and ``N = (d D + Z)/n_b +
    (1 - 1/n_b) A Ω⁻¹ Aᵀ``; the last term is the intra-batch interaction.  For tangential (spherical) steps the gradient
    of each sample is ``c_j z_⊥j``, ``z_⊥j = z - λ_j w_j/Q_jj``, hence

        S_jb = A_jb - A_jj Ω_jb/Q_jj,
        E[c_j c_l z_⊥j·z_⊥l] = d D_jl + Z_jl - F_jl/Q_jj - F_lj/Q_ll + H_jl Q_jl/(Q_jj Q_ll),
        E[c_j z_⊥j]·E[c_l z_⊥l] = (AΩ⁻¹Aᵀ)_jl - A_jj A_lj/Q_jj - A_ll A_jl/Q_ll + A_jj A_ll Q_jl/(Q_jj Q_ll),

    with ``F_jl = E[c_j c_l λ_j²]``, ``H_jl = E[c_j c_l λ_j λ_l]``, and N combines the two as above.  The unnormalised
    step is exact for every d, n_b and γ; the normalisation of the means is where fluctuations are neglected.

    Parameters
    ----------
    problem : Problem
        A loss that changes (adaptive) does so by the risk on the trajectory itself, as in a simulation.
    dim : int
        Input dimension ``d``.
    steps : int
    scaling : Scaling
        Batch size ``n_b`` and learning rate ``γ``.
    initial : Initial, str or sequence of these
        The start, or one for each replica; the overlaps of ``Initial(M=..., Q=...)`` are taken as they are, others
        drawn (replica n with ``seed + n``).
    seed : int
    intra_batch : bool
        Include the intra-batch interaction.
    save : SaveAt
        About how many steps to save after step 0, or exactly which.
    eta : float
        Threshold of weak recovery, in (0, 1).

    Returns
    -------
    xarray.Dataset
        ``M`` (replica, step, student, teacher), ``Q`` (replica, step, student, student_2), ``risk`` (replica, step),
        ``recovery_time`` (first step with ``||M||_F >= eta``, the last step if there is none), ``recovered``,
        ``status`` and, where the loss changes, ``switch_step``; coordinates ``step`` and ``t = γ step``.  After a
        divergence the state is NaN.

    Raises
    ------
    SpecificationError
        If an argument is out of range, or the moments of the problem are not supported.

    Examples
    --------
    >>> from hdsgd import Initial, Problem
    >>> from hdsgd.policies import Scaling
    >>> start = Initial(M=[[0.1]], Q=[[1.0]])
    >>> path = mean_map(Problem("he2", "he2"), steps=100, scaling=Scaling(lr=0.02, batch=1000), initial=start)
    >>> bool(path.recovered[0]), int(path.recovery_time[0])
    (True, 25)
    """
    started = clock.perf_counter()
    as_problem(problem)
    instance("scaling", scaling, Scaling)
    instance("save", save, SaveAt)
    dim, steps = check_dim(dim), whole("steps", steps, low=1, high=MAX_STEPS)
    eta, seed = check_eta(eta), whole("seed", seed)
    q0, m0, given = starts(problem, initial, dim, seed)
    check_states(problem, len(m0), steps, save)
    saved = saved_times(save, steps, whole_numbers=True).astype(np.int64)
    constraint, phases = CONSTRAINTS[problem.constraint], phases_of(problem.loss)
    tables, P = [moment_tables(problem, loss) for loss in phases], problem.target.P
    from hdsgd._compile import announced_compilation
    from hdsgd.dynamics._dynamics_kernels import DIVERGED, RECOVERY, STEP, SWITCH, MapRule, norm2, run_map

    replicas, p, k = m0.shape
    M, Q = np.full((replicas, len(saved), p, k), np.nan), np.full((replicas, len(saved), p, p), np.nan)
    progress = np.zeros((replicas, 4), dtype=np.int64)
    progress[:, [RECOVERY, SWITCH]] = -1
    with announced_compilation():
        batch, lr, scale = resolve_scaling(problem, dim, scaling, eta)
        start_risk = population_risk(problem, q0, m0) if len(phases) > 1 else np.full(replicas, -math.inf)
        for n in range(replicas):
            q, m, state = q0[n].copy(), m0[n].copy(), progress[n]
            if norm2(m) >= eta**2:
                state[RECOVERY] = 0
            for i, step in enumerate([*saved, steps]):
                while state[STEP] < step and not state[DIVERGED]:
                    switched = state[SWITCH] >= 0
                    loss, table = (phases[-1], tables[-1]) if switched else (phases[0], tables[0])
                    rule = MapRule(
                        square=with_output(loss),
                        tangential=constraint.tangential,
                        normalised=constraint.normalised,
                        dim=float(dim),
                        batch=float(batch),
                        lr=lr,
                        intra_batch=intra_batch,
                        switch_risk=-math.inf if switched else problem.switch_fraction * float(start_risk[n]),
                        factor=problem.switch_factor,
                        decay=problem.switch_decay,
                        start=int(state[SWITCH]),
                        eta=eta,
                    )
                    run_map(table, rule, P, q, m, state, step)
                if state[DIVERGED]:
                    break
                if i < len(saved):
                    M[n, i], Q[n, i] = m, q
    recovered = progress[:, RECOVERY] >= 0
    diverged = progress[:, DIVERGED] > 0
    variables: dict[str, NDArray[Any]] = {
        "recovery_time": np.where(recovered, progress[:, RECOVERY], progress[:, STEP]),
        "recovered": recovered,
        "status": outcome(recovered, diverged),
    }
    if len(phases) > 1:
        variables["switch_step"] = progress[:, SWITCH]
    specification = {
        **{"dim": dim, "batch": batch, "lr": lr, "steps": steps, "eta": eta, "intra_batch": intra_batch},
        **{"scaling": scale, "initial": [one.to_dict() for one in given], "seed": seed},
    }
    coords = {"step": saved, "t": ("step", lr * saved)}
    return labelled(problem, "step", coords, (M, Q), variables, "mean-map", specification, started)
