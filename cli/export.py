"""``hdsgd export``."""

from __future__ import annotations

import click


@click.command("export")
@click.argument("store", metavar="STORE")
@click.argument("output", metavar="FILE")
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
def command(store: str, output: str, overwrite: bool) -> None:
    """Write what is done of a study to FILE (.nc or .zarr): STORE is the output that was asked for.

    For phase diagrams, saturation, epochs and diversity.  Cells that are not done have the status pending; their
    numbers are NaN or 0.  The study is left as it is and may be running.

    \b
      hdsgd export phase.nc so-far.nc
    """
    from hdsgd.results.files import DATA_SUFFIXES, check_output, save
    from hdsgd.studies.runner import assemble
    from hdsgd.studies.store import read_study

    check_output(output, DATA_SUFFIXES, overwrite=overwrite)
    found = read_study(store)
    path = save(assemble(found.study, found.results), output, overwrite=overwrite)
    done, failed, total = found.results.counts()
    click.echo(f"{done} of {total} cells of {found.place} are done{f', {failed} failed' if failed else ''}")
    click.echo(f"data    {path}")
