"""What the engines cost, beside the cost of their random numbers and beside other ways to take the same step.

    python benchmarks/speed.py               # the whole table, a few minutes
    python benchmarks/speed.py --quick       # a rough one
    python benchmarks/speed.py --plot cost.png

Every ratio is measured in alternation within one run (A B A B ...): the median over rounds is reported with the
smallest and the largest round.  Compilation is excluded and reported apart.  NumPy, JAX and PyTorch take the same
step (He2 learnt by He2, square loss, projected) written straightforwardly; what is not installed is skipped with a
message.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hdsgd import Initial, Problem, Student
from hdsgd.engines._normal_kernels import normals
from hdsgd.engines._stream_types import new_stream
from hdsgd.simulation.cells import Cell

Step = Callable[[int], object]  # takes that many steps


def engine_step(engine: str, dim: int, batch: int, p: int = 1, noise: float = 0.0, replica: int = 0) -> Step:
    problem = Problem("he2", Student("he2", p), noise=noise)
    cell = Cell(problem, dim=dim, batch=batch, lr=1e-9, initial=Initial(), engine=engine, eta=0.99)
    return cell.replica(replica).advance


def normals_step(count: int) -> Step:
    """Draw `count` normals into a buffer that stays in the second-level cache, as the engines do."""
    stream, out = new_stream(np.random.SeedSequence(0)), np.empty(min(count, 32768))

    def step(n: int) -> None:
        for _ in range(n):
            for _ in range(count // len(out)):
                normals(stream, out)

    return step


def numpy_normals_step(count: int) -> Step:
    rng, out = np.random.default_rng(0), np.empty(min(count, 32768))

    def step(n: int) -> None:
        for _ in range(n):
            for _ in range(count // len(out)):
                rng.standard_normal(out=out)

    return step


def numpy_step(dim: int, batch: int) -> Step:
    rng = np.random.default_rng(0)
    w, teacher = rng.standard_normal((2, dim)) / np.sqrt(dim)

    def step(n: int) -> None:
        nonlocal w
        for _ in range(n):
            z = rng.standard_normal((batch, dim))
            student, target = z @ w, z @ teacher
            c = 2 * student * (student**2 - target**2)
            w = w - 1e-9 * (c @ z) / batch
            w /= np.linalg.norm(w)

    return step


def torch_step(dim: int, batch: int) -> Step:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    w, teacher = torch.randn((2, dim), dtype=torch.float64) / dim**0.5
    z = torch.empty((batch, dim), dtype=torch.float64)

    def step(n: int) -> None:
        nonlocal w
        with torch.no_grad():
            for _ in range(n):
                z.normal_()
                student, target = z @ w, z @ teacher
                c = 2 * student * (student**2 - target**2)
                w = w - 1e-9 * (c @ z) / batch
                w = w / torch.linalg.norm(w)

    return step


def jax_step(dim: int, batch: int) -> Step:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    key = jax.random.key(0)
    w, teacher = jax.random.normal(key, (2, dim), dtype=jnp.float64) / dim**0.5

    def one(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        w, key = carry
        key, draw = jax.random.split(key)
        z = jax.random.normal(draw, (batch, dim), dtype=jnp.float64)
        student, target = z @ w, z @ teacher
        c = 2 * student * (student**2 - target**2)
        w = w - 1e-9 * (c @ z) / batch
        return (w / jnp.linalg.norm(w), key), None

    run = jax.jit(lambda w, key, n: jax.lax.scan(one, (w, key), None, length=n)[0], static_argnums=2)

    def step(n: int) -> None:
        run(w, key, n)[0].block_until_ready()

    return step


OTHERS = {"NumPy": numpy_step, "JAX": jax_step, "PyTorch": torch_step}


def available(names: dict[str, Callable[[int, int], Step]]) -> dict[str, Callable[[int, int], Step]]:
    """Those whose library is installed; a message for the others."""
    found = {}
    for name, make in names.items():
        try:
            make(4, 2)(1)
            found[name] = make
        except ImportError:
            print(f"({name} is not installed and is skipped)", file=sys.stderr)
    return found


class Timing:
    """Alternating measurement of several steps: seconds per step, one row per round."""

    def __init__(self, steps: dict[str, Step], rounds: int, seconds: float) -> None:
        repeats = {}
        for name, step in steps.items():
            step(1)  # compile, warm up
            began = time.perf_counter()
            step(1)
            repeats[name] = max(1, int(seconds / max(time.perf_counter() - began, 1e-7)))
            step(repeats[name])  # JAX compiles once per number of steps
        self.rounds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                began = time.perf_counter()
                step(repeats[name])
                self.rounds[name].append((time.perf_counter() - began) / repeats[name])

    def median(self, name: str) -> float:
        return float(np.median(self.rounds[name]))

    def ratio(self, a: str, b: str) -> str:
        """Median and range of a/b over rounds."""
        ratios = np.array(self.rounds[a]) / np.array(self.rounds[b])
        return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def row(what: str, figure: str, target: str) -> None:
    print(f"{what:62} {figure:>34}   {target}")


def bench_normals(rounds: int, seconds: float) -> None:
    count = 2**20
    timing = Timing({"hdsgd": normals_step(count), "numpy": numpy_normals_step(count)}, rounds, seconds)
    row("normals: ns each, hdsgd", f"{timing.median('hdsgd') / count * 1e9:.2f}", "")
    row("normals: ns each, NumPy Generator.standard_normal", f"{timing.median('numpy') / count * 1e9:.2f}", "")
    row("normals: NumPy / hdsgd", timing.ratio("numpy", "hdsgd"), ">= 2.5")


def bench_direct(dims: list[int], rounds: int, seconds: float) -> dict[int, dict[str, float]]:
    others, costs = available(OTHERS), {}
    for dim in dims:
        batch = 1024
        steps = {name: engine_step(name, dim, batch) for name in ("direct", "direct32")}
        steps["normals"] = normals_step(dim * batch)
        steps |= {name: make(dim, batch) for name, make in others.items()}
        timing = Timing(steps, rounds, seconds)
        costs[dim] = {name: timing.median(name) / dim / batch * 1e9 for name in steps}
        row(f"direct, d = {dim}: ns per sample and dimension", f"{costs[dim]['direct']:.2f}", "")
        row(f"direct, d = {dim}: cost / its normals", timing.ratio("direct", "normals"), "<= 1.5")
        row(f"direct, d = {dim}: in double / with inputs in single precision", timing.ratio("direct", "direct32"), "")
        for name in others:
            row(f"direct, d = {dim}: {name} / hdsgd", timing.ratio(name, "direct"), ">= 2")
    return costs


def bench_reduced(rounds: int, seconds: float) -> None:
    batch = 2**17
    steps = {
        "plain": engine_step("reduced", 4096, batch),
        "noisy": engine_step("reduced", 4096, batch, noise=0.1),
        "two": normals_step(2 * batch),
        "three": normals_step(3 * batch),
    }
    timing = Timing(steps, rounds, seconds)
    row("reduced, p = k = 1: ns per sample, without and with noise",
        f"{timing.median('plain') / batch * 1e9:.2f}, {timing.median('noisy') / batch * 1e9:.2f}", "")  # fmt: skip
    row("reduced, p = k = 1, no noise: cost / its two normals", timing.ratio("plain", "two"), "")
    row("reduced, p = k = 1, noise: cost / its three normals", timing.ratio("noisy", "three"), "<= 1.4")
    steps = {engine: engine_step(engine, 4096, 4096, noise=0.1) for engine in ("direct", "reduced")}
    timing = Timing(steps, rounds, seconds)
    row("direct / reduced, d = n_b = 4096", timing.ratio("direct", "reduced"), ">= 1000")


def bench_flatness(rounds: int, seconds: float) -> None:
    dims = [10**q for q in range(3, 10)]
    # Many short rounds, since what is looked for is smaller than the drift of a shared machine; and three runs for each
    # d, since where a run's arrays happen to lie in memory changes its cost by up to 5 %, whatever d.
    steps = {f"{d} {r}": engine_step("reduced", d, 10_000, replica=r) for r in range(3) for d in dims}
    timing = Timing(steps, 5 * rounds, seconds / 6)
    medians = np.array([np.median([timing.median(f"{d} {r}") for r in range(3)]) for d in dims])
    for d, median in zip(dims, medians, strict=True):
        row(f"reduced, d = {d:.0e}, n_b = 10^4: ns per sample", f"{median / 10_000 * 1e9:.2f}", "")
    row("reduced, d = 10^3 ... 10^9, n_b = 10^4: slowest / fastest", f"{medians.max() / medians.min():.3f}", "<= 1.05")


WORKER = """
import sys, time
sys.path.insert(0, {folder!r})
from speed import engine_step
step = engine_step("reduced", 4096, 2**17, replica={replica})
step(20)
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
step({count})
print(time.perf_counter() - began, flush=True)
"""


def bench_threads(rounds: int, seconds: float) -> None:
    """n replicas on n threads of one process against n independent processes started together."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    steps = [engine_step("reduced", 4096, 2**17, replica=r) for r in range(n)]
    for step in steps:
        step(20)
    began = time.perf_counter()
    steps[0](20)
    count = max(20, int(4 * seconds / ((time.perf_counter() - began) / 20)))
    folder = os.path.dirname(os.path.abspath(__file__))
    ratios = []
    with ThreadPoolExecutor(n) as pool:
        for _ in range(rounds):
            began = time.perf_counter()
            list(pool.map(lambda step: step(count), steps))
            threads = time.perf_counter() - began
            workers = [
                subprocess.Popen(
                    [sys.executable, "-c", WORKER.format(folder=folder, replica=r, count=count)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for r in range(n)
            ]  # fmt: skip
            for worker in workers:
                assert worker.stdout
                worker.stdout.readline()
            for worker in workers:
                assert worker.stdin
                worker.stdin.write("\n")
                worker.stdin.flush()
            processes = max(float(worker.communicate()[0]) for worker in workers)
            ratios.append(processes / threads)
    row(f"throughput of {n} threads / {n} processes",
        f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", ">= 0.95")  # fmt: skip


def bench_start() -> None:
    """Start-up of fresh processes: importing, a warm and a cold (empty kernel cache) run."""
    import tempfile

    def seconds(arguments: list[str], **environment: str) -> float:
        began = time.perf_counter()
        subprocess.run(arguments, check=True, capture_output=True, env={**os.environ, **environment})
        return time.perf_counter() - began

    run = [sys.executable, "-m", "hdsgd_cli.main", "simulate", "--batch", "100", "--lr", "0.01", "--steps", "10"]
    with tempfile.TemporaryDirectory() as folder:
        row("hdsgd simulate, cold start: s", f"{seconds(run, NUMBA_CACHE_DIR=folder):.2f}", "<= 10")
        warm = sorted(seconds(run, NUMBA_CACHE_DIR=folder) for _ in range(5))
    row("hdsgd simulate, warm start: s", f"{warm[2]:.2f} ({warm[0]:.2f} to {warm[-1]:.2f})", "<= 1")
    imports = sorted(seconds([sys.executable, "-c", "import hdsgd"]) for _ in range(5))
    row("import hdsgd: s", f"{imports[2]:.2f} ({imports[0]:.2f} to {imports[-1]:.2f})", "<= 0.3")


def plot(path: str, rounds: int, seconds: float) -> None:
    """Cost per sample against d, n_b, p, replicas and threads."""
    from matplotlib.figure import Figure

    from hdsgd import SaveAt, Scaling, simulate

    def cost(engine: str, dim: int, batch: int, p: int = 1) -> float:
        return Timing({"it": engine_step(engine, dim, batch, p)}, rounds, seconds).median("it") / batch * 1e9

    figure = Figure(figsize=(13, 3), layout="constrained")
    axes = figure.subplots(1, 4)
    dims = [2**q for q in range(6, 17, 2)]
    axes[0].loglog(dims, [cost("direct", d, 1024) for d in dims], "o-", label="direct")
    axes[0].loglog(
        [*dims, 10**7, 10**9], [cost("reduced", d, 1024) for d in [*dims, 10**7, 10**9]], "o-", label="reduced"
    )
    axes[0].set_xlabel("dimension d ($n_b$ = 1024)")
    batches = [4**q for q in range(10)]
    axes[1].loglog(batches[:8], [cost("direct", 1024, b) for b in batches[:8]], "o-", label="direct, d = 1024")
    axes[1].loglog(batches, [cost("reduced", 1024, b) for b in batches], "o-", label="reduced")
    axes[1].set_xlabel("batch size $n_b$")
    widths = [1, 2, 4, 8, 16]
    axes[2].loglog(widths, [cost("direct", 1024, 256, p) for p in widths], "o-", label="direct, d = 1024")
    axes[2].loglog(widths, [cost("reduced", 1024, 4096, p) for p in widths], "o-", label="reduced")
    axes[2].set_xlabel("width p")
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    simulate(Problem("he2", "he2"), dim=4096, scaling=Scaling(batch=1, lr=1e-9), steps=1, threads=1)  # compile
    for threads in range(1, most + 1):
        counts, rates = [1, 2, 4, 8, 16], []
        for replicas in counts:
            options = {"dim": 4096, "scaling": Scaling(batch=4096, lr=1e-9), "steps": 1000, "save": SaveAt(1)}
            began = time.perf_counter()
            simulate(Problem("he2", "he2"), replicas=replicas, threads=threads, **options)  # type: ignore[arg-type]
            rates.append((time.perf_counter() - began) / (1000 * 4096 * replicas) * 1e9)
        axes[3].loglog(counts, rates, "o-", label=f"reduced, {threads} thread{'s' if threads > 1 else ''}")
    axes[3].set_xlabel("replicas ($n_b$ = 4096)")
    axes[0].set_ylabel("ns per sample")
    for ax in axes:
        ax.legend(frameon=False, fontsize="small")
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    print(f"figure  {path}")


# One core for every library; read when a library starts, hence the new process in `main`.
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def main() -> None:
    if any(os.environ.get(name) != value for name, value in ONE_CORE.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_CORE})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--plot", metavar="FILE", help="also plot cost against d, n_b, p, replicas and threads")
    parser.add_argument("--dims", default="1024,4096,16384", help="dimensions of the direct engine")
    arguments = parser.parse_args()
    rounds, seconds = (3, 0.05) if arguments.quick else (9, 0.3)
    row("what", "median (range over rounds)", "target")
    bench_start()
    bench_normals(rounds, seconds)
    bench_direct([int(d) for d in arguments.dims.split(",")], rounds, seconds)
    bench_reduced(rounds, seconds)
    bench_flatness(rounds, seconds)
    bench_threads(min(rounds, 5), seconds)
    if arguments.plot:
        plot(arguments.plot, min(rounds, 3), seconds / 2)


if __name__ == "__main__":
    main()
