"""The expression parser: what it reads, what it refuses, and where it points."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from hdsgd.errors import SpecificationError
from hdsgd.problem.functions import hermite
from hdsgd.problem.parser import parse

NAMES = ("z1", "z2", "z3")


def value(text, *z):
    return float(parse(text, NAMES)[1](np.array(z + (0.0,) * (3 - len(z)))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("he3", 0.7**3 - 3 * 0.7),
        ("square", 0.49),
        ("relu", 0.7),
        ("z1 + z1*z2", 0.7 - 0.7 * 0.4),
        ("0.5*he2(z1) + he2(z2)", 0.5 * (0.49 - 1) + 0.16 - 1),
        ("(z1 - z2)**3/4", 1.1**3 / 4),
        ("he2(2*z1 - 1)", 0.4**2 - 1),
        ("-z1", -0.7),
        ("z2**0", 1.0),
        ("2**-2*z1", 0.175),
        ("relu(z1) - 1/sqrt(2*pi)", 0.7 - 1 / math.sqrt(2 * math.pi)),
        ("relu(-2*z2)", 0.8),
        ("erf(z1/sqrt(2)) + tanh(2*z2)", erf(0.7 / math.sqrt(2)) + math.tanh(-0.8)),
        ("1e-1*z1", 0.07),
    ],
)
def test_values(text, expected):
    assert value(text, 0.7, -0.4) == pytest.approx(expected, rel=1e-15)


def test_rational_coefficients_are_exact():
    _, f = parse("0.1*z1**2 + z1**2/3", NAMES)
    assert f.terms == {(2, 0, 0): Fraction(1, 10) + Fraction(1, 3)}
    assert parse("he4(z1) - z1**4 + 6*z1**2", NAMES)[1].terms == {(0, 0, 0): Fraction(3)}


@pytest.mark.parametrize("q", range(9))
def test_hermite(q):
    expected = np.polynomial.hermite_e.herme2poly([0] * q + [1])
    np.testing.assert_array_equal(hermite(q), expected)


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("z1^2", "'^' at column 3"),
        ("z4", "'z4' at column 1: unknown name"),
        ("z1 + foo(z2)", "'foo(z2)' at column 6: unknown function"),
        ("__import__('os').system('ls')", "at column 1"),
        ("z1.real", "'z1.real' at column 1"),
        ("z1 if z2 else 1", "at column 1"),
        ("lambda: 1", "at column 1"),
        ("[z1]", "at column 1"),
        ("z1 == 1", "at column 1"),
        ("z1 // 2", "operator not accepted"),
        ("z1 +", "not an expression"),
        ("(z1", "at column 1"),
        ("1/0", "division by zero"),
        ("0**-1*z1", "division by zero"),
        ("1/z1", "'z1' at column 3: only division by a number"),
        ("z1**z2", "an exponent is a number"),
        ("z1**2.5", "whole numbers from 0"),
        ("z1**-1", "whole numbers from 0"),
        ("z1**40", "whole numbers from 0"),
        ("he16(z1)*he16(z2)*z3", "degree 33 is more than 32"),
        ("(z1+z2+z3)**33", "whole numbers from 0"),
        ("sqrt(-1)*z1", "non-negative"),
        ("sqrt(z1)", "non-negative"),
        ("(-8)**(1/3)*z1", "not a finite real number"),
        ("1e999*z1", "not a finite number"),
        ("nan*z1", "unknown name"),
        ("10**10**10*z1", "not a finite real number"),
        ("relu(z1)*z2", "not multiplied"),
        ("relu(z1)**2", "powers of relu"),
        ("tanh(z1*z2)", "multiple of one variable"),
        ("tanh(z1 + 1)", "multiple of one variable"),
        ("he2(relu(z1))", "he2 of relu"),
        ("he2", "needs an argument"),
        ("he2(z1, z2)", "one argument"),
        ("he2(x=z1)", "one argument"),
        ("True*z1", "not accepted"),
        ("1j*z1", "not accepted"),
        ("'a'", "not accepted"),
        ("", "is empty"),
        ("1+" * 2000 + "z1", "characters long"),
        ("(" * 900 + "z1" + ")" * 900, "target"),
    ],
)
def test_refusals_are_one_line_and_point_at_the_place(text, piece):
    if text == "he2":
        text = "1 + he2"
    with pytest.raises(SpecificationError) as error:
        parse(text, NAMES, "target")
    message = str(error.value)
    assert piece in message
    assert "\n" not in message
    assert message.startswith("target")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="z12x+-*/(). he3squarelu_[]'\"=,:é\n\t\\", max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        canonical, function = parse(text, NAMES)
    except SpecificationError:
        return
    assert parse(canonical, NAMES) == (canonical, function)


def test_canonical_spelling_is_stable():
    assert parse(" z1+z1 *z2 ", NAMES)[0] == "z1 + z1 * z2"
    assert parse("he3", NAMES)[0] == "he3(z1)"
