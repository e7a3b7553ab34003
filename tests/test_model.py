"""Specifications: validation, JSON round trip, digest."""

import dataclasses
import json

import numpy as np
import pytest

from hdsgd import Problem, SpecificationError, Student, Target
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.initial import Initial
from hdsgd.simulation.cells import Cell

PROBLEMS = [
    Problem("he2", "square"),
    Problem(Target("z1 + z1*z2", [[1, 0.2], [0.2, 2]]), Student("relu", 2, [1, -1]), noise=0.1, loss="correlation"),
    Problem("tanh(3*z1)", "erf(x/sqrt(2))", loss="adaptive", constraint="none", switch_fraction=0.3, switch_decay=0.5),
]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_round_trip(problem):
    again = Problem.from_json(problem.to_json())
    assert again == problem
    assert again.digest == problem.digest
    assert hash(again) == hash(problem)


def test_digest_tells_problems_apart_and_is_fixed():
    assert len({p.digest for p in PROBLEMS}) == len(PROBLEMS)
    assert Problem("he2", "he2").digest == Problem(Target(" he2( z1 )"), Student("he2(x)", 1, [1.0])).digest
    # A change of this value breaks the seeds of every published run: say so in the changelog.
    assert Problem("he2", "square").digest.startswith("5ad43c6801753167")


def test_specifications_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROBLEMS[0].noise = 1.0


def test_algorithms():
    for rule in ALGORITHMS.values():
        problem = Problem.from_algorithm(rule.name, "he2", "square")
        assert (problem.loss, problem.constraint) == (rule.loss, rule.constraint)
    overridden = Problem.from_algorithm("spherical", "he2", "square", loss="adaptive")
    assert (overridden.loss, overridden.constraint) == ("adaptive", "spherical")


def test_number_of_directions():
    assert Target("z3").k == 3
    assert Target("he2").k == 1
    np.testing.assert_array_equal(Target("z1*z2").P, np.eye(2))


def test_gram_root():
    for gram in ([[2.0, 0.5], [0.5, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[4.0, 0.0], [0.0, 1.0]]):
        root = Target("z1*z2", gram).gram_root
        np.testing.assert_allclose(root @ root.T, gram, atol=1e-14)
        assert np.array_equal(root, np.tril(root))
    assert Target("z1*z2", [[1, 0], [0, 1]]).orthonormal


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Target("3"), "constant"),
        (lambda: Target("z99"), "at most z16"),
        (lambda: Target(3), "must be text"),
        (lambda: Target("z1*z2", [[1, 2], [2, 1]]), "smallest eigenvalue is -1"),
        (lambda: Target("z1*z2", [[1, 0.5], [0.4, 1]]), "symmetric"),
        (lambda: Target("z1*z2", [[1, float("nan")], [float("nan"), 1]]), "finite"),
        (lambda: Target("z1*z2", [[1.0]]), "must be 2×2"),
        (lambda: Target("z1*z2", "abc"), "matrix of numbers"),
        (lambda: Target("z1", [[0.0]]), "positive diagonal"),
        (lambda: Student("x - x"), "constant"),
        (lambda: Student("z1"), "unknown name"),
        (lambda: Student("square", 0), "from 1 to 64"),
        (lambda: Student("square", 2.5), "whole number"),
        (lambda: Student("square", 2, [1.0]), "one weight per hidden unit: 2, not 1"),
        (lambda: Student("square", 1, [float("inf")]), "finite"),
        (lambda: Problem("he2", "square", noise=-1), "at least 0"),
        (lambda: Problem("he2", "square", noise=float("nan")), "finite"),
        (lambda: Problem("he2", "square", noise="much"), "must be a number"),
        (lambda: Problem("he2", "square", loss="hinge"), "choose from square, correlation, adaptive"),
        (lambda: Problem("he2", "square", constraint="l1"), "choose from projected, spherical, none"),
        (lambda: Problem("he2", "square", switch_factor=0.1), r"belongs to losses that switch \(adaptive\)"),
        (lambda: Problem("he2", "square", loss="adaptive", switch_fraction=2), "at most 1"),
        (lambda: Problem(3, "square"), "must be a Target"),
        (lambda: Problem.from_algorithm("sgd", "he2", "square"), "choose from projected, correlation, spherical"),
        (lambda: Problem.from_json("{"), "not valid JSON"),
        (lambda: Problem.from_json("[]"), "must be an object"),
        (lambda: Problem.from_json('{"targets": 1}'), "choose from target"),
        (lambda: Problem.from_json('{"target": "he2"}'), "student"),
        (lambda: Initial.from_dict({"distribution": "random", "m": 3}), "choose from distribution"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SpecificationError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


FORMULAS = {
    "he2": "He₂(z₁)",
    "z1*z2**2 - 0.5*he12(z2)": "z₁ z₂² - 0.5 He₁₂(z₂)",
    "z1 - (z2 - z1)": "z₁ - (z₂ - z₁)",
    "-(z1 + z2)**3/(2*pi)": "-(z₁ + z₂)³/(2 π)",
    "2*3**2*z1*-2": "2 · 3² z₁ (-2)",
    "erf(z1/sqrt(2)) + square(z1 + 1)": "erf(z₁/√2) + (z₁ + 1)²",
}


@pytest.mark.parametrize("expression", FORMULAS)
def test_formulas(expression):
    first = str(Problem(expression, "he2")).splitlines()[0]
    assert first.split(" = ")[1] == FORMULAS[expression]


def test_what_a_problem_says_of_itself():
    problem = Problem(
        Target("z1*z2", [[1.0, 0.5], [0.5, 1.0]]), Student("relu", 2, (1.0, -0.5)), noise=0.25, loss="adaptive",
        switch_decay=0.5, constraint="spherical",
    )  # fmt: skip
    assert str(problem).splitlines() == [
        "target       h*(z₁, z₂) = z₁ z₂",
        "directions   W* W*ᵀ = [[1, 0.5], [0.5, 1]]",
        "student      f(z) = (1/2) Σⱼ aⱼ σ(⟨wⱼ, z⟩), j = 1...2, σ(x) = relu(x)",
        "second layer a = (1, -0.5)",
        "labels       y = h* + √0.25 ξ, ξ ~ N(0, 1)",
        "loss         adaptive: correlation until the risk has fallen, then square",
        "switch       at 0.6 of the initial risk, learning rate × 1 (1 + s)⁻⁰·⁵ after s more steps",
        "constraint   spherical: gradient made tangent to the sphere, then rows normalised",
    ]
    assert '<td style="text-align:left">h*(z<sub>1</sub>, z<sub>2</sub>) = ' in problem._repr_html_()
    assert "(1 + s)<sup>-0.5</sup>" in problem._repr_html_()


def test_addresses_never_change():
    """Seeds are derived from these texts: whatever fields and names records gain, runs keep their random numbers."""
    problem = Problem("he2(z1) + z2", Student("relu", 2, (1.0, 0.5)), noise=0.1, constraint="none")
    assert json.dumps(problem.address(), sort_keys=True) == (
        '{"constraint": "none", "loss": "square", "noise": 0.1, "student": {"activation": "relu(x)", '
        '"second_layer": [1.0, 0.5], "width": 2}, "switch_decay": 0.0, "switch_factor": 1.0, "switch_fraction": 0.6, '
        '"target": {"expression": "he2(z1) + z2", "gram": null}}'
    )
    assert Initial(overlap=0.5).address() == {"law": "overlap", "overlap": 0.5, "M": None, "Q": None}
    cell = Cell(problem, dim=20, batch=3, lr=0.1, initial=Initial("positive"), engine="exact", seed=7)
    assert cell._seed.generate_state(2).tolist() == [584398306, 2128776072]
