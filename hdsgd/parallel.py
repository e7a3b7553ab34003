"""Independent tasks on threads, with progress, and an interruption that reaches running kernels."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from hdsgd.errors import SpecificationError
from hdsgd.model import whole

__all__ = ["Watch", "count_threads", "run_tasks"]


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Watch:
    """Knows what is running, so that an interruption can stop it within a block of samples."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Cancellable] = set()
        self.stopped = False

    def add(self, run: Cancellable) -> None:
        with self._lock:
            self._running.add(run)
            if self.stopped:
                run.cancel()

    def remove(self, run: Cancellable) -> None:
        with self._lock:
            self._running.discard(run)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            for run in self._running:
                run.cancel()


def count_threads(threads: int | None) -> int:
    """The number of threads asked for; by default every core this process may use.

    Raises
    ------
    SpecificationError
        If `threads` is not a positive whole number.
    """
    if threads is not None:
        return whole("threads", threads, low=1, high=4096)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(
    tasks: Iterable[Callable[[], None]], threads: int, watch: Watch, on_done: Callable[[], None] = lambda: None
) -> None:
    """Run every task; on an error or an interruption stop what is running, then raise it.

    Tasks are handed out in order but may finish in any; they write their results where they belong themselves.
    """
    if not isinstance(threads, int) or threads < 1:
        raise SpecificationError(f"threads must be at least 1, not {threads!r}")
    pending: set[Future[None]] = set()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                if len(pending) >= 4 * threads:
                    pending = _collect(pending, on_done)
                pending.add(pool.submit(task))
            while pending:
                pending = _collect(pending, on_done)
        except BaseException:
            watch.stop()
            for future in pending:
                future.cancel()
            raise


def _collect(pending: set[Future[None]], on_done: Callable[[], None]) -> set[Future[None]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        on_done()
    return rest
