"""A phase diagram read against theory: what became of each cell, and on which side of the boundary it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.outcomes import OUTCOMES
from hdsgd.problem.model import Problem
from hdsgd.results.extensions import check_extensions
from hdsgd.results.summaries import specification_of
from hdsgd.theory.phases import algorithm_of, exponent

__all__ = ["cell_edges", "cell_times", "compare_boundaries", "select_cells", "theory_cells", "theory_row"]


def select_cells(dataset: xr.Dataset, algorithm: str, dim: int | None = None) -> xr.Dataset:
    """The cells of one algorithm at one dimension (by default the largest), with dims ``mu, delta, replica``.

    Raises
    ------
    SpecificationError
        If the phase diagram has no such algorithm or dimension; it names those it has.
    """
    if not {"algorithm", "dim", "mu", "delta"} <= set(dataset.dims):
        raise SpecificationError(
            f"this needs a phase diagram; the dims of this Dataset are {', '.join(map(str, dataset.dims))}"
        )
    dims = dataset["dim"].values.tolist()
    for name, value, present in (("algorithm", algorithm, dataset["algorithm"].values.tolist()), ("dim", dim, dims)):
        if value is not None and value not in present:
            has = ", ".join(map(str, present))
            raise SpecificationError(f"no {name} {value!r} in this Dataset; it has {has}")
    return dataset.sel(algorithm=algorithm, dim=max(dims) if dim is None else dim)


def cell_times(cells: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """What became of each cell of one algorithm at one dimension.

    Parameters
    ----------
    cells : xarray.Dataset
        Dims ``mu, delta, replica``, as from `select_cells`.

    Returns
    -------
    time : ndarray of shape (mu, delta)
        Median recovery time over replicas, censored runs counting as infinite; inf where the median is censored.
    kind : ndarray of str of shape (mu, delta)
        "recovered" where the median is finite, else what became of most of the other replicas: "censored",
        "over_budget", "diverged", "failed" or "pending".
    """
    cells = cells.transpose("mu", "delta", "replica")
    times = np.where(cells["recovered"].values, cells["recovery_time"].values, np.inf)
    median = np.quantile(times, 0.5, axis=-1, method="inverted_cdf")
    others = {name: code for name, code in OUTCOMES.items() if name != "recovered"}
    counts = {name: (cells["status"].values == code).sum(axis=-1) for name, code in others.items()}
    names = np.array(list(counts))
    kind = names[np.argmax(np.stack(list(counts.values())), axis=0)]
    return median, np.where(np.isfinite(median), "recovered", kind)


def compare_boundaries(dataset: xr.Dataset, algorithm: str, dim: int | None = None) -> dict[str, int] | None:
    """How the cells of one algorithm compare with the boundary of theory §5, those on the boundary left out.

    A cell is on the boundary if theory differs between its centre and a corner.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`.
    algorithm : str
    dim : int, optional
        By default the largest dimension.

    Returns
    -------
    dict or None
        Counts of cells: ``agree`` and ``disagree``; ``on_boundary``; and ``undecided``, off the boundary but over
        budget, failed or pending, which says nothing about theory.  Together they are all cells.  None where there is
        no theory.

    Raises
    ------
    SpecificationError
        If the phase diagram has no such algorithm or dimension.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> sum(hdsgd.compare_boundaries(diagram, "spherical").values())
    6
    """
    spec = specification_of(dataset)
    cells = select_cells(dataset, algorithm, dim)
    check_extensions(dataset.attrs)
    if theory_row(spec, algorithm) is None:
        return None
    theta, on_boundary = theory_cells(spec, algorithm, cells["mu"].values, cells["delta"].values, int(cells["dim"]))
    _, kind = cell_times(cells)
    decided = np.isin(kind, ["recovered", "censored", "diverged"])
    counted = decided & ~on_boundary
    agree = (kind == "recovered") == np.isfinite(theta)
    return {
        "agree": int((agree & counted).sum()),
        "disagree": int((~agree & counted).sum()),
        "on_boundary": int(on_boundary.sum()),
        "undecided": int((~decided & ~on_boundary).sum()),
    }


def theory_cells(
    specification: Mapping[str, Any], algorithm: str, mu: NDArray[np.float64], delta: NDArray[np.float64], dim: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """``θ`` of theory §5 in each cell of a grid, and which cells are on a boundary of recovery; (mu, delta) each.

    A cell is on it if theory differs between its centre and a corner.  nan and False where there is no theory.
    """
    row = theory_row(specification, algorithm)
    if row is None:
        return np.full((len(mu), len(delta)), np.nan), np.zeros((len(mu), len(delta)), dtype=bool)
    rule = specification["algorithms"][algorithm]
    # A batch holds at least one sample: below this exponent every cell has the batch of n_b = 1.
    least = -math.log(rule["n0"]) / math.log(dim)
    theta = exponent(np.maximum(mu, least)[:, None], delta[None, :], rule["exponent"], row)
    edges = np.maximum(cell_edges(mu), least)
    at_corners = np.isfinite(exponent(edges[:, None], cell_edges(delta)[None, :], rule["exponent"], row))
    corners = [at_corners[i : i + len(mu), j : j + len(delta)] for i in (0, 1) for j in (0, 1)]
    return theta, np.any([corner != np.isfinite(theta) for corner in corners], axis=0)


def theory_row(specification: Mapping[str, Any], algorithm: str) -> str | None:
    """The row of the table of theory §5 for one algorithm of a phase diagram's specification."""
    rule = specification["algorithms"][algorithm]
    problem = Problem.from_dict({**specification["problem"], "loss": rule["loss"], "constraint": rule["constraint"]})
    return algorithm_of(problem)


def cell_edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of the cells of a sorted grid, halfway between their centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
