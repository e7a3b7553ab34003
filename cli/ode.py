"""``hdsgd ode``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, Given, beside, combine, option
from hdsgd_cli.options import (
    RUN,
    algorithm_options,
    check_diversity,
    dim_option,
    diversity_option,
    eta_option,
    initial_options,
    output_options,
    save_options,
    scaling_options,
    seed_option,
    take_initial,
    take_problem,
    take_save,
    take_scaling,
    target_options,
    time_option,
)
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Name, Whole

from hdsgd.checks import finite
from hdsgd.policies import METHODS, Integrator, SaveAt, Scaling

#: Where `hdsgd.integrate_ode` ends if nobody says.
TIME = 10.0
_INTEGRATOR = Integrator()
_NO_ODE = beside("mean_map", why="it iterates single steps and integrates nothing")


def _regimes() -> tuple[str, ...]:
    from hdsgd.dynamics.ode import ODE_REGIMES

    return ODE_REGIMES


def _fixed_start(given: Given) -> str | None:
    """Why the seed changes nothing: nothing is drawn."""
    from hdsgd.problem.model import Target

    overlap = given["init_overlap"]
    alone = given["width"] == 1 and Target(given["target"], given["gram"]).k == 1
    if overlap is None or not (alone or abs(overlap) == 1):
        return None
    return f"with {given.spell('init_overlap')} {overlap:g}: that fixes the start, and nothing else is random"


regime_options = combine(
    option("--regime", type=Name(_regimes), default="auto", metavar="NAME", section=RUN,
           idle=(_NO_ODE, beside("finite_d", why="that is a regime of its own")),
           help="Of the ODE: {names}; auto: from mu and delta."),
    option("--finite-d", is_flag=True, section=RUN, idle=beside("mean_map", why="it keeps these terms always"),
           help="Keep the terms of finite d, intra-batch interaction included."),
    option("--mean-map", is_flag=True, section=RUN,
           help="Iterate the mean of one step instead of integrating the ODE."),
)  # fmt: skip

integrator_options = combine(
    option("--method", type=Name(lambda: METHODS), default=_INTEGRATOR.method, metavar="NAME", section=RUN,
           idle=_NO_ODE, help="Integrator of scipy's solve_ivp: {names}."),
    option("--rtol", type=float, default=_INTEGRATOR.rtol, section=RUN, idle=_NO_ODE, help="Relative tolerance."),
)  # fmt: skip


@click.command("ode", cls=Command)
@combine(
    target_options(),
    algorithm_options(),
    dim_option,
    scaling_options(Scaling(mu=0, delta=1)),
    initial_options(),
    regime_options,
    time_option(None, f"{TIME:g}, unless --steps is given"),
    option("--steps", type=Whole(), section=RUN, idle=beside("time", why="both say where to end"),
           help="Where to end, in steps."),
    eta_option(),
    seed_option(_fixed_start, help="Fixes the initial overlaps."),
    integrator_options,
    output_options(),
    save_options(SaveAt(points=200)),
    diversity_option,
)  # fmt: skip
def command(diversity: bool, finite_d: bool, mean_map: bool, **options: Any) -> None:
    """Integrate the ODEs of the overlaps, or iterate the mean of one step at finite d.

    \b
      hdsgd ode --target "he2(z1) + he2(z2)" --width 2 --mu 0 --delta 1 --init-overlap 0.1 \\
          --time 20 --plot ode.png
      hdsgd ode --mean-map --mu 1 --delta 0.5 --dim 500 --steps 300 -o map.nc
    """
    from dataclasses import replace

    import hdsgd
    from hdsgd.dynamics.common import steps_within
    from hdsgd.dynamics.ode import FINITE_D, IntegrationError
    from hdsgd.theory.prefactors import resolve_scaling

    outputs = Outputs(options)
    problem, scaling = take_problem(options), take_scaling(options)
    shared = {"scaling": scaling, "initial": take_initial(options), "save": take_save(options)}
    shared |= {name: options.pop(name) for name in ("dim", "eta", "seed")}
    time, steps = options.pop("time"), options.pop("steps")
    if time is not None:
        finite("time", time, low=0.0, open_low=True)  # before a prefactor is found, and reported
    if diversity:
        check_diversity(problem, shared["dim"])
    if mean_map:
        if steps is None:
            resolved = resolve_scaling(problem, shared["dim"], scaling, shared["eta"])
            steps = max(1, steps_within(TIME if time is None else time, resolved.lr))
            shared["scaling"] = replace(scaling, gamma0=resolved.scaling.get("gamma0", scaling.gamma0))
        dataset = hdsgd.mean_map(problem, steps=steps, **shared)
    else:
        regime = FINITE_D if finite_d else options["regime"]
        integrator = Integrator(options["method"], options["rtol"])
        try:
            dataset = hdsgd.integrate_ode(
                problem, time=time, steps=steps, regime=regime, integrator=integrator, **shared
            )
        except IntegrationError as error:
            raise click.ClickException(str(error)) from None
    outputs.finish(hdsgd.add_diversity(dataset) if diversity else dataset)
