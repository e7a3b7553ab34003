"""Nanoseconds per standard normal on one core: hdsgd's block generator and NumPy's generators, in alternating rounds.

``python benchmarks/normals.py`` prints the table.  ``python benchmarks/normals.py --raw | RNG_test stdin64`` feeds the
random words behind the normals to a battery of tests (here PractRand).
"""

import argparse
import os
import statistics
import sys
import time

import numba
import numpy as np

from hdsgd.engines import _normal_kernels as kernels
from hdsgd.engines._normal_kernels import chi_square, next_normal
from hdsgd.engines._stream_types import BLOCK, aligned_empty, new_stream, new_stream32


@numba.njit(nogil=True)
def _words(lanes, out):
    for start in range(0, len(out), BLOCK):
        kernels._fill_words(lanes, out[start : start + BLOCK // 2], out[start + BLOCK // 2 : start + BLOCK])


@numba.njit(nogil=True)
def _passed_generator(rng, out):
    for i in range(len(out)):
        out[i] = rng.standard_normal()


@numba.njit(nogil=True)
def _one_by_one(stream, out):
    for i in range(len(out)):
        out[i] = next_normal(stream)


@numba.njit(nogil=True)
def _chi_squares(stream, out):
    for i in range(len(out)):
        out[i] = chi_square(stream, 1e6)


def contestants(n, seed):
    """Pairs of a name and a function that makes n numbers."""
    stream, stream32 = new_stream(np.random.SeedSequence(seed)), new_stream32(np.random.SeedSequence(seed))
    out, out32, unaligned = aligned_empty(n, np.float64), aligned_empty(n, np.float32), aligned_empty(n + 1, np.float64)
    for name in ("PCG64", "SFC64", "Philox"):
        generator = np.random.Generator(getattr(np.random, name)(seed))
        yield f"numpy {name}, float64", lambda g=generator: g.standard_normal(out=out)
        yield f"numpy {name}, float32", lambda g=generator: g.standard_normal(dtype=np.float32, out=out32)
        yield f"numba, numpy {name} passed, float64", lambda g=generator: _passed_generator(g, out)
    yield "hdsgd normals, float64", lambda: kernels.normals(stream, out)
    yield "hdsgd normals, float64, out not aligned", lambda: kernels.normals(stream, unaligned[1:])
    yield "hdsgd normals32, float32", lambda: kernels.normals32(stream32, out32)
    yield "hdsgd random words alone", lambda: _words(stream.lanes, out)
    yield "hdsgd next_normal, one by one", lambda: _one_by_one(stream, out)
    yield "hdsgd chi_square, df = 1e6", lambda: _chi_squares(stream, out)


def table(n, rounds, seed):
    """Time all contestants in turn, `rounds` times, and print medians, quartiles and ratios."""
    makers = dict(contestants(n, seed))
    for make in makers.values():
        make()  # compiles
    times = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            start = time.perf_counter()
            make()
            times[name].append((time.perf_counter() - start) / n * 1e9)
    reference = times["numpy PCG64, float64"]
    print(f"{'ns per number':<42}{'median':>8}{'quartiles':>18}{'PCG64 / this':>14}")
    for name, measured in times.items():
        low, median, high = statistics.quantiles(measured, n=4)
        ratio = statistics.median(r / m for r, m in zip(reference, measured, strict=True))
        print(f"{name:<42}{median:>8.2f}{f'{low:.2f} - {high:.2f}':>18}{ratio:>14.2f}")


def write_words(seed):
    """Write the words of a stream to standard output, in the order in which they become normals, until it closes."""
    stream, out = new_stream(np.random.SeedSequence(seed)), aligned_empty(256 * BLOCK, np.float64)
    try:
        while True:
            _words(stream.lanes, out)
            sys.stdout.buffer.write(out.data)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32 * BLOCK, help="numbers drawn at a time (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=400, help="rounds, each timing all in turn (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", action="store_true", help="write random words to standard output without end")
    arguments = parser.parse_args()
    if arguments.raw:
        write_words(arguments.seed)
    else:
        n = -(-arguments.n // BLOCK) * BLOCK
        table(n, arguments.rounds, arguments.seed)


if __name__ == "__main__":
    main()
