"""`summary`: what a result of any kind says, on one screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xarray as xr

from hdsgd.errors import SpecificationError
from hdsgd.problem.model import Problem
from hdsgd.registry import imported
from hdsgd.results.extensions import check_extensions, missing_extensions
from hdsgd.results.kinds import RESULT_KINDS, ResultKind
from hdsgd.results.schema import notes_of

__all__ = ["kind_of", "problem_line", "problem_of", "seconds_of", "specification_of", "summary"]


def summary(dataset: xr.Dataset) -> str:
    """What a result says, on one screen: the text that the command which makes it prints.

    Parameters
    ----------
    dataset : xarray.Dataset
        From any function of hdsgd that returns one, or from `hdsgd.load`.

    Returns
    -------
    str
        Lines, without a newline at the end; the last ones say why something is missing, if it is.

    Raises
    ------
    SpecificationError
        If the Dataset is not a result, or not all of one.

    Examples
    --------
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=50, replicas=4)
    >>> print(hdsgd.summary(run).splitlines()[0])
    problem he2(z1) learnt by he2(x), width 1, noise 0; square loss, constraint projected
    """
    kind = kind_of(dataset)
    lines = [imported(kind.summarise)(dataset)]
    lines += [f"note    {text}" for text in notes_of(dataset)]
    lines += [f"missing {used}" for used in missing_extensions(dataset.attrs)]
    return "\n".join(lines)


def kind_of(dataset: xr.Dataset) -> ResultKind:
    """The kind of a result, which holds what this kind must hold.

    Raises
    ------
    SpecificationError
        If it is not a result, or lacks some of its variables.
    """
    if not isinstance(dataset, xr.Dataset):
        raise SpecificationError(f"a result is an xarray Dataset, not {type(dataset).__name__} {str(dataset)[:40]!r}")
    if "kind" not in dataset.attrs:
        raise SpecificationError(
            "this Dataset does not say what kind of result it is: it is none, or its attributes were lost on the way"
        )
    kind = RESULT_KINDS[dataset.attrs["kind"]]
    missing = [name for name in kind.variables if name not in dataset]
    if missing:
        raise SpecificationError(
            f"this result of kind {kind.name!r} has no {', '.join(missing)}; it holds "
            f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}"
        )
    return kind


def specification_of(dataset: xr.Dataset) -> dict[str, Any]:
    """The specification in the attributes of a result."""
    if not isinstance(dataset, xr.Dataset):
        raise SpecificationError(f"a result is an xarray Dataset, not {type(dataset).__name__}")
    if "specification" not in dataset.attrs:
        raise SpecificationError("this Dataset is not a result of hdsgd, or lost its attributes: no specification")
    found: dict[str, Any] = json.loads(dataset.attrs["specification"])
    return found


def problem_of(dataset: xr.Dataset) -> Problem:
    """The problem that a result is about.

    Raises
    ------
    SpecificationError
        If it is not about a single one, or used something that nobody has registered here.
    """
    check_extensions(dataset.attrs)
    specification = specification_of(dataset)
    if "problem" not in specification:
        raise SpecificationError(f"a result of kind {dataset.attrs.get('kind')!r} is not about a Problem")
    return Problem.from_dict(specification["problem"])


def seconds_of(dataset: xr.Dataset) -> float:
    """How long it took to make a result."""
    return float(json.loads(dataset.attrs["timings"])["total_seconds"])


def problem_line(problem: Mapping[str, Any], *, with_rule: bool = True) -> str:
    """What is learnt by what and how; `problem` as in a specification."""
    student = problem["student"]
    rule = f"; {problem['loss']} loss, constraint {problem['constraint']}" if with_rule else ""
    return (
        f"problem {problem['target']['expression']} learnt by {student['activation']}, width {student['width']}, "
        f"noise {problem['noise']:g}{rule}"
    )
