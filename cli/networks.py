"""What the commands about networks share: presets, options of networks, data and training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from hdsgd_cli.base import Decorator, Given, Idle, combine, option
from hdsgd_cli.options import RUN, replicas_option, seed_option, threads_option
from hdsgd_cli.outputs import Outputs
from hdsgd_cli.types import Name, Whole

from hdsgd.errors import SpecificationError, choice
from hdsgd.policies import Workers

NETWORK, DATA, TRAINING = "Network", "Data", "Training"

Read = Callable[[str], Any]


def specs(name: str) -> Callable[[], Any]:
    """Names out of `hdsgd.networks.specs`, looked up when they are needed."""

    def names() -> Any:
        import hdsgd.networks.specs

        return getattr(hdsgd.networks.specs, name)

    return names


def preset_option(table: str) -> Decorator:
    """A specification by name, one of a table of `hdsgd.networks.presets`, or from a file."""

    def names() -> Any:
        import hdsgd.networks.presets

        return getattr(hdsgd.networks.presets, table)

    def find(name: str) -> None:
        if not name.endswith(".json"):
            choice("preset", name, names())

    return option("--preset", type=Name(names, find), default="small", metavar="NAME", section="Study",
                  help="{names}; or a JSON file with a specification.")  # fmt: skip


def read_preset(name: str, table: Mapping[str, Callable[[], Any]], kind: type | None = None) -> Any:
    """The specification of a preset, or of a JSON file.

    Parameters
    ----------
    name : str
    table : mapping
        Presets by name.
    kind : type, optional
        What a file describes; by default what the first preset is.

    Raises
    ------
    SpecificationError
        If it is neither (with the names).
    """
    if not name.endswith(".json"):
        return table[choice("preset", name, table)]()
    kind = kind or type(next(iter(table.values()))())
    return kind.from_json(read_text(name))  # type: ignore[attr-defined]


def read_text(name: str) -> str:
    """The text of a file of the user's."""
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecificationError(f"cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from None


def _find_activation(name: str) -> None:
    from hdsgd.networks.specs import ACTIVATIONS

    ACTIVATIONS[name]


def network_options(idle: Idle | tuple[Idle, ...] = (), activation: Idle | tuple[Idle, ...] = ()) -> Decorator:
    return combine(
        option("--activation", type=Name(specs("ACTIVATIONS"), _find_activation), metavar="NAME", section=NETWORK,
               idle=activation, help="{names}."),
        option("--parametrisation", type=Name(specs("PARAMETRISATIONS")), metavar="NAME", section=NETWORK, idle=idle,
               help="{names}."),
    )  # fmt: skip


def _source(text: str) -> tuple[str, str]:
    """Source and name of data, as in ``file:PATH``."""
    from hdsgd.networks.data import OPENML
    from hdsgd.networks.specs import SOURCES

    head, colon, tail = text.partition(":")
    if colon and head in SOURCES:
        return head, tail
    return ("openml", text) if text.lower() in OPENML else (text, "")


def data_options(read: Read, idle: tuple[Idle, ...] = ()) -> Decorator:
    """The data set; `read` gives the specification of a preset, whose data are taken where none are given."""

    def data_of(given: Given) -> tuple[str, str]:
        if given["data"] is not None:
            return _source(given["data"])
        data = read(given["preset"]).data
        return data.source, data.name

    def only_for(*sources: str, why: str) -> Idle:
        def reason(given: Given) -> str | None:
            source = data_of(given)[0]
            return None if source in sources else f"with {source} data: {why}"

        return reason

    def one_file(given: Given) -> str | None:
        name = data_of(given)[1]
        return f"with {name}: labels are in the same file" if name.endswith((".npz", ".csv")) else None

    from_outside = "digits", "openml", "file"
    return combine(
        option("--data", metavar="NAME", section=DATA, idle=idle,
               help="digits, gaussian, mnist, emnist, cifar10, svhn, gisette, openml:NAME, file:PATH (.npz, .csv, IDX) "
               "or text:PATH."),
        option("--label-file", type=click.Path(), metavar="PATH", section=DATA, help="Labels of an IDX file.",
               idle=(*idle, only_for("file", why="it is the second one of a pair of IDX files"), one_file)),
        option("--n", type=Whole(), section=DATA, help="Number of examples.  [default: all, or the preset's]"),
        option("--dim", type=Whole(), section=DATA, help="Input dimension of gaussian data."),
        option("--normalise", type=Name(specs("NORMALISATIONS")), metavar="NAME", section=DATA, help="{names}.",
               idle=(*idle, only_for(*from_outside, why="these are taken as they are"))),
        option("--labels", type=Name(specs("LABELS")), metavar="NAME", section=DATA, help="{names}.",
               idle=(*idle, only_for(*from_outside, why="these have labels of one kind only"))),
        option("--checksum", metavar="SHA256", section=DATA, idle=idle, help="Refuse the data if theirs is another."),
    )  # fmt: skip


def loss_option(idle: Idle | tuple[Idle, ...] = ()) -> Decorator:
    return option("--loss", type=Name(specs("LOSSES")), metavar="NAME", section=TRAINING, idle=idle, help="{names}.")


def train_options(idle: Idle | tuple[Idle, ...] = ()) -> Decorator:
    """How often and with what to train."""
    return combine(
        replicas_option(None, idle),
        option("--dtype", type=Name(_dtypes), metavar="NAME", section=RUN, idle=idle, help="{names}."),
        seed_option(),
        threads_option(),
        option("--resume", is_flag=True, section=RUN, help="Continue an interrupted run of this output."),
    )


def _dtypes() -> Any:
    from hdsgd.networks._extra import DTYPES

    return DTYPES


def change_data(data: Any, options: dict[str, Any]) -> Any:
    """Take the options about data out of `options` and apply them to a specification of data."""
    from dataclasses import replace

    from hdsgd.networks.specs import Data

    names = ("label_file", "n", "dim", "normalise", "labels", "checksum")
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    text = options.pop("data")
    if text is None:
        return replace(data, **given)
    source, name = _source(text)
    return Data(source, name, **given)


def change_network(network: Any, **changes: Any) -> Any:
    """Apply the options given (those that are not None) to a network.

    Raises
    ------
    SpecificationError
        If this architecture has no such property.
    """
    from dataclasses import fields, replace

    given = {name: value for name, value in changes.items() if value is not None}
    known = {f.name for f in fields(network)}
    for name in given:
        if name not in known:
            raise SpecificationError(
                f"a network of kind {network.kind} has no {name}; it has {', '.join(sorted(known))}"
            )
    return replace(network, **given)


def take_given(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Take those of these options that were given out of `options`."""
    return {name: value for name in names if (value := options.pop(name)) is not None}


def run_study(study: Callable[..., Any], spec: Any, outputs: Outputs, options: dict[str, Any]) -> None:
    """Run a study with what is left of the options, print its summary and draw its figure."""
    workers = Workers(options.pop("threads"))
    outputs.finish(study(spec, store=outputs.store, workers=workers, progress=outputs.progress, **options))
