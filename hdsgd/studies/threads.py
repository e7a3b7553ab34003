"""Cells of a study on threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import numpy as np

from hdsgd.parallel import Canceller, completed
from hdsgd.studies.study import Context, Study, attempt

__all__ = ["run_on_threads"]


def run_on_threads(
    study: Study, cells: Iterable[int], threads: int, context_of: Callable[[int, Canceller], Context]
) -> Generator[tuple[int, Mapping[str, Any] | str]]:
    """Yield each cell with its outputs, or its message if it failed, as they finish.

    Closing the generator stops what runs.

    Parameters
    ----------
    study : Study
    cells : iterable of int
        Numbers of cells, counted along the last dim first; handed out in this order.
    threads : int
    context_of : callable
        ``context_of(cell, canceller)``.
    """
    canceller = Canceller()

    def run(cell: int) -> Mapping[str, Any] | str:
        canceller.check()
        index = tuple(int(i) for i in np.unravel_index(cell, study.shape))
        context = context_of(cell, canceller)
        values = attempt(lambda: study.cell(index), context)
        context.finish()
        return values

    yield from completed(run, cells, threads, canceller)
