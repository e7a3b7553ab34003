"""Gradient diversity of the Gaussian model on finitely many examples.  No JAX."""

import math

import numpy as np
import pytest

from hdsgd.moments.population import gradient_diversity
from hdsgd.networks.bridge import bridge, example_coefficients, finite_diversity
from hdsgd.problem.model import Problem, Student


@pytest.mark.parametrize("activation", ["he2", "he3", "tanh"])
def test_coefficients_against_finite_differences(activation):
    problem = Problem("he2", Student(activation, 2, (1.0, -0.5)))
    rng = np.random.default_rng(0)
    W, z, y = rng.standard_normal((2, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)

    def losses(W):
        f = np.mean(
            [a * problem.student.function((z @ w)[None]) for a, w in zip(problem.student.a, W, strict=True)], axis=0
        )
        return 0.5 * (f - y) ** 2

    direction, h = rng.standard_normal((2, 3)), 1e-5
    difference = (losses(W + h * direction) - losses(W - h * direction)) / (2 * h)
    c = example_coefficients(problem, W, z, y)
    assert np.allclose(np.einsum("ij,jd,id->i", c, direction, z), difference, rtol=1e-6, atol=1e-8)
    gradients = np.einsum("ij,id->ijd", c, z).reshape(4, -1)
    assert finite_diversity(c, z) == pytest.approx(
        4 * (gradients**2).sum() / (gradients.sum(axis=0) ** 2).sum(), rel=1e-12
    )


def test_ratio_of_expectations_for_n_examples():
    """n B/(B + n - 1), B from the population formula, against many sets of n examples; 3.5 standard errors."""
    problem, d, n = Problem("he2", Student("he2", 2), noise=0.3), 12, 40
    rng = np.random.default_rng(1)
    W = rng.standard_normal((2, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    B = float(gradient_diversity(problem, W @ W.T, W[:, :1], d))
    top, bottom = np.empty((2, 4000))
    for k in range(4000):
        z = rng.standard_normal((n, d))
        y = problem.target.function(z[:, :1].T) + math.sqrt(0.3) * rng.standard_normal(n)
        c = example_coefficients(problem, W, z, y)
        top[k] = ((c**2).sum(axis=1) * (z**2).sum(axis=1)).mean()
        bottom[k] = ((c.T @ z / n) ** 2).sum()
    ratio = top.mean() / bottom.mean()
    error = (top - ratio * bottom).std() / math.sqrt(4000) / bottom.mean()
    assert abs(ratio - n * B / (B + n - 1)) < 3.5 * error
    assert abs(ratio - B) > 10 * error  # negative control: the population's B is not the answer at this n


def test_bridge():
    data = bridge(Problem("he2", "he2"), dim=32, n=500, batch=16, lr=0.02, steps=120, save_points=12, replicas=4)
    # Noiseless he2 from he2: (1 - m²) cancels from B, which is 3 (d + 6) + ... = constant along training.
    assert np.ptp(data["population_diversity"].values) < 1e-6 * data["population_diversity"].values[0, 0]
    ratio = (data["empirical_diversity"] / data["population_diversity_n"]).values
    assert 0.7 < np.median(ratio) < 1.4
    assert (data["overlap"][:, -1] > 0.5).any()
    again = bridge(Problem("he2", "he2"), dim=32, n=500, batch=16, lr=0.02, steps=120, save_points=12, replicas=2)
    assert data.isel(replica=slice(2)).drop_attrs().equals(again.drop_attrs())
