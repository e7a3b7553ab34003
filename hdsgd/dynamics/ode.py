"""Deterministic dynamics of the overlaps: the ODEs of the limit d → ∞.

They start, like `hdsgd.dynamics.maps.mean_map`, from explicit overlaps ``(Q0, M0)`` and return the variables and dims
that `hdsgd.simulate` returns.
"""

from __future__ import annotations

import math
import time as clock
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import MAX_BATCH, check_dim, check_eta, finite, whole
from hdsgd.dynamics.maps import CONSTRAINT_CODES, initial_overlaps, labelled, omega_of, saved_times
from hdsgd.errors import SpecificationError, choice
from hdsgd.moments.tables import moment_tables
from hdsgd.problem.model import Problem
from hdsgd.problem.scaling import batch_size, learning_rate
from hdsgd.results.schema import outcome
from hdsgd.theory.phases import REGIMES
from hdsgd.theory.phases import regime as regime_of

__all__ = ["METHODS", "IntegrationError", "integrate_ode"]

Floats = NDArray[np.float64]

METHODS = ("LSODA", "DOP853", "RK45", "RK23", "Radau", "BDF")
MAX_EVALUATIONS = 2_000_000  # of the right-hand side, per replica


class IntegrationError(RuntimeError):
    """The ODE could not be integrated; the message says where and why."""


class _Scaling(NamedTuple):
    regime: str
    drift: float
    nu: float
    dim: int | None
    batch: int | None
    lr: float | None
    unit: float | None  # time of one step


def _scaling(
    regime: str,
    finite_d: bool,
    dim: int | None,
    batch: int | None,
    lr: float | None,
    mu: float | None,
    delta: float | None,
    n0: float,
    gamma0: float,
) -> _Scaling:
    """Regime, coefficients and step length from what was given."""
    choice("regime", regime, ("auto", *REGIMES[:3]))
    n0, gamma0 = finite("n0", n0, low=0.0, open_low=True), finite("gamma0", gamma0, low=0.0, open_low=True)
    if (mu is None) != (delta is None):
        raise SpecificationError("give mu and delta together")
    if mu is not None and delta is not None:
        if batch is not None or lr is not None:
            raise SpecificationError("give mu and delta, or batch and lr, not both")
        limit = str(regime_of(mu, delta))
        if dim is not None:
            dim = check_dim(dim)
            batch, lr = batch_size(dim, mu, n0), learning_rate(dim, delta, gamma0)
        if regime == "auto" and limit == REGIMES[3] and not finite_d:
            raise SpecificationError(
                f"mu = {mu:g}, delta = {delta:g} has no ODE limit (delta <= max(0, (1-mu)/2)); use the mean map, force "
                "a regime, or use finite_d"
            )
        nu = gamma0 / n0
    else:
        if (batch is None) != (lr is None) or (batch is not None and dim is None):
            raise SpecificationError("give dim, batch and lr together, or mu and delta, or a regime")
        if batch is not None and lr is not None:
            dim, batch = check_dim(dim), whole("batch", batch, low=1, high=MAX_BATCH)
            lr = finite("lr", lr, low=0.0, open_low=True)
            limit, nu = REGIMES[1], lr * dim / batch
        else:
            limit, nu = "", gamma0 / n0
            if regime == "auto" and not finite_d:
                raise SpecificationError("give dim, batch and lr, or mu and delta, or a regime")
    if finite_d:
        if regime != "auto":
            raise SpecificationError("finite_d keeps the drift and all noise at finite d: leave regime at 'auto'")
        if dim is None or batch is None or lr is None:
            raise SpecificationError("finite_d needs dim, with batch and lr or with mu and delta")
        return _Scaling("finite d", 1.0, 0.0, dim, batch, lr, lr)
    regime = limit if regime == "auto" else regime
    if regime == REGIMES[2]:  # time in units of γ² d/n_b, only D survives
        unit = lr * lr * dim / batch if lr is not None and dim is not None and batch is not None else None
        return _Scaling(regime, 0.0, 1.0, dim, batch, lr, unit)
    return _Scaling(regime, 1.0, nu if regime == REGIMES[1] else 0.0, dim, batch, lr, lr)


class _Path(NamedTuple):
    states: Floats  # (saved times, state)
    recovery: float | None
    switch: float | None


def integrate_ode(
    problem: Problem,
    *,
    Q0: ArrayLike,
    M0: ArrayLike,
    time: float | None = None,
    steps: float | None = None,
    dim: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    mu: float | None = None,
    delta: float | None = None,
    n0: float = 1.0,
    gamma0: float = 1.0,
    regime: str = "auto",
    finite_d: bool = False,
    intra_batch: bool = True,
    save: ArrayLike = 100,
    eta: float = 0.5,
    method: str = "LSODA",
    rtol: float = 1e-8,
    atol: float = 1e-10,
) -> xr.Dataset:
    """Integrate the ODEs of the overlaps (theory §4).

    In the time ``t = γ · step``, with ``ν = γ d/n_b``,

        Ψ⁰ = -A_{·,teacher},   Φ⁰ = -(A_{·,student} + transpose) + ν D,

    which are dM/dt and dQ/dt without constraint.  Projected and spherical dynamics are the same at this order: with
    ``n_j = Φ⁰_jj``, ``dM_jr/dt = Ψ⁰_jr - ½ n_j M_jr``, ``dQ_jl/dt = Φ⁰_jl - ½ (n_j + n_l) Q_jl``.  Regimes:

    - "population flow" (δ + μ > 1): ν = 0;
    - "Saad & Solla" (δ + μ = 1): ν = γ0/n0, or γ d/n_b if these are given directly;
    - "noise dominated" ((1-μ)/2 < δ < 1-μ): time in units of ``γ² d/n_b`` a step, ``Φ⁰ = D``, ``Ψ⁰ = 0``.

    With `finite_d`, ``S`` replaces ``A`` and ``γ N`` replaces ``ν D``, both as in `mean_map` (for spherical steps those
    of the tangential gradient).

    Parameters
    ----------
    problem : Problem
        For the adaptive loss the right-hand side changes when the risk has fallen to the given fraction of its start;
        the rate after that multiplies the drift, and its square the noise.
    Q0 : array_like of shape (p, p) or (replica, p, p)
        Unit diagonal, unless the problem is unconstrained.
    M0 : array_like of shape (p, k) or (replica, p, k)
    time, steps : float
        Exactly one: where to end, in time of the ODE or in steps.
    dim, batch, lr : optional
        ``d``, ``n_b``, ``γ``: the regime is then "Saad & Solla" with ``ν = γ d/n_b``; or, instead of batch and lr,
    mu, delta, n0, gamma0 : float, optional
        ``n_b = n0 d^μ``, ``γ = γ0 d^-δ``, from which the regime is chosen; `dim` only gives the step axis then.
    regime : {"auto", "population flow", "Saad & Solla", "noise dominated"}
        Forced regime.
    finite_d, intra_batch : bool
        Finite-d terms, with or without the intra-batch interaction; they need `dim`.
    save : int or array_like
        How many equally spaced points to save after the start, or which (in the unit of the end).
    eta : float
        Threshold of weak recovery, in (0, 1).
    method : {"LSODA", "DOP853", "RK45", "RK23", "Radau", "BDF"}
        Of `scipy.integrate.solve_ivp`.  LSODA changes to an implicit method by itself where the ODE is stiff.
    rtol, atol : float
        Tolerances.

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
    """
    started = clock.perf_counter()
    eta = check_eta(eta)
    choice("method", method, METHODS)
    scale = _scaling(regime, finite_d, dim, batch, lr, mu, delta, n0, gamma0)
    q0, m0 = initial_overlaps(problem, Q0, M0)
    constrained = problem.constraint != "none"
    if constrained and np.abs(np.diagonal(q0, axis1=1, axis2=2) - 1).max() > 1e-9:
        raise SpecificationError("Q0 must have a unit diagonal: the rows are normalised in this problem")
    if (time is None) == (steps is None):
        raise SpecificationError(f"give exactly one of time and steps ({'neither' if time is None else 'both'} given)")
    if scale.unit is None and steps is not None:
        raise SpecificationError("steps need a learning rate: give dim with mu and delta, or dim, batch and lr")
    if problem.loss == "adaptive" and problem.switch_decay and scale.lr is None:
        raise SpecificationError("switch_decay counts steps: give dim with mu and delta, or dim, batch and lr")
    end = finite("time" if steps is None else "steps", time if steps is None else steps, low=0.0, open_low=True)
    points = saved_times(save, end, whole_numbers=False)
    if steps is not None and np.ndim(save) == 0 and end == round(end):
        points = np.unique(np.round(points))
    unit = 1.0 if steps is None else float(scale.unit or 1.0)
    t, end = points * unit, end * unit
    from hdsgd._compile import announced_compilation

    p, k = problem.p, problem.k
    M, Q = np.empty((len(m0), len(t), p, k)), np.empty((len(m0), len(t), p, p))
    recovery, recovered = np.full(len(m0), end), np.zeros(len(m0), dtype=bool)
    switch = np.full(len(m0), -1.0)
    upper = np.triu_indices(p, 1 if constrained else 0)
    options = {"method": method, "rtol": finite("rtol", rtol, low=1e-13), "atol": finite("atol", atol, low=0.0)}
    with announced_compilation():
        for n in range(len(m0)):
            state = np.concatenate([m0[n].ravel(), q0[n][upper]])
            path = _integrate(problem, scale, finite_d, intra_batch, state, t, end, eta, options)
            M[n] = path.states[:, : p * k].reshape(-1, p, k)
            Q[n] = np.eye(p)
            Q[n][:, upper[0], upper[1]] = Q[n][:, upper[1], upper[0]] = path.states[:, p * k :]
            if path.recovery is not None:
                recovery[n], recovered[n] = path.recovery, True
            if path.switch is not None:
                switch[n] = path.switch
        Q = _semidefinite(problem, Q, M, constrained, max(1e-6, 1e3 * rtol))
    variables: dict[str, NDArray[Any]] = {"recovered": recovered, "recovery_t": recovery}
    variables["status"] = outcome(recovered, False)
    coords: dict[str, Any] = {"t": t}
    if scale.unit is not None:
        coords = {"step": t / scale.unit if steps is None else points, "t": ("step", t)}
        variables["recovery_time"] = recovery / scale.unit
        if problem.loss == "adaptive":
            variables["switch_step"] = np.where(switch < 0, -1.0, switch / scale.unit)
    specification = {
        **{"regime": scale.regime, "nu": scale.nu, "dim": scale.dim, "batch": scale.batch, "lr": scale.lr},
        **{"finite_d": finite_d, "intra_batch": intra_batch, "end": end, "eta": eta, **options},
    }
    axis = "t" if scale.unit is None else "step"
    return labelled(problem, axis, coords, M, Q, variables, "ode", specification, started)


def _integrate(
    problem: Problem,
    scale: _Scaling,
    finite_d: bool,
    intra_batch: bool,
    state: Floats,
    t: Floats,
    end: float,
    eta: float,
    options: Mapping[str, Any],
) -> _Path:
    """One replica from time 0 to `end`, in two phases for the adaptive loss."""
    from hdsgd.dynamics._dynamics_kernels import FlowRule, flow, state_risk

    tables, P, p = moment_tables(problem), problem.target.P, problem.p
    constrained, size = problem.constraint != "none", problem.p * problem.k
    rule = FlowRule(
        square=problem.loss == "square",
        constraint=CONSTRAINT_CODES[problem.constraint],
        drift=scale.drift,
        nu=scale.nu,
        finite_d=finite_d,
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
    if problem.loss != "adaptive":
        states, recovery, _ = _phase(flow, (tables, rule, P, p), state, t, 0.0, end, [crossing], recovery, options)
        return _Path(states, recovery, None)
    threshold = problem.switch_fraction * state_risk(tables, constrained, P, p, state)

    def fallen(time: float, y: Floats) -> float:
        return float(state_risk(tables, constrained, P, p, y)) - threshold

    fallen.terminal, fallen.direction = True, -1  # type: ignore[attr-defined]
    first, recovery, (switch, state) = _phase(
        flow, (tables, rule, P, p), state, t, 0.0, end, [crossing, fallen], recovery, options
    )
    if switch >= end:
        return _Path(first, recovery, None)
    rule = rule._replace(square=True, factor=problem.switch_factor, decay=problem.switch_decay, start=switch)
    later, recovery, _ = _phase(flow, (tables, rule, P, p), state, t, switch, end, [crossing], recovery, options)
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


def _semidefinite(problem: Problem, Q: Floats, M: Floats, constrained: bool, tolerance: float) -> Floats:
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
    if constrained:
        root /= np.linalg.norm(root, axis=-1, keepdims=True)
    clipped = root @ np.swapaxes(root, -1, -2)
    if constrained:
        clipped[..., np.arange(problem.p), np.arange(problem.p)] = 1.0
    result: Floats = np.where((values[..., 0] < 0)[..., None, None], clipped, Q)
    return result
