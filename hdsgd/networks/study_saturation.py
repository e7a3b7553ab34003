"""The saturation paper's experiments: constant step size, batches from 1 to n, convergence exponent ``h(b)``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.networks._extra import DTYPES, require
from hdsgd.networks.checkpoints import Checkpoints
from hdsgd.networks.specs import LOSSES, Data, FullyConnected, Network, network_from_dict
from hdsgd.networks.variables import finish
from hdsgd.outcomes import OUTCOMES
from hdsgd.parallel import Canceller, count_threads, run_tasks
from hdsgd.progress import progress_bar
from hdsgd.records import Record
from hdsgd.seeds import cell_seed, child

__all__ = ["Saturation", "exponent", "predicted_exponent", "saturation"]

logger = logging.getLogger("hdsgd")

STEPSIZES = ("constant", "theorem")


@dataclass(frozen=True)
class Saturation(Record):
    """One experiment.

    Parameters
    ----------
    network, data : Network and Data
    steps : int
        Iterations ``T`` of every run, whatever the batch.
    batches : tuple of int, optional
        Batch sizes ``b``; powers of two and n by default.  1 and n are needed for ``h̃`` and are added.
    lr : float, optional
        Step size ``η``.  By default ``η = lr_fraction/β(1)`` with ``β(b) = max_i|J_i|²_op/b + |∇F|²_op`` at the initial
        weights (the saturation paper, equation 2.2 and Theorem 3.2): 1/2 is Theorem 2.1's step size for b = 1; for a
        quadratic, SGD with b = 1 is stable in mean square up to 2 at most.  Needed with the cross-entropy.
    lr_fraction : float
    stepsize : {"constant", "theorem"}
        The same for every batch, as in the paper's experiments; or ``η(b) = lr_fraction/β(b)``, as in its theorems.
    loss : {"square", "cross-entropy"}
    dtype : {"float32", "float64"}
    points : int
        Points of the loss curves (`steps` is rounded up to a multiple).
    replicas : int
        Repetitions, each with new weights and batches on the same data.
    constants_from : int
        Most examples (the first ones) from which ``max_i|J_i|²_op`` and ``|∇F|_op`` are computed; with more, they are
        estimates and a maximum over these examples only.

    Raises
    ------
    SpecificationError
        If a name is unknown or a number out of range.
    """

    network: Network = FullyConnected(3, 256)  # noqa: RUF009 (frozen)
    data: Data = Data("digits")  # noqa: RUF009 (frozen)
    steps: int = 1000
    batches: tuple[int, ...] | None = None
    lr: float | None = None
    lr_fraction: float = 0.5
    stepsize: str = "constant"
    loss: str = "square"
    dtype: str = "float32"
    points: int = 40
    replicas: int = 1
    constants_from: int = 2048

    def __post_init__(self) -> None:
        if isinstance(self.network, Mapping):
            object.__setattr__(self, "network", network_from_dict(self.network))
        if isinstance(self.data, Mapping):
            object.__setattr__(self, "data", Data.from_dict(self.data))
        for name in ("steps", "points", "replicas", "constants_from"):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=1))
        if self.batches is not None:
            object.__setattr__(self, "batches", tuple(sorted({whole("batch", b, low=1) for b in self.batches})))
        if self.lr is not None:
            object.__setattr__(self, "lr", finite("lr", self.lr, low=0.0, open_low=True))
        object.__setattr__(self, "lr_fraction", finite("lr_fraction", self.lr_fraction, low=0.0, open_low=True))
        choice("stepsize", self.stepsize, STEPSIZES)
        choice("loss", self.loss, LOSSES)
        choice("dtype", self.dtype, DTYPES)
        if self.lr is not None and self.stepsize == "theorem":
            raise SpecificationError("give lr, or stepsize 'theorem' (which computes it for every batch), not both")
        if self.loss != "square" and self.lr is None:
            raise SpecificationError("beta belongs to the square loss; with the cross-entropy give lr")


def exponent(losses: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """``h(b) = log(L(w_0)/L(w_T))/T`` (the saturation paper, §5); NaN where the run diverged.

    Parameters
    ----------
    losses : ndarray, shape (..., points)
        From ``L(w_0)`` to ``L(w_T)``.
    steps : int
        ``T``.
    """
    return np.asarray(np.log(losses[..., 0] / losses[..., -1]) / steps)


def predicted_exponent(
    batches: NDArray[np.integer], first: NDArray[np.float64], last: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``h̃(b)``: ``1/h̃(b) = (1/b)(1/h(1)) + ((b-1)/b)(1/h(n))`` (the saturation paper, §5).

    Parameters
    ----------
    batches : ndarray, shape (batches,)
    first, last : ndarray, shape (replicas,)
        ``h(1)`` and ``h(n)``; where ``h(1)`` is not positive, as after a divergence, there is no prediction (NaN).

    Returns
    -------
    ndarray, shape (batches, replicas)
    """
    b = np.asarray(batches, dtype=np.float64)[:, None]
    good = (first > 0) & (last > 0)
    one, full = np.where(good, first, np.nan), np.where(good, last, np.nan)
    return np.asarray(1.0 / (1.0 / b / one + (b - 1) / b / full))


def saturation(
    spec: Saturation,
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
    partial: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Train with every batch size and compare ``h(b)`` with ``h̃(b)``.

    Parameters
    ----------
    spec : Saturation
    seed : int
        Fixes data, weights and batches.  A run is the same whatever other batches are run.
    threads : int, optional
        Runs trained at the same time; all cores by default.  Never changes a number.
    progress : bool
    partial : path, optional
        Folder for partial results, removed at the end by the caller (`Checkpoints`).
    resume, overwrite : bool
        Continue, or discard, what the folder holds.

    Returns
    -------
    xarray.Dataset
        Dims ``batch, replica, iteration``: ``loss_curve``, ``exponent``, ``exponent_predicted``, ``status``, ``lr``,
        and ``critical_batch_start``, ``gamma_start``, ``operator_norm_start`` of the square loss (NaN otherwise).

    Raises
    ------
    SpecificationError
        On a request that cannot be carried out, and if JAX is missing (with the command that installs it).
    """
    require()
    from hdsgd.networks.data import load_data
    from hdsgd.networks.objective import Objective
    from hdsgd.networks.statistics import beta, operator_norm
    from hdsgd.networks.training import train

    started = time.perf_counter()
    seed, threads = whole("seed", seed), count_threads(threads)
    base = np.random.SeedSequence(seed)
    data = load_data(spec.data, child(base, 0))
    batches = _batches(spec.batches, data.n)
    objectives = [
        Objective(
            spec.network,
            data,
            child(cell_seed(seed, spec.network.to_dict()), replica, 0),
            loss=spec.loss,
            dtype=spec.dtype,
        )
        for replica in range(spec.replicas)
    ]
    gamma = norm = np.nan
    if spec.loss == "square":
        logger.info("step size and critical batch from the Jacobian at the start (%d parameters)", objectives[0].size)
        few = objectives[0]
        if data.n > spec.constants_from:
            part = data._replace(x=data.x[: spec.constants_from], y=data.y[: spec.constants_from])
            start = child(cell_seed(seed, spec.network.to_dict()), 0, 0)
            few = Objective(spec.network, part, start, loss=spec.loss, dtype=spec.dtype)
        gamma = float(np.linalg.eigvalsh(few.jacobian_grams(few.params))[:, -1].max())
        norm = operator_norm(few)
    if spec.lr is not None:
        rates = np.full(len(batches), spec.lr)
    elif spec.stepsize == "theorem":
        rates = spec.lr_fraction / beta(gamma, norm**2, np.array(batches))
    else:
        rates = np.full(len(batches), spec.lr_fraction / beta(gamma, norm**2, 1))
    points = min(spec.points, spec.steps)
    block = -(-spec.steps // points)
    points = -(-spec.steps // block)
    steps = points * block
    # The budget is part of the address of nothing: a longer run repeats a shorter one, if its blocks are as long.
    identity = {**spec.to_dict(), "batches": batches, "seed": seed, "data_checksum": data.checksum}
    checkpoints = Checkpoints(partial, identity, resume=resume, overwrite=overwrite)
    curves = np.full((len(batches), spec.replicas, points + 1), np.nan)
    status = np.zeros((len(batches), spec.replicas), dtype=np.int8)
    canceller = Canceller()
    with progress_bar(len(batches) * spec.replicas * steps, "steps", progress) as advance:

        def one(i: int, replica: int) -> None:
            def moved(count: int) -> None:
                advance(count)
                if canceller.stopped:
                    raise KeyboardInterrupt

            run = train(
                objectives[replica],
                lr=float(rates[i]),
                batch=batches[i],
                blocks=points,
                block_steps=block,
                sampling="without-replacement",
                seed=child(cell_seed(seed, {"batch": batches[i]}), replica, 1),
                key=f"{batches[i]}/{replica}",
                checkpoints=checkpoints,
                advance=moved,
            )
            curves[i, replica] = run.losses
            if run.diverged:
                status[i, replica] = OUTCOMES["diverged"]

        # The long runs (large batches) first, so that threads end together.
        order = [(i, replica) for i in reversed(range(len(batches))) for replica in range(spec.replicas)]
        run_tasks((lambda i=i, r=r: one(i, r) for i, r in order), threads, canceller)  # type: ignore[misc]
    for i, b in enumerate(batches):
        if (count := int((status[i] == OUTCOMES["diverged"]).sum())) > 0:
            logger.warning("batch %d with step size %.4g diverged in %d of %d runs", b, rates[i], count, spec.replicas)
    h = exponent(curves, steps)
    dataset = xr.Dataset(
        {
            "loss_curve": (("batch", "replica", "iteration"), curves),
            "exponent": (("batch", "replica"), h),
            "exponent_predicted": (("batch", "replica"), predicted_exponent(np.array(batches), h[0], h[-1])),
            "status": (("batch", "replica"), status),
            "lr": ("batch", rates),
            "critical_batch_start": ((), gamma / norm**2),
            "gamma_start": ((), gamma),
            "operator_norm_start": ((), norm),
        },
        coords={
            "batch": batches,
            "replica": np.arange(spec.replicas),
            "iteration": np.arange(points + 1) * block,
        },
    )
    dataset.attrs = {}
    specification = {**spec.to_dict(), "steps": steps, "batches": batches, "seed": seed}
    specification |= {"data_checksum": data.checksum, "n": data.n, "parameters": objectives[0].size}
    return finish(dataset, "saturation", specification, seed, {"total_seconds": time.perf_counter() - started})


def _batches(wanted: tuple[int, ...] | None, n: int) -> list[int]:
    if wanted is None:
        wanted = tuple(2**k for k in range(n.bit_length()) if 2**k < n)
    if max(wanted) > n:
        raise SpecificationError(f"batch {max(wanted)} is larger than the data set ({n} examples)")
    return sorted({1, *wanted, n})
