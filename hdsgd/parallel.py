"""Independent tasks on threads, with progress, and an interruption that reaches running kernels."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from hdsgd.checks import whole
from hdsgd.errors import SpecificationError

__all__ = ["Cancelled", "Canceller", "completed", "count_threads", "run_tasks"]

Task = TypeVar("Task")
Result = TypeVar("Result")


class Cancelled(BaseException):
    """What ran was told to stop, in its middle; not an error, so that nothing takes it for one."""


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Canceller:
    """Knows what is running, so that an interruption can stop it within a block of samples."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Cancellable] = set()
        self.stopped = False

    @contextlib.contextmanager
    def covering(self, run: Cancellable) -> Iterator[None]:
        """Within this context the run is one of those that `stop` cancels."""
        with self._lock:
            self._running.add(run)
            if self.stopped:
                run.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(run)

    def check(self) -> None:
        """Raise `Cancelled` once `stop` was called."""
        if self.stopped:
            raise Cancelled

    def stop(self) -> None:
        """Cancel what runs now or later."""
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


def completed(
    function: Callable[[Task], Result], tasks: Iterable[Task], threads: int, canceller: Canceller
) -> Generator[tuple[Task, Result]]:
    """Yield each task with ``function(task)``, as they finish on `threads` threads.

    Tasks are handed out in order.  On an error, or when the generator is closed early (see `contextlib.closing`), what
    is running is stopped through `canceller`.
    """
    if not isinstance(threads, int) or threads < 1:
        raise SpecificationError(f"threads must be at least 1, not {threads!r}")
    tasks = iter(tasks)
    with ThreadPoolExecutor(threads) as pool:
        running: dict[Future[Result], Task] = {}
        try:
            # A few more than there are threads, so that none waits for this one.
            for task in itertools.islice(tasks, 4 * threads):
                running[pool.submit(function, task)] = task
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    for another in itertools.islice(tasks, 1):
                        running[pool.submit(function, another)] = another
                    yield task, future.result()
        except BaseException:
            canceller.stop()
            for future in running:
                future.cancel()
            raise


def run_tasks(tasks: Iterable[Callable[[], None]], threads: int, canceller: Canceller) -> None:
    """Run every task; on an error or an interruption stop what is running, then raise it.

    Tasks are handed out in order but may finish in any; they write their results where they belong themselves.
    """
    with contextlib.closing(completed(lambda task: task(), tasks, threads, canceller)) as done:
        for _ in done:
            pass
