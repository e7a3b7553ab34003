"""Gradient diversity of a family of networks on data, and Monte Carlo checks of Chen et al.'s theorems."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.networks._extra import DTYPES, require
from hdsgd.networks.checkpoints import Checkpoints
from hdsgd.networks.specs import LOSSES, Data, FullyConnected, LeNet, Network, ResNet, network_from_dict
from hdsgd.networks.theorems import (
    ODD_ACTIVATIONS,
    bound_theorem3,
    exact_ratio,
    linear_moments,
    ratio_of_means,
    scaling_theorem1,
    scaling_theorem2,
    two_layer_moments,
)
from hdsgd.networks.variables import finish
from hdsgd.parallel import Canceller, count_threads, run_tasks
from hdsgd.progress import progress_bar
from hdsgd.records import Record
from hdsgd.seeds import cell_seed, child

__all__ = ["Diversity", "TheoremCheck", "diversity", "family_data", "theorem_check"]

logger = logging.getLogger("hdsgd")

_SCALARS = (
    "gradient_diversity", "batch_bound", "noise_scale", "mean_square_norm", "max_square_norm",
    "gradient_square_norm", "loss",
)  # fmt: skip
_PER_BATCH = ("lemma_bound", "second_moment", "second_moment_replacement")
_SAMPLED = ("second_moment_sampled", "second_moment_error")
_TANGENT = (
    "gamma_max", "gamma_min", "mean_jacobian", "operator_norm", "critical_batch", "ntk_smallest", "ntk_largest",
)  # fmt: skip
_TANGENT_PER_BATCH = ("beta", "complexity")


def networks_tuple(networks: Any) -> tuple[Network, ...]:
    """A tuple of networks from networks or their JSON values."""
    try:
        result = tuple(network_from_dict(x) if isinstance(x, Mapping) else x for x in networks)
    except TypeError:
        raise SpecificationError(f"networks must be a list of networks, not {networks!r}") from None
    if not result or not all(isinstance(x, Network) for x in result):
        raise SpecificationError("networks must be a list of one or more networks")
    return result


@dataclass(frozen=True)
class Diversity(Record):
    """Statistics of gradients at random initial weights.

    Parameters
    ----------
    networks : tuple of Network
    data : Data
    batches : tuple of int
        Batch sizes ``b`` of the second moments and of ``β``.
    draws : int
        Batches drawn to check the second moment, 0 for none.
    tangent : bool
        Also the Jacobian constants of the saturation paper (``γ``, ``|∇F|_op``, ``b*``, the spectrum of the NTK);
        square loss only.
    limit : int
        Largest matrix formed for the spectrum and the smallest ``γ``.
    matched_teacher : bool
        Label Gaussian data with a teacher of the same architecture as each network, as the theorems do.
    loss, dtype : str
    replicas : int
        Draws of the weights (and, for Gaussian data, of the data).

    Raises
    ------
    SpecificationError
        If a name is unknown or a number out of range.
    """

    networks: tuple[Network, ...] = (FullyConnected(1, 64),)
    data: Data = Data("digits")  # noqa: RUF009 (frozen)
    batches: tuple[int, ...] = (1, 8, 64)
    draws: int = 0
    tangent: bool = True
    limit: int = 2048
    matched_teacher: bool = False
    loss: str = "square"
    dtype: str = "float32"
    replicas: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "networks", networks_tuple(self.networks))
        if isinstance(self.data, Mapping):
            object.__setattr__(self, "data", Data.from_dict(self.data))
        object.__setattr__(self, "batches", tuple(sorted({whole("batch", b, low=1) for b in self.batches})))
        for name, low in (("draws", 0), ("limit", 0), ("replicas", 1)):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=low))
        choice("loss", self.loss, LOSSES)
        choice("dtype", self.dtype, DTYPES)
        if self.tangent and self.loss != "square":
            raise SpecificationError("the Jacobian constants belong to the square loss; switch tangent off")
        check_teacher(self.matched_teacher, self.data, self.networks)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "networks": [x.to_dict() for x in self.networks]}


def check_teacher(matched: bool, data: Data, networks: tuple[Network, ...]) -> None:
    """Raise `SpecificationError` if a matched teacher is wanted where there can be none."""
    if matched and (data.source != "gaussian" or not all(isinstance(x, FullyConnected) for x in networks)):
        raise SpecificationError("a matched teacher needs gaussian data and fully connected networks")


def family_data(data: Data, network: Network, matched_teacher: bool) -> Data:
    """The data as one member of a family sees them."""
    if not matched_teacher:
        return data
    assert isinstance(network, FullyConnected)
    return replace(data, teacher=network)


def family_coordinates(networks: tuple[Network, ...]) -> dict[str, Any]:
    """Labels, hidden layers and widths along ``network``."""
    labels = [x.label for x in networks]
    if len(set(labels)) < len(labels):
        labels = [f"{i}: {label}" for i, label in enumerate(labels)]
    sized = (FullyConnected, LeNet, ResNet)
    return {
        "network": labels,
        "hidden_layers": ("network", [x.depth if isinstance(x, sized) else -1 for x in networks]),
        "units": ("network", [x.width if isinstance(x, sized) else -1 for x in networks]),
    }


def diversity(
    spec: Diversity,
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
    partial: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Gradient statistics of every network at random weights.

    Parameters
    ----------
    spec : Diversity
    seed : int
    threads : int, optional
        Networks handled at the same time.  Never changes a number.
    progress : bool
    partial, resume, overwrite
        As in `hdsgd.networks.saturation`.

    Returns
    -------
    xarray.Dataset
        Dims ``network, replica, batch, eigenvalue``; the variables of `hdsgd.networks.statistics.gradient_statistics`
        and `tangent_statistics`, and the coordinates ``hidden_layers``, ``units`` and the variable ``parameters``.

    Raises
    ------
    SpecificationError
        On a request that cannot be carried out, and if JAX is missing (with the command that installs it).
    """
    require()
    from hdsgd.networks.data import Loaded, load_data
    from hdsgd.networks.objective import Objective
    from hdsgd.networks.statistics import gradient_statistics, tangent_statistics

    started = time.perf_counter()
    seed, threads = whole("seed", seed), count_threads(threads)
    synthetic = spec.data.source == "gaussian"
    fixed: Loaded | None = None if synthetic else load_data(spec.data, child(np.random.SeedSequence(seed), 0))
    n = fixed.n if fixed else int(spec.data.n or 0)
    outputs = fixed.d_out if fixed else spec.data.outputs
    if max(spec.batches, default=1) > n:
        raise SpecificationError(f"batch {max(spec.batches)} is larger than the data set ({n} examples)")
    rows = n * outputs if spec.tangent and n * outputs <= spec.limit else 0
    shape = (len(spec.networks), spec.replicas)
    names = [*_SCALARS, *(_TANGENT if spec.tangent else ())]
    batch_names = [*_PER_BATCH, *(_SAMPLED if spec.draws else ()), *(_TANGENT_PER_BATCH if spec.tangent else ())]
    values = {name: np.full(shape, np.nan) for name in names}
    values |= {name: np.full((*shape, len(spec.batches)), np.nan) for name in batch_names}
    if rows:
        values["spectrum"] = np.full((*shape, rows), np.nan)
    parameters = np.zeros(len(spec.networks), dtype=np.int64)
    checkpoints = Checkpoints(partial, {**spec.to_dict(), "seed": seed}, resume=resume, overwrite=overwrite)
    canceller = Canceller()

    with progress_bar(shape[0] * shape[1], "networks", progress) as advance:

        def one(i: int, r: int) -> None:
            if canceller.stopped:
                raise KeyboardInterrupt
            network = spec.networks[i]
            stored = checkpoints.read(f"{i}/{r}")
            if stored is None:
                address = child(cell_seed(seed, network.to_dict()), r)
                data = fixed or load_data(family_data(spec.data, network, spec.matched_teacher), child(address, 2))
                objective = Objective(network, data, child(address, 0), loss=spec.loss, dtype=spec.dtype)
                found = gradient_statistics(objective, batches=spec.batches, draws=spec.draws, seed=child(address, 1))
                if spec.tangent:
                    found |= tangent_statistics(objective, batches=spec.batches, limit=spec.limit)
                stored = {name: np.asarray(v) for name, v in found.items() if v is not None}
                stored["parameters"] = np.array(objective.size)
                checkpoints.write(f"{i}/{r}", stored)
            parameters[i] = stored["parameters"]
            for name, array in values.items():
                array[i, r] = stored[name]
            advance(1)

        tasks = [(i, r) for i in range(shape[0]) for r in range(shape[1])]
        run_tasks((lambda i=i, r=r: one(i, r) for i, r in tasks), threads, canceller)  # type: ignore[misc]
    dims = {name: ("network", "replica") for name in names} | {
        name: ("network", "replica", "batch") for name in batch_names
    }
    dims["spectrum"] = ("network", "replica", "eigenvalue")
    dataset = xr.Dataset(
        {name: (dims[name], array) for name, array in values.items()} | {"parameters": ("network", parameters)},
        coords={**family_coordinates(spec.networks), "replica": np.arange(spec.replicas), "batch": list(spec.batches)},
    )
    if rows:
        dataset = dataset.assign_coords(eigenvalue=np.arange(rows))
    specification = {**spec.to_dict(), "seed": seed, "n": n}
    if fixed is not None:
        specification["data_checksum"] = fixed.checksum
    return finish(dataset, "diversity", specification, seed, {"total_seconds": time.perf_counter() - started})


@dataclass(frozen=True)
class TheoremCheck(Record):
    """Monte Carlo of Chen et al.'s Theorem 1, 2 or 3 over a grid.

    Parameters
    ----------
    theorem : {1, 2, 3}
        1: ``B_S`` of two-layer linear networks on n examples.  2: the ratio of expectations of two-layer networks with
        an odd activation.  3: the ratio of expectations of deep linear networks, against the bound (4.1).
    depths : tuple of int
        Weight matrices ``L`` (2 for Theorems 1 and 2).
    widths, dims : tuple of int
        ``K`` (all hidden layers) and ``d``.
    examples : tuple of float
        ``n``; infinity (as ``"inf"`` in JSON) integrates the inputs out exactly (linear networks).
    draws : int
    activation : {"tanh", "softsign", "arctan"}
        Of Theorem 2.
    confidence : float
        Of the intervals of the ratio.

    Raises
    ------
    SpecificationError
        If a number is out of range.
    """

    theorem: int = 3
    depths: tuple[int, ...] = (2, 3, 4, 6)
    widths: tuple[int, ...] = (4, 8, 16, 32, 64)
    dims: tuple[int, ...] = (20,)
    examples: tuple[float, ...] = (math.inf,)
    draws: int = 4000
    activation: str = "tanh"
    confidence: float = 0.99

    def __post_init__(self) -> None:
        object.__setattr__(self, "theorem", whole("theorem", self.theorem, low=1, high=3))
        if self.theorem < 3 and tuple(self.depths) != (2,):
            raise SpecificationError(f"Theorem {self.theorem} is about two weight matrices: depths must be (2,)")
        for name in ("depths", "widths", "dims"):
            numbers = sorted({whole(name, v, low=2) for v in getattr(self, name)})
            if not numbers:
                raise SpecificationError(f"{name} must not be empty")
            object.__setattr__(self, name, tuple(numbers))
        sizes = sorted({math.inf if float(n) == math.inf else whole("examples", n, low=2) for n in self.examples})
        if not sizes or (self.theorem == 2 and math.inf in sizes):
            raise SpecificationError("examples must be numbers, finite ones for Theorem 2")
        object.__setattr__(self, "examples", tuple(sizes))
        object.__setattr__(self, "draws", whole("draws", self.draws, low=2))
        choice("activation", self.activation, ODD_ACTIVATIONS)
        object.__setattr__(self, "confidence", finite("confidence", self.confidence, low=0.5, high=0.999999))

    def to_dict(self) -> dict[str, Any]:
        # JSON knows no infinity.
        return {**super().to_dict(), "examples": ["inf" if math.isinf(n) else n for n in self.examples]}


def theorem_check(
    spec: TheoremCheck, *, seed: int = 0, threads: int | None = None, progress: bool = False
) -> xr.Dataset:
    """Monte Carlo of the two expectations (or of ``B_S``) at random weights, against the theorem.

    Parameters
    ----------
    spec : TheoremCheck
    seed : int
        A cell of the grid draws the same numbers in whatever grid it lies.
    threads, progress
        As elsewhere.

    Returns
    -------
    xarray.Dataset
        Dims ``depth, width, dim, examples, draw``: ``numerator``, ``denominator``, ``diversity_bound``, ``ratio`` with
        ``ratio_low`` and ``ratio_high``, ``ratio_exact`` (NaN for Theorem 2) and ``bound``.
    """
    started = time.perf_counter()
    seed, threads = whole("seed", seed), count_threads(threads)
    shape = (len(spec.depths), len(spec.widths), len(spec.dims), len(spec.examples))
    numerator, denominator = np.full((2, *shape, spec.draws), np.nan)
    ratio, low, high, exact, bound = np.full((5, *shape), np.nan)

    with progress_bar(math.prod(shape), "cells", progress) as advance:

        def one(cell: tuple[int, ...]) -> None:
            L, K, d, n = (
                axis[i] for axis, i in zip((spec.depths, spec.widths, spec.dims, spec.examples), cell, strict=True)
            )
            address = {"theorem": min(spec.theorem, 2) if spec.theorem == 2 else 3, "L": L, "K": K, "d": d, "n": str(n)}
            rng = np.random.default_rng(cell_seed(seed, address))
            widths = [K] * (int(L) - 1)
            if spec.theorem == 2:
                pairs = [two_layer_moments(int(d), int(K), int(n), spec.activation, rng) for _ in range(spec.draws)]
                numerator[cell], denominator[cell] = np.array(pairs).T
                bound[cell] = scaling_theorem2(d, K)
            else:
                numerator[cell], denominator[cell] = linear_moments(int(d), widths, n, spec.draws, rng)  # type: ignore[arg-type]
                exact[cell] = exact_ratio(int(d), widths, n)  # type: ignore[arg-type]
                bound[cell] = scaling_theorem1(d, K, n) if spec.theorem == 1 else bound_theorem3(int(d), widths)  # type: ignore[arg-type]
            ratio[cell], low[cell], high[cell] = ratio_of_means(numerator[cell], denominator[cell], spec.confidence)
            advance(1)

        run_tasks((lambda c=c: one(c) for c in np.ndindex(shape)), threads, Canceller())  # type: ignore[misc]
    dims = ("depth", "width", "dim", "examples")
    dataset = xr.Dataset(
        {
            "numerator": ((*dims, "draw"), numerator),
            "denominator": ((*dims, "draw"), denominator),
            "diversity_bound": ((*dims, "draw"), numerator / denominator),
            "ratio": (dims, ratio),
            "ratio_low": (dims, low),
            "ratio_high": (dims, high),
            "ratio_exact": (dims, exact),
            "bound": (dims, bound),
        },
        coords={
            "depth": list(spec.depths),
            "width": list(spec.widths),
            "dim": list(spec.dims),
            "examples": np.array(spec.examples, dtype=np.float64),
            "draw": np.arange(spec.draws),
        },
    )
    timings = {"total_seconds": time.perf_counter() - started}
    return finish(dataset, "theorem-check", {**spec.to_dict(), "seed": seed}, seed, timings)
