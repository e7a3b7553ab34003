"""Gradient diversity of the Gaussian model beside that of the same network trained on finitely many examples.

The two-layer student of theory §1 is trained by mini-batch SGD on n fixed examples ``z ~ N(0, I_d)``, over and over.
At the same weights, ``B_S = n Δ_S`` on those examples and on n fresh ones is compared with the population's
``B = E|g_i|²/|E g_i|²``, which `hdsgd.moments.population.gradient_diversity` computes from the overlaps at no sampling
cost (theory §7). For n independent examples ``E|Σ g_i|² = n E|g|² + n(n-1)|E g|²``, so the ratio of expectations is ``n
B/(B + n - 1)``: B for many examples, and never more than n.  NumPy only.
"""

from __future__ import annotations

import time

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError
from hdsgd.moments.population import gradient_diversity
from hdsgd.networks.variables import finish
from hdsgd.policies import SaveAt
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem
from hdsgd.progress import progress_bar
from hdsgd.seeds import cell_seed, child
from hdsgd.simulation.runs import saved_steps

__all__ = ["bridge", "example_coefficients", "finite_diversity"]

Floats = NDArray[np.float64]


def example_coefficients(problem: Problem, W: Floats, z: Floats, y: Floats) -> Floats:
    """``c_j`` of each example, shape (n, p): the gradient of its square loss with respect to ``w_j`` is ``c_j z``.

    Parameters
    ----------
    problem : Problem
    W : ndarray, shape (p, d)
    z : ndarray, shape (n, d)
    y : ndarray, shape (n,)
    """
    sigma, a = problem.student.function, problem.student.a / problem.p
    fields = z @ W.T
    values = np.stack([sigma(column[None]) for column in fields.T], axis=1)
    return np.asarray(a * sigma.derivative(fields) * (values @ a - y)[:, None])


def finite_diversity(c: Floats, z: Floats) -> float:
    """``B_S = n Σ|g_i|²/|Σ g_i|²`` of the gradients ``g_i = c_i zᵢᵀ``; c is (n, p), z is (n, d)."""
    mean = c.T @ z / len(z)
    square = float((mean**2).sum())
    return float(((c**2).sum(axis=1) * (z**2).sum(axis=1)).mean() / square) if square > 0 else np.inf


def _step(W: Floats, gradient: Floats, lr: float, constraint: str) -> Floats:
    if constraint == "spherical":
        gradient = gradient - ((gradient * W).sum(axis=1) / (W**2).sum(axis=1))[:, None] * W
    W = W - lr * gradient
    return W if constraint == "none" else W / np.linalg.norm(W, axis=1, keepdims=True)


def bridge(
    problem: Problem,
    *,
    dim: int,
    n: int,
    batch: int,
    lr: float,
    steps: int,
    save_points: int = 60,
    replicas: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Train on n examples and record the gradient diversity of population and examples.

    Parameters
    ----------
    problem : Problem
        With the square loss; orthonormal teacher directions.
    dim, n, batch, steps : int
        ``d``, examples, batch size (drawn without replacement), SGD steps.
    lr : float
    save_points : int
    replicas : int
    seed : int
    progress : bool

    Returns
    -------
    xarray.Dataset
        Dims ``replica, step``: ``population_diversity``, ``population_diversity_n``, ``empirical_diversity`` (fresh
        examples), ``training_diversity``, ``overlap``.

    Raises
    ------
    SpecificationError
        If a number is out of range, or the loss or teacher is another.
    """
    started = time.perf_counter()
    dim, n = whole("dim", dim, low=problem.p + problem.k), whole("n", n, low=2)
    batch, lr = whole("batch", batch, low=1, high=n), finite("lr", lr, low=0.0, open_low=True)
    steps, replicas = whole("steps", steps, low=1), whole("replicas", replicas, low=1)
    if problem.loss != "square" or not problem.target.orthonormal:
        raise SpecificationError("the bridge needs the square loss and orthonormal teacher directions")
    initial = Initial()
    initial.check(problem, dim)
    times = saved_steps(steps, SaveAt(save_points))
    specification = {
        "problem": problem.to_dict(), "dim": dim, "n": n, "batch": batch, "lr": lr, "steps": steps,
        "save_points": save_points, "replicas": replicas, "seed": seed,
    }  # fmt: skip
    numbers = {key: specification[key] for key in ("dim", "n", "batch", "lr")}
    address = cell_seed(seed, {"problem": problem.address(), **numbers})
    names = ("population_diversity", "population_diversity_n", "empirical_diversity", "training_diversity", "overlap")
    found = {name: np.full((replicas, len(times)), np.nan) for name in names}
    with progress_bar(replicas * steps, "steps", progress) as advance:
        for r in range(replicas):
            rng = np.random.default_rng(child(address, r))
            # The first k coordinates are the teacher's: the law of everything is rotation invariant.
            W = rng.standard_normal((problem.p, dim))
            W /= np.linalg.norm(W, axis=1, keepdims=True)

            def examples(rng: np.random.Generator = rng) -> tuple[Floats, Floats]:
                z = rng.standard_normal((n, dim))
                xi = rng.standard_normal(n)
                return z, problem.target.function(z[:, : problem.k].T) + np.sqrt(problem.noise) * xi

            z, y = examples()
            step = 0
            for i, when in enumerate(times):
                for _ in range(int(when) - step):
                    chosen = rng.choice(n, batch, replace=False)
                    c = example_coefficients(problem, W, z[chosen], y[chosen])
                    W = _step(W, c.T @ z[chosen] / batch, lr, problem.constraint)
                advance(int(when) - step)
                step = int(when)
                Q, M = W @ W.T, W[:, : problem.k]
                B = float(gradient_diversity(problem, Q, M, dim))
                other, labels = examples()
                found["population_diversity"][r, i] = B
                found["population_diversity_n"][r, i] = n * B / (B + n - 1) if np.isfinite(B) else n
                found["empirical_diversity"][r, i] = finite_diversity(
                    example_coefficients(problem, W, other, labels), other
                )
                found["training_diversity"][r, i] = finite_diversity(example_coefficients(problem, W, z, y), z)
                found["overlap"][r, i] = np.linalg.norm(M)
    dataset = xr.Dataset(
        {name: (("replica", "step"), values) for name, values in found.items()},
        coords={"replica": np.arange(replicas), "step": times},
    )
    return finish(dataset, "bridge", specification, seed, {"total_seconds": time.perf_counter() - started})
