"""Batch size and learning rate as powers of the dimension: ``n_b = n0 d^μ``, ``γ = γ0 d^-δ``."""

from __future__ import annotations

import math

from hdsgd.checks import MAX_BATCH, finite
from hdsgd.errors import SpecificationError

__all__ = ["batch_size", "learning_rate"]


def batch_size(dim: int, mu: float, n0: float = 1.0) -> int:
    """``n_b = max(1, round(n0 d^μ))`` (theory §1).

    Raises
    ------
    SpecificationError
        If `n0` is not positive, or ``n_b`` would exceed 9·10^18.
    """
    mu, n0 = finite("mu", mu), finite("n0", n0, low=0.0, open_low=True)
    log_batch = math.log(n0) + mu * math.log(dim)
    if log_batch > math.log(MAX_BATCH):
        raise SpecificationError(
            f"mu = {mu:g} gives a batch of {n0:g}·{dim}^{mu:g} = 10^{log_batch / math.log(10):.1f} samples at "
            f"dim = {dim}; at most 9·10^18 can be counted"
        )
    return max(1, round(math.exp(log_batch)) if mu != int(mu) or n0 != 1.0 or mu < 0 else dim ** int(mu))


def learning_rate(dim: int, delta: float, gamma0: float) -> float:
    """``γ = γ0 d^-δ`` (theory §1).

    Raises
    ------
    SpecificationError
        If `gamma0` is not positive, or the result is not a positive finite number.
    """
    delta, gamma0 = finite("delta", delta), finite("gamma0", gamma0, low=0.0, open_low=True)
    exponent = math.log(gamma0) - delta * math.log(dim)
    if not -700 < exponent < 700:
        raise SpecificationError(f"delta = {delta:g} gives a learning rate out of range at dim = {dim}")
    return gamma0 * float(dim) ** -delta
