"""What an activation is: a function of one variable that may stand in targets and students."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.problem._table_types import OWN
from hdsgd.problem.scalars import on_arrays

__all__ = ["Activation"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """A function of one variable by its name in expressions, its value and its slope.

    Parameters
    ----------
    name : str
        As it is written in expressions: ``softplus`` for ``"softplus(2*z1)"``.
    summary : str
    value, slope : callable
        The function of one number and its derivative, in plain arithmetic and functions of `math`, which Numba
        compiles.  Where the kernels know the function (`code`), NumPy functions of arrays instead.
    smooth : bool
        The function has all derivatives: quadrature of products with polynomials converges exponentially.
    code : int
        By which kernels know the function; `hdsgd.problem._table_types.OWN` for one of your own.

    Raises
    ------
    SpecificationError
        If the name cannot be used in expressions.

    Examples
    --------
    >>> import math
    >>> softplus = Activation("softplus", "log(1 + eˣ)", lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    ...                       lambda x: 0.5 * (1.0 + math.tanh(0.5 * x)))
    >>> softplus.values([0.0, 100.0]).round(3)
    array([  0.693, 100.   ])
    """

    name: str
    summary: str
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    smooth: bool = True
    code: int = OWN

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise SpecificationError(f"the name of an activation is a word of letters and digits, not {self.name!r}")
        if re.fullmatch(r"square|sqrt|pi|x|he\d+|z\d+", self.name):
            raise SpecificationError(f"{self.name!r} has a meaning in expressions already; choose another name")

        if not (callable(self.value) and callable(self.slope)):
            raise SpecificationError(f"activation {self.name!r}: value and slope are functions of x")

    def values(self, x: Any) -> Floats:
        """Values at an array of points."""
        return self._on_arrays(self.value, x)

    def slopes(self, x: Any) -> Floats:
        """Derivatives at an array of points."""
        return self._on_arrays(self.slope, x)

    def _on_arrays(self, function: Callable[[Any], Any], x: Any) -> Floats:
        x = np.asarray(x, dtype=np.float64)
        return on_arrays(function, x) if self.code == OWN else np.asarray(function(x), dtype=np.float64)
