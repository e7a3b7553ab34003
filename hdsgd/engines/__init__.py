"""Engines: one protocol (`hdsgd.engines.base.Run`), several ways to simulate the same law.

Looking an engine up compiles nothing and importing this package does not import Numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hdsgd.errors import SpecificationError, choice
from hdsgd.model import Problem

if TYPE_CHECKING:
    from hdsgd.engines.base import Run

__all__ = ["ENGINES", "find_engine"]

ENGINES = ("auto", "direct", "direct32", "reduced")


def find_engine(name: str, problem: Problem, dim: int) -> type[Run]:
    """The engine of that name; ``auto`` is `reduced` wherever it is valid and `direct` elsewhere.

    ``direct32`` is `direct` with inputs and fields in single precision, and never chosen by itself.

    Raises
    ------
    SpecificationError
        If the name is unknown or the engine cannot simulate this problem at this dimension.
    """
    choice("engine", name, ENGINES)
    from hdsgd.engines.direct import Direct32Run, DirectRun
    from hdsgd.engines.reduced import ReducedRun

    if name == "auto":
        return DirectRun if ReducedRun.invalid(problem, dim) else ReducedRun
    engines: tuple[type[Run], ...] = (DirectRun, Direct32Run, ReducedRun)
    engine = next(candidate for candidate in engines if candidate.name == name)
    reason = engine.invalid(problem, dim)
    if reason:
        raise SpecificationError(reason)
    return engine
