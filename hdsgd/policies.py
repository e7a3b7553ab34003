"""Policies: how to run something, as values with one set of defaults for Python and for the command line.

What is learnt is a `hdsgd.Problem`; everything here says how long, how often, where and with what.  Imports no NumPy,
so that the command line can show the defaults at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hdsgd.checks import MAX_BATCH, MAX_STEPS, check_eta, finite, whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.records import Record

__all__ = ["SPACINGS", "Integrator", "Plane", "SaveAt", "Scaling", "StopRule", "Store", "Workers"]

#: Defaults of numbers that several functions and commands take.
DIM, STEPS, REPLICAS, ETA, SEED = 1000, 200, 8, 0.5, 0

SPACINGS = ("linear", "log")
METHODS = ("LSODA", "DOP853", "RK45", "RK23", "Radau", "BDF")


def _set(record: Any, name: str, value: Any) -> None:
    object.__setattr__(record, name, value)


def _number_or_auto(what: str, value: Any) -> float | str:
    if isinstance(value, str):
        if value != "auto":
            raise SpecificationError(f"{what} must be a number or 'auto', not {value!r}")
        return "auto"
    return finite(what, value, low=0.0, open_low=True)


@dataclass(frozen=True)
class Scaling(Record):
    """Batch size and learning rate, each as a power of the dimension or as a number.

    Parameters
    ----------
    mu, delta : float, optional
        ``n_b = max(1, round(n0 d^μ))``, ``γ = γ0 d^-δ`` (theory §1); 1 and 0 unless `batch` and `lr` are given.
    n0 : float
        Prefactor of the batch size.
    gamma0 : float or "auto"
        Prefactor of the learning rate; "auto" is half the critical one (`hdsgd.critical_prefactors`).
    batch : int, optional
        ``n_b`` itself, instead of `mu`.
    lr : float, optional
        ``γ`` itself, instead of `delta`.

    Raises
    ------
    SpecificationError
        If one of them is given in both ways, or a number is out of range.

    Examples
    --------
    >>> Scaling(mu=1.5, delta=0.25)
    Scaling(mu=1.5, delta=0.25, n0=1.0, gamma0='auto', batch=None, lr=None)
    """

    mu: float | None = None
    delta: float | None = None
    n0: float = 1.0
    gamma0: float | str = "auto"
    batch: int | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        for number, power, default in (("batch", "mu", 1.0), ("lr", "delta", 0.0)):
            if getattr(self, number) is not None and getattr(self, power) is not None:
                raise SpecificationError(f"give {number} or {power}, not both")
            if getattr(self, number) is None:
                value = getattr(self, power)
                _set(self, power, finite(power, default if value is None else value))
        if self.batch is not None:
            _set(self, "batch", whole("batch", self.batch, low=1, high=MAX_BATCH))
        if self.lr is not None:
            _set(self, "lr", finite("lr", self.lr, low=0.0, open_low=True))
        _set(self, "n0", finite("n0", self.n0, low=0.0, open_low=True))
        _set(self, "gamma0", _number_or_auto("gamma0", self.gamma0))


@dataclass(frozen=True)
class SaveAt(Record):
    """When the state is saved.

    Parameters
    ----------
    points : int or sequence of float
        How many states to save after the first (fewer if there are fewer steps), or when: after which steps, or, where
        the end of an ODE is given as a time, at which times.
    spacing : {"linear", "log"}
        How that many are spread.

    Raises
    ------
    SpecificationError
        If the spacing is unknown, or `points` is neither a positive whole number nor numbers that are not negative.

    Examples
    --------
    >>> SaveAt(50, spacing="log")
    SaveAt(points=50, spacing='log')
    >>> SaveAt([0, 10, 100]).points
    (0, 10, 100)
    """

    points: int | Sequence[float] = 100
    spacing: str = "linear"

    def __post_init__(self) -> None:
        choice("save spacing", self.spacing, SPACINGS)
        if hasattr(self.points, "__iter__") and not isinstance(self.points, str):
            times = (finite("a saved point", point, low=0.0) for point in self.points)
            _set(self, "points", tuple(int(time) if time == int(time) else time for time in times))
        else:
            _set(self, "points", whole("save points", self.points, low=1))


@dataclass(frozen=True)
class StopRule(Record):
    """When a run of a sweep ends: at weak recovery, or when it gives up waiting for it.

    Parameters
    ----------
    eta : float
        Threshold of weak recovery ``||M||_F >= η``, in (0, 1).
    max_steps : int or "auto"
        Steps a run may take; "auto": ten times what the drift alone would need in its cell, and at least 20.
    max_cost : float
        Cost a run may have, in samples drawn (what an engine does instead is converted).  A run that it ends before it
        has taken enough steps to mean something is over budget: neither recovered nor censored.

    Examples
    --------
    >>> StopRule(eta=0.3, max_steps=1000)
    StopRule(eta=0.3, max_steps=1000, max_cost=10000000.0)
    """

    eta: float = ETA
    max_steps: int | str = "auto"
    max_cost: float = 1e7

    def __post_init__(self) -> None:
        _set(self, "eta", check_eta(self.eta))
        if isinstance(self.max_steps, str):
            if self.max_steps != "auto":
                raise SpecificationError(f"max_steps must be a whole number or 'auto', not {self.max_steps!r}")
        else:
            _set(self, "max_steps", whole("max_steps", self.max_steps, low=1, high=MAX_STEPS))
        _set(self, "max_cost", finite("max_cost", self.max_cost, low=1.0))


@dataclass(frozen=True)
class Store(Record):
    """Where a long study keeps what is done, and what to do with what is there.

    Parameters
    ----------
    path : path
        The file for the result, ``.nc`` or ``.zarr``; finished cells are kept beside it until the end.
    resume : bool
        Continue the study that is there, if there is one; the result is the same as without an interruption.
    overwrite : bool
        Replace what is there.

    Examples
    --------
    >>> Store("phase.nc", resume=True)
    Store(path='phase.nc', resume=True, overwrite=False)
    """

    path: str | os.PathLike[str]
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise SpecificationError(
                "--resume and --overwrite exclude each other: one continues, the other starts again"
            )


@dataclass(frozen=True)
class Workers(Record):
    """Who runs the cells of a study.  Never changes a number.

    Parameters
    ----------
    threads : int, optional
        Threads of this process; every core by default.
    scheduler : str, optional
        Address of a Dask scheduler, ``tcp://host:8786``, whose workers run them instead.

    Examples
    --------
    >>> Workers(threads=2)
    Workers(threads=2, scheduler=None)
    """

    threads: int | None = None
    scheduler: str | None = None


@dataclass(frozen=True)
class Integrator(Record):
    """How an ODE is integrated, by `scipy.integrate.solve_ivp`.

    Parameters
    ----------
    method : {"LSODA", "DOP853", "RK45", "RK23", "Radau", "BDF"}
        LSODA changes to an implicit method by itself where the ODE is stiff.
    rtol, atol : float
        Tolerances.

    Examples
    --------
    >>> Integrator("Radau", rtol=1e-6)
    Integrator(method='Radau', rtol=1e-06, atol=1e-10)
    """

    method: str = "LSODA"
    rtol: float = 1e-8
    atol: float = 1e-10

    def __post_init__(self) -> None:
        choice("method", self.method, METHODS)
        _set(self, "rtol", finite("rtol", self.rtol, low=1e-13))
        _set(self, "atol", finite("atol", self.atol, low=0.0))


def _grid(low: float, high: float, count: int) -> tuple[float, ...]:
    # Rounded so that a grid from 0 to 2 holds 0.3 and not 0.30000000000000004.
    return tuple(round(low + (high - low) * i / max(count - 1, 1), 12) for i in range(count))


@dataclass(frozen=True)
class Plane(Record):
    """The grid of a phase diagram: exponents of batch size and learning rate, and their prefactors.

    Parameters
    ----------
    mu, delta : sequence of float
        ``n_b = max(1, round(n0 d^μ))``, ``γ = γ0 d^-δ``; distinct, put in increasing order.
    n0, gamma0 : float or "auto"
        "auto": for each algorithm the batch size at which giant steps begin to work (or, projected, at which stable
        steps are as large as they get), and half the critical learning rate at initialisation, so that the boundary
        measured at finite d lies on the asymptotic lines and not beside them.  The same for every dimension.

    Examples
    --------
    >>> Plane(mu=[1.0, 0.5], delta=0.25)
    Plane(mu=(0.5, 1.0), delta=(0.25,), n0='auto', gamma0='auto')
    """

    mu: tuple[float, ...] = _grid(0, 2, 21)
    delta: tuple[float, ...] = _grid(-1, 1.5, 26)
    n0: float | str = "auto"
    gamma0: float | str = "auto"

    def __post_init__(self) -> None:
        for name in ("mu", "delta"):
            value = getattr(self, name)
            try:
                values = [value] if isinstance(value, str) else list(value)
            except TypeError:  # a number
                values = [value]
            axis = sorted(finite(name, v) for v in values)
            if not axis:
                raise SpecificationError(f"{name} needs at least one value")
            if len(set(axis)) < len(axis):
                raise SpecificationError(f"{name} holds the same value twice")
            _set(self, name, tuple(axis))
        _set(self, "n0", _number_or_auto("n0", self.n0))
        _set(self, "gamma0", _number_or_auto("gamma0", self.gamma0))
