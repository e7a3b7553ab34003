"""Deterministic dynamics of the overlaps: the ODEs of the limit d → ∞.

They start where `hdsgd.simulate` starts and return the variables and dims that it returns.
"""

from __future__ import annotations

import math
import time as clock
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import check_dim, check_eta, finite, instance, whole
from hdsgd.dynamics.common import Start, labelled, omega_of, saved_times, starts
from hdsgd.errors import SpecificationError, choice
from hdsgd.moments.population import with_output
from hdsgd.moments.tables import moment_tables
from hdsgd.policies import DIM, ETA, METHODS, SEED, Integrator, SaveAt, Scaling
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.losses import phases_of
from hdsgd.problem.model import Problem, as_problem
from hdsgd.results.schema import check_states, outcome
from hdsgd.theory.phases import REGIMES
from hdsgd.theory.phases import regime as regime_of
from hdsgd.theory.prefactors import resolve_gamma0, resolve_scaling

__all__ = ["FINITE_D", "METHODS", "ODE_REGIMES", "IntegrationError", "integrate_ode"]

Floats = NDArray[np.float64]

#: Name of the dynamics that keep drift and noise of a finite dimension.
FINITE_D = "finite d"
#: What `integrate_ode` takes as regime.
ODE_REGIMES = ("auto", *REGIMES[:3], FINITE_D)
MAX_EVALUATIONS = 2_000_000  # of the right-hand side, per replica


class IntegrationError(RuntimeError):
    """The ODE could not be integrated; the message says where and why."""


class _Flow(NamedTuple):
    """Coefficients of the right-hand side, and the length of a step."""

    regime: str
    drift: float
    nu: float
    dim: int | None
    batch: int | None
    lr: float | None
    scaling: dict[str, Any]
    unit: float | None  # time of one step


def _flow(problem: Problem, regime: str, dim: int | None, scaling: Scaling, eta: float) -> _Flow:
    """Regime, coefficients and step length from what was given."""
    choice("regime", regime, ODE_REGIMES)
    powers = scaling.mu is not None and scaling.delta is not None
    if not powers and dim is None:
        raise SpecificationError("without dim the scaling must be given as mu and delta")
    limit = str(regime_of(scaling.mu, scaling.delta)) if scaling.mu is not None and scaling.delta is not None else ""
    if regime == "auto" and limit == REGIMES[3]:
        raise SpecificationError(
            f"mu = {scaling.mu:g}, delta = {scaling.delta:g} has no ODE limit (delta <= max(0, (1-mu)/2)); use the "
            f"mean map or force a regime, {FINITE_D!r} for example"
        )
    if regime == "auto":
        regime = limit or REGIMES[1]
    if dim is not None:
        batch, lr, used = resolve_scaling(problem, check_dim(dim), scaling, eta)
        nu = used["gamma0"] / scaling.n0 if powers else lr * dim / batch
    elif regime == FINITE_D:
        raise SpecificationError(f"the regime {FINITE_D!r} needs dim")
    else:
        gamma0 = resolve_gamma0(problem, scaling, eta) if regime == REGIMES[1] else 1.0
        batch, lr, nu = None, None, gamma0 / scaling.n0
        used = {"mu": scaling.mu, "n0": scaling.n0, "delta": scaling.delta, "gamma0": gamma0}
    if regime == REGIMES[2]:  # time in units of γ² d/n_b, only D survives
        unit = lr * lr * dim / batch if lr is not None and dim is not None and batch is not None else None
        return _Flow(regime, 0.0, 1.0, dim, batch, lr, used, unit)
    return _Flow(regime, 1.0, nu if regime == REGIMES[1] else 0.0, dim, batch, lr, used, lr)


class _Path(NamedTuple):
    states: Floats  # (saved times, state)
    recovery: float | None
    switch: float | None


def integrate_ode(
    problem: Problem,
    *,
    time: float | None = None,
    steps: float | None = None,
    dim: int | None = DIM,
    scaling: Scaling = Scaling(mu=0, delta=1),
    initial: Start = "random",
    seed: int = SEED,
    regime: str = "auto",
    intra_batch: bool = True,
    save: SaveAt = SaveAt(points=200),
    eta: float = ETA,
    integrator: Integrator = Integrator(),
) -> xr.Dataset:
    """Integrate the ODEs of the overlaps (theory §4).

    In the time ``t = γ · step``, with ``ν = γ d/n_b``,

        Ψ⁰ = -A_{·,teacher},   Φ⁰ = -(A_{·,student} + transpose) + ν D,

    which are dM/dt and dQ/dt without constraint.  Projected and spherical dynamics are the same at this order: with
    ``n_j = Φ⁰_jj``, ``dM_jr/dt = Ψ⁰_jr - ½ n_j M_jr``, ``dQ_jl/dt = Φ⁰_jl - ½ (n_j + n_l) Q_jl``.  With a tangential
    gradient and rows that are not normalised, ``S_jb = A_jb - A_jj Ω_jb/Q_jj`` replaces A in Ψ⁰ and Φ⁰: norms then
    change by the noise alone, ``dQ_jj/dt = ν D_jj``.  Regimes:

    - "population flow" (δ + μ > 1): ν = 0;
    - "Saad & Solla" (δ + μ = 1): ν = γ0/n0, or γ d/n_b where batch size or learning rate is given as a number;
    - "noise dominated" ((1-μ)/2 < δ < 1-μ): time in units of ``γ² d/n_b`` a step, ``Φ⁰ = D``, ``Ψ⁰ = 0``;
    - "finite d": ``S`` replaces ``A`` and ``γ N`` replaces ``ν D``, both as in `mean_map` (for tangential steps those
      of the tangential gradient).

    Parameters
    ----------
    problem : Problem
        For a loss that changes (adaptive) the right-hand side does when the risk has fallen to the given fraction of
        its start; the rate after that multiplies the drift, and its square the noise.
    time, steps : float, optional
        Where to end, in time of the ODE or in steps, not both; time 10 by default.
    dim : int or None
        Input dimension ``d``: of the start, of a step and of the finite-d terms.  None: the limit alone; the start
        is then ``Initial(M=..., Q=...)``, `scaling` has μ and δ, and the axis is time.
    scaling : Scaling
        Batch size ``n_b`` and learning rate ``γ``, which choose the regime.
    initial : Initial, str or sequence of these
        The start, or one for each replica, as in `mean_map`; ``Q`` has a unit diagonal unless rows are not normalised.
    seed : int
        Of what has to be drawn.
    regime : {"auto", "population flow", "Saad & Solla", "noise dominated", "finite d"}
        Forced regime.
    intra_batch : bool
        Of "finite d": with the interaction within a batch.
    save : SaveAt
        How many points to save after the start, or exactly which (in the unit of the end).
    eta : float
        Threshold of weak recovery, in (0, 1).
    integrator : Integrator
        Method and tolerances.

    Returns
    -------
    xarray.Dataset
        Variables and dims as in `mean_map`, and ``recovery_t``, the recovery time in time of the ODE, a root of
        ``||M||_F = eta`` on the dense output (``recovery_time`` is the same in steps).  The axis is ``step`` (with the
        coordinate ``t``) if the learning rate is known, otherwise ``t``.

    Raises
    ------
    SpecificationError
        If the request is incomplete or contradictory, or the moments of the problem are not supported.
    IntegrationError
        If the integration fails.

    Examples
    --------
    He2/He2: ``m²/(1 - m²)`` grows as ``e^{8t}`` on the population flow.

    >>> from hdsgd import Initial, Problem
    >>> from hdsgd.policies import Scaling
    >>> flow = integrate_ode(Problem("he2", "he2"), time=1, dim=None, scaling=Scaling(mu=1, delta=1),
    ...                      initial=Initial(M=[[0.01]], Q=[[1.0]]))
    >>> round(float(flow.M[0, -1, 0, 0]), 4)
    0.4792
    """
    started = clock.perf_counter()
    as_problem(problem)
    for what, value, kind in (
        ("scaling", scaling, Scaling),
        ("save", save, SaveAt),
        ("integrator", integrator, Integrator),
    ):
        instance(what, value, kind)
    eta, seed = check_eta(eta), whole("seed", seed)
    if time is not None and steps is not None:
        raise SpecificationError("give time or steps, not both")
    if time is None and steps is None:
        time = 10.0
    q0, m0, given = starts(problem, initial, dim, seed)
    normalised, phases = CONSTRAINTS[problem.constraint].normalised, phases_of(problem.loss)
    if normalised and np.abs(np.diagonal(q0, axis1=1, axis2=2) - 1).max() > 1e-9:
        raise SpecificationError("Q must have a unit diagonal at the start: the rows are normalised in this problem")
    if dim is None and steps is not None:
        raise SpecificationError("steps need a learning rate: give dim")
    if dim is None and len(phases) > 1 and problem.switch_decay:
        raise SpecificationError("switch_decay counts steps: give dim")
    end = finite("time" if steps is None else "steps", time if steps is None else steps, low=0.0, open_low=True)
    check_states(problem, len(m0), math.inf, save)
    points = saved_times(save, end, whole_numbers=False)
    if steps is not None and isinstance(save.points, int) and end == round(end):
        points = np.unique(np.round(points))
    for loss in phases:
        moment_tables(problem, loss)  # refused here if they are not supported
    scale = _flow(problem, regime, dim, scaling, eta)
    unit = 1.0 if steps is None else float(scale.unit or 1.0)
    t, end = points * unit, end * unit
    from hdsgd._compile import announced_compilation

    p, k = problem.p, problem.k
    M, Q = np.empty((len(m0), len(t), p, k)), np.empty((len(m0), len(t), p, p))
    recovery, recovered = np.full(len(m0), end), np.zeros(len(m0), dtype=bool)
    switch = np.full(len(m0), -1.0)
    upper = np.triu_indices(p, 1 if normalised else 0)
    options = integrator.to_dict()
    with announced_compilation():
        for n in range(len(m0)):
            state = np.concatenate([m0[n].ravel(), q0[n][upper]])
            path = _integrate(problem, scale, intra_batch, state, t, end, eta, options)
            M[n] = path.states[:, : p * k].reshape(-1, p, k)
            Q[n] = np.eye(p)
            Q[n][:, upper[0], upper[1]] = Q[n][:, upper[1], upper[0]] = path.states[:, p * k :]
            if path.recovery is not None:
                recovery[n], recovered[n] = path.recovery, True
            if path.switch is not None:
                switch[n] = path.switch
        Q = _semidefinite(problem, Q, M, normalised, max(1e-6, 1e3 * integrator.rtol))
    variables: dict[str, NDArray[Any]] = {"recovered": recovered, "recovery_t": recovery}
    variables["status"] = outcome(recovered, np.zeros(len(m0), dtype=bool))
    coords: dict[str, Any] = {"t": t}
    if scale.unit is not None:
        coords = {"step": t / scale.unit if steps is None else points, "t": ("step", t)}
        variables["recovery_time"] = recovery / scale.unit
        if len(phases) > 1:
            variables["switch_step"] = np.where(switch < 0, -1.0, switch / scale.unit)
    specification = {
        **{"regime": scale.regime, "nu": scale.nu, "dim": scale.dim, "batch": scale.batch, "lr": scale.lr},
        **{"intra_batch": intra_batch, "end": end, "eta": eta, **options},
        **{"scaling": scale.scaling, "initial": [one.to_dict() for one in given], "seed": seed},
    }
    axis = "t" if scale.unit is None else "step"
    return labelled(problem, axis, coords, (M, Q), variables, "ode", specification, started)


def _integrate(
    problem: Problem,
    scale: _Flow,
    intra_batch: bool,
    state: Floats,
    t: Floats,
    end: float,
    eta: float,
    options: Mapping[str, Any],
) -> _Path:
    """One replica from time 0 to `end`, in a phase for each loss."""
    from hdsgd.dynamics._dynamics_kernels import FlowRule, flow, state_risk

    constraint, phases = CONSTRAINTS[problem.constraint], phases_of(problem.loss)
    tables, P, p = [moment_tables(problem, loss) for loss in phases], problem.target.P, problem.p
    size = problem.p * problem.k
    rule = FlowRule(
        square=with_output(phases[0]),
        tangential=constraint.tangential,
        normalised=constraint.normalised,
        drift=scale.drift,
        nu=scale.nu,
        finite_d=scale.regime == FINITE_D,
        dim=float(scale.dim or 0),
        batch=float(scale.batch or 1),
        lr=float(scale.lr or 0.0),
        intra_batch=intra_batch,
        factor=1.0,
        decay=0.0,
        start=0.0,
    )

    def norm(time: float, y: Floats) -> float:
        return math.sqrt(float(y[:size] @ y[:size])) - eta

    norm.direction = 1  # type: ignore[attr-defined]
    # A start at the threshold, up to rounding, is a recovery at time 0: there is no crossing to find.
    recovery = 0.0 if norm(0.0, state) >= -1e-9 else None
    crossing = norm if recovery is None else _never
    if len(phases) == 1:
        states, recovery, _ = _phase(flow, (tables[0], rule, P, p), state, t, 0.0, end, [crossing], recovery, options)
        return _Path(states, recovery, None)
    threshold = problem.switch_fraction * state_risk(tables[0], constraint.normalised, P, p, state)

    def fallen(time: float, y: Floats) -> float:
        return float(state_risk(tables[0], constraint.normalised, P, p, y)) - threshold

    fallen.terminal, fallen.direction = True, -1  # type: ignore[attr-defined]
    first, recovery, (switch, state) = _phase(
        flow, (tables[0], rule, P, p), state, t, 0.0, end, [crossing, fallen], recovery, options
    )
    if switch >= end:
        return _Path(first, recovery, None)
    rule = rule._replace(
        square=with_output(phases[1]), factor=problem.switch_factor, decay=problem.switch_decay, start=switch
    )
    later, recovery, _ = _phase(flow, (tables[1], rule, P, p), state, t, switch, end, [crossing], recovery, options)
    return _Path(np.concatenate([first, later]), recovery, switch)


def _never(time: float, y: Floats) -> float:
    """An event that does not happen."""
    return 1.0


def _phase(
    flow: Callable[..., bool],
    arguments: tuple[Any, ...],
    state: Floats,
    t: Floats,
    start: float,
    end: float,
    events: list[Callable[[float, Floats], float]],
    recovery: float | None,
    options: Mapping[str, Any],
) -> tuple[Floats, float | None, tuple[float, Floats]]:
    """Integrate from `start` to `end` or a terminal event; saved states, recovery time, and where it ended."""
    from scipy.integrate import solve_ivp

    evaluations, reached = 0, start

    def slope(time: float, y: Floats) -> Floats:
        nonlocal evaluations, reached
        evaluations += 1
        out = np.empty_like(y)
        is_finite = flow(*arguments, time, y, out)
        if evaluations > MAX_EVALUATIONS:
            raise IntegrationError(
                f"the ODE took more than {MAX_EVALUATIONS} evaluations and reached t = {reached:.6g} of {end:.6g}; "
                f"try method 'Radau' or a larger rtol than {options['rtol']:g}"
            )
        if not is_finite:
            raise IntegrationError(_unbounded(reached, end))
        reached = time
        return out

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_ivp(slope, (start, end), state, dense_output=True, events=events, **options)
    if solution.status < 0 and float(np.abs(solution.y[:, -1]).max()) > 1e6:
        raise IntegrationError(_unbounded(solution.t[-1], end))
    if solution.status < 0:
        reasons = "; ".join(dict.fromkeys(str(w.message).strip() for w in caught)) or solution.message
        raise IntegrationError(
            f"{options['method']} stopped at t = {solution.t[-1]:.6g} of {end:.6g} after {evaluations} evaluations: "
            f"{reasons}; try method 'Radau' or a larger rtol than {options['rtol']:g}"
        )
    crossings: Any = solution.t_events
    if recovery is None and len(crossings[0]):
        recovery = float(crossings[0][0])
    dense: Any = solution.sol
    stop = float(solution.t[-1])
    inside = t[(t >= start) & ((t < stop) | (stop >= end))]
    states = dense(inside).T if len(inside) else np.empty((0, len(state)))
    states[inside == start] = state
    return states, recovery, (stop, solution.y[:, -1].copy())


def _unbounded(time: float, end: float) -> str:
    return (
        f"the overlaps grow without bound near t = {time:.6g} (of {end:.6g}); a constraint or a smaller learning rate "
        "avoids it"
    )


def _semidefinite(problem: Problem, Q: Floats, M: Floats, normalised: bool, tolerance: float) -> Floats:
    """Q with the small negative eigenvalues that the tolerance of the integration leaves set to zero."""
    smallest = np.linalg.eigvalsh(omega_of(problem, Q, M))[..., 0]
    if smallest.min() < -tolerance * max(1.0, float(np.abs(Q).max())):
        raise IntegrationError(
            f"[[Q, M], [Mᵀ, P]] lost positive semi-definiteness (eigenvalue {smallest.min():.3g}); lower rtol and atol"
        )
    values, vectors = np.linalg.eigh(Q)
    if values.min() >= 0:
        return Q
    root = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    if normalised:
        root /= np.linalg.norm(root, axis=-1, keepdims=True)
    clipped = root @ np.swapaxes(root, -1, -2)
    if normalised:
        clipped[..., np.arange(problem.p), np.arange(problem.p)] = 1.0
    result: Floats = np.where((values[..., 0] < 0)[..., None, None], clipped, Q)
    return result
