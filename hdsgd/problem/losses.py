"""Losses: a record each, which says what the error in the gradient is (theory §1).

The gradient with respect to row j is ``c_j z``, ``c_j = (a_j/p) σ'(λ_j) e``: all that a loss decides is the error e.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hdsgd.errors import SpecificationError
from hdsgd.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LOSSES", "Loss", "Switch", "phases_of"]


@dataclass(frozen=True)
class Loss:
    """A loss by the error that stands in its gradient.

    Parameters
    ----------
    name, summary : str
    kappa : {1, 0}, optional
        The error is ``e = κ f - y``: 1 for the square loss, 0 for the correlation loss.
    error : callable, optional
        ``error(f, y)``, the derivative of the loss with respect to the output f, in plain arithmetic and functions of
        `math`, which Numba compiles; population moments are then found by quadrature.  Exactly one of `kappa` and
        `error` is given.

    Examples
    --------
    >>> Loss("quartic", "¼(y - f)⁴", error=lambda f, y: (f - y) ** 3).name
    'quartic'
    """

    name: str
    summary: str
    kappa: float | None = None
    error: Callable[[float, float], float] | None = None

    def __post_init__(self) -> None:
        if (self.kappa is None) == (self.error is None):
            raise SpecificationError(f"loss {self.name!r}: give exactly one of kappa and error")
        if self.kappa not in (None, 0, 1):
            raise SpecificationError(f"loss {self.name!r}: kappa is 0 or 1, not {self.kappa!r}; give another as error")

        if self.error is not None and not callable(self.error):
            raise SpecificationError(f"loss {self.name!r}: error is a function of f and y, not {self.error!r}")

    def errors(self, f: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """The error at arrays of outputs and labels of one shape."""
        if self.error is None:
            return f - y if self.kappa else -y
        from hdsgd.problem.scalars import on_arrays  # imports NumPy, which a list of names does without

        return on_arrays(self.error, f, y)


@dataclass(frozen=True)
class Switch:
    """A change of loss on the way: one until the population risk has fallen far enough, another after.

    The problem says how far (`Problem.switch_fraction`) and what becomes of the learning rate (`switch_factor`,
    `switch_decay`).

    Parameters
    ----------
    name, summary : str
    first, then : str
        Names of losses.

    Examples
    --------
    >>> Switch("late", "square, then correlation", first="square", then="correlation").then
    'correlation'
    """

    name: str
    summary: str
    first: str
    then: str


#: Every loss by name; `hdsgd.register` adds one of your own.
LOSSES: Registry[Loss | Switch] = Registry(
    "loss",
    [
        Loss("square", "½(y - f)²", kappa=1.0),
        Loss("correlation", "1 - y f", kappa=0.0),
        Switch("adaptive", "correlation until the risk has fallen, then square", "correlation", "square"),
    ],
)


def phases_of(name: str) -> tuple[Loss, ...]:
    """The losses that a name stands for, in the order in which they are used: one, or two of a `Switch`."""
    entry = LOSSES[name]
    names = (entry.first, entry.then) if isinstance(entry, Switch) else (name,)
    losses = tuple(LOSSES[each] for each in names)
    for loss in losses:
        if isinstance(loss, Switch):
            raise SpecificationError(f"loss {name!r} switches to {loss.name!r}, which switches itself")
    return losses  # type: ignore[return-value]
