"""Gradient diversity, second moments of batch gradients, and the constants of the saturation paper at given weights.

Normalisations are those of `hdsgd.networks.objective`: ``g_i = ∇ℓ_i`` is the gradient of one example's loss, ``∇L``
their mean, ``K = ∇F ∇Fᵀ`` carries ``1/n``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from hdsgd.checks import whole
from hdsgd.errors import SpecificationError
from hdsgd.networks.objective import Objective

__all__ = [
    "beta",
    "gradient_statistics",
    "lemma_bound",
    "moment_constants",
    "operator_norm",
    "sampled_second_moment",
    "second_moment",
    "tangent_statistics",
]

logger = logging.getLogger("hdsgd")

#: Largest NTK that is formed and decomposed (rows, n C).
SPECTRUM_LIMIT = 4096


def lemma_bound(square_norms: NDArray[np.float64], mean_square: float, batch: int) -> float:
    """Right side of Lemma 3.1 (the saturation paper): ``(1/b) E_i|g_i|² + |∇L|²``.

    Parameters
    ----------
    square_norms : ndarray, shape (n,)
        ``|g_i|²``, where ``g_i = (f_i - y_i) ∇f_i`` for the square loss and one output.
    mean_square : float
        ``|∇L|²``.
    batch : int
        ``b``.
    """
    return float(square_norms.mean() / batch + mean_square)


def second_moment(square_norms: NDArray[np.float64], mean_square: float, batch: int, *, replacement: bool) -> float:
    """``E|g_S|²`` of a batch drawn uniformly, exactly.

    Without replacement ``P(i ∈ S) = b/n`` and ``P(i, j ∈ S) = b(b-1)/(n(n-1))``, so
    ``E|g_S|² = (1/b)(n-b)/(n-1) E_i|g_i|² + (n(b-1))/(b(n-1)) |∇L|²``; with replacement
    ``(1/b) E_i|g_i|² + (1 - 1/b)|∇L|²``.  Both are at most Lemma 3.1's bound, as each coefficient is at most its own.
    (The paper's proof takes ``P(i ∈ S) = 1 - (1 - 1/n)^b``, which is the probability under sampling with replacement,
    and bounds terms that may be negative one by one; its statement holds all the same.)

    Parameters
    ----------
    square_norms : ndarray, shape (n,)
    mean_square : float
        ``|∇L|²``.
    batch : int
        ``b``, at most n without replacement.
    replacement : bool
    """
    n, mean = len(square_norms), float(square_norms.mean())
    if replacement:
        return mean / batch + (1 - 1 / batch) * mean_square
    if batch > n:
        raise SpecificationError(f"a batch of {batch} cannot be drawn without replacement from {n} examples")
    if n == 1:
        return mean
    return mean / batch * (n - batch) / (n - 1) + n * (batch - 1) / (batch * (n - 1)) * mean_square


def sampled_second_moment(
    objective: Objective,
    params: Any,
    batch: int,
    draws: int,
    seed: np.random.SeedSequence,
    *,
    replacement: bool = False,
) -> tuple[float, float]:
    """Monte Carlo estimate of ``E|g_S|²`` and its standard error, from batches actually drawn."""
    rng = np.random.default_rng(seed)
    values = np.empty(draws)
    for k in range(draws):
        chosen = rng.choice(objective.n, batch, replace=replacement)
        gradient = objective.batch_gradient(params, chosen)
        values[k] = gradient @ gradient
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(draws)) if draws > 1 else math.nan


def gradient_statistics(
    objective: Objective,
    params: Any = None,
    *,
    batches: Sequence[int] = (),
    draws: int = 0,
    seed: np.random.SeedSequence | None = None,
) -> dict[str, Any]:
    """Gradient diversity and the second moment of batch gradients, exactly, in memory ``chunk`` × parameters.

    Parameters
    ----------
    objective : Objective
    params : PyTree, optional
        Weights; the initial ones by default.
    batches : sequence of int
        Batch sizes ``b`` for which the second moment is wanted.
    draws : int
        Batches drawn for the Monte Carlo estimate of it, if any.
    seed : SeedSequence, optional
        Needed with `draws`.

    Returns
    -------
    dict
        ``gradient_diversity`` ``Δ_S = Σ|g_i|²/|Σ g_i|²`` and ``batch_bound`` ``B_S = n Δ_S`` (Chen et al., Definition
        1; infinite at a stationary point), ``noise_scale`` ``tr Cov(g_i)/|∇L|² = B_S - 1`` (McCandlish et al., with the
        covariance over the data set), ``mean_square_norm`` and ``max_square_norm`` of ``|g_i|²``,
        ``gradient_square_norm`` ``|∇L|²``, ``loss``; for every batch ``lemma_bound``, ``second_moment``,
        ``second_moment_replacement`` and, with `draws`, ``second_moment_sampled`` and ``second_moment_error``.
    """
    params = objective.params if params is None else params
    norms, mean, loss = objective.gradient_moments(params)
    square = float(mean @ mean)
    bound = float(norms.mean()) / square if square > 0 else math.inf
    result: dict[str, Any] = {
        "gradient_diversity": bound / objective.n,
        "batch_bound": bound,
        "noise_scale": bound - 1.0,
        "mean_square_norm": float(norms.mean()),
        "max_square_norm": float(norms.max()),
        "gradient_square_norm": square,
        "loss": loss,
    }
    batches = [whole("batch", b, low=1, high=objective.n) for b in batches]
    if batches:
        result["lemma_bound"] = np.array([lemma_bound(norms, square, b) for b in batches])
        result["second_moment"] = np.array([second_moment(norms, square, b, replacement=False) for b in batches])
        result["second_moment_replacement"] = np.array(
            [second_moment(norms, square, b, replacement=True) for b in batches]
        )
    if batches and draws:
        if seed is None:
            raise SpecificationError("draws need a seed")
        children = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, b)) for b in batches]
        pairs = [sampled_second_moment(objective, params, b, draws, s) for b, s in zip(batches, children, strict=True)]
        result["second_moment_sampled"], result["second_moment_error"] = np.array(pairs).T
    return result


def operator_norm(objective: Objective, params: Any = None, *, seed: int = 0) -> float:
    """``|∇F|_op``, by Lanczos on ``K`` with products only; ``sqrt(λ_max(K))``, so it carries ``1/sqrt(n)``.

    For a linear model ``∇f_i = x_i`` and ``|∇F|_op = |X|_op/sqrt(n)``.
    """
    params = objective.params if params is None else params
    size = objective.n * objective.outputs
    if size <= 16:
        return math.sqrt(float(np.linalg.eigvalsh(objective.ntk(params))[-1]))
    operator = LinearOperator((size, size), matvec=lambda v: objective.ntk_product(params, v), dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(size)
    tolerance = 1e-10 if objective.dtype == "float64" else 1e-5
    try:
        largest = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        raise SpecificationError("the largest eigenvalue of the NTK did not converge; use dtype float64") from error
    return math.sqrt(float(largest[0]))


def moment_constants(
    objective: Objective, params: Any = None, *, limit: int = SPECTRUM_LIMIT, ntk: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """The constant ``γ`` of ``E_i J_iᵀ(J_iJ_iᵀ)J_i ≼ γ E_i J_iᵀJ_i`` (the saturation paper, equations 3.1 and 3.2),
    both ways.

    For one output the left side is ``E_i|∇f_i|² ∇f_i ∇f_iᵀ``.

    Returns
    -------
    largest : float
        The bound that always holds, ``max_i |J_i|²_op`` (``max_i |∇f_i|²``).
    smallest : float
        The smallest valid ``γ``: the largest eigenvalue of the pencil, on the range of the right side.  Found among the
        parameters or, equivalently, among the ``n C`` outputs, where it is ``λ_max`` of ``blockdiag(J_iJ_iᵀ)``
        compressed to the range of ``K``, whichever is smaller; NaN if both exceed `limit`.  When ``K`` has full rank
        (more parameters than outputs, in general position) the two constants are equal.
    """
    params = objective.params if params is None else params
    grams = objective.jacobian_grams(params)
    largest = float(np.linalg.eigvalsh(grams)[:, -1].max())
    n, c = objective.n, objective.outputs
    if min(n * c, objective.size) > limit:
        return largest, math.nan
    if n * c <= objective.size:
        K = objective.ntk(params) if ntk is None else ntk
        values, vectors = np.linalg.eigh(K)
        range_basis = vectors[:, values > values[-1] * len(K) * np.finfo(objective.dtype).eps]
        scaled = np.einsum("ice,ier->icr", grams, range_basis.reshape(n, c, -1)).reshape(n * c, -1)
        smallest = float(np.linalg.eigvalsh(range_basis.T @ scaled)[-1])
    else:
        right, left = objective.gram(params)
        values, vectors = np.linalg.eigh(right)
        keep = values > values[-1] * len(right) * np.finfo(objective.dtype).eps
        whiten = vectors[:, keep] / np.sqrt(values[keep])
        smallest = float(scipy.linalg.eigvalsh(whiten.T @ left @ whiten)[-1])
    return largest, min(smallest, largest)


def beta(gamma: float, square_operator_norm: float, batch: int | NDArray[Any]) -> Any:
    """``β = γ/b + |∇F|²_op`` (saturation paper, Theorem 3.2; there ``|∇F|²_op = |X|²_op/n``): ``E|g_S|² <= 2βL``."""
    return gamma / batch + square_operator_norm


def tangent_statistics(
    objective: Objective,
    params: Any = None,
    *,
    batches: Sequence[int] = (),
    limit: int = SPECTRUM_LIMIT,
) -> dict[str, Any]:
    """The constants of the saturation paper from the Jacobian at given weights.

    Parameters
    ----------
    objective : Objective
    params : PyTree, optional
        The initial weights by default.
    batches : sequence of int
    limit : int
        Largest matrix that is formed (``n C`` rows, or parameters).  Beyond it the smallest ``γ``, the spectrum and
        what follows from them are NaN; the operator norm and the bound on ``γ`` need no matrix.

    Returns
    -------
    dict
        ``gamma_max`` (``max_i|∇f_i|²``), ``gamma_min``, ``mean_jacobian`` (``E_i|∇f_i|²_F``), ``operator_norm``
        (``|∇F|_op``), ``critical_batch`` ``b* = max_i|∇f_i|²/|∇F|²_op`` (Theorem 1.1; Theorem 3.3's is four times
        this), ``ntk_smallest``, ``ntk_largest`` and ``spectrum`` (ascending, None if too large); for every batch
        ``beta`` (with ``gamma_max``) and ``complexity`` ``(max_i|∇f_i|²/b + |K|_op)/λ_min(K)``, iterations per factor e
        (Theorem 1.1).
    """
    params = objective.params if params is None else params
    rows = objective.n * objective.outputs
    K = objective.ntk(params) if rows <= limit else None
    spectrum = None if K is None else np.linalg.eigvalsh(K)
    largest, smallest = moment_constants(objective, params, limit=limit, ntk=K)
    norm = operator_norm(objective, params) if spectrum is None else math.sqrt(float(spectrum[-1]))
    if spectrum is not None:
        least = max(float(spectrum[0]), 0.0)
        if least <= spectrum[-1] * rows * np.finfo(objective.dtype).eps:
            least = 0.0  # rounding: the kernel is singular
    else:
        least = math.nan
    grams = objective.jacobian_grams(params)
    sizes = np.asarray(batches, dtype=np.float64)
    betas = beta(largest, norm**2, sizes)
    with np.errstate(divide="ignore"):
        complexity = betas / np.float64(least)
    return {
        "gamma_max": largest,
        "gamma_min": smallest,
        "mean_jacobian": float(np.trace(grams, axis1=1, axis2=2).mean()),
        "operator_norm": norm,
        "critical_batch": largest / norm**2,
        "ntk_smallest": least,
        "ntk_largest": norm**2,
        "spectrum": spectrum,
        "beta": betas,
        "complexity": complexity,
    }
