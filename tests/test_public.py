"""What is public: names and parameters, frozen here.

A name or a parameter that goes, or changes its place, breaks what people wrote: it needs a line in the changelog.
"""

import ast
import inspect
import subprocess
import sys

import pytest

import hdsgd

#: Every public name, functions and classes with their parameters.
FROZEN = """
Activation(name, summary, value, slope, smooth, code)
Algorithm(name, summary, loss, constraint)
Constraint(name, summary, tangential, normalised)
Engine(name, summary, exact, load, instead)
Initial(distribution, overlap, M, Q)
Integrator(method, rtol, atol)
Loss(name, summary, kappa, error)
Plane(mu, delta, n0, gamma0)
Problem(target, student, noise, loss, constraint, switch_fraction, switch_factor, switch_decay, protocol)
Protocol(name, summary)
ResultKind(name, summary, variables, summarise, draw, planes)
SaveAt(points, spacing)
Scaling(mu, delta, n0, gamma0, batch, lr)
SpecificationError
StopRule(eta, max_steps, max_cost)
Store(path, resume, overwrite)
Student(activation, width, second_layer)
Switch(name, summary, first, then)
Target(expression, gram)
Variable(name, dims, summary)
Workers(threads, scheduler)
add_diversity(dataset)
add_exponents(dataset, *, log_correction)
best_exponents(dataset, *, largest_error)
best_samples(dataset)
boundaries(ell, algorithm, mu_range, delta_range)
compare(problem, *, dims, scaling, time, initial, points, replicas, eta, engine, seed, threads, progress)
compare_boundaries(dataset, algorithm, dim)
compare_exponents(dataset, algorithm, *, largest_error)
critical_prefactors(problem, algorithms, dim, *, eta)
draw_overlaps(problem, initial, dim, seed)
figure(dataset, plane)
fit_exponents(dataset, *, log_correction)
information_exponent(target)
integrate_ode(problem, *, time, steps, dim, scaling, initial, seed, regime, intra_batch, save, eta, integrator)
leaps(target)
load(path)
mean_map(problem, *, dim, steps, scaling, initial, seed, intra_batch, save, eta)
networks
optimal_point(ell, algorithm, *, one_step)
phase_diagram(problem, *, dims, plane, algorithms, initial, stop, replicas, engine, seed, store, workers, progress)
plot_best_exponents(dataset, ax)
plot_comparison(dataset, ax, *, dim)
plot_deviations(dataset, ax)
plot_exponents(dataset, ax, *, algorithm, predicted, boundaries, colorbar)
plot_overlaps(dataset, ax, *, label)
plot_phase_diagram(dataset, ax, *, algorithm, dim, boundaries, colorbar)
plot_recovery_times(dataset, ax)
plot_risk(dataset, ax, *, label)
plot_samples(dataset, ax, *, algorithm)
population_moments(problem, Q, M, loss)
population_risk(problem, Q, M)
predict(problem, dim, algorithm, *, eta, prefactor)
register(entry)
save(dataset, path, *, overwrite)
simulate(problem, *, dim, steps, scaling, initial, save, replicas, eta, engine, seed, threads, progress)
summary(dataset)
"""
#: More than this many parameters are not to be remembered.
MOST_PARAMETERS = 12


def parameters(thing):
    """Parameters as they are written, without types and defaults."""
    written = []
    for each in inspect.signature(thing).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not any(name.startswith("*") for name in written):
            written.append("*")
        written.append({each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "") + each.name)
    return written


def described(name):
    thing = getattr(hdsgd, name)
    if inspect.ismodule(thing) or (isinstance(thing, type) and issubclass(thing, Exception)):
        return name
    return f"{name}({', '.join(parameters(thing))})"


def test_names_and_parameters():
    frozen = {" ".join(entry.split()) for entry in FROZEN.replace("\n    ", " ").strip().splitlines()}
    now = {described(name) for name in hdsgd.__all__}
    assert not now - frozen, "new or changed: add them to the list here, and what broke to the changelog"
    assert not frozen - now, "gone or changed: say so in the changelog"


@pytest.mark.parametrize("name", [name for name in hdsgd.__all__ if inspect.isfunction(getattr(hdsgd, name))])
def test_no_function_has_more_parameters_than_one_remembers(name):
    assert len(inspect.signature(getattr(hdsgd, name)).parameters) <= MOST_PARAMETERS


def test_policies_are_keywords():
    for name in ("simulate", "compare", "integrate_ode", "mean_map", "phase_diagram"):
        first, *others = inspect.signature(getattr(hdsgd, name)).parameters.values()
        assert first.name == "problem"
        assert all(each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in others), name


def test_nothing_else_is_there():
    """In a new process, where nothing but hdsgd has been imported."""
    code = "import hdsgd; print([*vars(hdsgd)]); print(dir(hdsgd) == sorted(dir(hdsgd)))"
    names, in_order = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [name for name in ast.literal_eval(names) if not name.startswith("_")] == []
    assert len(set(hdsgd.__all__)) == len(hdsgd.__all__)
    assert set(dir(hdsgd)) == {*hdsgd.__all__, "__version__"}
    assert in_order == "True"


def test_import_is_instant():
    code = "import sys, hdsgd; print([name for name in ('numpy', 'numba', 'xarray', 'scipy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(hdsgd))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: f"{each.module}" for each in block.body for alias in each.names if alias.asname == alias.name}
    assert seen == hdsgd._MODULES


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'hdsgd' has no attribute 'simulat'"):
        hdsgd.simulat  # noqa: B018
    assert hdsgd.networks.__name__ == "hdsgd.networks"
    assert hdsgd.__version__[0].isdigit()
