"""``hdsgd compare``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, Given, combine
from hdsgd_cli.options import (
    algorithm_options,
    dims_options,
    eta_option,
    initial_options,
    output_options,
    points_option,
    powers_options,
    run_options,
    take_dims,
    take_initial,
    take_problem,
    take_scaling,
    target_options,
    threads_option,
    time_option,
)
from hdsgd_cli.outputs import Outputs

from hdsgd.policies import Scaling


def _eta_idle(given: Given) -> str | None:
    if given["gamma0"] == "auto":
        return None
    return f"with {given.spell('gamma0')} {given['gamma0']:g}: here it enters only the critical prefactor of auto"


@click.command("compare", cls=Command)
@combine(
    target_options(),
    algorithm_options(),
    dims_options((250, 1000, 4000)),
    powers_options(Scaling(mu=0.5, delta=0.5)),
    initial_options(),
    time_option(3.0),
    run_options(replicas=32),
    eta_option(_eta_idle),
    threads_option(),
    output_options(),
    points_option(50),
)
def command(**options: Any) -> None:
    """Run simulations, mean map and ODE from the same start at several dimensions and say how far they are apart.

    The start is drawn once, at the smallest dimension.  Where the deviation is resolved at two dimensions or more, its
    power of d is fitted.

    \b
      hdsgd compare --target "he2(z1) + he2(z2)" --width 2 --mu 0.5 --delta 0.75 \\
          --init-overlap 0.3 --plot compare.png
    """
    import hdsgd

    outputs = Outputs(options)
    dataset = hdsgd.compare(
        take_problem(options),
        dims=take_dims(options),
        scaling=take_scaling(options),
        initial=take_initial(options),
        progress=outputs.progress,
        **options,
    )
    outputs.finish(dataset)
