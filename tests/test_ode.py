"""Mean map and overlap ODEs: against explicit steps in R^d, flows integrated by hand, and Saad & Solla's equations."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import ndtri

from hdsgd import Initial, Problem, SpecificationError, Student, Switch, Target, register, simulate
from hdsgd.dynamics.maps import mean_map, step_mean
from hdsgd.dynamics.ode import METHODS, IntegrationError, integrate_ode
from hdsgd.moments.population import population_moments, population_risk
from hdsgd.policies import Integrator, SaveAt, Scaling
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.initial import draw_overlaps

FALSE_ALARM = 1e-6  # of one Monte Carlo test, whatever the number of values it compares (normal approximation)
GRAM = ((1.0, 0.3), (0.3, 1.5))
START = Initial(M=[[0.2]], Q=[[1.0]])


def threshold(values):
    return -ndtri(FALSE_ALARM / (2 * values))


def overlaps(problem, seed, d=20):
    """Unit rows and the teacher in R^d, and their overlaps."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((problem.p, d))
    W /= np.linalg.norm(W, axis=1)[:, None]
    teacher = problem.target.gram_root @ np.linalg.qr(rng.standard_normal((d, d)))[0][: problem.k]
    return W, teacher, W @ W.T, W @ teacher.T


def begin(Q0, M0):
    """One explicit start for each replica."""
    Q0, M0 = np.asarray(Q0, dtype=float), np.asarray(M0, dtype=float)
    if Q0.ndim == M0.ndim == 2:
        return Initial(M=M0, Q=Q0)
    count = len(Q0) if Q0.ndim == 3 else len(M0)
    both = (np.broadcast_to(x, (count, *x.shape[-2:])) for x in (M0, Q0))
    return [Initial(M=m, Q=q) for m, q in zip(*both, strict=True)]


def limit(regime, nu=1.0, **options):
    """Arguments of the ODE of a regime alone, without dimension and steps."""
    return {"dim": None, "scaling": Scaling(mu=0, delta=1, gamma0=nu), "regime": regime, **options}


def explicit_steps(problem, W, teacher, batch, lr, square, runs, rng):
    """Q', M' before normalisation of `runs` independent steps, from the definition of the algorithms (theory §1)."""
    z = rng.standard_normal((runs, batch, W.shape[1]))
    student, truth = (np.einsum("jd,nvd->jnv", X, z) for X in (W, teacher))
    sigma, a = problem.student.function, problem.student.a / problem.p
    y = problem.target.function(truth) + math.sqrt(problem.noise) * rng.standard_normal((runs, batch))
    error = np.einsum("j,jnv->nv", a, sigma(student[None])) - y if square else -y
    slope = np.polynomial.Polynomial(sigma.power_coefficients()).deriv()(student)
    slope = slope + sum(link.derivative(student) for link in sigma.links)
    gradient = np.einsum("jnv,nvd->njd", a[:, None, None] * slope * error, z) / batch
    if CONSTRAINTS[problem.constraint].tangential:
        along = np.einsum("njd,jd->nj", gradient, W) / (W**2).sum(1)
        gradient = gradient - along[..., None] * W
    moved = W - lr * gradient
    return np.einsum("njd,nld->njl", moved, moved), np.einsum("njd,rd->njr", moved, teacher)


@pytest.mark.compiled
@pytest.mark.parametrize("constraint", ["projected", "spherical", "none", "tangential"])
@pytest.mark.parametrize("loss", ["square", "correlation"])
@pytest.mark.parametrize("activation", ["he2(x) + 0.5*x", "erf(x)"])
def test_step_mean_against_explicit_steps(activation, loss, constraint, own):
    """p = 3, k = 2, d = 20, n_b = 7, general P, norms other than 1; leaving out the interaction must fail for erf."""
    target = "he2(z1) + z1*z2" if activation != "erf(x)" else "erf(z1) + erf(z2)"
    problem = Problem(
        Target(target, GRAM), Student(activation, 3, (1.0, -0.7, 1.3)), 0.2, loss=loss, constraint=constraint
    )
    W, teacher, _, _ = overlaps(problem, 4)
    W *= np.array([[1.0], [0.8], [1.2]])
    rng = np.random.default_rng(7)
    parts = [explicit_steps(problem, W, teacher, 7, 0.1, loss == "square", 4000, rng) for _ in range(15)]
    Q, M = (np.concatenate(part) for part in zip(*parts, strict=True))
    samples = np.concatenate([Q.reshape(len(Q), -1), M.reshape(len(M), -1)], axis=1)
    mean, error = samples.mean(0), samples.std(0) / math.sqrt(len(samples))

    def scores(intra_batch):
        q, m = step_mean(problem, W @ W.T, W @ teacher.T, dim=20, batch=7, lr=0.1, intra_batch=intra_batch)
        return np.abs(mean - np.concatenate([q.ravel(), m.ravel()])) / error

    assert scores(True).max() < threshold(samples.shape[1])
    if activation == "erf(x)":
        assert scores(False).max() > threshold(samples.shape[1])


def descend(problem, W, teacher, lr, steps):
    """Gradient descent on the population loss in R^d: mean gradients from A by solving with Ω; the adaptive rule."""
    W, switch = W.copy(), None
    start = population_risk(problem, W @ W.T, W @ teacher.T)
    path = [W]
    for step in range(steps):
        rate, loss = lr, problem.loss
        if loss == "adaptive":
            loss = "correlation" if switch is None else "square"
            if switch is not None:
                rate *= problem.switch_factor * (1 + step - switch) ** -problem.switch_decay
        both = np.concatenate([W, teacher])
        A = population_moments(problem, W @ W.T, W @ teacher.T, loss).A
        gradient = A @ np.linalg.solve(both @ both.T, both)
        if CONSTRAINTS[problem.constraint].tangential:
            gradient -= (gradient * W).sum(1, keepdims=True) * W / (W**2).sum(1, keepdims=True)
        W = W - rate * gradient
        if CONSTRAINTS[problem.constraint].normalised:
            W /= np.linalg.norm(W, axis=1)[:, None]
        path.append(W)
        risk = population_risk(problem, W @ W.T, W @ teacher.T)
        if problem.loss == "adaptive" and switch is None and risk < problem.switch_fraction * start:
            switch = step + 1
    return np.array(path), switch


@pytest.mark.parametrize("constraint", ["projected", "spherical", "none", "tangential"])
@pytest.mark.parametrize("loss", ["square", "correlation", "adaptive"])
def test_mean_map_at_infinite_batch_is_gradient_descent(loss, constraint, own):
    """All that is left of the noise is the interaction within the batch; at γ = 0.1 its absence is plain to see."""
    options = {"switch_fraction": 0.9, "switch_factor": 0.7, "switch_decay": 0.3} if loss == "adaptive" else {}
    problem = Problem("he2(z1) + z2", Student("he2(x) + x", 2), loss=loss, constraint=constraint, **options)
    W, teacher, Q0, M0 = overlaps(problem, 1, d=9)
    path, switch = descend(problem, W, teacher, 0.1, 8)
    args = {"dim": 9, "scaling": Scaling(batch=2**53, lr=0.1), "steps": 8, "initial": begin(Q0, M0)}
    ds = mean_map(problem, **args)
    np.testing.assert_array_equal(ds.step, np.arange(9))
    np.testing.assert_allclose(ds.M[0], path @ teacher.T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ds.Q[0], path @ path.transpose(0, 2, 1), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ds.risk[0], population_risk(problem, ds.Q[0], ds.M[0]))
    norms = np.linalg.norm(ds.M[0].values, axis=(1, 2))
    assert bool(ds.recovered[0]) == (norms >= 0.5).any()
    assert int(ds.recovery_time[0]) == (int(np.argmax(norms >= 0.5)) if (norms >= 0.5).any() else 8)
    if loss == "adaptive":
        assert switch is not None or constraint in ("none", "tangential")  # where correlation drives the risk up
        assert int(ds.switch_step[0]) == (-1 if switch is None else switch)
    without = mean_map(problem, **args, intra_batch=False)
    assert np.abs(without.Q - ds.Q).max() > 1e-3


def test_mean_map_of_one_step_is_the_normalised_mean():
    problem = Problem("he3(z1) + z2", Student("he3", 2), noise=0.1, constraint="spherical")
    *_, Q0, M0 = overlaps(problem, 2)
    start = begin(np.stack([Q0, Q0]), M0)
    ds = mean_map(problem, dim=20, scaling=Scaling(batch=3, lr=0.01), steps=1, initial=start, save=SaveAt([1]))
    q, m = step_mean(problem, Q0, M0, dim=20, batch=3, lr=0.01)
    norms = np.sqrt(np.diag(q))
    assert ds.M.dims == ("replica", "step", "student", "teacher")
    assert ds.Q.dims == ("replica", "step", "student", "student_2")
    assert ds.sizes["replica"] == 2
    for n in range(2):
        np.testing.assert_allclose(ds.M[n, 0], m / norms[:, None], rtol=1e-13)
        np.testing.assert_allclose(ds.Q[n, 0], q / np.outer(norms, norms), rtol=1e-13)
    assert json.loads(ds.attrs["specification"])["batch"] == 3


def test_mean_map_reports_divergence():
    problem = Problem("he3", "he3", constraint="none")
    ds = mean_map(problem, dim=10, scaling=Scaling(batch=1, lr=1.0), steps=50, initial=Initial(M=[[0.1]], Q=[[1.0]]))
    assert ds.status[0] == 3
    assert np.isnan(ds.M[0, -1]).all()
    assert np.isnan(ds.risk[0, -1])
    assert 0 < ds.recovery_time[0] < 50


@pytest.mark.compiled
@pytest.mark.parametrize("constraint", ["projected", "spherical", "none", "tangential"])
def test_mean_map_tends_to_the_finite_d_ode(constraint, own):
    """At fixed d and γ/n_b the two differ by O(γ) at a fixed time: fitted order 1; they differ from the ODE with νD."""
    problem = Problem("he2(z1) + z2", Student("he2(x) + x", 2), noise=0.1, constraint=constraint)
    *_, Q0, M0 = overlaps(problem, 3)
    gaps = []
    for halvings in range(5):
        lr = 0.02 / 2**halvings
        args = {"dim": 20, "scaling": Scaling(batch=16, lr=lr), "steps": 50 * 2**halvings}
        args |= {"initial": begin(Q0, M0), "save": SaveAt(1)}
        final = mean_map(problem, **args).isel(step=-1)
        ode = integrate_ode(problem, **args, regime="finite d", integrator=Integrator(rtol=1e-10)).isel(step=-1)
        gaps.append(max(np.abs(final.M - ode.M).max(), np.abs(final.Q - ode.Q).max()))
        plain = integrate_ode(problem, **args).isel(step=-1)
        assert np.abs(plain.M - ode.M).max() > 1e-3 * lr
    order = np.log2(np.array(gaps[:-1]) / gaps[1:])
    assert abs(order[-1] - 1) < 0.1
    assert gaps[0] > gaps[-1] > 1e-8  # the fit is not one of rounding errors


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
        *_, Q0, M0 = overlaps(problem, 5, d=50)
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


# ---------------------------------------------------------------- losses, constraints, activations of one's own

SOFTPLUS = {"activation": "softplus(x) - 0.5*x", "second_layer": [4.0]}


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("options", "dim", "batch", "lr"),
    [
        ({"constraint": "tangential"}, 1000, 400, 0.004),
        ({"constraint": "tangential", "loss": "quartic"}, 100, 20_000, 1e-4),
        ({"loss": "quartic"}, 100, 20_000, 1e-4),
        ({"student": SOFTPLUS}, 100, 2000, 0.02),
        ({"student": SOFTPLUS, "loss": "quartic"}, 100, 20_000, 1e-3),
    ],
)
def test_engine_follows_the_deterministic_dynamics(options, dim, batch, lr, own):
    """Replicas of the reduced engine scatter around the mean map, and the ODE is near; another rate is far off."""
    problem = Problem(**{"target": "he2", "student": "he2", **options})
    start, steps, replicas = Initial(M=[[0.5]], Q=[[1.0]]), 15, 100
    args = {"dim": dim, "scaling": Scaling(batch=batch, lr=lr), "steps": steps, "initial": start, "save": SaveAt(1)}
    run = simulate(problem, **args, replicas=replicas, engine="reduced")
    path, flow = mean_map(problem, **args), integrate_ode(problem, **args)
    other = mean_map(problem, **{**args, "scaling": Scaling(batch=batch, lr=1.5 * lr)})
    free = not CONSTRAINTS[problem.constraint].normalised
    for name in ("M", "Q") if free else ("M",):
        values = run[name].values[:, -1, 0, 0]
        # The mean map leaves out fluctuations, which a step's curvature turns into a drift: a thousandth here.
        slack = (threshold(2) + 0.5) * values.std() / math.sqrt(replicas) + 1e-3 * abs(values.mean() - 1)
        mapped, wrong = (float(data[name][0, -1, 0, 0]) for data in (path, other))
        assert abs(values.mean() - mapped) < slack, name
        assert abs(values.mean() - wrong) > slack, name
    moved = float(path.M[0, -1, 0, 0]) - 0.5
    assert abs(float(flow.M[0, -1, 0, 0]) - float(path.M[0, -1, 0, 0])) < 0.06 * moved


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


@pytest.mark.compiled
def test_a_switch_between_any_two_losses(own):
    """Correlation, then a quartic loss: the mean map and the finite-d ODE change at the same time."""
    register(Switch("hardening", "correlation, then quartic", "correlation", "quartic"))
    problem = Problem("he2", "he2", loss="hardening", switch_fraction=0.8, switch_factor=0.02)
    lr = 0.002
    args = {"dim": 1000, "scaling": Scaling(batch=2000, lr=lr), "initial": Initial(M=[[0.3]], Q=[[1.0]]), "steps": 150}
    path, flow = mean_map(problem, **args), integrate_ode(problem, **args, regime="finite d")
    switch = int(path.switch_step[0])
    assert 0 < switch < 150
    assert float(flow.switch_step[0]) == pytest.approx(switch, abs=1.5)
    np.testing.assert_allclose(path.M[0, -1], flow.M[0, -1], rtol=0.02)
    before, after = (float(path.M[0, :, 0, 0].diff("step").sel(step=slice(*ends)).mean()) for ends in
                     ((1, switch), (switch + 1, None)))  # fmt: skip
    assert after < 0.9 * before


def test_what_cannot_be_computed_is_said_before_or_left_out(own):
    wide = {"dim": 100, "initial": "random", "scaling": Scaling(batch=100, lr=0.01), "steps": 3}
    with pytest.raises(SpecificationError, match="by quadrature take at least"):
        mean_map(Problem("he2", Student("softplus", 7)), **wide)
    with pytest.raises(SpecificationError, match="by quadrature take at least"):
        integrate_ode(Problem("he2", Student("he2", 7), loss="quartic"), **wide)
    rough = mean_map(Problem("relu", "relu", loss="quartic"), **wide)
    assert "relative errors of about" in json.loads(rough.attrs["notes"])[0]
    assert "notes" not in mean_map(Problem("he2", "softplus"), **wide).attrs


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


# ---------------------------------------------------------------- starts


def test_starts_are_drawn_as_everywhere():
    """One drawn start for each replica, the first with the seed itself; it is the one that `draw_overlaps` shows."""
    problem = Problem("he2(z1) + z2", Student("he2(x) + x", 2))
    ds = mean_map(problem, dim=30, steps=2, initial=["positive", Initial(overlap=0.2), "random"], seed=7)
    for n, initial in enumerate(["positive", Initial(overlap=0.2), "random"]):
        M, Q = draw_overlaps(problem, initial, 30, 7 + n)
        np.testing.assert_array_equal(ds.M[n, 0], M)
        np.testing.assert_array_equal(ds.Q[n, 0], Q)
    flow = integrate_ode(problem, dim=30, steps=2, initial=Initial(overlap=0.2), seed=8)
    np.testing.assert_array_equal(flow.M[0, 0], ds.M[1, 0])
    spec = json.loads(flow.attrs["specification"])
    assert (spec["initial"], spec["seed"]) == ([Initial(overlap=0.2).to_dict()], 8)


def test_default_end_is_time_ten():
    ds = integrate_ode(Problem("he2", "he2"), initial=START, dim=100)
    assert float(ds.t[-1]) == 10
    assert len(ds.t) == 201


def test_saved_times_spread_logarithmically():
    ds = mean_map(Problem("he2", "he2"), steps=1000, initial=START, dim=100, save=SaveAt(4, "log"))
    np.testing.assert_array_equal(ds.step, [0, 1, 10, 100, 1000])
