"""Whole figures of phase diagrams, one for each plane of `hdsgd.results.kinds.RESULT_KINDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.analysis.exponents import add_exponents
from hdsgd.outcomes import OUTCOMES
from hdsgd.plotting.phase_diagrams import (
    LINES,
    MARKS,
    plot_best_exponents,
    plot_exponents,
    plot_phase_diagram,
    plot_samples,
)
from hdsgd.plotting.style import HATCH, MARK, describe_problem
from hdsgd.results.summaries import specification_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_best_exponents", "draw_samples", "draw_times"]


def draw_best_exponents(dataset: xr.Dataset, figure: Figure) -> None:
    """The (μ, θ) plane, all algorithms in one."""
    _title(dataset, figure)
    figure.set_size_inches(5.6, 4.2)
    plot_best_exponents(dataset, figure.subplots())


def _title(dataset: xr.Dataset, figure: Figure) -> None:
    dims = np.sort(dataset["dim"].values)
    several = f"$d$ = {dims[0]:,} … {dims[-1]:,}" if len(dims) > 1 else f"$d$ = {dims[-1]:,}"
    figure.suptitle(f"{describe_problem(specification_of(dataset)['problem'])};  {several}", fontsize="medium")


def draw_times(dataset: xr.Dataset, figure: Figure) -> None:
    """The (μ, δ) plane of every algorithm; with several dimensions measured and predicted exponents below it."""
    _title(dataset, figure)
    names = [str(name) for name in dataset["algorithm"].values]
    rows = 3 if dataset.sizes["dim"] > 1 else 1
    if rows > 1 and "theta" not in dataset:
        dataset = add_exponents(dataset)
    figure.set_size_inches(max(1.2 + 3.1 * len(names), 5.0), 0.9 + 3.0 * rows)
    axes = np.array(figure.subplots(rows, len(names), sharex=True, sharey=True, squeeze=False))
    for column, name in enumerate(names):
        plot_phase_diagram(dataset, axes[0, column], algorithm=name, colorbar=False)
        for row in range(1, rows):
            plot_exponents(dataset, axes[row, column], algorithm=name, predicted=row == 2, colorbar=False)
    for ax in axes.flat:
        ax.label_outer()
    for ax in axes[1:].flat:
        ax.set_title("")
    largest = int(dataset["dim"].max())
    _colorbar(figure, axes[0], r"recovery time  $\log_d T$" + (f"  at  $d$ = {largest:,}" if rows > 1 else ""))
    if rows > 1:
        _colorbar(figure, axes[1], r"measured  $\theta$  of  $T \propto d^{\,\theta}$")
        _colorbar(figure, axes[2], r"predicted  $\theta$")
    handles = _legend(axes, pending=bool((dataset["status"] == OUTCOMES["pending"]).any()))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * len(names)), frameon=False,
        fontsize="small",
    )  # fmt: skip


def _colorbar(figure: Figure, axes: NDArray[Any], label: str) -> None:
    from matplotlib.collections import QuadMesh

    mesh = [artist for artist in axes[0].collections if isinstance(artist, QuadMesh)][-1]
    figure.colorbar(mesh, ax=list(axes), pad=0.02, label=label)


def _legend(axes: NDArray[Any], pending: bool) -> list[Any]:
    """What the panels show, and nothing that they do not."""
    from matplotlib.collections import PatchCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = {line.get_gid() for ax in axes.flat for line in ax.lines}
    handles: list[Any] = [
        Line2D([], [], color="black", linewidth=width, linestyle=dashes, label=text)
        for kind, (width, dashes, text) in LINES.items()
        if kind in drawn
    ]
    markers = {line.get_marker() for ax in axes.flat for line in ax.lines if len(line.get_xdata())}
    handles += [
        Line2D([], [], marker=marker, color=MARK, markersize=size + 1, linestyle="none", label=text)
        for marker, size, text in MARKS.values()
        if marker in markers
    ]
    if any(c.get_paths() for ax in axes.flat for c in ax.collections if isinstance(c, PatchCollection)):
        text = "too costly to say" if len(axes) == 1 else "too costly, or at one $d$ only"
        handles.append(Patch(facecolor="white", edgecolor=HATCH, hatch="////", label=text))
    if pending:
        handles.append(Patch(facecolor="white", edgecolor=HATCH, label="not run yet"))
    return handles


def draw_samples(dataset: xr.Dataset, figure: Figure) -> None:
    """The (μ, N) plane of every algorithm."""
    _title(dataset, figure)
    names = [str(name) for name in dataset["algorithm"].values]
    figure.set_size_inches(1.0 + 2.9 * len(names), 3.6)
    axes = list(np.atleast_1d(figure.subplots(1, len(names), sharey=True)))
    for ax, name in zip(axes, names, strict=True):
        plot_samples(dataset, ax, algorithm=name)
        ax.label_outer()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3 * len(names)), frameon=False,
                  fontsize="small")  # fmt: skip
