"""Summaries of deterministic dynamics."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hdsgd.results.summaries import problem_line, specification_of

__all__ = ["summarise_dynamics"]


def summarise_dynamics(dataset: xr.Dataset) -> str:
    """Where the overlaps went, and when they passed the threshold; of the first replica."""
    spec = specification_of(dataset)
    first = dataset.isel(replica=0)
    axis = "step" if "step" in dataset["M"].dims else "t"
    norm = np.sqrt((first["M"].transpose(axis, ...).values ** 2).sum(axis=(1, 2)))
    risk = first["risk"].values
    scaling = spec.get("scaling") or {}
    run = [f"{name} = {scaling[name]:g}" for name in ("mu", "delta") if scaling.get(name) is not None]
    if spec.get("dim"):
        run.append(f"d = {spec['dim']}")
    if spec.get("batch"):
        run.append(f"batch {spec['batch']}")
    if spec.get("lr"):
        run.append(f"learning rate {spec['lr']:.6g}")
    what = f"ODE, {spec['regime']}" if dataset.attrs["kind"] == "ode" else "mean map"
    if dataset.sizes["replica"] > 1:
        what += f", first of {dataset.sizes['replica']} starts"
    if not bool(first["recovered"]):
        time = "not reached"
    elif "recovery_time" in first:
        time = f"at step {float(first['recovery_time']):.6g}"
    else:
        time = f"at t = {float(first['recovery_t']):.6g}"
    return "\n".join(
        [
            problem_line(spec["problem"]),
            f"run     {', '.join(run)}: {what}" if run else f"run     {what}",
            f"result  |M| = {norm[0]:.4f} -> {norm[-1]:.4f}, risk {risk[0]:.4g} -> {risk[-1]:.4g}",
            f"time    weak recovery {time}",
        ]
    )
