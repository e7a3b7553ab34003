"""``hdsgd phase-diagram``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, Given, beside, combine, option
from hdsgd_cli.options import (
    OUTPUT,
    RUN,
    SCALING,
    algorithm_options,
    dims_options,
    eta_option,
    gamma0_option,
    initial_options,
    output_options,
    run_options,
    take_algorithms,
    take_dims,
    take_initial,
    take_switch,
    take_target,
    target_options,
    threads_option,
)
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Grid, Name, NumberOrAuto, WholeOrAuto

from hdsgd.policies import DIM, Plane, StopRule
from hdsgd.problem.losses import phases_of

_PLANE, _STOP = Plane(), StopRule()


def _planes() -> list[str]:
    from hdsgd.results.kinds import RESULT_KINDS

    return [plane.name for plane in RESULT_KINDS["phase-diagram"].planes]


def _no_figure(given: Given) -> str | None:
    if given["output"] is None or given["plot"] is not None:
        return None
    return "with --output and without --plot: no figure is drawn"


plane_options = combine(
    option("--mu", type=Grid(), default=_PLANE.mu, section=SCALING, show_default=Grid.text(_PLANE.mu),
           help="Batch sizes n_b = n0 d^mu."),
    option("--n0", type=NumberOrAuto(), default=_PLANE.n0, section=SCALING,
           help="Prefactor of the batch size; auto: the one that gives giant steps."),
    option("--delta", type=Grid(), default=_PLANE.delta, section=SCALING, show_default=Grid.text(_PLANE.delta),
           help="Learning rates gamma = gamma0 d^-delta."),
    gamma0_option(_PLANE.gamma0),
)  # fmt: skip

stop_options = combine(
    eta_option(),
    option("--max-steps", type=WholeOrAuto(), default=_STOP.max_steps, section=RUN,
           help="Steps a run may take; auto: ten times what the drift alone would need."),
    option("--max-cost", type=float, default=_STOP.max_cost, section=RUN,
           help="Cost a run may have, in samples drawn; cells that need more are over budget."),
)  # fmt: skip


@click.command("phase-diagram", cls=Command)
@combine(
    target_options(activation="square", target="square"),
    algorithm_options(several=True),
    dims_options((DIM,)),
    plane_options,
    initial_options(default="auto"),
    run_options(engine="auto"),
    stop_options,
    threads_option(beside("scheduler", why="the cells run on the workers of the cluster")),
    option("--scheduler", metavar="ADDRESS", section=RUN, help="Run the cells on this Dask cluster: tcp://host:8786."),
    option("--resume", is_flag=True, section=RUN,
           help="Continue an interrupted sweep of the same specification; draw its figure again."),
    output_options("phase"),
    option("--plane", type=Name(_planes), metavar="NAME", section=OUTPUT, idle=_no_figure,
           help="What to draw: {names}.  [default: mu-delta]"),
)  # fmt: skip
def command(plane: str | None, resume: bool, **options: Any) -> None:
    """Map the weak-recovery time over the (mu, delta) plane for several algorithms.

    Every cell is simulated until it weakly recovers the target or its steps are spent.  The figure shows the time as
    log_d T with the boundaries of the theory drawn over the cells.  Without -o and --plot the results go to phase.nc
    and phase.png.

    Finished cells are kept at once, in FILE.partial: after an interruption the same command with --resume goes on.
    `hdsgd status FILE` shows how far it is, also meanwhile.

    \b
      hdsgd phase-diagram
      hdsgd phase-diagram --target he3 --activation he3 --dim 256 --mu 0:3:25 --delta -1.5:2:29 \\
          -o he3.nc --plot he3.png
      hdsgd phase-diagram --dims 1e3,1e4,1e5 -o scale.zarr --scheduler tcp://10.0.0.1:8786
    """
    import hdsgd
    from hdsgd.policies import Workers

    outputs = Outputs(options, "phase", resume=resume)
    dims = take_dims(options)
    algorithms = take_algorithms(options)
    switches = [algorithm for algorithm in algorithms if len(phases_of(algorithm.loss)) > 1]
    problem = hdsgd.Problem(**take_target(options), **take_switch(options), loss=(switches or algorithms)[0].loss)
    dataset = hdsgd.phase_diagram(
        problem,
        dims=dims,
        plane=Plane(*(options.pop(name) for name in ("mu", "delta", "n0", "gamma0"))),
        algorithms=algorithms,
        initial=take_initial(options),
        stop=StopRule(*(options.pop(name) for name in ("eta", "max_steps", "max_cost"))),
        store=outputs.store,
        workers=Workers(options.pop("threads"), options.pop("scheduler")),
        progress=outputs.progress,
        **options,
    )
    outputs.finish(dataset, plane)
