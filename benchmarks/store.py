"""Partial results of a phase diagram of a million cells: time to go on with half of them, time of its status, size.

    python benchmarks/store.py [--cells 1000000]

Outcomes are made up; nothing is simulated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hdsgd import Initial, Problem
from hdsgd.policies import Store
from hdsgd.studies import log
from hdsgd.studies.store import StudyStore
from hdsgd.sweeps.phase_diagrams import PhaseDiagram

REPLICAS = 8
LIMITS = {"resume": 20.0, "status": 3.0, "size": 200.0}


def study(cells: int) -> PhaseDiagram:
    side = round(cells**0.5)
    rule = {"loss": "square", "constraint": "projected", "n0": 1.0, "gamma0": 0.25, "exponent": 2}
    return PhaseDiagram(
        {
            "problem": Problem("he2", "he2").to_dict(), "algorithms": {"projected": rule}, "dims": [1000],
            "mu": np.linspace(0, 1, side).tolist(), "delta": np.linspace(0, 1, side).tolist(),
            "initial": Initial().to_dict(), "eta": 0.5, "replicas": REPLICAS, "max_steps": "auto", "max_cost": 1e7,
            "engine": "auto", "seed": 0,
        },
        {"drift": {"projected": 4.0}},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10**6)
    made = study(parser.parse_args().cells)
    total = int(np.prod(made.shape))
    half = np.random.default_rng(0).permutation(total)[: total // 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.nc"
        store = StudyStore(Store(path), made)
        values = {"recovery_time": np.arange(REPLICAS), "status": np.zeros(REPLICAS)}
        started = time.perf_counter()
        for cell in half.tolist():
            store.write(cell, values)
        rate = len(half) / (time.perf_counter() - started)
        store.close()
        print(f"{total} cells, {len(half)} of them written at {rate:.0f} a second")
        size = sum(file.stat().st_size for file in store.folder.iterdir()) / len(half) - made.row.itemsize
        print(f"size    {size:6.1f} bytes a cell beyond its payload of {made.row.itemsize}; limit {LIMITS['size']:.0f}")
        started = time.perf_counter()
        command = [sys.executable, "-m", "hdsgd_cli.main", "status", str(path)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"status  {time.perf_counter() - started:6.1f} s, the whole process; limit {LIMITS['status']:.0f} s")
        assert f"{len(half)} of {total} cells" in told
        started = time.perf_counter()
        again = StudyStore(Store(path, resume=True), study(total))
        cells = np.flatnonzero(again.results.undone())
        again.study.cell(tuple(int(i) for i in np.unravel_index(cells[0], again.study.shape)))
        print(
            f"resume  {time.perf_counter() - started:6.1f} s until the first cell runs; limit {LIMITS['resume']:.0f} s"
        )
        assert again.results.counts().done == len(half)
        assert again.results.table["recovery_time"][half].tolist() == [list(range(REPLICAS))] * len(half)
        again.close()
        print(f"header  {log.read_header(next(store.folder.glob('*.log')).read_bytes())[1]} bytes")


if __name__ == "__main__":
    main()
