"""A problem as the arrays that the kernels of the population moments read."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.problem.functions import Exponents, Function, Number
from hdsgd.problem.model import Problem

__all__ = [
    "DELTA",
    "MAX_LINK_DEGREE",
    "MAX_RIDGES",
    "PLAIN",
    "SIGN",
    "TANH_ERRORS",
    "TANH_MIXTURES",
    "ErfTables",
    "LinkTables",
    "PolynomialTables",
    "QuadraticTables",
    "moment_tables",
    "ridge_form",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Most ridge functions that a polynomial target which mixes variables may need.
MAX_RIDGES = 128
#: Highest degree of polynomials that occur beside links.
MAX_LINK_DEGREE = 12
#: Most four-field expectations (after expanding mixtures) that one evaluation of the moments may take.
MAX_LINK_WORK = 4e6

# Factors K(y) of a group: 1, sgn(y), δ(y).
PLAIN, SIGN, DELTA = range(3)

#: ``tanh(x) ≈ Σ_s c_s erf(b_s x)``, by number of terms: rows c and b.  The logistic law is a scale mixture of normals
#: (Andrews & Mallows 1974); the terms were fitted to minimise the largest error of the function and its derivative,
#: as in Monahan & Stefanski (1992) for the logistic distribution.
TANH_MIXTURES = {
    4: (
        (0.09152845698023664, 0.420042602925698, 0.41044898517259687, 0.07797995492146835),
        (0.4786495716436673, 0.7117557138939613, 1.0388735677179515, 1.500629134033598),
    ),
    6: (
        (
            *(0.014403873986825085, 0.13943582353938128, 0.3432740436198304),
            *(0.3500934085491412, 0.13990475579961442, 0.01288809450520745),
        ),
        (
            *(0.39612193012719316, 0.5426668667104289, 0.734815402586581),
            *(0.98752640518995, 1.3164675504162968, 1.7616099341075224),
        ),
    ),
    8: (
        (
            *(0.0026449513603279376, 0.040606627352137596, 0.1603043830676081, 0.2929278861723599),
            *(0.29935970790408906, 0.1639703835051427, 0.03809187035102444, 0.002094190287310023),
        ),
        (
            *(0.3500844325879802, 0.456689496657342, 0.5878599905424848, 0.7538472486970126),
            *(0.9624566379845448, 1.2223381414734638, 1.5488539635577776, 1.9817595355702937),
        ),
    ),
}
#: Largest error of each mixture, of tanh and of its derivative.
TANH_ERRORS = {4: 3.5e-5, 6: 7.3e-7, 8: 2.0e-8}


class QuadraticTables(NamedTuple):
    """``σ = αx² + c`` and ``h* = vᵀ form v + form_constant`` as the moment kernels see them."""

    output: Floats  # (p,) a_j / p
    activation: Floats  # (3,) ascending power coefficients of σ: c, 0, α
    form: Floats  # (k, k), symmetric
    form_constant: float
    noise: float  # variance Δ of the label noise


class PolynomialTables(NamedTuple):
    """A polynomial problem as the moment kernels see it; ``h*(v) = Σ_s ridge_s(directions_s · v)``."""

    output: Floats  # (p,) a_j / p
    activation: Floats  # (n,) ascending power coefficients of σ
    functions: Floats  # (m, q), m = p + K: ascending power coefficients of (a_j/p) σ and of -ridge_s
    lift: Floats  # (m, p+k): the fields they act on are lift · x, that is λ_j and directions_s · λ*
    plain: bool  # lift is the identity
    noise: float  # variance Δ of the label noise


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


class LinkTables(NamedTuple):
    """A problem with links as the moment kernels see it.

    Functions of one field are sums of groups ``poly(x) K(y)``, ``y = x + ζ``, ``ζ ~ N(0, inflation)``.  The bank of
    functions holds 1, σ, xσ', σ', xσ'', σ'', xσ', x²σ', then for each ridge function u (minus the target's) u, xu', u'.
    """

    output: Floats  # (p,) a_j / p
    lift: Floats  # (m, p+k), m = p + K: the fields are lift · x, that is λ_j and directions_s · λ*
    plain: bool  # lift is the identity
    noise: float  # variance Δ of the label noise
    starts: Integers  # (functions+1,) range of groups of each function of the bank
    kinds: Integers  # (groups,) PLAIN, SIGN or DELTA
    inflations: Floats  # (groups,)
    coefs: Floats  # (groups, n) ascending power coefficients
    orders: Integers  # (groups,) number of coefficients
    parities: Integers  # (groups,) 0 even, 1 odd, 8 neither
    nodes: Floats  # (q,) quadrature on [0, 1]
    weights: Floats  # (q,)
    approximate: bool  # relu or tanh occurs


class ErfTables(NamedTuple):
    """A problem whose functions are all sums of erfs (tanh included) and constants."""

    output: Floats  # (p,) a_j / p
    lift: Floats  # (m, p+k) as in `LinkTables`
    plain: bool
    noise: float
    approximate: bool  # tanh occurs
    counts: Integers  # (m,) number of erfs of each field's function u_i
    coefs: Floats  # (m, n)
    inflations: Floats  # (m, n) 1/(2b²) of erf(b x)
    constants: Floats  # (2,) the constant of -h*, and of f - h*


# A function of one field while its groups are worked out: from (kind, inflation) to coefficients by power.
_Groups = dict[tuple[int, float], dict[int, float]]


def _add(groups: _Groups, kind: int, inflation: float, power: int, coef: float) -> None:
    if coef != 0.0 and power >= 0 and not (kind == DELTA and inflation == 0.0 and power > 0):  # x δ(x) = 0
        row = groups.setdefault((kind, inflation), {})
        row[power] = row.get(power, 0.0) + coef


def _derivative(groups: _Groups) -> _Groups:
    result: _Groups = {}
    for (kind, v), row in groups.items():
        for n, c in row.items():
            _add(result, kind, v, n - 1, n * c)
            if kind == SIGN:
                _add(result, DELTA, v, n, 2 * c)
            elif kind == DELTA:  # E_ζ δ'(x + ζ) = -(x/v) E_ζ δ(x + ζ)
                _add(result, DELTA, v, n + 1, -c / v)
    return result


def _times_power(groups: _Groups, power: int) -> _Groups:
    result: _Groups = {}
    for (kind, v), row in groups.items():
        for n, c in row.items():
            _add(result, kind, v, n + power, c)
    return result


def _groups_of(polynomial: dict[int, float], links: list[tuple[str, float, float]], terms: int) -> _Groups:
    """Groups of a polynomial plus links (name, scale, coefficient); tanh as a mixture of `terms` erfs."""
    groups: _Groups = {}
    for n, c in polynomial.items():
        _add(groups, PLAIN, 0.0, n, c)
    for name, scale, coef in links:
        if scale == 0.0:
            continue
        if name == "relu":
            _add(groups, PLAIN, 0.0, 1, 0.5 * scale * coef)
            _add(groups, SIGN, 0.0, 1, 0.5 * abs(scale) * coef)
            continue
        for c, b in zip(*TANH_MIXTURES[terms], strict=True) if name == "tanh" else [(1.0, 1.0)]:
            _add(groups, SIGN, 0.5 / (b * scale) ** 2, 0, math.copysign(c, scale) * coef)
    return groups


def link_tables(problem: Problem, *, coarse: bool = False, general: bool = False) -> LinkTables | ErfTables:
    """Tables of a problem with links; sums of erfs get `LinkTables` too if `general`."""
    sigma, h = problem.student.function, problem.target.function
    p, k = problem.p, problem.k
    functions: dict[tuple[Number, ...], tuple[dict[int, float], list[tuple[str, float, float]]]] = {}
    for form, ridge in ridge_form(Function(k, h.terms)).items():
        functions[form] = ({n: -float(c) for n, c in ridge.items()}, [])
    for link in h.links:
        unit = tuple(Fraction(int(r == link.index)) for r in range(k))
        functions.setdefault(unit, ({}, []))[1].append((link.name, link.scale, -link.coef))
    functions = {form: f for form, f in functions.items() if f[0] or f[1]}
    functions = dict(sorted(functions.items(), key=lambda item: [float(v) for v in item[0]], reverse=True))
    degree = max(sigma.degree, *(max(f[0], default=0) for f in functions.values()))
    if degree > MAX_LINK_DEGREE:
        raise SpecificationError(
            f"population moments of problems with relu, erf or tanh support polynomials of degree at most "
            f"{MAX_LINK_DEGREE} beside them, not {degree}"
        )
    student = ({n: float(c) for (n,), c in sigma.terms.items()}, [(s.name, s.scale, s.coef) for s in sigma.links])
    members = [student, *functions.values()]
    erf_only = all(not any(f[0].get(n) for n in f[0] if n) and all(s[0] != "relu" for s in f[1]) for f in members)
    erf_only = erf_only and not general
    terms = 8 if erf_only or general else 6
    if coarse:
        terms -= 2
    s, *others = (_groups_of(*f, terms) for f in members)
    m = p + len(others)
    lift = np.zeros((m, p + k))
    lift[:p, :p] = np.eye(p)
    lift[p:, p:] = [[float(v) for v in form] for form in functions]
    common: dict[str, Any] = {
        "output": problem.student.a / p,
        "lift": lift,
        "plain": np.array_equal(lift, np.eye(p + k)),
        "noise": problem.noise,
        "approximate": any(name != "erf" for f in members for name, *_ in f[1]),
    }
    if erf_only:
        return _erf_tables(s, others, common)
    slope = _derivative(s)
    euler = _times_power(slope, 1)
    bank: list[_Groups] = [{(PLAIN, 0.0): {0: 1.0}}, s, euler, slope, _times_power(_derivative(slope), 1)]
    bank += [_derivative(slope), euler, _times_power(slope, 2)]
    for u in others:
        bank += [u, _times_power(_derivative(u), 1), _derivative(u)]
    work = (p * len(slope)) ** 2 * (p * len(s) + sum(map(len, others))) ** 2
    if work > MAX_LINK_WORK:
        raise SpecificationError(
            "population moments of this problem with relu, erf or tanh take too long "
            f"(about {work:.0e} expectations an evaluation, at most {MAX_LINK_WORK:.0e}); use fewer units or directions"
        )
    groups = [(*key, row) for function in bank for key, row in function.items()]
    orders = np.array([max(row) + 1 for *_, row in groups], dtype=np.int64)
    coefs = np.zeros((len(groups), int(orders.max())))
    parities = np.zeros(len(groups), dtype=np.int64)
    for g, (_, _, row) in enumerate(groups):
        for n, c in row.items():
            coefs[g, n] = c
        parities[g] = 8 if len({n % 2 for n in row}) == 2 else max(row) % 2
    x, w = np.polynomial.legendre.leggauss(20 if coarse else 40)
    rest = 0.5 * (1 - x)  # nodes crowd at 1, where the integrand may have a root singularity
    return LinkTables(
        **common,
        starts=np.cumsum([0, *map(len, bank)]),
        kinds=np.array([kind for kind, *_ in groups], dtype=np.int64),
        inflations=np.array([v for _, v, _ in groups]),
        coefs=coefs,
        orders=orders,
        parities=parities,
        nodes=1 - rest**5,
        weights=2.5 * rest**4 * w,
    )


def _erf_tables(student: _Groups, others: list[_Groups], common: dict[str, Any]) -> ErfTables:
    """Tables from the groups of σ and of minus the target's functions, which are signs and constants."""
    output = common["output"]
    erfs = [[(v, row[0]) for (kind, v), row in f.items() if kind == SIGN] for f in (student, *others)]
    rows = [(erfs[0], float(a)) for a in output] + [(e, 1.0) for e in erfs[1:]]
    width = max(len(e) for e, _ in rows)
    coefs, inflations = np.zeros((len(rows), width)), np.ones((len(rows), width))
    for i, (e, a) in enumerate(rows):
        for n, (v, c) in enumerate(e):
            coefs[i, n], inflations[i, n] = a * c, v
    constants = [f.get((PLAIN, 0.0), {}).get(0, 0.0) for f in (student, *others)]
    target = sum(constants[1:])
    return ErfTables(
        **common,
        counts=np.array([len(e) for e, _ in rows], dtype=np.int64),
        coefs=coefs,
        inflations=inflations,
        constants=np.array([target, target + constants[0] * float(output.sum())]),
    )


@lru_cache(maxsize=256)
def moment_tables(problem: Problem, *, coarse: bool = False, general: bool = False) -> Any:
    """Arrays of a `Problem` for `hdsgd.moments._polynomial_kernels.moments` and `risk`.

    Parameters
    ----------
    problem : Problem
    coarse : bool
        Use half the quadrature nodes and two erfs fewer for tanh: the difference is an estimate of the error.
    general : bool
        Use the general formulas also where the problem is quadratic or a sum of erfs.

    Returns
    -------
    QuadraticTables, PolynomialTables, ErfTables or LinkTables

    Raises
    ------
    SpecificationError
        If the population moments of this problem are not supported (see `hdsgd.moments.population.population_moments`).
    """
    sigma, h = problem.student.function, problem.target.function
    p, k = problem.p, problem.k
    if sigma.links or h.links:
        return link_tables(problem, coarse=coarse, general=general)
    activation, output = sigma.power_coefficients(), problem.student.a / p
    if not general and len(activation) == 3 and activation[1] == 0.0 and all(sum(e) in (0, 2) for e in h.terms):
        return _quadratic_tables(problem)
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


def _quadratic_tables(problem: Problem) -> QuadraticTables:
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
