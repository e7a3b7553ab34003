"""Whole figures: `figure` of a result of any kind, and those of runs, dynamics and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import xarray as xr

from hdsgd.errors import SpecificationError, choice
from hdsgd.plotting.style import GREY, describe_problem, project_style
from hdsgd.plotting.trajectories import (
    plot_comparison,
    plot_deviations,
    plot_overlaps,
    plot_recovery_times,
    plot_risk,
)
from hdsgd.registry import imported
from hdsgd.results.summaries import kind_of, specification_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_comparison", "draw_dynamics", "draw_run", "figure"]


def figure(dataset: xr.Dataset, plane: str | None = None) -> Figure:
    """The figure of a result of any kind: the one that the command which makes it saves.

    Parameters
    ----------
    dataset : xarray.Dataset
        From any function of hdsgd that returns one, or from `hdsgd.load`.
    plane : str, optional
        Where the kind of result has several: "mu-delta" (default), "mu-theta" or "mu-samples" of a phase diagram.

    Returns
    -------
    matplotlib.figure.Figure
        Shown by a notebook as it is; ``figure.savefig(path)`` writes it.

    Raises
    ------
    SpecificationError
        If the Dataset is not a result, has nothing to draw, or there is no such plane.

    Examples
    --------
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=50, replicas=4)
    >>> [axes.get_ylabel() for axes in hdsgd.figure(run).axes]
    ['overlap', 'population risk', 'share of replicas recovered']
    """
    from matplotlib.figure import Figure

    kind = kind_of(dataset)
    if plane is not None and not kind.planes:
        raise SpecificationError(f"a result of kind {kind.name!r} is drawn in one way; there is no plane to choose")
    place = kind.draw
    if kind.planes:
        planes = {each.name: each.draw for each in kind.planes}
        place = planes[choice("plane", plane or next(iter(planes)), planes)]
    if place is None:
        raise SpecificationError(f"there is no figure of a result of kind {kind.name!r}")
    draw = imported(place)
    with project_style():
        drawn = Figure(layout="constrained", dpi=200)
        draw(dataset, drawn)
    return drawn


def _or_why(plot: Callable[[xr.Dataset, Axes], Axes], dataset: xr.Dataset, ax: Axes) -> None:
    """One panel, or in its place why there is nothing in it: the other panels are worth showing."""
    import textwrap

    try:
        plot(dataset, ax)
    except SpecificationError as error:
        ax.set_axis_off()
        ax.text(0.5, 0.5, textwrap.fill(str(error), 36), transform=ax.transAxes, ha="center", va="center", color=GREY,
                fontsize="small")  # fmt: skip


def draw_run(dataset: xr.Dataset, figure: Figure) -> None:
    spec = specification_of(dataset)
    figure.set_size_inches(10, 3.2)
    axes = figure.subplots(1, 3)
    plot_overlaps(dataset, axes[0])
    _or_why(plot_risk, dataset, axes[1])
    plot_recovery_times(dataset, axes[2])
    problem = spec["problem"]
    figure.suptitle(
        f"{describe_problem(problem)};  {problem['loss']} loss, constraint {problem['constraint']};  "
        f"d = {spec['dim']:,}, $n_b$ = {spec['batch']:,}, $\\gamma$ = {spec['lr']:.3g}",
        fontsize="medium",
    )


def draw_dynamics(dataset: xr.Dataset, figure: Figure) -> None:
    figure.set_size_inches(7, 3.2)
    axes = figure.subplots(1, 2)
    plot_overlaps(dataset, axes[0])
    _or_why(plot_risk, dataset, axes[1])
    spec = specification_of(dataset)
    figure.suptitle(f"{describe_problem(spec['problem'])};  {spec.get('regime', 'mean map')}", fontsize="medium")


def draw_comparison(dataset: xr.Dataset, figure: Figure) -> None:
    spec = specification_of(dataset)
    dims = dataset["dim"].values
    figure.set_size_inches(2.9 * (len(dims) + 1), 3.2)
    axes = figure.subplots(1, len(dims) + 1)
    for ax, d in zip(axes, dims, strict=False):
        plot_comparison(dataset, ax, dim=int(d))
        ax.sharey(axes[0])
    axes[0].set_ylabel(r"overlap $\|M\|_F$")
    axes[0].legend(frameon=False, fontsize="small")
    plot_deviations(dataset, axes[-1])
    where = rf"$\mu$ = {spec['mu']:g}, $\delta$ = {spec['delta']:g}: {spec['regime']}"
    figure.suptitle(f"{describe_problem(spec['problem'])};  {where}", fontsize="medium")
