"""Tables of problems with relu, erf or tanh: every function as a sum of groups polynomial times 1, sign or δ."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.moments._table_types import DELTA, PLAIN, SIGN, ErfTables, LinkTables
from hdsgd.moments.polynomial import ridge_form
from hdsgd.problem.functions import Function, Number
from hdsgd.problem.model import Problem

__all__ = ["MAX_LINK_DEGREE", "TANH_ERRORS", "TANH_MIXTURES", "link_tables"]

#: Highest degree of polynomials that occur beside links.
MAX_LINK_DEGREE = 12
#: Most four-field expectations (after expanding mixtures) that one evaluation of the moments may take.
MAX_LINK_WORK = 4e6

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
    """Tables of a problem with links; sums of erfs get `LinkTables` too if `general`.

    Examples
    --------
    >>> link_tables(Problem("erf(z1/sqrt(2))", "erf")).inflations.round(3).ravel().tolist()
    [0.5, 1.0]
    """
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
