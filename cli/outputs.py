"""The files that a command writes: checked before anything is computed, written after it."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from hdsgd.errors import SpecificationError
from hdsgd.policies import Store


class Outputs:
    """The output files of a command: checked before the computation, written after it.

    Parameters
    ----------
    options : dict
        Those of `hdsgd_cli.options.output_options` are taken out of it.
    stem : str, optional
        ``stem.nc`` and ``stem.png`` are written where neither file is asked for.
    resume : bool, optional
        Of a study that keeps what is done in a store as it goes: whether to continue it.  Such a study writes its data
        itself.
    """

    def __init__(self, options: dict[str, Any], stem: str | None = None, resume: bool | None = None) -> None:
        from hdsgd.results.files import DATA_SUFFIXES, PLOT_SUFFIXES

        output, plot = options.pop("output"), options.pop("plot")
        overwrite, quiet = options.pop("overwrite"), options.pop("quiet")
        if output is None and plot is None and stem is not None:
            output, plot = f"{stem}.nc", f"{stem}.png"
        self.store = None
        if resume is not None and output is not None:
            self.store = Store(output, resume=resume, overwrite=overwrite)
        elif resume:
            raise SpecificationError("--resume has no effect without --output: that is where what is done is kept")
        # What is there of a study is judged by the study; its figure is drawn again when it is continued.
        self.overwrite = overwrite or bool(resume)
        self.data = _checked(output, DATA_SUFFIXES, self.overwrite or self.store is not None)
        self.plot = _checked(plot, PLOT_SUFFIXES, self.overwrite)
        self.progress = not quiet and sys.stderr.isatty()
        if quiet:
            logging.getLogger("hdsgd").setLevel(logging.WARNING)

    def finish(self, dataset: Any, plane: str | None = None) -> None:
        """Print the summary of a result, and write the files that were asked for."""
        import hdsgd
        from hdsgd.results.files import save_figure

        click.echo(hdsgd.summary(dataset))
        if self.store is not None:
            click.echo(f"data    {self.data}")
        elif self.data is not None:
            click.echo(f"data    {hdsgd.save(dataset, self.data, overwrite=self.overwrite)}")
        if self.plot is not None:
            drawn = hdsgd.figure(dataset, plane)
            path = save_figure(lambda where: drawn.savefig(where), self.plot, overwrite=self.overwrite)
            click.echo(f"figure  {path}")


def _checked(path: str | None, suffixes: tuple[str, ...], overwrite: bool) -> Path | None:
    """The path of an output to which something can be written as far as one can know without writing it."""
    from hdsgd.results.files import check_output

    if path is None:
        return None
    try:
        checked = check_output(path, suffixes, overwrite=overwrite)
        if checked.is_symlink() and not checked.exists():
            raise SpecificationError(f"output {path!r} is a link to {str(checked.readlink())!r}, which does not exist")
        # File systems that are full or read-only, and names that are too long, show when one writes.
        with tempfile.TemporaryDirectory(prefix=f".{checked.stem}.", suffix=".tmp", dir=checked.parent):
            pass
    except OSError as error:
        raise SpecificationError(f"output {path!r} cannot be written: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, SpecificationError):
            raise
        raise SpecificationError(f"output {path!r} cannot be written: {error}") from None
    return checked
