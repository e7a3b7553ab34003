"""What can fail fails before the first step, or costs only what it concerns: a run is never lost at its end."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

import hdsgd
from hdsgd import Initial, Problem, SaveAt, Scaling, SpecificationError, Student, compare, simulate
from hdsgd.dynamics.ode import IntegrationError
from hdsgd.outcomes import OUTCOMES
from hdsgd.results.schema import finish, note, notes_of, outcome
from hdsgd.simulation import comparison, runs

PROBLEM = Problem("he2", "he2")
SMALL = {"dim": 30, "scaling": Scaling(batch=4, lr=0.02), "steps": 4, "replicas": 2, "save": SaveAt(2)}


@pytest.fixture
def never_runs(monkeypatch):
    """Taking a step fails the test."""
    monkeypatch.setattr(runs, "run_tasks", lambda *args: pytest.fail("a step was taken"))


def test_a_run_without_moments_is_kept(tmp_path):
    """30 relus: the engines run, but the population risk would take too long."""
    data = simulate(Problem("relu", Student("relu", 30)), **{**SMALL, "dim": 100})
    assert np.isfinite(data["M"]).all()
    assert np.isnan(data["risk"]).all()
    (reason,) = notes_of(data)
    assert reason.startswith("no population risk: population moments of this problem")
    assert reason in hdsgd.summary(data)
    assert reason in hdsgd.summary(hdsgd.load(hdsgd.save(data, tmp_path / "run.nc")))
    texts = " ".join(text.get_text() for axes in hdsgd.figure(data).axes for text in axes.texts)
    assert "every value is NaN" in texts.replace("\n", " ")
    with pytest.raises(SpecificationError, match=r"no risk to plot: every value is NaN .no population risk"):
        hdsgd.plot_risk(data, Figure().subplots())


def test_a_run_whose_risk_fails_at_the_end_is_kept(monkeypatch):
    from hdsgd.moments import population

    real, calls = population.population_risk, []

    def failing(*args):
        calls.append(args)
        if len(calls) > 1:
            raise ValueError("no convergence")
        return real(*args)

    monkeypatch.setattr(population, "population_risk", failing)
    data = simulate(PROBLEM, **SMALL)
    assert np.isfinite(data["M"]).all()
    assert notes_of(data) == ["no population risk: no convergence"]


def test_states_that_memory_does_not_hold(monkeypatch, never_runs):
    monkeypatch.setattr("hdsgd.checks.free_memory", lambda: 5 * 10**9)
    for save in (SaveAt(10**9), SaveAt(10**9, "log")):
        with pytest.raises(SpecificationError, match=r"need \d+ GB of memory, 5 GB are free; save fewer"):
            simulate(PROBLEM, **{**SMALL, "steps": 10**9, "save": save})
    with pytest.raises(SpecificationError, match=r"run fewer replicas"):
        simulate(PROBLEM, **{**SMALL, "replicas": 10**9})
    with pytest.raises(SpecificationError, match=r"GB are free"):
        compare(PROBLEM, dims=[30], scaling=Scaling(1, 0.5), replicas=10**9)


def test_free_memory():
    from hdsgd.checks import free_memory

    free = free_memory()
    assert free is None or 10**7 < free < 10**15


@pytest.mark.parametrize("seed", [2**63, 2**64 + 1, np.int64(3), np.uint64(2**63)])
@pytest.mark.parametrize("name", ["run.nc", "run.zarr"])
def test_every_seed_can_be_stored(tmp_path, seed, name):
    data = simulate(PROBLEM, seed=seed, **SMALL)
    again = hdsgd.load(hdsgd.save(data, tmp_path / name))
    assert int(again.attrs["seed"]) == int(seed)
    assert json.loads(again.attrs["specification"])["seed"] == int(seed)


def test_seeds_are_stored_in_every_kind_of_result():
    import xarray as xr

    for kind in hdsgd.results.kinds.RESULT_KINDS:
        assert finish(xr.Dataset(), kind, {}, 2**63, {}).attrs["seed"] == str(2**63)
        assert finish(xr.Dataset(), kind, {}, 2**63 - 1, {}).attrs["seed"] == 2**63 - 1


def test_compare_refuses_before_the_first_step(monkeypatch):
    """An engine that cannot take the second dimension; a time less than a step; an impossible start."""
    monkeypatch.setattr(comparison, "simulate", lambda *args, **options: pytest.fail("a step was taken"))
    grid = {"dims": [30, 10**8], "scaling": Scaling(1, 0.5), "time": 0.1, "replicas": 2, "points": 1}
    with pytest.raises(SpecificationError, match=r"use engine 'reduced'"):
        compare(PROBLEM, engine="direct", **grid)
    with pytest.raises(SpecificationError, match=r"less than one step of .* at dim = 30"):
        compare(PROBLEM, **{**grid, "time": 1e-6})
    with pytest.raises(SpecificationError, match=r"positive semi-definite|between"):
        compare(PROBLEM, initial=Initial(overlap=1.5), **grid)


def test_a_comparison_without_its_ode_is_kept(monkeypatch, tmp_path):
    def diverging(*args, **options):
        raise IntegrationError("the overlaps grow without bound near t = 0.1")

    monkeypatch.setattr(comparison, "integrate_ode", diverging)
    data = compare(PROBLEM, dims=[30, 60], scaling=Scaling(1, 0.5), time=0.5, replicas=4, points=3)
    ode, finite_d = (data["deviation"].sel(theory=name) for name in ("ode", "map"))
    assert np.isnan(ode).all()
    assert np.isfinite(finite_d).all()
    assert "no ODE at d = 30: the overlaps grow without bound" in hdsgd.summary(data)
    hdsgd.figure(data).savefig(tmp_path / "both.png", dpi=40)


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate("he2"),
        lambda: compare("he2"),
        lambda: hdsgd.integrate_ode("he2"),
        lambda: hdsgd.mean_map("he2"),
        lambda: hdsgd.draw_overlaps("he2"),
        lambda: hdsgd.phase_diagram("he2"),
        lambda: hdsgd.predict("he2", 1000),
        lambda: hdsgd.critical_prefactors("he2"),
        lambda: hdsgd.population_moments("he2", [[1.0]], [[0.0]]),
        lambda: hdsgd.population_risk("he2", [[1.0]], [[0.0]]),
    ],
)
def test_a_problem_is_a_problem(call):
    with pytest.raises(SpecificationError, match=r"must be a Problem") as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("call", [hdsgd.simulate, hdsgd.mean_map, hdsgd.integrate_ode, hdsgd.compare])
def test_a_start_is_a_start(call):
    with pytest.raises(SpecificationError, match=r"initial must be an Initial"):
        call(PROBLEM, initial=0.3)


def test_outcomes_of_single_runs():
    """One that recovers, one that has not, and one that diverged: three codes, in every result of one run."""
    start = Initial(overlap=0.3)
    for steps, lr, overlap, expected in ((40, 0.05, 0.3, "recovered"), (2, 0.001, 0.1, "censored")):
        scaling, start = Scaling(batch=1000, lr=lr), Initial(overlap=overlap)
        one = simulate(PROBLEM, dim=100, scaling=scaling, steps=steps, replicas=1, initial=start)
        path = hdsgd.mean_map(PROBLEM, dim=100, scaling=scaling, steps=steps, initial=start)
        flow = hdsgd.integrate_ode(PROBLEM, dim=100, scaling=scaling, steps=steps, initial=start)
        assert [int(data["status"][0]) for data in (one, path, flow)] == [OUTCOMES[expected]] * 3
    free = Problem("he2", "he3", constraint="none")
    data = simulate(free, dim=30, scaling=Scaling(batch=5, lr=10.0), steps=30, replicas=2)
    assert (data["status"] == OUTCOMES["diverged"]).all()
    path = hdsgd.mean_map(free, dim=30, scaling=Scaling(batch=5, lr=10.0), steps=30)
    assert int(path["status"][0]) == OUTCOMES["diverged"]
    assert outcome([True, False, True, False], [False, False, True, True]).tolist() == [0, 1, 3, 3]


def test_notes_are_kept_once():
    import xarray as xr

    data = note(note(note(xr.Dataset(), "no α"), "no β"), "no α")
    assert notes_of(data) == ["no α", "no β"]
    assert notes_of(finish(data, "simulate", {}, None, {})) == ["no α", "no β"]


@pytest.mark.parametrize("path", [None, 5, b"run.nc", "", ".", "/"])
def test_a_path_is_a_path(path):
    with pytest.raises(SpecificationError):
        hdsgd.load(path)
    with pytest.raises(SpecificationError, match="must end in"):
        hdsgd.save(simulate(PROBLEM, **SMALL), path)


def test_many_points_of_few_steps_are_all_steps():
    short = hdsgd.mean_map(PROBLEM, dim=30, steps=5, scaling=Scaling(batch=4, lr=0.02), save=SaveAt(10**30))
    assert short.step.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_diversity_of_a_switch_of_ones_own(registered):
    registered(hdsgd.Switch("back", "square, then correlation", first="square", then="correlation"))
    data = simulate(Problem("he2", "he2", loss="back"), **SMALL)
    same = simulate(Problem("he2", "he2", loss="square"), **SMALL)
    found = hdsgd.add_diversity(data.assign(M=same.M, Q=same.Q)).diversity
    assert np.array_equal(found, hdsgd.add_diversity(same).diversity)


def test_a_divergence_is_quiet(recwarn):
    data = simulate(PROBLEM, **{**SMALL, "scaling": Scaling(batch=4, lr=1e300), "save": SaveAt(4)})
    assert (data.status == OUTCOMES["diverged"]).all()
    assert [str(warning.message) for warning in recwarn] == []


WRONG_TYPES = [
    (lambda: Problem("he2", "he2", noise="1"), "noise must be a number, not '1'"),
    (lambda: Scaling(mu="1"), "mu must be a number, not '1'"),
    (lambda: Scaling(gamma0="big"), "gamma0 must be a number or 'auto', not 'big'"),
    (lambda: hdsgd.StopRule(max_steps="many"), "max_steps must be a whole number or 'auto', not 'many'"),
    (lambda: hdsgd.Plane(mu=None), "mu must be a number, not None"),
    (lambda: hdsgd.Plane(mu="0:1:3"), "mu must be a number, not '0:1:3'"),
    (lambda: hdsgd.leaps(None), "target must be a Target"),
    (lambda: hdsgd.information_exponent(PROBLEM), "target must be a Target"),
    (lambda: hdsgd.boundaries(None), "give a Problem, or an exponent"),
    (lambda: hdsgd.optimal_point("he2", "projected"), "give a Problem, or an exponent"),
    (lambda: Problem.from_dict(None), "Problem must be a mapping"),
    (lambda: Problem.from_json(5), "Problem is not valid JSON"),
    (lambda: hdsgd.register(hdsgd.Loss("wrong", "?", error=5)), "loss 'wrong': error is a function"),
    (lambda: hdsgd.register(hdsgd.Activation("wrong", "?", 1.0, 0.0)), "activation 'wrong': value and slope"),
]


@pytest.mark.parametrize(("call", "message"), WRONG_TYPES)
def test_what_is_of_the_wrong_type(call, message):
    with pytest.raises(SpecificationError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [1, np.int64(1), np.float32(1), np.array(1.0)])
def test_one_number_is_an_axis(number):
    assert hdsgd.Plane(mu=number).mu == (1.0,)


@pytest.fixture(scope="module")
def results():
    """A result of each kind, and what is none."""
    plane = hdsgd.Plane(mu=[0.0], delta=[0.5])
    return {
        "run": simulate(PROBLEM, **SMALL),
        "comparison": compare(PROBLEM, dims=30, scaling=Scaling(1, 0.5, gamma0=0.1), replicas=2, time=0.5, points=2),
        "diagram": hdsgd.phase_diagram(PROBLEM, dims=30, plane=plane, replicas=2, stop=hdsgd.StopRule(max_cost=100)),
        "text": "run",
    }


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("plot_overlaps", kind) for kind in ("comparison", "diagram", "text")),
        *(("plot_recovery_times", kind) for kind in ("comparison", "diagram", "text")),
        *((name, kind) for name in ("plot_phase_diagram", "plot_samples") for kind in ("run", "comparison", "text")),
        *((name, kind) for name in ("add_exponents", "best_samples") for kind in ("run", "text")),
        ("add_diversity", "text"),
    ],
)
def test_results_of_another_kind(results, name, given):
    with pytest.raises(SpecificationError) as error:
        getattr(hdsgd, name)(results[given])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hdsgd.phase_diagram(PROBLEM, dims=30, plane=[1, 2]), "plane must be a Plane"),
        (lambda: hdsgd.phase_diagram(PROBLEM, dims=30, stop=100), "stop must be a StopRule"),
        (lambda: hdsgd.phase_diagram(PROBLEM, dims=30, workers=2), "workers must be a Workers"),
        (lambda: hdsgd.phase_diagram(PROBLEM, dims=30, store=5), "output 5 must end in"),
        (lambda: hdsgd.phase_diagram(PROBLEM, dims=30, algorithms=5), "unknown algorithm 5"),
        (lambda: compare(PROBLEM, dims=[]), "dims must be distinct dimensions, at least one"),
        (lambda: hdsgd.integrate_ode(PROBLEM, integrator="RK45"), "integrator must be an Integrator"),
        (lambda: hdsgd.integrate_ode(PROBLEM, scaling=None), "scaling must be a Scaling"),
        (lambda: hdsgd.integrate_ode(PROBLEM, save=10), "save must be a SaveAt"),
        (lambda: hdsgd.mean_map(PROBLEM, scaling=None), "scaling must be a Scaling"),
        (lambda: hdsgd.mean_map(PROBLEM, save=10), "save must be a SaveAt"),
        (lambda: hdsgd.population_risk(PROBLEM, "a", [[0.0]]), "Q must be an array of numbers"),
        (lambda: hdsgd.save(None, "run.nc"), "what is saved must be a Dataset"),
    ],
)
def test_a_policy_is_a_policy(call, message):
    with pytest.raises(SpecificationError) as error:
        call()
    assert message in str(error.value)
