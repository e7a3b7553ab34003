"""What every command is made of: options in sections, and options that say when they would change nothing.

An option that would have no effect is refused, not ignored.  Each option carries the circumstances in which that is so
(`beside`, `without`, `idle`); `Command` asks those that were given before it does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Given(Mapping[str, Any]):
    """The values of all options of a command, and which of them a person gave."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx

    def __getitem__(self, name: str) -> Any:
        return self._ctx.params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ctx.params)

    def __len__(self) -> int:
        return len(self._ctx.params)

    def gave(self, name: str) -> bool:
        """Whether this option stands on the command line (or in the environment), whatever its value."""
        source = self._ctx.get_parameter_source(name)
        return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)

    def spell(self, name: str) -> str:
        """An option as one writes it: "--algorithm" of the parameter ``algorithms``."""
        for param in self._ctx.command.params:
            if param.name == name:
                return max(param.opts, key=len)
        return "--" + name.replace("_", "-")


#: A circumstance: told what was given, why the option would change nothing; None if it would.
Idle = Callable[[Given], str | None]


def beside(*names: str, why: str) -> Idle:
    """No effect where one of these other options is given."""

    def reason(given: Given) -> str | None:
        found = next((name for name in names if given.gave(name)), None)
        return None if found is None else f"with {given.spell(found)}: {why}"

    return reason


def without(*names: str, why: str) -> Idle:
    """No effect where none of these other options has a value."""

    def reason(given: Given) -> str | None:
        if any(given.get(name) not in (None, False, ()) for name in names):
            return None
        return f"without {' or '.join(given.spell(name) for name in names)}: {why}"

    return reason


class Option(click.Option):
    """An option of click with a section of the help, and the circumstances in which it would change nothing.

    Parameters
    ----------
    section : str
        Heading under which ``--help`` lists it.
    idle : sequence of Idle
        Made by `beside` and `without`, or a function of one's own.
    **rest
        As for `click.Option`.  In `help`, "{names}" stands for the names of a `hdsgd_cli.types.Name`.  A callable
        `default` is asked when it is needed and its value is shown.
    """

    def __init__(self, *args: Any, section: str = "Other", idle: Sequence[Idle] = (), **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.section = section
        self.idle = tuple(idle)

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        return super().get_default(ctx, call=True)

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default  # without the parentheses of click
        elif isinstance(default := self.get_default(ctx), float) and "default" in extra:
            extra["default"] = f"{default:g}"
        return extra

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        text = self.help
        if text and "{names}" in text:
            *most, last = self.type.all_names()  # type: ignore[attr-defined]
            self.help = text.format(names=f"{', '.join(most)} or {last}" if most else last)
        try:
            return super().get_help_record(ctx)
        finally:
            self.help = text


def option(*names: str, section: str, idle: Idle | Sequence[Idle] = (), **rest: Any) -> Decorator:
    """`click.option` for an `Option`; its default is shown unless it is None or a flag's."""
    shown = rest.get("default") is not None and not rest.get("is_flag")
    circumstances = (idle,) if callable(idle) else idle
    return click.option(*names, cls=Option, section=section, idle=circumstances, **{"show_default": shown, **rest})


def combine(*decorators: Decorator) -> Decorator:
    """One decorator that applies several options, listed in the order in which --help shows them."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


class Command(click.Command):
    """A command whose help has sections and which refuses options that would have no effect."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        given = Given(ctx)
        for param in self.params:
            if isinstance(param, Option) and given.gave(str(param.name)):
                for idle in param.idle:
                    if (reason := idle(given)) is not None:
                        raise click.UsageError(f"{given.spell(str(param.name))} has no effect {reason}", ctx)
        return super().invoke(ctx)
