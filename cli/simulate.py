"""``hdsgd simulate``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, combine, option
from hdsgd_cli.options import (
    RUN,
    algorithm_options,
    check_diversity,
    dim_option,
    diversity_option,
    eta_option,
    initial_options,
    output_options,
    run_options,
    save_options,
    scaling_options,
    take_initial,
    take_problem,
    take_save,
    take_scaling,
    target_options,
    threads_option,
)
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Whole

from hdsgd.policies import STEPS, SaveAt, Scaling

steps_option = option("--steps", type=Whole(), default=STEPS, section=RUN, help="Gradient steps.")


@click.command("simulate", cls=Command)
@combine(
    target_options(),
    algorithm_options(),
    dim_option,
    scaling_options(Scaling()),
    initial_options(),
    steps_option,
    run_options(),
    eta_option(),
    threads_option(),
    output_options(),
    save_options(SaveAt()),
    diversity_option,
)
def command(diversity: bool, **options: Any) -> None:
    """Simulate replicas of one-pass SGD on one problem and summarise how they recover it.

    The data hold the overlaps M and Q, the misalignment, the population risk and the recovery times of every replica.

    \b
      hdsgd simulate --dim 1e9 --batch 100000 --lr 1e-6 --steps 200
      hdsgd simulate --target he3 --activation he3 --width 4 --mu 1.5 --delta 0 \\
          -o run.nc --plot run.png
    """
    import hdsgd

    outputs = Outputs(options)
    problem = take_problem(options)
    if diversity:
        check_diversity(problem, options["dim"])
    dataset = hdsgd.simulate(
        problem,
        scaling=take_scaling(options),
        initial=take_initial(options),
        save=take_save(options),
        progress=outputs.progress,
        **options,
    )
    outputs.finish(hdsgd.add_diversity(dataset) if diversity else dataset)
