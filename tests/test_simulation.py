"""`simulate` and `Run`: labelled results that depend on the specification and the seed, and on nothing else."""

import json

import numpy as np
import pytest

from hdsgd import Initial, Problem, SpecificationError, Student, simulate
from hdsgd.engines import find_engine
from hdsgd.engines.base import Cancelled
from hdsgd.policies import SaveAt, Scaling
from hdsgd.results.schema import VARIABLES
from hdsgd.simulation.cells import Cell

PROBLEM = Problem("he2", "he2", noise=0.01)
SMALL = {"dim": 30, "scaling": Scaling(batch=12, lr=0.05), "steps": 8, "replicas": 3, "save": SaveAt(4)}
ENGINES = ["direct", "direct32", "reduced"]


def equal(a, b):
    """Bit for bit, timings aside."""
    assert a.drop_attrs(deep=False).identical(b.drop_attrs(deep=False))


@pytest.mark.parametrize("engine", ENGINES)
def test_dataset(engine):
    problem = Problem("he2(z1) + z2", Student("x**2 + x", 2))
    data = simulate(problem, engine=engine, initial=Initial(overlap=0.1), **SMALL)
    assert dict(data.sizes) == {"replica": 3, "step": 5, "student": 2, "student_2": 2, "teacher": 2}
    assert data["step"].values.tolist() == [0, 2, 4, 6, 8]
    for name, variable in data.data_vars.items():
        assert variable.dims == VARIABLES[name].dims
        assert variable.attrs["long_name"]
    np.testing.assert_allclose(data["M"].values[:, 0, :, 0], 0.1, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(data["Q"].values, axis1=2, axis2=3), 1.0, atol=1e-12)
    share = 1 - (data["M"].values ** 2).sum(axis=-1)
    np.testing.assert_allclose(data["misalignment"].values, share, atol=1e-12)
    spec = json.loads(data.attrs["specification"])
    assert Problem.from_dict(spec["problem"]) == problem
    assert (spec["engine"], spec["batch"], spec["lr"]) == (engine, 12, 0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_and_number_of_replicas_change_nothing(engine):
    one = simulate(PROBLEM, engine=engine, threads=1, **SMALL)
    equal(one, simulate(PROBLEM, engine=engine, threads=3, **SMALL))
    more = simulate(PROBLEM, engine=engine, threads=2, **{**SMALL, "replicas": 5})
    equal(one, more.isel(replica=slice(3)))
    assert not np.array_equal(one["M"][0, -1], one["M"][1, -1])


@pytest.mark.parametrize("engine", ENGINES)
def test_save_points_and_eta_do_not_disturb_the_run(engine):
    coarse = simulate(PROBLEM, engine=engine, eta=0.9, **{**SMALL, "save": SaveAt(1)})
    fine = simulate(PROBLEM, engine=engine, **{**SMALL, "save": SaveAt(8)})
    assert np.array_equal(coarse["M"].values[:, -1], fine["M"].values[:, -1])


def test_seeds_and_specifications_draw_different_numbers():
    runs = [simulate(PROBLEM, **SMALL), simulate(PROBLEM, seed=1, **SMALL), simulate(PROBLEM, engine="direct", **SMALL),
            simulate(Problem("he2", "he2", noise=0.02), **SMALL)]  # fmt: skip
    starts = {float(run["M"][0, 0, 0, 0]) for run in runs}
    assert len(starts) == len(runs)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", ["square", "adaptive"])
def test_split_run_equals_straight_run(engine, loss):
    problem = Problem("he2", Student("he2", 2), noise=0.01, loss=loss)
    if loss == "adaptive":
        problem = Problem("he2", Student("he2", 2), loss=loss, switch_fraction=0.9, switch_decay=0.5, switch_factor=0.7)
    cell = Cell(problem, dim=20, batch=30, lr=0.2, initial=Initial(overlap=0.4), engine=engine)
    straight = cell.replica(0)
    straight.advance(9)
    for split in (1, 4, 8):
        first = cell.replica(0)
        first.advance(split)
        second = cell.replica(7)  # any replica: its state is replaced
        second.restore(first.state())
        second.advance(9 - split)
        assert second.switch_step == straight.switch_step
        assert second.recovery_step == straight.recovery_step
        for name, array in straight.state().items():
            np.testing.assert_array_equal(second.state()[name], array, err_msg=name)
    if loss == "adaptive":
        assert straight.switch_step is not None


@pytest.mark.parametrize("engine", ENGINES)
def test_adaptive_loss_switches_when_the_risk_has_fallen(engine):
    problem = Problem("he2", "he2", loss="adaptive", switch_fraction=0.7)
    cell = Cell(problem, dim=30, batch=60, lr=0.05, initial=Initial(overlap=0.4), engine=engine)
    run = cell.replica(0)
    start = run._risk(run.overlaps())
    seen = []
    for _ in range(15):
        seen.append((run.switch_step, run._risk(run.overlaps()) / start))
        run.advance(1)
    first = next(i for i, (_, ratio) in enumerate(seen) if ratio < 0.7)
    assert first > 0
    assert all(switch == (None if i < first else first) for i, (switch, _) in enumerate(seen))


@pytest.mark.parametrize("engine", ENGINES)
def test_recovery_time_is_the_first_step_at_the_threshold(engine):
    data = simulate(PROBLEM, engine=engine, dim=20, scaling=Scaling(batch=40, lr=0.08), steps=40, save=SaveAt(40),
                    eta=0.6, replicas=4)  # fmt: skip
    norm = np.abs(data["M"].values[:, :, 0, 0])
    for r in range(4):
        above = np.flatnonzero(norm[r] >= 0.6)
        assert bool(data["recovered"][r]) == (len(above) > 0)
        assert int(data["recovery_time"][r]) == (above[0] if len(above) else 40)


def test_recovered_from_the_start():
    data = simulate(PROBLEM, initial=Initial(overlap=0.7), **SMALL)
    assert data["recovered"].all()
    assert (data["recovery_time"] == 0).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_divergence_is_data(engine):
    problem = Problem("he2", "he3", constraint="none")
    data = simulate(problem, engine=engine, dim=30, scaling=Scaling(batch=5, lr=10.0), steps=30, replicas=2,
                    save=SaveAt(30))  # fmt: skip
    assert (data["status"] == 3).all()
    assert np.isnan(data["M"].values[:, -1]).all()
    assert np.isfinite(data["M"].values[:, 0]).all()
    assert (data["recovery_time"].values <= 30).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_cancel_stops_within_a_step(engine):
    run = Cell(PROBLEM, dim=30, batch=2**40, lr=0.1, initial=Initial(), engine=engine).replica(0)
    run.cancel()
    with pytest.raises(Cancelled):
        run.advance(1)
    assert run.step == 0


@pytest.mark.compiled
def test_dimension_of_a_thousand_million():
    data = simulate(Problem("he2", "he2"), dim=10**9, scaling=Scaling(batch=10**4, lr=1e-6), steps=5, replicas=2)
    assert data.attrs["digest"]
    assert np.abs(data["M"].values).max() < 1e-3


def test_auto_engine():
    assert find_engine("exact", PROBLEM, 100).name == "reduced"
    assert find_engine("auto", PROBLEM, 2).name == "direct"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "quantum"}, "choose from auto, exact, direct, direct32, reduced, moment"),
        ({"engine": "reduced", "dim": 2}, r"dim >= k \+ 2p = 3"),
        ({"engine": "direct", "dim": 10**9}, "use engine 'reduced'"),
        ({"dim": 1}, "from 2"),
        ({"dim": 2.5}, "whole number"),
        ({"scaling": {"batch": 12}}, "scaling must be a Scaling, not {'batch': 12}"),
        ({"save": 100}, "save must be a SaveAt, not 100"),
        ({"save": SaveAt([3, 9])}, "a saved step must be from 0 to 8, not 9"),
        ({"save": SaveAt([0.5])}, "whole number"),
        ({"steps": 0}, "from 1 to"),
        ({"replicas": -1}, "at least 1"),
        ({"eta": 1.0}, "between 0 and 1"),
        ({"eta": float("nan")}, "finite"),
        ({"seed": -1}, "at least 0"),
        ({"threads": 0}, "from 1"),
        ({"initial": "uniform"}, "choose from random"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(SpecificationError, match=message) as error:
        simulate(PROBLEM, **{**SMALL, **options})
    assert "\n" not in str(error.value)
