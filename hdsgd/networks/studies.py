"""What the studies of networks have in common: a frozen record that says what is asked for, and words for it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import xarray as xr

from hdsgd.outcomes import OUTCOMES
from hdsgd.records import Record
from hdsgd.results.schema import versions
from hdsgd.studies.study import Results, Study

__all__ = ["PROGRAMS", "NetworkStudy", "add_status"]


#: Optional packages on which numbers depend.
PROGRAMS = ("jax", "equinox", "optax", "scikit-learn")


class NetworkStudy(Study):
    """A study whose specification is a record and what the data add to it.

    Attributes
    ----------
    record_type : type
        The record.
    """

    record_type: ClassVar[type[Record]]

    @cached_property
    def spec(self) -> Any:
        """What was asked for."""
        names = self.record_type.__dataclass_fields__  # type: ignore[attr-defined]
        return self.record_type.from_dict({name: self.specification[name] for name in names})

    def versions(self) -> dict[str, str]:
        """Versions of what the numbers depend on."""
        return versions(PROGRAMS)

    def describe(self) -> list[str]:
        """Data, replicas, seed."""
        data = self.spec.data
        return [
            f"study   {self.kind} on {data.name or data.source}, n = {self.specification['n']}, "
            f"{self.spec.replicas} replicas, {self.spec.loss} loss, seed {self.specification['seed']}"
        ]


def add_status(dataset: xr.Dataset, study: Study, results: Results) -> xr.Dataset:
    """Where cells are pending or failed, a variable ``status`` that says so, 0 elsewhere."""
    if results.undone().any():
        status = results.state.copy()
        status[~results.undone()] = OUTCOMES["recovered"]
        dataset["status"] = study.dims, status.reshape(study.shape)
    return dataset
