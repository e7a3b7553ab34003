"""Kinds of results: summary and figure of each, kinds and variables of one's own, and what a result used."""

import json
import logging

import numpy as np
import pytest
import xarray as xr
from synthetic import phase_diagram

import hdsgd
from hdsgd import Initial, Loss, Problem, ResultKind, Scaling, SpecificationError, Variable
from hdsgd.registry import REGISTRIES, Registry, imported
from hdsgd.results.extensions import extensions_of
from hdsgd.results.kinds import RESULT_KINDS
from hdsgd.results.schema import VARIABLES, finish
from hdsgd.results.summaries import problem_of

PROBLEM = Problem("he2", "he2")


@pytest.fixture(scope="module")
def results():
    """One result of each kind of the core."""
    start = Initial(overlap=0.3)
    diagram = phase_diagram(3, dims=(128, 256), mu=(0.0, 1.5, 3.0), delta=(-1.0, 0.0, 1.0))
    return {
        "simulate": hdsgd.simulate(PROBLEM, dim=50, steps=10, replicas=3),
        "ode": hdsgd.integrate_ode(PROBLEM, time=1.0, initial=start),
        "mean-map": hdsgd.mean_map(PROBLEM, dim=50, steps=10, initial=[start, start]),
        "compare": hdsgd.compare(PROBLEM, dims=[50, 100], time=0.5, replicas=4, points=5, initial=start),
        "phase-diagram": diagram.assign_attrs(timings='{"total_seconds": 1}'),
    }


def test_every_kind_names_functions_that_are_there():
    for kind in RESULT_KINDS.values():
        for place in (kind.summarise, kind.draw, *(plane.draw for plane in kind.planes)):
            assert place is None or callable(imported(place)), kind.name
        assert (kind.draw is None) == bool(kind.planes)


def test_summary_and_figure_of_every_kind(results, tmp_path):
    from hdsgd.results.summaries import kind_of

    for name, data in results.items():
        assert kind_of(data).name == name
        lines = hdsgd.summary(data).splitlines()
        assert lines[0].startswith("problem "), name
        assert max(map(len, lines)) <= 120
        for plane in (None, *(plane.name for plane in RESULT_KINDS[name].planes)):
            hdsgd.figure(data, plane).savefig(tmp_path / "it.png", dpi=40)


def test_summaries_say_what_happened(results):
    run, ode, path = (hdsgd.summary(results[name]) for name in ("simulate", "ode", "mean-map"))
    assert f"in {int(results['simulate']['recovered'].sum())} of 3 replicas" in run
    assert "ODE, Saad & Solla" in ode
    assert "mean map, first of 2 starts" in path
    for name in ("ode", "mean-map"):
        norm = np.abs(results[name]["M"].values[0, :, 0, 0])
        assert f"|M| = {norm[0]:.4f} -> {norm[-1]:.4f}" in hdsgd.summary(results[name])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda data: data.drop_vars("risk"), "of kind 'simulate' has no risk; it holds M, Q"),
        (lambda data: data.drop_attrs(), "does not say what kind"),
        (lambda data: data.assign_attrs(kind="dream"), "unknown result kind 'dream'; choose from simulate, ode"),
        (lambda data: data["M"], "is an xarray Dataset, not DataArray"),
    ],
)
def test_what_is_not_a_result_says_so(results, broken, message):
    for function in (hdsgd.summary, hdsgd.figure):
        with pytest.raises(SpecificationError, match=message):
            function(broken(results["simulate"]))


def test_a_plot_of_nothing_says_what_there_is(results):
    with pytest.raises(SpecificationError, match=r"no risk to plot; it holds .*M, Q"):
        hdsgd.plot_risk(results["simulate"].drop_vars("risk"))
    with pytest.raises(SpecificationError, match=r"every value is NaN"):
        hdsgd.plot_overlaps(results["simulate"] * np.nan)
    with pytest.raises(SpecificationError, match=r"no value"):
        hdsgd.plot_overlaps(results["simulate"].isel(replica=[]))
    with pytest.raises(SpecificationError, match=r"drawn in one way"):
        hdsgd.figure(results["compare"], "mu-theta")


@pytest.mark.parametrize(
    ("plot", "name", "message"),
    [
        (hdsgd.plot_overlaps, "compare", "one run; the dims of this Dataset are"),
        (hdsgd.plot_recovery_times, "phase-diagram", "one run; the dims"),
        (hdsgd.plot_risk, "phase-diagram", "no risk to plot"),
        (hdsgd.plot_phase_diagram, "simulate", "a phase diagram; the dims of this Dataset are"),
        (hdsgd.plot_samples, "simulate", "a phase diagram; the dims"),
        (hdsgd.plot_best_exponents, "simulate", "from a phase diagram"),
        (hdsgd.plot_comparison, "simulate", "no M_theory to plot; it holds"),
        (lambda data: hdsgd.compare_boundaries(data, "spherical"), "simulate", "needs a phase diagram; the dims"),
    ],
)
def test_a_plot_of_another_kind_of_result_says_what_it_shows(results, plot, name, message):
    with pytest.raises(SpecificationError, match=message):
        plot(results[name])


def test_a_kind_and_a_variable_of_ones_own(registered, tmp_path):
    hdsgd.register(Variable("angle", ("replica",), "angle between two rows, in degrees"))
    hdsgd.register(
        ResultKind(
            "angles", "angles of something", ("angle",),
            summarise=lambda data: f"largest angle {float(data['angle'].max()):g}",
            draw=lambda data, figure: figure.subplots().plot(data["angle"]),
        )
    )  # fmt: skip
    data = finish(xr.Dataset({"angle": ("replica", [3.0, 5.0])}), "angles", {"n": 2}, 0, {"total_seconds": 0.0})
    assert data["angle"].attrs["long_name"] == "angle between two rows, in degrees"
    again = hdsgd.load(hdsgd.save(data, tmp_path / "angles.nc"))
    assert hdsgd.summary(again) == "largest angle 5"
    assert len(hdsgd.figure(again).axes) == 1
    assert {used["kind"] for used in json.loads(again.attrs["extensions"])} == {"result kind", "variable"}
    with pytest.raises(AssertionError, match=r"has dims"):
        finish(xr.Dataset({"angle": ("step", [3.0])}), "angles", {}, 0, {})


def test_a_result_names_what_it_used(registered, tmp_path, caplog):
    """A loss of one's own: named in the result, missed in one line when it is loaded without, and by who needs it."""
    hdsgd.register(Loss("damped", "a square loss in disguise", kappa=1.0))
    run = hdsgd.simulate(Problem("he2", "he2", loss="damped"), dim=50, steps=5, replicas=2, scaling=Scaling(lr=0.01))
    used = {"kind": "loss", "name": "damped", "module": __name__}
    assert json.loads(run.attrs["extensions"]) == [used]
    path = hdsgd.save(run, tmp_path / "run.nc")
    with caplog.at_level(logging.WARNING, logger="hdsgd"):
        assert problem_of(hdsgd.load(path)).loss == "damped"
        assert not caplog.messages
        for store in (REGISTRIES["loss"]._entries, REGISTRIES["loss"]._modules):
            del store["damped"]
        again = hdsgd.load(path)
    assert len(caplog.messages) == 1
    assert f"loss 'damped' of the module {__name__}" in caplog.messages[0]
    assert f"missing loss 'damped' of the module {__name__}" in hdsgd.summary(again)
    with pytest.raises(SpecificationError, match=r"used loss 'damped' of the module .*register it"):
        hdsgd.add_diversity(again)


def test_what_came_with_hdsgd_is_not_named(results):
    for name, data in results.items():
        assert "extensions" not in data.attrs, name


def test_where_names_stand_in_specifications(registered):
    hdsgd.register(Loss("one", "", kappa=1.0))
    hdsgd.register(Loss("two", "", kappa=0.0))
    hdsgd.register(hdsgd.Switch("both", "", first="one", then="square"))
    hdsgd.register(hdsgd.Constraint("loose", "", tangential=True, normalised=False))
    hdsgd.register(hdsgd.Algorithm("mine", "", "two", "loose"))

    def names(specification):
        return [f"{used['kind']} {used['name']}" for used in extensions_of(specification, "simulate", [])]

    assert names({"problem": {"loss": "both"}}) == ["loss both", "loss one"]
    assert names({"algorithms": {"mine": {"n0": 1}}}) == ["algorithm mine", "constraint loose", "loss two"]
    assert names({"problem": {"constraint": "loose"}, "title": "one"}) == ["constraint loose"]


def test_registering(registered):
    cubic = Loss("cubic", "(y - f)³/3", error=lambda f, y: (f - y) ** 2)
    assert hdsgd.register(cubic) is cubic

    def again(power):  # a cell of a notebook, run twice: other functions, the same text
        return Loss("quartic", "¼(y - f)⁴", error=lambda f, y: (f - y) ** power)

    hdsgd.register(again(3))
    hdsgd.register(again(3))
    with pytest.raises(SpecificationError, match=r"there is a loss 'quartic' already"):
        hdsgd.register(again(5))
    with pytest.raises(SpecificationError, match=r"there is a loss 'square' already"):
        hdsgd.register(Loss("square", "", kappa=0.0))
    with pytest.raises(SpecificationError, match=r"one word"):
        hdsgd.register(Loss("my loss", "", kappa=0.0))
    with pytest.raises(SpecificationError, match=r"cannot be registered; it is none of: .*constraint.*loss"):
        hdsgd.register(3)
    losses = REGISTRIES["loss"]
    assert not losses.is_own("cubic")
    assert losses.is_own("square")
    assert losses.module("cubic") == __name__


def test_a_class_is_registered_by_its_base(monkeypatch):
    class Base:
        name, summary = "base", ""

    class Derived(Base):
        name = "derived"

    Base.__module__ = "hdsgd.test"
    monkeypatch.setitem(REGISTRIES, "test", None)
    registry = Registry("test", [Base])
    assert hdsgd.register(Derived) is Derived
    assert registry["derived"] is Derived
    assert not registry.takes(int)


def test_variables_explain_themselves():
    for variable in VARIABLES.values():
        assert variable.summary
        assert isinstance(variable.dims, tuple)
