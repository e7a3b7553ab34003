"""Mini-batch SGD on an `Objective`: blocks of steps compiled once, batches addressed by seed, resumable anywhere.

``w <- w - η g_S``, ``g_S = (1/b) Σ_{i ∈ S} ∇ℓ_i``.  The batches of block k of a run are drawn from the k-th child of
its seed and the state is saved between blocks only, so that a resumed run executes the same compiled blocks on the same
numbers and ends on the same bits as an unbroken one.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from hdsgd.errors import choice
from hdsgd.networks._extra import precision
from hdsgd.networks.objective import Objective, example_loss
from hdsgd.networks.specs import GPT, SAMPLINGS, FullyConnected
from hdsgd.seeds import child

__all__ = ["SAMPLINGS", "Curve", "batch_indices", "sgd_block", "train"]


#: A run whose loss has grown by this factor, or is no longer finite, has diverged.
DIVERGED = 1e6

#: Seconds between saved states.
CHECKPOINT_SECONDS = 20.0


@functools.partial(jax.jit, static_argnames=("static", "loss", "steps"))
def _steps(
    params: Any,
    static: Any,
    x: Array,
    y: Array,
    lr: Array,
    index: Array | None,
    weight: Array | None,
    loss: str,
    steps: int,
) -> Any:
    """`steps` SGD steps.  index: (steps, parts, size) or None for the whole data set; weight: same shape, sums to 1."""
    optimiser = optax.sgd(lr)

    def total(p: Any, xs: Array, ys: Array, ws: Array | None) -> Array:
        values = jax.vmap(lambda a, b: example_loss(eqx.combine(p, static), a, b, loss))(xs, ys)
        return jnp.mean(values) if ws is None else jnp.sum(values * ws)

    def step(p: Any, batch: tuple[Array | None, Array | None]) -> tuple[Any, None]:
        i, w = batch
        if i is None:
            gradient = jax.grad(total)(p, x, y, None)
        elif w is None:
            gradient = jax.grad(total)(p, x[i[0]], y[i[0]], None)
        elif i.shape[0] == 1:
            gradient = jax.grad(total)(p, x[i[0]], y[i[0]], w[0])
        else:

            def add(g: Any, part: tuple[Array, Array]) -> tuple[Any, None]:
                i, w = part
                return jax.tree.map(jnp.add, g, jax.grad(total)(p, x[i], y[i], w)), None

            gradient = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, p), (i, w))[0]
        updates, _ = optimiser.update(gradient, optimiser.init(p), p)
        return optax.apply_updates(p, updates), None

    return jax.lax.scan(step, params, (index, weight), length=steps)[0]


def micro_batch(objective: Objective) -> int:
    """Examples whose activations are held at once; a larger batch is summed in parts (the same up to rounding)."""
    if isinstance(objective.network, FullyConnected):
        return 4096
    return 16 if isinstance(objective.network, GPT) else 256


def batch_indices(
    n: int, batch: int, steps: int, sampling: str, seed: np.random.SeedSequence
) -> tuple[NDArray[np.int32], NDArray[np.float64] | None]:
    """Indices of the batches of one block.

    Parameters
    ----------
    n, batch, steps : int
    sampling : {"without-replacement", "replacement", "epochs"}
        Every batch uniform among those of ``b`` distinct examples (the saturation paper); every index uniform (Chen et
        al., equation 3.1); or consecutive pieces of fresh permutations, each permutation one epoch of ``ceil(n/b)``
        batches, the last of which may be smaller (`steps` is then a multiple of ``ceil(n/b)``).
    seed : SeedSequence

    Returns
    -------
    index : ndarray, shape (steps, batch)
    weight : ndarray, shape (steps, batch), or None
        Weights of the examples where batches are not full; None: all ``1/b``.
    """
    rng = np.random.default_rng(seed)
    if choice("sampling", sampling, SAMPLINGS) == "replacement":
        return rng.integers(0, n, (steps, batch), dtype=np.int32), None
    if sampling == "without-replacement":
        index = np.empty((steps, batch), dtype=np.int32)
        for k in range(steps):
            index[k] = rng.choice(n, batch, replace=False, shuffle=False)
        return index, None
    per_epoch = -(-n // batch)
    pieces = np.full((steps // per_epoch, per_epoch * batch), -1, dtype=np.int32)
    for row in pieces:
        row[:n] = rng.permutation(n)
    index = pieces.reshape(steps, batch)
    if n % batch == 0:
        return index, None
    present = index >= 0
    return np.where(present, index, 0), present / present.sum(axis=1, keepdims=True)


def sgd_block(
    objective: Objective, params: Any, lr: float, batch: int, steps: int, sampling: str, seed: np.random.SeedSequence
) -> Any:
    """Weights after `steps` further steps; the batches come from `seed` alone."""
    n, micro = objective.n, micro_batch(objective)
    index: Any = None
    weight: Any = None
    if not (batch >= n and sampling != "replacement" and n <= micro):
        index, weight = batch_indices(n, batch, steps, sampling, seed)
        size = index.shape[1]
        if size > micro:
            weight = np.full(index.shape, 1.0 / size) if weight is None else weight
            fill = -size % micro
            index = np.pad(index, ((0, 0), (0, fill)))
            weight = np.pad(weight, ((0, 0), (0, fill)))
        index = index.reshape(steps, -1, min(size, micro))
        weight = None if weight is None else weight.reshape(index.shape)
    with precision(objective.dtype):
        if index is not None:
            index = jnp.asarray(index)
            weight = None if weight is None else jnp.asarray(weight, dtype=objective.dtype)
        rate = jnp.asarray(lr, dtype=objective.dtype)
        return _steps(
            params, objective.static, objective.x, objective.y, rate, index, weight, objective.loss_name, steps
        )


class Curve(NamedTuple):
    """A run.

    Attributes
    ----------
    losses, accuracies : ndarray, shape (blocks + 1,)
        At the start and after every block; NaN from a divergence on, or once stopped.
    params : PyTree
        The last weights.
    diverged, stopped : bool
    observed : ndarray, shape (blocks + 1,)
        What `observe` returned, NaN where it was not called.
    """

    losses: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    params: Any
    diverged: bool
    stopped: bool
    observed: NDArray[np.float64]


def train(
    objective: Objective,
    *,
    lr: float,
    batch: int,
    blocks: int,
    block_steps: int,
    sampling: str,
    seed: np.random.SeedSequence,
    params: Any = None,
    state: Mapping[str, NDArray[Any]] | None = None,
    save: Callable[[dict[str, NDArray[Any]]], None] | None = None,
    stop: Callable[[float, float], bool] | None = None,
    observe: Callable[[int, Any], float] | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Curve:
    """Train with a constant step size, block by block.

    Parameters
    ----------
    objective : Objective
    lr : float
        ``η``.
    batch, blocks, block_steps : int
        ``b``, and how many blocks of how many steps; loss and accuracy on all examples are taken after each.
    sampling : {"without-replacement", "replacement", "epochs"}
    seed : SeedSequence
        Of the batches; block k uses child k.
    params : PyTree, optional
        The start; the objective's initial weights by default.
    state : mapping of arrays, optional
        What `save` was given by a run of the same arguments: this one goes on from there.
    save : callable, optional
        Given the state between blocks, every `CHECKPOINT_SECONDS`.
    stop : callable, optional
        ``stop(loss, accuracy)`` true ends the run.
    observe : callable, optional
        ``observe(block, params)`` is a further number to record, NaN for none.
    advance : callable
        Told of steps taken, for progress.
    """
    params = objective.params if params is None else params
    leaves, tree = jax.tree.flatten(params)
    record = np.full((3, blocks + 1), np.nan)
    done, diverged, stopped = -1, False, False
    if state is not None:
        record, done = np.array(state["record"]), int(state["done"])
        stopped = bool(state["stopped"])
        with precision(objective.dtype):
            params = jax.tree.unflatten(tree, [jnp.asarray(state[f"leaf{i}"]) for i in range(len(leaves))])
        advance(done * block_steps)

    def present() -> dict[str, NDArray[Any]]:
        arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
        return {"record": record, "done": np.array(done), "stopped": np.array(stopped), **arrays}

    saved = time.monotonic()
    while done < blocks and not diverged and not stopped:
        if done >= 0:
            params = sgd_block(objective, params, lr, batch, block_steps, sampling, child(seed, done))
            advance(block_steps)
        done += 1
        loss, accuracy = objective.evaluate(params)
        diverged = not math.isfinite(loss) or (done > 0 and loss > DIVERGED * max(record[0, 0], 1e-300))
        if diverged:
            break
        record[:2, done] = loss, accuracy
        if observe is not None:
            record[2, done] = observe(done, params)
        stopped = stop is not None and stop(loss, accuracy)
        if save is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            save(present())
            saved = time.monotonic()
    advance((blocks - done) * block_steps)
    return Curve(record[0], record[1], params, diverged, stopped, record[2])
