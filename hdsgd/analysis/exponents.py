"""Measured exponents of weak recovery: ``T ∝ d^θ`` fitted cell by cell over the dimensions of a phase diagram.

Times are whole numbers of steps and partly censored; `hdsgd.analysis.censored` has the estimator.  This module decides
what enters it, and compares the result with theory §5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.analysis.boundaries import theory_cells, theory_row
from hdsgd.analysis.censored import fit_lines
from hdsgd.checks import instance
from hdsgd.errors import SpecificationError
from hdsgd.outcomes import OUTCOMES
from hdsgd.results.extensions import check_extensions
from hdsgd.results.schema import describe
from hdsgd.results.summaries import specification_of
from hdsgd.theory.phases import best_exponent
from hdsgd.theory.prefactors import drift_time

__all__ = ["KINDS", "add_exponents", "best_exponents", "best_samples", "compare_exponents", "fit_exponents"]

#: Codes of the variable ``theta_kind``: what came of the fit of a cell, and why where there is no exponent.
KINDS = {
    "fitted": 0,  # recovered at two or more dimensions, and at every dimension that says anything
    "partly_learnt": 1,  # recovered at some dimensions and not at others: no power law
    "not_learnt": 2,  # recovered at no dimension
    "one_dimension": 3,  # recovered, but only one dimension was affordable or run
    "too_few": 4,  # fewer than four runs
    "over_budget": 5,
    "diverged": 6,
    "failed": 7,
    "pending": 8,
}
#: Dimensions at which the typical initial overlap ``d^-1/2`` is more than this share of η take no part.
LARGEST_START = 0.5
#: Largest standard error of an exponent that `best_exponents` and `compare_exponents` trust.
LARGEST_ERROR = 0.2
_SLACK = 1e-9

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]


def fit_exponents(dataset: xr.Dataset, *, log_correction: bool = True) -> xr.Dataset:
    """Exponent ``θ`` of ``T ∝ d^θ`` in each cell of a phase diagram over several dimensions.

    ``ln T = a + θ ln d + σ ε`` by maximum likelihood, with T rounded up to whole steps: a run that recovers at step T
    did so after ``T - 1`` and until T.  Nothing takes less than a step: one step (or none) counts as half a step to
    one, and exponents end at 0, as they do in theory.  A run that was still going when its steps were spent, or that
    the cost bound cut short, is censored: its time is longer than what it was given.  (Leaving out the latter would
    keep the quick ones of the same cell.)  Diverged, failed and pending runs have no time.

    A dimension counts as recovered if at least half of its runs recovered: the fit then interpolates around medians
    and does not extrapolate a tail, which need not be log-normal.  Dimensions of which the cost bound leaves less than
    that say nothing and are left out; those that were given enough and do not recover exclude a power law.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`, dims ``algorithm, dim, mu, delta, replica``.
    log_correction : bool
        Fit ``T/F(d)`` instead of T, with ``F(d) = d^-(c-2)/2 · drift_time(ℓ, 1, d, η)``, ``c = max(ℓ, 2)``: what the
        drift from ``m0 = d^-1/2`` to η takes beyond a power of d.  ``F = ln(η d^½)`` for ℓ = 2, ``1 - d^-½/η`` for
        ℓ = 3, ``η - d^-½`` for ℓ = 1.  It is applied where T is the time of a slow drift and not a count of jumps:

        - a step multiplies the initial overlap by ``1 + γ b m0^(c-2)``, which may not grow with d: ``δ > -(c-2)/2``,
          or ``δ = 0`` for ``ℓ <= 2``, where ``T = ln(η d^½)/ln(1 + γ0 b)`` keeps the logarithm;
        - at every dimension the median T is at least ``ln(η d^½)``: steps multiply the overlap by less than e.

        Giant steps multiply it by a power of d each: their number is free of logarithms, and is fitted as it is.

    Returns
    -------
    xarray.Dataset
        Dims ``algorithm, mu, delta``: ``theta``, ``theta_error``, ``theta_kind`` (codes of `KINDS`), ``theta_dims``
        (number of dimensions in the fit) and ``theta_predicted`` (theory §5; inf: not learnt; nan: no theory).  The
        first two are nan where the kind is not "fitted".

    Notes
    -----
    Errors are statistical (`hdsgd.analysis.censored.fit_lines`), with what the medians scatter about a power law.  A
    smooth deviation from it, such as the slowing by noise near the critical line, or the overlap's last stretch, biases
    θ at finite d by some hundredths; it is not in the error.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> sorted(hdsgd.fit_exponents(diagram).data_vars)
    ['theta', 'theta_dims', 'theta_error', 'theta_kind', 'theta_predicted']
    """
    _check(dataset)
    spec = specification_of(dataset)
    dims = np.asarray(dataset["dim"].values, dtype=np.float64)
    eta = float(spec["eta"])
    order = np.argsort(dims)
    order = order[_taking_part(dims[order], eta)]
    d = dims[order]
    mu, delta = dataset["mu"].values, dataset["delta"].values
    names = [str(name) for name in dataset["algorithm"].values]
    shape = (len(names), len(mu), len(delta))
    result = {name: np.full(shape, np.nan) for name in ("theta", "theta_error", "theta_predicted")}
    kinds, counts = np.full(shape, KINDS["one_dimension"], dtype=np.int8), np.zeros(shape, dtype=np.int8)
    for a, name in enumerate(names):
        cells = dataset.isel(dim=order).sel(algorithm=name).transpose("mu", "delta", "dim", "replica", ...)
        ell = spec["algorithms"][name]["exponent"]
        predicted, _ = _theory(spec, name, mu, delta, dims)
        result["theta_predicted"][a] = predicted
        kinds[a], dim_recovered = _kinds(cells["recovered"].values, cells["status"].values)
        low, high, used = _intervals(cells)
        used &= (dim_recovered & (kinds[a] == KINDS["fitted"])[..., None])[..., None]
        if log_correction:
            factor = np.log([drift_time(ell, 1.0, int(value), eta) for value in d]) - (max(ell, 2) - 2) / 2 * np.log(d)
            steps = np.where(dim_recovered, _median_times(cells), np.inf)
            slow = _slow(delta, ell) & (steps >= np.log(eta * d**0.5)).all(axis=-1)
            shift = np.where(slow[..., None], factor, 0.0)[..., None]
            low, high = low - shift, high - shift
        flat = (len(mu) * len(delta), *low.shape[2:])
        lines = fit_lines(np.log(d), low.reshape(flat), high.reshape(flat), used.reshape(flat))
        result["theta"][a], result["theta_error"][a] = (v.reshape(shape[1:]) for v in (lines.slope, lines.error))
        kinds[a][(kinds[a] == KINDS["fitted"]) & np.isnan(result["theta"][a])] = KINDS["too_few"]
        counts[a] = np.where(kinds[a] == KINDS["fitted"], used.any(axis=-1).sum(axis=-1), 0)
    values: dict[str, Any] = {**result, "theta_kind": kinds, "theta_dims": counts}
    return _described(
        xr.Dataset(
            {name: (("algorithm", "mu", "delta"), value) for name, value in values.items()},
            coords={name: dataset[name] for name in ("algorithm", "mu", "delta")},
            attrs={"specification": dataset.attrs["specification"], "log_correction": int(log_correction)},
        )
    )


def add_exponents(dataset: xr.Dataset, *, log_correction: bool = True) -> xr.Dataset:
    """A phase diagram with the variables of `fit_exponents`, which replace earlier ones; its attributes unchanged.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> "theta" in hdsgd.add_exponents(diagram)
    True
    """
    fitted = fit_exponents(dataset, log_correction=log_correction)
    return dataset.assign(fitted.data_vars)


def best_exponents(dataset: xr.Dataset, *, largest_error: float = LARGEST_ERROR) -> xr.Dataset:
    """The (μ, θ) plane: for each algorithm and batch size the smallest measured ``θ`` over δ, beside theory.

    With one dimension there is nothing to fit, and ``ln T/ln d`` of the median T stands for θ.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`; exponents that it holds (`add_exponents`) are used, others fitted.
    largest_error : float
        Cells count that were recovered at every dimension and fitted with a smaller standard error.  The smallest of
        many noisy values lies below the true smallest; the bound, and choosing by ``θ + theta_error``, keep this small.

    Returns
    -------
    xarray.Dataset
        Dims ``algorithm, mu``: ``theta``, ``theta_error``, ``best_delta`` and ``theta_predicted``
        (`hdsgd.theory.phases.best_exponent`); nan where no cell counts.  Attribute ``measure``: "slope" or "log_d T".

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> hdsgd.best_exponents(diagram).theta_predicted.values.tolist()
    [[0.5, 0.0, 0.0]]
    """
    _check(dataset)
    dataset = dataset.transpose("algorithm", "dim", "mu", "delta", "replica", ...)
    spec = specification_of(dataset)
    delta, dims = dataset["delta"].values, dataset["dim"].values
    if len(dims) > 1:
        fits = dataset if "theta" in dataset else fit_exponents(dataset)
        fits = fits.transpose("algorithm", "mu", "delta", ...)
        theta, error = fits["theta"].values, fits["theta_error"].values
        usable = (fits["theta_dims"].values == _taking_part(dims, spec["eta"]).sum()) & (error <= largest_error)
    else:
        theta = np.log(np.maximum(_median_times(dataset), 1)[:, 0]) / math.log(dims[0])
        error, usable = np.zeros_like(theta), np.isfinite(theta)
    score = np.where(usable, theta + np.where(usable, error, 0.0), np.inf)
    chosen = score.argmin(axis=-1)[..., None]
    none = ~usable.any(axis=-1)

    def pick(values: Floats) -> Floats:
        return np.where(none, np.nan, np.take_along_axis(values, chosen, axis=-1)[..., 0])

    predicted = np.full(theta.shape[:2], np.nan)
    for a, name in enumerate(dataset["algorithm"].values):
        row = theory_row(spec, name)
        if row is not None:
            predicted[a] = best_exponent(dataset["mu"].values, spec["algorithms"][name]["exponent"], row)
    values = {
        "theta": pick(theta),
        "theta_error": pick(error),
        "best_delta": pick(np.broadcast_to(delta, theta.shape)),
        "theta_predicted": predicted,
    }
    return _described(
        xr.Dataset(
            {name: (("algorithm", "mu"), value) for name, value in values.items()},
            coords={name: dataset[name] for name in ("algorithm", "mu")},
            attrs={
                "specification": dataset.attrs["specification"],
                "measure": "slope" if len(dims) > 1 else "log_d T",
            },
        )
    )


def best_samples(dataset: xr.Dataset) -> xr.Dataset:
    """Fewest samples for weak recovery: for each batch size the smallest median of ``N = n_b T`` over δ.

    Returns
    -------
    xarray.Dataset
        Dims ``algorithm, dim, mu``: ``samples_best`` and ``best_delta``; nan where no δ recovered.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> dict(hdsgd.best_samples(diagram).sizes)
    {'algorithm': 1, 'dim': 2, 'mu': 3}
    """
    _check(dataset)
    times = _median_times(dataset.transpose("algorithm", "dim", "mu", "delta", "replica", ...))
    chosen = times.argmin(axis=-1)
    # A run that starts above η has used no samples; one step is the least that is of interest.
    fewest = np.maximum(times.min(axis=-1), 1) * dataset["batch"].transpose("algorithm", "dim", "mu").values
    found = np.isfinite(fewest)
    dims = ("algorithm", "dim", "mu")
    return _described(
        xr.Dataset(
            {
                "samples_best": (dims, np.where(found, fewest, np.nan)),
                "best_delta": (dims, np.where(found, dataset["delta"].values[chosen], np.nan)),
            },
            coords={name: dataset[name] for name in dims},
            attrs={"specification": dataset.attrs["specification"]},
        )
    )


def compare_exponents(
    dataset: xr.Dataset, algorithm: str, *, largest_error: float = LARGEST_ERROR
) -> dict[str, float] | None:
    """How measured exponents of one algorithm compare with theory §5, cells on a boundary of recovery left out.

    A cell is on it if theory differs between its centre and a corner, at any dimension of the Dataset (the rule of
    `hdsgd.analysis.boundaries.compare_boundaries`).

    Returns
    -------
    dict or None
        ``fitted``: cells with an exponent.  ``compared``: of these, cells that theory has on the learning side, that
        are not on the boundary, and whose standard error is at most `largest_error`; ``uncertain``: such cells of
        larger error.  Over the cells compared: ``median`` and ``largest`` of ``|θ - theta_predicted|``, ``bias``
        (median with sign), ``error`` (median standard error), nan if there is none; ``within``: how many deviate by at
        most two standard errors.  None where there is no theory.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> sorted(hdsgd.compare_exponents(diagram, "spherical"))
    ['bias', 'compared', 'error', 'fitted', 'largest', 'median', 'uncertain', 'within']
    """
    spec = specification_of(dataset)
    if theory_row(spec, algorithm) is None:
        return None
    fits = (dataset if "theta" in dataset else fit_exponents(dataset)).sel(algorithm=algorithm)
    fits = fits.transpose("mu", "delta", ...)
    predicted, on_boundary = _theory(spec, algorithm, fits["mu"].values, fits["delta"].values, dataset["dim"].values)
    fitted = fits["theta_kind"].values == KINDS["fitted"]
    candidates = fitted & np.isfinite(predicted) & ~on_boundary
    compared = candidates & (fits["theta_error"].values <= largest_error)
    deviation, error = (fits["theta"].values - predicted)[compared], fits["theta_error"].values[compared]
    summary = {
        "fitted": int(fitted.sum()),
        "compared": int(compared.sum()),
        "uncertain": int(candidates.sum() - compared.sum()),
        "within": int((np.abs(deviation) <= 2 * error).sum()),
    }
    if not len(deviation):
        return {**summary, **dict.fromkeys(("median", "largest", "bias", "error"), math.nan)}
    return {
        **summary,
        "median": float(np.median(np.abs(deviation))),
        "largest": float(np.abs(deviation).max()),
        "bias": float(np.median(deviation)),
        "error": float(np.median(error)),
    }


# ---------------------------------------------------------------- what enters the fit


def _check(dataset: xr.Dataset) -> None:
    instance("what exponents are measured from", dataset, xr.Dataset)
    check_extensions(dataset.attrs)
    missing = [name for name in ("recovery_time", "recovered", "status") if name not in dataset]
    if missing or "dim" not in dataset.dims:
        raise SpecificationError("exponents are measured from a phase diagram: this Dataset has not its variables")


def _taking_part(dims: Floats, eta: float) -> NDArray[np.bool_]:
    return dims**-0.5 <= LARGEST_START * eta + _SLACK


def _slow(delta: Floats, ell: int) -> NDArray[np.bool_]:
    """Where the drift takes many steps to enlarge the initial overlap (see `fit_exponents`)."""
    corner = 1 - max(ell, 2) / 2
    return delta >= corner - _SLACK if ell <= 2 else delta > corner + _SLACK


def _intervals(cells: xr.Dataset) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Outcomes of the intervals of ``ln T``, and which runs have one."""
    time = cells["recovery_time"].values.astype(np.float64)
    recovered, status = cells["recovered"].values, cells["status"].values
    going = np.isin(status, [OUTCOMES["censored"], OUTCOMES["over_budget"]]) & (time > 0) & ~recovered
    end = np.maximum(time, 1.0)
    low = np.log(np.where(recovered, np.maximum(end - 1, 0.5), end))
    return low, np.where(recovered, np.log(end), np.inf), recovered | going


def _kinds(recovered: NDArray[np.bool_], status: Codes) -> tuple[Codes, NDArray[np.bool_]]:
    """Kind of each cell, and at which dimensions it recovered, from arrays with dims (mu, delta, dim, replica)."""
    begun = (status != OUTCOMES["pending"]).sum(axis=-1)
    count = recovered.sum(axis=-1)
    learnt = (count > 0) & (2 * count >= begun)
    # Other dimensions: what became of most of the runs that did not recover.
    names = ("censored", "over_budget", "diverged", "failed", "pending")
    others = np.stack([((status == OUTCOMES[name]) & ~recovered).sum(axis=-1) for name in names])
    fate = np.where(learnt, -1, others.argmax(axis=0))
    kinds = np.full(learnt.shape[:2], KINDS["pending"], dtype=np.int8)
    for code, name in ((3, "failed"), (2, "diverged"), (1, "over_budget"), (0, "not_learnt")):
        kinds[(fate == code).any(axis=-1)] = KINDS[name]
    some, failing = learnt.any(axis=-1), np.isin(fate, [0, 2]).any(axis=-1)
    kinds[some] = KINDS["fitted"]
    kinds[learnt.sum(axis=-1) == 1] = KINDS["one_dimension"]
    kinds[some & failing] = KINDS["partly_learnt"]
    return kinds, learnt


def _theory(
    spec: Mapping[str, Any], algorithm: str, mu: Floats, delta: Floats, dims: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """``θ`` of theory §5 in each cell, and which cells are on the boundary of recovery at some dimension."""
    cells = [theory_cells(spec, algorithm, mu, delta, int(dim)) for dim in np.sort(dims)]
    return cells[-1][0], np.any([on_boundary for _, on_boundary in cells], axis=0)


def _median_times(dataset: xr.Dataset) -> Floats:
    """Median recovery times over the last dim of the arrays, inf where less than half of the runs recovered."""
    times = np.where(dataset["recovered"].values, dataset["recovery_time"].values, np.inf)
    median: Floats = np.quantile(times, 0.5, axis=-1, method="inverted_cdf")
    return median


def _described(dataset: xr.Dataset) -> xr.Dataset:
    for name in dataset.data_vars:
        dataset[name].attrs.update(describe(str(name)))
    if "theta_kind" in dataset:
        dataset["theta_kind"].attrs["flag_values"] = np.array(list(KINDS.values()), dtype=np.int8)
        dataset["theta_kind"].attrs["flag_meanings"] = " ".join(KINDS)
    return dataset
