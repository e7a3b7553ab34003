"""``hdsgd phase-diagram``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.options import (
    Grid,
    NumberOrAuto,
    Outputs,
    Whole,
    WholeList,
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
@click.option("--dim", type=Whole(), help="Input dimension d.  [default: 1000]")
@click.option("--dims", type=WholeList(), help="Several input dimensions, as 1e3,1e4,1e5.")
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
    "--max-cost",
    type=float,
    default=1e7,
    show_default=True,
    help="Work a run may cost, in samples drawn; cells that need more are marked.",
)
@run_options(engine="auto")
@click.option("--scheduler", metavar="ADDRESS", help="Run the cells on this Dask cluster: tcp://host:8786.")
@click.option(
    "--resume", is_flag=True, help="Continue an interrupted sweep of the same specification; draw its figure again."
)
@click.option("--plane", metavar="NAME", help="What to draw: mu-delta, mu-theta or mu-samples.  [default: mu-delta]")
@output_options
def command(**options: Any) -> None:
    """Map the weak-recovery time over the (mu, delta) plane for up to three algorithms.

    Every cell is simulated until it weakly recovers the target or its steps are spent.  The figure shows the time as
    log_d T with the boundaries of the theory drawn over the cells.  Without -o and --plot the results go to phase.nc
    and phase.png.

    Finished cells are kept at once in FILE.partial, beside FILE: after an interruption the same command with --resume
    goes on.  `hdsgd status FILE` shows how far it is, also meanwhile.

    \b
      hdsgd phase-diagram
      hdsgd phase-diagram --target he3 --activation he3 --dim 256 --mu 0:3:25 --delta -1.5:2:29 -o he3.nc --plot he3.png
      hdsgd phase-diagram --dims 1e3,1e4,1e5 -o scale.zarr --scheduler tcp://10.0.0.1:8786
    """  # fmt: skip
    from hdsgd.errors import choice
    from hdsgd.policies import Plane, StopRule, Store, Workers
    from hdsgd.problem.constraints import ALGORITHMS, Algorithm
    from hdsgd.problem.model import Problem
    from hdsgd.studies.store import check_store
    from hdsgd.sweeps.phase_diagrams import phase_diagram

    if options["output"] is None and options["plot"] is None:
        options["output"], options["plot"] = "phase.nc", "phase.png"
    store, options["output"] = options["output"], None
    resume, overwrite = options.pop("resume"), options["overwrite"]
    kept = None
    if store is not None:
        kept = Store(store, resume, overwrite)
        check_store(kept)
        options["overwrite"] = overwrite or resume
    elif resume:
        raise click.UsageError("--resume needs a store (-o): without one nothing is kept")
    outputs = Outputs(options)
    plane = options.pop("plane")
    if plane is not None:
        from hdsgd.plotting.phase_diagrams import PLANES

        choice("plane", plane, PLANES)
    dim, dims = options.pop("dim"), options.pop("dims")
    if dim is not None and dims is not None:
        raise click.UsageError("--dim gives one dimension and --dims several; give one of them")
    initial = initial_from(options)
    loss, constraint = options.pop("loss"), options.pop("constraint")
    algorithms = [
        Algorithm(rule.name, rule.summary, loss or rule.loss, constraint or rule.constraint)
        for rule in (ALGORITHMS[name] for name in options.pop("algorithms") or tuple(ALGORITHMS))
    ]
    dataset = phase_diagram(
        Problem(**take_problem_options(options)),
        dims=dims or dim or 1000,
        plane=Plane(*(options.pop(name) for name in ("mu", "delta", "n0", "gamma0"))),
        algorithms=algorithms,
        initial=initial,
        stop=StopRule(*(options.pop(name) for name in ("eta", "max_steps", "max_cost"))),
        store=kept,
        workers=Workers(options.pop("threads"), options.pop("scheduler")),
        progress=outputs.progress,
        **options,
    )
    click.echo(summary(dataset))
    if store is not None:
        click.echo(f"data    {store}")
    outputs.write(dataset, lambda dataset: figure(dataset, plane))


def failure_lines(dataset: xr.Dataset, most: int = 3) -> list[str]:
    """The first cells that failed, with their messages."""
    import json

    lines = []
    for where, message in list(json.loads(dataset.attrs["errors"]).items())[:most]:
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


def summary(dataset: xr.Dataset) -> str:
    """What happened, on one screen."""
    import json

    import numpy as np

    from hdsgd.analysis.boundaries import agreement, cell_times, select_panel

    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    lines = [
        f"{problem_line(spec['problem'], with_rule=False)}; d = {', '.join(map(str, spec['dims']))}",
        f"sweep   {sweep_line(dataset)} in {timings['total_seconds']:.1f} s",
        "",
        f"{'algorithm':12} {'d':>7} {'n0':>7} {'gamma0':>8} {'recovered':>9} {'censored':>9} {'too long':>9} "
        f"{'diverged':>9} {'failed':>7}  {'fastest':>7}  agrees with theory",
    ]
    for name in dataset["algorithm"].values.tolist():
        rule = spec["algorithms"][name]
        for dim in spec["dims"]:
            time, kind = cell_times(select_panel(dataset, name, dim))
            counts = [
                int((kind == what).sum()) for what in ("recovered", "censored", "over_budget", "diverged", "failed")
            ]
            found = agreement(dataset, name, dim)
            verdict = "no theory"
            if found is not None:
                verdict = f"{found['agree']} of {found['agree'] + found['disagree']} cells off the line"
            fastest = f"{np.min(time):.0f}" if counts[0] else "-"
            lines.append(
                f"{name:12} {_short(dim):>7} {rule['n0']:7.4g} {rule['gamma0']:8.4g} "
                + " ".join(f"{count:9}" for count in counts[:4])
                + f" {counts[4]:7}  {fastest:>7}  {verdict}"
            )
    if "theta" in dataset:
        lines += ["", *exponent_lines(dataset)]
    return "\n".join(lines + failure_lines(dataset))


def exponent_lines(dataset: xr.Dataset) -> list[str]:
    """How the exponents fitted over dimensions compare with theory, away from boundaries."""
    from hdsgd.analysis.exponents import compare_exponents

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
