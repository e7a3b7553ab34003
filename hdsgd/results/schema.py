"""The variables of hdsgd's Datasets: one registry that names, explains and checks them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import check_memory
from hdsgd.outcomes import OUTCOMES
from hdsgd.records import Record
from hdsgd.registry import Registry
from hdsgd.results.extensions import extensions_of
from hdsgd.results.kinds import RESULT_KINDS

if TYPE_CHECKING:
    import xarray as xr

    from hdsgd.policies import SaveAt
    from hdsgd.problem.model import Problem

__all__ = [
    "VARIABLES",
    "Variable",
    "check_states",
    "describe",
    "finish",
    "note",
    "notes_of",
    "outcome",
    "specification_differences",
    "version_differences",
    "versions",
]


@dataclass(frozen=True)
class Variable:
    """One variable or coordinate of results.

    Parameters
    ----------
    name : str
    dims : tuple of str
        Of one run; a study puts its own dims (algorithm, mu, delta, dim, ...) in front.
    summary : str
        What it is, in one line; the attribute ``long_name`` of the variable.

    Examples
    --------
    >>> VARIABLES["recovered"].summary
    'whether |M|_F >= eta was reached'
    """

    name: str
    dims: tuple[str, ...]
    summary: str


#: Every variable and coordinate; `hdsgd.register` adds one of your own.
VARIABLES: Registry[Variable] = Registry(
    "variable",
    [
        Variable("M", ("replica", "step", "student", "teacher"), "overlaps <w_j, w*_r> of student and teacher rows"),
        Variable("Q", ("replica", "step", "student", "student_2"), "overlaps <w_j, w_l> of student rows"),
        Variable(
            "misalignment",
            ("replica", "step", "student"),
            "share of |w_j|² outside the teacher span (1 - m² for p = k = 1), kept accurate",
        ),
        Variable("risk", ("replica", "step"), "population risk ½E(y-f)², label noise included, from the overlaps"),
        Variable(
            "diversity",
            ("replica", "step"),
            "population gradient diversity tr(dD + Z)/tr(A Ω⁻¹ Aᵀ): the noise scale in samples",
        ),
        Variable(
            "recovery_time",
            ("replica",),
            "steps until |M|_F >= eta first held; the last step taken where recovered is False (censored)",
        ),
        Variable("recovered", ("replica",), "whether |M|_F >= eta was reached"),
        Variable("recovery_t", ("replica",), "recovery_time in time of the ODE"),
        Variable(
            "switch_step", ("replica",), "step at which the adaptive loss became the square loss; -1 if it did not"
        ),
        Variable("status", ("replica",), "how the run ended"),
        Variable(
            "samples", ("replica",), "samples drawn until then, N = n_b T with T the recovery_time; censored likewise"
        ),
        Variable("steps_allowed", (), "step budget of a run"),
        Variable("predicted_time", (), "steps to weak recovery by the drift alone (noise neglected)"),
        Variable("theta", (), "fitted exponent of the weak-recovery time, T proportional to d^theta"),
        Variable("theta_error", (), "standard error of theta (statistical)"),
        Variable("theta_kind", (), "what came of the fit of theta over dimensions"),
        Variable("theta_dims", (), "number of dimensions in the fit of theta"),
        Variable("theta_predicted", (), "theta of theory §5; inf: no recovery in polynomial time"),
        Variable("best_delta", (), "exponent of the learning rate at which the best value was found"),
        Variable("samples_best", (), "smallest median over delta of the samples n_b T until weak recovery"),
        Variable("M_theory", ("point", "student", "teacher"), "M of the deterministic dynamics from the same start"),
        Variable("Q_theory", ("point", "student", "student_2"), "Q of the deterministic dynamics from the same start"),
        Variable("deviation", (), "root mean square over overlaps and times of the replicas' mean minus theory"),
        Variable("deviation_error", (), "standard error of the deviation (jackknife over replicas)"),
        Variable("inside", (), "share of overlaps and times at which theory lies in the band of 95 % of the replicas"),
        Variable("rate", (), "fitted slope of ln(deviation) against ln(d)"),
        Variable("rate_error", (), "standard error of the slope"),
        Variable("theory", ("theory",), "ode: the limit d to infinity; map: mean of one step at finite d, iterated"),
        Variable("point", ("point",), "index of the saved time"),
        Variable("t", (), "time of the ODE: learning rate times step (noise dominated: gamma² d/n_b times step)"),
        Variable("dim", ("dim",), "input dimension d"),
        Variable("replica", ("replica",), "index of the independent repetition"),
        Variable("step", ("step",), "gradient steps taken"),
        Variable("student", ("student",), "student row j"),
        Variable("student_2", ("student_2",), "student row l"),
        Variable("teacher", ("teacher",), "teacher row r"),
        Variable("algorithm", ("algorithm",), "projected, correlation or spherical"),
        Variable("mu", ("mu",), "exponent of the batch size, n_b = n0 d^mu"),
        Variable("delta", ("delta",), "exponent of the learning rate, gamma = gamma0 d^-delta"),
        Variable("batch", (), "batch size n_b"),
        Variable("lr", (), "learning rate gamma"),
    ],
)


def describe(name: str, variables: Registry[Variable] = VARIABLES) -> dict[str, Any]:
    """Attributes of a variable: its meaning, and the codes of ``status``."""
    attributes: dict[str, Any] = {"long_name": (variables if name in variables else VARIABLES)[name].summary}
    if name == "status":
        attributes["flag_values"] = np.array(list(OUTCOMES.values()), dtype=np.int8)
        attributes["flag_meanings"] = " ".join(OUTCOMES)
    return attributes


def check_states(problem: Problem, replicas: int, steps: float, save: SaveAt) -> None:
    """Raise `SpecificationError`, before anything is run, if the states to save are more than memory holds."""
    p, k = problem.p, problem.k
    count = int(min(save.points, steps)) if isinstance(save.points, int) else len(save.points)
    # The risk needs copies of M and Q at the end; a logarithmic grid is made whole before equal steps are dropped.
    size = 8 * (replicas * (count + 2) * (3 * p * (k + p) + p + 1))
    if isinstance(save.points, int) and save.spacing == "log":
        size += 16 * save.points
    check_memory(
        f"{replicas} x {count:,} saved states of {p} x {k} and {p} x {p} overlaps", size,
        "save fewer points (save=SaveAt(...)), or run fewer replicas",
    )  # fmt: skip


def outcome(recovered: ArrayLike, diverged: ArrayLike) -> NDArray[np.int8]:
    """Codes of ``status`` for runs that went on to their last step, recovered or not.

    Parameters
    ----------
    recovered, diverged : array_like of bool
        One that recovered and then diverged has diverged: its last state is not a number.

    Returns
    -------
    ndarray of int8

    Examples
    --------
    >>> outcome([True, False, True], [False, False, True]).tolist()
    [0, 1, 3]
    """
    codes = np.where(recovered, OUTCOMES["recovered"], OUTCOMES["censored"])
    return np.where(diverged, OUTCOMES["diverged"], codes).astype(np.int8)


def versions(programs: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what the numbers depend on, and of those `programs` that are installed."""
    names = ("hdsgd", "numpy", "numba", "scipy", "xarray")
    known = {**{name: importlib.metadata.version(name) for name in names}, "python": platform.python_version()}
    for name in programs:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            known[name] = importlib.metadata.version(name)
    return known


def finish(
    dataset: xr.Dataset,
    kind: str,
    specification: Mapping[str, Any],
    seed: int | None,
    timings: Mapping[str, float],
    *,
    variables: Registry[Variable] = VARIABLES,
    programs: Iterable[str] = (),
) -> xr.Dataset:
    """Check a result against the registries, describe its variables, and attach what made it.

    Attributes are text and numbers only (NetCDF takes nothing else): ``specification``, ``versions`` and ``timings``
    are JSON, and so are ``notes`` (see `note`) and ``extensions`` (see `hdsgd.results.extensions.extensions_of`) where
    there are any; ``digest`` is the sha256 of the specification.  Notes that the Dataset has are kept.

    Parameters
    ----------
    dataset : xarray.Dataset
    kind : str
        Name of its `hdsgd.results.kinds.ResultKind`.
    specification : mapping
        JSON values.
    seed : int or None
        None where nothing is random.  Text from 2^63 on, which NetCDF has no number for.
    timings : mapping
        Seconds.
    variables : Registry
        Those of a study that uses names in another sense, asked before `VARIABLES`.
    programs : iterable of str
        More distributions whose versions matter.
    """
    RESULT_KINDS[kind]
    for name in map(str, dataset.variables):
        variable = (variables if name in variables else VARIABLES)[name]
        # Times are steps in one Dataset, times of an ODE or points of a common grid in others.
        dims = tuple(
            "step" if dim in ("t", "point") and dim not in variable.dims else dim for dim in dataset[name].dims
        )
        if dims[len(dims) - len(variable.dims) :] != variable.dims and dims != ():
            raise AssertionError(f"{name} has dims {dims}, registered are {variable.dims}")
        dataset[name].attrs.update(describe(name, variables))
    text = json.dumps(specification, sort_keys=True, separators=(",", ":"), allow_nan=False)
    notes = {"notes": dataset.attrs["notes"]} if "notes" in dataset.attrs else {}
    extensions = extensions_of(specification, kind, map(str, dataset.variables))
    dataset.attrs = {
        "title": f"hdsgd {kind}",
        "kind": kind,
        "specification": text,
        "digest": Record.digest_of(text),
        **({} if seed is None else {"seed": seed if seed < 2**63 else str(seed)}),
        "versions": json.dumps(versions(programs), sort_keys=True),
        "timings": json.dumps({key: round(value, 6) for key, value in timings.items()}, sort_keys=True),
        **notes,
        **({"extensions": json.dumps(extensions)} if extensions else {}),
    }
    return dataset


def note(dataset: xr.Dataset, text: str) -> xr.Dataset:
    """Record in a Dataset, once, why something that it might hold is missing; `hdsgd.summary` shows it."""
    known = notes_of(dataset)
    if text not in known:
        dataset.attrs["notes"] = json.dumps([*known, text], ensure_ascii=False)
    return dataset


def notes_of(dataset: xr.Dataset) -> list[str]:
    """What `note` has recorded in a Dataset."""
    return [str(text) for text in json.loads(dataset.attrs.get("notes", "[]"))]


def specification_differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each key in which two specifications differ, with both values, long lists cut."""
    old, new = _flat(there), _flat(now)
    return [
        f"{key}: {_difference(old.get(key, 'nothing'), new.get(key, 'nothing'))}"
        for key in sorted(old | new)
        if not _same(key, old.get(key), new.get(key))
    ]


def version_differences(then: Mapping[str, str]) -> str:
    """Which programs that numbers depend on were others then, from `versions` of that time; empty if none."""
    now = versions()
    names = [name for name in ("hdsgd", "numpy", "numba") if then.get(name) != now[name]]
    return ", ".join(f"{name} {then.get(name)} (here {now[name]})" for name in names)


def _flat(specification: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in specification.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _same(key: str, there: Any, now: Any) -> bool:
    # Prefactors chosen by themselves are computed, and processors of different kinds round differently.
    if key.endswith((".n0", ".gamma0")) and isinstance(there, float) and isinstance(now, float):
        return math.isclose(there, now, rel_tol=1e-9)
    return bool(there == now)


def _difference(there: Any, now: Any) -> str:
    if isinstance(there, list) and isinstance(now, list) and max(len(there), len(now)) > 4:
        if len(there) == len(now):
            at = next(i for i, (x, y) in enumerate(zip(there, now, strict=True)) if x != y)
            return f"{len(now)} values each, number {at + 1} is {there[at]} there, {now[at]} now"
        old, new = (f"{len(x)} values from {x[0]} to {x[-1]}" if x else "[]" for x in (there, now))
    else:
        old, new = json.dumps(there), json.dumps(now)
    return f"{old} there, {new} now"
