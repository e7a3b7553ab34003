"""Engines: one protocol (`hdsgd.engines.base.Run`), several ways to simulate the same law.

Looking an engine up compiles nothing and importing this package does not import Numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hdsgd.errors import SpecificationError, choice
from hdsgd.problem.model import Problem

if TYPE_CHECKING:
    from hdsgd.engines.base import Run

__all__ = ["ENGINES", "find_engine"]

ENGINES = ("auto", "exact", "direct", "direct32", "reduced", "moment")


def find_engine(name: str, problem: Problem, dim: int) -> type[Run]:
    """The engine of that name.

    - ``direct``: every sample in d dimensions; ``direct32`` the same in single precision;
    - ``reduced``: the exact chain of the overlaps;
    - ``exact``: `reduced` wherever it is valid and `direct` elsewhere;
    - ``moment``: Gaussian batch sums and leaps over many steps wherever they hold, exact sums elsewhere;
    - ``auto``: as `moment`, but with exact sums wherever they cost less; ``exact`` where `moment` is not valid.

    Raises
    ------
    SpecificationError
        If the name is unknown or the engine cannot simulate this problem at this dimension.
    """
    choice("engine", name, ENGINES)
    from hdsgd.engines.direct import Direct32Run, DirectRun
    from hdsgd.engines.gaussian import AutoRun, MomentRun
    from hdsgd.engines.reduced import ReducedRun

    if name == "auto" and AutoRun.invalid(problem, dim):
        name = "exact"
    if name == "exact":
        return DirectRun if ReducedRun.invalid(problem, dim) else ReducedRun
    engines: tuple[type[Run], ...] = (DirectRun, Direct32Run, ReducedRun, MomentRun, AutoRun)
    engine = next(candidate for candidate in engines if candidate.name == name)
    reason = engine.invalid(problem, dim)
    if reason:
        raise SpecificationError(reason)
    return engine
