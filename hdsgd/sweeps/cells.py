"""Sweeps: what one cell is, running it, and filling a Dataset with cells that arrive in any order.

A cell is a plain dict that holds everything its result depends on, so that it runs the same on a thread, in another
process or on another machine.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.analysis.exponents import add_exponents
from hdsgd.outcomes import OUTCOMES
from hdsgd.parallel import Canceller
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem
from hdsgd.results.schema import describe
from hdsgd.simulation.cells import Cell

__all__ = [
    "DIMS",
    "PRIMARY",
    "CellResult",
    "Index",
    "complete",
    "predicted_cost",
    "run_cell",
    "run_sweep",
    "unfinished_cells",
]

#: Dims of the cells; their order is that of an index, of the chunks in a store and of the keys of ``errors``.
DIMS = ("algorithm", "dim", "mu", "delta")
#: ``max_steps="auto"``: this many times the steps that the drift alone would need, and a few more.
PATIENCE = 10.0
EXTRA_STEPS = 20
MAX_STEPS = 10**18
#: Work of starting a run (0.3 ms), in samples.
START_COST = 1e5

#: The variables of a sweep that the others follow from (see `complete`).
PRIMARY = ("recovery_time", "status", "steps_allowed", "predicted_time")

Index = tuple[int, ...]


class CellResult(NamedTuple):
    """What became of the replicas of one cell."""

    recovery_time: NDArray[np.int64]  # (replica,)
    status: NDArray[np.int8]  # (replica,)
    message: str | None = None  # of the error, if the cell failed


class Store(Protocol):
    """Where results are kept as they arrive."""

    def write(self, index: Index, result: CellResult, errors: Mapping[str, str]) -> None: ...


def steps_wanted(predicted: float, max_steps: int | str) -> int:
    """Steps a run may take if its cost does not matter."""
    if not isinstance(max_steps, str):
        return max_steps
    return math.ceil(min(PATIENCE * predicted + EXTRA_STEPS, MAX_STEPS))


def steps_telling(predicted: float, max_steps: int | str) -> float:
    """Steps after which not having recovered means something."""
    return min(steps_wanted(predicted, max_steps), 4 * predicted + EXTRA_STEPS / 2)


def run_cell(cell: Mapping[str, Any], canceller: Canceller | None = None) -> CellResult:
    """Run all replicas of one cell; an error is a result, not an exception.

    Parameters
    ----------
    cell : mapping
        One of those that `unfinished_cells` makes.
    canceller : Canceller, optional
        Told of every run, so that it can be stopped.

    Raises
    ------
    Cancelled
        If `canceller` stopped it.
    """
    from hdsgd.engines.base import Cancelled

    try:
        made = Cell(
            Problem.from_dict(cell["problem"]),
            initial=Initial.from_dict(cell["initial"]),
            **{name: cell[name] for name in ("dim", "batch", "lr", "eta", "engine", "seed")},
        )
        ends = made.recover(
            cell["replicas"], steps=cell["steps_allowed"], max_cost=cell["max_cost"], canceller=canceller or Canceller()
        )
    except Cancelled:
        raise
    except Exception as error:  # a failed cell never kills a sweep
        return failed(cell, " ".join(f"{type(error).__name__}: {error}".split())[:500])
    recovered = ends.recovery_step >= 0
    silent = np.where(ends.step >= cell["steps_telling"], OUTCOMES["censored"], OUTCOMES["over_budget"])
    status = np.where(recovered, OUTCOMES["recovered"], np.where(ends.diverged, OUTCOMES["diverged"], silent))
    return CellResult(np.where(recovered, ends.recovery_step, ends.step), status.astype(np.int8))


def failed(cell: Mapping[str, Any], message: str) -> CellResult:
    """The result of a cell that ended with an error."""
    count = cell["replicas"]
    return CellResult(np.zeros(count, dtype=np.int64), np.full(count, OUTCOMES["failed"], dtype=np.int8), message)


def unfinished_cells(dataset: xr.Dataset) -> dict[Index, dict[str, Any]]:
    """The cells of a phase diagram that are pending or failed, the most expensive first.

    Expensive ones at the end would leave all threads but one idle.
    """
    spec = json.loads(dataset.attrs["specification"])
    shared = {name: spec[name] for name in ("initial", "eta", "engine", "seed", "replicas", "max_cost")}
    batch, lr = dataset["batch"].values, dataset["lr"].values
    allowed, predicted = dataset["steps_allowed"].values, dataset["predicted_time"].values
    unfinished = np.isin(dataset["status"].values, (OUTCOMES["pending"], OUTCOMES["failed"])).any(axis=-1)
    cells = {}
    for index in (tuple(where) for where in np.argwhere(unfinished).tolist()):
        a, n, i, j = index
        rule = spec["algorithms"][str(dataset["algorithm"].values[a])]
        cells[index] = {
            "problem": {**spec["problem"], "loss": rule["loss"], "constraint": rule["constraint"]},
            "dim": int(dataset["dim"].values[n]),
            "batch": int(batch[a, n, i]),
            "lr": float(lr[a, n, j]),
            "steps_allowed": int(allowed[index]),
            "steps_telling": steps_telling(float(predicted[index]), spec["max_steps"]),
            **shared,
        }
    work = predicted_cost(dataset)
    return dict(sorted(cells.items(), key=lambda item: -work[item[0]]))


def predicted_cost(dataset: xr.Dataset) -> NDArray[np.float64]:
    """What each cell (along `DIMS`) may cost at most, in samples drawn; 0 for those that are left out."""
    spec = json.loads(dataset.attrs["specification"])
    steps, batch = dataset["steps_allowed"].values, dataset["batch"].values[..., None].astype(np.float64)
    work = (np.minimum(steps * batch, spec["max_cost"]) + START_COST) * spec["replicas"]
    return np.where(steps > 0, work, 0.0)


def run_sweep(
    dataset: xr.Dataset,
    cells: Collection[Index],
    results: Generator[tuple[Index, CellResult]],
    store: Store | None = None,
    progress: bool = False,
) -> None:
    """Put results where they belong, in the Dataset and in the store, as they come.

    Parameters
    ----------
    dataset : xarray.Dataset
        Changed in place: ``recovery_time``, ``status`` and the attribute ``errors``, messages by the cell's place along
        `DIMS`.
    cells : collection of tuple
        Indexes of those that are being run.
    results : generator
        Pairs of an index and its result, in any order; closed in the end, whatever happens, which stops what runs.
    """
    time, status = dataset["recovery_time"].values, dataset["status"].values
    errors = json.loads(dataset.attrs["errors"])
    try:
        with contextlib.closing(results), _Bar(cells, predicted_cost(dataset), progress) as advance:
            for index, result in results:
                key = ",".join(map(str, index))
                errors.pop(key, None)
                if result.message is not None:
                    errors[key] = result.message
                if store is not None:
                    store.write(index, result, errors)
                time[index], status[index] = result.recovery_time, result.status
                advance(index, len(errors))
    finally:
        dataset.attrs["errors"] = json.dumps(errors, sort_keys=True)


def complete(dataset: xr.Dataset) -> xr.Dataset:
    """Add the variables that follow from others: ``recovered``, ``samples`` and, from several dims, the exponents."""
    recovered = dataset["status"] == OUTCOMES["recovered"]
    # A cell that is pending in a store has no time yet.
    time = dataset["recovery_time"].where(dataset["status"] != OUTCOMES["pending"], 0)
    samples = (dataset["batch"].astype(np.float64) * time).transpose(*DIMS, "replica")
    added = {"recovered": recovered, "recovery_time": time, "samples": samples}
    dataset = dataset.assign({name: array.variable for name, array in added.items()})
    for name in added:
        dataset[name].attrs.update(describe(name))
    dataset = dataset[["recovery_time", "recovered", "status", "samples", "steps_allowed", "predicted_time"]]
    return add_exponents(dataset) if dataset.sizes["dim"] > 1 else dataset


class _Bar:
    """Progress on standard error: cells by number, time left by their cost."""

    def __init__(self, cells: Collection[Index], work: NDArray[np.float64], shown: bool) -> None:
        self._count, self._work, self._done = len(cells), work, 0
        self._bar: Any = None
        if shown and cells:
            from tqdm.auto import tqdm

            # No smoothing: cells differ by orders of magnitude, their average does not.
            self._bar = tqdm(
                total=sum(work[index] for index in cells),
                desc=f"0/{len(cells)} cells",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
                smoothing=0,
                dynamic_ncols=True,
                leave=False,
            )

    def __enter__(self) -> Callable[[Index, int], None]:
        return self._advance

    def _advance(self, index: Index, failed: int) -> None:
        self._done += 1
        if self._bar is not None:
            text = f"{self._done}/{self._count} cells" + (f", {failed} failed" if failed else "")
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(self._work[index])

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
