"""``hdsgd status``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hdsgd.studies.study import Results, Study


@click.command("status")
@click.argument("store", metavar="STORE")
def command(store: str) -> None:
    """Show how far a study is: STORE is the output that was asked for, FILE.nc or FILE.zarr.

    For phase diagrams, saturation, epochs and diversity.  Reads what is there and changes nothing, also while the study
    is running.

    \b
      hdsgd status phase.nc
    """
    from hdsgd.studies.store import is_locked, read_study

    found = read_study(store)
    study, results = found.study, found.results
    locked = not found.finished and is_locked(found.place)
    state = "complete" if found.finished else "a process is working on it" if locked else "interrupted"
    undone, (done, failed, total) = results.undone(), results.counts()
    lines = [f"store   {found.place}: {state}", *study.describe()]
    share = 100
    if undone.any():
        costs = study.costs().ravel()
        share = min(99, int(100 * costs[~undone].sum() / max(costs.sum(), 1)))
    lines.append(
        f"done    {done} of {total} cells, {share} % of the predicted cost" + (f"; {failed} failed" if failed else "")
    )
    lines += ["", *_table(study, results), *failure_lines(study, results)]
    if not found.finished and not locked:
        lines += ["", "to go on, repeat the command that began it with --resume"]
    click.echo("\n".join(lines))


def _table(study: Study, results: Results) -> list[str]:
    """How many cells are done, pending and failed, by the first dims of the cells."""
    import itertools

    from hdsgd.outcomes import OUTCOMES

    dims = study.dims[: study.grouped]
    labels = list(itertools.product(*(study.labels(dim) for dim in dims)))
    widths = [max(12, *(len(label[i]) for label in labels)) for i in range(len(dims))]
    state = results.state.reshape(len(labels), -1)
    pending, failed = ((state == OUTCOMES[name]).sum(axis=1) for name in ("pending", "failed"))
    heads = ["d" if dim == "dim" else dim for dim in dims]
    lines = [_row(heads, widths) + f" {'done':>7} {'pending':>7} {'failed':>7}"]
    for label, p, f in zip(labels, pending.tolist(), failed.tolist(), strict=True):
        lines.append(_row(label, widths) + f" {state.shape[1] - p - f:7} {p:7} {f:7}")
    return lines


def _row(cells: list[str] | tuple[str, ...], widths: list[int]) -> str:
    padded = [f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(cells)]
    return " ".join(padded)


def failure_lines(study: Study, results: Results, most: int = 3) -> list[str]:
    """The first cells that failed, with their messages."""
    import numpy as np

    return [
        f"failed  {study.place(tuple(map(int, np.unravel_index(cell, study.shape))))}: {results.errors[cell]}"
        for cell in sorted(results.errors)[:most]
    ]
