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
from hdsgd.networks.shared import find_data, find_objective, sharing
from hdsgd.networks.specs import LOSSES, SAMPLINGS, Data, FullyConnected, Network, solve_width
from hdsgd.networks.studies import NetworkStudy
from hdsgd.networks.study_diversity import check_teacher, family_coordinates, family_data, networks_tuple
from hdsgd.networks.variables import finish
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import SEED, Store, Workers
from hdsgd.records import Record
from hdsgd.seeds import cell_seed, child
from hdsgd.studies.runner import check_before, run_study
from hdsgd.studies.study import Context, Index, Results

__all__ = ["Epochs", "EpochsStudy", "epochs", "fixed_budget_family", "largest_batch"]

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
    seed: int = SEED,
    store: Store | str | os.PathLike[str] | None = None,
    workers: Workers = Workers(),
    progress: bool = False,
) -> xr.Dataset:
    """Tune the step size, then train to the target, for every network and batch size.

    Parameters
    ----------
    spec : Epochs
    seed : int
    store, workers, progress
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
    started = time.perf_counter()
    require()
    seed = whole("seed", seed)
    check_before(store, workers)
    with sharing():
        data = find_data(family_data(spec.data, spec.networks[0], spec.matched_teacher), seed)
        if max(spec.batches) > data.n:
            raise SpecificationError(f"batch {max(spec.batches)} is larger than the data set ({data.n} examples)")
        if spec.measure == "accuracy" and not data.classes:
            raise SpecificationError("these data have real labels and no accuracy; take the measure 'loss'")
        specification = {**spec.to_dict(), "seed": seed, "n": data.n, "data_checksum": data.checksum}
        study = EpochsStudy(specification)
        study = EpochsStudy(specification, study.resolve())  # a network that does not fit the data is refused now
        dataset = run_study(study, store=store, workers=workers, progress=progress, started=started)
    status, chosen = dataset["status"].values, dataset["tuned_lr"].values
    if (count := int((status == OUTCOMES["diverged"]).sum())) > 0:
        logger.warning("%d of %d runs diverged; smaller step sizes in the grid avoid it", count, status.size)
    edge = (chosen == spec.rates[0]) | (chosen == spec.rates[-1])
    if len(spec.rates) > 1 and edge.any():
        logger.info("%d of %d tuned step sizes lie at an end of the grid", edge.sum(), edge.size)
    return dataset


@dataclass(frozen=True)
class EpochsCell:
    """Tuning and training of one network with one batch size."""

    spec: Epochs
    network: Network
    batch: int
    replica: int
    seed: int
    checksum: str

    def objective(self) -> Any:
        """The network at its random start."""
        spec = self.spec
        data = family_data(spec.data, self.network, spec.matched_teacher)
        return find_objective(self.network, data, self.seed, self.replica, spec.loss, spec.dtype, self.checksum)

    def run(self, context: Context) -> Mapping[str, Any]:
        """Every output by its name."""
        from hdsgd.networks import training

        spec, objective = self.spec, self.objective()
        per_epoch = -(-objective.n // self.batch)
        seeds = child(cell_seed(self.seed, {"batch": self.batch}), self.replica, 1)
        common: dict[str, Any] = {"batch": self.batch, "block_steps": per_epoch, "sampling": spec.sampling}
        total = len(spec.rates) * spec.tuning_epochs + spec.max_epochs
        scale = 1.0
        if spec.relative:
            data = find_data(family_data(spec.data, self.network, spec.matched_teacher), self.seed, self.checksum)
            scale = 0.5 * float((data.targets() ** 2).sum(axis=1).mean())

        def advance(steps: int) -> None:
            context.advance(steps // per_epoch / total)
            context.canceller.check()

        state, saved = context.load() or {}, time.monotonic()
        tried = list(state.get("tuning", ()))
        context.advance(len(tried) * spec.tuning_epochs / total)
        for k, lr in enumerate(spec.rates[len(tried) :], len(tried)):
            run = training.train(
                objective, lr=lr, blocks=spec.tuning_epochs, seed=child(seeds, 0, k), advance=advance, **common
            )
            tried.append(np.inf if run.diverged else run.losses[-1])
            if time.monotonic() - saved > training.CHECKPOINT_SECONDS:
                context.save({"tuning": np.array(tried)})
                saved = time.monotonic()
        losses = np.array(tried)
        lr = spec.rates[int(np.argmin(losses))]

        def stop(loss: float, accuracy: float) -> bool:
            return accuracy >= spec.target if spec.measure == "accuracy" else loss / scale <= spec.target

        def observe(epoch: int, params: Any) -> float:
            if not spec.diversity_every or epoch % spec.diversity_every:
                return math.nan
            norms, mean, _ = objective.gradient_moments(params)
            square = float(mean @ mean)
            return float(norms.mean()) / square if square > 0 else math.nan

        run = training.train(
            objective,
            lr=lr,
            blocks=spec.max_epochs,
            seed=child(seeds, 1),
            state=state if "record" in state else None,
            save=lambda arrays: context.save({"tuning": losses, **arrays}),
            stop=stop,
            observe=observe,
            advance=advance,
            **common,
        )
        values = run.accuracies if spec.measure == "accuracy" else run.losses / scale
        taken = int(np.isfinite(values).sum()) - 1 if run.stopped else spec.max_epochs
        seen = run.observed[np.isfinite(run.observed)]
        return {
            "epochs_to_target": taken,
            "iterations_to_target": taken * per_epoch,
            "reached": run.stopped,
            "status": OUTCOMES["recovered" if run.stopped else "diverged" if run.diverged else "censored"],
            "tuned_lr": lr,
            "tuning_loss": np.where(np.isfinite(losses), losses, np.nan),
            "measure": values,
            "diversity": seen.mean() if len(seen) else math.nan,
            "diversity_start": run.observed[0],
        }


class EpochsStudy(NetworkStudy):
    """`epochs` as a study; ``resolved`` holds the networks' numbers of parameters."""

    kind = "epochs"
    dims = ("network", "batch", "replica")
    grouped = 2
    record_type = Epochs

    def resolve(self) -> dict[str, Any]:
        """Numbers of parameters."""
        return {"parameters": [self.cell((i, 0, 0)).objective().size for i in range(self.shape[0])]}

    def labels(self, dim: str) -> list[str]:
        """Networks in words, batch sizes, replicas by number."""
        if dim == "network":
            return list(family_coordinates(self.spec.networks)["network"])
        return [str(x) for x in (self.spec.batches if dim == "batch" else range(self.spec.replicas))]

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What `EpochsCell.run` returns."""
        numbers = ("epochs_to_target", "iterations_to_target", "tuned_lr", "diversity", "diversity_start")
        return {
            **{name: ("f8", ()) for name in numbers},
            "reached": ("?", ()),
            "status": ("i1", ()),
            "tuning_loss": ("f8", (len(self.spec.rates),)),
            "measure": ("f8", (self.spec.max_epochs + 1,)),
        }

    def cell(self, index: Index) -> EpochsCell:
        """One network with one batch size."""
        spec, (i, j, r) = self.spec, index
        # With a teacher of each network's own, the checksum is that of the first network's data.
        checksum = "" if spec.matched_teacher else self.specification["data_checksum"]
        return EpochsCell(spec, spec.networks[i], spec.batches[j], r, self.specification["seed"], checksum)

    def adopt(self, dataset: xr.Dataset) -> Results:
        """The results that a Dataset holds."""
        self._resolved = self._resolved or {"parameters": dataset["parameters"].values.tolist()}
        return super().adopt(dataset)

    def assemble(self, results: Results) -> xr.Dataset:
        """Epochs to the target, the curves, and the largest batch within the budget."""
        spec, inner = self.spec, {"tuning_loss": ("candidate",), "measure": ("epoch",)}
        values = {name: self.values(results, name) for name in self.outputs()}
        best = largest_batch(np.array(spec.batches), values["epochs_to_target"], values["reached"], spec.epoch_budget)
        dataset = xr.Dataset(
            {
                **{name: ((*self.dims, *inner.get(name, ())), array) for name, array in values.items()},
                "largest_batch": (("network", "replica"), best),
                "parameters": ("network", self.resolved["parameters"]),
            },
            coords={
                **family_coordinates(spec.networks),
                "batch": list(spec.batches),
                "replica": np.arange(spec.replicas),
                "candidate": list(spec.rates),
                "epoch": np.arange(spec.max_epochs + 1),
            },
        )
        return finish(dataset, self.kind, self.specification, self.specification["seed"], {})
