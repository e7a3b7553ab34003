"""The recipes of CONTRIBUTING.md do what they say: each block, taken from there, is a module outside the package."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from test_law import ALPHA, SETTINGS, p_values, sample

import hdsgd
from hdsgd import Initial, Plane, Problem, SaveAt, Scaling, Student
from hdsgd.problem.arrays import tabulate
from hdsgd.registry import REGISTRIES

ROOT = Path(__file__).parents[1]
RECIPES = dict(re.findall(r"<!-- recipe: (\w+) -->\n```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S))
OVERLAP = Initial(overlap=0.3)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Imports the block of a recipe as a module of its own; what it registers is forgotten after the test."""
    import hdsgd_cli.commands  # noqa: F401  (a registry too)

    for registry in REGISTRIES.values():
        for name in ("_entries", "_modules"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.syspath_prepend(tmp_path)

    def follow(name):
        module = f"recipe_{name}"
        (tmp_path / f"{module}.py").write_text(RECIPES[name])
        monkeypatch.delitem(sys.modules, module, raising=False)
        return importlib.import_module(module)

    yield follow
    tabulate.cache_clear()


def test_recipes_are_short():
    assert set(RECIPES) == {"loss", "constraint", "activation", "engine", "command"}
    for name, block in RECIPES.items():
        assert len(block.splitlines()) < 40, name


def test_the_package_knows_none_of_them():
    sources = "".join(path.read_text() for path in (ROOT / "hdsgd").rglob("*.py"))
    assert "cubic-error" not in sources


@pytest.mark.compiled
def test_loss(recipe, tmp_path):
    """Simulation, mean map, ODE and theory page of a loss that no file of the package names."""
    recipe("loss")
    problem = Problem("he2", "he2", loss="cubic-error")
    scaling = Scaling(batch=20_000, lr=2e-4)
    common = {"dim": 400, "steps": 60, "scaling": scaling, "initial": OVERLAP}
    run = hdsgd.simulate(problem, **common, replicas=8)
    path = hdsgd.mean_map(problem, **common)
    ode = hdsgd.integrate_ode(problem, regime="finite d", **common)
    exact = run["M"].isel(step=-1, student=0, teacher=0)
    spread = float(exact.std() / np.sqrt(exact.size))
    gain = float(exact.mean()) - 0.3
    # The drift shows, and the three agree on it; a wrong κ or a missing factor would be off by much of it.
    assert gain > 20 * spread
    for theory, tolerance in ((path, 0.02), (ode, 0.05)):
        M = theory["M"].isel(replica=0, student=0, teacher=0).values
        assert abs(M[-1] - 0.3 - gain) < 5 * spread + tolerance * gain
    page = hdsgd.predict(problem, 1000)
    assert page.exponent == 2
    assert "cubic-error" in run.attrs["specification"]
    assert '"cubic-error"' in run.attrs["extensions"]
    hdsgd.save(run, tmp_path / "run.nc")


def test_a_result_says_what_is_missing(recipe, tmp_path, caplog):
    module = recipe("loss")
    run = hdsgd.simulate(Problem("he2", "he2", loss="cubic-error"), dim=20, steps=2, scaling=Scaling(batch=4, lr=0.01))
    hdsgd.save(run, tmp_path / "run.nc")
    from hdsgd.problem.losses import LOSSES

    for table in (LOSSES._entries, LOSSES._modules):
        del table["cubic-error"]
    with caplog.at_level("WARNING"):
        again = hdsgd.load(tmp_path / "run.nc")
    assert "cubic-error" in caplog.text
    assert module.__name__ in caplog.text
    assert again.identical(run)


@pytest.mark.compiled
@pytest.mark.parametrize("engine", ["direct", "reduced", "auto"])
def test_constraint(recipe, engine):
    """Norms of rows can only grow under tangential steps that are not normalised."""
    recipe("constraint")
    problem = Problem("he2(z1) + z2", Student("he2(x) + x", 2), constraint="tangent")
    run = hdsgd.simulate(problem, dim=50, steps=30, scaling=Scaling(batch=50, lr=0.05), engine=engine, replicas=2)
    norms = np.diagonal(run["Q"].values, axis1=2, axis2=3)
    assert (np.diff(norms, axis=1) > 0).all()
    with pytest.raises(hdsgd.SpecificationError, match="choose from projected, spherical, none, tangent"):
        Problem("he2", "he2", constraint="tangential")


@pytest.mark.compiled
def test_activation(recipe):
    recipe("activation")
    problem = Problem("softplus(z1)", Student("softplus(x) + x", 1), noise=0.1)
    common = {"dim": 60, "steps": 40, "scaling": Scaling(batch=60, lr=0.3), "save": SaveAt(1), "replicas": 200}
    runs = [hdsgd.simulate(problem, engine=engine, **common) for engine in ("direct", "reduced")]
    last = [np.linalg.norm(run["M"].isel(step=-1).values, axis=(1, 2)) for run in runs]
    from scipy import stats

    assert stats.ks_2samp(*last).pvalue > ALPHA
    assert np.isfinite(runs[1]["risk"]).all()


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["he2 spherical", "p = 3, k = 2"])
def test_engine(recipe, name):
    """Each of at most four tests rejects at p < 1e-4; a Wishart with the wrong degrees of freedom is rejected."""
    plain = recipe("engine").PlainRun
    from hdsgd.engines.reduced import ReducedRun

    setting = SETTINGS[name]
    naive = sample(plain, setting, 400, 1)
    assert min(p_values(naive, sample(ReducedRun, setting, 400, 2)).values()) > ALPHA
    wrong = sample(ReducedRun, setting, 400, 2, wishart_dim=setting.dim // 2)
    assert min(p_values(naive, wrong).values()) < ALPHA
    run = hdsgd.simulate(setting.problem, dim=20, steps=3, scaling=Scaling(batch=4, lr=0.01), engine="plain")
    assert run.attrs["extensions"].count("plain") == 1
    diagram = hdsgd.phase_diagram(
        setting.problem, dims=20, plane=Plane(mu=[0], delta=[1]), algorithms=["spherical"], replicas=2, engine="plain"
    )
    assert (diagram["status"] != 4).all(), diagram.attrs["errors"]


def test_command(recipe, capsys):
    from hdsgd_cli.main import main

    recipe("command")
    with pytest.raises(SystemExit) as ended:
        main(["exponent", "he3(z1) + z1*z2"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "2\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Print the information exponent of a target." in capsys.readouterr().out
