"""Which row of the table of theory §5 holds for a loss and a constraint: a record each.

All that the row depends on is whether the student's own output acts back on its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hdsgd.problem.constraints import ALGORITHMS, CONSTRAINTS, Constraint
from hdsgd.problem.losses import Loss, phases_of
from hdsgd.problem.model import Problem
from hdsgd.registry import Registry

__all__ = ["RULES", "Rule", "depends_on_output", "rule_of", "with_algorithm"]


@dataclass(frozen=True)
class Rule:
    """A row of the table of theory §5.

    Parameters
    ----------
    name, summary : str
    applies : callable
        ``applies(loss, constraint)``: whether it holds for a `hdsgd.problem.losses.Loss` (the first of two) and a
        `hdsgd.problem.constraints.Constraint`.
    stable : bool
        Whether learning goes on at learning rates beyond order one: nothing but the signal and noise moves the rows.

    Examples
    --------
    >>> [rule.name for rule in RULES.values() if rule.stable]
    ['correlation', 'spherical']
    """

    name: str
    summary: str
    applies: Callable[[Loss, Constraint], bool]
    stable: bool


@lru_cache(maxsize=64)
def depends_on_output(loss: Loss) -> bool:
    """Whether the error of a loss depends on the student's output.

    Examples
    --------
    >>> depends_on_output(Loss("hinge", "max(0, 1 - y f)", error=lambda f, y: -y if y * f < 1 else 0.0))
    True
    """
    f, y = np.meshgrid(np.linspace(-3.0, 3.0, 25), np.linspace(-2.9, 2.9, 11))
    errors = np.nan_to_num(loss.errors(f, y))
    return bool((errors != errors[:, :1]).any())


#: Rules by name, asked from the last one: `hdsgd.register` adds one of your own.  Without
#: normalisation there is none.
RULES: Registry[Rule] = Registry(
    "theory rule",
    [
        Rule(
            "projected",
            "rows are normalised, and the output acts back on them: no learning at rates beyond order one",
            lambda loss, constraint: constraint.normalised and not constraint.tangential and depends_on_output(loss),
            stable=False,
        ),
        Rule(
            "correlation",
            "rows are normalised, and the error does not depend on the output",
            lambda loss, constraint: constraint.normalised and not depends_on_output(loss),
            stable=True,
        ),
        Rule(
            "spherical",
            "rows are normalised, and the gradient is made tangent to the sphere: what the output does to them is gone",
            lambda loss, constraint: constraint.normalised and constraint.tangential and depends_on_output(loss),
            stable=True,
        ),
    ],
)


def rule_of(loss: str, constraint: str) -> Rule | None:
    """The rule for a loss and a constraint by name; None where there is no theory.

    A loss that changes on the way counts as the first of the two, with which it recovers.

    Examples
    --------
    >>> rule_of("adaptive", "projected").name, rule_of("square", "none")
    ('correlation', None)
    """
    first, record = phases_of(loss)[0], CONSTRAINTS[constraint]
    return next((rule for rule in reversed(RULES.values()) if rule.applies(first, record)), None)


def with_algorithm(problem: Problem, algorithm: str) -> Problem:
    """The same target, student and noise with the loss and constraint of a named algorithm."""
    named = ALGORITHMS[algorithm]
    return Problem(problem.target, problem.student, problem.noise, named.loss, named.constraint)
