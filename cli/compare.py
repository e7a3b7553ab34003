"""``hdsgd compare``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.options import (
    Outputs,
    Whole,
    WholeList,
    algorithm_option,
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


@click.command("compare")
@target_options()
@algorithm_option
@rule_options
@click.option("--dims", type=WholeList(), default="250,1000,4000", show_default=True, help="Input dimensions d.")
@click.option("--mu", type=float, default=0.5, show_default=True, help="Batch size n_b = n0 d^mu.")
@n0_option
@click.option("--delta", type=float, default=0.5, show_default=True, help="Learning rate gamma = gamma0 d^-delta.")
@gamma0_option
@click.option("--time", type=float, default=3.0, show_default=True, help="Where to end, in time of the ODE.")
@click.option("--points", type=Whole(), default=50, show_default=True, help="Saved times.")
@initial_options()
@run_options(replicas=32)
@output_options
def command(**options: Any) -> None:
    """Run simulations, mean map and ODE from the same start at several dimensions and say how far they are apart.

    The start is drawn once, at the smallest dimension.  Where the deviation is resolved at two dimensions or more, its
    power of d is fitted.

    \b
      hdsgd compare --target "he2(z1) + he2(z2)" --width 2 --mu 0.5 --delta 0.75 --init-overlap 0.3 --plot compare.png
    """  # fmt: skip
    from hdsgd.simulation.comparison import compare

    outputs = Outputs(options)
    problem = problem_from(options, options.pop("algorithm"))
    dataset = compare(problem, initial=initial_from(options), progress=outputs.progress, **options)
    click.echo(summary(dataset))
    outputs.write(dataset, figure)


def summary(dataset: Any) -> str:
    """Table of deviations on one screen."""
    import json

    import numpy as np

    spec = json.loads(dataset.attrs["specification"])
    seconds = json.loads(dataset.attrs["timings"])["total_seconds"]
    lines = [
        problem_line(spec["problem"]),
        f"regime  mu = {spec['mu']:g}, delta = {spec['delta']:g}: {spec['regime']}; gamma0 = {spec['gamma0']:.4g}, "
        f"{spec['replicas']} replicas to t = {spec['time']:g} in {seconds:.1f} s",
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
