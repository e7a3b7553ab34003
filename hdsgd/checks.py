"""Checks of single numbers: each returns the value in its own type or raises one clear line."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, TypeVar

from hdsgd.errors import SpecificationError

__all__ = [
    "MAX_BATCH",
    "MAX_DIM",
    "MAX_STEPS",
    "check_dim",
    "check_dims",
    "check_eta",
    "check_memory",
    "finite",
    "instance",
    "whole",
]

Kind = TypeVar("Kind")

MAX_BATCH = 9 * 10**18  # the engines count samples in 64 bits
MAX_DIM = 2**53
MAX_STEPS = 9 * 10**18  # these too


def finite(what: str, value: Any, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False) -> float:
    """Return `value` as a float inside [low, high] (or ``(low, high]``), else raise `SpecificationError`."""
    try:
        number = float(value)
        text = isinstance(value, str | bytes)
    except (TypeError, ValueError, OverflowError):
        text = True
    if text:
        raise SpecificationError(f"{what} must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise SpecificationError(f"{what} must be finite, not {number}")
    if number < low or number > high or (open_low and number == low):
        bounds = f"{'more than' if open_low else 'at least'} {low:g}" if low > -math.inf else ""
        bounds += (" and " if bounds and high < math.inf else "") + (f"at most {high:g}" if high < math.inf else "")
        raise SpecificationError(f"{what} must be {bounds}, not {number:g}")
    return number


def whole(what: str, value: Any, *, low: int = 0, high: int | None = None) -> int:
    """Return `value` as an int in [low, high], else raise `SpecificationError`."""
    try:
        number = int(value)
        exact = number == value
    except (TypeError, ValueError, OverflowError):
        raise SpecificationError(f"{what} must be a whole number, not {value!r}") from None
    if not exact:
        raise SpecificationError(f"{what} must be a whole number, not {value!r}")
    if number < low or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise SpecificationError(f"{what} must be {bounds}, not {number}")
    return number


def check_eta(eta: float) -> float:
    """Return the threshold of weak recovery if it lies in (0, 1), else raise `SpecificationError`."""
    if not 0.0 < (value := finite("eta", eta)) < 1.0:
        raise SpecificationError(f"eta must be between 0 and 1 (exclusive), not {value:g}: it is a fraction of a unit")
    return value


def check_dim(dim: object) -> int:
    """Return the dimension as an int in [2, 2^53], else raise `SpecificationError`."""
    return whole("dim", dim, low=2, high=MAX_DIM)


def check_dims(dims: Any) -> list[int]:
    """Return one dimension or several as ints in increasing order, else raise `SpecificationError`."""
    try:
        given = [dims] if isinstance(dims, str) else list(dims)
    except TypeError:  # one number
        given = [dims]
    sizes = sorted(check_dim(dim) for dim in given)
    if not sizes or len(set(sizes)) < len(sizes):
        raise SpecificationError(f"dims must be distinct dimensions, at least one, not {given}")
    return sizes


def instance(what: str, value: Any, kind: type[Kind]) -> Kind:
    """Return `value` if it is a `kind`, else raise `SpecificationError`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise SpecificationError(f"{what} must be {article} {kind.__name__}, not {value!r}")
    return value


def check_memory(what: str, size: int, advice: str) -> None:
    """Raise `SpecificationError` if `size` bytes for `what` are more than there is memory free."""
    free = free_memory()
    if free is not None and size > free:
        raise SpecificationError(f"{what} need {_bytes(size)} of memory, {_bytes(free)} are free; {advice}")


def free_memory() -> int | None:
    """Bytes that this process may still use, None where the system does not say."""
    free = None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * int(line.split()[1])
    except OSError:
        if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:  # what a container allows
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        if most != "max":
            free = min(int(most) - int(used), free or int(most))
    except (OSError, ValueError):
        pass
    return free


def _bytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
