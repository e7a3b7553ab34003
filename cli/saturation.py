"""``hdsgd saturation``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, beside, combine, option
from hdsgd_cli.networks import (
    NETWORK,
    TRAINING,
    change_data,
    change_network,
    data_options,
    loss_option,
    network_options,
    preset_option,
    read_preset,
    run_study,
    take_given,
    train_options,
)
from hdsgd_cli.options import output_options
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Name, Whole, WholeList


def _read(preset: str) -> Any:
    from hdsgd.networks.presets import SATURATION

    return read_preset(preset, SATURATION)


def _stepsizes() -> tuple[str, ...]:
    from hdsgd.networks.study_saturation import STEPSIZES

    return STEPSIZES


training_options = combine(
    option("--steps", type=Whole(), section=TRAINING, help="Gradient steps T, the same for every batch size."),
    option("--batch", "batches", type=WholeList(), section=TRAINING, help="Batch sizes b; 1 and n are added."),
    option("--lr", type=float, section=TRAINING, help="Learning rate; or, instead,"),
    option("--lr-fraction", type=float, section=TRAINING, idle=beside("lr", why="that is the learning rate itself"),
           help="fraction/beta(1), beta(b) = max|J_i|²/b + |grad F|² at the start."),
    option("--stepsize", type=Name(_stepsizes), metavar="NAME", section=TRAINING,
           help="constant over b, or theorem: fraction/beta(b)."),
    loss_option(),
)  # fmt: skip


@click.command("saturation", cls=Command)
@combine(
    preset_option("SATURATION"),
    option("--depth", type=Whole(), section=NETWORK, help="Hidden layers L."),
    option("--width", type=Whole(), section=NETWORK, help="Units K per hidden layer."),
    network_options(),
    data_options(_read),
    training_options,
    train_options(),
    output_options("saturation"),
)
def command(preset: str, resume: bool, **options: Any) -> None:
    """Train one network with every batch size and see where larger batches stop helping.

    With a step size that does not depend on b, the convergence exponent h(b) = log(L(w_0)/L(w_T))/T is compared with
    the curve predicted from b = 1 and b = n.  Needs the extra: pip install "hdsgd[networks]".  Without -o and --plot
    the results go to saturation.nc and saturation.png.

    \b
      hdsgd saturation
      hdsgd saturation --preset mnist --n 4096 --steps 1000 -o mnist.nc --plot mnist.png
    """
    from dataclasses import replace

    from hdsgd.networks.study_saturation import saturation

    outputs = Outputs(options, "saturation", resume=resume)
    spec = _read(preset)
    data = change_data(spec.data, options)
    network = change_network(spec.network, **take_given(options, "depth", "width", "activation", "parametrisation"))
    given = take_given(options, "steps", "batches", "lr", "lr_fraction", "stepsize", "loss", "dtype", "replicas")
    if "lr_fraction" in given:
        given["lr"] = None  # a preset may have one
    run_study(saturation, replace(spec, data=data, network=network, **given), outputs, options)
