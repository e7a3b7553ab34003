"""Constraints on the student's rows: a record each, which answers the two questions that kernels ask (theory §1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hdsgd.registry import Registry

__all__ = ["ALGORITHMS", "CONSTRAINTS", "Algorithm", "Constraint"]


@dataclass(frozen=True)
class Constraint:
    """What a step does to keep the rows where they belong.

    Parameters
    ----------
    name, summary : str
    tangential : bool
        The component of the gradient along a row is removed before the step.
    normalised : bool
        Rows are divided by their norms after the step, so that they stay on the unit sphere.

    Examples
    --------
    >>> CONSTRAINTS["spherical"].tangential, CONSTRAINTS["none"].normalised
    (True, False)
    """

    name: str
    summary: str
    tangential: bool
    normalised: bool

    def step(self, W: Any, gradient: Any, lr: float) -> Any:
        """Rows (p, d) after a step of SGD with this gradient (p, d), in NumPy: ``w - γ g``, constrained."""
        if self.tangential:
            gradient = gradient - ((gradient * W).sum(axis=1) / (W * W).sum(axis=1))[:, None] * W
        W = W - lr * gradient
        return W / (W * W).sum(axis=1)[:, None] ** 0.5 if self.normalised else W


#: Every constraint by name; `hdsgd.register` adds one of your own.
CONSTRAINTS: Registry[Constraint] = Registry(
    "constraint",
    [
        Constraint("projected", "rows normalised after the step", tangential=False, normalised=True),
        Constraint("spherical", "gradient made tangent to the sphere, then rows normalised", True, True),
        Constraint("none", "rows are left as they are", tangential=False, normalised=False),
    ],
)


@dataclass(frozen=True)
class Algorithm:
    """A loss and a constraint under one name.

    Examples
    --------
    >>> ALGORITHMS["spherical"].constraint
    'spherical'
    """

    name: str
    summary: str
    loss: str
    constraint: str


#: The three algorithms compared by Arnaboldi et al. (2024).
ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    [
        Algorithm("projected", "square loss, rows normalised after the step", "square", "projected"),
        Algorithm("correlation", "correlation loss, rows normalised after the step", "correlation", "projected"),
        Algorithm("spherical", "square loss, gradient made tangent, then rows normalised", "square", "spherical"),
    ],
)
