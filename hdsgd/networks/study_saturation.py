"""The saturation paper's experiments: constant step size, batches from 1 to n, convergence exponent ``h(b)``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.networks._extra import DTYPES, require
from hdsgd.networks.shared import find_data, find_objective, sharing
from hdsgd.networks.specs import LOSSES, Data, FullyConnected, Network, network_from_dict
from hdsgd.networks.studies import NetworkStudy
from hdsgd.networks.variables import finish
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import SEED, Store, Workers
from hdsgd.records import Record
from hdsgd.seeds import cell_seed, child
from hdsgd.studies.runner import check_before, run_study
from hdsgd.studies.study import Context, Index, Results

__all__ = ["Saturation", "SaturationStudy", "exponent", "predicted_exponent", "saturation"]

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
    seed: int = SEED,
    store: Store | str | os.PathLike[str] | None = None,
    workers: Workers = Workers(),
    progress: bool = False,
) -> xr.Dataset:
    """Train with every batch size and compare ``h(b)`` with ``h̃(b)``.

    Parameters
    ----------
    spec : Saturation
    seed : int
        Fixes data, weights and batches.  A run is the same whatever other batches are run.
    store, workers, progress
        As in `hdsgd.phase_diagram`; besides finished runs, the weights of those in progress are kept (on threads).

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
    started = time.perf_counter()
    require()
    seed = whole("seed", seed)
    check_before(store, workers)
    with sharing():
        data = find_data(spec.data, seed)
        batches = _batches(spec.batches, data.n)
        points, block = _blocks(spec)
        first = find_objective(spec.network, spec.data, seed, 0, spec.loss, spec.dtype, data.checksum)
        specification = {**spec.to_dict(), "steps": points * block, "batches": batches, "seed": seed}
        specification |= {"data_checksum": data.checksum, "n": data.n, "parameters": first.size}
        study = SaturationStudy(specification, _resolve(spec, seed, batches, first, data))
        dataset = run_study(study, store=store, workers=workers, progress=progress, started=started)
    diverged = (dataset["status"].values == OUTCOMES["diverged"]).sum(axis=1)
    for b, lr, count in zip(batches, dataset["lr"].values, diverged.tolist(), strict=True):
        if count:
            logger.warning("batch %d with step size %.4g diverged in %d of %d runs", b, lr, count, spec.replicas)
    return dataset


def _resolve(spec: Saturation, seed: int, batches: list[int], first: Any, data: Any) -> dict[str, Any]:
    """Step sizes, and the constants at the start that they follow from (None: not those of this loss)."""
    from hdsgd.networks.objective import Objective
    from hdsgd.networks.statistics import beta, operator_norm

    gamma = norm = None
    if spec.loss == "square":
        logger.info("step size and critical batch from the Jacobian at the start (%d parameters)", first.size)
        few = first
        if data.n > spec.constants_from:
            part = data._replace(x=data.x[: spec.constants_from], y=data.y[: spec.constants_from])
            start = child(cell_seed(seed, spec.network.to_dict()), 0, 0)
            few = Objective(spec.network, part, start, loss=spec.loss, dtype=spec.dtype)
        gamma = float(np.linalg.eigvalsh(few.jacobian_grams(few.params))[:, -1].max())
        norm = operator_norm(few)
    if spec.lr is not None:
        rates = np.full(len(batches), spec.lr)
    else:
        assert gamma is not None
        assert norm is not None
        sizes = np.array(batches) if spec.stepsize == "theorem" else np.ones(len(batches), dtype=np.int64)
        rates = np.asarray(spec.lr_fraction / beta(gamma, norm**2, sizes))
    return {"gamma": gamma, "norm": norm, "rates": rates.tolist()}


def _blocks(spec: Saturation) -> tuple[int, int]:
    """How many blocks of how many steps, the last of the points being the last step."""
    block = -(-spec.steps // min(spec.points, spec.steps))
    return -(-spec.steps // block), block


@dataclass(frozen=True)
class SaturationCell:
    """One training run."""

    spec: Saturation
    batch: int
    replica: int
    lr: float
    seed: int
    checksum: str

    def run(self, context: Context) -> Mapping[str, Any]:
        """``loss_curve`` (iteration,) and ``status``."""
        from hdsgd.networks.training import train

        spec, (points, block) = self.spec, _blocks(self.spec)

        def advance(steps: int) -> None:
            context.advance(steps / (points * block))
            context.canceller.check()

        run = train(
            find_objective(spec.network, spec.data, self.seed, self.replica, spec.loss, spec.dtype, self.checksum),
            lr=self.lr,
            batch=self.batch,
            blocks=points,
            block_steps=block,
            sampling="without-replacement",
            seed=child(cell_seed(self.seed, {"batch": self.batch}), self.replica, 1),
            state=context.load(),
            save=context.save,
            advance=advance,
        )
        return {"loss_curve": run.losses, "status": OUTCOMES["diverged" if run.diverged else "recovered"]}


class SaturationStudy(NetworkStudy):
    """`saturation` as a study; ``resolved`` holds step sizes and the constants at the start."""

    kind = "saturation"
    dims = ("batch", "replica")
    record_type = Saturation

    def resolve(self) -> dict[str, Any]:
        """Step sizes and the constants at the start."""
        spec, seed = self.spec, self.specification["seed"]
        with sharing():
            data = find_data(spec.data, seed, self.specification["data_checksum"])
            first = find_objective(spec.network, spec.data, seed, 0, spec.loss, spec.dtype, data.checksum)
            return _resolve(spec, seed, list(spec.batches), first, data)

    def labels(self, dim: str) -> list[str]:
        """Batch sizes, replicas by number."""
        return [str(x) for x in (self.spec.batches if dim == "batch" else range(self.spec.replicas))]

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The curve and what became of the run."""
        return {"loss_curve": ("f8", (_blocks(self.spec)[0] + 1,)), "status": ("i1", ())}

    def costs(self) -> NDArray[np.float64]:
        """Examples seen."""
        sizes = np.array(self.spec.batches, dtype=np.float64) * self.spec.steps
        return np.repeat(sizes[:, None], self.spec.replicas, axis=1)

    def cell(self, index: Index) -> SaturationCell:
        """One run."""
        spec, asked = self.spec, self.specification
        rate = float(self.resolved["rates"][index[0]])
        return SaturationCell(spec, spec.batches[index[0]], index[1], rate, asked["seed"], asked["data_checksum"])

    def adopt(self, dataset: xr.Dataset) -> Results:
        """The results that a Dataset holds."""
        if self._resolved is None:
            gamma, norm = (float(dataset[name]) for name in ("gamma_start", "operator_norm_start"))
            known = {"gamma": gamma, "norm": norm} if np.isfinite(norm) else {"gamma": None, "norm": None}
            self._resolved = {**known, "rates": dataset["lr"].values.tolist()}
        return super().adopt(dataset)

    def assemble(self, results: Results) -> xr.Dataset:
        """Curves, exponents and the constants at the start."""
        spec, batches = self.spec, list(self.spec.batches)
        points, block = _blocks(spec)
        curves = self.values(results, "loss_curve")
        h = exponent(curves, points * block)
        gamma, norm = (np.nan if self.resolved[name] is None else self.resolved[name] for name in ("gamma", "norm"))
        dataset = xr.Dataset(
            {
                "loss_curve": ((*self.dims, "iteration"), curves),
                "exponent": (self.dims, h),
                "exponent_predicted": (self.dims, predicted_exponent(np.array(batches), h[0], h[-1])),
                "status": (self.dims, self.values(results, "status")),
                "lr": ("batch", np.array(self.resolved["rates"])),
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
        return finish(dataset, self.kind, self.specification, self.specification["seed"], {})


def _batches(wanted: tuple[int, ...] | None, n: int) -> list[int]:
    if wanted is None:
        wanted = tuple(2**k for k in range(n.bit_length()) if 2**k < n)
    if max(wanted) > n:
        raise SpecificationError(f"batch {max(wanted)} is larger than the data set ({n} examples)")
    return sorted({1, *wanted, n})
