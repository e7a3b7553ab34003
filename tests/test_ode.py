"""Overlap ODEs: against flows integrated by hand, Saad & Solla's equations, and what is refused."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from starts import START, begin, random_start

from hdsgd import Initial, Problem, SpecificationError, Student
from hdsgd.dynamics.ode import METHODS, IntegrationError, integrate_ode
from hdsgd.policies import Integrator, SaveAt, Scaling


def limit(regime, nu=1.0, **options):
    """Arguments of the ODE of a regime alone, without dimension and steps."""
    return {"dim": None, "scaling": Scaling(mu=0, delta=1, gamma0=nu), "regime": regime, **options}


# ---------------------------------------------------------------- flows integrated by hand


@pytest.mark.parametrize("method", METHODS)
def test_phase_retrieval_by_hand(method):
    """p = k = 1, He2: A = (4 (1 - m²), 0), hence dm/dt = 4 m (1 - m²) and m²/(1 - m²) grows as e^{8t}."""
    problem = Problem("he2", "he2")
    m0, rtol = 0.01, 1e-5 if method == "RK23" else 1e-9
    start, scaling = Initial(M=[[m0]], Q=[[1.0]]), Scaling(mu=1, delta=1)
    ds = integrate_ode(problem, initial=start, time=3, dim=None, scaling=scaling, integrator=Integrator(method, rtol))
    odds = m0**2 / (1 - m0**2) * np.exp(8 * ds.t.values)
    np.testing.assert_allclose(ds.M[0, :, 0, 0], np.sqrt(odds / (1 + odds)), rtol=200 * rtol)
    assert (ds.Q == 1).all()
    exact = math.log((1 / 3) / (m0**2 / (1 - m0**2))) / 8
    assert float(ds.recovery_t[0]) == pytest.approx(exact, rel=100 * rtol)
    assert bool(ds.recovered[0])
    assert "step" not in ds.coords
    assert json.loads(ds.attrs["specification"])["regime"] == "population flow"


@pytest.mark.parametrize(
    ("scaling", "options", "regime", "rate"),
    [
        ({"mu": 1.0, "delta": 0.5}, {}, "population flow", 4),
        ({"mu": 0.5, "delta": 0.5, "gamma0": 0.1, "n0": 2}, {}, "Saad & Solla", 4 - 24 * 0.05),
        ({"mu": 0.5, "delta": 0.5, "gamma0": 0.5}, {}, "Saad & Solla", 4 - 24 * 0.5),
        ({"mu": 0.5, "delta": 0.5}, {}, "Saad & Solla", 4 - 24 / 12),  # auto: half the critical prefactor
        ({"mu": 0.5, "delta": 0.4, "gamma0": 0.1}, {}, "noise dominated", -24),
        ({"batch": 50, "lr": 0.005}, {"dim": 1000}, "Saad & Solla", 4 - 24 * 0.1),
        ({"batch": 50, "lr": 0.005}, {"dim": 1000, "regime": "population flow"}, "population flow", 4),
        ({}, {"regime": "noise dominated"}, "noise dominated", -24),
        ({"mu": 0.5, "delta": 0.2, "gamma0": 0.1}, {"regime": "Saad & Solla"}, "Saad & Solla", 4 - 24 * 0.1),
    ],
)
def test_regimes_of_phase_retrieval(scaling, options, regime, rate):
    """D = 48 (1 - m²) there, so every regime is the same logistic flow at its own rate; ν = 1/6 is critical."""
    options = {"dim": None, **options}
    ds = integrate_ode(Problem("he2", "he2"), initial=START, time=0.5, scaling=Scaling(**scaling), **options)
    odds = 0.04 / 0.96 * np.exp(2 * rate * ds.t.values)
    np.testing.assert_allclose(ds.M[0, :, 0, 0], np.sqrt(odds / (1 + odds)), rtol=1e-6, atol=1e-10)
    assert json.loads(ds.attrs["specification"])["regime"] == regime
    if options["dim"]:
        np.testing.assert_allclose(ds.step, ds.t / 0.005)
        assert ds.M.dims[1] == "step"
    if rate < 0:
        assert not ds.recovered[0]
        assert ds.recovery_t[0] == 0.5


def test_noise_dominated_time_in_steps():
    """With d known a step is γ² d/n_b of its time: as the plain ODE without drift."""
    scaling = Scaling(mu=0.5, delta=0.4, gamma0=0.1)
    ds = integrate_ode(Problem("he2", "he2"), initial=START, steps=100, dim=10_000, scaling=scaling)
    lr = 0.1 * 10_000**-0.4
    np.testing.assert_allclose(ds.t, ds.step * lr**2 * 10_000 / 100)


def test_correlation_loss_stops_short():
    """dm/dt = 4m - 4m³ - ν (4 + 16 m²) m: the fixed point is m² = (1 - ν)/(1 + 4ν)."""
    problem = Problem("he2", "he2", loss="correlation")
    nu = 0.2
    ds = integrate_ode(problem, initial=START, time=10, **limit("Saad & Solla", nu))
    assert float(ds.M[0, -1, 0, 0]) ** 2 == pytest.approx((1 - nu) / (1 + 4 * nu), rel=1e-7)


def test_constrained_flows():
    """Q has exactly a unit diagonal and is positive semi-definite, to full recovery; spherical equals projected."""
    results = []
    for constraint in ("projected", "spherical"):
        problem = Problem("he2(z1) + he2(z2)", Student("he2", 3, (1.5, 1.5, 1.5)), constraint=constraint)
        *_, Q0, M0 = random_start(problem, 5, d=50)
        ds = integrate_ode(problem, initial=begin(Q0, M0), time=20, **limit("Saad & Solla", 0.01))
        assert (np.diagonal(ds.Q, axis1=2, axis2=3) == 1).all()
        assert np.linalg.eigvalsh(ds.Q.values).min() > -1e-14
        np.testing.assert_array_equal(ds.Q.values, ds.Q.values.swapaxes(2, 3))
        results.append(ds)
    np.testing.assert_array_equal(results[0].M, results[1].M)
    assert results[0].recovered.all()


def test_start_beyond_the_threshold_is_recovered_at_zero():
    ds = integrate_ode(Problem("he2", "he2"), initial=begin([[1]], [[0.7]]), time=1, **limit("population flow"))
    assert ds.recovered[0]
    assert ds.recovery_t[0] == 0


def test_adaptive_flow():
    """The switch is at the given fraction of the risk; a constant factor only changes the speed after it."""
    kwargs = {"switch_fraction": 0.5, "switch_factor": 0.25}
    problem = Problem("he2", "he2", loss="adaptive", **kwargs)
    args = {"initial": START, "regime": "population flow", "time": 3}
    steps = {"save": SaveAt(300), "dim": 100, "scaling": Scaling(batch=10, lr=0.01)}
    first = integrate_ode(problem, **args, **steps)
    switch = float(first.switch_step[0]) * 0.01
    # correlation: m²/(1-m²) grows as e^{8t}, as for the square loss, so the risk 2 (1-m²) is known
    odds = 0.04 / 0.96 * math.exp(8 * switch)
    assert 1 / (1 + odds) == pytest.approx(0.5 * 0.96, rel=1e-6)
    late = first.t.values > switch
    odds = odds * np.exp(8 * 0.25 * (first.t.values[late] - switch))
    np.testing.assert_allclose(first.M[0, late, 0, 0], np.sqrt(odds / (1 + odds)), rtol=1e-6)
    decaying = Problem("he2", "he2", loss="adaptive", switch_fraction=0.5, switch_decay=1.0)
    ds = integrate_ode(decaying, **args, **steps)
    late = ds.t.values > switch
    odds = 0.04 / 0.96 * math.exp(8 * switch) * (1 + (ds.t.values[late] - switch) / 0.01) ** (8 * 0.01)
    np.testing.assert_allclose(ds.M[0, late, 0, 0], np.sqrt(odds / (1 + odds)), rtol=1e-6)
    with pytest.raises(SpecificationError, match="switch_decay"):
        integrate_ode(decaying, **args, dim=None)


def test_norms_of_tangential_rows_grow_by_noise_alone(own):
    """He2/He2 with the correlation loss: without noise norms stay; with it dQ/dt = ν D, D = 4 E[λ² He2(λ*)²]."""
    problem = Problem("he2", "he2", loss="correlation", constraint="tangential")
    quiet = integrate_ode(problem, initial=START, time=0.1, **limit("population flow"))
    np.testing.assert_allclose(quiet.Q, 1.0, atol=1e-12)
    nu, h = 0.3, 1e-4
    noisy = integrate_ode(problem, initial=START, time=h, save=SaveAt(1), **limit("Saad & Solla", nu))
    assert float(noisy.Q[0, -1, 0, 0] - 1) / h == pytest.approx(nu * (8 + 32 * 0.2**2), rel=1e-2)
    # dM/dt = -A_teacher + A_jj M/Q, as of the spherical step; D acts on the norm only
    assert float(noisy.M[0, -1, 0, 0] - 0.2) / h == pytest.approx(4 * 0.2 * (1 - 0.2**2), rel=1e-2)


# ---------------------------------------------------------------- Saad & Solla


def third(C, u, v, w):
    """⟨g'(u) v g(w)⟩ of Saad & Solla (1995), g(x) = erf(x/√2), from the covariance C."""
    root = math.sqrt((1 + C[u, u]) * (1 + C[w, w]) - C[u, w] ** 2)
    return 2 / math.pi / root * (C[v, w] * (1 + C[u, u]) - C[u, v] * C[u, w]) / (1 + C[u, u])


def fourth(C, u, v, w, z):
    """⟨g'(u) g'(v) g(w) g(z)⟩."""
    a, b, c = 1 + C[u, u], 1 + C[v, v], C[u, v]
    L4 = a * b - c**2
    L0 = L4 * C[w, z] - C[v, w] * C[v, z] * a - C[u, w] * C[u, z] * b + c * C[u, w] * C[v, z] + c * C[u, z] * C[v, w]
    L1 = L4 * (1 + C[w, w]) - C[v, w] ** 2 * a - C[u, w] ** 2 * b + 2 * c * C[u, w] * C[v, w]
    L2 = L4 * (1 + C[z, z]) - C[v, z] ** 2 * a - C[u, z] ** 2 * b + 2 * c * C[u, z] * C[v, z]
    return 4 / math.pi**2 / math.sqrt(L4) * math.asin(L0 / math.sqrt(L1 * L2))


def saad_solla(t, y, eta, p, k):
    """Their equations of motion for the overlaps (R, Q), time α η, orthonormal teacher."""
    R, Q = y[: p * k].reshape(p, k), y[p * k :].reshape(p, p)
    C = np.block([[Q, R], [R.T, np.eye(k)]])
    students, teachers = range(p), range(p, p + k)

    def drift(i, v):
        return sum(third(C, i, v, m) for m in teachers) - sum(third(C, i, v, j) for j in students)

    dR = np.array([[drift(i, n) for n in teachers] for i in students])
    dQ = np.empty((p, p))
    for i, j in itertools.product(students, repeat=2):
        noise = sum(fourth(C, i, j, n, m) for n in teachers for m in teachers)
        noise -= 2 * sum(fourth(C, i, j, n, m) for n in students for m in teachers)
        noise += sum(fourth(C, i, j, n, m) for n in students for m in students)
        dQ[i, j] = drift(i, j) + drift(j, i) + eta * noise
    return np.concatenate([dR.ravel(), dQ.ravel()])


@pytest.mark.compiled
def test_saad_solla_committee():
    """Erf committee, p = k = 2, unconstrained, through plateau and specialisation; a wrong noise factor must fail."""
    problem = Problem("erf(z1/sqrt(2)) + erf(z2/sqrt(2))", Student("erf(x/sqrt(2))", 2, (2.0, 2.0)), constraint="none")
    Q0, M0, eta = np.diag([0.3, 0.2]), np.array([[0.1, 0.0], [0.0, 0.05]]), 0.8
    times = np.linspace(0, 120, 31)
    start = np.concatenate([M0.ravel(), Q0.ravel()])
    want = solve_ivp(saad_solla, (0, 120), start, "DOP853", times, args=(eta, 2, 2), rtol=1e-9, atol=1e-11)
    args = {
        "initial": begin(Q0, M0),
        "time": 120,
        "save": SaveAt(times),
        "integrator": Integrator("LSODA", 1e-10, 1e-12),
    }
    ds = integrate_ode(problem, **args, **limit("Saad & Solla", eta))
    np.testing.assert_allclose(ds.M[0].values.reshape(31, 4), want.y[:4].T, atol=1e-6)
    np.testing.assert_allclose(ds.Q[0].values.reshape(31, 4), want.y[4:].T, atol=1e-6)
    assert abs(float(ds.M[0, -1, 0, 0])) > 0.95  # specialised
    other = integrate_ode(problem, **args, **limit("Saad & Solla", 2 * eta))
    assert np.abs(other.Q[0].values.reshape(31, 4) - want.y[4:].T).max() > 1e-2


# ---------------------------------------------------------------- requests and failures

FLOW = {"initial": START, "dim": None, "regime": "population flow"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": Scaling(batch=3)}, "as mu and delta"),
        ({"scaling": Scaling(mu=0.5, delta=0.1), "regime": "auto"}, "no ODE limit"),
        ({"regime": "chaos"}, "Saad & Solla"),
        ({"time": 1, "steps": 10, "dim": 100}, "not both"),
        ({"steps": 10}, "give dim"),
        ({"regime": "finite d"}, "needs dim"),
        ({"eta": 1.0}, "eta"),
        ({"time": 1, "save": SaveAt([0.5, 2.0])}, "save"),
        ({"initial": "random"}, "needs dim"),
        ({"initial": []}, "holds no start"),
        ({"initial": 3}, "Initial"),
        ({"initial": begin([[1.0]], [[1.2]])}, "not overlaps of any vectors"),
        ({"initial": begin([[2.0]], [[0.2]])}, "unit diagonal"),
        ({"initial": begin(np.eye(2), [[0.2]])}, "Q must have shape"),
    ],
)
def test_incomplete_or_contradictory_requests(options, message):
    with pytest.raises(SpecificationError, match=message):
        integrate_ode(Problem("he2", "he2"), **{**FLOW, **options})


@pytest.mark.parametrize("method", ["LSODA", "DOP853"])
def test_blow_up_is_reported(method):
    """dM/dt = 18 M² from 1/2: infinite at t = 1/9."""
    problem = Problem("he3", "he3", loss="correlation", constraint="none")
    with pytest.raises(IntegrationError, match=r"without bound near t = 0\.1111"):
        integrate_ode(
            problem, **{**FLOW, "initial": begin([[1.0]], [[0.5]])}, time=1, integrator=Integrator(method, 1e-6, 1e-6)
        )


def test_replicas_and_saved_times():
    problem = Problem("he2", "he2")
    M0 = np.array([0.1, 0.2, 0.7]).reshape(3, 1, 1)
    save = [0.0, 0.25, 1.0]
    args = {"time": 1, "save": SaveAt(save), **limit("population flow")}
    ds = integrate_ode(problem, initial=begin([[1.0]], M0), **args)
    np.testing.assert_array_equal(ds.t, save)
    assert ds.M.shape == (3, 3, 1, 1)
    np.testing.assert_allclose(ds.M[:, 0], M0)
    alone = integrate_ode(problem, initial=begin([[1.0]], M0[1]), **args)
    np.testing.assert_array_equal(alone.M[0], ds.M[1])
    scaling = Scaling(batch=10, lr=0.01)
    steps = integrate_ode(problem, initial=begin([[1.0]], M0), steps=40, save=SaveAt(7), dim=100, scaling=scaling)
    assert steps.step.values[-1] == 40
    assert (steps.step == np.round(steps.step)).all()
    np.testing.assert_allclose(steps.recovery_time, steps.recovery_t / 0.01)
    for variable in steps.variables.values():
        assert variable.attrs["long_name"]


def test_stiff_flow():
    """Widely different rates (a second layer of 30 and 1): the default method copes, and agrees with Radau."""
    problem = Problem("he2(z1) + he2(z2)", Student("he2", 2, (30.0, 1.0)))
    args = {"initial": begin(np.eye(2), [[0.1, 0.0], [0.0, 0.1]]), "time": 20, **limit("population flow")}
    default, radau = (
        integrate_ode(problem, **args),
        integrate_ode(problem, **args, integrator=Integrator("Radau", 1e-7)),
    )
    np.testing.assert_allclose(default.M[0, -1], radau.M[0, -1], atol=1e-5)


def test_default_end_is_time_ten():
    ds = integrate_ode(Problem("he2", "he2"), initial=START, dim=100)
    assert float(ds.t[-1]) == 10
    assert len(ds.t) == 201
