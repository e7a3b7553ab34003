"""Tables of polynomial problems: targets that mix variables as sums of ridge functions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.moments._table_types import Floats, PolynomialTables, QuadraticTables
from hdsgd.problem.functions import Exponents, Function, Number
from hdsgd.problem.model import Problem

__all__ = ["MAX_RIDGES", "polynomial_tables", "quadratic_tables", "ridge_form"]

#: Most ridge functions that a polynomial target which mixes variables may need.
MAX_RIDGES = 128


def ridge_form(function: Function) -> dict[tuple[Number, ...], dict[int, Number]]:
    """Write a polynomial as a sum of ridge functions: ``f(v) = Σ_s ridge_s(h_s · v)``.

    A power of one variable is a ridge function already.  A mixed monomial of exponents ``a`` and degree ``D`` is
    (R. Kan, J. Multivariate Anal. 99 (2008), "From moments of sum to moments of product", the identity behind its
    Proposition 1)

        Π_i v_i^{a_i} = (1/D!) Σ_{0 <= ν <= a} (-1)^{|ν|} Π_i binom(a_i, ν_i) (h·v)^D,   h_i = a_i/2 - ν_i.

    Parallel forms are merged, so a product of two variables takes two ridge functions and one of three takes four.

    Returns
    -------
    dict
        From linear form (first non-zero entry 1) to the ridge function's coefficients by power.  The constant of `f`
        is in the first ridge function.

    Raises
    ------
    SpecificationError
        If more than `MAX_RIDGES` ridge functions are needed.

    Examples
    --------
    >>> from hdsgd import Target
    >>> for form, ridge in ridge_form(Target("z1*z2").function).items():
    ...     print([str(h) for h in form], {n: str(c) for n, c in ridge.items()})
    ['1', '1'] {2: '1/4'}
    ['1', '-1'] {2: '-1/4'}
    """
    ridges: dict[tuple[Number, ...], dict[int, Number]] = {}
    constant: Number = Fraction(0)
    for exponents, coef in sorted(function.terms.items()):
        degree = sum(exponents)
        if degree == 0:
            constant = coef
            continue
        for form, weight in _powers_of_forms(exponents):
            ridge = ridges.setdefault(form, {})
            ridge[degree] = ridge.get(degree, Fraction(0)) + coef * weight
        if len(ridges) > MAX_RIDGES:
            raise _too_many(exponents)
    ridges = {form: ridge for form, ridge in ridges.items() if any(ridge.values())}
    if not ridges:
        ridges[(Fraction(1),) + (Fraction(0),) * (function.arity - 1)] = {}
    if constant:
        next(iter(ridges.values()))[0] = constant
    return ridges


def _too_many(exponents: Exponents) -> SpecificationError:
    name = "*".join(f"z{r + 1}**{n}" if n > 1 else f"z{r + 1}" for r, n in enumerate(exponents) if n)
    return SpecificationError(
        f"target: the term {name} mixes too many variables for its exact population moments "
        f"(more than {MAX_RIDGES} ridge functions)"
    )


def _powers_of_forms(exponents: Exponents) -> list[tuple[tuple[Number, ...], Fraction]]:
    """(form, weight) such that the monomial is ``Σ weight (form·v)^degree``."""
    degree = sum(exponents)
    if degree in exponents:
        return [(tuple(Fraction(int(n > 0)) for n in exponents), Fraction(1))]
    if math.prod(n + 1 for n in exponents) > 2 * MAX_RIDGES + 1:
        raise _too_many(exponents)
    weights: dict[tuple[Number, ...], Fraction] = {}
    for nu in product(*(range(n + 1) for n in exponents)):
        form = [Fraction(n, 2) - v for n, v in zip(exponents, nu, strict=True)]
        scale = next((h for h in form if h), None)
        if scale is None:
            continue
        weight = Fraction((-1) ** sum(nu) * math.prod(map(math.comb, exponents, nu)), math.factorial(degree))
        unit = tuple(h / scale for h in form)
        weights[unit] = weights.get(unit, Fraction(0)) + weight * scale**degree
    return [(form, weight) for form, weight in weights.items() if weight]


def _check_cancellation(function: Function, directions: Floats, ridges: Floats) -> None:
    """Refuse a ridge form whose parts are so much larger than their sum that rounding spoils the moments."""

    def mean_square(coefs: Floats, variance: float) -> float:
        square = np.convolve(coefs, coefs)[::2]
        return float(sum(c * variance**n * math.prod(range(1, 2 * n, 2)) for n, c in enumerate(square)))

    parts = sum(
        math.sqrt(max(mean_square(ridge, float(h @ h)), 0.0)) for ridge, h in zip(ridges, directions, strict=True)
    )
    whole = 0.0
    for e1, c1 in function.terms.items():
        for e2, c2 in function.terms.items():
            total = tuple(a + b for a, b in zip(e1, e2, strict=True))
            if all(n % 2 == 0 for n in total):
                whole += float(c1) * float(c2) * math.prod(math.prod(range(1, n, 2)) for n in total)
    if parts**2 * 2e-16 > 1e-7 * whole:
        raise SpecificationError(
            "target: a term of high degree mixes variables; its population moments cannot be computed to seven digits"
        )


def polynomial_tables(problem: Problem) -> PolynomialTables:
    """Tables of a problem whose activation and target are polynomials.

    Examples
    --------
    >>> polynomial_tables(Problem("z1 + z1**3", "x")).functions.tolist()
    [[0.0, 1.0, 0.0, 0.0], [0.0, -1.0, 0.0, -1.0]]
    """
    sigma, h = problem.student.function, problem.target.function
    p, k = problem.p, problem.k
    activation, output = sigma.power_coefficients(), problem.student.a / p
    forms = ridge_form(h)
    if h.is_additive and len(forms) == k:  # keep the order of the directions
        forms = dict(sorted(forms.items(), key=lambda item: [float(v) for v in item[0]], reverse=True))
    functions = np.zeros((p + len(forms), 1 + max(sigma.degree, *(max(ridge, default=0) for ridge in forms.values()))))
    functions[:p, : len(activation)] = output[:, None] * activation
    for row, ridge in zip(functions[p:], forms.values(), strict=True):
        for n, coef in ridge.items():
            row[n] = -float(coef)
    lift = np.zeros((len(functions), p + k))
    lift[:p, :p] = np.eye(p)
    lift[p:, p:] = [[float(v) for v in form] for form in forms]
    if not h.is_additive:
        _check_cancellation(h, lift[p:, p:], functions[p:])
    return PolynomialTables(
        output=output,
        activation=activation,
        functions=functions,
        lift=lift,
        plain=np.array_equal(lift, np.eye(p + k)),
        noise=problem.noise,
    )


def is_quadratic(problem: Problem) -> bool:
    """Whether ``σ = αx² + c`` and ``h*`` is a quadratic form plus a constant.

    Examples
    --------
    >>> is_quadratic(Problem("z1*z2 + 1", "he2")), is_quadratic(Problem("z1*z2 + z1", "he2"))
    (True, False)
    """
    activation, h = problem.student.function.power_coefficients(), problem.target.function
    return len(activation) == 3 and activation[1] == 0.0 and all(sum(e) in (0, 2) for e in h.terms)


def quadratic_tables(problem: Problem) -> QuadraticTables:
    """Tables of a problem for which `is_quadratic` holds.

    Examples
    --------
    >>> quadratic_tables(Problem("z1*z2 - 1", "he2")).form.tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    form, constant = np.zeros((problem.k, problem.k)), 0.0
    for exponents, coef in problem.target.function.terms.items():
        used = [r for r, n in enumerate(exponents) for _ in range(n)]
        if used:
            form[used[0], used[1]] += 0.5 * float(coef)
            form[used[1], used[0]] += 0.5 * float(coef)
        else:
            constant = float(coef)
    return QuadraticTables(
        output=problem.student.a / problem.p,
        activation=problem.student.function.power_coefficients(),
        form=form,
        form_constant=constant,
        noise=problem.noise,
    )
