"""``hdsgd saturation``, and what the three commands about networks share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.options import NumberList, Outputs, Whole, combine, output_options

if TYPE_CHECKING:
    import xarray as xr

_LISTS = {"batches", "rates", "depths", "widths", "dims"}


class WholeList(NumberList):
    """Comma-separated whole numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        numbers = super().convert(value, param, ctx)
        return tuple(Whole().convert(f"{number:.17g}", param, ctx) for number in numbers)


network_options = combine(
    click.option("--activation", metavar="NAME", help="linear, tanh, softsign, arctan or relu."),
    click.option("--parametrisation", metavar="NAME", help="standard, ntk or unit."),
)

data_options = combine(
    click.option("--data", metavar="NAME", help="digits, gaussian, mnist, emnist, cifar10, svhn, gisette, openml:NAME, "
                 "file:PATH (.npz, .csv, IDX) or text:PATH."),
    click.option("--label-file", metavar="PATH", help="Labels of an IDX file."),
    click.option("--n", type=Whole(), help="Number of examples.  [default: all, or the preset's]"),
    click.option("--dim", type=Whole(), help="Input dimension of gaussian data."),
    click.option("--normalise", metavar="NAME", help="standardise, centre, unit or none."),
    click.option("--labels", metavar="NAME", help="classes, parity or values."),
    click.option("--checksum", metavar="SHA256", help="Refuse the data if theirs is another."),
)  # fmt: skip

train_options = combine(
    click.option("--replicas", type=Whole(), help="Independent repetitions."),
    click.option("--dtype", metavar="NAME", help="float32 or float64."),
    click.option("--seed", type=Whole(), default=0, show_default=True, help="Fixes every random number."),
    click.option(
        "--threads", type=Whole(), help="Runs at the same time; never changes a number.  [default: all cores]"
    ),
    click.option("--resume", is_flag=True, help="Continue an interrupted run of the same output."),
)


def read_preset(name: str, table: Mapping[str, Callable[[], Any]]) -> Any:
    """The specification of a preset, or of a JSON file.

    Raises
    ------
    SpecificationError
        If it is neither (with the names).
    """
    from pathlib import Path

    from hdsgd.errors import SpecificationError, choice

    if not name.endswith(".json"):
        return table[choice("preset", name, table)]()
    kind = type(next(iter(table.values()))())
    try:
        return kind.from_json(Path(name).read_text())
    except OSError as error:
        raise SpecificationError(f"cannot read {name!r}: {error.strerror}") from None


def change_data(data: Any, options: dict[str, Any]) -> Any:
    """Take the options about data out of `options` and apply them to a specification of data."""
    from dataclasses import fields

    from hdsgd.networks.data import OPENML
    from hdsgd.networks.specs import SOURCES, Data

    names = ("label_file", "n", "dim", "normalise", "labels", "checksum")
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    source = options.pop("data")
    if source is not None:
        head, colon, tail = source.partition(":")
        if colon and head in SOURCES:
            base: dict[str, Any] = {"source": head, "name": tail}
        else:
            base = {"source": "openml", "name": source} if source.lower() in OPENML else {"source": source}
        return Data(**{**base, **given})
    kept = {f.name: getattr(data, f.name) for f in fields(data)}
    return Data(**{**kept, **given})


def change_network(network: Any, **changes: Any) -> Any:
    """Apply the options given (those that are not None) to a network.

    Raises
    ------
    SpecificationError
        If this architecture has no such property.
    """
    from dataclasses import fields, replace

    from hdsgd.errors import SpecificationError

    given = {name: value for name, value in changes.items() if value is not None}
    known = {f.name for f in fields(network)}
    for name in given:
        if name not in known:
            raise SpecificationError(
                f"a network of kind {network.kind} has no {name}; it has {', '.join(sorted(known))}"
            )
    return replace(network, **given)


def carry_out(
    run: Callable[..., Any], spec: Any, options: dict[str, Any], stem: str, summary: Callable[[Any], str]
) -> None:
    """Run a study into its store, print its summary and draw its figure."""
    from hdsgd.networks.plots import figure_of
    from hdsgd.policies import Store, Workers
    from hdsgd.studies.store import check_store

    if options["output"] is None and options["plot"] is None:
        options["output"], options["plot"] = f"{stem}.nc", f"{stem}.png"
    path, options["output"] = options["output"], None
    store = None
    if path is not None:
        store = Store(path, options["resume"], options["overwrite"])
        check_store(store)
        options["overwrite"] = options["overwrite"] or options["resume"]
    elif options["resume"]:
        raise click.UsageError("--resume needs a store (-o): without one nothing is kept")
    outputs = Outputs(options)
    workers = Workers(options["threads"])
    dataset = run(spec, seed=options["seed"], store=store, workers=workers, progress=outputs.progress)
    click.echo(summary(dataset))
    if path is not None:
        click.echo(f"data    {path}")
    outputs.write(dataset, figure_of)


@click.command("saturation")
@click.option(
    "--preset",
    default="small",
    show_default=True,
    metavar="NAME",
    help="small, least-squares, small-theorem, mnist, svhn, svhn-100k, cifar10-12k, cifar10-100k, nanogpt; or a "
    "JSON file with a specification.",
)
@click.option("--depth", type=Whole(), help="Hidden layers L.")
@click.option("--width", type=Whole(), help="Units K per hidden layer.")
@network_options
@data_options
@click.option("--steps", type=Whole(), help="Iterations T, the same for every batch size.")
@click.option("--batch", "batches", type=WholeList(), help="Batch sizes; 1 and n are added.")
@click.option("--lr", type=float, help="Step size eta; or, instead,")
@click.option("--lr-fraction", type=float, help="eta = fraction/beta(1), beta(b) = gamma/b + |grad F|² at the start.")
@click.option("--stepsize", metavar="NAME", help="constant over b, or theorem: eta(b) = fraction/beta(b).")
@click.option("--loss", metavar="NAME", help="square or cross-entropy.")
@train_options
@output_options
def command(**options: Any) -> None:
    """Train one network with every batch size and see where larger batches stop helping.

    With a step size that does not depend on b, the convergence exponent h(b) = log(L(w_0)/L(w_T))/T is compared with
    the curve predicted from b = 1 and b = n.  Needs the extra: pip install "hdsgd[networks]".  Without -o and --plot
    the results go to saturation.nc and saturation.png.

    \b
      hdsgd saturation
      hdsgd saturation --preset mnist --n 4096 --steps 1000 -o mnist.nc --plot mnist.png
    """  # fmt: skip
    from dataclasses import replace

    from hdsgd.networks._extra import require

    require()
    from hdsgd.networks.presets import SATURATION
    from hdsgd.networks.study_saturation import saturation

    spec = read_preset(options.pop("preset"), SATURATION)
    given: dict[str, Any] = {
        "data": change_data(spec.data, options),
        "network": change_network(
            spec.network, **{k: options.pop(k) for k in ("depth", "width", "activation", "parametrisation")}
        ),
    }
    for name in ("steps", "batches", "lr", "lr_fraction", "stepsize", "loss", "dtype", "replicas"):
        if (value := options.pop(name)) is not None:
            given[name] = value
    carry_out(saturation, replace(spec, **given), options, "saturation", summary)


def summary(dataset: xr.Dataset) -> str:
    """What happened, on one screen."""
    import numpy as np

    spec = json.loads(dataset.attrs["specification"])
    timings = json.loads(dataset.attrs["timings"])
    h, predicted = dataset["exponent"].values, dataset["exponent_predicted"].values
    critical = float(dataset["critical_batch_start"])
    lines = [
        f"network {json.dumps(spec['network'])}, {spec['parameters']} parameters",
        f"run     n = {spec['n']}, {spec['steps']} iterations, {spec['replicas']} replicas in "
        f"{timings['total_seconds']:.1f} s",
        f"start   gamma = {float(dataset['gamma_start']):.4g}, "
        f"|grad F|² = {float(dataset['operator_norm_start']) ** 2:.4g}, "
        f"critical batch b* = {critical:.3g}",
        "",
        f"{'b':>7} {'eta':>10} {'L(w_T)':>10} {'h(b)':>10} {'predicted':>10} {'h/predicted':>12}",
    ]
    for i, b in enumerate(dataset["batch"].values):
        diverged = int((dataset["status"].values[i] == 3).sum())
        last = dataset["loss_curve"].values[i, :, -1]
        row = [np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else np.nan for v in (last, h[i], predicted[i])]
        lines.append(
            f"{b:7} {float(dataset['lr'][i]):10.4g} {row[0]:10.4g} {row[1]:10.4g} {row[2]:10.4g} "
            f"{row[1] / row[2]:12.3f}" + (f"  diverged in {diverged} of {len(h[i])}" if diverged else "")
        )
    return "\n".join(lines)
