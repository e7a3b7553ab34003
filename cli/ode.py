"""``hdsgd ode``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.options import (
    Outputs,
    Whole,
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
    target_options,
)


@click.command("ode")
@target_options()
@algorithm_option
@rule_options
@click.option("--mu", type=float, help="Batch size n_b = n0 d^mu; with --delta it chooses the regime.")
@n0_option
@click.option("--delta", type=float, help="Learning rate gamma = gamma0 d^-delta.")
@gamma0_option
@click.option(
    "--regime",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="'population flow', 'Saad & Solla' or 'noise dominated'; auto: from mu and delta.",
)
@click.option(
    "--dim",
    type=Whole(),
    default=1000,
    show_default=True,
    help="Dimension of the initial overlaps, the steps and the finite-d terms.",
)
@click.option("--finite-d", is_flag=True, help="Keep the terms of finite d, intra-batch interaction included.")
@click.option("--mean-map", is_flag=True, help="Iterate the mean of one step instead of integrating the ODE.")
@click.option("--time", type=float, help="Where to end, in time of the ODE.  [default: 10, unless --steps is given]")
@click.option("--steps", type=Whole(), help="Where to end, in steps.")
@click.option("--points", type=Whole(), default=200, show_default=True, help="Saved times.")
@initial_options()
@click.option("--eta", type=float, default=0.5, show_default=True, help="Weak recovery is |M|_F >= eta.")
@click.option("--seed", type=Whole(), default=0, show_default=True, help="Fixes the initial overlaps.")
@click.option("--method", default="LSODA", show_default=True, metavar="NAME", help="Integrator of scipy's solve_ivp.")
@click.option("--rtol", type=float, default=1e-8, show_default=True, help="Relative tolerance.")
@click.option("--diversity", is_flag=True, help="Add the population gradient diversity along the trajectory.")
@output_options
def command(**options: Any) -> None:
    """Integrate the ODEs of the overlaps, or iterate the mean of one step at finite d.

    \b
      hdsgd ode --target "he2(z1) + he2(z2)" --width 2 --mu 0 --delta 1 --init-overlap 0.1 --time 20 --plot ode.png
      hdsgd ode --mean-map --mu 1 --delta 0.5 --dim 500 --steps 300 -o map.nc
    """  # fmt: skip
    import json

    import numpy as np

    from hdsgd.dynamics.maps import mean_map
    from hdsgd.dynamics.ode import FINITE_D, IntegrationError, integrate_ode
    from hdsgd.errors import SpecificationError
    from hdsgd.policies import Integrator, SaveAt, Scaling
    from hdsgd.simulation.comparison import add_diversity
    from hdsgd.theory.prefactors import resolve_scaling

    outputs = Outputs(options)
    problem = problem_from(options, options.pop("algorithm"))
    dim, mu, delta, n0, gamma0 = (options.pop(name) for name in ("dim", "mu", "delta", "n0", "gamma0"))
    diversity, eta = options.pop("diversity"), options.pop("eta")
    forced, finite_d, use_map = options.pop("regime"), options.pop("finite_d"), options.pop("mean_map")
    mu, delta = 0.0 if mu is None and delta is None else mu, 1.0 if mu is None and delta is None else delta
    if mu is None or delta is None:
        raise SpecificationError("give --mu and --delta together (without either: mu = 0, delta = 1)")
    scaling = Scaling(mu=mu, delta=delta, n0=n0, gamma0=gamma0)
    start = {"initial": initial_from(options), "seed": options.pop("seed"), "eta": eta}
    time, steps, save = options.pop("time"), options.pop("steps"), SaveAt(options.pop("points"))
    if time is not None and steps is not None:
        raise SpecificationError("give --time or --steps, not both")
    if use_map:
        if steps is None:
            lr = resolve_scaling(problem, dim, scaling, eta).lr
            steps = max(1, int((10.0 if time is None else time) / lr))
        dataset = mean_map(problem, dim=dim, steps=steps, scaling=scaling, save=save, **start)
    else:
        if finite_d and forced not in ("auto", FINITE_D):
            raise SpecificationError("--finite-d keeps the drift and all noise: leave --regime out")
        try:
            dataset = integrate_ode(
                problem, time=time, steps=steps, dim=dim, scaling=scaling, save=save,
                regime=FINITE_D if finite_d else forced, integrator=Integrator(options["method"], options["rtol"]),
                **start,
            )  # fmt: skip
        except IntegrationError as error:
            raise click.ClickException(str(error)) from None
    specification = json.loads(dataset.attrs["specification"])
    batch, lr = specification["batch"], specification["lr"]
    if diversity:
        dataset = add_diversity(dataset)
    norm = np.sqrt((dataset["M"].values[0] ** 2).sum(axis=(1, 2)))
    recovered = bool(dataset["recovered"][0])
    click.echo(
        f"{problem_line(problem.to_dict())}\n"
        f"run     mu = {mu:g}, delta = {delta:g}, d = {dim}, batch {batch}, learning rate {lr:.6g}: "
        f"{'mean map' if use_map else 'ODE, ' + specification['regime']}\n"
        f"result  |M| = {norm[0]:.4f} -> {norm[-1]:.4f}, risk {float(dataset['risk'][0, 0]):.4g} -> "
        f"{float(dataset['risk'][0, -1]):.4g}\n"
        f"time    weak recovery "
        + (f"at step {float(dataset['recovery_time'][0]):.6g}" if recovered else "not reached")
    )
    outputs.write(dataset, figure)
