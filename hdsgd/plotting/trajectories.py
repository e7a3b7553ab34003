"""Pictures of trajectories and of comparisons: each function draws on one set of Matplotlib axes and returns them.

They compute nothing but summaries over replicas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from hdsgd.errors import SpecificationError
from hdsgd.plotting.style import GREY, check_holds, new_axes, plot_band
from hdsgd.results.summaries import specification_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_comparison", "plot_deviations", "plot_overlaps", "plot_recovery_times", "plot_risk"]


def plot_overlaps(dataset: xr.Dataset, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Overlaps against steps: ``|M_jr|`` of each student and teacher row, and ``||M||_F`` with the threshold eta.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.simulate`, or theory with the same variables.
    ax : matplotlib.axes.Axes, optional
        New axes by default.
    label : str, optional
        Legend entry of the norm.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=50, replicas=4)
    >>> hdsgd.plot_overlaps(run).get_ylabel()
    'overlap'
    """
    check_holds(dataset, "M", dims=[_time_axis(dataset)])
    ax = ax or new_axes()
    axis = _time_axis(dataset)
    M = dataset["M"].transpose("replica", axis, "student", "teacher").values
    step = dataset[axis].values
    p, k = M.shape[2:]
    if p * k > 1:
        # Which student finds which direction is a matter of chance: sort each replica's rows by what they found.
        order = np.argsort(
            -np.nanmax(np.abs(M[:, -1]), axis=-1) if np.isfinite(M[:, -1]).all() else np.zeros((len(M), p))
        )
        M = np.take_along_axis(M, order[:, None, :, None], axis=2)
        for r in range(k):
            for j in range(p):
                plot_band(ax, step, np.abs(M[:, :, j, r]), color=f"C{r % 10}", linewidth=0.8, alpha=0.6,
                      label=rf"$|M_{{j{r + 1}}}|$" if j == 0 else None)  # fmt: skip
    plot_band(ax, step, np.sqrt((M**2).sum(axis=(2, 3))), color="black", linewidth=1.6, label=label or r"$\|M\|_F$")
    eta = specification_of(dataset).get("eta")
    if eta is not None:
        ax.axhline(eta, color=GREY, linestyle=":", linewidth=1)
        ax.annotate(rf"$\eta$ = {eta:g}", (1, eta), xycoords=("axes fraction", "data"), xytext=(-3, 2),
                    textcoords="offset points", ha="right", color=GREY, fontsize="small")  # fmt: skip
    _step_axis(ax, dataset)
    ax.set_ylim(0, None)
    ax.set_ylabel("overlap")
    ax.legend(loc="lower right", frameon=False)
    return ax


def _time_axis(dataset: xr.Dataset) -> str:
    """Steps, or the time of an ODE whose learning rate was not given."""
    return "t" if isinstance(dataset, xr.Dataset) and "t" in dataset.dims else "step"


def _step_axis(ax: Axes, dataset: xr.Dataset) -> None:
    axis = _time_axis(dataset)
    if specification_of(dataset).get("save_spacing") == "log":
        ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, dataset[axis].values[-1])
    ax.set_xlabel("gradient steps" if axis == "step" else "time t of the ODE")


def plot_risk(dataset: xr.Dataset, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Population risk against steps, median and 80 % band over replicas, on a logarithmic scale.

    Examples
    --------
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=50, replicas=4)
    >>> hdsgd.plot_risk(run).get_yscale()
    'log'
    """
    check_holds(dataset, "risk", dims=[_time_axis(dataset)])
    ax = ax or new_axes()
    axis = _time_axis(dataset)
    risk = dataset["risk"].transpose("replica", axis).values
    plot_band(ax, dataset[axis].values, np.maximum(risk, 1e-16), color="C3", label=label)
    noise = specification_of(dataset).get("problem", {}).get("noise", 0.0)
    if noise:
        ax.axhline(noise / 2, color=GREY, linestyle=":", linewidth=1, label="noise floor")
        ax.legend(frameon=False)
    _step_axis(ax, dataset)
    ax.set_yscale("log")
    ax.set_ylabel("population risk")
    return ax


def plot_recovery_times(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of replicas that have weakly recovered, against steps; censored runs count as not recovered.

    Examples
    --------
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=50, replicas=4)
    >>> hdsgd.plot_recovery_times(run).get_ylabel()
    'share of replicas recovered'
    """
    check_holds(dataset, "recovery_time", "recovered", dims=["step"])
    ax = ax or new_axes()
    recovered = dataset["recovered"].values
    times = np.sort(dataset["recovery_time"].values[recovered])
    share = np.arange(len(times) + 1) / len(recovered)
    end = max(int(dataset["step"].values[-1]), int(times[-1]) if len(times) else 1)
    ax.step(np.concatenate([[0], times, [end]]), np.concatenate([share, share[-1:]]), where="post", color="C0")
    ax.set_ylim(0, 1.02)
    _step_axis(ax, dataset)
    ax.set_ylabel("share of replicas recovered")
    return ax


def plot_comparison(dataset: xr.Dataset, ax: Axes | None = None, *, dim: int | None = None) -> Axes:
    """``||M||_F`` of simulations (median and 95 % band), mean map and ODE against time, at one dimension.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `hdsgd.compare`.
    ax : matplotlib.axes.Axes, optional
    dim : int, optional
        Which dimension; the largest by default.

    Examples
    --------
    >>> import hdsgd
    >>> both = hdsgd.compare(hdsgd.Problem("he2", "he2"), dims=[100, 400], time=0.5, replicas=8, points=5)
    >>> hdsgd.plot_comparison(both, dim=100).get_title()
    'd = 100'
    """
    check_holds(dataset, "M", "M_theory")
    ax = ax or new_axes()
    dim = int(dataset["dim"].values[-1]) if dim is None else dim
    if dim not in dataset["dim"].values:
        raise SpecificationError(f"no dimension {dim}; this Dataset has {', '.join(map(str, dataset['dim'].values))}")
    at_dim = dataset.sel(dim=dim)
    t = at_dim["t"].values
    norm = np.sqrt((at_dim["M"].transpose("replica", "point", "student", "teacher").values ** 2).sum(axis=(2, 3)))
    low, high = np.quantile(norm, (0.025, 0.975), axis=0)
    ax.fill_between(t, low, high, color="C0", alpha=0.25, linewidth=0, label="simulations, 95 %")
    ax.plot(t, np.median(norm, axis=0), ".", color="C0", markersize=4, label="median")
    for name, style, label in (("ode", "-", "ODE"), ("map", "--", "mean map")):
        theory = at_dim["M_theory"].sel(theory=name).values
        ax.plot(t, np.sqrt((theory**2).sum(axis=(1, 2))), style, color="black", linewidth=1.2, label=label)
    ax.set_xlim(0, t[-1])
    ax.set_ylim(0, None)
    ax.set_title(f"d = {dim:,}")
    ax.set_xlabel(r"time $t$ of the ODE")
    return ax


def plot_deviations(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Deviation of the simulations' mean from ODE and mean map against d, with the fitted power where there is one.

    Examples
    --------
    >>> import hdsgd
    >>> both = hdsgd.compare(hdsgd.Problem("he2", "he2"), dims=[100, 400], time=0.5, replicas=8, points=5)
    >>> hdsgd.plot_deviations(both).get_xlabel()
    'dimension d'
    """
    check_holds(dataset, "deviation")
    ax = ax or new_axes()
    d = dataset["dim"].values
    for name, colour, label in (("ode", "C3", "ODE"), ("map", "C2", "mean map")):
        row = dataset.sel(theory=name)
        value, error = row["deviation"].values, np.nan_to_num(row["deviation_error"].values)
        rate = float(row["rate"])
        text = rf"{label}: $d^{{{rate:.2f} \pm {float(row['rate_error']):.2f}}}$" if np.isfinite(rate) else label
        seen = value > 2 * error
        if seen.any():
            ax.errorbar(d[seen], value[seen], error[seen], fmt="o", color=colour, label=text)
        bound = f"{label}: at most" if not seen.any() else None
        ax.plot(d[~seen], (value + 2 * error)[~seen], "v", color=colour, fillstyle="none", label=bound)
        if np.isfinite(rate):
            level = np.exp(np.mean(np.log(value[seen] / d[seen] ** rate)))
            ax.plot(d, level * d**rate, color=colour, linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(d, [f"{value:,}" for value in d])
    ax.minorticks_off()
    ax.set_xlabel("dimension d")
    ax.set_ylabel("deviation from theory (rms)")
    ax.legend(frameon=False, fontsize="small")
    return ax
