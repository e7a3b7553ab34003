"""The ``hdsgd`` command: a group whose subcommands are imported only when they are called.

Data go to files, progress and messages to standard error, a summary of one screen to standard output.  A mistake of
the user gets one line and exit code 2; an interruption exit code 130.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from hdsgd_cli.commands import COMMANDS

from hdsgd.errors import SpecificationError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Commands(click.Group):
    """The commands of the registry, by sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS.names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        try:
            return COMMANDS[cmd_name].load()
        except SpecificationError:
            if ctx.resilient_parsing or cmd_name.startswith("-"):
                return None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for row in COMMANDS.values():
            sections.setdefault(row.section, []).append((row.name, row.summary))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # slow to import

        rows = [row for row in COMMANDS.values() if row.name.startswith(incomplete)]
        return [CompletionItem(row.name, help=row.summary) for row in rows] + click.Command.shell_complete(
            self, ctx, incomplete
        )


def _print_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"hdsgd {version('hdsgd')}")
        ctx.exit()


_COMPLETION = """\b
Names are completed after
  eval "$(_HDSGD_COMPLETE=bash_source hdsgd)"            in ~/.bashrc
  eval "$(_HDSGD_COMPLETE=zsh_source hdsgd)"             in ~/.zshrc
  _HDSGD_COMPLETE=fish_source hdsgd | source             in ~/.config/fish/config.fish
"""


@click.group(
    cls=_Commands,
    epilog=_COMPLETION,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
              help="Show the version and exit.")  # fmt: skip
def group() -> None:
    """The laboratory for high-dimensional online SGD.

    Two-layer networks learn Gaussian single- and multi-index targets by one-pass SGD with batch size n_b = n0 d^mu and
    learning rate gamma = gamma0 d^-delta: when do they weakly recover the target, and in how many steps?

    \b
      hdsgd phase-diagram                     a diagram worth looking at, in about a minute
      hdsgd simulate --dim 1000000000         one problem, at any dimension
    """


class _Messages(logging.Handler):
    """Messages of the library, on standard error, without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(f"hdsgd: {record.getMessage()}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    click.echo(f"hdsgd: {message}", err=True)
    return code


def main(args: list[str] | None = None) -> None:
    """Entry point of the ``hdsgd`` command."""
    logger = logging.getLogger("hdsgd")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    with _terminated_as_interrupted():
        code = _run(args)
    sys.exit(code)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Within this context SIGTERM, as batch systems send it before they kill, does what Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: list[str] | None) -> int:
    try:
        result = group.main(args=args, prog_name="hdsgd", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        where = f" (see {ctx.command_path} --help)" if ctx else ""
        return _fail(" ".join(error.format_message().split()) + where, 2)
    except SpecificationError as error:
        return _fail(str(error), 2)
    except (KeyboardInterrupt, click.Abort) as error:
        # click puts an Abort in the place of the interruption, which may say what is kept.
        return _fail(str(error) or str(error.__cause__ or "") or "interrupted; nothing was written", 130)
    except BrokenPipeError:
        # The reader of our output has gone, as in `hdsgd ... | head`; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory; fewer replicas, save points or cells need less", 1)
    except OSError as error:
        # Without a number it was raised by hdsgd, and says everything.
        return _fail(f"cannot write the result: {error}" if error.errno else str(error), 1)


if __name__ == "__main__":
    main()
