"""Pictures of the network Datasets: every number drawn is in the Dataset.  Imports no JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.networks.specs import network_title
from hdsgd.outcomes import OUTCOMES
from hdsgd.plotting.style import GREY, new_axes
from hdsgd.results.summaries import specification_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_bridge",
    "draw_diversity",
    "draw_epochs",
    "draw_saturation",
    "draw_theorem",
    "plot_diversity",
    "plot_epochs",
    "plot_exponent",
    "plot_heatmap",
    "plot_largest_batch",
    "plot_loss_curves",
    "plot_second_moment",
    "plot_spectrum",
    "plot_theorem",
]


def _colours(count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.0, 0.9, max(count, 2))[:count])


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean of what is finite, NaN where nothing is."""
    good = np.isfinite(values)
    count = good.sum(axis=axis)
    total = np.where(good, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _range(values: NDArray[np.float64], axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest of what is finite, NaN where nothing is."""
    good = np.isfinite(values)
    low, high = np.where(good, values, np.inf).min(axis=axis), np.where(good, values, -np.inf).max(axis=axis)
    empty = ~good.any(axis=axis)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


# -- saturation --------------------------------------------------------------------------------------------------------


def plot_loss_curves(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Training loss against iterations, one curve per batch size (the saturation paper, Figure 1); replica means."""
    ax = ax or new_axes()
    curves = _mean(dataset["loss_curve"].values, axis=1)
    colours = _colours(len(curves))
    for b, curve, colour in zip(dataset["batch"].values, curves, colours, strict=True):
        ax.plot(dataset["iteration"], curve, color=colour, linewidth=1.2, label=f"b = {b}")
    ax.set_yscale("log")
    ax.set_xlabel("iterations")
    ax.set_ylabel("training loss")
    ax.legend(frameon=False, fontsize="x-small", ncols=2)
    return ax


def plot_exponent(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """``h(b)`` measured and ``h̃(b)`` interpolated from b = 1 and b = n (the saturation paper, Figure 1, right)."""
    ax = ax or new_axes()
    b = dataset["batch"].values
    h, predicted = dataset["exponent"].values, dataset["exponent_predicted"].values
    low, high = _range(h, 1)
    middle = _mean(h, 1)
    if h.shape[1] > 1:
        ax.fill_between(b, low, high, color="C0", alpha=0.2, linewidth=0)
    ax.plot(b, middle, "o", color="C0", markersize=4, label="measured $h(b)$")
    if np.isfinite(predicted).any():
        ax.plot(b, _mean(predicted, 1), color="black", linewidth=1, label=r"$\tilde h(b)$ from $b = 1$ and $b = n$")
    critical = float(dataset["critical_batch_start"])
    if np.isfinite(critical):
        ax.axvline(critical, color=GREY, linestyle=":", linewidth=1, label=f"$b^*$ = {critical:.3g} at the start")
    failed = (dataset["status"].values == OUTCOMES["diverged"]).any(axis=1)
    if failed.any():
        ax.plot(b[failed], np.zeros(failed.sum()), "x", color="C3", clip_on=False, label="diverged")
    ax.set_xscale("log", base=2)
    ax.set_ylim(0, None)
    ax.set_xlabel("batch size $b$")
    ax.set_ylabel("convergence exponent $h(b)$")
    ax.legend(frameon=False, loc="lower right", fontsize="small")
    return ax


# -- epochs to a target ------------------------------------------------------------------------------------------------


def plot_epochs(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Epochs to the target against batch size, one line per network (Chen et al., Figures 1 and 3); bars are the range.

    Censored runs enter with the largest number of epochs; points with any are hollow.
    """
    ax = ax or new_axes()
    values = dataset["epochs_to_target"].values
    reached = dataset["reached"].all("replica").values
    b = dataset["batch"].values
    for i, colour in enumerate(_colours(len(values))):
        low, high = values[i].min(axis=1), values[i].max(axis=1)
        mean = values[i].mean(axis=1)
        shift = b * 1.03 ** (i - (len(values) - 1) / 2)
        ax.errorbar(shift, mean, [mean - low, high - mean], color=colour, linewidth=1.2, elinewidth=0.7,
                    label=str(dataset["network"].values[i]))  # fmt: skip
        ax.plot(shift[reached[i]], mean[reached[i]], "o", color=colour, markersize=4)
        ax.plot(shift[~reached[i]], mean[~reached[i]], "o", markerfacecolor="white", color=colour, markersize=4)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("batch size $b$")
    ax.set_ylabel("epochs to the target")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_heatmap(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Epochs to the target by network and batch size (Chen et al., Figure 4); ``>`` marks censored runs."""
    ax = ax or new_axes()
    from matplotlib.colors import LogNorm

    values = dataset["epochs_to_target"].mean("replica").values
    reached = dataset["reached"].all("replica").values
    image = ax.imshow(values, norm=LogNorm(max(values.min(), 1), max(values.max(), 2)), cmap="viridis_r", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        dark = np.log(max(value, 1)) > 0.6 * np.log(max(values.max(), 2))
        text = f"{'' if reached[i, j] else '>'}{value:.0f}" if value >= 10 or not reached[i, j] else f"{value:.1f}"
        ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize="small")
    ax.set_xticks(range(values.shape[1]), [str(b) for b in dataset["batch"].values])
    ax.set_yticks(range(values.shape[0]), [str(x) for x in dataset["network"].values])
    ax.set_xlabel("batch size $b$")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.figure.colorbar(image, ax=ax, label="epochs to the target")
    return ax


def plot_largest_batch(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Largest batch within the epoch budget, and ``B_S`` (Chen et al., Figures 2 and 5).

    The networks in order of increasing width, as in the paper; small points are replicas.
    """
    ax = ax or new_axes()
    order = np.argsort(dataset["units"].values, kind="stable")
    x = np.arange(len(order))
    budget = specification_of(dataset)["epoch_budget"]
    best = dataset["largest_batch"].values[order]
    ax.plot(np.repeat(x, best.shape[1]), best.ravel(), "o", color="C0", markersize=3, alpha=0.4)
    ax.plot(x, _mean(best, 1), "o-", color="C0", label=f"largest batch within {budget} epochs")
    for name, style, label in (
        ("diversity_start", "s--", "at the start"),
        ("diversity", "^:", "average along training"),
    ):
        diversity = _mean(_mean(dataset[name].values, 2), 1)[order]
        if np.isfinite(diversity).any():
            ax.plot(x, diversity, style, color="C1", label=rf"$B_S$, {label}")
    ax.set_yscale("log", base=2)
    ax.set_xticks(x, [str(dataset["network"].values[i]) for i in order], rotation=20, ha="right")
    ax.set_ylabel("batch size")
    ax.legend(frameon=False, fontsize="small")
    return ax


# -- diversity ---------------------------------------------------------------------------------------------------------


def plot_diversity(dataset: xr.Dataset, ax: Axes | None = None, name: str = "batch_bound") -> Axes:
    """``B_S`` (or another variable) at random weights against width by depth: medians, and points for replicas."""
    ax = ax or new_axes()
    values = dataset[name].values
    depth, width = dataset["hidden_layers"].values, dataset["units"].values
    levels = np.unique(depth)
    for L, colour in zip(levels, _colours(len(levels)), strict=True):
        chosen = np.nonzero(depth == L)[0]
        chosen = chosen[np.argsort(width[chosen], kind="stable")]
        ax.plot(
            np.repeat(width[chosen], values.shape[1]),
            values[chosen].ravel(),
            ".",
            color=colour,
            alpha=0.3,
            markersize=4,
        )
        ax.plot(width[chosen], np.median(values[chosen], axis=1), "o-", color=colour, markersize=4, label=f"L = {L}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("width $K$")
    labels = {"batch_bound": "$B_S = n\\Delta_S$", "critical_batch": "$b^*$"}
    ax.set_ylabel(labels.get(name, name))
    ax.legend(frameon=False, fontsize="small", title="hidden layers", title_fontsize="small")
    return ax


def plot_second_moment(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """``E|g_S|²`` against b over Lemma 3.1's bound, exact and sampled, for the first network and replica."""
    ax = ax or new_axes()
    one = dataset.isel(network=0, replica=0)
    b = one["batch"].values
    ax.plot(b, one["lemma_bound"], color="black", linewidth=1, label="Lemma 3.1")
    ax.plot(b, one["second_moment"], color="C0", label="exact, without replacement")
    ax.plot(b, one["second_moment_replacement"], "--", color="C2", label="exact, with replacement")
    if "second_moment_sampled" in one:
        ax.errorbar(b, one["second_moment_sampled"], 2 * one["second_moment_error"], fmt="o", color="C1", markersize=3,
                    label="sampled, ±2 s.e.")  # fmt: skip
    ax.axhline(float(one["gradient_square_norm"]), color=GREY, linestyle=":", linewidth=1, label=r"$\|\nabla L\|^2$")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("batch size $b$")
    ax.set_ylabel(r"$E\|g_S\|^2$")
    ax.set_title(str(one["network"].values), fontsize="small")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_spectrum(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Eigenvalues of the NTK, largest first, of the first replica of every network."""
    ax = ax or new_axes()
    values = dataset["spectrum"].values[:, 0, ::-1]
    for i, colour in enumerate(_colours(len(values))):
        shown = values[i] > values[i, 0] * 1e-12
        ax.plot(np.arange(1, shown.sum() + 1), values[i][shown], color=colour, linewidth=1,
                label=str(dataset["network"].values[i]))  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("eigenvalue of $K$, largest first")
    ax.set_ylabel("value")
    if len(values) <= 6:
        ax.legend(frameon=False, fontsize="small")
    return ax


def plot_theorem(dataset: xr.Dataset, ax: Axes, dim: int, examples: float) -> Axes:
    """A theorem's ratio against width, for one d and n: Monte Carlo with intervals, closed form, and the bound."""
    theorem = specification_of(dataset)["theorem"]
    part = dataset.sel(dim=dim, examples=examples)
    K = part["width"].values
    for i, colour in enumerate(_colours(len(part["depth"]))):
        cell = part.isel(depth=i)
        label = f"L = {int(cell['depth'])}"
        if theorem == 1:
            quantiles = np.quantile(cell["diversity_bound"].values, [0.05, 0.5, 0.95], axis=-1)
            ax.fill_between(K, quantiles[0], quantiles[2], color=colour, alpha=0.2, linewidth=0)
            ax.plot(K, quantiles[1], "o", color=colour, markersize=4, label="$B_S$: median, 5–95 %")
            ax.plot(K, cell["ratio_exact"], color=colour, linewidth=1, label=r"$\rho$ in closed form")
        else:
            error = [cell["ratio"] - cell["ratio_low"], cell["ratio_high"] - cell["ratio"]]
            ax.errorbar(K, cell["ratio"], error, fmt="o", color=colour, markersize=4, label=label)
            if np.isfinite(cell["ratio_exact"]).all():
                ax.plot(K, cell["ratio_exact"], color=colour, linewidth=1)
        ax.plot(K, cell["bound"], "--", color=colour, linewidth=1)
    ax.plot(
        [], [], "--", color=GREY, label="bound (4.1)" if theorem == 3 else f"Theorem {theorem}'s scaling, constant 1"
    )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("width $K$")
    ax.set_ylabel(r"ratio $\rho$" if theorem > 1 else "$B_S$")
    ax.set_title(f"d = {dim}, " + ("n → ∞" if np.isinf(examples) else f"n = {examples:g}"), fontsize="small")
    ax.legend(frameon=False, fontsize="x-small")
    return ax


# -- figures -----------------------------------------------------------------------------------------------------------


def _describe(spec: dict[str, Any]) -> str:
    data = spec["data"]
    name = data["name"] or data["source"]
    return f"{name}, n = {spec['n']:,}" + (f", d = {data['dim']}" if data["dim"] else "") + f", {spec['loss']} loss"


def draw_saturation(dataset: xr.Dataset, figure: Figure) -> None:
    """Loss curves and convergence exponents."""
    spec = specification_of(dataset)
    figure.set_size_inches(8.2, 3.4)
    axes = figure.subplots(1, 2)
    plot_loss_curves(dataset, axes[0])
    plot_exponent(dataset, axes[1])
    rates = dataset["lr"].values
    rate = f"learning rate {rates[0]:.3g}" if np.ptp(rates) == 0 else "learning rate $\\propto 1/\\beta(b)$"
    figure.suptitle(f"{network_title(spec['network'])};  {_describe(spec)};  {rate}", fontsize="medium")


def draw_epochs(dataset: xr.Dataset, figure: Figure) -> None:
    """Epochs to the target: lines, as a map, and the largest batch."""
    spec = specification_of(dataset)
    figure.set_size_inches(12.4, 3.6)
    axes = figure.subplots(1, 3)
    plot_epochs(dataset, axes[0])
    plot_heatmap(dataset, axes[1])
    plot_largest_batch(dataset, axes[2])
    target = f"{'relative ' if spec['relative'] else ''}{spec['measure']} {spec['target']:g}"
    figure.suptitle(f"{_describe(spec)};  target: {target};  {len(dataset['replica'])} repetitions", fontsize="medium")


def draw_diversity(dataset: xr.Dataset, figure: Figure) -> None:
    """Batch-size constants against width, second moments, and the spectrum."""
    spec = specification_of(dataset)
    panels = ["batch_bound", *(["critical_batch"] if "critical_batch" in dataset else []), "moment"]
    panels = [p for p in panels if p != "moment" or dataset.sizes["batch"] > 0]
    panels += ["spectrum"] if "spectrum" in dataset else []
    figure.set_size_inches(3.3 * len(panels), 3.3)
    for ax, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        if panel == "moment":
            plot_second_moment(dataset, ax)
        elif panel == "spectrum":
            plot_spectrum(dataset, ax)
        else:
            plot_diversity(dataset, ax, panel)
    figure.suptitle(f"{_describe(spec)};  random weights", fontsize="medium")


def draw_theorem(dataset: xr.Dataset, figure: Figure) -> None:
    """A theorem's ratio against width, a panel for each d and n."""
    spec = specification_of(dataset)
    cells = [(int(d), float(n)) for d in dataset["dim"].values for n in dataset["examples"].values]
    columns = min(len(cells), 3)
    rows = -(-len(cells) // columns)
    figure.set_size_inches(3.6 * columns, 3.2 * rows)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for ax in axes[len(cells) :]:
        ax.set_visible(False)
    for ax, (d, n) in zip(axes, cells, strict=False):
        plot_theorem(dataset, ax, d, n)
    what = {1: "two linear layers", 2: f"two layers, {spec['activation']}", 3: "deep linear networks"}[spec["theorem"]]
    figure.suptitle(f"Theorem {spec['theorem']}: {what}, random weights", fontsize="medium")


def draw_bridge(dataset: xr.Dataset, figure: Figure) -> None:
    """Gradient diversity along a run, and its overlap."""
    figure.set_size_inches(8.2, 3.3)
    axes = figure.subplots(1, 2)
    step = dataset["step"].values
    for name, colour, label in (
        ("population_diversity", "black", "population formula, $n = \\infty$"),
        ("population_diversity_n", "C3", "population formula, this $n$"),
        ("empirical_diversity", "C0", "fresh examples, same weights"),
        ("training_diversity", "C1", "training examples"),
    ):
        values = dataset[name].values
        if name in ("population_diversity_n", "training_diversity"):  # four bands would hide one another
            axes[0].fill_between(step, *_range(values, 0), color=colour, alpha=0.12, linewidth=0)
        axes[0].plot(step, np.median(values, axis=0), color=colour, linewidth=1.3, label=label)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("gradient diversity $B_S$")
    overlap = dataset["overlap"].values
    axes[1].fill_between(step, overlap.min(axis=0), overlap.max(axis=0), color="C2", alpha=0.2, linewidth=0)
    axes[1].plot(step, np.median(overlap, axis=0), color="C2")
    axes[1].set_ylabel(r"overlap $\|M\|_F$")
    for ax in axes:
        ax.set_xlabel("gradient steps")
    axes[0].legend(frameon=False, fontsize="small")
    spec = specification_of(dataset)
    problem = spec["problem"]
    figure.suptitle(
        f"{problem['target']['expression']} learnt by {problem['student']['activation']}, "
        f"p = {problem['student']['width']};  d = {spec['dim']}, n = {spec['n']:,}, "
        f"b = {spec['batch']}, noise {problem['noise']:g}, $\\gamma$ = {spec['lr']:g}",
        fontsize="medium",
    )
