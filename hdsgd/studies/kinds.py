"""The kinds of studies, by the ``kind`` of their Datasets: where a log or a file is turned into the study it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hdsgd.errors import SpecificationError
from hdsgd.registry import Registry, imported
from hdsgd.studies.study import Study

__all__ = ["STUDIES", "StudyKind", "study_of"]


@dataclass(frozen=True)
class StudyKind:
    """A row of the registry.

    Parameters
    ----------
    name : str
        The ``kind``.
    summary : str
    home : str
        ``module:class`` of the subclass of `hdsgd.studies.study.Study`, imported when it is needed.
    """

    name: str
    summary: str
    home: str


#: Every kind of study by name.
STUDIES: Registry[StudyKind] = Registry(
    "study",
    [
        StudyKind("phase-diagram", "weak-recovery time over the (mu, delta) plane",
                  "hdsgd.sweeps.phase_diagrams:PhaseDiagram"),
        StudyKind("diversity", "gradient statistics of networks at random weights",
                  "hdsgd.networks.study_diversity:DiversityStudy"),
        StudyKind("theorem-check", "Monte Carlo of the theorems on gradient diversity",
                  "hdsgd.networks.study_theorems:TheoremStudy"),
        StudyKind("saturation", "convergence exponent of a network against batch size",
                  "hdsgd.networks.study_saturation:SaturationStudy"),
        StudyKind("epochs", "epochs to a target against batch size",
                  "hdsgd.networks.study_epochs:EpochsStudy"),
    ],
)  # fmt: skip


def study_of(kind: str, specification: Mapping[str, Any], resolved: Mapping[str, Any] | None = None) -> Study:
    """The study of this kind with this specification.

    Raises
    ------
    SpecificationError
        If the kind is unknown (with the choices) or the specification was not written by this version.
    """
    study: type[Study] = imported(STUDIES[kind].home)
    try:
        found = study(specification, resolved)
        found.describe()
        return found
    except KeyError as error:
        raise SpecificationError(
            f"this {kind} was written by another version of hdsgd: its specification has no {error}"
        ) from None
    except (LookupError, TypeError) as error:
        raise SpecificationError(f"the specification of this {kind} cannot be read: {error!r}") from None
