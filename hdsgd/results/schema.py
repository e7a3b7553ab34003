"""The variables of hdsgd's Datasets: one registry that names, explains and checks them."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hdsgd.outcomes import OUTCOMES
from hdsgd.records import Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["VARIABLES", "describe", "finish", "specification_differences", "version_differences", "versions"]


class Variable(NamedTuple):
    dims: tuple[str, ...]  # of the single-run Dataset; sweeps put their own dims in front
    meaning: str


#: Meaning of every variable and coordinate.  A sweep adds its dims (algorithm, mu, delta, dim) in front.
VARIABLES = {
    "M": Variable(("replica", "step", "student", "teacher"), "overlaps <w_j, w*_r> of student and teacher rows"),
    "Q": Variable(("replica", "step", "student", "student_2"), "overlaps <w_j, w_l> of student rows"),
    "misalignment": Variable(
        ("replica", "step", "student"), "share of |w_j|² outside the teacher span (1 - m² for p = k = 1), kept accurate"
    ),
    "risk": Variable(("replica", "step"), "population risk ½E(y-f)², label noise included, from the overlaps"),
    "diversity": Variable(
        ("replica", "step"), "population gradient diversity tr(dD + Z)/tr(A Ω⁻¹ Aᵀ): the noise scale in samples"
    ),
    "recovery_time": Variable(
        ("replica",), "steps until |M|_F >= eta first held; the last step taken where recovered is False (censored)"
    ),
    "recovered": Variable(("replica",), "whether |M|_F >= eta was reached"),
    "recovery_t": Variable(("replica",), "recovery_time in time of the ODE"),
    "switch_step": Variable(("replica",), "step at which the adaptive loss became the square loss; -1 if it did not"),
    "status": Variable(("replica",), "how the run ended"),
    "samples": Variable(
        ("replica",), "samples drawn until then, N = n_b T with T the recovery_time; censored likewise"
    ),
    "steps_allowed": Variable((), "step budget of a run"),
    "predicted_time": Variable((), "steps to weak recovery by the drift alone (noise neglected)"),
    "theta": Variable((), "fitted exponent of the weak-recovery time, T proportional to d^theta"),
    "theta_error": Variable((), "standard error of theta (statistical)"),
    "theta_kind": Variable((), "what came of the fit of theta over dimensions"),
    "theta_dims": Variable((), "number of dimensions in the fit of theta"),
    "theta_predicted": Variable((), "theta of theory §5; inf: no recovery in polynomial time"),
    "best_delta": Variable((), "exponent of the learning rate at which the best value was found"),
    "samples_best": Variable((), "smallest median over delta of the samples n_b T until weak recovery"),
    "M_theory": Variable(("point", "student", "teacher"), "M of the deterministic dynamics from the same start"),
    "Q_theory": Variable(("point", "student", "student_2"), "Q of the deterministic dynamics from the same start"),
    "deviation": Variable((), "root mean square over overlaps and times of the replicas' mean minus theory"),
    "deviation_error": Variable((), "standard error of the deviation (jackknife over replicas)"),
    "inside": Variable((), "share of overlaps and times at which theory lies in the band of 95 % of the replicas"),
    "rate": Variable((), "fitted slope of ln(deviation) against ln(d)"),
    "rate_error": Variable((), "standard error of the slope"),
    "theory": Variable(("theory",), "ode: the limit d to infinity; map: mean of one step at finite d, iterated"),
    "point": Variable(("point",), "index of the saved time"),
    "t": Variable((), "time of the ODE: learning rate times step (noise dominated: gamma² d/n_b times step)"),
    "dim": Variable(("dim",), "input dimension d"),
    "replica": Variable(("replica",), "index of the independent repetition"),
    "step": Variable(("step",), "gradient steps taken"),
    "student": Variable(("student",), "student row j"),
    "student_2": Variable(("student_2",), "student row l"),
    "teacher": Variable(("teacher",), "teacher row r"),
    "algorithm": Variable(("algorithm",), "projected, correlation or spherical"),
    "mu": Variable(("mu",), "exponent of the batch size, n_b = n0 d^mu"),
    "delta": Variable(("delta",), "exponent of the learning rate, gamma = gamma0 d^-delta"),
    "batch": Variable((), "batch size n_b"),
    "lr": Variable((), "learning rate gamma"),
}


def describe(name: str) -> dict[str, Any]:
    """Attributes of a variable: its meaning, and the codes of ``status``."""
    attributes: dict[str, Any] = {"long_name": VARIABLES[name].meaning}
    if name == "status":
        attributes["flag_values"] = np.array(list(OUTCOMES.values()), dtype=np.int8)
        attributes["flag_meanings"] = " ".join(OUTCOMES)
    return attributes


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("hdsgd", "numpy", "numba", "scipy", "xarray")
    return {**{name: importlib.metadata.version(name) for name in names}, "python": platform.python_version()}


def finish(
    dataset: xr.Dataset, kind: str, specification: Mapping[str, Any], seed: int | None, timings: Mapping[str, float]
) -> xr.Dataset:
    """Check the Dataset against the registry, describe its variables, and attach the specification.

    Attributes are strings and numbers only (NetCDF takes nothing else): ``specification``, ``versions`` and
    ``timings`` are JSON; ``digest`` is the sha256 of the specification.
    """
    for name in dataset.variables:
        variable = VARIABLES[str(name)]
        # Times are steps in one Dataset, times of an ODE or points of a common grid in others.
        dims = tuple(
            "step" if dim in ("t", "point") and dim not in variable.dims else dim for dim in dataset[name].dims
        )
        if dims[len(dims) - len(variable.dims) :] != variable.dims and dims != ():
            raise AssertionError(f"{name} has dims {dims}, registered are {variable.dims}")
        dataset[name].attrs.update(describe(str(name)))
    text = json.dumps(specification, sort_keys=True, separators=(",", ":"), allow_nan=False)
    dataset.attrs = {
        "title": f"hdsgd {kind}",
        "kind": kind,
        "specification": text,
        "digest": Record.digest_of(text),
        **({} if seed is None else {"seed": seed}),
        "versions": json.dumps(versions(), sort_keys=True),
        "timings": json.dumps({key: round(value, 6) for key, value in timings.items()}, sort_keys=True),
    }
    return dataset


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
