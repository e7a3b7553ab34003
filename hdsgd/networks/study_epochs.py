"""Chen et al.'s experiments: epochs to a target against batch size, for networks of different depth and width."""

from __future__ import annotations

import logging
import math
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
from hdsgd.networks.checkpoints import Checkpoints
from hdsgd.networks.specs import LOSSES, SAMPLINGS, Data, FullyConnected, Network, solve_width
from hdsgd.networks.study_diversity import check_teacher, family_coordinates, family_data, networks_tuple
from hdsgd.networks.variables import finish
from hdsgd.outcomes import OUTCOMES
from hdsgd.parallel import Canceller, count_threads, run_tasks
from hdsgd.progress import progress_bar
from hdsgd.records import Record
from hdsgd.seeds import cell_seed, child

__all__ = ["Epochs", "epochs", "fixed_budget_family", "largest_batch"]

logger = logging.getLogger("hdsgd")

MEASURES = ("loss", "accuracy")


def fixed_budget_family(
    budget: int, depths: tuple[int, ...], d_in: int, d_out: int, base: FullyConnected | None = None
) -> tuple[FullyConnected, ...]:
    """Fully connected networks with (nearly) the same number of weights, one per depth (Chen et al., §5).

    Parameters
    ----------
    budget : int
    depths : tuple of int
        Hidden layers ``L``.
    d_in, d_out : int
    base : FullyConnected, optional
        Activation, parametrisation and the rest.
    """
    from dataclasses import replace

    base = base or FullyConnected()
    return tuple(replace(base, depth=L, width=solve_width(budget, L, d_in, d_out)) for L in depths)


@dataclass(frozen=True)
class Epochs(Record):
    """One experiment.

    Parameters
    ----------
    networks : tuple of Network
        The family, for instance `fixed_budget_family`.
    data : Data
    batches : tuple of int
        ``b``; the paper has 2⁵ ... 2¹².
    measure : {"loss", "accuracy"}
    target : float
        Loss to fall to, or training accuracy to rise to.
    relative : bool
        Divide the loss by that of a network that answers zero (square loss only).
    rates : tuple of float
        Grid of step sizes; every (network, batch, replica) takes the one with the least loss after `tuning_epochs`.
    tuning_epochs, max_epochs : int
        Runs that have not reached the target after `max_epochs` are censored there.
    epoch_budget : int
        For the largest usable batch: the largest with which the target is reached within so many epochs.
    diversity_every : int
        Epochs between two measurements of ``B_S``, the first before training; 0: not measured.
    sampling : {"epochs", "replacement", "without-replacement"}
        Fresh permutations; or, for the other two, an epoch is ``ceil(n/b)`` batches drawn so.
    matched_teacher : bool
        Label Gaussian data with a teacher of each network's own architecture.
    loss, dtype : str
    replicas : int
        Repetitions with new weights and batches, each with its own tuning.

    Raises
    ------
    SpecificationError
        If a name is unknown or a number out of range.
    """

    networks: tuple[Network, ...] = (FullyConnected(1, 64),)
    data: Data = Data("digits")  # noqa: RUF009 (frozen)
    batches: tuple[int, ...] = (32, 64, 128, 256, 512)
    measure: str = "accuracy"
    target: float = 0.96
    relative: bool = False
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    tuning_epochs: int = 2
    max_epochs: int = 100
    epoch_budget: int = 14
    diversity_every: int = 10
    sampling: str = "epochs"
    matched_teacher: bool = False
    loss: str = "cross-entropy"
    dtype: str = "float32"
    replicas: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "networks", networks_tuple(self.networks))
        if isinstance(self.data, Mapping):
            object.__setattr__(self, "data", Data.from_dict(self.data))
        for name, low in (
            ("tuning_epochs", 1),
            ("max_epochs", 1),
            ("epoch_budget", 1),
            ("diversity_every", 0),
            ("replicas", 1),
        ):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=low))
        for name, check in (("batches", lambda v: whole("batch", v, low=1)), ("rates", _positive)):
            numbers = tuple(sorted({check(v) for v in getattr(self, name)}))
            if not numbers:
                raise SpecificationError(f"{name} must not be empty")
            object.__setattr__(self, name, numbers)
        choice("measure", self.measure, MEASURES)
        high = 1.0 if self.measure == "accuracy" else math.inf
        object.__setattr__(self, "target", finite("target", self.target, low=0.0, high=high, open_low=True))
        choice("sampling", self.sampling, SAMPLINGS)
        choice("loss", self.loss, LOSSES)
        choice("dtype", self.dtype, DTYPES)
        if self.relative and (self.loss != "square" or self.measure != "loss"):
            raise SpecificationError("a relative target needs the square loss and the measure 'loss'")
        check_teacher(self.matched_teacher, self.data, self.networks)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "networks": [x.to_dict() for x in self.networks]}


def _positive(value: Any) -> float:
    return finite("rates", value, low=0.0, open_low=True)


def largest_batch(
    batches: NDArray[np.integer], epochs: NDArray[np.floating], reached: NDArray[np.bool_], budget: int
) -> NDArray[np.float64]:
    """Largest batch with which the target was reached within the budget (Chen et al., Figures 2(b) and 5); NaN if none.

    Parameters
    ----------
    batches : ndarray, shape (batches,)
    epochs, reached : ndarray, shape (networks, batches, replicas)
    budget : int

    Returns
    -------
    ndarray, shape (networks, replicas)
    """
    usable = np.where(reached & (epochs <= budget), np.asarray(batches, dtype=np.float64)[None, :, None], -np.inf)
    best = usable.max(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def epochs(
    spec: Epochs,
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
    partial: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Tune the step size, then train to the target, for every network and batch size.

    Parameters
    ----------
    spec : Epochs
    seed : int
    threads : int, optional
        Runs trained at the same time.  Never changes a number.
    progress : bool
    partial, resume, overwrite
        As in `hdsgd.networks.saturation`.

    Returns
    -------
    xarray.Dataset
        Dims ``network, batch, replica, candidate, epoch``: ``epochs_to_target``, ``iterations_to_target``, ``reached``,
        ``status``, ``tuned_lr``, ``tuning_loss``, ``measure``, ``diversity`` and ``diversity_start`` (``B_S``, average
        along training and at its start), ``largest_batch``, ``parameters``.

    Raises
    ------
    SpecificationError
        On a request that cannot be carried out, and if JAX is missing (with the command that installs it).
    """
    require()
    from hdsgd.networks.data import load_data
    from hdsgd.networks.objective import Objective
    from hdsgd.networks.training import train

    started = time.perf_counter()
    seed, threads = whole("seed", seed), count_threads(threads)
    base = child(np.random.SeedSequence(seed), 0)
    sets = [load_data(family_data(spec.data, x, spec.matched_teacher), base) for x in spec.networks[:1]]
    if spec.matched_teacher:
        sets += [load_data(family_data(spec.data, x, True), base) for x in spec.networks[1:]]
    n = sets[0].n
    if max(spec.batches) > n:
        raise SpecificationError(f"batch {max(spec.batches)} is larger than the data set ({n} examples)")
    if spec.measure == "accuracy" and not sets[0].classes:
        raise SpecificationError("these data have real labels and no accuracy; take the measure 'loss'")
    shape = (len(spec.networks), len(spec.batches), spec.replicas)
    objectives: dict[tuple[int, int], Any] = {}
    scales = np.ones(len(spec.networks))
    for i, network in enumerate(spec.networks):
        data = sets[i] if spec.matched_teacher else sets[0]
        if spec.relative:
            scales[i] = 0.5 * float((data.targets() ** 2).sum(axis=1).mean())
        for r in range(spec.replicas):
            start = child(cell_seed(seed, network.to_dict()), r, 0)
            objectives[i, r] = Objective(network, data, start, loss=spec.loss, dtype=spec.dtype)
    identity = {**spec.to_dict(), "seed": seed, "data_checksum": sets[0].checksum}
    checkpoints = Checkpoints(partial, identity, resume=resume, overwrite=overwrite)
    taken, iterations, chosen, average, first = np.full((5, *shape), np.nan)
    reached, status = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int8)
    tuning = np.full((*shape, len(spec.rates)), np.nan)
    curves = np.full((*shape, spec.max_epochs + 1), np.nan)
    canceller = Canceller()
    total = math.prod(shape) * (len(spec.rates) * spec.tuning_epochs + spec.max_epochs)

    with progress_bar(total, "epochs", progress) as advance:

        def one(i: int, j: int, r: int) -> None:
            objective, b = objectives[i, r], spec.batches[j]
            per_epoch = -(-n // b)
            seeds = child(cell_seed(seed, {"batch": b}), r, 1)
            common: dict[str, Any] = {"batch": b, "block_steps": per_epoch, "sampling": spec.sampling}

            def moved(steps: int) -> None:
                advance(steps // per_epoch)
                if canceller.stopped:
                    raise KeyboardInterrupt

            key = f"{i}/{j}/{r}"
            stored = checkpoints.read("tuning " + key)
            if stored is None:
                found = []
                for k, lr in enumerate(spec.rates):
                    run = train(
                        objective, lr=lr, blocks=spec.tuning_epochs, seed=child(seeds, 0, k), advance=moved, **common
                    )
                    found.append(np.inf if run.diverged else run.losses[-1])
                stored = {"losses": np.array(found)}
                checkpoints.write("tuning " + key, stored)
            else:
                advance(len(spec.rates) * spec.tuning_epochs)
            tuning[i, j, r] = np.where(np.isfinite(stored["losses"]), stored["losses"], np.nan)
            lr = spec.rates[int(np.argmin(stored["losses"]))]
            chosen[i, j, r] = lr

            def stop(loss: float, accuracy: float) -> bool:
                return accuracy >= spec.target if spec.measure == "accuracy" else loss / scales[i] <= spec.target

            def observe(epoch: int, params: Any) -> float:
                if not spec.diversity_every or epoch % spec.diversity_every:
                    return math.nan
                norms, mean, _ = objective.gradient_moments(params)
                square = float(mean @ mean)
                return float(norms.mean()) / square if square > 0 else math.nan

            run = train(
                objective,
                lr=lr,
                blocks=spec.max_epochs,
                seed=child(seeds, 1),
                key=key,
                checkpoints=checkpoints,
                stop=stop,
                observe=observe,
                advance=moved,
                **common,
            )
            values = run.accuracies if spec.measure == "accuracy" else run.losses / scales[i]
            curves[i, j, r] = values
            last = int(np.isfinite(values).sum()) - 1
            taken[i, j, r] = last if run.stopped else spec.max_epochs
            iterations[i, j, r] = taken[i, j, r] * per_epoch
            reached[i, j, r] = run.stopped
            status[i, j, r] = OUTCOMES["recovered" if run.stopped else "diverged" if run.diverged else "censored"]
            seen = run.observed[np.isfinite(run.observed)]
            first[i, j, r] = run.observed[0]
            average[i, j, r] = seen.mean() if len(seen) else math.nan

        order = list(np.ndindex(*shape))
        run_tasks((lambda c=c: one(*c) for c in order), threads, canceller)  # type: ignore[misc]
    if (count := int((status == OUTCOMES["diverged"]).sum())) > 0:
        logger.warning("%d of %d runs diverged; smaller step sizes in the grid avoid it", count, status.size)
    edge = (chosen == spec.rates[0]) | (chosen == spec.rates[-1])
    if len(spec.rates) > 1 and edge.any():
        logger.info("%d of %d tuned step sizes lie at an end of the grid", edge.sum(), edge.size)
    dims = ("network", "batch", "replica")
    dataset = xr.Dataset(
        {
            "epochs_to_target": (dims, taken),
            "iterations_to_target": (dims, iterations),
            "reached": (dims, reached),
            "status": (dims, status),
            "tuned_lr": (dims, chosen),
            "tuning_loss": ((*dims, "candidate"), tuning),
            "measure": ((*dims, "epoch"), curves),
            "diversity": (dims, average),
            "diversity_start": (dims, first),
            "largest_batch": (
                ("network", "replica"), largest_batch(np.array(spec.batches), taken, reached, spec.epoch_budget)
            ),
            "parameters": ("network", [objectives[i, 0].size for i in range(shape[0])]),
        },
        coords={
            **family_coordinates(spec.networks),
            "batch": list(spec.batches),
            "replica": np.arange(spec.replicas),
            "candidate": list(spec.rates),
            "epoch": np.arange(spec.max_epochs + 1),
        },
    )  # fmt: skip
    specification = {**spec.to_dict(), "seed": seed, "n": n, "data_checksum": sets[0].checksum}
    return finish(dataset, "epochs", specification, seed, {"total_seconds": time.perf_counter() - started})
