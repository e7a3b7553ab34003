"""The networks as Equinox modules: one example in, one output vector out."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hdsgd.errors import SpecificationError
from hdsgd.networks.activations import ACTIVATIONS
from hdsgd.networks.specs import GPT, FullyConnected, LeNet, Network, ResNet
from hdsgd.seeds import child

__all__ = ["build", "parameter_count"]

Seed = np.random.SeedSequence


def _split(seed: Seed, count: int) -> list[Seed]:
    return [child(seed, i) for i in range(count)]


def _normal(seed: Seed, shape: tuple[int, ...]) -> Any:
    """Standard normals of one weight array, float32; NumPy's, which do not change with JAX's version or precision."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _filled(value: float, *shape: int) -> Any:
    return np.full(shape, value, dtype=np.float32)


class Dense(eqx.Module):
    """``factor · W x (+ bias)``."""

    weight: Array
    bias: Array | None
    factor: float = eqx.field(static=True)

    def __init__(
        self,
        d_in: int,
        d_out: int,
        seed: Seed,
        gain: float = 1.0,
        parametrisation: str = "standard",
        bias: bool = False,
    ) -> None:
        scale = math.sqrt(gain / d_in)
        self.weight = _normal(seed, (d_out, d_in))
        if parametrisation == "standard":
            self.weight = self.weight * np.float32(scale)
        self.factor = scale if parametrisation == "ntk" else 1.0
        self.bias = _filled(0, d_out) if bias else None

    def __call__(self, x: Array) -> Array:
        y = self.weight @ x
        if self.factor != 1.0:
            y = y * self.factor
        return y if self.bias is None else y + self.bias


class MLP(eqx.Module):
    # Tuples, not lists, in every module: the static half of a network is a key of JAX's compilation cache.
    layers: tuple[Dense, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, spec: FullyConnected, d_in: int, d_out: int, seed: Seed, after_activation: bool = False) -> None:
        sizes = [d_in, *[spec.width] * spec.depth, d_out]
        keys = _split(seed, len(sizes) - 1)
        gains = [spec.resolved_gain if i or after_activation else 1.0 for i in range(len(keys))]
        self.layers = tuple(
            Dense(a, b, k, g, spec.parametrisation, spec.bias)
            for a, b, k, g in zip(sizes[:-1], sizes[1:], keys, gains, strict=True)
        )
        self.activation = spec.activation

    def __call__(self, x: Array) -> Array:
        x = x.reshape(-1)
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation].in_jax(layer(x))
        return self.layers[-1](x)


class Conv(eqx.Module):
    """Convolution of a (channels, height, width) image, He initialisation."""

    weight: Array
    bias: Array | None
    stride: int = eqx.field(static=True)
    padding: str = eqx.field(static=True)

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int,
        seed: Seed,
        *,
        stride: int = 1,
        padding: str = "SAME",
        bias: bool = False,
    ) -> None:
        scale = math.sqrt(2.0 / (c_in * size * size))
        self.weight = _normal(seed, (c_out, c_in, size, size)) * np.float32(scale)
        self.bias = _filled(0, c_out) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: Array) -> Array:
        y = jax.lax.conv_general_dilated(x[None], self.weight, (self.stride, self.stride), self.padding)[0]
        return y if self.bias is None else y + self.bias[:, None, None]


def max_pool(x: Array) -> Array:
    """2×2, stride 2."""
    c, h, w = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))


class LeNetModule(eqx.Module):
    convolutions: tuple[Conv, ...]
    head: MLP
    activation: str = eqx.field(static=True)

    def __init__(self, spec: LeNet, shape: tuple[int, ...], d_out: int, seed: Seed) -> None:
        c, h, w = image_shape(spec, shape)
        keys = _split(seed, 3)
        padding = "VALID" if min(h, w) >= 16 else "SAME"
        sizes = [c, *spec.channels]
        self.convolutions = tuple(
            Conv(sizes[i], sizes[i + 1], 5, keys[i], padding=padding, bias=True) for i in range(2)
        )
        for _ in range(2):
            h, w = ((h - 4) // 2, (w - 4) // 2) if padding == "VALID" else (h // 2, w // 2)
        if min(h, w) < 1:
            raise SpecificationError(f"lenet needs images of at least 4×4 pixels, not {shape[-2]}×{shape[-1]}")
        inner = FullyConnected(spec.depth, spec.width, spec.activation, bias=True)
        self.head = MLP(inner, spec.channels[1] * h * w, d_out, keys[2], after_activation=True)
        self.activation = spec.activation

    def __call__(self, x: Array) -> Array:
        for convolution in self.convolutions:
            x = max_pool(ACTIVATIONS[self.activation].in_jax(convolution(x)))
        return self.head(x)


class Norm(eqx.Module):
    """Group normalisation over (channels of the group, height, width), with scale and shift per channel."""

    scale: Array
    shift: Array
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int) -> None:
        self.scale, self.shift = _filled(1, channels), _filled(0, channels)
        self.groups = math.gcd(channels, groups)

    def __call__(self, x: Array) -> Array:
        y = x.reshape(self.groups, -1)
        y = (y - y.mean(axis=1, keepdims=True)) * jax.lax.rsqrt(y.var(axis=1, keepdims=True) + 1e-5)
        return y.reshape(x.shape) * self.scale[:, None, None] + self.shift[:, None, None]


class Block(eqx.Module):
    convolutions: tuple[Conv, Conv]
    norms: tuple[Norm, Norm] | None
    shortcut: Conv | None
    damping: float = eqx.field(static=True)

    def __init__(self, c_in: int, c_out: int, stride: int, spec: ResNet, seed: Seed) -> None:
        keys = _split(seed, 3)
        self.convolutions = (Conv(c_in, c_out, 3, keys[0], stride=stride), Conv(c_out, c_out, 3, keys[1]))
        self.norms = (Norm(c_out, spec.groups), Norm(c_out, spec.groups)) if spec.normalisation == "group" else None
        self.shortcut = Conv(c_in, c_out, 1, keys[2], stride=stride) if stride != 1 or c_in != c_out else None
        # Without normalisation the variance of the stream would double in every block.
        self.damping = 1.0 if self.norms else 1.0 / math.sqrt(sum(spec.blocks))

    def __call__(self, x: Array) -> Array:
        y = self.convolutions[0](x)
        y = jax.nn.relu(self.norms[0](y) if self.norms else y)
        y = self.convolutions[1](y)
        y = self.norms[1](y) if self.norms else y * self.damping
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNetModule(eqx.Module):
    stem: Conv
    norm: Norm | None
    chunks: tuple[tuple[Block, ...], ...]
    head: MLP

    def __init__(self, spec: ResNet, shape: tuple[int, ...], d_out: int, seed: Seed) -> None:
        c, h, w = image_shape(spec, shape)
        if min(h, w) < 2 ** (len(spec.blocks) - 1):
            raise SpecificationError(
                f"{len(spec.blocks)} chunks halve the image {len(spec.blocks) - 1} times; {h}×{w} pixels are too few"
            )
        keys = _split(seed, 2 + len(spec.blocks))
        self.stem = Conv(c, spec.channels, 3, keys[0])
        self.norm = Norm(spec.channels, spec.groups) if spec.normalisation == "group" else None
        chunks = []
        c_in = spec.channels
        for i, count in enumerate(spec.blocks):
            c_out = spec.channels * 2**i
            chunk = []
            for j, k in enumerate(_split(keys[2 + i], count)):
                chunk.append(Block(c_in, c_out, 2 if i and not j else 1, spec, k))
                c_in = c_out
            chunks.append(tuple(chunk))
        self.chunks = tuple(chunks)
        inner = FullyConnected(spec.depth, spec.width, "relu", bias=True)
        self.head = MLP(inner, c_in, d_out, keys[1])

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        x = jax.nn.relu(self.norm(x) if self.norm else x)
        for chunk in self.chunks:
            for block in chunk:
                x = block(x)
        return self.head(x.mean(axis=(1, 2)))


def layer_norm(x: Array, scale: Array) -> Array:
    y = x - x.mean(axis=-1, keepdims=True)
    return y * jax.lax.rsqrt(x.var(axis=-1, keepdims=True) + 1e-5) * scale


class GPTBlock(eqx.Module):
    norms: Array  # (2, channels)
    attention: Array  # (3 channels, channels)
    output: Array  # (channels, channels)
    rise: Array  # (4 channels, channels)
    fall: Array  # (channels, 4 channels)
    heads: int = eqx.field(static=True)

    def __init__(self, spec: GPT, seed: Seed) -> None:
        c, keys, out = spec.channels, _split(seed, 4), 0.02 / math.sqrt(2 * spec.layers)
        self.norms = _filled(1, 2, c)
        self.attention = 0.02 * _normal(keys[0], (3 * c, c))
        self.output = out * _normal(keys[1], (c, c))
        self.rise = 0.02 * _normal(keys[2], (4 * c, c))
        self.fall = out * _normal(keys[3], (c, 4 * c))
        self.heads = spec.heads

    def __call__(self, x: Array) -> Array:
        t, c = x.shape
        q, k, v = jnp.split(layer_norm(x, self.norms[0]) @ self.attention.T, 3, axis=-1)
        q, k, v = (a.reshape(t, self.heads, -1).transpose(1, 0, 2) for a in (q, k, v))
        weights = q @ k.transpose(0, 2, 1) / math.sqrt(c // self.heads)
        weights = jnp.where(np.tril(np.ones((t, t), bool)), weights, -jnp.inf)
        y = (jax.nn.softmax(weights, axis=-1) @ v).transpose(1, 0, 2).reshape(t, c)
        x = x + y @ self.output.T
        return x + jax.nn.gelu(layer_norm(x, self.norms[1]) @ self.rise.T) @ self.fall.T


class GPTModule(eqx.Module):
    tokens: Array  # (vocabulary, channels)
    positions: Array  # (context, channels)
    blocks: tuple[GPTBlock, ...]
    norm: Array

    def __init__(self, spec: GPT, vocabulary: int, seed: Seed) -> None:
        keys = _split(seed, 2 + spec.layers)
        self.tokens = 0.02 * _normal(keys[0], (vocabulary, spec.channels))
        self.positions = 0.02 * _normal(keys[1], (spec.context, spec.channels))
        self.blocks = tuple(GPTBlock(spec, k) for k in keys[2:])
        self.norm = _filled(1, spec.channels)

    def __call__(self, x: Array) -> Array:
        h = self.tokens[x] + self.positions[: x.shape[0]]
        for block in self.blocks:
            h = block(h)
        return layer_norm(h, self.norm) @ self.tokens.T  # (characters, vocabulary)


def image_shape(spec: Network, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Check that the inputs are images (channels, height, width)."""
    if len(shape) != 3:
        raise SpecificationError(f"{spec.kind} needs images; these inputs have shape {'×'.join(map(str, shape))}")
    return shape[0], shape[1], shape[2]


def build(spec: Network, shape: tuple[int, ...], d_out: int, seed: np.random.SeedSequence, dtype: str) -> Any:
    """The network at its random start.

    Weights are drawn in float32 and then converted, so the start does not depend on the precision of the run.

    Parameters
    ----------
    spec : Network
    shape : tuple of int
        Shape of one input: (d,), or (channels, height, width), or (characters,).
    d_out : int
        Outputs; for `GPT` the size of the vocabulary.
    seed : SeedSequence
    dtype : {"float32", "float64"}
        To be called inside ``precision(dtype)``.

    Raises
    ------
    SpecificationError
        If the network does not fit the inputs.
    """
    if isinstance(spec, GPT):
        if len(shape) != 1 or shape[0] > spec.context:
            raise SpecificationError(f"gpt sees {spec.context} characters; the windows have shape {shape}")
        module: Any = GPTModule(spec, d_out, seed)
    elif isinstance(spec, FullyConnected):
        module = MLP(spec, math.prod(shape), d_out, seed)
    elif isinstance(spec, LeNet):
        module = LeNetModule(spec, shape, d_out, seed)
    elif isinstance(spec, ResNet):
        module = ResNetModule(spec, shape, d_out, seed)
    else:
        raise SpecificationError(f"no network of type {type(spec).__name__}")
    return jax.tree.map(lambda a: jnp.asarray(a, dtype=dtype), module)


def parameter_count(module: Any) -> int:
    """Number of trained parameters."""
    return sum(a.size for a in jax.tree.leaves(module) if eqx.is_inexact_array(a))
