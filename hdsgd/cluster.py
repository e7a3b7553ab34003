"""Cells on the workers of a Dask cluster: the same function and the same results as on threads."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import itertools
import logging
import uuid
from collections import Counter
from collections.abc import Generator, Mapping
from typing import Any

from hdsgd.errors import SpecificationError
from hdsgd.schema import versions
from hdsgd.sweep import CellResult, Index, failed, run_cell

__all__ = ["Cluster"]

logger = logging.getLogger("hdsgd")

#: Seconds that a scheduler has to answer.
PATIENCE = 10
#: Cells at the scheduler at one time: enough for any cluster to be busy, and to be seen to need more workers.
IN_FLIGHT = 1000
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
        threads = sum(self._client.nthreads().values())
        size = f"workers {len(found)}, threads {threads}" if found else "no workers so far; waiting for some"
        logger.info("Dask scheduler %s: %s", self.address, size)

    def _take(self, future: Any) -> CellResult:
        """The result of a future that has ended without an error of its own."""
        from distributed import CancelledError

        try:
            result: CellResult = future.result()
        except (OSError, CancelledError):
            raise ConnectionError(f"the Dask scheduler at {self.address} was lost") from None
        return result

    def completed(self, cells: Mapping[Index, Mapping[str, Any]]) -> Generator[tuple[Index, CellResult]]:
        """Yield each index with the result of its cell, as they finish.

        A cell whose worker dies runs again on another.  Closing the generator takes back what has not begun; what runs
        on a worker ends there, and its result is lost.

        Raises
        ------
        ConnectionError
            If the scheduler is lost or a worker cannot run cells.
        """
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        waiting, retries = iter(cells), Counter[Index]()
        running: dict[str, tuple[Index, Any]] = {}
        name, version = uuid.uuid4().hex[:8], _version()
        finished = as_completed(loop=self._client.loop)

        def submit(index: Index) -> None:
            key = f"hdsgd-cell-{name}-{'-'.join(map(str, index))}-{retries[index]}"
            future = self._client.submit(_run_remote, dict(cells[index]), version, key=key, pure=False)
            running[key] = index, future
            finished.add(future)

        try:
            for index in itertools.islice(waiting, IN_FLIGHT):
                submit(index)
            for future in finished:
                index, _ = running.pop(str(future.key))
                error = future.exception() if future.status == "error" else None
                if isinstance(error, KilledWorker) and retries[index] < RETRIES:
                    retries[index] += 1
                    submit(index)
                    continue
                for another in itertools.islice(waiting, 1):
                    submit(another)
                if isinstance(error, KilledWorker):
                    yield index, failed(cells[index], f"every worker that ran this cell died ({error})")
                elif error is not None:
                    raise ConnectionError(f"a Dask worker cannot run cells ({type(error).__name__}: {error})")
                else:
                    yield index, self._take(future)
        finally:
            if self._client.status == "running":
                self._client.cancel([future for _, future in running.values()], force=True)


def _worker_versions() -> dict[str, str]:
    return versions()


@functools.cache
def _version() -> str:
    return importlib.metadata.version("hdsgd")


def _run_remote(cell: Mapping[str, Any], version: str) -> CellResult:
    """Run a cell on a worker, which may have joined after the versions were compared."""
    mine = _version()
    if mine != version:
        raise RuntimeError(f"it has hdsgd {mine}, not {version}")
    return run_cell(cell)
