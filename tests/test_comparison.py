"""Simulations approach the ODE of their regime as d grows, at the order of theory; the mean map is closer still."""

import numpy as np
import pytest

from hdsgd import Initial, Problem, SpecificationError, Student, simulate
from hdsgd.dynamics.maps import mean_map
from hdsgd.dynamics.ode import integrate_ode
from hdsgd.policies import SaveAt, Scaling
from hdsgd.problem.initial import draw_overlaps
from hdsgd.simulation.comparison import add_diversity, compare, fit_rate
from hdsgd.theory.phases import REGIMES

SINGLE = Problem("he2", "he2")
COMMITTEE = Problem("he2(z1) + he2(z2)", Student("he2", 2))
START = Initial(overlap=0.4)


@pytest.mark.compiled
def test_order_of_convergence_in_the_population_flow():
    """δ + μ = 1.25: what the ODE leaves out first is ν ∝ d^(1-δ-μ) = d^-0.25 (theory §4), then γ ∝ d^-0.75.

    The fitted order is within 0.05 of -0.25, the share of the next order over these dimensions, plus four standard
    errors (false alarm 6e-5).  Control: the mean map, which keeps those terms, has no deviation of that order.
    """
    data = compare(SINGLE, dims=[2**q for q in range(7, 14)], scaling=Scaling(mu=0.5, delta=0.75, gamma0=0.1),
                   time=1.5, initial=START, replicas=100, points=10)  # fmt: skip
    assert data.attrs["specification"].count(REGIMES[0]) == 1
    rate, error = float(data["rate"].sel(theory="ode")), float(data["rate_error"].sel(theory="ode"))
    assert 0 < error < 0.05
    assert abs(rate + 0.25) < 0.05 + 4 * error, (rate, error)
    ode, finite_d = (data.sel(theory=name) for name in ("ode", "map"))
    assert (finite_d["deviation"] + 2 * finite_d["deviation_error"] < 0.3 * ode["deviation"]).all()


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("mu", "delta", "gamma0", "time", "own"),
    [(1.0, 0.5, 0.1, 1.5, REGIMES[0]), (0.5, 0.5, 0.1, 1.5, REGIMES[1]), (0.0, 0.65, 0.5, 0.6, REGIMES[2])],
)
def test_each_regime_is_approached_by_its_own_ode(mu, delta, gamma0, time, own):
    """The deviation from the regime's own ODE falls with d; that from either other ODE, at the same steps, does not.

    γ0 is such that all three ODEs differ visibly.  d is a power of four and n_b = 1, √d or d, so that ν has no rounding
    error.
    """
    dims = [2**8, 2**14]
    data = compare(COMMITTEE, dims=dims, scaling=Scaling(mu, delta, gamma0=gamma0), time=time, initial=START,
                   replicas=60, points=10)  # fmt: skip
    assert f'"regime":"{own}"' in data.attrs["specification"]
    M0, Q0 = data["M"].values[0, 0, 0], data["Q"].values[0, 0, 0]
    distance = {}
    for regime in REGIMES[:3]:
        for i, d in enumerate(dims):
            panel = data.isel(dim=i)
            lr, batch, step = float(panel["lr"]), int(panel["batch"]), panel["step"].values
            unit = lr * (lr * d / batch if regime == REGIMES[2] else 1.0)
            ode = integrate_ode(COMMITTEE, initial=Initial(M=M0, Q=Q0), time=step[-1] * unit, dim=d, regime=regime,
                                scaling=Scaling(mu, delta, gamma0=gamma0), save=SaveAt(step * unit))  # fmt: skip
            gap = panel["M"].mean("replica").values - ode["M"].values[0]
            distance[regime, d] = float(np.sqrt((gap**2).mean()))
    small, large = dims
    assert distance[own, large] < 0.6 * distance[own, small] or distance[own, large] < 0.01
    for other in set(REGIMES[:3]) - {own}:
        assert distance[other, large] > 2 * distance[own, large]
        assert distance[other, large] > 0.02


@pytest.mark.compiled
def test_mean_map_tracks_simulations_where_the_ode_does_not():
    """d = 64, large steps and batches: only the map with the intra-batch interaction agrees with the replicas.

    Agreement is within four standard errors of the deviation (false alarm 6e-5) and 0.01, the size of what the map
    leaves out, the fluctuations of the norm.
    """
    dim, steps = 64, 12
    data = compare(SINGLE, dims=[dim], scaling=Scaling(mu=1.5, delta=0.25, gamma0=0.1), points=steps, replicas=400,
                   time=steps * 0.1 * dim**-0.25 + 1e-9, initial=START)  # fmt: skip
    panel = data.isel(dim=0)
    gap, error = panel["deviation"].sel(theory="map"), panel["deviation_error"].sel(theory="map")
    assert gap < 0.01 + 4 * error
    assert panel["deviation"].sel(theory="ode") > 3 * (gap + error)
    M0, Q0 = panel["M"].values[0, 0], panel["Q"].values[0, 0]
    scaling = Scaling(batch=int(panel["batch"]), lr=float(panel["lr"]))
    without = mean_map(SINGLE, dim=dim, steps=steps, scaling=scaling, initial=Initial(M=M0, Q=Q0), intra_batch=False,
                       save=SaveAt(panel["step"].values))  # fmt: skip
    apart = np.sqrt(((without["M"].values[0] - panel["M"].mean("replica").values)[1:] ** 2).mean())
    assert apart > 3 * (gap + error)


@pytest.mark.compiled
def test_dataset_and_reproducibility():
    options = {"dims": [50, 30], "scaling": Scaling(mu=1.0, delta=0.5, gamma0=1.0), "time": 0.5, "replicas": 4,
               "points": 5, "initial": START}  # fmt: skip
    data, again = compare(COMMITTEE, **options), compare(COMMITTEE, threads=1, **options)
    assert data["dim"].values.tolist() == [30, 50]
    assert data["M"].dims == ("dim", "replica", "point", "student", "teacher")
    for name in ("M", "Q", "M_theory", "deviation"):
        assert np.array_equal(data[name].values, again[name].values)
    assert np.array_equal(data["M"].values[0, 0, 0], data["M"].values[1, 3, 0]), "one start for all"
    np.testing.assert_allclose(
        data["M_theory"].values[:, :, 0], np.broadcast_to(data["M"].values[0, 0, 0], (2, 2, 2, 2))
    )


def test_fitted_rate():
    dims = np.array([100, 1000, 10000])
    rate, error = fit_rate(dims, 3.0 * dims**-0.5, 0.01 * dims**-0.5)
    assert rate == pytest.approx(-0.5)
    assert 0 < error < 0.01
    assert np.isnan(fit_rate(dims, np.full(3, 0.1), np.full(3, 0.1))).all()


def test_start_has_unit_rows():
    M, Q = draw_overlaps(COMMITTEE, dim=40, seed=3)
    assert np.array_equal(np.diag(Q), np.ones(2))
    assert np.array_equal(M, draw_overlaps(COMMITTEE, "random", 40, 3)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": [100, 100]}, "distinct"),
        ({"dims": []}, "distinct"),
        ({"scaling": Scaling(mu=1.0, delta=-0.5)}, "no ODE limit"),
        ({"scaling": Scaling(batch=10, delta=0.5)}, "as powers, mu and delta"),
        ({"time": 0.0}, "more than 0"),
        ({"time": 1e-9}, "less than one step"),
        ({"points": 0}, "at least 1"),
        ({"replicas": 0}, "at least 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(SpecificationError, match=message):
        compare(SINGLE, **{"dims": [100], "scaling": Scaling(1.0, 0.5), "time": 1.0, "initial": START, **options})


def test_diversity_along_a_trajectory():
    """Against the definition, from one explicit batch of gradients at the saved state (4 standard errors)."""
    problem, dim = Problem("he2", Student("he2", 2), noise=0.1), 30
    run = add_diversity(simulate(problem, dim=dim, scaling=Scaling(batch=20, lr=0.02), steps=4, replicas=2,
                                 initial=START))  # fmt: skip
    assert run["diversity"].dims == ("replica", "step")
    M, Q = run["M"].values[1, -1], run["Q"].values[1, -1]
    rng = np.random.default_rng(0)
    frame = np.zeros((3, dim))
    frame[:, :3] = np.linalg.cholesky(np.block([[np.eye(1), M.T], [M, Q]]))
    z = rng.standard_normal((40_000, dim))
    target, students = (z @ frame[:1].T)[:, 0], z @ frame[1:].T
    y = target**2 - 1 + np.sqrt(0.1) * rng.standard_normal(len(z))
    error = (students**2 - 1).mean(axis=1) - y
    c = students * error[:, None]
    square = (c**2).sum(axis=1) * (z**2).sum(axis=1)
    mean = np.einsum("sj,si->ji", c, z) / len(z)
    # The squared norm of a mean over n samples exceeds that of the expectation by the mean square over n.
    expected = square.mean() / ((mean**2).sum() - square.mean() / len(z))
    assert float(run["diversity"][1, -1]) == pytest.approx(expected, rel=0.1)


def test_diversity_needs_a_dimension():
    ode = integrate_ode(SINGLE, initial=Initial(M=[[0.3]], Q=[[1.0]]), time=1.0, dim=None)
    with pytest.raises(SpecificationError, match="at a given dimension"):
        add_diversity(ode)


def test_the_prefactor_is_found_and_said_once(caplog):
    caplog.set_level("INFO", logger="hdsgd")
    compare(Problem("he2", "he2"), dims=[20, 40, 80], scaling=Scaling(0.5, 0.5), replicas=2, time=0.2, points=2)
    assert [record.message.split(" = ")[0] for record in caplog.records if "critical prefactor" in record.message] == [
        "gamma0"
    ]
