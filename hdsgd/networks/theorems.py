"""Theorems 1-3 of Chen et al. at random weights: Monte Carlo, exact values for linear networks, and the paper's bounds.

NumPy only.  Here ``L`` counts weight matrices, as the theorems do: ``L - 1`` hidden layers of widths
``K_1 ... K_{L-1}``, inputs ``x ~ N(0, I_d)``, one output, no scaling factors, weights and teacher weights ``N(0, 1)``,
losses ``f_i = ½(ŷ_i - y_i)²``.  The quantity is the ratio of expectations ``ρ = E[n Σ|∇f_i|²]/E[|Σ∇f_i|²]``, or the
batch-size bound ``B_S = n Σ|∇f_i|²/|Σ∇f_i|²`` of one draw.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.networks.activations import ACTIVATIONS, Activation

__all__ = [
    "Ratio",
    "bound_theorem3",
    "exact_ratio",
    "find_bounded_odd",
    "linear_moments",
    "ratio_of_means",
    "scaling_theorem1",
    "scaling_theorem2",
    "two_layer_moments",
]

#: Numbers of one block of Monte Carlo draws.
BLOCK = 2**22


def scaling_theorem1(dim: float, width: float, n: float = math.inf) -> float:
    """``nKd/(Kn + dn + Kd)``, the scaling of Theorem 1 without its constants; ``Kd/(K + d)`` for infinite n."""
    return 1.0 / (1.0 / dim + 1.0 / width + (0.0 if math.isinf(n) else 1.0 / n))


def scaling_theorem2(dim: float, width: float) -> float:
    """``Kd²/(Kd + K + d)``, the scaling of Theorem 2 without its constants.

    It agrees with the measured ratio in K, but not in d at fixed K: with ``N(0, 1)`` weights and no scaling the hidden
    fields have variance d, the activation saturates, and the ratio grows like ``sqrt(d)`` at most (K = 2 and 8, d = 25
    to 1600: fitted powers 0.35 to 0.52 for tanh, softsign and arctan, where the scaling has 1).
    """
    return width * dim**2 / (width * dim + width + dim)


def bound_theorem3(dim: int, widths: Sequence[int]) -> float:
    """Right side of equation (4.1): ``L / (Σ_φ (L-φ)/(K_φ-1) + 2L/(d-1))``, φ = 1 ... L-1.

    Raises
    ------
    SpecificationError
        If d or a width is less than 2.
    """
    sizes = [whole("dim", dim, low=2), *(whole("width", K, low=2) for K in widths)]
    L = len(sizes)
    return L / (sum((L - i) / (sizes[i] - 1) for i in range(1, L)) + 2 * L / (sizes[0] - 1))


def exact_ratio(dim: int, widths: Sequence[int], n: float = math.inf) -> float:
    """``ρ`` of linear networks in closed form, for any d, widths and n.

    Notation: ``B_l = W_{l-1} ... W_1`` and ``A_l = W_L ... W_{l+1}``; the error is ``v·x`` with ``v = w - w*``, and the
    gradient of layer l is ``(v·x) A_lᵀ (B_l x)ᵀ``.  Over x: ``E|∇_l|² = |A_l|²(|v|²|B_l|²_F + 2|B_l v|²)`` and
    ``|E∇_l|² = |A_l|²|B_l v|²``.  Over the weights, with ``u ~ N(0, |A_l|²)`` in ``w = B_lᵀ u``, these need
    ``E|A_l|²``, ``E|A_l|⁴ = Π K(K+2)`` and the pair ``t = (E|B_l|⁴_F, E|B_lB_lᵀ|²_F)``, for which one more layer of
    width K gives ``(K² t_1 + 2K t_2, K t_1 + K(K+1) t_2)``, from ``(d², d)``.  Finite n: ``E|Σ∇f_i|² = n a + n(n-1) c``
    with ``a``, ``c`` the sums over layers of the two expectations.

    Parameters
    ----------
    dim : int
    widths : sequence of int
        ``K_1 ... K_{L-1}``.
    n : float
        Number of examples, infinity allowed.
    """
    K = [whole("dim", dim, low=1), *(whole("width", k, low=1) for k in widths)]
    L = len(K)
    teacher = math.prod(float(k) for k in K[1:])  # E w* w*ᵀ = teacher · I
    a = c = 0.0
    t1, t2, b2 = float(K[0] ** 2), float(K[0]), float(K[0])  # E|B|⁴, E|BBᵀ|², E|B|²
    for l in range(1, L + 1):
        after = [float(k) for k in K[l:]]  # the layers between W_l and the output
        a2 = math.prod(after)
        a4 = math.prod(k * (k + 2) for k in after)
        second = a4 * t2 + a2 * b2 * teacher
        c += second
        a += a4 * t1 + K[0] * teacher * a2 * b2 + 2 * second
        if l < L:
            k = float(K[l])
            t1, t2, b2 = k * k * t1 + 2 * k * t2, k * t1 + k * (k + 1) * t2, k * b2
    return a / c if math.isinf(n) else n * a / (a + (n - 1) * c)


class Ratio(NamedTuple):
    """A ratio of expectations, estimated.

    Attributes
    ----------
    value : float
        Mean numerator over mean denominator.
    low, high : float
        Outcomes of the normal-theory interval (delta method) at `confidence`.
    """

    value: float
    low: float
    high: float


def ratio_of_means(numerator: NDArray[np.float64], denominator: NDArray[np.float64], confidence: float = 0.99) -> Ratio:
    """Ratio of the means of two paired samples, shape (draws,), with a delta-method interval.

    The products of many Gaussian matrices have heavy tails: for narrow, deep networks the interval needs many draws to
    be trusted.
    """
    from scipy.stats import norm

    top, bottom = numerator.mean(), denominator.mean()
    value = float(top / bottom)
    spread = (numerator - value * denominator).std(ddof=1) / math.sqrt(len(numerator)) / bottom
    half = float(norm.isf((1 - confidence) / 2) * spread)
    return Ratio(value, value - half, value + half)


def linear_moments(
    dim: int, widths: Sequence[int], n: float, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws of ``(1/n) Σ|∇f_i|²`` and ``|(1/n) Σ∇f_i|²`` for linear networks with random weights and teacher.

    Their ratio in one draw is ``B_S``; the ratio of their means is ``ρ``.

    Parameters
    ----------
    dim : int
    widths : sequence of int
        ``K_1 ... K_{L-1}``, ``L >= 2``.
    n : float
        Examples per draw; for infinity the inputs are integrated out exactly.
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    numerator, denominator : ndarray, shape (draws,)
    """
    sizes = [whole("dim", dim, low=1), *(whole("width", k, low=1) for k in widths), 1]
    if len(sizes) < 3:
        raise SpecificationError("the theorems need at least one hidden layer")
    examples = 0 if math.isinf(n) else whole("n", n, low=1)
    numbers = sum(2 * a * b for a, b in itertools.pairwise(sizes)) + sizes[0] * max(sizes) + examples * sizes[0]
    block = max(1, BLOCK // numbers)
    parts = [_linear_block(sizes, examples, min(block, draws - at), rng) for at in range(0, draws, block)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _linear_block(
    sizes: list[int], n: int, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = list(itertools.pairwise(sizes))
    W = [rng.standard_normal((draws, b, a)) for a, b in pairs]
    star = [rng.standard_normal((draws, b, a)) for a, b in pairs]
    B = [np.broadcast_to(np.eye(sizes[0]), (draws, sizes[0], sizes[0]))]
    for w in W[:-1]:
        B.append(w @ B[-1])
    A = [np.ones((draws, 1, 1))]
    for w in W[:0:-1]:
        A.append(A[-1] @ w)
    A.reverse()
    teacher = star[0]
    for w in star[1:]:
        teacher = w @ teacher
    v = (W[-1] @ B[-1] - teacher)[:, 0]  # (draws, d)
    numerator, denominator = np.zeros((2, draws))
    if n:
        X = rng.standard_normal((draws, n, sizes[0]))
        r = np.einsum("knd,kd->kn", X, v)
        mean = np.einsum("knd,kn->kd", X, r) / n
    for a, b in zip(A, B, strict=True):
        weight = (a[:, 0] ** 2).sum(axis=1)
        if n:
            numerator += weight * np.einsum("kn,knp->k", r**2, (X @ b.transpose(0, 2, 1)) ** 2) / n
            denominator += weight * (np.einsum("kpd,kd->kp", b, mean) ** 2).sum(axis=1)
        else:
            along = (np.einsum("kpd,kd->kp", b, v) ** 2).sum(axis=1)
            numerator += weight * ((v**2).sum(axis=1) * (b**2).sum(axis=(1, 2)) + 2 * along)
            denominator += weight * along
    return numerator, denominator


def find_bounded_odd(name: str) -> Activation:
    """An activation that satisfies Theorem 2's assumptions (odd, monotone, bounded, x σ'(x) bounded).

    Raises
    ------
    SpecificationError
        If it is none of them (with the choices).
    """
    choice("activation of Theorem 2", name, [x.name for x in ACTIVATIONS.values() if x.bounded_odd and x.slope])
    return ACTIVATIONS[name]


def two_layer_moments(dim: int, width: int, n: int, activation: str, rng: np.random.Generator) -> tuple[float, float]:
    """Theorem 2's two expectations for one draw of first layers and inputs, exact over ``W_2, W_2*``.

    With hidden outputs ``s_i``, ``s*_i`` (K,), derivatives ``σ'_i`` and ``R_ij = s_i·s_j + s*_i·s*_j = E[r_i r_j]``:
    ``E<∇f_i, ∇f_j> = R_ij (s_i·s_j) + (x_i·x_j) Σ_k (R_ij + 2 s_ik s_jk) σ'_ik σ'_jk``.  Their
    ratio, n times the trace of this matrix over the sum of its entries, is the theorem's.

    Parameters
    ----------
    dim, width, n : int
    activation : {"tanh", "softsign", "arctan"}
    rng : numpy.random.Generator

    Returns
    -------
    numerator, denominator : float
        ``E (1/n) Σ|∇f_i|²`` and ``E |(1/n) Σ∇f_i|²``.
    """
    sigma = find_bounded_odd(activation)
    assert sigma.slope is not None
    X = rng.standard_normal((n, dim))
    h = X @ rng.standard_normal((dim, width))
    s, star = sigma.value(h, np), sigma.value(X @ rng.standard_normal((dim, width)), np)
    d = sigma.slope(h, np)
    S = s @ s.T
    R = S + star @ star.T
    inner = R * S + (X @ X.T) * (R * (d @ d.T) + 2 * (s * d) @ (s * d).T)
    return float(np.trace(inner) / n), float(inner.sum() / n**2)
