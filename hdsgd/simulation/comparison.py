"""Simulation beside theory: how far replicas are from the deterministic dynamics, and how that falls with d."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import check_dims, check_eta, finite, instance, whole
from hdsgd.dynamics.common import steps_within
from hdsgd.dynamics.maps import mean_map
from hdsgd.dynamics.ode import IntegrationError, integrate_ode
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import gradient_diversity
from hdsgd.policies import ETA, SEED, SaveAt, Scaling
from hdsgd.problem.initial import Initial, as_initial, draw_overlaps
from hdsgd.problem.model import Problem, as_problem
from hdsgd.progress import progress_bar
from hdsgd.results.schema import check_states, describe, finish, note
from hdsgd.results.summaries import problem_of, specification_of
from hdsgd.simulation.cells import Cell
from hdsgd.simulation.runs import simulate
from hdsgd.theory.phases import REGIMES, regime
from hdsgd.theory.prefactors import resolve_gamma0, resolve_scaling

__all__ = ["add_diversity", "compare", "fit_rate"]

logger = logging.getLogger("hdsgd")

Floats = NDArray[np.float64]
BAND = (0.025, 0.975)
THEORIES = ("ode", "map")
DIMS = (250, 1000, 4000)


def compare(
    problem: Problem,
    *,
    dims: int | Sequence[int] = DIMS,
    scaling: Scaling = Scaling(mu=0.5, delta=0.5),
    time: float = 3.0,
    initial: Initial | str = "random",
    points: int = 50,
    replicas: int = 32,
    eta: float = ETA,
    engine: str = "exact",
    seed: int = SEED,
    threads: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Run simulations, mean map and ODE from the same initial overlaps at several dimensions.

    Parameters
    ----------
    problem : Problem
    dims : int or sequence of int
        Input dimensions, distinct.
    scaling : Scaling
        ``n_b = n0 d^μ``, ``γ = γ0 d^-δ``; the exponents also choose the regime of the ODE (theory §4), so that both
        must be given as powers.
    time : float
        Where to end, in time of the ODE: ``t = γ · step``, or ``γ² d/n_b · step`` where noise dominates.
    initial : Initial or str
        Drawn once, at the smallest dimension, and used at all: the start is the same for every d and replica.
    points : int
        Saved times after the start, at most as many as the smallest dimension has steps.
    replicas, eta, engine, seed, threads, progress
        As in `hdsgd.simulate`.

    Returns
    -------
    xarray.Dataset
        ``M``, ``Q`` (dim, replica, point, ...) of the simulations; ``M_theory``, ``Q_theory`` (theory, dim, point,
        ...); ``deviation``, ``deviation_error`` and ``inside`` (theory, dim); ``rate`` and ``rate_error`` (theory) of
        ``deviation ∝ d^rate``; coordinates ``step`` and ``t`` (dim, point), ``batch`` and ``lr`` (dim).  Where the ODE
        cannot be integrated its values are NaN, and the attribute ``notes`` says why.

    Raises
    ------
    SpecificationError
        On any request that cannot be carried out, before the first step; also where (μ, δ) has no ODE limit.

    Examples
    --------
    >>> from hdsgd import Initial, Problem, Scaling, compare
    >>> both = compare(Problem("he2", "he2"), dims=[100, 400], scaling=Scaling(mu=0.5, delta=0.75, gamma0=0.1),
    ...                time=0.5, initial=Initial(overlap=0.4), points=5, replicas=8)
    >>> dict(both.M_theory.sizes)
    {'theory': 2, 'dim': 2, 'point': 6, 'student': 1, 'teacher': 1}
    """
    started = clock.perf_counter()
    as_problem(problem)
    instance("scaling", scaling, Scaling)
    sizes = check_dims(dims)
    time, points = finite("time", time, low=0.0, open_low=True), whole("points", points, low=1)
    replicas, eta, seed = whole("replicas", replicas, low=1), check_eta(eta), whole("seed", seed)
    mu, delta = scaling.mu, scaling.delta
    if mu is None or delta is None:
        raise SpecificationError(
            "the ODE is a limit of large d: give the batch size and the learning rate as powers, mu and delta"
        )
    limit = str(regime(mu, delta))
    if limit == REGIMES[3]:
        raise SpecificationError(
            f"mu = {mu:g}, delta = {delta:g} has no ODE limit to compare with: delta must exceed max(0, (1-mu)/2)"
        )
    scaling = replace(scaling, gamma0=resolve_gamma0(problem, scaling, eta))  # the same at every dimension
    scalings = [resolve_scaling(problem, d, scaling, eta) for d in sizes]
    units = [
        at_d.lr * (at_d.lr * d / at_d.batch if limit == REGIMES[2] else 1.0)
        for d, at_d in zip(sizes, scalings, strict=True)
    ]
    steps = [steps_within(time, unit) for unit in units]
    if min(steps) < 1:
        d, unit = next((d, unit) for d, unit, last in zip(sizes, units, steps, strict=True) if last < 1)
        raise SpecificationError(f"time = {time:g} is less than one step of {unit:.3g} at dim = {d}")
    points = min(points, *steps)
    M0, Q0 = draw_overlaps(problem, as_initial(initial), sizes[0], seed)
    start = Initial(M=M0, Q=Q0)  # type: ignore[arg-type]
    p, k = problem.p, problem.k
    check_states(problem, len(sizes) * (replicas + len(THEORIES)), points, SaveAt(points))
    grids = [np.round(np.linspace(0, last, points + 1)).astype(np.int64) for last in steps]
    # Whatever may be refused is, before the first step: an engine at one of the dimensions, and theory.
    for d, at_d in zip(sizes, scalings, strict=True):
        Cell(problem, dim=d, batch=at_d.batch, lr=at_d.lr, initial=start, eta=eta, engine=engine, seed=seed)
    shape = (len(THEORIES), len(sizes), points + 1, p)
    M_theory, Q_theory = np.full((*shape, k), np.nan), np.full((*shape, p), np.nan)
    notes = []
    for i, (d, at_d, unit, grid) in enumerate(zip(sizes, scalings, units, grids, strict=True)):
        try:
            ode = integrate_ode(
                problem, time=float(grid[-1] * unit), dim=d, scaling=scaling, initial=start, eta=eta,
                save=SaveAt((grid * unit).tolist()),
            )  # fmt: skip
            M_theory[0, i], Q_theory[0, i] = ode["M"].values[0], ode["Q"].values[0]
        except IntegrationError as error:
            notes.append(f"no ODE at d = {d}: {error}")
        finite_d = mean_map(
            problem, dim=d, steps=steps[i], scaling=Scaling(batch=at_d.batch, lr=at_d.lr), initial=start, eta=eta,
            save=SaveAt(grid.tolist()),
        )  # fmt: skip
        M_theory[1, i], Q_theory[1, i] = finite_d["M"].values[0], finite_d["Q"].values[0]
    results: dict[str, list[Any]] = {name: [] for name in ("M", "Q", "step", "t")}
    with progress_bar(len(sizes), "dimensions", progress) as advance:
        for d, at_d, unit, grid in zip(sizes, scalings, units, grids, strict=True):
            run = simulate(
                problem, dim=d, steps=int(grid[-1]), scaling=Scaling(batch=at_d.batch, lr=at_d.lr), initial=start,
                save=SaveAt(grid.tolist()), replicas=replicas, eta=eta, engine=engine, seed=seed, threads=threads,
            )  # fmt: skip
            for name in ("M", "Q"):
                results[name].append(run[name].values)
            results["step"].append(grid)
            results["t"].append(grid * unit)
            advance(1)
    arrays = {name: np.array(values) for name, values in results.items()}
    statistics = np.array([
        [_deviation(problem, arrays["M"][i], arrays["Q"][i], M_theory[a, i], Q_theory[a, i]) for i in range(len(sizes))]
        for a in range(len(THEORIES))
    ])  # fmt: skip
    fits = np.array([fit_rate(np.array(sizes), rows[:, 0], rows[:, 1]) for rows in statistics])
    dataset = xr.Dataset(
        {
            "M": (("dim", "replica", "point", "student", "teacher"), arrays["M"]),
            "Q": (("dim", "replica", "point", "student", "student_2"), arrays["Q"]),
            "M_theory": (("theory", "dim", "point", "student", "teacher"), M_theory),
            "Q_theory": (("theory", "dim", "point", "student", "student_2"), Q_theory),
            "deviation": (("theory", "dim"), statistics[..., 0]),
            "deviation_error": (("theory", "dim"), statistics[..., 1]),
            "inside": (("theory", "dim"), statistics[..., 2]),
            "rate": ("theory", fits[:, 0]),
            "rate_error": ("theory", fits[:, 1]),
        },
        coords={
            "theory": list(THEORIES),
            "dim": sizes,
            "replica": np.arange(replicas),
            "point": np.arange(points + 1),
            "student": np.arange(p),
            "student_2": np.arange(p),
            "teacher": np.arange(k),
            "step": (("dim", "point"), arrays["step"]),
            "t": (("dim", "point"), arrays["t"]),
            "batch": ("dim", np.array([at_d.batch for at_d in scalings], dtype=np.int64)),
            "lr": ("dim", np.array([at_d.lr for at_d in scalings])),
        },
    )
    for text in notes:
        logger.warning("%s", text)
        note(dataset, text)
    specification = {
        "problem": problem.to_dict(), "dims": sizes, "mu": mu, "delta": delta, "time": time,
        "n0": scaling.n0, "gamma0": scaling.gamma0, "regime": limit, "initial": start.to_dict(),
        "points": points, "replicas": replicas, "eta": eta, "engine": engine, "seed": seed,
    }  # fmt: skip
    timings = {"total_seconds": clock.perf_counter() - started}
    return finish(dataset, "compare", specification, seed, timings)


def add_diversity(dataset: xr.Dataset) -> xr.Dataset:
    """Add the population gradient diversity along a trajectory, at no sampling cost (theory §7).

    ``E||g_i||²/||E g_i||² = tr(dD + Z)/tr(A Ω⁻¹ Aᵀ)``, g_i the gradient of one sample: about the batch size from
    which on the noise of a step is smaller than its mean.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.simulate`, `hdsgd.integrate_ode` (with `dim`) or `hdsgd.mean_map`.

    Returns
    -------
    xarray.Dataset
        With the variable ``diversity`` (replica, step or t); nan where the state is not finite, inf where the mean
        gradient vanishes.  Of a loss that switches it is the diversity of the one with which it starts.

    Raises
    ------
    SpecificationError
        If the Dataset has no overlaps or no dimension.

    Examples
    --------
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=10, replicas=2)
    >>> bool((hdsgd.add_diversity(run).diversity > 1).all())
    True
    """
    spec = specification_of(dataset)
    if "M" not in dataset or "problem" not in spec or not spec.get("dim"):
        raise SpecificationError("gradient diversity needs a trajectory of overlaps at a given dimension")
    problem = problem_of(dataset)
    axis = "step" if "step" in dataset["M"].dims else "t"
    M = dataset["M"].transpose("replica", axis, "student", "teacher").values
    Q = dataset["Q"].transpose("replica", axis, "student", "student_2").values
    finite_states = np.isfinite(M).all(axis=(2, 3)) & np.isfinite(Q).all(axis=(2, 3))
    diversity = np.full(M.shape[:2], np.nan)
    first = problem.phases[0].name
    diversity[finite_states] = gradient_diversity(problem, Q[finite_states], M[finite_states], spec["dim"], first)
    result = dataset.assign(diversity=(("replica", axis), diversity))
    result["diversity"].attrs.update(describe("diversity"))
    return result


def _deviation(
    problem: Problem, M: Floats, Q: Floats, M_theory: Floats, Q_theory: Floats
) -> tuple[float, float, float]:
    """Deviation of the replicas' mean from theory, its error, and the share of theory inside the replicas' band."""
    upper = np.triu_indices(problem.p, 1 if problem.constraint != "none" else 0)
    data = np.concatenate([M.reshape(*M.shape[:2], -1), Q[..., upper[0], upper[1]]], axis=-1)[:, 1:]
    theory = np.concatenate([M_theory.reshape(len(M_theory), -1), Q_theory[..., upper[0], upper[1]]], axis=-1)[1:]
    n = len(data)

    def square(sample: Floats) -> float:
        # The variance of the mean is subtracted, so that replicas without bias have deviation 0 on average.
        return float(((sample.mean(axis=0) - theory) ** 2 - sample.var(axis=0, ddof=1) / len(sample)).mean())

    if np.isnan(theory).any():
        return np.nan, np.nan, np.nan
    low, high = np.quantile(data, BAND, axis=0)
    inside = float(np.mean((theory >= low) & (theory <= high)))
    if n < 3:
        return float(np.sqrt(np.mean((data.mean(axis=0) - theory) ** 2))), np.nan, inside
    leave_out = np.array([square(np.delete(data, r, axis=0)) for r in range(n)])
    error = np.sqrt((n - 1) / n * ((leave_out - leave_out.mean()) ** 2).sum())
    # The error is that of the square, carried over to the root from above, where the square may be zero.
    found = max(square(data), 0.0)
    return float(np.sqrt(found)), float(np.sqrt(found + error) - np.sqrt(found)), inside


def fit_rate(dims: NDArray[np.int64], deviation: Floats, error: Floats) -> tuple[float, float]:
    """Slope of ln(deviation) against ln(d) by weighted least squares, and its standard error.

    Dimensions at which the deviation is less than twice its error say nothing about the slope and are left out; nan
    if fewer than two remain.
    """
    keep = deviation > 2 * np.nan_to_num(error, nan=np.inf)
    if keep.sum() < 2:
        return np.nan, np.nan
    x, y, sigma = np.log(dims[keep]), np.log(deviation[keep]), (error / np.where(keep, deviation, 1.0))[keep]
    weight = 1 / sigma**2
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre) ** 2).sum()
    return float((weight * (x - centre) * y).sum() / spread), float(1 / np.sqrt(spread))
