"""Functions as data: polynomials and named links, read from text without ever evaluating it as code.

A :class:`Function` of ``n`` variables is a polynomial plus a sum of links,

    f(z) = Σ_t coef_t Π_r z_r^{e_tr} + Σ_s coef_s φ_s(scale_s z_{r_s}),      φ_s a registered activation,

which is all that targets and activations need, and can be handed to compiled kernels as plain arrays.
"""

from __future__ import annotations

import ast
import math
from fractions import Fraction
from typing import NoReturn

from hdsgd.errors import SpecificationError
from hdsgd.problem.activations import ACTIVATIONS
from hdsgd.problem.functions import MAX_DEGREE, Function, Link, Number, hermite

__all__ = ["parse"]


MAX_HERMITE = 16
MAX_LENGTH = 2000


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
            f"{', '.join(ACTIVATIONS)}"
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
        if name in self.polynomials or ACTIVATIONS.knows(name):
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
                    self.refuse_node(f"{', '.join(ACTIVATIONS)} may be added and scaled, not multiplied", node)
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
            self.refuse_node(f"powers of {', '.join(ACTIVATIONS)} are not accepted", node)
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
                self.refuse_node(f"{name} of {', '.join(ACTIVATIONS)} is not accepted", node)
            result = Function(len(self.names))
            for coef in reversed(self.polynomials[name]):  # Horner's rule
                result = self.checked_degree(result.times(inner), node) + self.constant(Fraction(coef))
            return result
        if name == "sqrt":
            value = self.as_constant(self.visit(argument))
            if value is None or value < 0:
                self.refuse_node("sqrt takes a non-negative number", argument)
            return self.constant(math.sqrt(value))
        if ACTIVATIONS.knows(name):
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
        ``he16``, ``sqrt`` (of numbers) and activations: ``relu``, ``erf``, ``tanh`` and those registered (of a multiple
        of one variable).  A bare function name means that function of the first variable: ``he3`` is ``he3(z1)``.
        Functions mean what mathematics calls so: the activation of Saad & Solla is ``erf(x/sqrt(2))``.
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
    alone = stripped.isidentifier() and stripped not in (*names, "pi")
    if alone and (stripped in _named_polynomials() or ACTIVATIONS.knows(stripped)):
        stripped = f"{stripped}({names[0]})"
    function = _Parser(stripped, names, what).parse()
    return ast.unparse(ast.parse(stripped, mode="eval")), function
