"""``hdsgd phase-diagram``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.options import (
    Grid,
    NumberOrAuto,
    Outputs,
    Whole,
    figure,
    gamma0_option,
    initial_from,
    initial_options,
    output_options,
    problem_line,
    rule_options,
    run_options,
    take_problem_options,
    target_options,
)

if TYPE_CHECKING:
    import xarray as xr


class _StepsOrAuto(Whole):
    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


@click.command("phase-diagram")
@target_options(activation="square", target="square")
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    metavar="NAME",
    help="projected, correlation or spherical; may be repeated.  [default: all three]",
)
@rule_options
@click.option("--dim", type=Whole(), default=1000, show_default=True, help="Input dimension d.")
@click.option("--mu", type=Grid(), default="0:2:21", show_default=True, help="Batch sizes n_b = n0 d^mu.")
@click.option(
    "--delta", type=Grid(), default="-1:1.5:26", show_default=True, help="Learning rates gamma = gamma0 d^-delta."
)
@click.option(
    "--n0",
    type=NumberOrAuto(),
    default="auto",
    show_default=True,
    help="Prefactor of the batch size; auto: the one that gives giant steps.",
)
@gamma0_option
@initial_options(default="auto")
@click.option(
    "--max-steps",
    type=_StepsOrAuto(),
    default="auto",
    show_default=True,
    help="Steps a run may take; auto: ten times what the drift alone would need.",
)
@click.option(
    "--max-samples",
    type=float,
    default=1e7,
    show_default=True,
    help="Samples a run may draw; cells that need more are marked, not run.",
)
@run_options()
@output_options
def command(**options: Any) -> None:
    """Map the weak-recovery time over the (mu, delta) plane for up to three algorithms.

    Every cell is simulated until it weakly recovers the target or its steps are spent.  The figure shows the time as
    log_d T with the boundaries of the theory drawn over the cells.  Without -o and --plot the results go to phase.nc
    and phase.png.

    \b
      hdsgd phase-diagram
      hdsgd phase-diagram --target he3 --activation he3 --dim 256 --mu 0:3:25 --delta -1.5:2:29 -o he3.nc --plot he3.png
    """  # fmt: skip
    from hdsgd.diagram import phase_diagram
    from hdsgd.model import ALGORITHMS, Problem

    if options["output"] is None and options["plot"] is None:
        options["output"], options["plot"] = "phase.nc", "phase.png"
    outputs = Outputs(options)
    initial = initial_from(options)
    algorithms = options.pop("algorithms") or tuple(ALGORITHMS)
    loss, constraint = options.pop("loss"), options.pop("constraint")
    problem = Problem(**take_problem_options(options), loss=loss or "square", constraint=constraint or "projected")
    dataset = phase_diagram(
        problem,
        algorithms=algorithms,
        loss=loss,
        constraint=constraint,
        initial=initial,
        progress=outputs.progress,
        **options,
    )
    click.echo(summary(dataset))
    outputs.write(dataset, figure)


def summary(dataset: xr.Dataset) -> str:
    """What happened, on one screen."""
    import json

    import numpy as np

    from hdsgd.diagram import agreement, cell_times

    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    errors = json.loads(dataset.attrs["errors"])
    lines = [
        f"{problem_line(spec['problem'], with_rule=False)}; d = {spec['dim']}",
        f"sweep   {len(spec['mu'])} x {len(spec['delta'])} cells x {len(spec['algorithms'])} algorithms x "
        f"{spec['replicas']} replicas in {timings['total_seconds']:.1f} s",
        "",
        f"{'algorithm':12} {'n0':>7} {'gamma0':>8} {'recovered':>9} {'censored':>9} {'too long':>9} {'diverged':>9} "
        f"{'failed':>7}  {'fastest':>7}  agrees with theory",
    ]
    for name in dataset["algorithm"].values:
        panel = dataset.sel(algorithm=name)
        time, kind = cell_times(panel)
        counts = [int((kind == what).sum()) for what in ("recovered", "censored", "unaffordable", "diverged", "failed")]
        found = agreement(dataset, str(name))
        verdict = "no theory"
        if found is not None:
            verdict = f"{found['agree']} of {found['agree'] + found['disagree']} cells off the line"
        fastest = f"{np.min(time):.0f}" if counts[0] else "-"
        rule = spec["algorithms"][name]
        lines.append(
            f"{name:12} {rule['n0']:7.4g} {rule['gamma0']:8.4g} "
            + " ".join(f"{count:9}" for count in counts[:4])
            + f" {counts[4]:7}  {fastest:>7}  {verdict}"
        )
    for where, message in list(errors.items())[:3]:
        a, i, j = (int(part) for part in where.split(","))
        name = dataset["algorithm"].values[a]
        lines.append(f"failed  {name} at mu = {spec['mu'][i]:g}, delta = {spec['delta'][j]:g}: {message}")
    return "\n".join(lines)
