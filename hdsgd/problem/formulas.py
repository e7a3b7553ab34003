"""A problem in formulas, for people: as text and as HTML."""

from __future__ import annotations

import ast
import html
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hdsgd.problem.activations import ACTIVATIONS
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.losses import LOSSES
from hdsgd.problem.protocols import PROTOCOLS

if TYPE_CHECKING:
    from hdsgd.problem.model import Problem

__all__ = ["as_html", "as_text", "formula"]

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPTS = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")

Mark = Callable[[str], str]


def _subscript(text: str) -> str:
    return text.translate(_SUBSCRIPTS)


def _superscript(text: str) -> str:
    return text.translate(_SUPERSCRIPTS)


#: How tightly each operator binds; a part that binds less is put in brackets.
_BINDING = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.Div: 2, ast.USub: 2, ast.UAdd: 2, ast.Pow: 4}


class _Writer:
    """Writes the syntax tree of an accepted expression (`hdsgd.problem.parser`) as a formula."""

    def __init__(self, below: Mark, above: Mark) -> None:
        self.below, self.above = below, above

    def write(self, node: ast.expr, least: int = 0) -> str:
        """The formula of a node, in brackets if it binds less than `least`."""
        binding = _BINDING.get(type(getattr(node, "op", None)), 5)  # type: ignore[arg-type]
        text = self._plain(node)
        return f"({text})" if binding < least else text

    def _plain(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=value):
                return str(value)
            case ast.Name(id="pi"):
                return "π"
            case ast.Name(id=name):
                return name[0] + self.below(name[1:]) if name[1:] else name
            case ast.UnaryOp(op=op, operand=operand):
                return ("-" if isinstance(op, ast.USub) else "") + self.write(operand, 3)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return f"{self.write(left, 1)} + {self.write(right, 1)}"
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return f"{self.write(left, 1)} - {self.write(right, 2)}"
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                factor = self.write(right, 3 if isinstance(right, ast.UnaryOp) else 2)
                return f"{self.write(left, 2)}{' · ' if factor[0].isdigit() else ' '}{factor}"
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return f"{self.write(left, 2)}/{self.write(right, 3)}"
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                power = self.write(right)
                simple = isinstance(right, ast.Constant)
                return self.write(left, 5) + (self.above(power) if simple else f"^({power})")
            case ast.Call(func=ast.Name(id="sqrt"), args=[argument]):
                return f"√{self.write(argument, 5)}"
            case ast.Call(func=ast.Name(id="square"), args=[argument]):
                return self.write(argument, 5) + self.above("2")
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                known = name.startswith("he") and name not in ACTIVATIONS
                return f"{'He' + self.below(name[2:]) if known else name}({self.write(argument)})"
        return ast.unparse(node)


def formula(expression: str, below: Mark = _subscript, above: Mark = _superscript) -> str:
    """An accepted expression as a formula.

    Parameters
    ----------
    expression : str
    below, above : callable
        How an index and a power are marked; Unicode characters by default.

    Examples
    --------
    >>> formula("he2(z1) - 0.5*z1*z2**2 + erf(z1/sqrt(2))")
    'He₂(z₁) - 0.5 z₁ z₂² + erf(z₁/√2)'
    """
    return _Writer(below, above).write(ast.parse(expression, mode="eval").body)


def _rows(problem: Problem, below: Mark, above: Mark) -> Iterator[tuple[str, str]]:
    """Name and formula of each part."""
    target, student, k, p = problem.target, problem.student, problem.k, problem.p
    variables = ", ".join(f"z{below(str(r + 1))}" for r in range(k))
    yield "target", f"h*({variables}) = {formula(target.expression, below, above)}"
    if target.gram is not None:
        rows = ", ".join(f"[{', '.join(f'{v:g}' for v in row)}]" for row in target.gram)
        yield "directions", f"W* W*ᵀ = [{rows}]"
    layer = "" if student.second_layer is None else "a" if p == 1 else "aⱼ "
    units = f"{layer} σ(⟨w, z⟩)".strip() if p == 1 else f"(1/{p}) Σⱼ {layer}σ(⟨wⱼ, z⟩), j = 1...{p}"
    yield "student", f"f(z) = {units}, σ(x) = {formula(student.activation, below, above)}"
    if student.second_layer is not None:
        yield "second layer", f"a = ({', '.join(f'{a:g}' for a in student.second_layer)})"
    yield "labels", "y = h*" + (f" + √{problem.noise:g} ξ, ξ ~ N(0, 1)" if problem.noise else "")
    yield "loss", f"{problem.loss}: {LOSSES[problem.loss].summary}"
    if len(problem.phases) == 2:
        yield (
            "switch",
            (
                f"at {problem.switch_fraction:g} of the initial risk, learning rate × {problem.switch_factor:g}"
                + (f" (1 + s){above(f'-{problem.switch_decay:g}')} after s more steps" if problem.switch_decay else "")
            ),
        )
    yield "constraint", f"{problem.constraint}: {CONSTRAINTS[problem.constraint].summary}"
    if problem.protocol != "one-pass":
        yield "protocol", f"{problem.protocol}: {PROTOCOLS[problem.protocol].summary}"


def as_text(problem: Problem) -> str:
    """A problem in formulas, a line each part."""
    return "\n".join(f"{name:<12} {text}" for name, text in _rows(problem, _subscript, _superscript))


def as_html(problem: Problem) -> str:
    """A problem in formulas, as a table that notebooks show."""

    # Marks are made of characters that are not escaped, and become tags afterwards.
    def below(text: str) -> str:
        return f"\x00{text}\x01" if text else ""

    def above(text: str) -> str:
        return f"\x02{text}\x03"

    rows = []
    for name, text in _rows(problem, below, above):
        cell = html.escape(text)
        for mark, tag in (("\x00", "<sub>"), ("\x01", "</sub>"), ("\x02", "<sup>"), ("\x03", "</sup>")):
            cell = cell.replace(mark, tag)
        rows.append(f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{cell}</td></tr>')
    return f"<table>{''.join(rows)}</table>"
