"""``hdsgd export``."""

from __future__ import annotations

import click


@click.command("export")
@click.argument("store", metavar="STORE")
@click.argument("output", metavar="FILE")
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
def command(store: str, output: str, overwrite: bool) -> None:
    """Write what is done of a sweep to FILE (.nc or .zarr): STORE is the output that was asked for.

    Cells that are not done have the status pending, recovered False and a recovery time of 0.  The sweep is left as it
    is and may be running.

    \b
      hdsgd export phase.nc so-far.nc
    """
    from hdsgd.results.files import DATA_SUFFIXES, UNFINISHED, check_output, save
    from hdsgd.sweeps.store import count_cells, read_sweep

    check_output(output, DATA_SUFFIXES, overwrite=overwrite)
    place, dataset = read_sweep(store)
    dataset.attrs.pop(UNFINISHED, None)
    path = save(dataset, output, overwrite=overwrite)
    done, failed, total = count_cells(dataset)
    click.echo(f"{done} of {total} cells of {place} are done{f', {failed} failed' if failed else ''}")
    click.echo(f"data    {path}")
