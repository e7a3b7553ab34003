"""Measured exponents: the censored regression, what enters it, and the comparison with theory.

Tests of coverage count intervals of ±1.96 standard errors that hold the truth among 2000 lines, and take 94 to 98 %.
Intervals are meant to be a little too wide; if they were right (95 %), fewer than 94 % would happen with probability
0.02.  Seeds are fixed.
"""

import json
import time

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_ndtr
from synthetic import phase_diagram

from hdsgd import SpecificationError
from hdsgd.analysis.censored import LEAST_SPREAD, fit_lines
from hdsgd.analysis.exponents import (
    KINDS,
    add_exponents,
    best_exponents,
    best_samples,
    compare_exponents,
    fit_exponents,
)
from hdsgd.outcomes import OUTCOMES
from hdsgd.theory.phases import best_exponent, exponent
from hdsgd.theory.prefactors import drift_time

X = np.log([256.0, 512.0, 1024.0, 2048.0])


def times(noise, *, level=2.0, slope=0.7, spread=0.4, end=np.inf):
    """Rounded and censored times of lines: ends of their intervals; noise (lines, K, R)."""
    t = np.exp(level + slope * (X - X[0])[None, :, None] + np.reshape(spread, (-1, 1)) * noise)
    end = np.reshape(end, (-1, 1)) * np.ones_like(t)
    seen = t <= end
    T = np.where(seen, np.ceil(t), np.floor(end))
    low = np.log(np.where(seen, np.maximum(T - 1, 0.5), T))
    return low, np.where(seen, np.log(T), np.inf)


def fit(low, high, used=None):
    return fit_lines(X, low, high, np.ones(low.shape, dtype=bool) if used is None else used)


def covered(lines, slope=0.7):
    return float((np.abs(lines.slope - slope) <= 1.96 * lines.error).mean())


NORMAL = np.random.default_rng(1).standard_normal((2000, 4, 16))
GUMBEL = np.random.default_rng(2).gumbel(size=(2000, 4, 16))
START = -np.log(np.abs(np.random.default_rng(3).standard_normal((2000, 4, 16))))  # T ∝ 1/|m0|
RISING = 2.0 + 0.7 * (X - X[0])


@pytest.mark.parametrize(
    ("noise", "options"),
    [
        pytest.param(NORMAL, {}, id="plain"),
        pytest.param(NORMAL[:, :, :3], {}, id="three replicas"),
        pytest.param(NORMAL, {"spread": 0.5, "end": np.exp(RISING + 0.3)}, id="censored in proportion"),
        pytest.param(NORMAL, {"spread": 0.5, "end": 30.0}, id="censored at a fixed time"),
        pytest.param(NORMAL, {"spread": [0.8, 0.6, 0.5, 0.4]}, id="spread falls with d"),
        pytest.param(NORMAL, {"spread": [0.5, 0.45, 0.4, 0.35], "end": np.exp(RISING + 0.4)}, id="falls, censored"),
        pytest.param(GUMBEL, {"end": np.exp(RISING + 0.8)}, id="Gumbel, censored"),
        pytest.param(START, {"spread": 1.0, "end": np.exp(RISING + 2.0)}, id="random initial overlap, censored"),
        pytest.param(NORMAL, {"level": 0.0, "spread": 0.3}, id="few steps"),
    ],
)
def test_coverage(noise, options):
    low, high = times(noise, **options)
    assert np.isinf(high).mean() < 0.45
    lines = fit(low, high)
    assert 0.94 <= covered(lines) <= 0.98
    assert abs(lines.slope.mean() - 0.7) < 0.35 * np.median(lines.error)
    # Errors are of the size of the scatter, not merely large.
    assert 0.95 < np.median(lines.error) / lines.slope.std() < 1.25


def test_dropping_censored_runs_is_noticed():
    """Negative control: the same data without their censored runs, or with them as if they had recovered."""
    low, high = times(NORMAL, spread=0.5, end=30.0)
    seen = np.isfinite(high)
    assert covered(fit(low, high)) > 0.94
    dropped = fit(low, high, seen)
    assert dropped.slope.mean() < 0.6
    assert covered(dropped) < 0.85
    assert covered(fit(low, np.where(seen, high, low + 0.01))) < 0.85


def test_ignoring_the_rounding_is_noticed():
    """Negative control: times of a few steps taken as exact."""
    low, high = times(NORMAL, level=0.2, spread=0.2)
    assert covered(fit(low, high)) > 0.94
    assert covered(fit(high - 1e-4, high)) < 0.85


def test_it_is_the_maximum_of_the_likelihood():
    """Against a general optimiser of the likelihood as it is written down."""
    low, high = times(NORMAL[:5], spread=0.5, end=20.0)
    lines = fit(low, high)
    for i in range(5):

        def cost(parameters, i=i):
            a, slope, log_spread = parameters
            mean, spread = (a + slope * X)[:, None], np.exp(log_spread)
            p = np.exp(log_ndtr((high[i] - mean) / spread)) - np.exp(log_ndtr((low[i] - mean) / spread))
            return -np.log(p).sum() + 0.5 * (LEAST_SPREAD / spread) ** 2

        start = [RISING[0] - 0.7 * X[0], 0.7, np.log(0.5)]
        found = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000})
        assert lines.slope[i] == pytest.approx(found.x[1], abs=1e-4)
        assert lines.spread[i] == pytest.approx(np.exp(found.x[2]), rel=1e-3)


def test_times_that_agree():
    """No spread at all: the error is that of rounding, and one is not a better number than it is."""
    for steps, error in ((1, 0.13), (3, 0.077), (100, 0.0021)):
        high = np.full((1, 4, 16), np.log(steps))
        lines = fit(np.log(np.maximum(steps - 1, 0.5)) + 0 * high, high)
        assert lines.slope[0] == pytest.approx(0, abs=1e-3)
        # Uniform over one step: ln(n/(n-1))/sqrt(12) at each x, over the root of Σ(x - mean)² = 2.40.
        assert lines.error[0] == pytest.approx(error, rel=0.2)
    low, high = times(np.zeros((1, 4, 16)), level=3.0)
    assert fit(low, high).slope[0] == pytest.approx(0.7, abs=0.03)


def test_scatter_about_the_line_enlarges_the_error():
    level = np.array([0.0, 0.5, -0.5, 0.0])[None, :, None]
    low, high = times(NORMAL[:50] * 0.2 + level, level=4.0, spread=1.0)
    lines = fit(low, high)
    assert (lines.scatter > 8).all()
    straight = fit(*times(NORMAL[:50] * 0.2, level=4.0, spread=1.0))
    assert np.median(straight.scatter) < 1
    assert (lines.error > 3 * straight.error).all()


def test_odd_lines():
    low, high = times(NORMAL[:6])
    used = np.ones(low.shape, dtype=bool)
    used[0] = False  # nothing
    used[1, 1:] = False  # one x
    used[2, :, 1:], used[2, 0] = False, False  # three observations
    high[3] = np.inf  # nothing seen
    high[4, 1:] = np.inf  # seen at one x only
    used[5, 2:] = False  # two x
    lines = fit(low, high, used)
    assert np.isnan(lines.slope[:4]).all()
    assert np.isnan(lines.error[:4]).all()
    assert np.isfinite(lines.error[4:]).all()
    assert np.isnan(lines.scatter[5])
    assert fit(low[:0], high[:0]).slope.shape == (0,)
    # A line does not depend on its neighbours.
    np.testing.assert_array_equal(fit(low[5:], high[5:], used[5:]).slope, lines.slope[5:])


# ---------------------------------------------------------------- phase diagrams


@pytest.mark.parametrize("ell", [1, 2, 3, 4])
def test_exponents_of_theory_are_found(ell):
    """Times built with the finite-size factor: θ within five standard errors everywhere, and unbiased."""
    c = max(ell, 2)
    grid = {"mu": np.linspace(0, c, 7), "delta": np.linspace(-1.0, c / 2 + 0.5, 8)}
    data = phase_diagram(ell, patience=4, prefactor=20, **grid)
    fits = fit_exponents(data)
    assert fits["theta"].dims == ("algorithm", "mu", "delta")
    assert fits["theta_kind"].attrs["flag_meanings"].split() == list(KINDS)
    for name in data["algorithm"].values:
        panel = fits.sel(algorithm=name)
        theta = exponent(grid["mu"][:, None], grid["delta"][None, :], ell, name)
        np.testing.assert_array_equal(panel["theta_predicted"], theta)
        learns = np.isfinite(theta)
        assert (panel["theta_kind"].values[learns] == KINDS["fitted"]).all()
        assert (panel["theta_kind"].values[~learns] == KINDS["not_learnt"]).all()
        assert np.isnan(panel["theta"].values[~learns]).all()
        assert (panel["theta_dims"].values == np.where(learns, 4, 0)).all()
        z = (panel["theta"].values - theta)[learns] / panel["theta_error"].values[learns]
        assert np.abs(z).max() < 5
        assert abs(np.median(z)) < 0.6
        found = compare_exponents(data, name)
        assert found["fitted"] == learns.sum()
        assert found["compared"] >= 4
        assert found["uncertain"] == 0
        assert found["median"] < 0.1
        assert found["within"] >= 0.8 * found["compared"]


def test_without_the_correction_the_logarithm_shows():
    data = phase_diagram(2, prefactor=20)
    raw = compare_exponents(add_exponents(data, log_correction=False), "correlation")
    corrected = compare_exponents(data, "correlation")
    slope = np.polyfit(X, np.log([drift_time(2, 1.0, d, 0.5) for d in data["dim"].values]), 1)[0]
    assert slope == pytest.approx(0.19, abs=0.01)
    assert raw["bias"] == pytest.approx(slope, abs=0.04)
    assert abs(corrected["bias"]) < 0.03


def test_giant_steps_are_not_corrected():
    """δ below the corner, and, above it, cells whose few steps multiply the overlap by more than e."""
    for options in ({"delta": [-0.5]}, {"delta": [0.0], "prefactor": 1.5}):
        data = phase_diagram(2, mu=[1.5], algorithms=["spherical"], finite_size=False, **options)
        corrected, raw = fit_exponents(data), fit_exponents(data, log_correction=False)
        assert float(corrected["theta"][0, 0, 0]) == float(raw["theta"][0, 0, 0])
        assert abs(float(raw["theta"][0, 0, 0])) < 3 * float(raw["theta_error"][0, 0, 0])


def test_one_step_has_exponent_zero():
    data = phase_diagram(2, mu=[2.0], delta=[-1.0], algorithms=["correlation"], prefactor=0.2)
    assert (data["recovery_time"] == 1).all()
    fits = fit_exponents(data)
    assert float(fits["theta"][0, 0, 0]) == pytest.approx(0, abs=1e-3)
    assert 0.1 < float(fits["theta_error"][0, 0, 0]) < 0.15
    data["recovery_time"][...] = 0
    assert float(fit_exponents(data)["theta"][0, 0, 0]) == pytest.approx(0, abs=1e-3)


def spoil(data, dim, status, replicas=slice(None), time=0):
    """Give runs of a single cell another end."""
    where = {"dim": dim, "replica": replicas}
    data["recovered"][where] = False
    data["status"][where] = OUTCOMES[status]
    data["recovery_time"][where] = time


@pytest.mark.parametrize(
    ("changes", "kind", "dims"),
    [
        ([], "fitted", 4),
        ([(slice(None), "censored", slice(0, 8), 500)], "fitted", 4),
        ([(slice(None), "censored", slice(0, 9), 500)], "not_learnt", 0),
        ([(3, "censored", slice(0, 9), 500)], "partly_learnt", 0),
        ([(0, "diverged")], "partly_learnt", 0),
        ([(3, "over_budget")], "fitted", 3),
        ([(3, "over_budget", slice(0, 5), 500)], "fitted", 4),
        ([(slice(1, 4), "over_budget")], "one_dimension", 0),
        ([(slice(1, 4), "pending")], "one_dimension", 0),
        ([(slice(None), "over_budget")], "over_budget", 0),
        ([(slice(None), "diverged")], "diverged", 0),
        ([(slice(None), "failed")], "failed", 0),
        ([(slice(None), "pending")], "pending", 0),
        ([(slice(0, 3), "pending"), (3, "censored")], "not_learnt", 0),
        ([(slice(None), "pending", slice(4, 16))], "fitted", 4),
        ([(slice(2, 4), "pending"), (slice(0, 2), "pending", slice(1, 16))], "too_few", 0),
        ([(2, "diverged", slice(0, 3))], "fitted", 4),
    ],
)
def test_kinds(changes, kind, dims):
    data = phase_diagram(2, mu=[1.0], delta=[1.0], algorithms=["spherical"])
    for change in changes:
        spoil(data, *change)
    fits = fit_exponents(data)
    assert int(fits["theta_kind"][0, 0, 0]) == KINDS[kind]
    assert int(fits["theta_dims"][0, 0, 0]) == (dims if kind == "fitted" else 0)
    assert np.isfinite(float(fits["theta"][0, 0, 0])) == (kind == "fitted")
    assert np.isfinite(float(fits["theta_error"][0, 0, 0])) == (kind == "fitted")
    best = best_exponents(data)
    assert np.isfinite(float(best["theta"][0, 0])) == (kind == "fitted" and dims == 4)


def test_runs_cut_by_the_cost_bound_are_censored():
    """Those that the bound cut short count as longer; without them the quick ones would be left."""
    data = phase_diagram(2, mu=[1.0], delta=[1.0], algorithms=["spherical"], prefactor=30)
    plain = float(fit_exponents(data)["theta"][0, 0, 0])
    slowest = data["recovery_time"][0, 3, 0, 0].values
    late = slowest > np.quantile(slowest, 0.6)
    cut = int(np.quantile(slowest, 0.6))
    spoil(data, 3, "over_budget", np.flatnonzero(late), cut)
    assert float(fit_exponents(data)["theta"][0, 0, 0]) == pytest.approx(plain, abs=0.06)
    spoil(data, 3, "failed", np.flatnonzero(late))
    assert float(fit_exponents(data)["theta"][0, 0, 0]) < plain - 0.06


def test_best_exponents():
    data = phase_diagram(3, mu=np.linspace(0, 3, 7), delta=np.linspace(-1, 2, 13), prefactor=20)
    best = best_exponents(data)
    assert best.attrs["measure"] == "slope"
    for name in data["algorithm"].values:
        row = best.sel(algorithm=name)
        theta = best_exponent(data["mu"].values, 3, name)
        np.testing.assert_allclose(row["theta_predicted"], theta)
        # The smallest of several noisy exponents lies a little below the truth.
        z = (row["theta"] - theta) / row["theta_error"]
        assert float(z.min()) > -4
        assert float(z.max()) < 3
        delta = row["best_delta"].values
        assert np.isfinite(exponent(data["mu"].values, delta, 3, name)).all()
    assert np.isnan(best_exponents(data, largest_error=1e-6)["theta"]).all()
    held = add_exponents(data)
    assert best.equals(best_exponents(held))


def test_best_exponents_of_one_dimension():
    data = phase_diagram(2, dims=[1000], prefactor=1.0, spread=0.0, finite_size=False)
    best = best_exponents(data)
    assert best.attrs["measure"] == "log_d T"
    for name in data["algorithm"].values:
        row = best.sel(algorithm=name)
        np.testing.assert_allclose(row["theta"], row["theta_predicted"], atol=0.01)
    assert (fit_exponents(data)["theta_kind"] != KINDS["fitted"]).all()


def test_best_samples():
    data = phase_diagram(2, prefactor=1.0, spread=0.0, finite_size=False)
    best = best_samples(data)
    assert best["samples_best"].dims == ("algorithm", "dim", "mu")
    d, mu = data["dim"].values[:, None], data["mu"].values[None, :]
    expected = d ** (mu + best_exponent(mu, 2, "projected"))
    for name in data["algorithm"].values:
        np.testing.assert_allclose(best["samples_best"].sel(algorithm=name), expected, rtol=0.05)
    data["recovered"][...] = False
    assert np.isnan(best_samples(data)["samples_best"]).all()


def test_small_dimensions_take_no_part():
    """At d = 16 the typical initial overlap 1/4 is half of η = 1/2; at d = 9 it is more."""
    data = phase_diagram(2, dims=[9, 16, 64, 256], mu=[0.5], delta=[1.0], algorithms=["spherical"])
    assert int(fit_exponents(data)["theta_dims"][0, 0, 0]) == 3


def test_no_theory():
    data = phase_diagram(2, algorithms=["projected"])
    spec = json.loads(data.attrs["specification"])
    spec["algorithms"]["projected"]["constraint"] = "none"
    data.attrs["specification"] = json.dumps(spec)
    assert compare_exponents(data, "projected") is None
    fits = fit_exponents(data)
    assert np.isnan(fits["theta_predicted"]).all()
    assert np.isfinite(fits["theta"]).any()
    assert np.isnan(best_exponents(data)["theta_predicted"]).all()


def test_nothing_to_compare():
    data = phase_diagram(2, mu=[1.0], delta=[0.0])
    found = compare_exponents(data, "projected")
    assert found["compared"] == 0
    assert np.isnan(found["median"])


def test_other_datasets_are_refused():
    data = phase_diagram(2)
    for wrong in (data.drop_vars("status"), data.isel(dim=0)):
        with pytest.raises(SpecificationError, match="phase diagram"):
            fit_exponents(wrong)


def test_exponents_are_saved(tmp_path):
    from hdsgd import load, save

    data = add_exponents(phase_diagram(2))
    save(data, tmp_path / "it.nc")
    again = load(tmp_path / "it.nc")
    np.testing.assert_array_equal(again["theta"], data["theta"])
    assert again["theta_kind"].attrs["flag_meanings"].split()[0] == "fitted"


def test_five_thousand_cells_take_seconds():
    grid = {"mu": np.linspace(0, 2, 41), "delta": np.linspace(-1, 1.5, 41)}
    data = phase_diagram(2, patience=4, **grid)
    began = time.perf_counter()
    fits = fit_exponents(data)
    assert time.perf_counter() - began < 20
    assert int((fits["theta_kind"] == KINDS["fitted"]).sum()) > 2000
