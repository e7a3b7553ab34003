"""hdsgd: the laboratory for high-dimensional online SGD.

>>> import hdsgd
>>> problem = hdsgd.Problem("he2", "square")
>>> run = hdsgd.simulate(problem, dim=10**6, mu=1, delta=0, steps=100)  # doctest: +SKIP
>>> hdsgd.plot_overlaps(run)  # doctest: +SKIP

Everything public is imported from here, and loaded when it is first used: ``import hdsgd`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdsgd.comparison import add_diversity, compare
    from hdsgd.diagram import phase_diagram
    from hdsgd.diagram_plots import plot_best_exponents, plot_exponents, plot_phase_diagram, plot_samples
    from hdsgd.errors import SpecificationError
    from hdsgd.finite_d import mean_map
    from hdsgd.initial import Initial
    from hdsgd.model import Problem, Student, Target
    from hdsgd.moments import population_moments, population_risk
    from hdsgd.ode import integrate_ode
    from hdsgd.plotting import (
        plot_comparison,
        plot_deviations,
        plot_overlaps,
        plot_recovery_times,
        plot_risk,
    )
    from hdsgd.predictions import predict
    from hdsgd.recovery import add_exponents, best_exponents, best_samples, compare_exponents, fit_exponents
    from hdsgd.simulation import simulate
    from hdsgd.store import load, save

# No module bears the name of a function exported here: importing it anywhere would put the module in its place.
_HOMES = {
    "Initial": "initial",
    "Problem": "model",
    "SpecificationError": "errors",
    "Student": "model",
    "Target": "model",
    "add_diversity": "comparison",
    "add_exponents": "recovery",
    "best_exponents": "recovery",
    "best_samples": "recovery",
    "compare": "comparison",
    "compare_exponents": "recovery",
    "fit_exponents": "recovery",
    "integrate_ode": "ode",
    "load": "store",
    "mean_map": "finite_d",
    "phase_diagram": "diagram",
    "plot_best_exponents": "diagram_plots",
    "plot_comparison": "plotting",
    "plot_deviations": "plotting",
    "plot_exponents": "diagram_plots",
    "plot_overlaps": "plotting",
    "plot_phase_diagram": "diagram_plots",
    "plot_recovery_times": "plotting",
    "plot_risk": "plotting",
    "plot_samples": "diagram_plots",
    "population_moments": "moments",
    "population_risk": "moments",
    "predict": "predictions",
    "save": "store",
    "simulate": "simulation",
}

__all__ = [
    "Initial",
    "Problem",
    "SpecificationError",
    "Student",
    "Target",
    "add_diversity",
    "add_exponents",
    "best_exponents",
    "best_samples",
    "compare",
    "compare_exponents",
    "fit_exponents",
    "integrate_ode",
    "load",
    "mean_map",
    "phase_diagram",
    "plot_best_exponents",
    "plot_comparison",
    "plot_deviations",
    "plot_exponents",
    "plot_overlaps",
    "plot_phase_diagram",
    "plot_recovery_times",
    "plot_risk",
    "plot_samples",
    "population_moments",
    "population_risk",
    "predict",
    "save",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hdsgd")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"hdsgd.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'hdsgd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
