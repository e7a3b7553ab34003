"""Cells on the workers of a Dask cluster: the same function and the same results as on threads."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import itertools
import logging
import math
import time
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.results.schema import versions
from hdsgd.studies.study import Cell, Context, Study, attempt

__all__ = ["Cluster"]

logger = logging.getLogger("hdsgd")

#: What became of a cell: its outputs, or its message if it failed.
Outcome = Mapping[str, Any] | str

#: Seconds that a scheduler has to answer.
PATIENCE = 10
#: Tasks at the scheduler at one time, for each thread of the cluster and at most: enough for it to be busy, and to be
#: seen to need more workers.
TASKS, MOST_TASKS = 16, 1000
#: A task costs the scheduler and a worker a few milliseconds, as much as a short cell: cells therefore travel together,
#: at most so many; a worker begins no further one after so many seconds, and those left travel again.
TOGETHER, SHARE = 50, 0.25
#: Seconds for which the number of threads of a cluster is taken as it was.
FRESH = 5.0
#: How often a cell is sent again after Dask has given it up, which it does when four workers have died with it.
RETRIES = 2
#: Loggers of Dask in this process.
_LOUD = ("distributed", "distributed.client", "distributed.comm", "distributed.core", "tornado.application")


class Cluster:
    """A connection to a Dask scheduler (a context manager).

    Parameters
    ----------
    address : str
        As ``tcp://host:8786``.

    Raises
    ------
    SpecificationError
        If Dask is not installed, nothing answers, or a worker has another version of hdsgd.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
            from distributed.comm import connect
        except ImportError:
            raise SpecificationError(
                "a scheduler needs Dask, which is not installed: pip install 'hdsgd[dask]' (or pip install distributed)"
            ) from None
        self.address = address

        async def probe() -> None:
            await (await connect(address, timeout=PATIENCE)).close()

        # A Client that fails to connect would take its time to say so, at length, and again when it is deleted.
        try:
            asyncio.run(probe())
        except Exception as error:
            reason = (
                f"no answer within {PATIENCE} s" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            )
            raise SpecificationError(
                f"no Dask scheduler at {address!r} ({reason}); give the address that `dask scheduler` prints, "
                "such as tcp://host:8786"
            ) from None
        self._client = Client(address, timeout=PATIENCE, set_as_default=False, name="hdsgd")
        self._counted = 0, -math.inf  # threads, and when
        # A connection that breaks is told here in a line, there in pages.
        self._levels = {name: logging.getLogger(name).level for name in _LOUD}
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._check_workers()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def _check_workers(self) -> None:
        mine = versions()
        # By a function of the standard library, as a worker may lack hdsgd.
        found = self._client.run(importlib.metadata.version, "hdsgd", on_error="return")
        for worker, version in sorted(found.items()):
            if version != mine["hdsgd"]:
                has = f"hdsgd {version}" if isinstance(version, str) else "no hdsgd"
                raise SpecificationError(
                    f"the Dask worker {worker} has {has}, not {mine['hdsgd']} as here; install the same on every worker"
                )
        others = {
            f"{name} {theirs[name]}"
            for theirs in self._client.run(_worker_versions).values()
            for name in ("numpy", "numba")
            if theirs[name] != mine[name]
        }
        if others:
            logger.warning("Dask workers have %s: the last digits may differ from here", ", ".join(sorted(others)))
        threads = self._threads()
        size = f"workers {len(found)}, threads {threads}" if found else "no workers so far; waiting for some"
        logger.info("Dask scheduler %s: %s", self.address, size)

    def _take(self, future: Any) -> list[Outcome]:
        """The results of a future that has ended without an error of its own."""
        from distributed import CancelledError

        try:
            results: list[Outcome] = future.result()
        except (OSError, CancelledError):
            raise self._lost() from None
        return results

    def _lost(self) -> ConnectionError:
        return ConnectionError(f"the Dask scheduler at {self.address} was lost")

    def completed(self, study: Study, cells: Iterable[int]) -> Generator[tuple[int, Outcome]]:
        """Yield each cell with its outputs, or its message if it failed, as they finish.

        A cell whose worker dies runs again on another, and so do those that the worker had run for the same task, a
        quarter of a second's worth at most.  Closing the generator takes back what has not begun; what runs on a worker
        ends there, and its result is lost.

        Parameters
        ----------
        study : Study
        cells : iterable of int
            Numbers of cells, counted along the last dim first, expensive ones first.

        Raises
        ------
        ConnectionError
            If the scheduler is lost or a worker cannot run cells.
        """
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        waiting, alone, retries = deque(cells), deque[int](), Counter[int]()
        running: dict[str, tuple[list[int], Any]] = {}
        name, version, numbers = uuid.uuid4().hex[:8], _version(), itertools.count()
        finished = as_completed(loop=self._client.loop)

        def submit(indexes: list[int]) -> None:
            key = f"hdsgd-cells-{name}-{next(numbers)}"
            made = [_make(study, index) for index in indexes]
            future = self._client.submit(_run_remote, made, version, key=key, pure=False)
            running[key] = indexes, future
            finished.add(future)

        def fill() -> None:
            while alone:
                submit([alone.popleft()])
            tasks = TASKS * self._threads() or MOST_TASKS
            while waiting and len(running) < min(tasks, MOST_TASKS):
                # An expensive one, and with it some of the cheapest.
                size = min(math.ceil(len(waiting) / tasks), TOGETHER)
                submit([waiting.popleft(), *(waiting.pop() for _ in range(size - 1))])

        try:
            fill()
            for future in finished:
                indexes, _ = running.pop(str(future.key))
                error = future.exception() if future.status == "error" else None
                results: list[Outcome] = []
                if isinstance(error, KilledWorker) and len(indexes) > 1:
                    # Which of them it was shows when each runs alone.
                    alone.extend(indexes)
                elif isinstance(error, KilledWorker) and retries[indexes[0]] < RETRIES:
                    retries.update(indexes)
                    alone.extend(indexes)
                elif isinstance(error, KilledWorker):
                    results = [f"every worker that ran this cell died ({error})"]
                elif error is not None:
                    raise ConnectionError(f"a Dask worker cannot run cells ({type(error).__name__}: {error})")
                else:
                    results = self._take(future)
                    waiting.extend(reversed(indexes[len(results) :]))
                yield from zip(indexes, results, strict=False)
                fill()
        finally:
            if self._client.status == "running":
                self._client.cancel([future for _, future in running.values()], force=True)

    def _threads(self) -> int:
        """Threads of the cluster now, or a few seconds ago."""
        now = time.monotonic()
        if now - self._counted[1] > FRESH:
            try:
                self._counted = sum(self._client.nthreads().values()), now
            except OSError:
                raise self._lost() from None
        return self._counted[0]


def _worker_versions() -> dict[str, str]:
    return versions()


@functools.cache
def _version() -> str:
    return importlib.metadata.version("hdsgd")


def _make(study: Study, cell: int) -> Cell | str:
    """A cell, or why it cannot be made."""
    try:
        return study.cell(tuple(int(i) for i in np.unravel_index(cell, study.shape)))
    except Exception as error:  # as in `attempt`
        return f"{type(error).__name__}: {error}"


def _run(cell: Cell | str) -> Outcome:
    return cell if isinstance(cell, str) else attempt(lambda: cell, Context())


def _run_remote(cells: Sequence[Cell | str], version: str) -> list[Outcome]:
    """Run the first cell, and the next ones while time allows, on a worker.

    It may have joined after the versions were compared.
    """
    mine = _version()
    if mine != version:
        raise RuntimeError(f"it has hdsgd {mine}, not {version}")
    end = time.monotonic() + SHARE
    results = [_run(cells[0])]
    results.extend(_run(cell) for cell in itertools.takewhile(lambda _: time.monotonic() < end, cells[1:]))
    return results
