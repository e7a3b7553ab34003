"""``hdsgd diversity``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.options import Whole, output_options
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


@click.command("diversity")
@click.option(
    "--preset",
    default="small",
    show_default=True,
    metavar="NAME",
    help="small, digits, theorem1, theorem2, theorem3; or a JSON file with a specification.",
)
@click.option(
    "--depth", "depths", type=WholeList(), help="Hidden layers L of the networks; of a theorem: weight matrices."
)
@click.option("--width", "widths", type=WholeList(), help="Units K of the networks, crossed with the depths.")
@network_options
@data_options
@click.option("--batch", "batches", type=WholeList(), help="Batch sizes of the second moments and of beta.")
@click.option(
    "--draws", type=Whole(), help="Batches drawn to check the second moment; of a theorem: Monte Carlo draws."
)
@click.option("--no-tangent", is_flag=True, help="Leave out gamma, |grad F|, b* and the spectrum of the NTK.")
@click.option("--limit", type=Whole(), help="Largest matrix formed for the spectrum.")
@click.option("--loss", metavar="NAME", help="square or cross-entropy.")
@train_options
@output_options
def command(**options: Any) -> None:
    """Measure gradient diversity and the batch-size constants at random weights, or check the theorems about them.

    On data: Delta_S, B_S, the second moment of batch gradients over Lemma 3.1's bound, gamma, |grad F|, b*, and the
    spectrum of the NTK.  Presets theorem1-3: Monte Carlo of the ratio against the scalings and the bound (4.1); they
    need no extra, the others do: pip install "hdsgd[networks]".  Without -o and --plot the results go to diversity.nc
    and diversity.png.

    \b
      hdsgd diversity
      hdsgd diversity --data digits --depth 1,2,4 --width 16,64 --activation relu
      hdsgd diversity --preset theorem3 --dim 50 --depth 2,3,5 --width 8,16,32
    """  # fmt: skip
    from dataclasses import replace

    from hdsgd.errors import SpecificationError
    from hdsgd.networks.presets import DIVERSITY
    from hdsgd.networks.specs import FullyConnected
    from hdsgd.networks.study_diversity import Diversity, diversity
    from hdsgd.networks.study_theorems import TheoremCheck, theorem_check

    spec = _read(options.pop("preset"), DIVERSITY)
    depths, widths, activation = (options.pop(name) for name in ("depths", "widths", "activation"))
    if isinstance(spec, TheoremCheck):
        changes = {"depths": depths, "widths": widths, "activation": activation, "draws": options.pop("draws")}
        n, dim = options.pop("n"), options.pop("dim")
        changes |= {"examples": None if n is None else (n,), "dims": None if dim is None else (dim,)}
        extra = [
            k for k in ("data", "batches", "loss", "dtype", "replicas", "parametrisation") if options[k] is not None
        ]
        if extra:
            raise SpecificationError(f"a theorem's preset takes no --{extra[0]}")
        spec = replace(spec, **{k: v for k, v in changes.items() if v is not None})
        carry_out(theorem_check, spec, options, "diversity", theorem_summary)
        return
    from hdsgd.networks._extra import require

    require()
    assert isinstance(spec, Diversity)
    given: dict[str, Any] = {}
    new_source = options["data"] is not None
    given["data"] = change_data(spec.data, options)
    parametrisation = options.pop("parametrisation")
    networks = tuple(change_network(x, activation=activation, parametrisation=parametrisation) for x in spec.networks)
    if depths is not None or widths is not None:
        base = next((x for x in networks if isinstance(x, FullyConnected)), FullyConnected())
        depths = depths or tuple(sorted({x.depth for x in networks if isinstance(x, FullyConnected)}))
        widths = widths or tuple(sorted({x.width for x in networks if isinstance(x, FullyConnected)}))
        networks = tuple(replace(base, depth=L, width=K) for L in depths for K in widths)
    given["networks"] = networks
    if new_source and given["data"].source != "gaussian":
        given["matched_teacher"] = False
    if options.pop("no_tangent"):
        given["tangent"] = False
    for name in ("batches", "draws", "limit", "loss", "dtype", "replicas"):
        if (value := options.pop(name)) is not None:
            given[name] = value
    carry_out(diversity, replace(spec, **given), options, "diversity", summary)


def _read(name: str, table: Any) -> Any:
    """A preset, or a JSON file of either kind."""
    from pathlib import Path

    from hdsgd.networks.study_theorems import TheoremCheck

    if name.endswith(".json") and Path(name).is_file() and '"theorem"' in Path(name).read_text():
        return read_preset(name, {"theorem": TheoremCheck})
    return read_preset(name, table)


def summary(dataset: xr.Dataset) -> str:
    """What was found, on one screen."""
    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    names = ["batch_bound", "gamma_max", "gamma_min", "operator_norm", "critical_batch", "ntk_smallest"]
    names = [name for name in names if name in dataset]
    heads = {"batch_bound": "B_S", "operator_norm": "|grad F|", "critical_batch": "b*", "ntk_smallest": "min eig K"}
    width = max(len(str(x)) for x in dataset["network"].values)
    lines = [
        f"run     {spec['data']['name'] or spec['data']['source']}, n = {spec['n']}, {spec['replicas']} replicas in "
        f"{timings['total_seconds']:.1f} s; medians over replicas",
        "",
        f"{'network':{width}} {'parameters':>11} " + " ".join(f"{heads.get(name, name):>11}" for name in names),
    ]
    for i, label in enumerate(dataset["network"].values):
        middle = [float(dataset[name][i].median()) for name in names]
        lines.append(
            f"{label!s:{width}} {int(dataset['parameters'][i]):11} " + " ".join(f"{value:11.4g}" for value in middle)
        )
    return "\n".join(lines)


def theorem_summary(dataset: xr.Dataset) -> str:
    """The ratios and the bounds, on one screen."""
    import numpy as np

    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    lines = [
        f"Theorem {spec['theorem']}, {spec['draws']} draws per cell in {timings['total_seconds']:.1f} s; "
        f"interval {spec['confidence']:.0%}",
        "",
        f"{'L':>3} {'K':>5} {'d':>5} {'n':>7} {'ratio':>9} {'low':>9} {'high':>9} {'exact':>9} {'bound':>9} "
        f"{'ratio/bound':>12}",
    ]
    for index in np.ndindex(dataset["ratio"].shape):
        cell = dataset.isel(dict(zip(("depth", "width", "dim", "examples"), index, strict=True)))
        ratio, bound = float(cell["ratio"]), float(cell["bound"])
        lines.append(
            f"{int(cell['depth']):3} {int(cell['width']):5} {int(cell['dim']):5} {float(cell['examples']):7g} "
            f"{ratio:9.4g} "
            f"{float(cell['ratio_low']):9.4g} {float(cell['ratio_high']):9.4g} {float(cell['ratio_exact']):9.4g} "
            f"{bound:9.4g} {ratio / bound:12.3f}"
        )
    below = int((dataset["ratio_high"] < dataset["bound"]).sum())
    if spec["theorem"] == 3:
        lines += ["", f"the bound (4.1) fails in {below} of {dataset['ratio'].size} cells (interval wholly below it)"]
    return "\n".join(lines)
