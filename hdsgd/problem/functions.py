"""Functions as data: a polynomial plus a sum of links, the form in which kernels can read them.

A :class:`Function` of ``n`` variables is

    f(z) = Σ_t coef_t Π_r z_r^{e_tr} + Σ_s coef_s φ_s(scale_s z_{r_s}),      φ_s a registered activation,

which is all that targets and activations need, and can be handed to compiled kernels as plain arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hdsgd.problem.activations import ACTIVATIONS

__all__ = ["MAX_DEGREE", "Exponents", "Function", "Link", "Number", "hermite"]

Number = Fraction | float


Exponents = tuple[int, ...]


MAX_DEGREE = 32  # beyond this, double precision has no digits left in the moments of degree 4 x 32


@dataclass(frozen=True)
class Link:
    """One term ``coef * φ(scale * z_index)`` with φ the activation called `name`; `index` counts from 0."""

    name: str
    index: int
    scale: float
    coef: float

    def __call__(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.coef * ACTIVATIONS[self.name].values(self.scale * z)

    def derivative(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative with respect to ``z_index`` (relu has derivative 0 at 0)."""
        return self.coef * self.scale * ACTIVATIONS[self.name].slopes(self.scale * z)


@dataclass(frozen=True)
class Function:
    """Polynomial plus links in `arity` variables.

    Attributes
    ----------
    arity : int
        Number of variables.
    terms : mapping from exponents (one per variable) to coefficient
        Coefficients are exact (`fractions.Fraction`) as long as the text had no irrational number.
    links : tuple of Link
    """

    arity: int
    terms: Mapping[Exponents, Number] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    @property
    def is_polynomial(self) -> bool:
        return not self.links

    @property
    def degree(self) -> int:
        """Degree of the polynomial part (0 for a constant, also for the zero polynomial)."""
        return max((sum(e) for e in self.terms), default=0)

    @property
    def is_additive(self) -> bool:
        """Whether f is a sum of functions of one variable each."""
        return all(sum(n > 0 for n in e) <= 1 for e in self.terms)

    def variables(self) -> set[int]:
        """Indices (from 0) of the variables that the function depends on."""
        used = {r for e in self.terms for r, n in enumerate(e) if n}
        return used | {link.index for link in self.links}

    def __call__(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at points `z` of shape (arity, ...)."""
        z = np.asarray(z, dtype=np.float64)
        total = np.zeros(z.shape[1:])
        for exponents, coef in self.terms.items():
            term = np.full(z.shape[1:], float(coef))
            for r, n in enumerate(exponents):
                if n:
                    term = term * z[r] ** n
            total = total + term
        for link in self.links:
            total = total + link(z[link.index])
        return total

    def power_coefficients(self) -> NDArray[np.float64]:
        """Ascending power coefficients of the polynomial part of a function of one variable."""
        if self.arity != 1:
            raise ValueError("power coefficients exist for functions of one variable")
        coefs = np.zeros(self.degree + 1)
        for (n,), coef in self.terms.items():
            coefs[n] = float(coef)
        return coefs

    def derivative(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of a function of one variable at points `x` of any shape."""
        slope = np.polynomial.Polynomial(self.power_coefficients()).deriv()(x)
        for link in self.links:
            slope = slope + link.derivative(x)
        return np.asarray(slope)

    def __add__(self, other: Function) -> Function:
        terms = dict(self.terms)
        for e, c in other.terms.items():
            total = terms.get(e, Fraction(0)) + c
            if total == 0:
                terms.pop(e, None)
            else:
                terms[e] = total
        return Function(self.arity, terms, self.links + other.links)

    def scaled(self, factor: Number) -> Function:
        if factor == 0:
            return Function(self.arity)
        links = tuple(Link(s.name, s.index, s.scale, s.coef * float(factor)) for s in self.links)
        return Function(self.arity, {e: c * factor for e, c in self.terms.items()}, links)

    def times(self, other: Function) -> Function:
        """Product of two polynomials."""
        result = Function(self.arity)
        for e1, c1 in self.terms.items():
            shifted = {tuple(a + b for a, b in zip(e1, e2, strict=True)): c1 * c2 for e2, c2 in other.terms.items()}
            result = result + Function(self.arity, shifted)
        return result


@cache
def hermite(q: int) -> tuple[int, ...]:
    """Ascending power coefficients of the probabilists' Hermite polynomial He_q (leading coefficient 1)."""
    if q < 2:
        return ((1,), (0, 1))[q]
    previous, current = hermite(q - 2), hermite(q - 1)
    shifted = (0, *current)
    return tuple(s - (q - 1) * p for s, p in zip(shifted, (*previous, 0, 0), strict=True))
