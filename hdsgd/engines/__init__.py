"""Engines: several ways to simulate the same law of a run, of one interface (`hdsgd.engines.base.Run`).

May import the foundation and the packages `hdsgd.problem`, `hdsgd.moments` and `hdsgd.theory`.  To add one: a class
derived from `base.Run`, in a file of its own with its kernels in a sibling ``_*_kernels.py``, and a row in `ENGINES`
(here, or from outside by `hdsgd.register`); what it says for itself (name, exactness, summary) is read from there by
the planner of sweeps, the command line and the documentation.

Importing this package does not import Numba, and neither NumPy; looking an engine up compiles nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hdsgd.errors import SpecificationError
from hdsgd.registry import Registry, imported

if TYPE_CHECKING:
    from hdsgd.engines.base import Run
    from hdsgd.problem.model import Problem

__all__ = ["ENGINES", "Engine", "find_engine", "is_exact"]


@dataclass(frozen=True)
class Engine:
    """A way to simulate, or a choice among several.

    Parameters
    ----------
    name, summary : str
    exact : bool
        Every sample is drawn: a step costs n_b samples, known before the run, and no approximation is made.
    load : str or class, optional
        The class, derived from `hdsgd.engines.base.Run`, or where it is: ``"module:Class"``, imported at first use.
    instead : tuple of str
        Names of engines that are tried, in this order, where the class cannot simulate a problem or there is none.

    Examples
    --------
    >>> [engine.name for engine in ENGINES.values() if engine.exact]
    ['exact', 'direct', 'direct32', 'reduced']
    """

    name: str
    summary: str
    exact: bool
    load: str | type[Run] | None = None
    instead: tuple[str, ...] = ()

    @property
    def run(self) -> type[Run] | None:
        """The class."""
        found: type[Run] | None = imported(self.load)
        return found


class _Engines(Registry[Engine]):
    """Takes a class derived from `hdsgd.engines.base.Run` too, which says for itself what its row would."""

    def takes(self, entry: object) -> bool:
        return isinstance(entry, Engine) or _is_run(entry)

    def entry_of(self, given: Any) -> Engine:
        if not _is_run(given):
            return super().entry_of(given)
        summary = given.summary or (given.__doc__ or given.name).strip().splitlines()[0]
        return Engine(given.name, summary, given.exact, load=given)


def _is_run(entry: object) -> bool:
    # By name: importing the class would import NumPy for a list of names.
    named = ((base.__module__, base.__name__) for base in getattr(entry, "__mro__", ()))
    return isinstance(entry, type) and ("hdsgd.engines.base", "Run") in named


#: Every engine by name; `hdsgd.register` adds one of your own.
ENGINES = _Engines(
    "engine",
    [
        Engine(
            "auto",
            "as moment, but exact sums wherever they cost less; exact where moment is not valid",
            exact=False,
            load="hdsgd.engines.gaussian:AutoRun",
            instead=("exact",),
        ),
        Engine("exact", "reduced wherever it is valid, direct elsewhere", exact=True, instead=("reduced", "direct")),
        Engine("direct", "every sample in d dimensions", exact=True, load="hdsgd.engines.direct:DirectRun"),
        Engine(
            "direct32",
            "as direct, in single precision",
            exact=True,
            load="hdsgd.engines.direct:Direct32Run",
        ),
        Engine(
            "reduced",
            "the exact chain of the overlaps, at a cost independent of d",
            exact=True,
            load="hdsgd.engines.reduced:ReducedRun",
        ),
        Engine(
            "moment",
            "Gaussian batch sums and many steps as one wherever they hold, exact sums elsewhere",
            exact=False,
            load="hdsgd.engines.gaussian:GaussianRun",
        ),
    ],
)


def is_exact(name: str) -> bool:
    """Whether the engine of that name draws every sample, so that a step costs n_b samples."""
    return ENGINES[name].exact


def find_engine(name: str, problem: Problem, dim: int) -> type[Run]:
    """The engine of that name (`ENGINES`), or the one that it chooses for a problem at a dimension.

    Raises
    ------
    SpecificationError
        If the name is unknown or the engine cannot simulate this problem at this dimension.
    """
    entry, reason = ENGINES[name], f"engine {name!r} has no class"
    if (engine := entry.run) is not None:
        if problem.protocol in engine.protocols:
            refused = engine.invalid(problem, dim)
        else:
            known = ", ".join(engine.protocols)
            refused = f"the {engine.name} engine simulates the protocol {known}, not {problem.protocol!r}"
        if refused is None:
            return engine
        reason = refused
    for other in entry.instead:
        try:
            return find_engine(other, problem, dim)
        except SpecificationError as error:
            reason = str(error)
    raise SpecificationError(reason)
