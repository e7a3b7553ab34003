"""Packages are layers: imports run one way, kernels import nothing but kernels, public names are what they are."""

import ast
from pathlib import Path

import pytest

import hdsgd

ROOT = Path(hdsgd.__file__).parent

#: The foundation: single modules, which import only each other.
FOUNDATION = {
    "errors",
    "checks",
    "records",
    "registry",
    "outcomes",
    "policies",
    "progress",
    "seeds",
    "parallel",
    "_callbacks",
    "_compile",
}
#: Packages, each of which may import the foundation, itself and those before it.
PACKAGES = [
    "problem", "moments", "theory", "engines", "results", "dynamics", "simulation", "analysis", "studies",
    "sweeps", "plotting", "networks",
]  # fmt: skip
#: Who alone may import what else.
RESERVED = {
    "jax": {"networks"}, "equinox": {"networks"}, "optax": {"networks"},
    "dask": {"studies"}, "distributed": {"studies"},
    "matplotlib": {"plotting", "networks"},
    "hdsgd_cli": set(),
}  # fmt: skip


def imports(path):
    """Modules that a file imports, in functions or not, type hints aside."""
    tree = ast.parse(path.read_text())
    blocks = (block for block in ast.walk(tree) if isinstance(block, ast.If))
    aside = {node for block in blocks if "TYPE_CHECKING" in getattr(block.test, "id", "") for node in ast.walk(block)}
    for node in ast.walk(tree):
        if node in aside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    return ".".join(("hdsgd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"}
GRAPH = {name: {other for other in imports(path) if other in FILES} - {name} for name, path in FILES.items()}


def layer(module):
    """Where a module stands: 0 for the foundation, 1 and more for packages."""
    part = module.split(".")[1]
    return 0 if part in FOUNDATION else 1 + PACKAGES.index(part)


@pytest.mark.parametrize("module", FILES)
def test_imports_run_one_way(module):
    path, package = FILES[module], module.split(".")[1]
    for other in GRAPH[module]:
        assert layer(other) <= layer(module), f"{module} imports {other}"
    for name in imports(path):
        if (root := name.split(".")[0]) in RESERVED:
            assert package in RESERVED[root], f"{module} imports {name}"
        if root == "numba":
            assert path.name in ("_compile.py", "_callbacks.py") or path.name.endswith("_kernels.py"), (
                f"{module} imports {name}"
            )


def test_no_cycle():
    """Neither between packages (the test above) nor inside them, imports in functions included."""
    done, trail = set(), []

    def visit(module):
        assert module not in trail, " imports ".join([*trail[trail.index(module) :], module])
        if module not in done:
            trail.append(module)
            for other in sorted(GRAPH[module]):
                # A package is imported with each of its modules; that is no dependence of theirs.
                if not module.startswith(f"{other}."):
                    visit(other)
            trail.pop()
            done.add(module)

    for module in FILES:
        visit(module)


def test_files_are_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert not {name: length for name, length in lengths.items() if length > 450}


def test_public_names():
    """A name that goes is a break of the interface: say so in the changelog."""
    for name in hdsgd.__all__:
        assert getattr(hdsgd, name).__doc__, f"{name} has no docstring"
    assert sorted([*hdsgd.__all__, "__version__"]) == dir(hdsgd)
