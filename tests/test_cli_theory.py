"""``hdsgd theory`` as a user meets it: one screen, JSON and nothing else, explanations, one-line errors."""

import json

import command_line
import pytest

from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.model import Problem, Student
from hdsgd.theory.predictions import predict


def call(capsys, *args):
    return command_line.call(capsys, "theory", *args)


def shown(capsys, *args):
    code, out, err = call(capsys, *args)
    assert (code, err) == (0, "")
    return out


def row(text, name, nth):
    """Fields of the nth line that begins with a name: 0 the region, 1 the optimal point, 2 the giant step."""
    return [line.split() for line in text.splitlines() if line.startswith(name)][nth]


def test_text(capsys):
    text = shown(capsys)
    assert "z1 (exponent 2)" in text
    assert "d = 1000: |M| >= 0.5 by the first leap, ℓ = 2." in text
    assert "projected    δ >= max(0, 1 - μ)        d^δ log d                0.1667" in text
    assert "correlation  δ >= 1 - μ or μ >= 1      d^max(0, δ) log d        0.375" in text
    # T = ln(0.5 √1000)/(γ b (1 - F)) with γ = 1/12, b = 4, F = 1/2: 16.6 steps of 1000 samples
    assert row(text, "projected", 1)[1:] == ["d^1", "1000", "d^0", "0.0833", "d^0", "17", "d^1", "17000"]
    # one giant step: γ = √1000/4
    assert row(text, "spherical", 2)[1:] == ["d^2", "1e+06", "d^0.5", "7.906", "d^0", "1", "d^2", "1e+06"]
    assert "One giant step (μ >= 2, δ <= -0.5)" in text
    assert text.count("projected ") == 2  # it has no giant step


def slow(*args):
    """Arguments whose moments take long without compiled kernels."""
    return pytest.param(args, marks=pytest.mark.compiled)


@pytest.mark.parametrize(
    "args",
    [
        (),
        slow("--target", "z1 + z1*z2 + z1*z2*z3", "--activation", "relu", "--width", 3),
        ("--target", "he3", "--activation", "he3", "--dim", "1e9", "--noise", 0.1),
        slow("--target", "he16", "--activation", "he16", "--dim", "10**15"),
        ("--target", "he2(z1) + he4(z2)", "--activation", "relu", "--second-layer", "2"),
        ("--target", "z1*z2", "--gram", "1,0.5;0.5,1", "--eta", 0.25),
        ("--target", "he3", "--activation", "square"),
        slow("--target", "+".join(f"z{r}" for r in range(1, 17)), "--activation", "erf"),
    ],
)
def test_text_fits_one_screen(capsys, args):
    lines = shown(capsys, *args).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.compiled
def test_what_a_student_cannot_learn(capsys):
    text = shown(capsys, "--target", "z1 + z1*z2 + z1*z2*z3", "--activation", "relu")
    assert "leaps    z1 (exponent 1), then z2 (exponent 1), then z3 (exponent 1)" in text
    assert "learns   z1 (exponent 1), then z2 (exponent 1)\n" in text
    assert "z3 can never be learnt" in text
    text = shown(capsys, "--target", "he2(z1) + he4(z2)", "--activation", "relu")
    assert "learns" not in text  # all of it, in the same leaps
    assert "a later leap has exponent 4" in text


def test_a_problem_without_recovery_is_no_error(capsys):
    args = ("--target", "he3", "--activation", "square")
    text = shown(capsys, *args)
    for piece in ("he3(z1); Hermite orders 3", "square(x), width 1; Hermite orders 2", "learns   nothing",
                  "none in common, so the student cannot learn", "no weak recovery"):  # fmt: skip
        assert piece in text
    data = json.loads(shown(capsys, *args, "--json"))
    assert data["exponent"] is None
    assert data["information_exponent"] == 3
    assert data["algorithms"] == {}
    assert "order 2" in data["student"]["explanation"]
    text = shown(capsys, "--target", "-he2(z1)")
    assert "no weak recovery" in text
    assert "away" in text


def test_json_and_nothing_else(capsys):
    out = shown(capsys, "--target", "he3", "--activation", "he3", "--width", 2, "--dim", 10**6, "--eta", 0.4, "--json")
    expected = predict(Problem("he3", Student("he3", 2)), 10**6, eta=0.4)
    assert out == expected.to_json() + "\n"
    data = json.loads(out)
    assert out == json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n"
    assert data["exponent"] == 3
    assert data["target"]["leaps"] == [{"exponent": 3, "directions": [[1.0]]}]
    assert set(data["algorithms"]) == set(ALGORITHMS)
    optimal = data["algorithms"]["projected"]["optimal"]
    assert optimal["point"] == {"mu": 1.5, "delta": 0.0, "theta": 0.5, "samples": 2.0}
    assert optimal["batch"] == pytest.approx(1e9)
    assert optimal["samples"] == pytest.approx(optimal["batch"] * optimal["steps"])
    assert {line["kind"] for line in data["algorithms"]["spherical"]["lines"]} >= {"recovery", "time", "one step"}


def test_algorithms_asked_for(capsys):
    text = shown(capsys, "--algorithm", "spherical", "--algorithm", "projected")
    assert text.index("spherical") < text.index("projected")
    assert "correlation" not in text
    assert "giant" not in shown(capsys, "--algorithm", "projected")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--algorithm", "adam"), "choose from projected, correlation, spherical"),
        (("--target", "z1^2"), "'^' at column 3"),
        (("--target", "he2(z1) - he2(z1)"), "constant"),
        (("--activation", "gelu"), "unknown name"),
        (("--width", "0"), "width"),
        (("--width", "2", "--second-layer", "1,2,3"), "one weight per hidden unit: 2, not 3"),
        (("--target", "z1*z2", "--gram", "1,2;2,1"), "positive semi-definite"),
        (("--noise", "-1"), "noise must be at least 0"),
        (("--dim", "1"), "from 2"),
        (("--dim", "ten"), "'ten' is not a whole number"),
        (("--eta", "0"), "eta"),
        (("--eta", "nan"), "finite"),
        (("--target", "he16(z1)*he16(z2)", "--activation", "x**32", "--dim", "2**53"), "exceeds double precision"),
        (("--json", "--dim", "1"), "from 2"),
        (("--frob",), "--frob"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, args, message):
    code, out, err = call(capsys, *args)
    assert code == 2
    assert message in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
