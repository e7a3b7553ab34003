"""What names compiled kernels on disk: all files that can change what they compute, and codes fixed by name."""

import ast
from pathlib import Path

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
