"""Panels of phase diagrams, each on one set of Matplotlib axes: the planes (μ, δ), (μ, θ) and (μ, N).

Colours follow one scheme: learning cells in a perceptually uniform map, everything that did not recover in grey, what
was not run in white, theory in black lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.analysis.boundaries import cell_edges, cell_times, theory_row
from hdsgd.analysis.exponents import KINDS, add_exponents, best_exponents, best_samples
from hdsgd.errors import SpecificationError
from hdsgd.plotting.style import ALGORITHM_STYLES, GREY, HATCH, LEVELS, MARK, PALE, check_holds, new_axes
from hdsgd.results.extensions import check_extensions
from hdsgd.results.summaries import specification_of
from hdsgd.theory.phases import best_exponent, boundaries, optimal_point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LINES", "MARKS", "plot_best_exponents", "plot_exponents", "plot_phase_diagram", "plot_samples"]

#: Width and dashes of each kind of line of `hdsgd.theory.phases.boundaries`, and its legend; other kinds are not drawn.
LINES: dict[str, tuple[float, Any, str]] = {
    "recovery": (1.8, "solid", "theory: recovery above / to the right"),
    "time": (1.0, "dashed", "$T = O(1)$ below"),
    "one step": (1.0, "dotted", "$T = 1$ below"),
}
#: Marks of cells without a colour of their own: marker, its size, and legend.
MARKS = {
    "censored": (".", 2.0, "not recovered"),
    "partly_learnt": ("_", 4.0, "recovered at some $d$ only"),
    "diverged": ("x", 3.0, "diverged"),
    "failed": ("P", 3.0, "failed"),
}
MU_LABEL = r"$\mu$    (batch size $n_b = n_0 d^{\mu}$)"
DELTA_LABEL = r"$\delta$    (learning rate $\gamma = \gamma_0 d^{-\delta}$)"

Floats = NDArray[np.float64]


def plot_phase_diagram(
    dataset: xr.Dataset,
    ax: Axes | None = None,
    *,
    algorithm: str | None = None,
    dim: int | None = None,
    boundaries: bool = True,
    colorbar: bool = True,
) -> Axes:
    """One panel of a phase diagram: weak-recovery time over the (μ, δ) plane.

    Colour is ``log_d`` of the median recovery time; grey cells with a dot did not recover in the steps allowed; hatched
    ones were not affordable and say nothing; white ones have not been run yet; crosses diverged or failed.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`.
    ax : matplotlib.axes.Axes, optional
    algorithm : str, optional
        Which of the Dataset's algorithms; the only one by default.
    dim : int, optional
        Which of its dimensions; the largest by default.
    boundaries : bool
        Draw the boundary lines of theory §5: recovery (solid), steps of order one (dashed), one step (dotted).
    colorbar : bool
        Add a colour bar beside these axes.  The scale is that of all algorithms of the Dataset together.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> hdsgd.plot_phase_diagram(diagram, dim=256).get_title()
    'spherical'
    """
    check_holds(dataset, "recovery_time", "recovered", "status", dims=("algorithm", "mu", "delta"))
    algorithm = _algorithm(dataset, algorithm)
    dims = dataset["dim"].values.tolist()
    dim = max(dims) if dim is None else dim
    if dim not in dims:
        raise SpecificationError(f"no dimension {dim}; this Dataset has {', '.join(map(str, dims))}")
    at_dim = dataset.sel(dim=dim)
    time, kind = cell_times(at_dim.sel(algorithm=algorithm))
    seen = kind == "recovered"
    value = np.log(np.where(seen, np.maximum(time, 1), 1.0)) / np.log(dim)
    slowest = max(int(at_dim["recovery_time"].where(at_dim["recovered"]).max().fillna(2)), 2)
    top = float(np.log(slowest) / np.log(dim))
    return _plane(dataset, ax, algorithm, value, kind, seen, top, boundaries, colorbar and r"recovery time  $\log_d T$")


def plot_exponents(
    dataset: xr.Dataset,
    ax: Axes | None = None,
    *,
    algorithm: str | None = None,
    predicted: bool = False,
    boundaries: bool = True,
    colorbar: bool = True,
) -> Axes:
    """One panel of exponents over the (μ, δ) plane: ``θ`` of ``T ∝ d^θ``, measured or predicted, on the same scale.

    Grey cells with a dot did not recover at any dimension, with a dash at some only; hatched ones recovered at one
    dimension or were not affordable; white ones have not been run yet.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`, at several dimensions; exponents are fitted where it does not hold them already.
    ax, algorithm, boundaries, colorbar
        As for `plot_phase_diagram`.
    predicted : bool
        Show theory §5 instead of the measurement.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> hdsgd.plot_exponents(diagram, predicted=True).get_title()
    'spherical'
    """
    check_holds(dataset, "recovery_time", "recovered", "status", dims=("algorithm", "mu", "delta"))
    algorithm = _algorithm(dataset, algorithm)
    fits = dataset if "theta" in dataset else add_exponents(dataset)
    panel = fits.sel(algorithm=algorithm).transpose("mu", "delta", ...)
    if predicted:
        value = panel["theta_predicted"].values
        kind = np.where(np.isfinite(value), "fitted", np.where(np.isnan(value), "pending", "censored"))
    else:
        names = {code: name for name, code in KINDS.items()}
        value, kind = panel["theta"].values, np.vectorize(names.__getitem__)(panel["theta_kind"].values)
        kind = np.where(kind == "not_learnt", "censored", kind)
        kind = np.where(np.isin(kind, ["one_dimension", "too_few"]), "over_budget", kind)
    scale = np.where(np.isfinite(fits["theta_predicted"]), fits["theta_predicted"], -np.inf).max()
    if not np.isfinite(scale):  # no theory
        scale = np.nanmax(fits["theta"].values) if np.isfinite(fits["theta"]).any() else 1.0
    label = colorbar and r"exponent  $\theta$  of  $T \propto d^{\,\theta}$"
    return _plane(dataset, ax, algorithm, value, kind, kind == "fitted", max(float(scale), 0.1), boundaries, label)


def _algorithm(dataset: xr.Dataset, algorithm: str | None) -> str:
    names = [str(name) for name in dataset["algorithm"].values]
    if algorithm is None:
        if len(names) > 1:
            raise SpecificationError(f"say which algorithm to plot; this Dataset has {', '.join(names)}")
        return names[0]
    if algorithm not in names:
        raise SpecificationError(f"unknown algorithm {algorithm!r}; this Dataset has {', '.join(names)}")
    return algorithm


def _plane(
    dataset: xr.Dataset,
    ax: Axes | None,
    algorithm: str,
    value: Floats,
    kind: NDArray[np.str_],
    coloured: NDArray[np.bool_],
    top: float,
    lines: bool,
    label: str | bool,
) -> Axes:
    """Cells of one panel, coloured from 0 to `top` or marked by their kind; arrays of shape (mu, delta)."""
    from matplotlib.colors import ListedColormap

    ax = ax or new_axes()
    x, y = cell_edges(dataset["mu"].values), cell_edges(dataset["delta"].values)
    grey = np.isin(kind, list(MARKS))
    ax.pcolormesh(x, y, np.where(grey, 0.0, np.nan).T, cmap=ListedColormap([PALE]), rasterized=True)
    shown = np.where(coloured, value, np.nan)
    mesh = ax.pcolormesh(x, y, shown.T, cmap=LEVELS, vmin=0.0, vmax=top, rasterized=True)
    _mark_cells(ax, x, y, kind)
    if lines:
        check_extensions(dataset.attrs)
        _draw_boundaries(ax, specification_of(dataset), algorithm, x, y)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.set_xlabel(MU_LABEL)
    ax.set_ylabel(DELTA_LABEL)
    ax.set_title(algorithm)
    if label:
        mesh.figure.colorbar(mesh, ax=ax, pad=0.02, label=str(label))
    return ax


def _mark_cells(ax: Axes, x: Floats, y: Floats, kind: NDArray[np.str_]) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    centre_x, centre_y = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
    fine = min(1.0, max(0.3, 24 / max(kind.shape)))
    for what, (marker, size, _) in MARKS.items():
        i, j = np.nonzero(kind == what)
        ax.plot(centre_x[i], centre_y[j], marker, color=MARK, markersize=size * fine, linestyle="none", zorder=1.5)
    # One hatch over all cells of a column that touch each other, so that it runs on from cell to cell.
    patches = [
        Rectangle((x[i], y[start]), x[i + 1] - x[i], y[stop] - y[start])
        for i, column in enumerate(kind == "over_budget")
        for start, stop in _runs(column)
    ]
    ax.add_collection(
        PatchCollection(patches, facecolor="white", edgecolor=HATCH, hatch="////", linewidth=0, zorder=1.2),
        autolim=False,
    )


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges in which flags hold."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in change.reshape(-1, 2)]


def _draw_boundaries(ax: Axes, spec: Mapping[str, Any], algorithm: str, x: Floats, y: Floats) -> None:
    row = theory_row(spec, algorithm)
    if row is None:
        return
    for line in boundaries(spec["algorithms"][algorithm]["exponent"], row, (x[0], x[-1]), (y[0], y[-1])):
        if line.kind in LINES:
            width, dashes, _ = LINES[line.kind]
            ax.plot(line.mu, line.delta, color="black", linewidth=width, linestyle=dashes, zorder=3, gid=line.kind)


def plot_best_exponents(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """The (μ, θ) plane: the smallest measured ``θ`` over δ at each batch size, all algorithms, over theory's lines.

    Error bars are two standard errors.  Stars mark the smallest batch that reaches the smallest time
    (`hdsgd.theory.phases.optimal_point`) and the smallest that recovers in one step.  Points are set apart sideways
    where algorithms would cover each other.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`; with one dimension only, ``log_d T`` stands for θ.
    ax : matplotlib.axes.Axes, optional

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> hdsgd.plot_best_exponents(diagram).get_legend_handles_labels()[1]
    ['theory: spherical', 'spherical']
    """
    check_holds(dataset, "recovery_time", "recovered", "status", dims=("algorithm", "mu", "delta"))
    ax = ax or new_axes()
    best, spec = best_exponents(dataset), specification_of(dataset)
    mu = best["mu"].values
    edges = cell_edges(mu)
    names = [str(name) for name in best["algorithm"].values]
    rows: dict[tuple[int, bool], list[str]] = {}
    apart = 0.012 * (edges[-1] - edges[0])
    for a, name in enumerate(names):
        colour, marker = ALGORITHM_STYLES.get(name, ("black", "D"))
        row = best.sel(algorithm=name)
        shift = apart * (a - (len(names) - 1) / 2)
        ax.errorbar(mu + shift, row["theta"], 2 * row["theta_error"], fmt=marker, color=colour, markersize=4,
                    linewidth=1, label=name, zorder=3)  # fmt: skip
        known = theory_row(spec, name)
        if known is not None:
            rows.setdefault((spec["algorithms"][name]["exponent"], known == "projected"), []).append(name)
    fine = np.linspace(max(edges[0], 0.0), edges[-1], 401)
    for (ell, projected), members in rows.items():
        line = "solid" if projected else "dashed"
        known = "projected" if projected else "spherical"
        ax.plot(fine, best_exponent(fine, ell, known), color="black", linestyle=line, linewidth=1.2, zorder=2,
                label=f"theory: {', '.join(members)}")  # fmt: skip
    _mark_optimal(ax, list(rows), (edges[0], edges[-1]))
    ax.axhline(0, color=GREY, linewidth=0.5, zorder=1)
    ax.set_xlim(edges[0], edges[-1])
    top = max([float(best_exponent(max(edges[0], 0.0), ell, "spherical")) for ell, _ in rows] + [0.5])
    seen = best["theta"].values[np.isfinite(best["theta"].values)]
    low, high = min(-0.1, seen.min(initial=0.0) - 0.1), max(top, seen.max(initial=0.0)) + 0.25
    ax.set_ylim(low - 0.2 * (high - low), high)  # room for the names of the stars
    ax.set_xlabel(MU_LABEL)
    what = r"$\theta$  of  $T \propto d^{\,\theta}$" if best.attrs["measure"] == "slope" else r"$\log_d T$"
    ax.set_ylabel(f"{what},  smallest over $\\delta$")
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    return ax


def _power(value: float) -> str:
    """``d^{3/2}`` as mathematics."""
    if value == 1:
        return "d"
    return f"d^{{{value:g}}}" if value == int(value) else f"d^{{{int(2 * value)}/2}}"


def _mark_optimal(ax: Axes, rows: Sequence[tuple[int, bool]], window: tuple[float, float]) -> None:
    """Stars at optimal points, one for points that coincide."""
    notes: dict[tuple[float, float], list[str]] = {}
    for ell, projected in rows:
        name = "projected" if projected else "spherical"
        points = [(optimal_point(ell, name), "optimal")]
        if not projected:
            points.append((optimal_point(ell, name, one_step=True), "one step"))
        for point, what in points:
            texts = notes.setdefault((point.mu, point.theta), [])
            text = f"{what}\n$n_b = {_power(point.mu)}$"
            if text not in texts:
                texts.append(text)
    for (mu, theta), texts in notes.items():
        if window[0] <= mu <= window[1]:
            _star(ax, mu, theta, "\n".join(texts), left=mu > window[1] - 0.12 * (window[1] - window[0]))


def _star(ax: Axes, x: float, y: float, text: str, left: bool = False) -> None:
    """A star, named at the foot of a vertical line, where no points are in the way."""
    ax.plot([x], [y], "*", color="black", markersize=9, markerfacecolor="white", zorder=4)
    ax.plot([x, x], [-1, y], color=GREY, linestyle="dotted", linewidth=0.8, zorder=1)
    ax.annotate(text, (x, 0), xycoords=("data", "axes fraction"), xytext=(-3 if left else 3, 3), fontsize="small",
                textcoords="offset points", ha="right" if left else "left", va="bottom")  # fmt: skip


def plot_samples(dataset: xr.Dataset, ax: Axes | None = None, *, algorithm: str | None = None) -> Axes:
    """The (μ, N) plane of one algorithm: fewest samples ``N = n_b T`` over δ against batch size, a line for each d.

    ``log_d N`` of the smallest median, prefactors and logarithms included: as d grows the lines approach theory's,
    ``d^max(ℓ-1, 1)`` whatever the batch size, up to the optimal batch, beyond which samples are wasted.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.phase_diagram`.
    ax : matplotlib.axes.Axes, optional
    algorithm : str, optional
        Which of the Dataset's algorithms; the only one by default.

    Examples
    --------
    >>> import hdsgd
    >>> diagram = hdsgd.phase_diagram(hdsgd.Problem("he2", "he2"), dims=[64, 256], algorithms=["spherical"],
    ...                               plane=hdsgd.Plane(mu=[0.5, 1.0, 1.5], delta=[0.0, 0.5]), replicas=4)
    >>> [line.get_label() for line in hdsgd.plot_samples(diagram).lines[:3]]
    ['$d$ = 64', '$d$ = 256', 'theory']
    """
    import matplotlib

    check_holds(dataset, "recovery_time", "recovered", "status", dims=("algorithm", "mu", "delta"))
    algorithm = _algorithm(dataset, algorithm)
    ax = ax or new_axes()
    spec = specification_of(dataset)
    everything = best_samples(dataset)
    best = everything.sel(algorithm=algorithm)
    mu, dims = best["mu"].values, np.sort(best["dim"].values)
    colours = matplotlib.colormaps[LEVELS](np.linspace(0.15, 0.95, len(dims)))
    for colour, d in zip(colours, dims, strict=True):
        ax.plot(mu, np.log(best["samples_best"].sel(dim=d)) / np.log(d), "o-", color=colour, markersize=3,
                linewidth=1, label=f"$d$ = {d:,}")  # fmt: skip
    edges = cell_edges(mu)
    row = theory_row(spec, algorithm)
    if row is not None:
        ell = spec["algorithms"][algorithm]["exponent"]
        fine = np.linspace(max(edges[0], 0.0), edges[-1], 401)
        ax.plot(fine, fine + best_exponent(fine, ell, row), color="black", linewidth=1.4, label="theory")
        point = optimal_point(ell, row)
        if edges[0] <= point.mu <= edges[-1]:
            _star(ax, point.mu, point.samples, f"$N = {_power(point.samples)}$\nup to $n_b = {_power(point.mu)}$")
    # The same for all algorithms, so that panels can be compared.
    reached = (np.log(everything["samples_best"]) / np.log(everything["dim"])).max().fillna(1)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, max(float(reached), 1.0) + 0.15)
    ax.set_xlabel(MU_LABEL)
    ax.set_ylabel(r"samples  $\log_d N$,  fewest over $\delta$")
    ax.set_title(algorithm)
    return ax
