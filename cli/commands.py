"""The commands of ``hdsgd``, a row each; their modules are imported only when they are called."""

from __future__ import annotations

from typing import NamedTuple

import click

from hdsgd.registry import Registry, imported

__all__ = ["COMMANDS", "CommandRow", "register_command"]


class CommandRow(NamedTuple):
    """A command by name.

    Parameters
    ----------
    name : str
        The word after ``hdsgd``.
    summary : str
        Its line in ``hdsgd --help``.
    command : str or click.Command
        "module:attribute", imported when the command is called, or the command itself.
    section : str
        Heading under which ``hdsgd --help`` lists it.
    """

    name: str
    summary: str
    command: str | click.Command
    section: str

    def load(self) -> click.Command:
        """The command itself."""
        command: click.Command = imported(self.command)
        return command


_ONE, _DIAGRAMS, _NETWORKS = "One problem", "Phase diagrams", "Networks (pip install hdsgd[networks])"

#: Every command by name; `register_command` adds one of your own.
COMMANDS: Registry[CommandRow] = Registry(
    "command",
    [
        CommandRow("simulate", "Simulate replicas of one-pass SGD.", "hdsgd_cli.simulate:command", _ONE),
        CommandRow("ode", "Integrate the overlap ODEs, or iterate the mean map.", "hdsgd_cli.ode:command", _ONE),
        CommandRow("compare", "Simulations beside ODE and mean map.", "hdsgd_cli.compare:command", _ONE),
        CommandRow("theory", "Exponents, boundaries, optimal batch sizes.", "hdsgd_cli.theory:command", _ONE),
        CommandRow(
            "phase-diagram", "Recovery time over batch size and learning rate.", "hdsgd_cli.phase_diagram:command",
            _DIAGRAMS,
        ),
        CommandRow("status", "How far a study is.", "hdsgd_cli.status:command", _DIAGRAMS),
        CommandRow("export", "Write what is done of a study.", "hdsgd_cli.export:command", _DIAGRAMS),
        CommandRow(
            "diversity", "Gradient diversity, batch-size constants, theorems.", "hdsgd_cli.diversity:command", _NETWORKS
        ),
        CommandRow(
            "saturation", "Where do larger batches stop helping?", "hdsgd_cli.saturation:command", _NETWORKS
        ),
        CommandRow("epochs", "Epochs to a target against batch size.", "hdsgd_cli.epochs:command", _NETWORKS),
    ],
)  # fmt: skip


def register_command(
    name: str, command: str | click.Command, summary: str | None = None, section: str = "Added"
) -> CommandRow:
    """Add a command of one's own to ``hdsgd``.

    A package that names its module in the entry point group ``hdsgd.plugins`` is imported, and its commands found, when
    a name is not known otherwise.

    Parameters
    ----------
    name : str
        The word after ``hdsgd``.
    command : str or click.Command
        The command, or "module:attribute" for one that is imported when it is called.
    summary : str, optional
        Its line in ``hdsgd --help``; by default the first sentence of the command's own help.
    section : str
        Heading under which ``hdsgd --help`` lists it.

    Raises
    ------
    SpecificationError
        If another command has this name.

    Examples
    --------
    >>> import click, hdsgd_cli
    >>> @click.command("greet")
    ... def greet():
    ...     "Say hello."
    ...     click.echo("hello")
    >>> hdsgd_cli.register_command("greet", greet).summary
    'Say hello.'
    """
    if summary is None:
        summary = command.get_short_help_str(60) if isinstance(command, click.Command) else ""
    return COMMANDS.register(CommandRow(name, summary, command, section))
