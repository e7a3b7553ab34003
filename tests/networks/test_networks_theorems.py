"""Theorems 1-3 of Chen et al. at random weights, against loops, closed forms and the bound (4.1).  No JAX.

False-alarm rates: intervals at 99.9 %; about 12 of them are looked at, so a correct program fails once in 80 seeds, and
the seeds are fixed.
"""

import itertools
import math

import numpy as np
import pytest

from hdsgd.networks import TheoremCheck, theorem_check
from hdsgd.networks.theorems import (
    bound_theorem3,
    exact_ratio,
    linear_moments,
    ratio_of_means,
    scaling_theorem1,
    two_layer_moments,
)
from hdsgd.policies import Workers


def naive_linear(sizes, n, rng):
    """Gradients of one random linear network on n examples, one by one, from the chain rule."""
    pairs = list(itertools.pairwise(sizes))
    W = [rng.standard_normal((b, a)) for a, b in pairs]
    star = [rng.standard_normal((b, a)) for a, b in pairs]
    norms, total = 0.0, None
    for x in rng.standard_normal((n, sizes[0])):
        layers = [x]
        for w in W:
            layers.append(w @ layers[-1])
        target = x
        for w in star:
            target = w @ target
        delta = layers[-1] - target
        grads = []
        for w, below in zip(W[::-1], layers[-2::-1], strict=True):
            grads.append(np.outer(delta, below).ravel())
            delta = w.T @ delta
        gradient = np.concatenate(grads)
        norms += gradient @ gradient
        total = gradient if total is None else total + gradient
    return norms / n, (total @ total) / n**2


def test_finite_n_moments_against_a_loop():
    rng = np.random.default_rng(0)
    loop = np.array([naive_linear([5, 4, 3, 1], 6, rng) for _ in range(4000)])
    fast = linear_moments(5, [4, 3], 6, 40_000, np.random.default_rng(1))
    for a, b in zip(loop.T, fast, strict=True):
        error = math.hypot(a.std() / math.sqrt(len(a)), b.std() / math.sqrt(len(b)))
        assert abs(a.mean() - b.mean()) < 3.3 * error


@pytest.mark.parametrize(("d", "widths", "n"), [(10, [5], math.inf), (20, [20, 20], math.inf), (6, [4, 3], 15)])
def test_closed_form_against_monte_carlo(d, widths, n):
    ratio = ratio_of_means(*linear_moments(d, widths, n, 20_000, np.random.default_rng(2)), confidence=0.999)
    assert ratio.low < exact_ratio(d, widths, n) < ratio.high
    assert ratio.high - ratio.low < 0.1 * ratio.value


def test_closed_form_by_hand():
    # Two layers, d = K = 1, n infinite: ∇ = r (w2 x, w1 x) with r = v x, so ρ = E x⁴/(E x²)² = 3.
    assert exact_ratio(1, [1]) == pytest.approx(3.0)
    assert exact_ratio(1, [1], 1) == pytest.approx(1.0)
    # Wide first: with K → ∞ the second layer's gradient is that of a linear model in d dimensions, ρ → d + 2.
    assert exact_ratio(30, [10**9]) == pytest.approx(32.0, rel=1e-6)


@pytest.mark.parametrize(("d", "widths"), [(20, [8]), (20, [16, 16, 16]), (40, [8, 32])])
def test_bound_of_theorem_3_holds_and_a_wrong_one_would_not(d, widths):
    ratio = ratio_of_means(*linear_moments(d, widths, math.inf, 6000, np.random.default_rng(3)), confidence=0.999)
    bound = bound_theorem3(d, widths)
    assert ratio.low > bound
    # Negative control: four times the bound (in d and K everywhere within a factor 3.2 here) must be refuted.
    assert ratio.high < 4 * bound


def test_bound_of_theorem_3_on_a_grid_of_closed_forms():
    sizes = (2, 3, 5, 10, 100, 10_000)
    ratios = [
        exact_ratio(d, [K] * (L - 1)) / bound_theorem3(d, [K] * (L - 1))
        for d in sizes
        for K in sizes
        for L in range(2, 9)
    ]
    assert min(ratios) > 2.0  # the bound is loose by a factor two at least
    assert min(ratios) < 2.001


def test_scalings_in_width_and_depth():
    widths = [exact_ratio(50, [K]) for K in (2, 8, 32, 128)]
    depths = [exact_ratio(50, [16] * L) for L in (1, 2, 4, 8)]
    assert widths == sorted(widths)
    assert depths == sorted(depths, reverse=True)
    # Theorem 1: the quotient by nKd/(Kn + dn + Kd) stays between constants.
    grid = itertools.product((5, 50, 500, 50_000), (5, 50, 500, 50_000), (50, 500, math.inf))
    quotients = [exact_ratio(d, [K], n) / scaling_theorem1(d, K, n) for d, K, n in grid]
    assert min(quotients) > 1
    assert max(quotients) < 8


def test_two_layer_expectation_against_sampled_second_layers():
    class Replay:
        """A generator that gives the same arrays again."""

        def __init__(self):
            self.rng = np.random.default_rng(4)

        def standard_normal(self, shape):
            return self.rng.standard_normal(shape)

    d, K, n = 4, 3, 5
    numerator, denominator = two_layer_moments(d, K, n, "tanh", Replay())
    rng = Replay()
    X, W, star = rng.standard_normal((n, d)), rng.standard_normal((d, K)), rng.standard_normal((d, K))
    s, t = np.tanh(X @ W), np.tanh(X @ star)
    draw = np.random.default_rng(5)
    a, a_star = draw.standard_normal((2, 40_000, K))
    r = a @ s.T - a_star @ t.T  # (draws, n)
    outer = r[:, :, None] * s
    hidden = (r[:, :, None] * a[:, None, :] * (1 - s**2))[..., None] * X[:, None, :]
    gradients = np.concatenate([outer, hidden.reshape(len(a), n, -1)], axis=2)
    for got, sample in (
        (numerator, (gradients**2).sum(axis=2).mean(axis=1)),
        (denominator, (gradients.mean(axis=1) ** 2).sum(axis=1)),
    ):
        assert abs(got - sample.mean()) < 3.3 * sample.std() / math.sqrt(len(a))


def test_ratio_of_theorem_2_grows_slower_than_its_scaling_in_dimension():
    """At fixed K the printed scaling is linear in d for large d; the ratio is not (see `scaling_theorem2`)."""
    rng, n, values = np.random.default_rng(6), 500, []
    dims = (50, 200, 800)
    for d in dims:
        a, b = np.mean([two_layer_moments(d, 2, n, "tanh", rng) for _ in range(12)], axis=0)
        values.append(a * (n - 1) / (n * b - a))  # without the n equal terms: the ratio at infinite n
    slope = np.polyfit(np.log(dims), np.log(values), 1)[0]
    assert 0.2 < slope < 0.7
    widths = [
        np.divide(*np.mean([two_layer_moments(20, K, n, "tanh", rng) for _ in range(12)], axis=0)) for K in (2, 8, 32)
    ]
    assert widths == sorted(widths)


def test_dataset_and_threads():
    spec = TheoremCheck(3, (2, 3), (4, 8), (6,), (math.inf, 10.0), draws=50)
    one, two = (theorem_check(spec, seed=1, workers=Workers(t)) for t in (1, 2))
    assert one.drop_attrs().equals(two.drop_attrs())
    cell = theorem_check(TheoremCheck(3, (3,), (8,), (6,), (10.0,), draws=50), seed=1)
    assert float(cell["ratio"].squeeze()) == float(one["ratio"].sel(depth=3, width=8, dim=6, examples=10.0))
    assert TheoremCheck.from_json(spec.to_json()) == spec
    both = theorem_check(TheoremCheck(2, (2,), (4,), (6,), (20.0,), draws=5))
    assert np.isnan(both["ratio_exact"]).all()
