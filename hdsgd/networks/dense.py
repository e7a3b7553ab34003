"""Gradient norms and the NTK of fully connected networks from activations and back-propagated errors alone.

The gradient of one example with respect to the weights of a dense layer is an outer product ``s δ aᵀ`` (s the layer's
factor, a its input, δ the derivative by its pre-activation), so ``|∇_W|² = s² |δ|² |a|²`` and
``<∇_W^i, ∇_W^j> = s² (δ_i·δ_j)(a_i·a_j)``; a bias adds 1 to ``s² a_i·a_j``.  No per-example gradient is ever formed:
memory is examples × units instead of examples × parameters.
"""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from hdsgd.networks.activations import ACTIVATIONS

__all__ = ["factors", "gram_block", "square_norms"]


def _forward(module: Any, x: Array, shifts: list[Array]) -> tuple[Array, list[Array]]:
    """Output with every pre-activation shifted, and the inputs of the layers."""
    x, inputs = x.reshape(-1), []
    for i, layer in enumerate(module.layers):
        inputs.append(x)
        x = layer(x) + shifts[i]
        if i < len(module.layers) - 1:
            x = ACTIVATIONS[module.activation].in_jax(x)
    return x, inputs


def _shifts(module: Any, dtype: Any) -> list[Array]:
    return [jnp.zeros(layer.weight.shape[0], dtype) for layer in module.layers]


@functools.partial(jax.jit, static_argnames=("static", "loss"))
def square_norms(params: Any, static: Any, x: Array, y: Array, loss: Any) -> tuple[Array, Array]:
    """``|∇ℓ_i|²`` and ``ℓ_i`` of a chunk, each (m,); `loss` is a function of outputs and label."""
    module = eqx.combine(params, static)

    def one(x: Array, y: Array) -> tuple[Array, Array]:
        def shifted(shifts: list[Array]) -> tuple[Array, list[Array]]:
            out, inputs = _forward(module, x, shifts)
            return loss(out, y), inputs

        (value, inputs), errors = jax.value_and_grad(shifted, has_aux=True)(_shifts(module, x.dtype))
        total = jnp.zeros((), x.dtype)
        for layer, a, e in zip(module.layers, inputs, errors, strict=True):
            total = total + (e @ e) * (layer.factor**2 * (a @ a) + (layer.bias is not None))
        return total, value

    return jax.vmap(one)(x, y)


@functools.partial(jax.jit, static_argnames=("static",))
def factors(params: Any, static: Any, x: Array) -> tuple[list[Array], list[Array]]:
    """Errors of every output, a list of (m, C, K_l), and layer inputs, a list of (m, K_{l-1}), of a chunk."""
    module = eqx.combine(params, static)

    def one(x: Array) -> tuple[list[Array], list[Array]]:
        out, pull, inputs = jax.vjp(lambda s: _forward(module, x, s), _shifts(module, x.dtype), has_aux=True)
        return jax.vmap(lambda c: pull(c)[0])(jnp.eye(out.shape[0], dtype=out.dtype)), inputs

    return jax.vmap(one)(x)


@functools.partial(jax.jit, static_argnames=("static", "diagonal"))
def gram_block(params: Any, static: Any, left: Any, right: Any, diagonal: bool = False) -> Array:
    """``J_i J_jᵀ`` for two chunks from their `factors`: (m, C, m', C), or with `diagonal` (m, C, C) for i = j."""
    module = eqx.combine(params, static)
    total: Any = 0.0
    for layer, d, a, e, b in zip(module.layers, *left, *right, strict=True):
        extra = float(layer.bias is not None)
        if diagonal:
            inner = layer.factor**2 * jnp.sum(a * b, axis=1) + extra
            total = total + jnp.einsum("ick,iek->ice", d, e) * inner[:, None, None]
        else:
            inner = layer.factor**2 * a @ b.T + extra
            total = total + jnp.einsum("ick,jek->icje", d, e) * inner[:, None, :, None]
    return jnp.asarray(total)
