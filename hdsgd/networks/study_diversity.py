"""Gradient diversity of a family of networks on data."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from hdsgd.checks import whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.networks._extra import DTYPES, require
from hdsgd.networks.shared import find_data, sharing
from hdsgd.networks.specs import LOSSES, Data, FullyConnected, LeNet, Network, ResNet, network_from_dict
from hdsgd.networks.studies import NetworkStudy, add_status
from hdsgd.networks.variables import finish
from hdsgd.policies import SEED, Store, Workers
from hdsgd.records import Record
from hdsgd.seeds import cell_seed, child
from hdsgd.studies.runner import check_before, run_study
from hdsgd.studies.study import Context, Index, Results

__all__ = ["Diversity", "DiversityStudy", "diversity", "family_data"]

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
    seed: int = SEED,
    store: Store | str | os.PathLike[str] | None = None,
    workers: Workers = Workers(),
    progress: bool = False,
) -> xr.Dataset:
    """Gradient statistics of every network at random weights.

    Parameters
    ----------
    spec : Diversity
    seed : int
    store, workers, progress
        As in `hdsgd.phase_diagram`.

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
    started = time.perf_counter()
    require()
    seed = whole("seed", seed)
    check_before(store, workers)
    with sharing():
        specification = {**spec.to_dict(), "seed": seed}
        if spec.data.source == "gaussian":
            n = int(spec.data.n or 0)
        else:
            data = find_data(spec.data, seed)
            n = data.n
            specification["data_checksum"] = data.checksum
        if max(spec.batches, default=1) > n:
            raise SpecificationError(f"batch {max(spec.batches)} is larger than the data set ({n} examples)")
        study = DiversityStudy({**specification, "n": n})
        for i in range(len(spec.networks)):
            study.cell((i, 0)).prepare()  # a network that does not fit the data is refused now
        return run_study(study, store=store, workers=workers, progress=progress, started=started)


@dataclass(frozen=True)
class DiversityCell:
    """One network at one draw of its weights."""

    spec: Diversity
    network: Network
    replica: int
    seed: int
    checksum: str

    def prepare(self) -> Any:
        """The network at its random start."""
        from hdsgd.networks.data import load_data
        from hdsgd.networks.objective import Objective

        spec, address = self.spec, child(cell_seed(self.seed, self.network.to_dict()), self.replica)
        if spec.data.source == "gaussian":
            data = load_data(family_data(spec.data, self.network, spec.matched_teacher), child(address, 2))
        else:
            data = find_data(spec.data, self.seed, self.checksum)
        return Objective(self.network, data, child(address, 0), loss=spec.loss, dtype=spec.dtype)

    def run(self, context: Context) -> Mapping[str, Any]:
        """Every statistic by its name."""
        from hdsgd.networks.statistics import gradient_statistics, tangent_statistics

        spec, address = self.spec, child(cell_seed(self.seed, self.network.to_dict()), self.replica)
        objective = self.prepare()
        found = gradient_statistics(objective, batches=spec.batches, draws=spec.draws, seed=child(address, 1))
        context.canceller.check()
        if spec.tangent:
            found |= tangent_statistics(objective, batches=spec.batches, limit=spec.limit)
        return {**found, "parameters": objective.size}


class DiversityStudy(NetworkStudy):
    """`diversity` as a study; ``resolved`` holds the number of eigenvalues, which depends on the data."""

    kind = "diversity"
    dims = ("network", "replica")
    record_type = Diversity

    def resolve(self) -> dict[str, Any]:
        """The number of eigenvalues of the NTK; 0: there are too many."""
        spec, n = self.spec, self.specification["n"]
        outputs = spec.data.outputs
        if spec.data.source != "gaussian":
            outputs = find_data(spec.data, self.specification["seed"]).d_out
        return {"eigenvalues": n * outputs if spec.tangent and n * outputs <= spec.limit else 0}

    def labels(self, dim: str) -> list[str]:
        """Networks in words, replicas by number."""
        if dim == "network":
            return list(family_coordinates(self.spec.networks)["network"])
        return [str(i) for i in range(self.spec.replicas)]

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Statistics, alone and by batch size, and the spectrum."""
        spec, eigenvalues = self.spec, self.resolved["eigenvalues"]
        batch_names = [*_PER_BATCH, *(_SAMPLED if spec.draws else ()), *(_TANGENT_PER_BATCH if spec.tangent else ())]
        return {
            **{name: ("f8", ()) for name in [*_SCALARS, *(_TANGENT if spec.tangent else ())]},
            **{name: ("f8", (len(spec.batches),)) for name in batch_names},
            **({"spectrum": ("f8", (eigenvalues,))} if eigenvalues else {}),
            "parameters": ("i8", ()),
        }

    def cell(self, index: Index) -> DiversityCell:
        """One network at one draw."""
        checksum = self.specification.get("data_checksum", "")
        return DiversityCell(self.spec, self.spec.networks[index[0]], index[1], self.specification["seed"], checksum)

    def adopt(self, dataset: xr.Dataset) -> Results:
        """The results that a Dataset holds."""
        self._resolved = self._resolved or {"eigenvalues": dataset.sizes.get("eigenvalue", 0)}
        return super().adopt(dataset)

    def assemble(self, results: Results) -> xr.Dataset:
        """The statistics; NaN where a cell is not done."""
        spec, outputs = self.spec, self.outputs()
        inner = {"spectrum": ("eigenvalue",)}
        variables: dict[str, Any] = {
            name: ((*self.dims, *(inner.get(name, ("batch",)) if shape else ())), self.values(results, name))
            for name, (_, shape) in outputs.items()
        }
        variables["parameters"] = ("network", self.values(results, "parameters").max(axis=1))
        dataset = xr.Dataset(
            variables,
            coords={
                **family_coordinates(spec.networks),
                "replica": np.arange(spec.replicas),
                "batch": list(spec.batches),
            },
        )
        if "spectrum" in outputs:
            dataset = dataset.assign_coords(eigenvalue=np.arange(self.resolved["eigenvalues"]))
        return finish(add_status(dataset, self, results), self.kind, self.specification, self.specification["seed"], {})
