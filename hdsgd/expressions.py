"""Functions as data: polynomials and named links, read from text without ever evaluating it as code.

A :class:`Function` of ``n`` variables is a polynomial plus a sum of links,

    f(z) = Σ_t coef_t Π_r z_r^{e_tr} + Σ_s coef_s φ_s(scale_s z_{r_s}),      φ in {relu, erf, tanh},

which is all that targets and activations need, and can be handed to compiled kernels as plain arrays.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError

__all__ = ["LINKS", "MAX_DEGREE", "Function", "Link", "hermite", "parse"]

Number = Fraction | float
Exponents = tuple[int, ...]

MAX_DEGREE = 32  # beyond this, double precision has no digits left in the moments of degree 4 x 32
MAX_HERMITE = 16
MAX_LENGTH = 2000
LINKS = ("relu", "erf", "tanh")


@dataclass(frozen=True)
class Link:
    """One term ``coef * φ(scale * z_index)`` with φ one of `LINKS`; `index` counts from 0."""

    name: str
    index: int
    scale: float
    coef: float

    def __call__(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.special import erf  # a slow import that polynomials do without

        x = self.scale * z
        value = np.maximum(x, 0.0) if self.name == "relu" else erf(x) if self.name == "erf" else np.tanh(x)
        return self.coef * value

    def derivative(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative with respect to ``z_index`` (relu has derivative 0 at 0)."""
        x = self.scale * z
        if self.name == "relu":
            slope = (x > 0).astype(np.float64)
        elif self.name == "erf":
            slope = 2 / math.sqrt(math.pi) * np.exp(-(x**2))
        else:
            slope = 1 / np.cosh(np.clip(x, -350, 350)) ** 2
        return self.coef * self.scale * slope


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


def _named_polynomials() -> dict[str, tuple[int, ...]]:
    return {"square": (0, 0, 1), **{f"he{q}": hermite(q) for q in range(MAX_HERMITE + 1)}}


class _Parser:
    """Walks Python's syntax tree of the text; every node type that is not listed here is refused where it stands."""

    def __init__(self, text: str, names: tuple[str, ...], what: str) -> None:
        self.text, self.names, self.what = text, names, what
        self.polynomials = _named_polynomials()

    def refuse(self, reason: str, column: int, width: int = 1) -> NoReturn:
        line = self.text.replace("\n", " ")
        piece = line[column : column + max(1, width)]
        where = f"{piece!r} at column {column + 1}" if piece.strip() else "at the end"
        raise SpecificationError(f"{self.what} {line!r}: {where}: {reason}")

    def refuse_node(self, reason: str, node: ast.expr) -> NoReturn:
        # The syntax tree counts columns in UTF-8 bytes; the pointer counts characters.
        start = len(self.text.encode()[: node.col_offset].decode(errors="ignore"))
        end = len(self.text.encode()[: node.end_col_offset or node.col_offset + 1].decode(errors="ignore"))
        self.refuse(reason, start, end - start)

    def parse(self) -> Function:
        if len(self.text) > MAX_LENGTH:
            raise SpecificationError(f"{self.what} is {len(self.text)} characters long; at most {MAX_LENGTH} are read")
        if not self.text.strip():
            raise SpecificationError(f"{self.what} is empty; {self.allowed()}")
        try:
            tree = ast.parse(self.text.replace("^", "**") if "^" in self.text else self.text, mode="eval").body
            if "^" in self.text:
                self.refuse("write powers as **", self.text.index("^"))
            function = self.visit(tree)
        except SyntaxError as error:
            self.refuse(f"not an expression ({error.msg})", max((error.offset or 1) - 1, 0))
        except (RecursionError, MemoryError, ValueError) as error:
            if isinstance(error, SpecificationError):
                raise
            raise SpecificationError(f"{self.what} is nested too deeply to be read") from None
        if not all(math.isfinite(float(c)) for c in function.terms.values()):
            self.refuse("a coefficient is not a finite number", 0, len(self.text))
        return function

    def allowed(self) -> str:
        variables = self.names[0] if len(self.names) == 1 else f"{self.names[0]}...{self.names[-1]}"
        return (
            f"allowed are numbers, pi, {variables}, + - * / **, sqrt of a number, square, he0...he{MAX_HERMITE}, "
            f"{', '.join(LINKS)}"
        )

    def constant(self, value: Number) -> Function:
        zero = (0,) * len(self.names)
        return Function(len(self.names), {zero: value} if value != 0 else {})

    def as_constant(self, f: Function) -> Number | None:
        if f.links or any(any(e) for e in f.terms):
            return None
        value: Number = next(iter(f.terms.values()), Fraction(0))
        return value

    def visit(self, node: ast.expr) -> Function:
        match node:
            case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
                if not math.isfinite(value):
                    self.refuse_node("not a finite number", node)
                segment = ast.get_source_segment(self.text, node) or repr(value)
                try:
                    return self.constant(Fraction(segment.replace("_", "")))
                except ValueError:  # hexadecimal and other spellings of integers
                    return self.constant(Fraction(value))
            case ast.Name(id=name):
                return self.visit_name(name, node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                return self.visit(operand).scaled(Fraction(-1 if isinstance(op, ast.USub) else 1))
            case ast.BinOp(left=left, op=op, right=right):
                return self.visit_binary(op, left, right, node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                return self.visit_call(name, argument, node)
            case ast.Call(func=ast.Name(id=name)):
                self.refuse_node(f"{name} takes one argument", node)
        self.refuse_node(f"not accepted here; {self.allowed()}", node)

    def visit_name(self, name: str, node: ast.expr) -> Function:
        if name in self.names:
            exponents = tuple(int(name == other) for other in self.names)
            return Function(len(self.names), {exponents: Fraction(1)})
        if name == "pi":
            return self.constant(math.pi)
        if name in self.polynomials or name in LINKS:
            self.refuse_node(f"{name} needs an argument, as in {name}({self.names[0]})", node)
        self.refuse_node(f"unknown name; {self.allowed()}", node)

    def visit_binary(self, op: ast.operator, left: ast.expr, right: ast.expr, node: ast.expr) -> Function:
        a, b = self.visit(left), self.visit(right)
        match op:
            case ast.Add():
                return a + b
            case ast.Sub():
                return a + b.scaled(Fraction(-1))
            case ast.Mult():
                for f, g in ((a, b), (b, a)):
                    if (factor := self.as_constant(f)) is not None:
                        return g.scaled(factor)
                if a.links or b.links:
                    self.refuse_node(f"{', '.join(LINKS)} may be added and scaled, not multiplied", node)
                return self.checked_degree(a.times(b), node)
            case ast.Div():
                divisor = self.as_constant(b)
                if divisor is None:
                    self.refuse_node("only division by a number is accepted", right)
                if divisor == 0:
                    self.refuse_node("division by zero", right)
                return a.scaled(1 / divisor)
            case ast.Pow():
                return self.visit_power(a, b, right, node)
        self.refuse_node(f"operator not accepted; {self.allowed()}", node)

    def visit_power(self, base: Function, exponent: Function, right: ast.expr, node: ast.expr) -> Function:
        n: Number | None = self.as_constant(exponent)
        value: Number | None = self.as_constant(base)
        if n is None:
            self.refuse_node("an exponent is a number", right)
        if value is not None and not (n == int(n) and -MAX_DEGREE <= n <= MAX_DEGREE):
            try:
                power = float(value) ** float(n)
            except (OverflowError, ZeroDivisionError):
                power = math.nan
            if isinstance(power, complex) or not math.isfinite(power):
                self.refuse_node("not a finite real number", node)
            return self.constant(power)
        if value is not None and n < 0:
            if value == 0:
                self.refuse_node("division by zero", node)
            return self.constant(value ** int(n))
        if n != int(n) or n < 0 or n > MAX_DEGREE:
            self.refuse_node(f"powers of a variable are whole numbers from 0 to {MAX_DEGREE}", right)
        if base.links and n not in (0, 1):
            self.refuse_node(f"powers of {', '.join(LINKS)} are not accepted", node)
        if n == 1:
            return base
        result = self.constant(Fraction(1))
        for _ in range(int(n)):
            result = self.checked_degree(result.times(base), node)
        return result

    def visit_call(self, name: str, argument: ast.expr, node: ast.expr) -> Function:
        if name in self.polynomials:
            inner = self.visit(argument)
            if inner.links:
                self.refuse_node(f"{name} of {', '.join(LINKS)} is not accepted", node)
            result = Function(len(self.names))
            for coef in reversed(self.polynomials[name]):  # Horner's rule
                result = self.checked_degree(result.times(inner), node) + self.constant(Fraction(coef))
            return result
        if name == "sqrt":
            value = self.as_constant(self.visit(argument))
            if value is None or value < 0:
                self.refuse_node("sqrt takes a non-negative number", argument)
            return self.constant(math.sqrt(value))
        if name in LINKS:
            inner = self.visit(argument)
            if len(inner.terms) == 1 and not inner.links:
                ((exponents, scale),) = inner.terms.items()
                if sum(exponents) == 1:
                    return Function(len(self.names), {}, (Link(name, exponents.index(1), float(scale), 1.0),))
            self.refuse_node(f"the argument of {name} is a multiple of one variable, as in {name}(2*z)", argument)
        self.refuse_node(f"unknown function; {self.allowed()}", node)

    def checked_degree(self, f: Function, node: ast.expr) -> Function:
        if f.degree > MAX_DEGREE:
            self.refuse_node(f"degree {f.degree} is more than {MAX_DEGREE}", node)
        return f


def parse(text: str, names: tuple[str, ...], what: str = "expression") -> tuple[str, Function]:
    """Read an expression in the variables `names`.

    Parameters
    ----------
    text : str
        Arithmetic (``+ - * / **``) on numbers, ``pi``, the variables and the named functions ``square``, ``he0`` ...
        ``he16``, ``sqrt`` (of numbers), ``relu``, ``erf``, ``tanh`` (of a multiple of one variable).  A bare function
        name means that function of the first variable: ``he3`` is ``he3(z1)``.  Functions mean what mathematics calls
        so: the activation of Saad & Solla is ``erf(x/sqrt(2))``.
    names : tuple of str
        Variable names; their number is the arity of the result.
    what : str
        What the text is, for error messages.

    Returns
    -------
    canonical : str
        The text in canonical spelling (spacing, parentheses), the form that is stored.
    function : Function

    Raises
    ------
    SpecificationError
        Pointing at what is not accepted.
    """
    if not isinstance(text, str):
        raise SpecificationError(f"{what} must be text such as 'he2', not {type(text).__name__}")
    stripped = text.strip()
    if stripped in _named_polynomials() or stripped in LINKS:
        stripped = f"{stripped}({names[0]})"
    function = _Parser(stripped, names, what).parse()
    return ast.unparse(ast.parse(stripped, mode="eval")), function
