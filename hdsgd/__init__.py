"""hdsgd: the laboratory for high-dimensional online SGD.

>>> import hdsgd
>>> problem = hdsgd.Problem("he2", "square")
>>> run = hdsgd.simulate(problem, dim=10**6, scaling=hdsgd.Scaling(mu=1, delta=0.5), steps=20, engine="auto")
>>> axes = hdsgd.plot_overlaps(run)
>>> print(hdsgd.summary(run).splitlines()[0])
problem he2(z1) learnt by square(x), width 1, noise 0; square loss, constraint projected

Everything public is imported from here, and loaded when it is first used: ``import hdsgd`` is instant.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:  # for type checkers, which cannot read the table; a test holds both together
    from hdsgd.analysis.boundaries import compare_boundaries as compare_boundaries
    from hdsgd.analysis.exponents import add_exponents as add_exponents
    from hdsgd.analysis.exponents import best_exponents as best_exponents
    from hdsgd.analysis.exponents import best_samples as best_samples
    from hdsgd.analysis.exponents import compare_exponents as compare_exponents
    from hdsgd.analysis.exponents import fit_exponents as fit_exponents
    from hdsgd.dynamics.maps import mean_map as mean_map
    from hdsgd.dynamics.ode import integrate_ode as integrate_ode
    from hdsgd.engines import Engine as Engine
    from hdsgd.errors import SpecificationError as SpecificationError
    from hdsgd.moments.population import population_moments as population_moments
    from hdsgd.moments.population import population_risk as population_risk
    from hdsgd.plotting.figures import figure as figure
    from hdsgd.plotting.phase_diagrams import plot_best_exponents as plot_best_exponents
    from hdsgd.plotting.phase_diagrams import plot_exponents as plot_exponents
    from hdsgd.plotting.phase_diagrams import plot_phase_diagram as plot_phase_diagram
    from hdsgd.plotting.phase_diagrams import plot_samples as plot_samples
    from hdsgd.plotting.trajectories import plot_comparison as plot_comparison
    from hdsgd.plotting.trajectories import plot_deviations as plot_deviations
    from hdsgd.plotting.trajectories import plot_overlaps as plot_overlaps
    from hdsgd.plotting.trajectories import plot_recovery_times as plot_recovery_times
    from hdsgd.plotting.trajectories import plot_risk as plot_risk
    from hdsgd.policies import Integrator as Integrator
    from hdsgd.policies import Plane as Plane
    from hdsgd.policies import SaveAt as SaveAt
    from hdsgd.policies import Scaling as Scaling
    from hdsgd.policies import StopRule as StopRule
    from hdsgd.policies import Store as Store
    from hdsgd.policies import Workers as Workers
    from hdsgd.problem.activations import Activation as Activation
    from hdsgd.problem.constraints import Algorithm as Algorithm
    from hdsgd.problem.constraints import Constraint as Constraint
    from hdsgd.problem.initial import Initial as Initial
    from hdsgd.problem.initial import draw_overlaps as draw_overlaps
    from hdsgd.problem.losses import Loss as Loss
    from hdsgd.problem.losses import Switch as Switch
    from hdsgd.problem.model import Problem as Problem
    from hdsgd.problem.model import Student as Student
    from hdsgd.problem.model import Target as Target
    from hdsgd.problem.protocols import Protocol as Protocol
    from hdsgd.registry import register as register
    from hdsgd.results.files import load as load
    from hdsgd.results.files import save as save
    from hdsgd.results.kinds import ResultKind as ResultKind
    from hdsgd.results.schema import Variable as Variable
    from hdsgd.results.summaries import summary as summary
    from hdsgd.simulation.comparison import add_diversity as add_diversity
    from hdsgd.simulation.comparison import compare as compare
    from hdsgd.simulation.runs import simulate as simulate
    from hdsgd.sweeps.phase_diagrams import phase_diagram as phase_diagram
    from hdsgd.theory.leaps import information_exponent as information_exponent
    from hdsgd.theory.leaps import leaps as leaps
    from hdsgd.theory.phases import boundaries as boundaries
    from hdsgd.theory.phases import optimal_point as optimal_point
    from hdsgd.theory.predictions import predict as predict
    from hdsgd.theory.prefactors import critical_prefactors as critical_prefactors

#: Where each public name lives.
_HOMES = {
    "analysis.boundaries": ("compare_boundaries",),
    "analysis.exponents": ("add_exponents", "best_exponents", "best_samples", "compare_exponents", "fit_exponents"),
    "dynamics.maps": ("mean_map",),
    "dynamics.ode": ("integrate_ode",),
    "engines": ("Engine",),
    "errors": ("SpecificationError",),
    "moments.population": ("population_moments", "population_risk"),
    "plotting.figures": ("figure",),
    "plotting.phase_diagrams": ("plot_best_exponents", "plot_exponents", "plot_phase_diagram", "plot_samples"),
    "plotting.trajectories": (
        "plot_comparison",
        "plot_deviations",
        "plot_overlaps",
        "plot_recovery_times",
        "plot_risk",
    ),
    "policies": ("Integrator", "Plane", "SaveAt", "Scaling", "StopRule", "Store", "Workers"),
    "problem.activations": ("Activation",),
    "problem.constraints": ("Algorithm", "Constraint"),
    "problem.initial": ("Initial", "draw_overlaps"),
    "problem.losses": ("Loss", "Switch"),
    "problem.model": ("Problem", "Student", "Target"),
    "problem.protocols": ("Protocol",),
    "registry": ("register",),
    "results.files": ("load", "save"),
    "results.kinds": ("ResultKind",),
    "results.schema": ("Variable",),
    "results.summaries": ("summary",),
    "simulation.comparison": ("add_diversity", "compare"),
    "simulation.runs": ("simulate",),
    "sweeps.phase_diagrams": ("phase_diagram",),
    "theory.leaps": ("information_exponent", "leaps"),
    "theory.phases": ("boundaries", "optimal_point"),
    "theory.predictions": ("predict",),
    "theory.prefactors": ("critical_prefactors",),
}
_MODULES = {name: f"hdsgd.{module}" for module, names in _HOMES.items() for name in names}
#: Packages that are public as such.
_PACKAGES = ("networks",)

__all__ = sorted([*_MODULES, *_PACKAGES])


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("hdsgd")
    if name in _PACKAGES:
        return _importlib.import_module(f"hdsgd.{name}")
    if name in _MODULES:
        value = getattr(_importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'hdsgd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
