"""Phase diagrams at scale: how long they take, how much memory, how well they agree with theory.

    python benchmarks/scale.py                  # all jobs, on all cores
    python benchmarks/scale.py --only workers   # diagram, large, theta1, theta2, theta3, workers or dask

Each diagram is made by the command that is printed, in a process of its own; time and memory are those of the process,
compilation excluded (a small sweep of the same kind runs first).  Throughput of two workers is compared with that of
two independent single-worker sweeps side by side, in alternation, medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hdsgd
from hdsgd.analysis.boundaries import compare_boundaries

HE = "phase-diagram --target he{0} --activation he{0} "
JOBS = {  # name: command, most minutes
    "diagram": (HE.format(2) + "--dim 1e4 --mu 0:2:41 --delta -1:1.5:41 --replicas 16", 3),
    "large": (HE.format(2) + "--dim 1e6 --mu 0:2:21 --delta -1:1.5:21 --replicas 8", 10),
    "theta1": (HE.format(1) + "--dims 1e3,1e4,1e5,1e6 --mu 0:2:11 --delta -0.75:1.5:10 --replicas 16", 15),
    "theta2": (HE.format(2) + "--dims 1e3,1e5,1e7,1e9 --mu 0:2:11 --delta -1:1.5:11 --replicas 16", 15),
    "theta3": (HE.format(3) + "--dims 1e3,1e4,1e5,1e6 --mu 0:3:13 --delta -1.5:2:15 --replicas 64", 15),
}
MEMORY = 1000  # MB


def hdsgd_command(arguments: str, *extra: str) -> list[str]:
    return [sys.executable, "-m", "hdsgd_cli.main", *shlex.split(arguments), *extra, "--quiet"]


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds, and largest resident memory in MB, of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {shlex.join(command)}")
    return time.perf_counter() - started, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def diagrams(names: list[str], folder: Path) -> None:
    print(f"{'job':8} {'time':>8} {'target':>8} {'memory':>8} {'target':>8}  result")
    for name in names:
        command, minutes = JOBS[name]
        small = command.split("--dim")[0] + "--dim 100 --mu 1 --delta 0 --replicas 1"
        measured(hdsgd_command(small, "-o", str(folder / "warm.nc"), "--overwrite"))
        path = folder / f"{name}.nc"
        seconds, memory = measured(hdsgd_command(command, "-o", str(path)))
        dataset = hdsgd.load(path)
        unaffordable = float((dataset["status"] == 2).mean())
        print(
            f"{name:8} {seconds:6.0f} s {minutes:4} min {memory:5.0f} MB {MEMORY:5} MB  hdsgd {command}\n"
            f"{'':37} {dataset['status'].size} runs, {100 * unaffordable:.1f} % cut short by their cost"
        )
        for algorithm in dataset["algorithm"].values:
            found = [compare_boundaries(dataset, str(algorithm), int(dim)) for dim in dataset["dim"].values]
            agree = sum(f["agree"] for f in found)
            text = f"{agree} of {agree + sum(f['disagree'] for f in found)} cells off the line agree with theory"
            if dataset.sizes["dim"] > 1:
                theta = hdsgd.compare_exponents(dataset, str(algorithm))
                text += (
                    f"; theta off by {theta['median']:.3f} (median), at most {theta['largest']:.3f}, in "
                    f"{theta['compared']} cells (standard error {theta['error']:.3f})"
                )
            print(f"{'':37} {algorithm}: {text}", flush=True)


def workers(folder: Path, dask: bool, rounds: int) -> None:
    """Throughput of two workers against two single workers side by side; needs two cores."""
    command = HE.format(2) + "--dim 1e4 --mu 0:2:15 --delta -1:1.5:15 --replicas 512 --overwrite"
    single = [hdsgd_command(command, "-o", str(folder / f"{i}.nc"), "--threads", "1", "--seed", str(i)) for i in (1, 2)]
    extra: list[str] = ["--threads", "2"]
    processes: list[subprocess.Popen[bytes]] = []
    if dask:
        port, quiet = 18786, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        address = f"tcp://127.0.0.1:{port}"
        extra = ["--scheduler", address]
        start = [sys.executable, "-m"]
        scheduler = [*start, "distributed.cli.dask_scheduler", "--port", str(port), "--no-dashboard"]
        worker = [*start, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        processes.append(subprocess.Popen(scheduler, **quiet))
        time.sleep(3)
        processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        time.sleep(5)
    both = hdsgd_command(command, "-o", str(folder / "both.nc"), *extra)
    ratios = []
    try:
        measured(both)
        for _ in range(rounds):
            started = time.perf_counter()
            running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in single]
            for process in running:
                process.wait()
            apart = time.perf_counter() - started
            together, _ = measured(both)
            ratios.append(apart / (2 * together))
    finally:
        for process in processes:
            process.terminate()
    name = "two Dask workers" if dask else "two threads"
    print(
        f"{name} / two single-worker sweeps side by side: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}; target 0.9)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*JOBS, "workers", "dask"], action="append")
    parser.add_argument("--keep", type=Path, help="folder for the Datasets; a temporary one by default")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    chosen = arguments.only or [*JOBS, "workers", "dask"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        if names := [name for name in JOBS if name in chosen]:
            diagrams(names, folder)
        for name in ("workers", "dask"):
            if name in chosen:
                workers(folder, name == "dask", arguments.rounds)


if __name__ == "__main__":
    main()
