"""Phase diagrams: cells, statuses, budgets, reproducibility, and agreement with theory."""

import json

import numpy as np
import pytest

import hdsgd
from hdsgd import Initial, Problem, SpecificationError, phase_diagram
from hdsgd.analysis.boundaries import cell_edges, cell_times, compare_boundaries, select_cells
from hdsgd.engines import reduced
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import Plane, StopRule, Store, Workers
from hdsgd.problem.constraints import Algorithm
from hdsgd.simulation.cells import Cell
from hdsgd.sweeps import plan
from hdsgd.sweeps.plan import automatic_n0
from hdsgd.theory.prefactors import critical_prefactor, drift_time

PROBLEM = Problem("he2", "he2")
MU, DELTA = [0.0, 1.0, 2.0], [-0.5, 0.5, 1.0]
SMALL = {
    "dims": 40,
    "plane": Plane(MU, DELTA),
    "replicas": 2,
    "stop": StopRule(max_cost=2e4),
    "engine": "reduced",
}
NAMES = ("recovery_time", "recovered", "status", "samples")


@pytest.fixture(scope="module")
def small():
    return phase_diagram(PROBLEM, **SMALL)


def test_dataset(small):
    assert dict(small.sizes) == {"algorithm": 3, "dim": 1, "mu": 3, "delta": 3, "replica": 2}
    assert small["recovery_time"].dims == ("algorithm", "dim", "mu", "delta", "replica")
    assert small["batch"].dims == ("algorithm", "dim", "mu")
    assert small["lr"].dims == ("algorithm", "dim", "delta")
    spec = json.loads(small.attrs["specification"])
    for a, name in enumerate(small["algorithm"].values):
        rule = spec["algorithms"][name]
        expected = [max(1, round(rule["n0"] * 40**mu)) for mu in MU]
        assert small["batch"][a, 0].values.tolist() == expected
        np.testing.assert_allclose(small["lr"][a, 0], [rule["gamma0"] * 40**-delta for delta in DELTA])
    recovered, status = small["recovered"].values, small["status"].values
    assert ((status == OUTCOMES["recovered"]) == recovered).all()
    assert (small["recovery_time"].values <= small["steps_allowed"].values[..., None]).all()
    assert (small["samples"] == small["recovery_time"] * small["batch"]).all()


def test_cells_do_not_depend_on_threads_or_grid(small):
    again = phase_diagram(PROBLEM, workers=Workers(1), **SMALL)
    part = phase_diagram(PROBLEM, **{**SMALL, "plane": Plane([1.0], [0.5, 1.0]), "algorithms": ["spherical"]})
    for name in NAMES:
        assert np.array_equal(small[name], again[name])
        same = small[name].sel(algorithm=["spherical"], mu=[1.0], delta=[0.5, 1.0])
        assert np.array_equal(same, part[name])


def test_several_dimensions(small):
    """A panel is the same alone and beside others; the prefactors are those of all."""
    both = phase_diagram(PROBLEM, **{**SMALL, "dims": [60, 40]})
    assert both["dim"].values.tolist() == json.loads(both.attrs["specification"])["dims"] == [40, 60]
    for name in (*NAMES, "steps_allowed", "predicted_time", "batch", "lr"):
        assert np.array_equal(both[name].sel(dim=[40]), small[name]), name
    assert select_cells(both, "projected")["dim"] == 60
    assert compare_boundaries(both, "spherical", 40) == compare_boundaries(small, "spherical")
    with pytest.raises(SpecificationError, match="no dim 50 in this Dataset; it has 40, 60"):
        compare_boundaries(both, "spherical", 50)


def test_work_bound_of_a_run(monkeypatch):
    """Of an engine whose work is not known beforehand, as `reduced` is taken for here, a run finds out itself."""
    monkeypatch.setattr(plan, "is_exact", lambda name: False)
    options = {**SMALL, "algorithms": ["projected"], "plane": Plane([1.0], [0.5, 1.0]), "stop": StopRule()}
    free = phase_diagram(PROBLEM, **options)
    assert (free["status"] != OUTCOMES["over_budget"]).all()
    bound = phase_diagram(PROBLEM, **{**options, "stop": StopRule(max_cost=240)})  # two steps of 120 samples
    wanted = free["recovery_time"] > 2
    assert wanted.any()
    assert ((bound["status"] == OUTCOMES["over_budget"]) == wanted).all()
    assert (bound["recovery_time"] == free["recovery_time"].clip(max=2)).all()
    enough = float(free["predicted_time"].max() * 4 + 10) * 120 + 120
    assert (
        phase_diagram(PROBLEM, **{**options, "stop": StopRule(max_cost=enough)})["status"] != OUTCOMES["over_budget"]
    ).all()


def test_a_cell_is_repeated_by_a_run_of_its_own(small):
    cell = small.sel(algorithm="correlation", dim=40, mu=1.0, delta=0.5)
    problem = Problem.from_algorithm("correlation", "he2", "he2")
    run = Cell(
        problem, dim=40, batch=int(cell["batch"]), lr=float(cell["lr"]), initial=Initial(), engine="reduced"
    ).replica(1)
    run.advance(int(cell["steps_allowed"]), stop_at_recovery=True)
    assert run.recovery_step == int(cell["recovery_time"][1])


def test_cells_beyond_the_cost_bound_are_marked_and_not_run():
    data = phase_diagram(PROBLEM, **{**SMALL, "stop": StopRule(max_cost=100), "algorithms": ["projected"]})
    row = data.sel(algorithm="projected", mu=2.0)
    assert (row["status"] == OUTCOMES["over_budget"]).all()
    assert (row["recovery_time"] == 0).all()
    assert cell_times(select_cells(data, "projected"))[1][2].tolist() == ["over_budget"] * 3


def test_a_failed_cell_does_not_stop_the_sweep(monkeypatch):
    advance = reduced.ReducedRun.advance

    def fail(self, *args, **options):
        if self.batch > 1:
            raise FloatingPointError("no good")
        advance(self, *args, **options)

    monkeypatch.setattr(reduced.ReducedRun, "advance", fail)
    data = phase_diagram(PROBLEM, **{**SMALL, "plane": Plane(MU, DELTA, n0=1.0), "algorithms": ["projected"]})
    failed = data["status"].sel(mu=1.0) == OUTCOMES["failed"]
    assert failed.all()
    assert (data["status"].sel(mu=0.0) != OUTCOMES["failed"]).all()
    errors = json.loads(data.attrs["errors"])
    assert set(errors.values()) == {"FloatingPointError: no good"}


def test_divergence_is_recorded():
    free = Algorithm("free", "square loss, rows left as they are", "square", "none")
    plane = Plane([1.0], [-4.0], n0=1.0, gamma0=1.0)
    data = phase_diagram(PROBLEM, dims=40, plane=plane, algorithms=[free], replicas=2)
    assert (data["status"] == OUTCOMES["diverged"]).all() or data["recovered"].all()
    assert data["algorithm"].values.tolist() == ["free"]
    assert compare_boundaries(data, "free") is None, "there is no theory without normalisation"


def test_median_counts_censored_runs_as_infinite(small):
    panel = select_cells(small, "projected").copy(deep=True)
    panel["recovered"][0, 0] = [True, False]
    panel["recovery_time"][0, 0] = [3, 50]
    panel["recovered"][0, 1] = [False, False]
    panel["status"][0, 1] = OUTCOMES["censored"]
    time, kind = cell_times(panel)
    assert (time[0, 0], kind[0, 0]) == (3, "recovered")
    assert (time[0, 1], kind[0, 1]) == (np.inf, "censored")


@pytest.mark.compiled
@pytest.mark.parametrize(("ell", "dim", "max_cost"), [(1, 2000, 1e6), (2, 1000, 5e6), (3, 400, 2e7)])
def test_boundary_lies_where_theory_has_it(ell, dim, max_cost):
    """Cells that do not touch the line agree with theory §5, for all three algorithms, but for at most one.

    Cells are about 0.25 wide, as is the transition at d of some hundreds, and one cell may lie at its edge: of twelve
    panels of He3 with other seeds none had such a cell at d = 400, three had one at d = 128.  The exception documented
    in theory §5, ℓ = 1 projected at δ < 0, is left out.
    """
    target = f"he{ell}"
    # For He3 learnt with the correlation loss n0 < 0.1: at smaller mu all cells have n_b = 1 and are the same cells.
    mu = np.linspace(0.6 if ell == 3 else 0, max(ell, 2) - 0.2, 8).round(2)
    delta = np.linspace(0.05 if ell == 1 else -0.75, 1.45, 9).round(2)
    options = {"dims": dim, "plane": Plane(mu, delta), "replicas": 5, "stop": StopRule(max_cost=max_cost)}
    data = phase_diagram(Problem(target, target), **options)
    for name in data["algorithm"].values:
        found = compare_boundaries(data, name)
        assert found["agree"] >= 18, (name, found)
        assert found["disagree"] <= 1, (name, found)


@pytest.mark.compiled
def test_a_wrong_boundary_is_noticed():
    """Negative control: the same cells against the theory of ℓ = 3."""
    data = phase_diagram(PROBLEM, dims=500, plane=Plane([0.0, 0.4, 0.8, 1.2], [0.0, 0.3, 0.6, 0.9, 1.2]), replicas=5,
                         algorithms=["spherical"], stop=StopRule(max_cost=1e6))  # fmt: skip
    wrong = data.attrs["specification"].replace('"exponent":2', '"exponent":3')
    assert compare_boundaries(data, "spherical")["disagree"] == 0
    assert compare_boundaries(data.assign_attrs(specification=wrong), "spherical")["disagree"] > 2


def test_automatic_n0():
    """He2/He2.  Projected: the largest stable step 1/2 over the critical ratio 1/6.

    Spherical, at overlap m: signal 4m(1-m²), squared norm 16m²(1-m²), D = 48(1-m²); hence D m²/(S² - m² G), largest at
    the end of the range, m = 3/8: 48/(16(1-m²) - 16m²).  Correlation: S = 4m, G = 16m², D = 8 + 32m²:
    (8 + 32m²)/(16 - 16m²).
    """
    m2 = 0.375**2
    expected = {"projected": 3.0, "spherical": 48 / (16 - 32 * m2), "correlation": (8 + 32 * m2) / (16 - 16 * m2)}
    for algorithm, value in expected.items():
        problem = Problem.from_algorithm(algorithm, "he2", "he2")
        assert automatic_n0(problem, critical_prefactor(problem), 0.5) == pytest.approx(value, rel=1e-9), algorithm


def test_drift_time():
    """Against steps of the recursion m <- m + rate m^(ℓ-1) with a small rate."""
    for ell in (1, 2, 3, 4):
        m, steps, rate = 100**-0.5, 0, 1e-3
        while m < 0.5:
            m += rate * m ** (ell - 1)
            steps += 1
        assert drift_time(ell, rate, 100, 0.5) == pytest.approx(steps, rel=0.01)


def test_edges():
    np.testing.assert_allclose(cell_edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(cell_edges(np.array([2.0])), [1.5, 2.5])


def test_figure(small, tmp_path):
    from hdsgd import figure

    figure(small).savefig(tmp_path / "it.png")
    with pytest.raises(SpecificationError, match="say which algorithm"):
        hdsgd.plot_phase_diagram(small)
    with pytest.raises(SpecificationError, match="this Dataset has projected"):
        hdsgd.plot_phase_diagram(small, algorithm="adam")
    with pytest.raises(SpecificationError, match="no M to plot"):
        hdsgd.plot_overlaps(small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: {"algorithms": []}, "at least one algorithm"),
        (lambda: {"algorithms": ["adam"]}, "choose from projected"),
        (lambda: {"algorithms": ["projected", Algorithm("projected", "", "square", "none")]}, "same name"),
        (lambda: {"plane": Plane([], DELTA)}, "at least one value"),
        (lambda: {"plane": Plane([0, 0], DELTA)}, "same value twice"),
        (lambda: {"plane": Plane(MU, ["x"])}, "must be a number"),
        (lambda: {"plane": Plane([12.0], DELTA)}, "can be counted"),
        (lambda: {"plane": Plane(n0=-1)}, "more than 0"),
        (lambda: {"plane": Plane(gamma0="big")}, "must be a number"),
        (lambda: {"stop": StopRule(max_steps=0)}, "from 1 to"),
        (lambda: {"stop": StopRule(max_cost=0)}, "at least 1"),
        (lambda: {"stop": StopRule(eta=2)}, "between 0 and 1"),
        (lambda: {"replicas": 0}, "at least 1"),
        (lambda: {"workers": Workers(threads=0)}, "from 1"),
        (lambda: {"dims": 2, "engine": "reduced"}, "k \\+ 2p"),
        (lambda: {"dims": []}, "at least one, not"),
        (lambda: {"dims": [40, 40]}, "must be distinct dimensions"),
        (lambda: {"dims": [40, 1]}, "from 2"),
        (lambda: {"algorithms": [Algorithm("mine", "", "hinge", "none")]}, "choose from square"),
        (lambda: {"store": "phase.txt"}, "must end in .nc or .zarr"),
        (lambda: {"store": "/nowhere/phase.nc"}, "does not exist"),
        (lambda: {"store": Store("x.nc", resume=True, overwrite=True)}, "exclude each other"),
    ],
)
def test_refusals(options, message, monkeypatch):
    """Before the first step."""
    monkeypatch.setattr(Cell, "recover", None)
    with pytest.raises(SpecificationError, match=message):
        phase_diagram(PROBLEM, **{**SMALL, **options()})
