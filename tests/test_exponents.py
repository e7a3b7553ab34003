"""Hermite coefficients, information and leap exponents, and what a student can learn."""

import math
from fractions import Fraction

import numpy as np
import pytest

from hdsgd.errors import SpecificationError
from hdsgd.problem.model import Problem, Student, Target
from hdsgd.problem.parser import parse
from hdsgd.theory.hermite import hermite_coefficients, hermite_form, strongest_direction
from hdsgd.theory.leaps import information_exponent, leaps, learnability
from hdsgd.theory.signals import effective_exponent

Z1 = [[1.0]]
E2 = np.eye(2)
E3 = np.eye(3)


def function(text, names=("x",)):
    return parse(text, names, "function")[1]


def gaussian_average(values, order=4000, width=12.0):
    """E[values(g)] by the trapezoidal rule on a fine grid (no node at 0, so that kinks cost O(step²))."""
    g = (np.arange(order) + 0.5) / order * 2 * width - width
    weight = np.exp(-(g**2) / 2)
    return float(np.sum(values(g) * weight) / np.sum(weight))


def he(q, x):
    return np.polynomial.hermite_e.hermeval(x, [0] * q + [1])


# ---------------------------------------------------------------- Hermite coefficients


def test_hermite_coefficients_are_exact_for_rational_polynomials():
    assert hermite_coefficients(function("he3(x)/6 + 2*he1(x) - 1/3")) == (Fraction(-1, 3), 2, 0, 1)
    assert hermite_coefficients(function("x**4")) == (3, 0, 12, 0, 24)  # x⁴ = He4 + 6 He2 + 3
    assert all(isinstance(c, Fraction) for c in hermite_coefficients(function("x**4")))
    assert hermite_coefficients(Student("square"), 4) == (1, 0, 2, 0, 0)
    assert hermite_coefficients(function("x**4"), 2) == (3, 0, 12)


@pytest.mark.parametrize(
    "text", ["relu(x)", "relu(-2*x)/3", "erf(x/sqrt(2))", "erf(3*x)", "tanh(x)", "tanh(0.3*x)", "tanh(-40*x)",
             "relu(x) + x**3/7 - 2*tanh(x/2)", "sqrt(2)*x**3 - 1"]
)  # fmt: skip
def test_hermite_coefficients_against_quadrature(text):
    h = function(text)
    for q, mu in enumerate(hermite_coefficients(h, 7)):
        reference = gaussian_average(lambda g, q=q: h(g[None]) * he(q, g), order=200_000)
        assert float(mu) == pytest.approx(reference, rel=1e-7, abs=1e-7)


def test_closed_forms_of_links():
    relu = hermite_coefficients(function("relu(x)"), 6)
    root = math.sqrt(2 * math.pi)
    assert [float(c) for c in relu] == pytest.approx([1 / root, 0.5, 1 / root, 0, -1 / root, 0, 3 / root])
    assert relu[3] == relu[5] == 0
    # Saad & Solla's activation: E[erf'(x/√2)] = √(2/π)/√2 = 1/√π
    erf = hermite_coefficients(function("erf(x/sqrt(2))"), 3)
    assert float(erf[1]) == pytest.approx(1 / math.sqrt(math.pi), rel=1e-14)
    # E[sech²] to 15 digits, from an independent quadrature
    assert float(hermite_coefficients(function("tanh(x)"))[1]) == pytest.approx(
        gaussian_average(lambda g: 1 / np.cosh(g) ** 2), rel=1e-13
    )


@pytest.mark.parametrize("text", ["he3", "z1*z2**2 - z3", "relu(z1) + erf(z2) - z1*z3", "0.3*z1**4 + z2*z3*z1"])
@pytest.mark.parametrize("correlated", [False, True])
def test_hermite_form_is_the_projection_on_hermite_polynomials(text, correlated):
    """T_q[v,...,v]/q! = E[f* He_q(v·z)]/q!, any Gram matrix, by Monte Carlo (z-score < 5)."""
    rng = np.random.default_rng(3)
    k = Target(text).k
    B = rng.standard_normal((k, k)) if correlated else np.eye(k)
    target = Target(text, (B @ B.T + (B @ B.T).T) / 2 if correlated else None)
    z = rng.standard_normal((k, 400_000))  # coordinates along an orthonormal basis; w*_r = rows of B
    v = rng.standard_normal(k)
    v /= np.linalg.norm(v)
    f = target.function(B @ z)
    for q in range(5):
        samples = f * he(q, v @ z) / math.factorial(q)
        error = samples.std() / math.sqrt(samples.size)
        assert abs(samples.mean() - float(hermite_form(target, q)((B @ v)[:, None])[0])) < 5 * error


# ---------------------------------------------------------------- information and leap exponents

# Target, then (exponent, rows spanning the new directions) of each stage.
CASES = {
    **{f"he{q}(z1)": [(q, Z1)] for q in (1, 2, 3, 4, 7, 16)},
    "he3(z1)/sqrt(6)": [(3, Z1)],
    "z1**3 - 3*z1": [(3, Z1)],
    "z1 + z1*z2 + z1*z2*z3": [(1, E3[:1]), (1, E3[1:2]), (1, E3[2:])],
    "z1*z2*z3": [(3, E3)],
    "z1*z2": [(2, E2)],
    "he2(z1) + he4(z2)": [(2, E2[:1]), (4, E2[1:])],
    "he2(z1) + he2(z2)": [(2, E2)],
    "he2(z1) - he2(z2)": [(2, E2)],
    "he3(z1) + z1*z2": [(2, E2)],
    "he3(z1) + he2(z1)*he3(z2)": [(3, E2[:1]), (3, E2[1:])],
    "he4(z1) + z1*he3(z2)*he2(z3)": [(4, E3[:1]), (5, E3[1:])],
    "he2(z1) + z1*he3(z2) + z2*z3*he2(z1)": [(2, E3[:1]), (2, E3[1:])],
    "he2(z1) + z1*he3(z2) + he2(z1)*he2(z3)": [(2, E3[:1]), (2, E3[2:]), (3, E3[1:2])],
    "(z1 + z2)**3": [(1, [[1, 1]])],
    "z1 + 2*he2(z2) + z3": [(1, [[1, 0, 1]]), (2, E3[1:2])],
    "sqrt(2)*he2(z1) + z1*z2*z3/sqrt(3)": [(2, E3[:1]), (2, E3[1:])],
}
LINK_CASES = {
    "relu(z1)": [(1, Z1)],
    "relu(z1) - z1/2": [(2, Z1)],
    "relu(z1) + relu(-z1)": [(2, Z1)],
    "erf(z1)": [(1, Z1)],
    "tanh(0.1*z1)": [(1, Z1)],
    "tanh(z1) + tanh(-z1) + he4(z1)": [(4, Z1)],
    "relu(z1) - z1/2 + z2*z1": [(2, E2)],
    "relu(z1) + he3(z2)": [(1, E2[:1]), (3, E2[1:])],
    "erf(z1) + z1*z2*z3": [(1, E3[:1]), (2, E3[1:])],
    "erf(z1/sqrt(2)) + erf(z2/sqrt(2))": [(1, [[1, 1]]), (2, [[1, -1]])],
}


def projector(rows):
    """Orthogonal projector on the span of some rows."""
    rows = np.atleast_2d(np.array(rows, dtype=float))
    q, _ = np.linalg.qr(rows.T)
    return q @ q.T


def check(sequence, expected, basis=None):
    """`basis` holds the teacher's directions as rows; expected rows refer to the axes."""
    assert sequence.exponents == tuple(q for q, _ in expected)
    k = sequence.unreached.shape[1]
    basis = np.eye(k) if basis is None else basis
    learnt = np.zeros((basis.shape[1],) * 2)
    for leap, (_, rows) in zip(sequence.leaps, expected, strict=True):
        found = leap.directions @ basis
        assert found @ found.T == pytest.approx(np.eye(len(found)), abs=1e-9)
        assert found.T @ found == pytest.approx(projector(rows), abs=1e-7)
        learnt = learnt + projector(rows)
    rest = sequence.unreached @ basis
    full = projector(basis[np.abs(basis).sum(axis=1) > 0])
    assert rest.T @ rest == pytest.approx(full - learnt, abs=1e-7)


def substituted(text, matrix, number=lambda v: repr(float(v))):
    """The expression with z_r replaced by Σ_s matrix[r][s] z_s."""
    for r in range(len(matrix), 0, -1):
        form = " + ".join(f"({number(v)})*y{s + 1}" for s, v in enumerate(matrix[r - 1]))
        text = text.replace(f"z{r}", f"({form})")
    return text.replace("y", "z")


@pytest.mark.parametrize("text", CASES)
def test_leaps_of_polynomials(text):
    target = Target(text)
    sequence = leaps(target)
    check(sequence, CASES[text])
    assert sequence.exact == ("sqrt" not in text)
    assert information_exponent(target) == CASES[text][0][0]
    assert sequence.index == max(q for q, _ in CASES[text])


@pytest.mark.parametrize("text", LINK_CASES)
def test_leaps_of_links(text):
    check(leaps(Target(text)), LINK_CASES[text])
    assert information_exponent(Target(text)) == LINK_CASES[text][0][0]


ROTATIONS = {
    1: [[Fraction(-1)]],
    2: [[Fraction(3, 5), Fraction(4, 5)], [Fraction(-4, 5), Fraction(3, 5)]],
    3: [[Fraction(v, 3) for v in row] for row in ([1, 2, 2], [2, 1, -2], [2, -2, 1])],
}


def rotated(expected, R):
    return [(q, np.array(rows, dtype=float) @ np.array(R, dtype=float)) for q, rows in expected]


@pytest.mark.parametrize("text", [t for t in CASES if t != "he16(z1)"])
def test_rational_rotation(text):
    """h(R z) has the directions of h, rotated, and the same exponents; still exact."""
    k = Target(text).k
    target = Target(substituted(text, ROTATIONS[k], str))
    sequence = leaps(target)
    check(sequence, rotated(CASES[text], ROTATIONS[k]))
    assert sequence.exact == ("sqrt" not in text)


@pytest.mark.parametrize("text", [t for t in CASES if t != "he16(z1)"])
def test_rotation_written_with_rounded_numbers(text):
    """Seventeen digits stand for the irrational numbers they round; the same with another Gram matrix."""
    k = Target(text).k
    rng = np.random.default_rng(k)
    R, _ = np.linalg.qr(rng.standard_normal((k, k)))
    check(leaps(Target(substituted(text, R))), rotated(CASES[text], R))


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("exact", [True, False])
def test_other_basis_and_gram_matrix(text, exact):
    """Teacher directions w' = B w*, target h(B⁻¹ z'): the same function of the input, so the same subspaces of R^d."""
    k = Target(text).k
    # Either whole numbers whose inverse is of whole numbers, or anything.
    B = np.tril(np.ones((k, k))) if exact else np.random.default_rng(11).standard_normal((k, k)) + 2 * np.eye(k)
    inverse, P = np.linalg.inv(B), B @ B.T
    target = Target(substituted(text, inverse), (P + P.T) / 2)
    sequence = leaps(target)
    check(sequence, CASES[text], B)
    assert sequence.exact == (exact and "sqrt" not in text)


def test_links_with_a_gram_matrix():
    check(leaps(Target("relu(z1/2) - z1/4", [[4.0]])), [(2, Z1)], np.array([[2.0]]))
    B = np.array([[1.0, 0.0], [0.6, 0.8]])
    target = Target("erf(z1) + erf(z2)", B @ B.T)  # even in w1 - w2
    check(leaps(target), [(1, B[:1] + B[1:]), (2, B[:1] - B[1:])], B)


def test_singular_gram_matrix():
    """Two names for one direction: z1 - z2 is zero, and there is one direction only."""
    target = Target("he3(z1/2 + z2/2) + z1 - z2", [[1, 1], [1, 1]])
    sequence = leaps(target)
    assert sequence.exponents == (3,)
    assert sequence.leaps[0].directions.sum() == pytest.approx(1.0)
    assert sequence.unreached.shape == (0, 2)
    with pytest.raises(SpecificationError, match="constant"):
        information_exponent(Target("z1 - z2", [[1, 1], [1, 1]]))


def test_directions_on_which_the_target_does_not_depend():
    check(leaps(Target("z1 + z3")), [(1, [[1, 0, 1]])])
    assert len(leaps(Target("z1 + z3")).unreached) == 2
    constant = leaps(Target("relu(z1) - relu(-z1) - z1"))
    assert constant.leaps == ()
    assert constant.index is None
    assert str(constant) == "nothing"
    with pytest.raises(SpecificationError, match="constant"):
        information_exponent(Target("relu(z1) - relu(-z1) - z1"))


def test_large_targets_switch_to_floating_point_and_agree():
    product = "*".join(f"z{r}" for r in range(1, 17))
    sequence = leaps(Target(product))
    assert not sequence.exact
    assert sequence.exponents == (16,)
    assert sequence.leaps[0].directions.shape == (16, 16)
    chain = " + ".join("*".join(f"z{s}" for s in range(1, r + 1)) for r in range(1, 11))
    assert leaps(Target(chain)).exponents == (1,) * 10


def test_rounded_coefficients():
    """Few digits are meant: the direction is not quite a unit vector, and He3 of it has a small linear part."""
    assert information_exponent(Target("he3(0.7071*z1 + 0.7071*z2)")) == 1
    assert information_exponent(Target("he3(0.70710678118654752*z1 + 0.70710678118654752*z2)")) == 3
    assert information_exponent(Target("he3(z1/sqrt(2) + z2/sqrt(2))")) == 3
    assert information_exponent(Student("0.16666666666666666*x**3 - 0.5*x")) == 3


def test_text_and_json():
    sequence = leaps(Target("he2(z1) + he3(0.6*z2 - 0.8*z3)"))
    assert str(sequence) == "z1 (exponent 2), then 0.6 z2 - 0.8 z3 (exponent 3)"
    data = sequence.to_dict()
    assert data["index"] == 3
    assert data["leaps"][1]["directions"][0] == pytest.approx([0, 0.6, -0.8])


@pytest.mark.parametrize(
    ("text", "order", "sign", "value", "direction"),
    [
        ("z1 + 2*z2", 1, 1, math.sqrt(5), [1, 2]),
        ("z1 + 2*z2", 1, -1, math.sqrt(5), [-1, -2]),
        ("z1*z2", 2, 1, 1.0, [1, 1]),
        ("he2(z1) + 3*he2(z2)", 2, 1, 6.0, [0, 1]),
        ("he2(z1)", 2, -1, -2.0, [1]),
        ("he3(z1) + he3(z2)", 3, 1, 6.0, [1, 0]),
        ("2*z1 - he3(z1)", 3, 1, 6.0, [-1]),
        ("he4(z1) - he4(z2)", 4, -1, 24.0, [0, 1]),
    ],
)
def test_strongest_direction(text, order, sign, value, direction):
    found, c = strongest_direction(Target(text), order, sign)
    assert found == pytest.approx(value)
    unit = np.array(direction) / np.linalg.norm(direction)
    assert min(np.abs(c - unit).max(), np.abs(c + unit).max() if order % 2 == 0 else 9) < 1e-6


def test_strongest_direction_with_gram_matrix():
    """He3 along two directions at 60°: the bisector has (√3/2)³ 12, more than 6 (1 + 1/8) along either."""
    value, c = strongest_direction(Target("he3(z1) + he3(z2)", [[1, 0.5], [0.5, 1]]), 3)
    assert value == pytest.approx(12 * 0.75**1.5)
    assert c == pytest.approx([3**-0.5] * 2, abs=1e-6)


# ---------------------------------------------------------------- what a student can learn


@pytest.mark.parametrize(
    ("target", "activation", "exponent", "stages", "unlearnable"),
    [
        ("he2", "square", 2, (2,), 0),
        ("he3", "square", None, (), 1),
        ("he3", "he3", 3, (3,), 0),
        ("he3", "relu", None, (), 1),  # relu has order 1 and the even ones
        ("he3", "erf", 3, (3,), 0),
        ("he2", "erf", None, (), 1),
        ("he3(z1)/sqrt(6)", "he3(x)/sqrt(6)", 3, (3,), 0),
        ("z1 + he2(z1)", "square", 2, (2,), 0),
        ("z1 + he3(z1)", "he3", 3, (3,), 0),
        ("relu", "erf", 1, (1,), 0),
        ("he4(z1) + he3(z1)", "relu", 4, (4,), 0),
        ("z1 + z1*z2 + z1*z2*z3", "square", 2, (2,), 1),
        ("z1 + z1*z2 + z1*z2*z3", "x**2 + x", 1, (1, 1), 1),
        ("z1 + z1*z2 + z1*z2*z3", "he1(x) + he3(x)", 1, (1, 2), 0),
        ("z1 + z1*z2 + z1*z2*z3", "(x + 1)**3", 1, (1, 1, 1), 0),
        ("he2(z1) + he3(z2)", "square", 2, (2,), 1),
        ("he2(z1) + he4(z2)", "relu", 2, (2, 4), 0),
        ("he2(z1) + z1*he3(z2)", "he2(x) + he4(x)", 2, (2, 3), 0),
        ("he2(z1) + z1*he3(z2)", "he2(x) + he3(x)", 2, (2,), 1),
    ],
)
def test_what_a_student_can_learn(target, activation, exponent, stages, unlearnable):
    problem = Problem(target, activation)
    found = learnability(problem)
    assert effective_exponent(problem) == found.exponent == exponent
    assert found.leaps.exponents == stages
    assert len(found.unlearnable) == unlearnable
    assert "\n" not in found.explanation
    if exponent is None:
        assert "cannot learn" in found.explanation
    elif unlearnable:
        assert "never be learnt" in found.explanation


def test_learnability_is_independent_of_the_basis():
    R = ROTATIONS[3]
    text = substituted("z1 + z1*z2 + z1*z2*z3", R, str)
    found = learnability(Problem(text, "square"))
    plain = learnability(Problem("z1 + z1*z2 + z1*z2*z3", "square"))
    assert found.leaps.exponents == plain.leaps.exponents == (2,)
    assert projector(found.unlearnable) == pytest.approx(
        projector(plain.unlearnable @ np.array(R, dtype=float)), abs=1e-12
    )


def test_students_without_signal_say_why():
    square = learnability(Problem("he3", "square"))
    assert square.orders == (2,)
    assert "order 2" in square.explanation
    assert "order 3" in square.explanation
    silent = learnability(Problem("he2", Student("square", 2, (0, 0))))
    assert silent.exponent is None
    assert "second-layer" in silent.explanation
    assert "constant" in learnability(Problem("relu(z1) - relu(-z1) - z1", "relu")).explanation


def test_functions_of_several_variables_have_no_list_of_coefficients():
    with pytest.raises(SpecificationError, match="one variable"):
        hermite_coefficients(function("z1*z2", ("z1", "z2")))
    with pytest.raises(SpecificationError, match="order"):
        hermite_coefficients(function("x"), -1)
    with pytest.raises(SpecificationError, match="order"):
        strongest_direction(Target("he2"), 0)
