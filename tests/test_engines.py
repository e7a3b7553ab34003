"""Engines by name, and one of one's own in plain NumPy; functions, losses and constraints that come from outside.

Two-sample tests reject at p < 1e-4; there are 4 x 4 of them here, so that one fails by chance for 0.2 % of seeds, and
seeds are fixed.
"""

import contextlib
import math
import subprocess
import sys

import numpy as np
import pytest
from own_things import OWN, SOFTPLUS, softplus
from test_kernels import check_steps
from test_law import ALPHA, Setting, p_values, sample

import hdsgd
from hdsgd import Initial, Problem, SpecificationError, Student
from hdsgd.engines import ENGINES, Engine, find_engine, is_exact
from hdsgd.engines.base import Law, Overlaps, Run
from hdsgd.engines.direct import Direct32Run, DirectRun
from hdsgd.engines.reduced import ReducedRun
from hdsgd.problem.activations import ACTIVATIONS, Activation
from hdsgd.problem.arrays import tabulate
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.losses import Loss
from hdsgd.problem.protocols import Protocol
from hdsgd.simulation.cells import Cell


class PlainRun(Run):
    """Every sample in d dimensions, in plain NumPy."""

    name = "plain"

    def start(self, X, seed):
        self.rng = np.random.default_rng(seed)
        k = self.problem.k
        frame = np.linalg.qr(self.rng.standard_normal((self.dim, X.shape[1])))[0].T
        self.W, self.teacher = X @ frame, self.problem.target.gram_root @ frame[:k]

    def take_step(self, loss, lr):
        problem = self.problem
        z = self.rng.standard_normal((self.batch, self.dim))
        y = problem.target.function(self.teacher @ z.T) + np.sqrt(problem.noise) * self.rng.standard_normal(self.batch)
        fields, sigma, a = self.W @ z.T, problem.student.function, problem.student.a[:, None] / problem.p
        c = a * sigma.derivative(fields) * loss.errors((a * sigma(fields[None])).sum(axis=0), y)
        self.W[:] = CONSTRAINTS[problem.constraint].step(self.W, c @ z / self.batch, lr)

    def overlaps(self):
        return Overlaps.of_rows(self.W, self.teacher)

    def arrays(self):
        return {"W": self.W, "teacher": self.teacher}


def own_problem(kind, noise=0.3):
    """A problem that uses one of `own_things.OWN`."""
    layer = (1.0, -0.7, 1.3)
    match kind:
        case "activation":
            return Problem("softplus(2*z1) - 0.5*softplus(z2) + z2", Student("softplus(0.7*x) + x**2", 3, layer), noise)
        case "loss":
            return Problem("he2(z1) + z2", Student("he2(x) + x", 3, layer), noise, loss="quartic")
        case "lean loss":
            return Problem("he2", "he2", noise, loss="quartic")
        case "constraint":
            return Problem("he2(z1) + z2", Student("he2(x) + x", 3, layer), noise, constraint="tangential")
    return Problem("softplus", "softplus", noise, loss="quartic", constraint="tangential")


KINDS = ["activation", "loss", "lean loss", "constraint", "all"]


@pytest.mark.parametrize("engine", [ReducedRun, DirectRun])
@pytest.mark.parametrize("kind", KINDS)
def test_own_things_equal_naive(own, engine, kind):
    check_steps(engine, own_problem(kind), dim=13, batch=9)
    check_steps(engine, own_problem(kind, noise=0.0), dim=13, batch=2)


@pytest.mark.parametrize("kind", KINDS)
def test_own_things_in_single_precision(own, kind):
    check_steps(Direct32Run, own_problem(kind), dim=40, batch=9, tolerance=1e-4)


def test_a_wrong_slope_is_noticed(registered):
    """Negative control: kernels and the naive version read different slopes."""
    registered(Activation("softplus", "", softplus, lambda x: 0.5 * (1.000001 + math.tanh(0.5 * x))))
    tabulate(Problem("softplus", "softplus"))
    ACTIVATIONS._entries["softplus"] = SOFTPLUS
    with pytest.raises(AssertionError):
        check_steps(ReducedRun, Problem("softplus", "softplus"), dim=13, batch=9)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["activation", "loss", "constraint", "all"])
def test_own_things_have_one_law(own, kind):
    rate = {"activation": 0.1, "loss": 0.01, "constraint": 0.02, "all": 0.02}[kind]
    setting = Setting(own_problem(kind, 0.1), 20, 20, rate, 15, 150)
    direct, reduced = sample(DirectRun, setting, 1000, 1), sample(ReducedRun, setting, 3000, 2)
    assert min(p_values(direct, reduced).values()) > ALPHA


def test_a_switch_to_a_loss_of_ones_own(own):
    problem = Problem("he2", "he2", loss="late", switch_fraction=0.9)
    run = Cell(problem, dim=30, batch=200, lr=0.02, initial=Initial(overlap=0.4), engine="exact").replica(0)
    run.advance(100)
    assert run.switch_step is not None
    assert run._rule().errors.function != 0
    assert run.recovery_step is not None


def test_moments_that_do_not_exist_are_said(own):
    for kind, what in (("activation", "activation 'softplus'"), ("loss", "loss 'quartic'")):
        assert find_engine("auto", own_problem(kind), 100) is ReducedRun
        with pytest.raises(SpecificationError, match=f"the moment engine needs closed population moments.*{what}"):
            find_engine("moment", own_problem(kind), 100)


@pytest.mark.compiled
@pytest.mark.parametrize("engine", ["direct", "direct32", "reduced"])
def test_what_is_not_finite_diverges(registered, engine):
    registered(
        Activation("inverse", "1/x", lambda x: 1.0 / x, lambda x: -1.0 / (x * x)),
        Activation("growth", "exp(exp(x²))", lambda x: math.exp(math.exp(x * x)), lambda x: math.exp(math.exp(x * x))),
        Loss("root", "", error=lambda f, y: math.sqrt(f - y)),
    )
    for problem in (Problem("growth", "growth"), Problem("he2", "he2", loss="root"), Problem("growth", "he2")):
        run = Cell(problem, dim=20, batch=50, lr=0.1, initial=Initial(), engine=engine).replica(0)
        with np.errstate(all="ignore"):
            run.advance(20)
        assert run.diverged


@pytest.mark.compiled
def test_functions_that_cannot_be_compiled(registered):
    registered(
        Activation("text", "", lambda x: "x", lambda x: 1.0),
        Activation("search", "", lambda x: np.random.default_rng().choice([x]), lambda x: 1.0),
    )
    with pytest.raises(SpecificationError, match=r"the value of activation 'text' must be .*it returns"):
        tabulate(Problem("he1", "text"))
    with pytest.raises(SpecificationError, match="functions of math, which Numba can compile"):
        tabulate(Problem("he1", "search"))


def test_kernels_on_disk_serve_every_function(registered):
    """What a kernel is told of a function is a number: another function is another number, not another kernel."""
    registered(*OWN, Activation("cube", "x³", lambda x: x**3, lambda x: 3 * x * x))
    first, second = (tabulate(Problem(name, name)) for name in ("softplus", "cube"))
    assert first.activation_codes.tolist() == second.activation_codes.tolist() == [0]
    assert len({*first.activation_functions.ravel(), *second.activation_functions.ravel()}) == 4
    assert tabulate(Problem("relu", "relu")).activation_functions.tolist() == [[0, 0]]


# ---------------------------------------------------------------- engines


SETTING = Setting(
    Problem("he2(z1) + 0.5*z2", Student("he2(x) + x", 2), noise=0.2, constraint="spherical"), 24, 16, 0.1, 10, 300
)


@pytest.mark.compiled
def test_an_engine_in_plain_numpy_has_the_law():
    plain, reduced = sample(PlainRun, SETTING, 600, 3), sample(ReducedRun, SETTING, 3000, 2)
    assert np.mean(plain["T"] < SETTING.most) > 0.2
    assert min(p_values(plain, reduced).values()) > ALPHA


def test_an_engine_is_found_by_its_name(registered):
    registered(PlainRun)
    assert find_engine("plain", SETTING.problem, 24) is PlainRun
    assert is_exact("plain")
    assert ENGINES["plain"].summary == "Every sample in d dimensions, in plain NumPy."
    data = hdsgd.simulate(Problem("he2", "he2"), dim=20, scaling=hdsgd.Scaling(batch=8, lr=0.05), steps=4, replicas=2,
                          engine="plain")  # fmt: skip
    assert np.isfinite(data["M"]).all()
    with pytest.raises(SpecificationError, match="choose from auto, exact, direct, direct32, reduced, moment, plain"):
        find_engine("fast", SETTING.problem, 24)


def test_a_row_says_where_the_class_is(registered):
    registered(Engine("other", "as reduced", exact=True, load="hdsgd.engines.reduced:ReducedRun"))
    assert find_engine("other", SETTING.problem, 24) is ReducedRun


def test_rows_and_classes_agree():
    for entry in ENGINES.values():
        if entry.run is not None:
            assert (entry.run.name, entry.run.exact) == (entry.name, entry.exact)


@pytest.mark.parametrize("loss", ["square", "adaptive"])
def test_bookkeeping_of_an_engine_in_plain_numpy(loss):
    """Steps, cost, recovery, switch, saving and divergence are those of every engine."""
    problem = Problem("he2", "he2", loss=loss, **({"switch_decay": 0.5} if loss == "adaptive" else {}))

    def start(lr=0.05, steps=0):
        X = Initial(overlap=0.3).draw(problem, 30, np.random.default_rng(1), 1)[0]
        run = PlainRun(Law(problem, 30, 40, lr), X, np.random.SeedSequence(1))
        run.advance(steps)
        return run

    straight, split = start(steps=60), start(steps=20)
    assert straight.step == 60
    assert straight.cost == 60 * 40
    assert straight.recovery_step is not None
    other = start()
    other.restore(split.state())
    other.advance(40)
    for name, array in straight.state().items():
        assert np.array_equal(array, other.state()[name], equal_nan=True), name
    stopped = start()
    stopped.advance(60, stop_at_recovery=True)
    assert stopped.step == stopped.recovery_step == straight.recovery_step
    bounded = start()
    bounded.advance(60, max_cost=100)
    assert (bounded.step, bounded.exhausted) == (3, True)
    free = Problem("he2", "he2", constraint="none")
    X = Initial().draw(free, 30, np.random.default_rng(1), 1)[0]
    run = PlainRun(Law(free, 30, 40, 1e6), X, np.random.SeedSequence(1))
    with contextlib.suppress(RuntimeWarning):
        run.advance(60)
    assert run.diverged


def test_names_of_engines_load_nothing():
    code = "import sys; from hdsgd.engines import ENGINES; assert ENGINES and not {'numba', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_protocols_are_refused(registered):
    registered(Protocol("repeat", "every batch is used twice"))
    problem = Problem("he2", "he2", protocol="repeat")
    assert problem != Problem("he2", "he2")
    assert Problem.from_dict(problem.to_dict()) == problem
    for name in ENGINES:
        with pytest.raises(SpecificationError, match="simulates the protocol one-pass, not 'repeat'"):
            find_engine(name, problem, 100)
    with pytest.raises(SpecificationError, match="unknown protocol 'twice'; choose from one-pass, repeat"):
        Problem("he2", "he2", protocol="twice")
