"""What names compiled kernels on disk: all files that can change what they compute, and codes fixed by name."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hdsgd
from hdsgd._compile import digested_files
from hdsgd.problem._table_types import ERF, RELU, TANH
from hdsgd.problem.activations import ACTIVATIONS
from hdsgd.problem.arrays import tabulate
from hdsgd.problem.model import Problem, Student

ROOT = Path(hdsgd.__file__).parent


def file_of(module):
    path = ROOT.parent.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def imported(path):
    """Files of the package from which a file takes something: names, constants or whole modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (file_of(alias.name) for alias in node.names if alias.name.startswith("hdsgd"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hdsgd"):
            for alias in node.names:
                yield file_of(f"{node.module}.{alias.name}") or file_of(node.module)


def test_the_digest_covers_all_that_kernels_read():
    pending, found = list(ROOT.rglob("_*_kernels.py")), set()
    assert len(pending) > 8
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += imported(path)
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    assert names == sorted(str(path.relative_to(ROOT)) for path in digested_files())
    assert "problem/_table_types.py" in names


def test_codes_do_not_depend_on_an_order(monkeypatch):
    """Kernels on disk know the functions by their codes, whatever happens to the list of names."""
    problem = Problem("relu(z1) + erf(z1) + tanh(z1)", Student("tanh(x) + relu(x) + erf(x)"))
    monkeypatch.setattr(ACTIVATIONS, "_entries", dict(reversed(ACTIVATIONS._entries.items())))
    tabulate.cache_clear()
    tables = tabulate(problem)
    tabulate.cache_clear()
    assert tables.target_codes.tolist() == [RELU, ERF, TANH] == [1, 2, 3]
    assert tables.activation_codes.tolist() == [TANH, RELU, ERF]


PROGRAM = """
import hashlib, json, sys
import numpy as np
import hdsgd
from hdsgd._compile import kernel
from hdsgd.moments.population import population_moments


@kernel
def inner(n, x, out):
    for i in range(out.size):
        total = 0.0
        for j in range(n):
            for k in range(n):
                total += x[i, j] * x[i, k] * x[i, (j + k) % n] + x[i, j] / (1.0 + x[i, k] * x[i, k])
        out[i] = total + np.sin(total) * np.exp(-total * total)


@kernel
def outer(n, x, out):
    inner(n, x, out)
    inner(n, x, out)


def numbers(name):
    if name == "moments":
        problem = hdsgd.Problem("tanh(z1)", hdsgd.Student("tanh(x)"))
        return population_moments(problem, np.eye(1), np.array([[0.3]]), "square")
    out = np.empty(200)
    {"inner": inner, "outer": outer}[name](5, np.random.default_rng(1).standard_normal((200, 8)), out)
    return [out]


digests = {}
for name in sys.argv[1:]:
    digest = hashlib.sha256()
    for array in numbers(name):
        digest.update(np.asarray(array).tobytes())
    digests[name] = digest.hexdigest()
print(json.dumps({"digests": digests, "compiled": not outer.stats.cache_hits}))
"""


@pytest.mark.compiled
def test_numbers_do_not_depend_on_what_else_the_process_compiled_or_loaded(tmp_path):
    """A kernel runs the same copy of what it calls in the process that compiles it and in others, in any order."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def found(*names):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
        command = [sys.executable, str(program), *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    first, later, after_inner = found("outer", "moments"), found("outer", "moments"), found("inner", "outer")
    assert (first["compiled"], later["compiled"], after_inner["compiled"]) == (True, False, False)
    assert first["digests"] == later["digests"]
    assert after_inner["digests"]["outer"] == first["digests"]["outer"]
