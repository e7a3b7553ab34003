"""Summaries of runs and of comparisons with theory."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hdsgd.outcomes import OUTCOMES
from hdsgd.results.summaries import problem_line, seconds_of, specification_of

__all__ = ["summarise_comparison", "summarise_run"]


def summarise_run(dataset: xr.Dataset) -> str:
    """What happened to the replicas of a run."""
    spec = specification_of(dataset)
    recovered = dataset["recovered"].values
    times = np.where(recovered, dataset["recovery_time"].values, np.inf)
    low, middle, high = (np.quantile(times, q, method="inverted_cdf") for q in (0.25, 0.5, 0.75))
    diverged = int((dataset["status"] == OUTCOMES["diverged"]).sum())
    norm = np.sqrt((dataset["M"].isel(step=-1).values ** 2).sum(axis=(1, 2)))
    risk = dataset["risk"].transpose("replica", "step").values

    def steps(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else f"> {spec['steps']}"

    lines = [
        problem_line(spec["problem"]),
        f"run     d = {spec['dim']}, batch {spec['batch']}, learning rate {spec['lr']:.6g}, {spec['steps']} steps, "
        f"engine {spec['engine']}, {len(recovered)} replicas in {seconds_of(dataset):.2f} s",
        f"result  weak recovery (|M| >= {spec['eta']:g}) in {int(recovered.sum())} of {len(recovered)} replicas"
        + (f", {diverged} diverged" if diverged else ""),
        f"time    median {steps(middle)} steps, quartiles {steps(low)} and {steps(high)}",
        f"final   |M| = {np.nanmedian(norm) if np.isfinite(norm).any() else np.nan:.4f} (median), risk "
        f"{np.median(risk[:, 0]):.4g} -> {np.median(risk[:, -1]):.4g}",
    ]
    return "\n".join(lines)


def summarise_comparison(dataset: xr.Dataset) -> str:
    """Table of deviations."""
    spec = specification_of(dataset)
    lines = [
        problem_line(spec["problem"]),
        f"regime  mu = {spec['mu']:g}, delta = {spec['delta']:g}: {spec['regime']}; gamma0 = {spec['gamma0']:.4g}, "
        f"{spec['replicas']} replicas to t = {spec['time']:g} in {seconds_of(dataset):.1f} s",
        "",
        f"{'d':>10} {'batch':>9} {'rate':>10} {'steps':>8}   {'from the ODE':>20} {'inside':>7}   "
        f"{'from the mean map':>20} {'inside':>7}",
    ]
    for d in dataset["dim"].values:
        panel = dataset.sel(dim=d)
        run = f"{d:10} {int(panel['batch']):9} {float(panel['lr']):10.4g} {int(panel['step'][-1]):8}"
        cells = []
        for name in ("ode", "map"):
            row = panel.sel(theory=name)
            deviation, error, inside = (float(row[key]) for key in ("deviation", "deviation_error", "inside"))
            cells.append(f"{deviation:9.5f} ± {error:8.5f} {inside:7.0%}")
        lines.append("   ".join([run, *cells]))
    lines.append("")
    for name, label in (("ode", "ODE"), ("map", "mean map")):
        row = dataset.sel(theory=name)
        rate = float(row["rate"])
        if np.isfinite(rate):
            fitted = f"falls as d^({rate:.2f} ± {float(row['rate_error']):.2f})"
        else:
            fitted = "not resolved from the replicas' noise at two dimensions or more"
        lines.append(f"deviation from the {label}: {fitted}")
    lines.append("(rms over overlaps and times; inside: share of theory within the band of 95 % of the replicas)")
    return "\n".join(lines)
