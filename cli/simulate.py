"""``hdsgd simulate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.options import (
    Outputs,
    Whole,
    algorithm_option,
    combine,
    figure,
    gamma0_option,
    initial_from,
    initial_options,
    n0_option,
    output_options,
    problem_from,
    problem_line,
    rule_options,
    run_options,
    target_options,
)

if TYPE_CHECKING:
    import xarray as xr

scaling_options = combine(
    click.option("--dim", type=Whole(), default=1000, show_default=True, help="Input dimension d (1e9 is fine)."),
    click.option("--batch", type=Whole(), help="Batch size n_b; or, instead, as a power of d:"),
    click.option("--mu", type=float, help="n_b = n0 d^mu.  [default: 1, unless --batch is given]"),
    n0_option,
    click.option("--lr", type=float, help="Learning rate gamma; or, instead, as a power of d:"),
    click.option("--delta", type=float, help="gamma = gamma0 d^-delta.  [default: 0, unless --lr is given]"),
    gamma0_option,
)


@click.command("simulate")
@target_options()
@algorithm_option
@rule_options
@scaling_options
@initial_options()
@click.option("--steps", type=Whole(), default=200, show_default=True, help="Gradient steps.")
@click.option("--save-points", type=Whole(), default=100, show_default=True, help="States to save after the first.")
@click.option("--save-spacing", default="linear", show_default=True, metavar="NAME", help="linear or log.")
@run_options()
@click.option("--diversity", is_flag=True, help="Add the population gradient diversity along the trajectory.")
@output_options
def command(**options: Any) -> None:
    """Simulate replicas of one-pass SGD on one problem and summarise how they recover it.

    The data hold the overlaps M and Q, the misalignment, the population risk and the recovery times of every replica.

    \b
      hdsgd simulate --target he3 --activation he3 --width 4 --mu 1.5 --delta 0 -o run.nc --plot run.png
      hdsgd simulate --dim 1e9 --batch 100000 --lr 1e-6 --steps 200
    """
    from hdsgd.simulation.runs import simulate

    outputs = Outputs(options)
    problem = problem_from(options, options.pop("algorithm"))
    initial = initial_from(options)
    if options["batch"] is None and options["mu"] is None:
        options["mu"] = 1.0
    if options["lr"] is None and options["delta"] is None:
        options["delta"] = 0.0
    diversity = options.pop("diversity")
    dataset = simulate(problem, initial=initial, progress=outputs.progress, **options)
    if diversity:
        from hdsgd.simulation.comparison import add_diversity

        dataset = add_diversity(dataset)
    click.echo(summary(dataset))
    outputs.write(dataset, figure)


def summary(dataset: xr.Dataset) -> str:
    """What happened, on one screen."""
    import json

    import numpy as np

    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    recovered = dataset["recovered"].values
    times = np.where(recovered, dataset["recovery_time"].values, np.inf)
    low, middle, high = (np.quantile(times, q, method="inverted_cdf") for q in (0.25, 0.5, 0.75))
    diverged = int((dataset["status"] == 3).sum())
    norm = np.sqrt((dataset["M"].isel(step=-1).values ** 2).sum(axis=(1, 2)))
    risk = dataset["risk"]

    def steps(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else f"> {spec['steps']}"

    lines = [
        problem_line(spec["problem"]),
        f"run     d = {spec['dim']}, batch {spec['batch']}, learning rate {spec['lr']:.6g}, {spec['steps']} steps, "
        f"engine {spec['engine']}, {len(recovered)} replicas in {timings['total_seconds']:.2f} s",
        f"result  weak recovery (|M| >= {spec['eta']:g}) in {int(recovered.sum())} of {len(recovered)} replicas"
        + (f", {diverged} diverged" if diverged else ""),
        f"time    median {steps(middle)} steps, quartiles {steps(low)} and {steps(high)}",
        f"final   |M| = {np.nanmedian(norm) if np.isfinite(norm).any() else np.nan:.4f} (median), risk "
        f"{np.median(risk.isel(step=0)):.4g} -> {np.median(risk.isel(step=-1)):.4g}",
    ]
    return "\n".join(lines)
