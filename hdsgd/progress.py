"""Progress on standard error: one bar over tqdm, for steps of runs and for cells of studies."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["progress_bar"]


class progress_bar:
    """Context manager: a progress bar on standard error, silent unless `shown`; call it to advance it.

    Parameters
    ----------
    total : float
    unit : str
    shown : bool
    cells : int, optional
        Show how many of so many cells are done, by `finish`, and the time left by `total`, their cost together.

    Examples
    --------
    >>> with progress_bar(3, "steps", shown=False) as advance:
    ...     advance(3)
    """

    def __init__(self, total: float, unit: str, shown: bool, cells: int | None = None) -> None:
        self._total, self._unit, self._shown = total, unit, shown
        self._cells, self._done, self._failed = cells, 0, 0
        self._bar: Any = None
        self._guard = threading.Lock()  # threads report at the same time

    def __enter__(self) -> progress_bar:
        if self._shown and self._cells != 0:
            from tqdm.auto import tqdm

            form: dict[str, Any] = {"unit": f" {self._unit}", "unit_scale": True}
            if self._cells is not None:
                # No smoothing: cells differ by orders of magnitude, their average does not.
                form = {"bar_format": "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}", "smoothing": 0}
                form["desc"] = f"0/{self._cells} {self._unit}"
            self._bar = tqdm(total=self._total, dynamic_ncols=True, leave=False, **form)
        return self

    def __call__(self, amount: float) -> None:
        """Advance by so much of the total."""
        if self._bar is not None:
            with self._guard:
                self._bar.update(amount)

    def finish(self, failed: bool = False) -> None:
        """Count a cell as done."""
        self._done, self._failed = self._done + 1, self._failed + failed
        if self._bar is not None:
            text = f"{self._done}/{self._cells} {self._unit}"
            with self._guard:
                self._bar.set_description_str(
                    text + (f", {self._failed} failed" if self._failed else ""), refresh=False
                )

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
