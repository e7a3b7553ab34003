"""What is learnt and how: `Target`, `Student` and `Problem`, frozen, validated and serialisable.

Conventions (the letters used everywhere): input dimension ``d``, student width ``p``, teacher directions ``k``.
Inputs are ``z ~ N(0, I_d)``, labels ``y = h*(W* z) + sqrt(Δ) ξ``, the student is ``f(z) = (1/p) Σ_j a_j σ(<w_j, z>)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError
from hdsgd.problem.constraints import ALGORITHMS, CONSTRAINTS
from hdsgd.problem.functions import Function
from hdsgd.problem.losses import LOSSES, Loss, Switch, phases_of
from hdsgd.problem.parser import parse
from hdsgd.problem.protocols import PROTOCOLS
from hdsgd.records import Record

__all__ = ["Problem", "Student", "Target"]

MAX_DIRECTIONS = 16
MAX_WIDTH = 64


@dataclass(frozen=True)
class Target(Record):
    """The function to learn, ``h*(z1, ..., zk)`` with ``z_r = <w*_r, z>``.

    Parameters
    ----------
    expression : str
        Function of ``z1 ... zk`` as text: ``"he3"`` (short for ``"he3(z1)"``), ``"z1 + z1*z2"``,
        ``"relu(z1)"``, ``"erf(z1/sqrt(2)) + erf(z2/sqrt(2))"``; see `hdsgd.problem.parser.parse`.  ``k`` is the largest
        index that occurs.
    gram : array_like of shape (k, k), optional
        Gram matrix ``P = W* W*ᵀ`` of the teacher directions; symmetric and positive semi-definite with a positive
        diagonal.  Orthonormal directions (the identity) by default.

    Raises
    ------
    SpecificationError
        If the expression is not accepted (with the place), or `gram` is not a Gram matrix of the right size.

    Examples
    --------
    >>> Target("z1 + z1*z2").k
    2
    >>> Target("he2", gram=[[1.5]]).P.tolist()
    [[1.5]]
    """

    expression: str = "he2"
    gram: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise SpecificationError(f"target must be text such as 'he2', not {type(self.expression).__name__}")
        indices = [int(i) for i in re.findall(r"\bz([1-9]\d{0,4})\b", self.expression)]
        k = max(indices, default=1)
        if k > MAX_DIRECTIONS:
            raise SpecificationError(f"target has direction z{k}; at most z{MAX_DIRECTIONS} is supported")
        canonical, function = parse(self.expression, tuple(f"z{r + 1}" for r in range(k)), "target")
        if not function.variables():
            raise SpecificationError(f"target {self.expression!r} is constant; nothing can be learnt from it")
        object.__setattr__(self, "expression", canonical)
        object.__setattr__(self, "_function", function)
        if self.gram is not None:
            object.__setattr__(self, "gram", _checked_gram(self.gram, k))

    @property
    def function(self) -> Function:
        """``h*`` as data."""
        return self._function  # type: ignore[attr-defined]

    @property
    def k(self) -> int:
        """Number of teacher directions."""
        return self.function.arity

    @property
    def orthonormal(self) -> bool:
        return self.gram is None

    @cached_property
    def P(self) -> NDArray[np.float64]:
        """Gram matrix of the teacher directions, shape (k, k)."""
        return np.eye(self.k) if self.gram is None else np.array(self.gram)

    @cached_property
    def gram_root(self) -> NDArray[np.float64]:
        """Lower-triangular ``L_P`` with ``L_P L_Pᵀ = P``, shape (k, k); a dependent direction has a zero column."""
        root = np.zeros((self.k, self.k))
        for i in range(self.k):
            for j in range(i + 1):
                rest = self.P[i, j] - root[i, :j] @ root[j, :j]
                if i == j:
                    root[i, i] = math.sqrt(rest) if rest > 1e-12 * self.P[i, i] else 0.0
                elif root[j, j] > 0:
                    root[i, j] = rest / root[j, j]
        return root


def _checked_gram(gram: Any, k: int) -> tuple[tuple[float, ...], ...] | None:
    try:
        P = np.array(gram, dtype=np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(f"gram must be a {k}×{k} matrix of numbers, not {gram!r}") from None
    if P.shape != (k, k):
        raise SpecificationError(
            f"gram must be {k}×{k} for this target, not {'×'.join(map(str, P.shape)) or 'a number'}"
        )
    if not np.isfinite(P).all():
        raise SpecificationError("gram must contain finite numbers only")
    if not np.array_equal(P, P.T):
        raise SpecificationError("gram must be symmetric")
    if (np.diag(P) <= 0).any():
        raise SpecificationError("gram must have a positive diagonal (the squared norms of the teacher directions)")
    smallest = float(np.linalg.eigvalsh(P)[0])
    if smallest < -1e-10 * float(np.diag(P).max()):
        raise SpecificationError(f"gram must be positive semi-definite; its smallest eigenvalue is {smallest:.3g}")
    if np.array_equal(P, np.eye(k)):
        return None
    return tuple(tuple(float(v) for v in row) for row in P)


@dataclass(frozen=True)
class Student(Record):
    """The network, ``f(z) = (1/p) Σ_j a_j σ(<w_j, z>)`` with a fixed second layer ``a``.

    Parameters
    ----------
    activation : str
        Function of ``x`` as text: ``"square"``, ``"he3"``, ``"x**2 - 1"``, ``"relu"``, ``"erf(x/sqrt(2))"``.
    width : int
        Number ``p`` of hidden units.
    second_layer : sequence of float, optional
        The ``p`` weights ``a_j``; all ones by default.

    Raises
    ------
    SpecificationError
        If the activation is not accepted or constant, or the second layer has the wrong length.

    Examples
    --------
    >>> Student("relu", 2, second_layer=[1, -1]).a.tolist()
    [1.0, -1.0]
    """

    activation: str = "square"
    width: int = 1
    second_layer: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        canonical, function = parse(self.activation, ("x",), "activation")
        if not function.variables():
            raise SpecificationError(f"activation {self.activation!r} is constant; its gradient vanishes")
        object.__setattr__(self, "activation", canonical)
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "width", whole("width", self.width, low=1, high=MAX_WIDTH))
        if self.second_layer is not None:
            if isinstance(self.second_layer, str | float | int) or not isinstance(
                self.second_layer, Sequence | np.ndarray
            ):
                raise SpecificationError(f"second_layer must be {self.width} numbers, not {self.second_layer!r}")
            if len(self.second_layer) != self.width:
                raise SpecificationError(
                    f"second_layer must have one weight per hidden unit: {self.width}, not {len(self.second_layer)}"
                )
            layer = tuple(finite("second_layer", a) for a in self.second_layer)
            object.__setattr__(self, "second_layer", None if all(a == 1.0 for a in layer) else layer)

    @property
    def function(self) -> Function:
        """``σ`` as data."""
        return self._function  # type: ignore[attr-defined]

    @property
    def p(self) -> int:
        """Number of hidden units, the same as `width`."""
        return self.width

    @cached_property
    def a(self) -> NDArray[np.float64]:
        """Second layer, shape (p,)."""
        return np.ones(self.width) if self.second_layer is None else np.array(self.second_layer)


@dataclass(frozen=True)
class Problem(Record):
    """A learning problem: target, student, label noise and the rule of one SGD step.

    Parameters
    ----------
    target : Target or str
    student : Student or str
        A string is an activation, for a student of width 1.
    noise : float
        Variance ``Δ`` of the label noise.
    loss : {"square", "correlation", "adaptive"}
        ``½(y-f)²``; ``1 - y f``; or correlation until the population risk has fallen below `switch_fraction` of its
        start, square from the next step on.
    constraint : {"projected", "spherical", "none"}
        Rows normalised after the step; gradient made tangent to the sphere first, then normalised; or neither.
    switch_fraction : float
        Of the adaptive loss: fraction of the initial population risk at which it switches, in (0, 1).
    switch_factor : float
        Of the adaptive loss: the learning rate is multiplied by this at the switch.
    switch_decay : float
        Of the adaptive loss: ``s`` steps after the switch the learning rate is also multiplied by ``(1 + s)^-decay``.
    protocol : {"one-pass"}
        What one update does with its batch.

    Raises
    ------
    SpecificationError
        If a name is unknown (with the choices) or a number is outside its range.

    Examples
    --------
    >>> problem = Problem("he3", Student("he3", width=4), noise=0.1, loss="correlation")
    >>> problem.p, problem.k, problem.constraint
    (4, 1, 'projected')
    >>> Problem.from_json(problem.to_json()) == problem
    True
    >>> Problem("he2", "he2", loss="hinge")
    Traceback (most recent call last):
    hdsgd.errors.SpecificationError: unknown loss 'hinge'; choose from square, correlation, adaptive
    """

    target: Target
    student: Student
    noise: float = 0.0
    loss: str = "square"
    constraint: str = "projected"
    switch_fraction: float = 0.6
    switch_factor: float = 1.0
    switch_decay: float = 0.0
    protocol: str = "one-pass"

    def __post_init__(self) -> None:
        for name, kind in (("target", Target), ("student", Student)):
            value: Any = getattr(self, name)
            if isinstance(value, str):
                value = kind(value)
            elif isinstance(value, Mapping):
                value = kind.from_dict(value)
            if not isinstance(value, kind):
                raise SpecificationError(f"{name} must be a {kind.__name__} or text, not {type(value).__name__}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "noise", finite("noise", self.noise, low=0.0))
        phases_of(self.loss)
        CONSTRAINTS[self.constraint]
        PROTOCOLS[self.protocol]
        fraction = finite("switch_fraction", self.switch_fraction, low=0.0, high=1.0, open_low=True)
        object.__setattr__(self, "switch_fraction", fraction)
        object.__setattr__(self, "switch_factor", finite("switch_factor", self.switch_factor, low=0.0, open_low=True))
        object.__setattr__(self, "switch_decay", finite("switch_decay", self.switch_decay, low=0.0))
        defaults = {f.name: f.default for f in fields(self)}
        if len(self.phases) == 1:
            switches = ", ".join(loss.name for loss in LOSSES.values() if isinstance(loss, Switch))
            for name in ("switch_fraction", "switch_factor", "switch_decay"):
                if getattr(self, name) != defaults[name]:
                    raise SpecificationError(
                        f"{name} belongs to losses that switch ({switches}); this problem has loss {self.loss!r}"
                    )

    @classmethod
    def from_algorithm(cls, algorithm: str, target: Target | str, student: Student | str, **options: Any) -> Problem:
        """Build a problem from one of the three named algorithms (theory §1).

        Parameters
        ----------
        algorithm : {"projected", "correlation", "spherical"}
            Square loss and projected; correlation loss and projected; square loss and spherical.
        target, student, **options
            As for `Problem`; `loss` and `constraint` override the halves of the algorithm.
        """
        rule = ALGORITHMS[algorithm]
        return cls(target, student, **{"loss": rule.loss, "constraint": rule.constraint, **options})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values; the protocol only where it is not the usual one."""
        result = super().to_dict()
        if self.protocol == "one-pass":
            del result["protocol"]
        return result

    def address(self) -> dict[str, Any]:
        """What seeds are derived from (`hdsgd.seeds.cell_seed`).

        These keys, and the values of what they describe, never change: a run of today would have other random numbers.
        What is added to a problem later enters where it differs from what was meant before it could be said.
        """
        names = "noise", "loss", "constraint", "switch_fraction", "switch_factor", "switch_decay"
        address: dict[str, Any] = {
            "target": {"expression": self.target.expression, "gram": self.target.gram},
            "student": {
                "activation": self.student.activation,
                "width": self.student.width,
                "second_layer": self.student.second_layer,
            },
            **{name: getattr(self, name) for name in names},
        }
        if self.protocol != "one-pass":
            address["protocol"] = self.protocol
        return address

    def __str__(self) -> str:
        """What it is in formulas, a line each part."""
        from hdsgd.problem.formulas import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        """The same as a table, which notebooks show."""
        from hdsgd.problem.formulas import as_html

        return as_html(self)

    @property
    def phases(self) -> tuple[Loss, ...]:
        """The losses in the order in which they are used: one, or two of a loss that switches."""
        return phases_of(self.loss)

    @property
    def p(self) -> int:
        return self.student.width

    @property
    def k(self) -> int:
        return self.target.k


def as_problem(problem: Problem) -> Problem:
    """Return `problem` if it is one.

    Raises
    ------
    SpecificationError
        If it is something else.
    """
    if not isinstance(problem, Problem):
        raise SpecificationError(f"problem must be a Problem, such as Problem('he2', 'he2'), not {problem!r}")
    return problem
