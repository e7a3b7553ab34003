"""The theory page: times at the optimal points, notes, what cannot be learnt, and refusals."""

import json
import math
import subprocess
import sys

import pytest
from scipy.integrate import quad

from hdsgd.errors import SpecificationError
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem, Student
from hdsgd.registry import register
from hdsgd.theory.hermite import hermite_coefficients
from hdsgd.theory.phases import best_exponent, boundaries, exponent
from hdsgd.theory.predictions import predict
from hdsgd.theory.prefactors import critical_prefactor
from hdsgd.theory.signals import effective_exponent


@pytest.mark.compiled
def test_the_page_of_a_quartic_loss(own):
    """It is an algorithm more, with its own exponent where that differs from the others'."""
    problem = Problem("he2", "he2", loss="quartic")
    found = predict(problem, 10**4)
    assert list(found.algorithms) == [*ALGORITHMS, "quartic"]
    own, plain = found.algorithms["quartic"], found.algorithms["projected"]
    assert own.condition == plain.condition
    assert own.prefactor == critical_prefactor(problem, 10**4)
    assert own.optimal.lr == pytest.approx(own.prefactor.reliable / 2)
    json.dumps(found.to_dict(), allow_nan=False)
    assert any("by quadrature" in note for note in found.notes)
    register(Loss("even", "1 - y² f", error=lambda f, y: -y * y))
    mixed = predict(Problem("he3", "square", loss="even"), 10**4)
    assert mixed.student.exponent is None
    assert list(mixed.algorithms) == ["even"]
    assert mixed.exponent == 2
    assert mixed.algorithms["even"].condition == plain.condition.replace("max(0, 1 - μ)", "1 - μ or μ >= 1")
    pushed = predict(Problem("he3", "square", loss="quartic"), 10**4)
    assert not pushed.algorithms
    assert any(note.startswith("quartic: at order 2 the signal has the wrong sign") for note in pushed.notes)
    assert "ℓ = 2" in mixed.summary()
    wide = predict(Problem("he2", Student("he2", 7), loss="quartic"), 100, prefactor=False)
    assert list(wide.algorithms) == list(ALGORITHMS)
    assert any(note.startswith("quartic: population moments by quadrature") for note in wide.notes)


@pytest.mark.compiled
def test_softplus_on_the_theory_page(own):
    """softplus is x/2 plus an even function, and its second derivative is s (1 - s), s the logistic function."""
    mu = hermite_coefficients(Student("softplus"), 7)
    second, _ = quad(lambda x: 1 / (2 + 2 * math.cosh(x)) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi), -12, 12)
    assert mu[1] == pytest.approx(0.5, rel=1e-12)
    assert mu[2] == pytest.approx(second, rel=1e-10)
    assert [float(mu[q]) for q in (3, 5, 7)] == [0, 0, 0]
    assert effective_exponent(Problem("he2", "softplus")) == 2
    assert effective_exponent(Problem("he3", "softplus")) is None
    assert "softplus" in predict(Problem("he2", "softplus"), 1000).summary()


@pytest.mark.parametrize(("ell", "loss"), [(1, "projected"), (2, "correlation"), (2, "projected"), (3, "projected")])
def test_time_is_that_of_drift_and_shrinkage(ell, loss):
    dim, eta = 10**7, 0.5
    found = predict(Problem(f"he{ell}", f"he{ell}"), dim, loss, eta=eta).algorithms[loss]
    critical, setting = found.prefactor, found.optimal
    assert setting.lr == pytest.approx(critical.reliable / 2 * dim**-setting.point.delta)
    share = critical.reliable / critical.ratio / 2
    m0 = dim**-0.5

    def pace(m):
        if ell == 1:
            return setting.lr * critical.drift * (1 - share * m / eta)
        return setting.lr * critical.drift * (m ** (ell - 1) - share * m0 ** (ell - 2) * m)

    low, high = (0.0, eta) if ell == 1 else (math.log(m0), math.log(eta))
    steps, _ = quad((lambda m: 1 / pace(m)) if ell == 1 else (lambda s: math.exp(s) / pace(math.exp(s))), low, high)
    assert setting.steps == pytest.approx(max(1.0, steps), rel=2e-3)
    assert setting.samples == setting.batch * setting.steps


def test_prediction_collects_everything():
    problem = Problem("he3(z1) + z1*z2*z3", "he3", noise=0.01)
    found = predict(problem, 1000)
    assert found.exponent == 3
    assert list(found.algorithms) == list(ALGORITHMS)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["exponent"] == data["information_exponent"] == 3
    assert data["problem"] == problem.to_dict()
    assert data["algorithms"]["projected"]["optimal"]["point"] == {
        "mu": 1.5,
        "delta": 0.0,
        "theta": 0.5,
        "samples": 2.0,
    }
    assert data["algorithms"]["projected"]["one_step"] is None
    assert data["algorithms"]["correlation"]["one_step"]["batch"] == pytest.approx(1e9)
    text = found.summary()
    assert len(text.splitlines()) < 40
    for piece in ("he3", "projected", "correlation", "spherical", "δ >= max(0, 1.5 - μ)", "exponent 3", "odd"):
        assert piece in text
    assert list(predict(problem, 1000, "spherical", prefactor=False).algorithms) == ["spherical"]
    assert list(predict(problem, 1000, ["spherical", "projected"], prefactor=False).algorithms) == [
        "spherical",
        "projected",
    ]


def test_prediction_without_prefactors():
    found = predict(Problem("he2", "square"), 1000, prefactor=False).algorithms["projected"]
    assert found.prefactor is None
    assert found.optimal.lr == 1.0
    assert found.optimal.batch == pytest.approx(1000)
    assert found.optimal.steps == pytest.approx(math.log(1000))


def test_prediction_of_what_cannot_be_learnt():
    found = predict(Problem("he3", "square"), 1000)
    assert found.exponent is None
    assert found.algorithms == {}
    assert "none in common" in found.summary()
    assert "no weak recovery" in found.summary()
    json.dumps(found.to_dict(), allow_nan=False)
    repelled = predict(Problem("-he2(z1)", "square"), 1000)
    assert repelled.exponent is None
    assert "away" in repelled.summary()
    hidden = predict(Problem("he2(z1) + he3(z2)", "square"), 1000, prefactor=False)
    assert "z2 can never be learnt" in hidden.summary()


def test_notes():
    def notes(*args, **options):
        return " ".join(predict(Problem(*args, **options), 1000, prefactor=False).notes)

    assert "log d" in notes("he2", "square")
    assert "mean" in notes("he3(z1) + 1", "he3(x) + he2(x)")
    assert "mean" not in notes("he3(z1) + 1", "he3")
    assert "constraint none" in notes("he2", "square", constraint="none")
    assert "acts like exponent 3" in notes("he3(0.7071*z1 + 0.7071*z2)", "he3(x) + he1(x)")
    assert "acts like" not in notes("he3(0.7071*z1 + 0.7071*z2)", "he3")  # that student sees order 3 only
    assert "does not grow" in notes("he1", "he1")


@pytest.mark.parametrize(
    "call",
    [
        lambda: exponent(1, 1, 2, "adam"),
        lambda: exponent(1, 1, 0, "projected"),
        lambda: exponent(1, 1, 2.5, "projected"),
        lambda: exponent(1, 1, 2, "projected", log_dim=1),
        lambda: best_exponent(1, 2, "sgd"),
        lambda: boundaries(2, "sgd"),
        lambda: boundaries(2, "projected", (1, 0)),
        lambda: boundaries(2, "projected", (0, math.nan)),
        lambda: predict(Problem("he2", "square"), 0),
        lambda: predict(Problem("he2", "square"), 10, "adam"),
        lambda: predict(Problem("he2", "square"), 10, eta=2),
    ],
)
def test_bad_requests_are_refused(call):
    with pytest.raises(SpecificationError) as error:
        call()
    assert "\n" not in str(error.value)


def test_import_is_light():
    code = (
        "import sys, hdsgd.theory.predictions; print([m for m in ('numba', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
