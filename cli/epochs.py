"""``hdsgd epochs``."""

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
    specs,
    take_given,
    train_options,
)
from hdsgd_cli.options import output_options
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Name, NumberList, Whole, WholeList


def _read(preset: str) -> Any:
    from hdsgd.networks.presets import EPOCHS

    return read_preset(preset, EPOCHS)


def _measures() -> tuple[str, ...]:
    from hdsgd.networks.study_epochs import MEASURES

    return MEASURES


family_options = combine(
    option("--budget", type=Whole(), section=NETWORK, idle=beside("widths", why="depths and widths say everything"),
           help="Number of weights; with --depth the widths follow from it."),
    option("--depth", "depths", type=WholeList(), section=NETWORK,
           help="Hidden layers L of the family, with --budget or --width."),
    option("--width", "widths", type=WholeList(), section=NETWORK, help="Units K, one per depth or one for all."),
)  # fmt: skip

training_options = combine(
    option("--batch", "batches", type=WholeList(), section=TRAINING, help="Batch sizes b."),
    option("--measure", type=Name(_measures), metavar="NAME", section=TRAINING, help="{names}."),
    option("--goal", "target", type=float, section=TRAINING, help="Loss to fall to, or accuracy to rise to."),
    option("--rates", type=NumberList(), section=TRAINING, help="Learning rates tried."),
    option("--tuning-epochs", type=Whole(), section=TRAINING, help="Epochs of each trial."),
    option("--max-epochs", type=Whole(), section=TRAINING, help="Epochs after which a run is censored."),
    option("--epoch-budget", type=Whole(), section=TRAINING, help="Epochs allowed to the largest usable batch."),
    option("--diversity-every", type=Whole(), section=TRAINING,
           help="Epochs between measurements of B_S; 0: none."),
    option("--sampling", type=Name(specs("SAMPLINGS")), metavar="NAME", section=TRAINING, help="{names}."),
    loss_option(),
)  # fmt: skip


@click.command("epochs", cls=Command)
@combine(
    preset_option("EPOCHS"),
    family_options,
    network_options(),
    data_options(_read),
    training_options,
    train_options(),
    output_options("epochs"),
)
def command(preset: str, resume: bool, **options: Any) -> None:
    """Count the epochs to a target against batch size, for networks of different depth and width.

    The step size is tuned for every network and batch size by two epochs on a grid.  Needs the extra:
    pip install "hdsgd[networks]".  Without -o and --plot the results go to epochs.nc and epochs.png.

    \b
      hdsgd epochs
      hdsgd epochs --preset digits -o digits.nc --plot digits.png
      hdsgd epochs --preset mnist --n 10000 --budget 16000 --depth 1,2,5,10 --batch 32,128,512,2048
    """
    from dataclasses import replace

    from hdsgd.networks.study_epochs import epochs

    outputs = Outputs(options, "epochs", resume=resume)
    spec = _read(preset)
    data = change_data(spec.data, options)
    networks = _family(spec.networks, data, options)
    given = take_given(
        options, "batches", "measure", "target", "rates", "tuning_epochs", "max_epochs", "epoch_budget",
        "diversity_every", "sampling", "loss", "dtype", "replicas",
    )  # fmt: skip
    run_study(epochs, replace(spec, data=data, networks=networks, **given), outputs, options)


def _family(networks: Any, data: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    """The networks of a preset with the changes asked for, or a family of fully connected ones."""
    from dataclasses import replace

    from hdsgd.errors import SpecificationError
    from hdsgd.networks.specs import FullyConnected
    from hdsgd.networks.study_epochs import fixed_budget_family

    changes = take_given(options, "activation", "parametrisation")
    networks = tuple(change_network(network, **changes) for network in networks)
    budget, depths, widths = (options.pop(name) for name in ("budget", "depths", "widths"))
    if budget is None and depths is None and widths is None:
        return networks
    if depths is None or (budget is None and widths is None):
        raise SpecificationError("a family needs --depth and either --budget or --width")
    base = networks[0] if isinstance(networks[0], FullyConnected) else FullyConnected()
    if budget is not None:
        return fixed_budget_family(budget, depths, *_sizes(data, options["seed"]), base)
    widths = widths * len(depths) if len(widths) == 1 else widths
    if len(widths) != len(depths):
        raise SpecificationError(f"give one width, or one per depth: {len(depths)}, not {len(widths)}")
    return tuple(replace(base, depth=L, width=K) for L, K in zip(depths, widths, strict=True))


def _sizes(data: Any, seed: int) -> tuple[int, int]:
    """Inputs and outputs of the networks."""
    import math

    import numpy as np

    from hdsgd.networks.data import load_data

    if data.source == "gaussian":
        return data.dim, data.outputs
    loaded = load_data(data, np.random.SeedSequence(seed))
    return math.prod(loaded.shape), loaded.d_out
