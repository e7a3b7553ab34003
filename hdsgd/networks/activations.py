"""Activations of networks: one record each, read by JAX's networks, by teachers in NumPy and by the theorems."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hdsgd.registry import Registry, imported

__all__ = ["ACTIVATIONS", "Activation"]


@dataclass(frozen=True)
class Activation:
    """An activation ``σ``.

    Parameters
    ----------
    name, summary : str
    value : callable
        ``value(h, xp)``, elementwise; `xp` is NumPy or ``jax.numpy``.
    slope : callable, optional
        ``slope(h, xp)``, the derivative; needed where a theorem asks for it.
    gain : float
        ``g`` of the layers that follow it in the standard parametrisation: initial weights are ``N(0, g/fan_in)``.
    bounded_odd : bool
        Odd, monotone and bounded with ``x σ'(x)`` bounded: what Theorem 2 of Chen et al. assumes.
    jax : str
        ``module:function`` that computes it in JAX, where that is another one than `value`.
    """

    name: str
    summary: str
    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], Any] | None = None
    gain: float = 1.0
    bounded_odd: bool = False
    jax: str = ""

    def in_jax(self, h: Any) -> Any:
        """``σ(h)`` of a JAX array."""
        if self.jax:
            return imported(self.jax)(h)
        return self.value(h, importlib.import_module("jax.numpy"))


#: Every activation of networks by name.
ACTIVATIONS: Registry[Activation] = Registry(
    "network activation",
    [
        Activation("linear", "x", lambda h, xp: h),
        Activation("tanh", "tanh(x)", lambda h, xp: xp.tanh(h), lambda h, xp: 1 - xp.tanh(h) ** 2, bounded_odd=True),
        Activation("softsign", "x/(1 + |x|)", lambda h, xp: h / (1 + xp.abs(h)),
                   lambda h, xp: 1 / (1 + xp.abs(h)) ** 2, bounded_odd=True),
        Activation("arctan", "arctan(x)", lambda h, xp: xp.arctan(h), lambda h, xp: 1 / (1 + h * h), bounded_odd=True),
        # JAX's own has slope 0 at 0, that of a maximum would be 1/2.
        Activation("relu", "max(x, 0)", lambda h, xp: xp.maximum(h, 0), gain=2.0, jax="jax.nn:relu"),
    ],
)  # fmt: skip
