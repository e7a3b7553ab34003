"""Progress on standard error: one bar over tqdm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["progress_bar"]


class progress_bar:
    """Context manager: a progress bar on standard error, as a function that advances it; silent unless `shown`."""

    def __init__(self, total: int, unit: str, shown: bool) -> None:
        self._total, self._unit, self._shown = total, unit, shown
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        if not self._shown:
            return lambda amount: None
        from tqdm.auto import tqdm

        self._bar = tqdm(total=self._total, unit=f" {self._unit}", unit_scale=True, dynamic_ncols=True, leave=False)
        # Threads report at the same time; tqdm takes its own lock.
        update: Callable[[int], None] = self._bar.update
        return update

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
