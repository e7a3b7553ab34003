"""Does every number stay what it is?  Digests of the raw arrays of many small settings, stored and compared.

    python benchmarks/digests.py --write before.json    # with the version before a change
    python benchmarks/digests.py --check before.json    # with the one after it; status 1 if a number differs
    python benchmarks/digests.py --check before.json --only moment --threads 1
    python benchmarks/digests.py --check before.json --times

For changes that are to leave every bit as it is: code that moves, another interface, faster ways to the same sums.
Some hundred and forty settings with fixed seeds cover what yields numbers: engines, algorithms, losses, constraints,
functions, initial laws, phase diagrams and fitted exponents, deterministic dynamics, population moments, theory, seeds,
random numbers and network studies (which need the extra "networks").  Each array (values of variables; no attributes,
texts or timings) is kept as the sha256 of type, shape and bytes, with its smallest and largest value and its sum, to
judge a difference by.  Numbers depend neither on threads nor on which settings are run; last digits do depend on the
kind of processor and on the versions of NumPy, SciPy, Numba and JAX.  A file is of use on the machine that wrote it;
differences of these are told.

Settings (`digest_settings.py` collects those of simulations, theory and networks) know nothing of hdsgd.  They call
adapters (`digest_adapters.py`) with plain values, and only those have to follow a change of the interface.  A new
setting is one line.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from digest_adapters import THREADS, Arrays
from digest_settings import all_settings

#: In place of the arrays of a setting that raised an error.
FAILURE = "error raised"


def record(value: Any) -> dict[str, Any]:
    """Digest and summary of one array, number or text."""
    if isinstance(value, str):
        return {"type": "text", "shape": [len(value)], "digest": hashlib.sha256(value.encode()).hexdigest()}
    array = np.asarray(value, order="C")
    array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan  # the bits of a NaN are no number
    header = f"{array.dtype.str}{array.shape}"
    digest = hashlib.sha256(header.encode() + array.tobytes()).hexdigest()
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    result: dict[str, Any] = {"type": array.dtype.str, "shape": list(array.shape), "digest": digest}
    if finite.size < array.size:
        result["not finite"] = array.size - finite.size
    if finite.size:
        result |= {"min": float(finite.min()), "max": float(finite.max()), "sum": math.fsum(finite.ravel())}
    return result


def summary(entry: Mapping[str, Any] | None) -> str:
    """One record in words."""
    if entry is None:
        return "nothing"
    if "error" in entry:
        return str(entry["error"])
    parts = [f"{entry['type']} {tuple(entry['shape'])}"]
    parts += [f"{key} {entry[key]!r}" for key in ("min", "max", "sum", "not finite") if key in entry]
    return " ".join([*parts, f"[{entry['digest'][:8]}]"])


def evaluate(setting: Callable[[], Arrays]) -> dict[str, Any]:
    """Records of the arrays of a setting by name, or that of its error under the name `FAILURE`."""
    try:
        return {name: record(value) for name, value in setting().items()}
    except Exception as error:  # one setting that fails does not stop the others
        return {FAILURE: {"error": " ".join(f"{type(error).__name__}: {error}".split())}}


def environment() -> dict[str, str]:
    """What last digits depend on."""
    import llvmlite.binding

    names = {"hdsgd", "numpy", "scipy", "numba", "llvmlite", "jax", "jaxlib"}
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    versions = {name: found[name] for name in sorted(names & set(found))}
    return {**versions, "python": platform.python_version(), "processor": str(llvmlite.binding.get_host_cpu_name())}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """One line for each array that differs, with both summaries."""
    for name in dict.fromkeys([*old, *new]):
        before, now = old.get(name), new.get(name)
        if before != now:
            yield f"{name}: {summary(before)} there, {summary(now)} now"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", metavar="FILE", type=Path, help="store digests; with --only, renew those")
    action.add_argument("--check", metavar="FILE", type=Path, help="compare with stored digests")
    action.add_argument("--list", action="store_true", help="name the settings and end")
    parser.add_argument("--only", metavar="SUBSTRING", default="", help="settings whose names contain this")
    parser.add_argument("--threads", type=int, help="threads of whatever runs on several (all cores by default)")
    parser.add_argument("--times", action="store_true", help="print what each setting takes")
    arguments = parser.parse_args()
    THREADS["threads"] = arguments.threads
    chosen = {name: setting for name, setting in all_settings().items() if arguments.only in name}
    if arguments.list:
        print("\n".join(chosen))
        return 0
    here = environment()
    stored: dict[str, dict[str, Any]] = {"environment": {}, "settings": {}}
    if arguments.check or (arguments.only and arguments.write.exists()):
        stored = json.loads((arguments.check or arguments.write).read_text())
    if arguments.check:
        for name, version in stored["environment"].items():
            if name != "hdsgd" and here.get(name) != version:
                print(f"{name} was {version}, is {here.get(name)}: last digits may differ for that reason")
    arrays = unequal = 0
    began = time.perf_counter()
    for name, setting in chosen.items():
        started = time.perf_counter()
        found = evaluate(setting)
        if arguments.times:
            print(f"{time.perf_counter() - started:6.2f} s  {name}", flush=True)
        arrays += len(found)
        if arguments.check:
            lines = list(differences(stored["settings"].get(name, {}), found))
            unequal += len(lines)
            for line in lines:
                print(f"{name} / {line}", flush=True)
        else:
            stored["settings"][name] = found
            if FAILURE in found:
                print(f"{name} / {FAILURE}: {summary(found[FAILURE])}", flush=True)
    for name in stored["settings"].keys() - all_settings().keys():
        unequal += 1
        print(f"{name}: there is no such setting any more")
    if arguments.times:
        print(f"{time.perf_counter() - began:6.2f} s in all")
    total = f"{len(chosen)} settings, {arrays} arrays"
    if arguments.check:
        print(f"{total}: {f'{unequal} differ' if unequal else 'all equal'}")
        return 1 if unequal else 0
    ordered = {"environment": here, "settings": stored["settings"]}
    arguments.write.write_text(json.dumps(ordered, indent=1, allow_nan=False) + "\n")
    print(f"{total}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
