"""A network, its data and its loss: gradients of single examples, Jacobian products and the NTK, all in chunks.

Normalisations (theory §7; the saturation paper, equation 2.1).  Example ``i`` has outputs ``f_i`` in R^C, labels
``y_i``, residual ``r_i = f_i - y_i``, Jacobian ``J_i = ∂f_i/∂w`` (C × parameters) and loss ``ℓ_i``;
``L = (1/n) Σ ℓ_i``.  With the square loss ``ℓ_i = ½|r_i|²``, ``L = ½|F|²`` where ``F = (r_1, ..., r_n)/sqrt(n)``, so
``∇F`` carries ``1/sqrt(n)`` and the NTK ``K = ∇F ∇Fᵀ`` carries ``1/n``.  Gradients of single examples are those of
``ℓ_i``; nothing is divided by ``n``.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError, choice
from hdsgd.networks import dense
from hdsgd.networks._extra import precision
from hdsgd.networks.architectures import build, parameter_count
from hdsgd.networks.data import Loaded
from hdsgd.networks.specs import GPT, LOSSES, FullyConnected, Network

__all__ = ["Objective"]

#: Numbers held at once by a chunk of per-example gradients or Jacobians.
CHUNK_NUMBERS = 2**25


def _square(out: Array, y: Array) -> Array:
    return 0.5 * jnp.sum((out - y) ** 2)


def _cross_entropy(out: Array, y: Array) -> Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(out, y))


_OUTPUT_LOSS = {"square": _square, "cross-entropy": _cross_entropy}


def example_loss(module: Any, x: Array, y: Array, loss: str) -> Array:
    """``ℓ_i``: ½|f - y|², or the cross-entropy (its mean over the characters of a window)."""
    return _OUTPUT_LOSS[loss](module(x), y)


def _square_norm(tree: Any) -> Array:
    return sum((jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


@functools.partial(jax.jit, static_argnames=("static", "loss"))
def _moments(params: Any, static: Any, x: Array, y: Array, valid: Array, loss: str) -> tuple[Array, Any, Array]:
    """Per-example squared gradient norms, the sum of the gradients and the losses of one chunk."""

    def one(x: Array, y: Array, ok: Array) -> tuple[Array, Any, Array]:
        value, gradient = jax.value_and_grad(lambda p: example_loss(eqx.combine(p, static), x, y, loss))(params)
        gradient = jax.tree.map(lambda g: g * ok, gradient)
        return _square_norm(gradient), gradient, value * ok

    norms, gradients, values = jax.vmap(one)(x, y, valid)
    return norms, jax.tree.map(lambda g: g.sum(axis=0), gradients), values


@functools.partial(jax.jit, static_argnames=("static", "loss"))
def _gradients(params: Any, static: Any, x: Array, y: Array, loss: str) -> Array:
    def one(x: Array, y: Array) -> Array:
        return ravel_pytree(jax.grad(lambda p: example_loss(eqx.combine(p, static), x, y, loss))(params))[0]

    return jax.vmap(one)(x, y)


@functools.partial(jax.jit, static_argnames=("static", "loss"))
def _batch_gradient(params: Any, static: Any, x: Array, y: Array, loss: str) -> Array:
    def mean(p: Any) -> Array:
        return jnp.mean(jax.vmap(lambda x, y: example_loss(eqx.combine(p, static), x, y, loss))(x, y))

    return ravel_pytree(jax.grad(mean)(params))[0]


@functools.partial(jax.jit, static_argnames=("static", "loss"))
def _evaluate(params: Any, static: Any, x: Array, y: Array, labels: Array | None, loss: str) -> tuple[Array, Array]:
    def one(x: Array, y: Array, label: Array | None) -> tuple[Array, Array]:
        module = eqx.combine(params, static)
        right = jnp.zeros(()) if label is None else jnp.mean(jnp.argmax(module(x), axis=-1) == label)
        return example_loss(module, x, y, loss), right

    return jax.vmap(one)(x, y, labels)


@functools.partial(jax.jit, static_argnames=("static",))
def _outputs(params: Any, static: Any, x: Array) -> Array:
    return jax.vmap(eqx.combine(params, static))(x)


def _jacobian(params: Any, static: Any, x: Array) -> Array:
    """Jacobians (m, C, parameters) of a chunk."""

    def one(x: Array) -> Array:
        out, pull = jax.vjp(lambda p: eqx.combine(p, static)(x), params)
        rows = jax.vmap(lambda c: pull(c)[0])(jnp.eye(out.shape[0], dtype=out.dtype))
        return jnp.concatenate([leaf.reshape(out.shape[0], -1) for leaf in jax.tree.leaves(rows)], axis=1)

    return jax.vmap(one)(x)


@functools.partial(jax.jit, static_argnames=("static",))
def _jacobian_grams(params: Any, static: Any, x: Array) -> Array:
    """``J_i J_iᵀ`` (m, C, C) of a chunk."""
    J = _jacobian(params, static, x)
    return jnp.einsum("icp,iep->ice", J, J)


_jacobians = functools.partial(jax.jit, static_argnames=("static",))(_jacobian)


@functools.partial(jax.jit, static_argnames=("static",))
def _pull(params: Any, static: Any, x: Array, v: Array) -> Any:
    """``Σ_i J_iᵀ v_i`` of a chunk."""
    return jax.vjp(lambda p: jax.vmap(eqx.combine(p, static))(x), params)[1](v)[0]


@functools.partial(jax.jit, static_argnames=("static",))
def _push(params: Any, static: Any, x: Array, u: Any) -> Array:
    """``J_i u`` (m, C) of a chunk."""
    return jax.jvp(lambda p: jax.vmap(eqx.combine(p, static))(x), (params,), (u,))[1]


class Objective:
    """A finite-sum problem: network, data and loss, with everything computed in chunks of examples.

    Parameters
    ----------
    network : Network
    data : Loaded
    seed : SeedSequence
        Of the initial weights.
    loss : {"square", "cross-entropy"}
    dtype : {"float64", "float32"}
    chunk : int, optional
        Examples handled at once wherever gradients of single examples or Jacobians are needed; by default as many as
        fit in 2²⁵ numbers.  Changes results by rounding only (sums are taken in another order).
    factored : bool
        For fully connected networks, take norms and the NTK from the factors of the layers' gradients
        (`hdsgd.networks.dense`): the same numbers, much faster for wide layers.

    Attributes
    ----------
    params : PyTree
        Initial weights.
    n, outputs, size : int
        Examples, outputs ``C`` and trained parameters.

    Raises
    ------
    SpecificationError
        If the network, the data and the loss do not fit together.
    """

    def __init__(
        self,
        network: Network,
        data: Loaded,
        seed: np.random.SeedSequence,
        *,
        loss: str = "square",
        dtype: str = "float64",
        chunk: int | None = None,
        factored: bool = True,
    ) -> None:
        self.network, self.data, self.dtype = network, data, dtype
        self.loss_name = choice("loss", loss, LOSSES)
        if loss == "cross-entropy" and not data.classes:
            raise SpecificationError("cross-entropy needs classes; these data have real labels (loss square)")
        if isinstance(network, GPT) != (data.y.ndim == 2 and data.classes):
            raise SpecificationError(f"{network.kind} does not fit these data: text goes with gpt, and gpt with text")
        self.n, self.outputs = data.n, data.d_out
        with precision(dtype):
            module = build(network, data.shape, data.d_out, seed, dtype)
            self.params, static = eqx.partition(module, eqx.is_inexact_array)
            self.static = static
            self.size = parameter_count(module)
            integers = data.x.dtype.kind in "iu"
            self.x = jnp.asarray(data.x, dtype="int32" if integers else dtype)
            labels = data.targets() if loss == "square" else data.y
            self.y = jnp.asarray(labels, dtype=dtype if loss == "square" else "int32")
            self.labels = jnp.asarray(data.y, dtype="int32") if data.classes else None
        if chunk is not None and chunk < 1:
            raise SpecificationError(f"chunk must be at least 1, not {chunk}")
        self.factored = factored and isinstance(network, FullyConnected)
        held = self.size
        if isinstance(network, FullyConnected) and self.factored:
            held = (network.depth * network.width + self.outputs) * self.outputs + math.prod(data.shape)
        self.chunk = min(self.n, chunk or max(1, CHUNK_NUMBERS // held))

    def _chunks(self, size: int | None = None) -> list[slice]:
        size = min(self.n, size or self.chunk)
        return [slice(i, min(i + size, self.n)) for i in range(0, self.n, size)]

    def _jacobian_chunk(self) -> int:
        # Factors count the outputs already; blocks of the NTK are formed in pieces of at most 4096 rows.
        return max(1, min(self.chunk, 4096 // self.outputs) if self.factored else self.chunk // self.outputs)

    def _outer_chunk(self) -> int:
        """Examples of a forward or reverse pass over a sum: activations are kept, gradients of single ones are not."""
        return max(self.chunk, min(self.n, 1024))

    # -- values ------------------------------------------------------------------------------------------------------

    def loss(self, params: Any) -> float:
        """``L``."""
        return self.evaluate(params)[0]

    def evaluate(self, params: Any) -> tuple[float, float]:
        """Loss ``L`` and accuracy (NaN without classes) on all examples, summed in float64."""
        total = right = 0.0
        with precision(self.dtype):
            for s in self._chunks(self._outer_chunk()):
                labels = None if self.labels is None else self.labels[s]
                values, hits = _evaluate(params, self.static, self.x[s], self.y[s], labels, self.loss_name)
                total += float(np.asarray(values, dtype=np.float64).sum())
                right += float(np.asarray(hits, dtype=np.float64).sum())
        return total / self.n, right / self.n if self.labels is not None else math.nan

    def residuals(self, params: Any) -> NDArray[np.float64]:
        """``r_i = f_i - y_i`` of the square loss, shape (n, C)."""
        if self.loss_name != "square":
            raise SpecificationError("residuals belong to the square loss")
        with precision(self.dtype):
            parts = [np.asarray(_outputs(params, self.static, self.x[s])) for s in self._chunks(self._outer_chunk())]
            return np.concatenate(parts).astype(np.float64) - np.asarray(self.y, dtype=np.float64)

    # -- gradients of single examples --------------------------------------------------------------------------------

    def example_gradients(self, params: Any, indices: NDArray[np.integer]) -> NDArray[np.floating]:
        """Gradients ``∇ℓ_i`` of the examples asked for, shape (len(indices), parameters).  For few examples."""
        with precision(self.dtype):
            i = np.asarray(indices)
            return np.asarray(_gradients(params, self.static, self.x[i], self.y[i], self.loss_name))

    def batch_gradient(self, params: Any, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        """``g_S = (1/b) Σ_{i ∈ S} ∇ℓ_i``, shape (parameters,), by one reverse pass."""
        with precision(self.dtype):
            i = np.asarray(indices)
            gradient = _batch_gradient(params, self.static, self.x[i], self.y[i], self.loss_name)
            return np.asarray(gradient, dtype=np.float64)

    def gradient_moments(self, params: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Squared norms of every example's gradient and the mean gradient; memory is ``chunk`` × parameters.

        Returns
        -------
        norms : ndarray, shape (n,)
            ``|∇ℓ_i|²``.
        mean : ndarray, shape (parameters,)
            ``∇L``.
        loss : float
            ``L``.
        """
        if self.factored:
            return self._factored_moments(params)
        norms, total, losses = [], None, 0.0
        with precision(self.dtype):
            ones = jnp.ones(self.chunk, dtype=self.dtype)
            for s in self._chunks():
                x, y, ok = self.x[s], self.y[s], ones
                count = s.stop - s.start
                if count < self.chunk:  # the last chunk is filled up with copies that count for nothing
                    fill = jnp.minimum(jnp.arange(self.chunk), count - 1)
                    x, y, ok = x[fill], y[fill], (jnp.arange(self.chunk) < count).astype(self.dtype)
                part, sums, values = _moments(params, self.static, x, y, ok, self.loss_name)
                norms.append(np.asarray(part[:count], dtype=np.float64))
                vector = np.asarray(ravel_pytree(sums)[0], dtype=np.float64)
                total = vector if total is None else total + vector
                losses += float(np.asarray(values, dtype=np.float64).sum())
        assert total is not None
        return np.concatenate(norms), total / self.n, losses / self.n

    def _factored_moments(self, params: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        norms, total, losses = [], np.zeros(self.size), 0.0
        with precision(self.dtype):
            for s in self._chunks(min(self.chunk, 4096)):
                x, y = self.x[s], self.y[s]
                part, values = dense.square_norms(params, self.static, x, y, _OUTPUT_LOSS[self.loss_name])
                norms.append(np.asarray(part, dtype=np.float64))
                mean = _batch_gradient(params, self.static, x, y, self.loss_name)
                total += (s.stop - s.start) * np.asarray(mean, dtype=np.float64)
                losses += float(np.asarray(values, dtype=np.float64).sum())
        return np.concatenate(norms), total / self.n, losses / self.n

    # -- Jacobian ----------------------------------------------------------------------------------------------------

    def _needs_vector(self) -> None:
        if self.data.y.ndim == 2 and self.data.classes:
            raise SpecificationError("the Jacobian constants belong to the square loss; text has none")

    def jacobian_grams(self, params: Any) -> NDArray[np.float64]:
        """``J_i J_iᵀ`` of every example, shape (n, C, C); ``|∇f_i|²`` for one output."""
        self._needs_vector()
        with precision(self.dtype):
            parts = []
            for s in self._chunks(self._jacobian_chunk()):
                if self.factored:
                    f = dense.factors(params, self.static, self.x[s])
                    part = dense.gram_block(params, self.static, f, f, diagonal=True)
                else:
                    part = _jacobian_grams(params, self.static, self.x[s])
                parts.append(np.asarray(part, dtype=np.float64))
        return np.concatenate(parts)

    def ntk(self, params: Any) -> NDArray[np.float64]:
        """``K = ∇F ∇Fᵀ``, shape (n C, n C), rows ordered by example and then output; carries ``1/n``.

        Built from blocks of Jacobians, ``chunk`` examples in all, that are computed again as needed.
        """
        self._needs_vector()
        c = self.outputs
        K = np.empty((self.n * c, self.n * c))
        chunks = self._chunks(max(1, self._jacobian_chunk() // 2))
        with precision(self.dtype):
            for i, rows in enumerate(chunks):
                left = self._jacobian_part(params, rows)
                for cols in chunks[i:]:
                    right = left if cols is rows else self._jacobian_part(params, cols)
                    if self.factored:
                        product = dense.gram_block(params, self.static, left, right)
                        product = product.reshape((rows.stop - rows.start) * c, -1)
                    else:
                        product = left @ right.T
                    block = np.asarray(product, dtype=np.float64) / self.n
                    K[rows.start * c : rows.stop * c, cols.start * c : cols.stop * c] = block
                    K[cols.start * c : cols.stop * c, rows.start * c : rows.stop * c] = block.T
        return K

    def _jacobian_part(self, params: Any, s: slice) -> Any:
        """What a block of the NTK is made of: rows of the Jacobian, or its factors."""
        if self.factored:
            return dense.factors(params, self.static, self.x[s])
        return _jacobians(params, self.static, self.x[s]).reshape(-1, self.size)

    def gram(self, params: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(1/n) Σ J_iᵀJ_i`` and ``(1/n) Σ J_iᵀ(J_iJ_iᵀ)J_i``, both (parameters, parameters): for few parameters."""
        self._needs_vector()
        first, second = np.zeros((2, self.size, self.size))
        with precision(self.dtype):
            for s in self._chunks(max(1, CHUNK_NUMBERS // (self.size * self.outputs))):
                J = np.asarray(_jacobians(params, self.static, self.x[s]), dtype=np.float64)
                first += np.einsum("icp,icq->pq", J, J, optimize=True)
                GJ = np.einsum("icp,iep->ice", J, J, optimize=True) @ J
                second += np.einsum("icp,icq->pq", J, GJ, optimize=True)
        return first / self.n, second / self.n

    def ntk_product(self, params: Any, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """``K v`` without ``K``: one reverse and one forward pass over the data; `v` has shape (n C,)."""
        self._needs_vector()
        v = np.asarray(v).reshape(self.n, self.outputs)
        total = None
        with precision(self.dtype):
            chunks = self._chunks(self._outer_chunk())
            for s in chunks:
                part = _pull(params, self.static, self.x[s], jnp.asarray(v[s], dtype=self.dtype))
                total = part if total is None else jax.tree.map(jnp.add, total, part)
            pushed = [np.asarray(_push(params, self.static, self.x[s], total), dtype=np.float64) for s in chunks]
        return np.concatenate(pushed).reshape(-1) / self.n
