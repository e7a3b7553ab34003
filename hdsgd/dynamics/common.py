"""What the mean map and the ODEs share: where they start, when they save, and the labelled Dataset they return."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import MAX_STEPS, finite
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import checked_overlaps, population_moments, population_risk
from hdsgd.moments.quadrature import has_closed_moments
from hdsgd.policies import SaveAt
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.initial import Initial, draw_overlaps
from hdsgd.problem.model import Problem
from hdsgd.results.schema import finish, note

__all__ = ["Start", "initial_overlaps", "labelled", "omega_of", "saved_times", "starts", "steps_within"]

Floats = NDArray[np.float64]

#: Relative error of moments by quadrature from which on a result says so.
VISIBLE_ERROR = 1e-6
#: How a start may be given.
Start = Initial | str | Sequence[Initial | str]


def initial_overlaps(problem: Problem, Q0: ArrayLike, M0: ArrayLike) -> tuple[Floats, Floats]:
    """Checked initial overlaps with one leading replica dimension.

    Examples
    --------
    >>> initial_overlaps(Problem("he2", "he2"), [[1.0]], [[1.2]])
    Traceback (most recent call last):
    hdsgd.errors.SpecificationError: Q and M are not overlaps of any vectors: [[Q, M], [Mᵀ, P]] has the eigenvalue -0.2
    """
    q, m, leading = checked_overlaps(problem, Q0, M0)
    if len(leading) > 1:
        raise SpecificationError(f"Q and M may have one leading dimension, the replicas; theirs is {leading}")
    smallest = np.linalg.eigvalsh(omega_of(problem, q, m))[:, 0]
    if (smallest < -1e-9 * np.maximum(1.0, q.max(initial=0.0))).any():
        raise SpecificationError(
            f"Q and M are not overlaps of any vectors: [[Q, M], [Mᵀ, P]] has the eigenvalue {smallest.min():.3g}"
        )
    if CONSTRAINTS[problem.constraint].normalised and (np.diagonal(q, axis1=1, axis2=2) <= 0).any():
        raise SpecificationError("the diagonal of Q, the squared norms of the student rows, must be positive")
    return q, m


def starts(problem: Problem, initial: Start, dim: int | None, seed: int) -> tuple[Floats, Floats, list[Initial]]:
    """Where deterministic dynamics begin: one replica for each start.

    Parameters
    ----------
    problem : Problem
    initial : Initial, str or sequence of these
        Overlaps given as both `M` and `Q` are taken as they are; everything else is drawn.
    dim : int or None
        Input dimension of what is drawn.
    seed : int
        Replica n is drawn with ``seed + n``.

    Returns
    -------
    Q : ndarray of shape (replica, p, p)
    M : ndarray of shape (replica, p, k)
    given : list of Initial

    Raises
    ------
    SpecificationError
        If there is no start, it does not fit the problem, or it has to be drawn and `dim` is None.

    Examples
    --------
    >>> Q, M, _ = starts(Problem("he2", "he2"), [Initial(M=[[0.3]], Q=[[1.0]]), Initial(overlap=0.1)], 100, 0)
    >>> M.ravel().tolist()
    [0.3, 0.1]
    """
    given = [initial] if isinstance(initial, Initial | str) else initial
    if not isinstance(given, Sequence) or not all(isinstance(one, Initial | str) for one in given):
        raise SpecificationError(f"initial must be an Initial, its name, or several of these, not {initial!r}")
    records = [Initial(one) if isinstance(one, str) else one for one in given]
    if not records:
        raise SpecificationError("initial holds no start: give one for each replica")
    pairs = []
    for n, one in enumerate(records):
        if one.M is not None and one.Q is not None:
            q, m = initial_overlaps(problem, one.Q, one.M)
        else:
            if dim is None:
                raise SpecificationError("a start that has to be drawn needs dim; or give Initial(M=..., Q=...)")
            drawn_m, drawn_q = draw_overlaps(problem, one, dim, seed + n)
            q, m = initial_overlaps(problem, drawn_q, drawn_m)
        pairs.append((q, m))
    q, m = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return q, m, records


def omega_of(problem: Problem, q: Floats, m: Floats) -> Floats:
    """``Ω = [[Q, M], [Mᵀ, P]]``, shape (..., p+k, p+k).

    Examples
    --------
    >>> omega_of(Problem("he2", "he2"), np.eye(1), np.array([[0.3]])).tolist()
    [[1.0, 0.3], [0.3, 1.0]]
    """
    P = np.broadcast_to(problem.target.P, (*m.shape[:-2], problem.k, problem.k))
    return np.block([[q, m], [np.swapaxes(m, -1, -2), P]])


def steps_within(time: float, unit: float) -> int:
    """How many steps, each of so much time, end within a time.

    Examples
    --------
    >>> steps_within(1.0, 0.3)
    3
    >>> steps_within(1e300, 0.3)
    Traceback (most recent call last):
    hdsgd.errors.SpecificationError: time = 1e+300 is 3.33e+300 steps of 0.3; at most 9·10^18 can be counted
    """
    count = finite("time", time, low=0.0, open_low=True) / unit
    if count > MAX_STEPS:
        raise SpecificationError(f"time = {time:g} is {count:.3g} steps of {unit:.3g}; at most 9·10^18 can be counted")
    return int(count)


def saved_times(save: SaveAt, end: float, *, whole_numbers: bool) -> Floats:
    """Saved times in [0, end]: 0 and about so many after it, or just those given.

    Examples
    --------
    >>> saved_times(SaveAt(4), 10, whole_numbers=True), saved_times(SaveAt([0.5, 2]), 2, whole_numbers=False)
    (array([ 0.,  2.,  5.,  8., 10.]), array([0.5, 2. ]))
    """
    if isinstance(save.points, int):
        if save.spacing == "linear":
            count = min(save.points, math.ceil(end)) if whole_numbers else save.points
            grid = np.linspace(0.0, end, count + 1)
        else:
            first = 1.0 if whole_numbers and end > 1 else end / 1000
            grid = np.concatenate([[0.0], np.geomspace(first, end, save.points)])
        return np.unique(np.round(grid)) if whole_numbers else grid
    grid = np.array(save.points, dtype=np.float64)
    if not grid.size or not (np.diff(grid) > 0).all() or grid[-1] > end:
        raise SpecificationError(f"save must hold a number of points or increasing times between 0 and {end:g}")
    if whole_numbers and (grid != np.round(grid)).any():
        raise SpecificationError("save must hold whole steps")
    return grid


def _quadrature_error(problem: Problem, Q: Floats, M: Floats) -> float:
    """Largest estimated error of moments by quadrature at the first and the last of the states."""
    losses = [loss for loss in problem.phases if not has_closed_moments(problem, loss)]
    ends = slice(None, None, max(len(Q) - 1, 1))
    return max((float(population_moments(problem, Q[ends], M[ends], loss.name).error.max(initial=0.0))
                for loss in losses), default=0.0)  # fmt: skip


def labelled(
    problem: Problem,
    axis: str,
    coords: Mapping[str, Any],
    states: tuple[Floats, Floats],
    variables: Mapping[str, NDArray[Any]],
    kind: str,
    specification: Mapping[str, Any],
    started: float,
) -> xr.Dataset:
    """The results, states (M, Q) and what else there is, with the variables and dims of a simulation.

    Where the population risk is not available it is NaN, and the attribute ``notes`` says why; it also says how
    accurate moments by quadrature are, where that can be seen.
    """
    M, Q = states
    risk, missing = np.full(M.shape[:2], np.nan), None
    good = np.isfinite(Q).all(axis=(2, 3)) & np.isfinite(M).all(axis=(2, 3))
    try:
        risk[good] = population_risk(problem, Q[good], M[good])
    except SpecificationError as error:
        missing = f"no population risk: {error}"
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
    if missing is not None:
        note(dataset, missing)
    if (accuracy := _quadrature_error(problem, Q[good], M[good])) > VISIBLE_ERROR:
        note(dataset, f"population moments are found by quadrature, with relative errors of about {accuracy:.0e}")
    return finish(dataset, kind, {"problem": problem.to_dict(), **specification}, None, timings)
