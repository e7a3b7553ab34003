"""What a study is to the runner and to the store: its specification, its cells, and how results become a Dataset."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import check_memory
from hdsgd.errors import SpecificationError
from hdsgd.outcomes import OUTCOMES
from hdsgd.parallel import Canceller

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Cell", "Context", "Counts", "Index", "Results", "StoreError", "Study", "attempt"]

Index = tuple[int, ...]


class StoreError(OSError):
    """Results could not be written; the message says what is kept and how to go on."""


class Context:
    """What a cell may use while it runs; by itself it reports and keeps nothing.

    Attributes
    ----------
    canceller : Canceller
        Told of what runs, so that it can be stopped; raise `hdsgd.parallel.Cancelled` where it is.
    """

    def __init__(self, canceller: Canceller | None = None) -> None:
        self.canceller = canceller or Canceller()
        self._share = 0.0

    def advance(self, share: float) -> None:
        """Report that a further share of the cell is done."""
        self._share += share
        self.report(share)

    def finish(self) -> None:
        """Report what has not been reported of a cell that has ended."""
        self.advance(1.0 - self._share)

    def report(self, share: float) -> None:
        """Called with each share."""

    def load(self) -> dict[str, NDArray[Any]] | None:
        """The state that the cell saved last, in whatever process; None if there is none."""
        return None

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the state of the cell until its result is kept."""


class Cell(Protocol):
    """One frozen value, which can be pickled, with everything that its result depends on."""

    def run(self, context: Context) -> Mapping[str, Any]:
        """The value of each of the study's outputs."""


def attempt(make: Callable[[], Cell], context: Context) -> Mapping[str, Any] | str:
    """Run a cell; an error is a result, its message, and no exception.

    Raises
    ------
    hdsgd.parallel.Cancelled
        If it was stopped through ``context.canceller``.
    StoreError
        If its state could not be kept.
    """
    try:
        return make().run(context)
    except StoreError:
        raise
    except Exception as error:  # a failed cell never kills a study
        return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class Counts(NamedTuple):
    """Numbers of cells."""

    done: int
    failed: int
    total: int


class Results:
    """What there is of the cells of a study.

    Attributes
    ----------
    table : ndarray, shape (cells,)
        A field for each output of the study.
    state : ndarray of int8, shape (cells,)
        A code of `hdsgd.outcomes.OUTCOMES`: pending, failed, or otherwise done.
    errors : dict
        Messages of the cells that failed.
    """

    def __init__(self, table: NDArray[Any]) -> None:
        self.table = table
        self.state = np.full(len(table), OUTCOMES["pending"], dtype=np.int8)
        self.errors: dict[int, str] = {}

    def put(self, cells: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Enter results; a failure before is forgotten."""
        self.table[cells] = rows
        self.state[cells] = 0
        if self.errors:
            for cell in cells.tolist():
                self.errors.pop(cell, None)

    def fail(self, cell: int, message: str) -> None:
        """Enter the message of a cell that failed, unless there is a result of it."""
        if self.state[cell] in (OUTCOMES["pending"], OUTCOMES["failed"]):
            self.state[cell], self.errors[cell] = OUTCOMES["failed"], message
            if "status" in (self.table.dtype.names or ()):
                self.table["status"][cell] = OUTCOMES["failed"]

    def undone(self) -> NDArray[np.bool_]:
        """Which cells are pending or failed, shape (cells,)."""
        return (self.state == OUTCOMES["pending"]) | (self.state == OUTCOMES["failed"])

    def counts(self) -> Counts:
        """How many cells are done, how many failed, and how many there are."""
        return Counts(int((~self.undone()).sum()), len(self.errors), len(self.state))


class Study(ABC):
    """A study: one subclass for each kind.

    Parameters
    ----------
    specification : mapping
        All that was asked for and everything that follows from it without computing, as JSON values; with ``seed``.
    resolved : mapping, optional
        Numbers computed before the first cell, on which the cells depend too (as JSON values); computed by `resolve`
        where they are needed and not given.

    Attributes
    ----------
    kind : str
        Its name in `hdsgd.studies.kinds.STUDIES` and in the Dataset.
    dims : tuple of str
        Dims of the grid of cells.
    grouped : int
        How many of them `hdsgd status` lists.
    """

    kind: ClassVar[str]
    dims: ClassVar[tuple[str, ...]]
    grouped: ClassVar[int] = 1

    def __init__(self, specification: Mapping[str, Any], resolved: Mapping[str, Any] | None = None) -> None:
        # As it is read back from a log: lists, and no tuples.
        self.specification: dict[str, Any] = json.loads(json.dumps(specification))
        self._resolved: dict[str, Any] | None = None if resolved is None else json.loads(json.dumps(resolved))

    @property
    def resolved(self) -> dict[str, Any]:
        """The numbers computed before the first cell."""
        if self._resolved is None:
            self._resolved = self.resolve()
        return self._resolved

    def resolve(self) -> dict[str, Any]:
        """Compute them."""
        return {}

    @abstractmethod
    def labels(self, dim: str) -> list[str]:
        """The values along a dim of the cells, in words."""

    @abstractmethod
    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """NumPy's name of the dtype, and the shape, of each value that a cell returns.

        Values are entered in the Dataset under the same names.
        """

    @abstractmethod
    def cell(self, index: Index) -> Cell:
        """The cell at this place along `dims`."""

    def costs(self) -> NDArray[np.float64]:
        """Predicted cost of every cell, in any unit, shape `shape`; 0: it is left out."""
        return np.ones(self.shape)

    @abstractmethod
    def assemble(self, results: Results) -> xr.Dataset:
        """The Dataset with what there is; cells that are pending or failed are marked as such."""

    def versions(self) -> dict[str, str]:
        """Versions of what the numbers depend on."""
        from hdsgd.results.schema import versions

        return versions()

    @abstractmethod
    def describe(self) -> list[str]:
        """Some lines that say what is studied."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid of cells."""
        return tuple(len(self.labels(dim)) for dim in self.dims)

    @cached_property
    def row(self) -> np.dtype[Any]:
        """The outputs of one cell as one dtype."""
        try:
            return np.dtype(
                [(name, np.dtype(kind).newbyteorder("<"), shape) for name, (kind, shape) in self.outputs().items()]
            )
        except ValueError:
            raise SpecificationError(
                "the outputs of one cell are larger than 2 GB; run fewer replicas, or save less of each"
            ) from None

    def pack(self, values: Mapping[str, Any]) -> NDArray[Any]:
        """The outputs of one cell as a row of the table, shape (1,)."""
        row = np.zeros(1, dtype=self.row)
        for name in self.outputs():
            row[name][0] = values[name]
        return row

    def place(self, index: Index) -> str:
        """A cell's place in words."""
        return ", ".join(f"{dim} {self.labels(dim)[i]}" for dim, i in zip(self.dims, index, strict=True))

    def blank(self) -> Results:
        """The results before the first cell: numbers that are not there are NaN, or 0."""
        count = math.prod(self.shape)
        check_memory(f"the outputs of {count:,} cells", count * self.row.itemsize, "ask for fewer cells or replicas")
        table = np.zeros(count, dtype=self.row)
        for name in self.row.names or ():
            if table[name].dtype.kind == "f":
                table[name] = np.nan
            if name == "status":
                table[name] = OUTCOMES["pending"]
        return Results(table)

    def values(self, results: Results, name: str) -> NDArray[Any]:
        """One output of all cells, shape (*shape, ...), in the byte order of this machine."""
        array = results.table[name]
        return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(*self.shape, *array.shape[1:])

    def adopt(self, dataset: xr.Dataset) -> Results:
        """The results that a Dataset of this study holds."""
        results = self.blank()
        bad = np.zeros((2, len(results.table)), dtype=bool)
        if "status" in dataset:
            status = self._column(dataset, "status").reshape(len(results.table), -1)
            bad = np.stack([(status == OUTCOMES[name]).any(axis=1) for name in ("pending", "failed")])
        done = np.flatnonzero(results.undone() & ~bad.any(axis=0))
        rows = results.table[done]
        for name in self.row.names or ():
            rows[name] = self._column(dataset, name)[done]
        results.put(done, rows)
        for cell in np.flatnonzero(bad[1]).tolist():
            results.fail(cell, "")
        return results

    def _places(self, dim: str, there: list[str]) -> list[int]:
        """Where the labels of a dim stand in a Dataset."""
        labels = self.labels(dim)
        if sorted(labels) != sorted(there):
            raise ValueError(f"it has {dim} {', '.join(there)}, not {', '.join(labels)}")
        return list(range(len(there))) if labels == there else [there.index(label) for label in labels]

    def _column(self, dataset: xr.Dataset, name: str) -> NDArray[Any]:
        """A variable of the Dataset with all dims of the cells made one."""
        array = dataset[name]
        for dim in self.dims:  # a text says where its values stand, whatever their order
            if dim in array.dims and dim in dataset.coords and dataset[dim].dtype.kind in "UO":
                array = array.isel({dim: self._places(dim, dataset[dim].values.tolist())})
        missing = {dim: size for dim, size in zip(self.dims, self.shape, strict=True) if dim not in array.dims}
        values = array.expand_dims(missing).transpose(*self.dims, ...).values
        return np.asarray(values.reshape(-1, *values.shape[len(self.dims) :]))
