"""The Dataset of a phase diagram, from the outcomes of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.outcomes import OUTCOMES
from hdsgd.results.schema import finish
from hdsgd.sweeps.plan import Grid

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DIMS", "assemble"]

#: Dims of the cells; their order is that of their numbers in a log and of the keys of ``errors``.
DIMS = ("algorithm", "dim", "mu", "delta")


def assemble(
    specification: dict[str, Any],
    algorithms: Sequence[str],
    grid: Grid,
    recovery_time: NDArray[np.int64],
    status: NDArray[np.int8],
) -> xr.Dataset:
    """Everything that follows from times and statuses (*DIMS, replica): samples and, from several dims, exponents."""
    import xarray as xr

    time = np.where(status == OUTCOMES["pending"], 0, recovery_time)
    cells = (*DIMS, "replica")
    dataset = xr.Dataset(
        {
            "recovery_time": (cells, time),
            "recovered": (cells, status == OUTCOMES["recovered"]),
            "status": (cells, status),
            "samples": (cells, grid.batch.astype(np.float64)[..., None, None] * time),
            "steps_allowed": (DIMS, grid.allowed),
            "predicted_time": (DIMS, grid.predicted),
        },
        coords={
            "algorithm": list(algorithms),
            "dim": np.array(specification["dims"], dtype=np.int64),
            "mu": specification["mu"],
            "delta": specification["delta"],
            "replica": np.arange(specification["replicas"]),
            "batch": (("algorithm", "dim", "mu"), grid.batch),
            "lr": (("algorithm", "dim", "delta"), grid.lr),
        },
    )
    dataset = finish(dataset, "phase-diagram", specification, specification["seed"], {})
    if dataset.sizes["dim"] > 1:
        from hdsgd.analysis.exponents import add_exponents

        dataset = add_exponents(dataset)
    return dataset
