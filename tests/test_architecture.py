"""Imports run one way, kernels import nothing but kernels, and the public names are what they are."""

import ast
from pathlib import Path

import pytest

import hdsgd

ROOT = Path(hdsgd.__file__).parent

# Each module may import from its own layer or those before it.
LAYERS = [
    {"errors", "_compile"},
    {"expressions"},
    {"model"},
    {"tables", "scaling", "seeds", "initial", "parallel", "schema", "hermite", "moment_tables", "lifetimes"},
    {"exponents"},
    {"_moments_kernels", "_link_moments_kernels", "moments"},
    {"engines", "theory"},
    {"predictions", "_ode_kernels", "finite_d", "ode"},
    {"simulation", "store"},
    {"agreement"},
    {"recovery"},
    {"sweep"},
    {"sweep_store", "cluster"},
    {"diagram", "comparison"},
    {"plotting", "diagram_plots"},
    {"networks"},
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}


def imports(path):
    """Top-level packages and hdsgd modules that a file imports, in functions or not, type hints aside."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module in ("hdsgd", "hdsgd.engines"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    module = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "hdsgd" and len(parts) > 1 and parts[1] in LEVEL:
            assert LEVEL[parts[1]] <= LEVEL[module], f"{module} imports {name}"
        assert parts[0] != "hdsgd_cli", f"{module} imports the command line"
        if parts[0] in ("jax", "equinox", "optax"):
            assert module == "networks", f"{module} imports {name}"
        if parts[0] in ("dask", "distributed"):
            assert module == "cluster", f"{module} imports {name}"
        if parts[0] == "matplotlib":
            assert module in ("plotting", "diagram_plots", "networks"), f"{module} imports {name}"
        if parts[0] == "numba":
            assert path.name == "_compile.py" or path.name.endswith("_kernels.py"), f"{module} imports {name}"


def test_every_module_has_a_layer():
    modules = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert modules <= set(LEVEL), modules - set(LEVEL)


def test_public_names():
    """A name that goes is a break of the interface: say so in the changelog."""
    assert {
        "Initial", "Problem", "SpecificationError", "Student", "Target", "load", "phase_diagram", "plot_overlaps",
        "plot_phase_diagram", "plot_recovery_times", "plot_risk", "save", "simulate",
    } <= set(hdsgd.__all__)  # fmt: skip
    for name in hdsgd.__all__:
        assert getattr(hdsgd, name).__doc__, f"{name} has no docstring"
