"""``hdsgd diversity``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, Given, beside, combine, option
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
    read_text,
    run_study,
    take_given,
    train_options,
)
from hdsgd_cli.options import output_options
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Whole, WholeList


def _read(preset: str) -> Any:
    """A preset, or a JSON file of either kind."""
    from hdsgd.networks.presets import DIVERSITY
    from hdsgd.networks.study_theorems import TheoremCheck

    theorem = preset.endswith(".json") and '"theorem"' in read_text(preset)
    return read_preset(preset, DIVERSITY, TheoremCheck if theorem else None)


def _theorem_of(given: Given) -> int | None:
    """Number of the theorem that is checked, if one is."""
    return getattr(_read(given["preset"]), "theorem", None)


def _of_theorem(given: Given) -> str | None:
    if _theorem_of(given) is None:
        return None
    return f"with --preset {given['preset']}: the networks, inputs and labels are those of the theorem"


def _activation_of_theorem(given: Given) -> str | None:
    theorem = _theorem_of(given)
    return None if theorem in (None, 2) else f"with --preset {given['preset']}: the theorem is about linear networks"


statistics_options = combine(
    option("--batch", "batches", type=WholeList(), section=TRAINING, idle=_of_theorem,
           help="Batch sizes b of the second moments and of beta."),
    option("--draws", type=Whole(), section=TRAINING,
           help="Batches drawn to check the second moment; of a theorem: Monte Carlo draws."),
    option("--no-tangent", is_flag=True, section=TRAINING, idle=_of_theorem,
           help="Leave out gamma, |grad F|, b* and the spectrum of the NTK."),
    option("--limit", type=Whole(), section=TRAINING,
           idle=(_of_theorem, beside("no_tangent", why="no matrix is formed")),
           help="Largest matrix formed for the spectrum."),
    loss_option(_of_theorem),
)  # fmt: skip


@click.command("diversity", cls=Command)
@combine(
    preset_option("DIVERSITY"),
    option("--depth", "depths", type=WholeList(), section=NETWORK,
           help="Hidden layers L of the networks; of a theorem: weight matrices."),
    option("--width", "widths", type=WholeList(), section=NETWORK,
           help="Units K of the networks, crossed with the depths."),
    network_options(_of_theorem, _activation_of_theorem),
    data_options(_read, (_of_theorem,)),
    statistics_options,
    train_options(_of_theorem),
    output_options("diversity"),
)  # fmt: skip
def command(preset: str, resume: bool, **options: Any) -> None:
    """Measure gradient diversity and the batch-size constants at random weights, or check the theorems about them.

    On data: Delta_S, B_S, the second moment of batch gradients over Lemma 3.1's bound, gamma, |grad F|, b*, and the
    spectrum of the NTK.  Presets theorem1-3: Monte Carlo of the ratio against the scalings and the bound (4.1); they
    need no extra, the others do: pip install "hdsgd[networks]".  Without -o and --plot the results go to diversity.nc
    and diversity.png.

    \b
      hdsgd diversity
      hdsgd diversity --data digits --depth 1,2,4 --width 16,64 --activation relu
      hdsgd diversity --preset theorem3 --dim 50 --depth 2,3,5 --width 8,16,32
    """
    from hdsgd.networks.study_theorems import TheoremCheck

    outputs = Outputs(options, "diversity", resume=resume)
    spec = _read(preset)
    run = _check_theorem if isinstance(spec, TheoremCheck) else _measure
    run(spec, outputs, options)


def _check_theorem(spec: Any, outputs: Outputs, options: dict[str, Any]) -> None:
    from dataclasses import replace

    from hdsgd.networks.study_theorems import theorem_check

    given = take_given(options, "depths", "widths", "activation", "draws")
    lists = {"dims": options.pop("dim"), "examples": options.pop("n")}
    given |= {name: (value,) for name, value in lists.items() if value is not None}
    options = {name: options[name] for name in ("seed", "threads")}
    run_study(theorem_check, replace(spec, **given), outputs, options)


def _measure(spec: Any, outputs: Outputs, options: dict[str, Any]) -> None:
    from dataclasses import replace

    from hdsgd.networks.specs import FullyConnected
    from hdsgd.networks.study_diversity import diversity

    given: dict[str, Any] = {}
    new_data = options["data"] is not None
    data = change_data(spec.data, options)
    if new_data and data.source != "gaussian":
        given["matched_teacher"] = False
    changes = take_given(options, "activation", "parametrisation")
    networks = tuple(change_network(network, **changes) for network in spec.networks)
    depths, widths = options.pop("depths"), options.pop("widths")
    if depths is not None or widths is not None:
        connected = [network for network in networks if isinstance(network, FullyConnected)]
        base = connected[0] if connected else FullyConnected()
        depths = depths or tuple(sorted({network.depth for network in connected}))
        widths = widths or tuple(sorted({network.width for network in connected}))
        networks = tuple(replace(base, depth=L, width=K) for L in depths for K in widths)
    if options.pop("no_tangent"):
        given["tangent"] = False
    given |= take_given(options, "batches", "draws", "limit", "loss", "dtype", "replicas")
    run_study(diversity, replace(spec, data=data, networks=networks, **given), outputs, options)
