"""Summaries of phase diagrams."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from hdsgd.analysis.boundaries import cell_times, compare_boundaries, select_cells
from hdsgd.analysis.exponents import compare_exponents
from hdsgd.results.summaries import problem_line, seconds_of, specification_of

__all__ = ["failure_lines", "summarise_phase_diagram", "sweep_line"]


def summarise_phase_diagram(dataset: xr.Dataset) -> str:
    """What became of the cells of each algorithm at each dimension, and how that compares with theory."""
    spec = specification_of(dataset)
    lines = [
        f"{problem_line(spec['problem'], with_rule=False)}; d = {', '.join(map(str, spec['dims']))}",
        f"sweep   {sweep_line(dataset)} in {seconds_of(dataset):.1f} s",
        "",
        f"{'algorithm':12} {'d':>7} {'n0':>7} {'gamma0':>8} {'recovered':>9} {'censored':>8} {'over budget':>11} "
        f"{'diverged':>8} {'failed':>6}  {'fastest':>7}  agrees with theory",
    ]
    for name in dataset["algorithm"].values.tolist():
        rule = spec["algorithms"][name]
        for dim in spec["dims"]:
            time, kind = cell_times(select_cells(dataset, name, dim))
            counts = {
                what: int((kind == what).sum())
                for what in ("recovered", "censored", "over_budget", "diverged", "failed")
            }
            found = compare_boundaries(dataset, name, dim)
            verdict = "no theory"
            if found is not None:
                verdict = f"{found['agree']} of {found['agree'] + found['disagree']} cells off the line"
            fastest = f"{np.min(time):.0f}" if counts["recovered"] else "-"
            lines.append(
                f"{name:12} {_short(dim):>7} {rule['n0']:7.4g} {rule['gamma0']:8.4g} {counts['recovered']:9} "
                f"{counts['censored']:8} {counts['over_budget']:11} {counts['diverged']:8} {counts['failed']:6}  "
                f"{fastest:>7}  {verdict}"
            )
    if "theta" in dataset:
        lines += ["", *_exponent_lines(dataset)]
    return "\n".join(lines + failure_lines(dataset))


def failure_lines(dataset: xr.Dataset, most: int = 3) -> list[str]:
    """The first cells that failed, with their messages."""
    lines = []
    for where, message in list(json.loads(dataset.attrs.get("errors", "{}")).items())[:most]:
        a, n, i, j = map(int, where.split(","))
        cell = dataset.isel(algorithm=a, dim=n, mu=i, delta=j)
        lines.append(
            f"failed  {cell['algorithm'].item()} at d = {cell['dim'].item()}, mu = {cell['mu'].item():g}, "
            f"delta = {cell['delta'].item():g}: {message}"
        )
    return lines


def sweep_line(dataset: xr.Dataset) -> str:
    """What is swept, by numbers."""
    size = dataset.sizes
    dims = f" x {size['dim']} dimensions" if size["dim"] > 1 else ""
    algorithms = "1 algorithm" if size["algorithm"] == 1 else f"{size['algorithm']} algorithms"
    return f"{size['mu']} x {size['delta']} cells x {algorithms}{dims} x {size['replica']} replicas"


def _exponent_lines(dataset: xr.Dataset) -> list[str]:
    """How the exponents fitted over dimensions compare with theory, away from boundaries."""
    columns = ("fitted", 7), ("compared", 8), ("median", 7), ("largest", 7), ("error", 6)
    lines = [f"{'exponents':12} " + " ".join(f"{what:>{width}}" for what, width in columns) + "  of |theta - theory|"]
    for name in dataset["algorithm"].values.tolist():
        found = compare_exponents(dataset, name)
        if found is None:
            lines.append(f"{name:12} no theory")
        elif not found["compared"]:
            lines.append(f"{name:12} {found['fitted']:7} {0:8}")
        else:
            lines.append(
                f"{name:12} {found['fitted']:7} {found['compared']:8} {found['median']:7.3f} {found['largest']:7.3f} "
                f"{found['error']:6.3f}"
            )
    return lines


def _short(dim: int) -> str:
    return str(dim) if dim < 10**7 else f"{dim:.4g}"
