"""``hdsgd epochs``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.options import NumberList, Whole, output_options
from hdsgd_cli.saturation import (
    WholeList,
    carry_out,
    change_data,
    change_network,
    data_options,
    network_options,
    read_preset,
    train_options,
)

if TYPE_CHECKING:
    import xarray as xr


@click.command("epochs")
@click.option(
    "--preset",
    default="small",
    show_default=True,
    metavar="NAME",
    help="small, digits, synthetic, mnist, mnist-lenet, emnist, gisette, cifar10-resnet18, cifar10-resnet34; "
    "or a JSON file with a specification.",
)
@click.option("--budget", type=Whole(), help="Number of weights; with --depth the widths follow from it.")
@click.option("--depth", "depths", type=WholeList(), help="Hidden layers L of the family, with --budget or --width.")
@click.option("--width", "widths", type=WholeList(), help="Units K, one per depth or one for all.")
@network_options
@data_options
@click.option("--batch", "batches", type=WholeList(), help="Batch sizes.")
@click.option("--measure", metavar="NAME", help="loss or accuracy.")
@click.option("--target", type=float, help="Loss to fall to, or accuracy to rise to.")
@click.option("--rates", type=NumberList(), help="Step sizes tried.")
@click.option("--tuning-epochs", type=Whole(), help="Epochs of each trial.")
@click.option("--max-epochs", type=Whole(), help="Epochs after which a run is censored.")
@click.option("--epoch-budget", type=Whole(), help="Epochs allowed to the largest usable batch.")
@click.option("--diversity-every", type=Whole(), help="Epochs between measurements of B_S; 0: none.")
@click.option("--sampling", metavar="NAME", help="epochs, replacement or without-replacement.")
@click.option("--loss", metavar="NAME", help="square or cross-entropy.")
@train_options
@output_options
def command(**options: Any) -> None:
    """Count the epochs to a target against batch size, for networks of different depth and width.

    The step size is tuned for every network and batch size by two epochs on a grid.  Needs the extra:
    pip install "hdsgd[networks]".  Without -o and --plot the results go to epochs.nc and epochs.png.

    \b
      hdsgd epochs
      hdsgd epochs --preset digits -o digits.nc --plot digits.png
      hdsgd epochs --preset mnist --n 10000 --budget 16000 --depth 1,2,5,10 --batch 32,128,512,2048
    """  # fmt: skip
    from dataclasses import replace

    from hdsgd.errors import SpecificationError
    from hdsgd.networks._extra import require

    require()
    from hdsgd.networks.presets import EPOCHS
    from hdsgd.networks.specs import FullyConnected
    from hdsgd.networks.study_epochs import epochs, fixed_budget_family

    spec = read_preset(options.pop("preset"), EPOCHS)
    given: dict[str, Any] = {"data": change_data(spec.data, options)}
    changes = {name: options.pop(name) for name in ("activation", "parametrisation")}
    networks = tuple(change_network(x, **changes) for x in spec.networks)
    budget, depths, widths = (options.pop(name) for name in ("budget", "depths", "widths"))
    if budget is not None and widths is not None:
        raise SpecificationError("give --budget or --width, not both")
    if budget is not None or depths is not None or widths is not None:
        if depths is None or (budget is None and widths is None):
            raise SpecificationError("a family needs --depth and either --budget or --width")
        base = networks[0] if isinstance(networks[0], FullyConnected) else FullyConnected()
        if budget is not None:
            networks = fixed_budget_family(budget, depths, *_sizes(given["data"], options["seed"]), base)
        else:
            widths = widths * len(depths) if len(widths) == 1 else widths
            if len(widths) != len(depths):
                raise SpecificationError(f"give one width, or one per depth: {len(depths)}, not {len(widths)}")
            networks = tuple(replace(base, depth=L, width=K) for L, K in zip(depths, widths, strict=True))
    given["networks"] = networks
    for name in ("batches", "measure", "target", "rates", "tuning_epochs", "max_epochs", "epoch_budget",
                 "diversity_every", "sampling", "loss", "dtype", "replicas"):  # fmt: skip
        if (value := options.pop(name)) is not None:
            given[name] = value
    carry_out(epochs, replace(spec, **given), options, "epochs", summary)


def _sizes(data: Any, seed: int) -> tuple[int, int]:
    """Inputs and outputs of the networks."""
    import math

    import numpy as np

    from hdsgd.networks.data import load_data

    if data.source == "gaussian":
        return data.dim, data.outputs
    loaded = load_data(data, np.random.SeedSequence(seed))
    return math.prod(loaded.shape), loaded.d_out


def summary(dataset: xr.Dataset) -> str:
    """What happened, on one screen."""
    import numpy as np

    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    mean = dataset["epochs_to_target"].mean("replica").values
    reached = dataset["reached"].all("replica").values
    best = dataset["largest_batch"].values
    diversity = dataset["diversity"].values
    width = max(len(str(x)) for x in dataset["network"].values)
    lines = [
        f"run     n = {spec['n']}, target {spec['measure']} {spec['target']:g}, {spec['replicas']} replicas in "
        f"{timings['total_seconds']:.1f} s",
        f"epochs  mean over replicas, > where some did not reach the target in {spec['max_epochs']}",
        "",
        f"{'network':{width}} " + " ".join(f"{'b=' + str(b):>8}" for b in dataset["batch"].values)
        + f" {'parameters':>11} {'largest b':>10} {'B_S':>8}",
    ]  # fmt: skip
    for i, name in enumerate(dataset["network"].values):
        cells = [f"{'' if ok else '>'}{value:.1f}" for value, ok in zip(mean[i], reached[i], strict=True)]
        largest = np.median(best[i][np.isfinite(best[i])]) if np.isfinite(best[i]).any() else np.nan
        seen = diversity[i][np.isfinite(diversity[i])]
        lines.append(
            f"{name!s:{width}} " + " ".join(f"{cell:>8}" for cell in cells)
            + f" {int(dataset['parameters'][i]):11} {largest:10.0f} {seen.mean() if len(seen) else np.nan:8.3g}"
        )  # fmt: skip
    return "\n".join(lines)
