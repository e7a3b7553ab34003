"""Sweeps on a Dask cluster: the same results cell for cell, whatever becomes of the workers."""

import json
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from small_studies import LONG, PROBLEM, SMALL, count_written, same

from hdsgd import SpecificationError, load, phase_diagram
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import Store, Workers
from hdsgd.results.schema import versions
from hdsgd.studies import dask as cluster
from hdsgd.studies.dask import Cluster
from hdsgd.sweeps.phase_diagrams import PhaseDiagram

distributed = pytest.importorskip("distributed")


def workers(**options):
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50, **options
    )


@pytest.fixture(scope="module")
def address():
    with workers() as local:
        yield local.scheduler_address


@dataclass(frozen=True)
class Broken:
    """A cell that fails at d = 60."""

    cell: Any

    def run(self, context):
        if self.cell.dim == 60:
            raise FloatingPointError("no good")
        return self.cell.run(context)


def phase_diagram_study():
    data = phase_diagram(PROBLEM, **SMALL)
    return PhaseDiagram(json.loads(data.attrs["specification"]))


def only_the_large_failed(data, message):
    """Whether the cells at d = 60 failed, of this, and those at d = 40 did not."""
    failed = (data["status"] == OUTCOMES["failed"]).all("replica")
    return failed.sel(dim=60).all() and not failed.sel(dim=40).any() and message in data.attrs["errors"]


def test_cells_are_those_of_threads(address, tmp_path):
    threads = phase_diagram(PROBLEM, **SMALL)
    assert same(phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL), threads)
    assert same(
        phase_diagram(PROBLEM, workers=Workers(scheduler=address), store=tmp_path / "phase.nc", **SMALL), threads
    )
    assert same(load(tmp_path / "phase.nc"), threads)


def test_more_cells_than_are_sent_at_once(address, monkeypatch):
    """Some cells to a task, and no time for the second of them."""
    monkeypatch.setattr(cluster, "TASKS", 1)
    threads = phase_diagram(PROBLEM, **SMALL)
    assert same(phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL), threads)
    run = cluster._run_remote
    monkeypatch.setattr(cluster, "_run_remote", lambda cells, version: run(cells[:1], version))
    assert same(phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL), threads)


def test_failed_cells(address, monkeypatch):
    """An error in a cell is its result; the other cells go on."""
    run = cluster._run_remote
    monkeypatch.setattr(cluster, "_run_remote", lambda cells, version: run([Broken(cell) for cell in cells], version))
    data = phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL)
    assert only_the_large_failed(data, "FloatingPointError: no good")


def test_cells_that_cannot_be_made(address, monkeypatch):
    make = PhaseDiagram.cell

    def broken(self, index):
        return replace(make(self, index), batch=0) if index[1] == 1 and index[3] == 2 else make(self, index)

    monkeypatch.setattr(PhaseDiagram, "cell", broken)
    data = phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL)
    assert ((data["status"] == OUTCOMES["failed"]).sum("replica").values[0] == [[[0, 0, 0]] * 2, [[0, 0, 2]] * 2]).all()
    assert "SpecificationError: batch must be" in data.attrs["errors"]


def test_cells_travel_small():
    """Fifty cells together make a task: texts and numbers, no arrays."""
    study = phase_diagram_study()
    cell = study.cell((0, 1, 1, 2))
    sent = pickle.dumps(cell)
    assert len(sent) < 1500
    back = pickle.loads(sent)
    assert back == cell
    assert back.specification == cell.specification


@pytest.mark.compiled
@pytest.mark.parametrize("allowed", [0, 3])
def test_a_worker_dies(tmp_path, allowed):
    """Whether Dask itself sends the cell to another worker or gives it up and it is sent again."""
    import dask

    threads = phase_diagram(PROBLEM, **LONG)
    folder = tmp_path / "phase.zarr.partial"
    with dask.config.set({"distributed.scheduler.allowed-failures": allowed}), workers() as local:
        with distributed.Client(local, set_as_default=False) as client:
            victim = next(iter(client.run(os.getpid).values()))

        def kill():
            while count_written(folder) < 5:
                time.sleep(0.002)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        data = phase_diagram(
            PROBLEM, workers=Workers(scheduler=local.scheduler_address), store=tmp_path / "phase.zarr", **LONG
        )
        killer.join()
    assert same(data, threads)


def test_a_cell_that_kills_every_worker_fails(address, monkeypatch):
    """Dask gives a cell up; after some tries so do we, and the others go on."""
    from distributed.scheduler import KilledWorker

    def run(cells, version):
        if any(cell.dim == 60 for cell in cells):
            raise KilledWorker("it", SimpleNamespace(address="tcp://gone:1"), 0)
        return [cluster._run(cell) for cell in cells]

    monkeypatch.setattr(cluster, "TASKS", 1)
    monkeypatch.setattr(cluster, "_run_remote", run)
    data = phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL)
    assert only_the_large_failed(data, "every worker that ran this cell died")


def test_a_lost_scheduler_leaves_the_store(tmp_path, monkeypatch):
    with workers() as local:
        write, written = cluster.Cluster.completed, []

        def lost(self, *args):
            for result in write(self, *args):
                yield result
                written.append(result)
                if len(written) == 3:
                    raise ConnectionError("the Dask scheduler was lost")

        monkeypatch.setattr(cluster.Cluster, "completed", lost)
        with pytest.raises(
            ConnectionError, match=r"was lost; 3 of 12 cells are kept in .*phase.zarr.partial'; .*--resume"
        ):
            phase_diagram(
                PROBLEM, workers=Workers(scheduler=local.scheduler_address), store=tmp_path / "phase.zarr", **SMALL
            )
    again = phase_diagram(PROBLEM, store=Store(tmp_path / "phase.zarr", resume=True), **SMALL)
    assert same(again, phase_diagram(PROBLEM, **SMALL))


def test_other_versions(address, monkeypatch, caplog):
    monkeypatch.setattr(cluster, "versions", lambda: {**versions(), "numpy": "1.0"})
    Cluster(address).__exit__()
    assert "the last digits may differ" in caplog.text
    monkeypatch.setattr(cluster, "versions", lambda: {**versions(), "hdsgd": "9.9"})
    with pytest.raises(SpecificationError, match=r"the Dask worker tcp://\S+ has hdsgd \S+, not 9.9 as here"):
        phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL)


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    for address, message in (
        ("tcp://127.0.0.1:1", r"no Dask scheduler at 'tcp://127.0.0.1:1' \(no answer within 1 s\)"),
        ("nonsense", "missing port number"),
        ("carrier-pigeon://x:1", "unknown address scheme"),
    ):
        with pytest.raises(SpecificationError, match=message):
            phase_diagram(PROBLEM, workers=Workers(scheduler=address), **SMALL)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SpecificationError, match=r"pip install 'hdsgd\[dask\]'"):
        phase_diagram(PROBLEM, workers=Workers(scheduler="tcp://127.0.0.1:1"), **SMALL)
