"""Examples in docstrings: everything public has one, and all of them say what happens."""

import doctest
import importlib
import inspect
import pkgutil

import matplotlib
import pytest

import hdsgd

NAMES = [name for name in hdsgd.__all__ if not inspect.ismodule(getattr(hdsgd, name))]
#: Packages whose own docstrings are examples too, beyond what is public at the top.
PACKAGES = [package.name for package in pkgutil.iter_modules(hdsgd.__path__) if package.ispkg]


@pytest.fixture(autouse=True)
def as_a_reader_starts(monkeypatch):
    """Figures go nowhere, and what an example registers is known to this example alone."""
    from hdsgd.registry import REGISTRIES

    matplotlib.use("Agg")
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def run(test):
    """Run the examples of one docstring; its output is exact up to white space."""
    problems = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, out=problems.append)
    assert not problems, "\n".join(problems)


def examples(name, thing):
    """Docstrings with examples of one thing; of a class also those of its methods."""
    module = inspect.getmodule(thing)
    finder = doctest.DocTestFinder(recurse=True)
    return [test for test in finder.find(thing, name, module=module, globs=dict(vars(module))) if test.examples]


@pytest.mark.compiled
@pytest.mark.parametrize("name", NAMES)
def test_public(name):
    """The docstring of the thing itself, and of its methods, holds an example, and each gives what it says."""
    tests = examples(name, getattr(hdsgd, name))
    exempt = isinstance(getattr(hdsgd, name), type) and issubclass(getattr(hdsgd, name), Exception)
    assert exempt or any(test.name == name for test in tests), f"{name} has no example"
    for test in tests:
        run(test)


def modules():
    for package in PACKAGES:
        if package != "networks":
            root = importlib.import_module(f"hdsgd.{package}")
            for found in pkgutil.walk_packages(root.__path__, f"hdsgd.{package}."):
                if not found.name.rsplit(".", 1)[1].startswith("_"):
                    yield found.name
    yield from (f"hdsgd.{found.name}" for found in pkgutil.iter_modules(hdsgd.__path__) if not found.ispkg)


@pytest.mark.compiled
def test_the_rest():
    """Whatever examples the modules hold beyond what is public, and that of the package itself."""
    public = {id(getattr(hdsgd, name)) for name in NAMES}
    for name in ["hdsgd", *(name for name in modules() if not name.startswith("hdsgd._"))]:
        module = importlib.import_module(name)
        for test in doctest.DocTestFinder().find(module, name, globs=dict(vars(module))):
            own = getattr(module, test.name.removeprefix(f"{name}.").split(".")[0], None)
            if test.examples and id(own) not in public:
                run(test)


@pytest.mark.compiled
def test_the_readme(tmp_path, monkeypatch):
    """The Python of the README that needs no cluster runs as it stands."""
    import re
    from pathlib import Path

    readme = Path(__file__).parents[1] / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    own = [block for block in blocks if "import hdsgd\n" in block]
    assert own
    monkeypatch.chdir(tmp_path)
    for block in own:
        exec(compile(block, "README.md", "exec"), {})
    assert hdsgd.load("diagram.nc").attrs["kind"] == "phase-diagram"
