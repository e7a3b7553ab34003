"""Running a study: its cells on threads or on Dask, into a store as they are done, put together at the end."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import instance
from hdsgd.parallel import Canceller, count_threads
from hdsgd.policies import Store, Workers
from hdsgd.progress import progress_bar
from hdsgd.studies.study import Context, Results, Study
from hdsgd.studies.threads import run_on_threads

if TYPE_CHECKING:
    import xarray as xr

    from hdsgd.studies.store import StudyStore

__all__ = ["assemble", "check_before", "run_study"]


def check_before(store: Store | str | os.PathLike[str] | None, workers: Workers) -> None:
    """Refuse, before anything is computed, a store or workers that cannot be had.

    Raises
    ------
    SpecificationError
    """
    count_threads(instance("workers", workers, Workers).threads)
    if (store := as_store(store)) is not None:
        from hdsgd.studies.store import check_store

        check_store(store)


def as_store(store: Store | str | os.PathLike[str] | None) -> Store | None:
    """A path alone is a store that is neither resumed nor overwritten."""
    return store if store is None or isinstance(store, Store) else Store(store)


def run_study(
    study: Study,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    workers: Workers = Workers(),
    progress: bool = False,
    started: float | None = None,
) -> xr.Dataset:
    """Run the cells of a study that are not done, and put all together.

    Parameters
    ----------
    study : Study
    store : Store or path, optional
        Where the result is to be written, and finished cells are kept meanwhile.
    workers : Workers
    progress : bool
    started : float, optional
        `time.perf_counter` when the study began, for ``timings``.

    Returns
    -------
    xarray.Dataset
        What `Study.assemble` makes, with the messages of failed cells as JSON in the attribute ``errors``.

    Raises
    ------
    SpecificationError
        If the store or the workers cannot be had.
    hdsgd.studies.store.StoreError
        If the store cannot be written, for example because the disk is full; an OSError.
    ConnectionError
        If the Dask scheduler is lost.
    KeyboardInterrupt
        On an interruption; the message says what is kept.
    """
    started = time.perf_counter() if started is None else started
    threads, store = count_threads(workers.threads), as_store(store)
    with contextlib.ExitStack() as stack:
        cluster = None
        if workers.scheduler is not None:
            from hdsgd.studies.dask import Cluster

            cluster = stack.enter_context(Cluster(workers.scheduler))
        kept: StudyStore | None = None
        results = study.blank()
        if store is not None:
            from hdsgd.studies.store import StudyStore

            kept = stack.enter_context(contextlib.closing(StudyStore(store, study)))
            study, results = kept.study, kept.results
            if store.resume:
                kept.report()
            if kept.dataset is not None:
                found: xr.Dataset = kept.dataset
                return found
        costs = study.costs().ravel()
        # The most expensive first: at the end they would leave all threads but one idle.
        cells = np.argsort(-costs, kind="stable")
        cells = cells[results.undone()[cells] & (costs[cells] > 0)]
        try:
            with progress_bar(float(costs[cells].sum()), "cells", progress, cells=len(cells)) as bar:

                def context_of(cell: int, canceller: Canceller) -> Context:
                    return _CellContext(canceller, cell, bar, costs[cell], kept)

                if cluster is None:
                    outcomes = run_on_threads(study, cells.tolist(), threads, context_of)
                else:
                    outcomes = cluster.completed(study, cells.tolist())
                with contextlib.closing(outcomes):
                    for cell, values in outcomes:
                        enter(study, results, cell, values, kept)
                        if cluster is not None:  # which reports nothing in between
                            bar(costs[cell])
                        bar.finish(isinstance(values, str))
            dataset = assemble(study, results)
            dataset.attrs["timings"] = json.dumps({"total_seconds": round(time.perf_counter() - started, 6)})
            if kept is not None:
                kept.finish(dataset)
        except KeyboardInterrupt:
            if kept is None:
                raise KeyboardInterrupt("interrupted; nothing was written, and all cells are lost") from None
            raise KeyboardInterrupt(f"interrupted; {kept.account()}") from None
        except ConnectionError as error:
            raise ConnectionError(f"{error}; {'all cells are lost' if kept is None else kept.account()}") from None
    return dataset


def enter(study: Study, results: Results, cell: int, values: Mapping[str, Any] | str, kept: StudyStore | None) -> None:
    """Put the outcome of a cell where it belongs."""
    if kept is not None:
        kept.write(cell, values)
    elif isinstance(values, str):
        results.fail(cell, values)
    else:
        results.put(np.array([cell]), study.pack(values))


def assemble(study: Study, results: Results) -> xr.Dataset:
    """The Dataset of a study with what there is, messages of failed cells in the attribute ``errors``."""
    dataset = study.assemble(results)
    places = {",".join(map(str, np.unravel_index(cell, study.shape))): text for cell, text in results.errors.items()}
    dataset.attrs["errors"] = json.dumps(places, sort_keys=True)
    seed = dataset.attrs.get("seed")
    if isinstance(seed, int) and seed >= 2**63:  # files hold no longer numbers
        dataset.attrs["seed"] = str(seed)
    return dataset


class _CellContext(Context):
    """Reports to the bar and keeps states in the store."""

    def __init__(
        self, canceller: Canceller, cell: int, bar: progress_bar, cost: float, kept: StudyStore | None
    ) -> None:
        super().__init__(canceller)
        self._cell, self._bar, self._cost, self._kept = cell, bar, cost, kept

    def report(self, share: float) -> None:
        self._bar(share * self._cost)

    def load(self) -> dict[str, NDArray[Any]] | None:
        return None if self._kept is None else self._kept.load_state(self._cell)

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if self._kept is not None:
            self._kept.save_state(self._cell, arrays)
