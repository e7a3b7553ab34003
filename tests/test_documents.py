"""What documents name exists: modules, functions, options of the command line, files."""

import importlib
import re
from pathlib import Path

import pytest

import hdsgd

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = {path.name.removesuffix(".py") for path in (ROOT / "hdsgd").iterdir() if not path.name.startswith("__")}
CODE = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(?=$|\()")
PATH = re.compile(r"[\w./*-]+\.(py|md|toml)|[\w.-]+/([\w.-]+/)*")


def resolves(name):
    """Whether a dotted name is a module of hdsgd, or something in one."""
    parts = name.removeprefix("hdsgd.").split(".")
    if hasattr(hdsgd, parts[0]) and parts[0] in hdsgd.__all__:
        thing, rest = getattr(hdsgd, parts[0]), parts[1:]
    else:
        module = "hdsgd"
        while parts:
            try:
                importlib.import_module(f"{module}.{parts[0]}")
            except ImportError:
                break
            module, parts = f"{module}.{parts[0]}", parts[1:]
        thing, rest = importlib.import_module(module), parts
    for part in rest:
        if part not in getattr(thing, "__annotations__", {}) and not hasattr(thing, part):
            return False
        thing = getattr(thing, part, None)
    return True


def exists(path):
    """Whether a path, or what matches a pattern, is in the project or in its package."""
    return any(any(top.glob(pattern)) for top in (ROOT, ROOT / "hdsgd") for pattern in (path, f"*/{path}"))


def named(document):
    """Dotted names and paths in code spans of a document that speak of this project."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    for code in CODE.findall(text):
        if (match := DOTTED.match(code)) and (code.startswith("hdsgd.") or code.split(".")[0] in PACKAGES):
            if match.group().endswith((".py", ".plugins", ".zarr", ".nc")):
                continue
            yield "name", match.group()
        elif PATH.fullmatch(code) and not code.startswith("FILE"):
            yield "path", code


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_and_paths_exist(document):
    found = list(named(document))
    wrong = [name for kind, name in found if kind == "name" and not resolves(name)]
    wrong += [path for kind, path in found if kind == "path" and not exists(path)]
    assert not wrong
    assert len(found) >= {"theory.md": 0, "README.md": 2}.get(document.name, 5)


def test_a_wrong_name_is_found():
    assert resolves("hdsgd.simulate")
    assert resolves("sweeps.plan.make_plan")
    assert not resolves("hdsgd.simulation.runs.nothing")
    assert not resolves("hdsgd.nothing.simulate")


def test_walks_have_ten_steps():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    walks = re.findall(r"### (?:Where `mu` goes|One cell).*?\n\n(.*?)\n\n", text, re.S)
    assert [len(re.findall(r"^\d+\. ", walk, re.M)) for walk in walks] == [10, 10]
