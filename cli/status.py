"""``hdsgd status``."""

from __future__ import annotations

import click
from hdsgd_cli.options import problem_line
from hdsgd_cli.phase_diagram import failure_lines, sweep_line


@click.command("status")
@click.argument("store", metavar="STORE")
def command(store: str) -> None:
    """Show how far a sweep is: STORE is the output that was asked for, FILE.nc or FILE.zarr.

    Reads what is there and changes nothing, also while the sweep is running.

    \b
      hdsgd status phase.nc
    """
    import json

    import numpy as np

    from hdsgd.outcomes import OUTCOMES
    from hdsgd.results.files import UNFINISHED
    from hdsgd.sweeps.cells import predicted_cost
    from hdsgd.sweeps.store import count_cells, is_locked, read_sweep

    place, dataset = read_sweep(store)
    spec = json.loads(dataset.attrs["specification"])
    finished, locked = UNFINISHED not in dataset.attrs, is_locked(place)
    done, failed, total = count_cells(dataset)
    status = dataset["status"].values
    undone = np.isin(status, (OUTCOMES["pending"], OUTCOMES["failed"])).any(axis=-1)
    work = predicted_cost(dataset)
    percent = 100 if not undone.any() else min(99, int(100 * work[~undone].sum() / max(work.sum(), 1)))
    state = "complete" if finished else "a process is working on it" if locked else "interrupted"
    dims = f"d = {', '.join(map(str, spec['dims']))}"
    lines = [
        f"store   {place}: {state}",
        f"{problem_line(spec['problem'], with_rule=False)}; {dims}",
        f"sweep   {sweep_line(dataset)}; mu {_span(spec['mu'])}, delta {_span(spec['delta'])}, eta {spec['eta']:g}, "
        f"engine {spec['engine']}, max-steps {spec['max_steps']}, max-cost {spec['max_cost']:g}, seed {spec['seed']}",
        f"done    {done} of {total} cells, {percent} % of the predicted work"
        + (f"; {failed} failed" if failed else ""),
        "",
        f"{'algorithm':12} {'d':>12} {'done':>7} {'pending':>7} {'failed':>7}",
    ]
    for name in dataset["algorithm"].values.tolist():
        for dim in spec["dims"]:
            done, failed, total = count_cells(dataset.sel(algorithm=[name], dim=[dim]))
            lines.append(f"{name:12} {dim:12} {done:7} {total - done - failed:7} {failed:7}")
    lines += failure_lines(dataset)
    if not finished and not locked:
        lines += ["", "to go on, repeat the command that began it with --resume"]
    click.echo("\n".join(lines))


def _span(values: list[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} ... {values[-1]:g}"
