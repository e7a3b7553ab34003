"""Settings of `digests.py` on theory: deterministic dynamics, runs beside them, moments, exponents, prefactors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from digest_adapters import (
    Arrays,
    compare,
    critical_prefactor,
    hermite,
    leaps,
    learnability,
    lines,
    mean_map,
    moments,
    ode,
    optimal_point,
    plane,
    predict,
    scaling,
    step_mean,
)  # fmt: skip
from digest_problems import (
    ADAPTIVE,
    ALGORITHMS,
    COMMITTEE,
    CONSTRAINTS,
    FUNCTIONS,
    GRAM,
    HE2,
    HE3,
    Settings,
    function_overlaps,
    overlaps,
    start,
)


def dynamics_settings() -> Settings:
    one, two = start(2, 2), start(2, 2, count=3)
    finite = {"dim": 200, "batch": 20, "lr": 0.02, "steps": 200}
    known = {"dim": 10**4, "save": 20}
    saad = {**start(3, 2, GRAM), "time": 5.0, "save": 20}
    return {
        "compare: population flow": lambda: compare(
            HE2, dims=[100, 400], mu=0.5, delta=0.75, time=1.0, points=10, replicas=8, initial={"overlap": 0.2}
        ),
        "compare: Saad & Solla": lambda: compare(
            COMMITTEE, dims=[100, 200, 400], mu=0.5, delta=0.5, time=0.5, gamma0=0.1, points=8, replicas=6
        ),
        "compare: noise dominated, spherical": lambda: compare(
            {**HE2, "constraint": "spherical"}, dims=[100, 300], mu=0.2, delta=0.6, time=0.02, gamma0="auto",
            points=6, replicas=6, engine="reduced"
        ),
        "ODE: population flow": lambda: ode(COMMITTEE, time=2.0, mu=1.0, delta=1.0, save=20, **two),
        "ODE: Saad & Solla, erf": lambda: ode(FUNCTIONS["erf"], regime="Saad & Solla", gamma0=0.5, **saad),
        "ODE: Saad & Solla, steps": lambda: ode(COMMITTEE, **finite, **one),
        "ODE: noise dominated": lambda: ode(COMMITTEE, steps=1000, mu=0.5, delta=0.4, gamma0=0.1, **known, **one),
        "ODE: finite d, projected": lambda: ode(COMMITTEE, **finite, finite_d=True, **one),
        "ODE: finite d, spherical, within no batch": lambda: ode(
            {**COMMITTEE, "constraint": "spherical"}, **finite, finite_d=True, intra_batch=False, **one
        ),
        "ODE: unconstrained, correlation": lambda: ode(
            {**COMMITTEE, "constraint": "none", "loss": "correlation"}, time=0.3, regime="population flow", save=10,
            **start(2, 2, scale=0.7)
        ),
        "ODE: adaptive loss": lambda: ode(
            {**COMMITTEE, **ADAPTIVE}, time=3.0, mu=0.6, delta=0.5, gamma0=0.2, eta=0.6, **known, **one
        ),
        "ODE: other methods": lambda: {
            f"{method}.{name}": array
            for method in ("DOP853", "RK45", "RK23", "Radau", "BDF")
            for name, array in ode(HE3, time=3.0, mu=1.0, delta=1.0, method=method, rtol=1e-5, save=[0.5, 1.0, 3.0],
                                   Q0=[[1.0]], M0=[[0.2]]).items()
        },
        **{
            f"mean map: {constraint}": lambda constraint=constraint: mean_map(
                {**COMMITTEE, "constraint": constraint}, **finite, save=10, **two
            )
            for constraint in CONSTRAINTS
        },
        "mean map: adaptive loss": lambda: mean_map({**COMMITTEE, **ADAPTIVE}, **finite, save=[0, 7, 200], **one),
        "mean map: relu, within no batch": lambda: mean_map(
            FUNCTIONS["relu mixed"], **{**finite, "steps": 20}, save=5, intra_batch=False, **start(2, 2)
        ),
        "mean map: divergence": lambda: mean_map(
            {**HE3, "constraint": "none"}, dim=10, batch=1, lr=1.0, steps=50, Q0=[[1.0]], M0=[[0.1]]
        ),
        "mean of a step": lambda: {
            f"{constraint}.{loss}.{name}": array
            for constraint in CONSTRAINTS
            for loss in ("square", "correlation")
            for name, array in step_mean({**COMMITTEE, "constraint": constraint}, dim=50, batch=7, lr=0.1, loss=loss,
                                         **{key: array[0] for key, array in overlaps(2, 2).items()}).items()
        },
    }  # fmt: skip


def moment_settings() -> Settings:
    return {
        **{
            f"moments: {name}": lambda problem=problem: moments(problem, **function_overlaps(problem, count=3))
            for name, problem in FUNCTIONS.items()
        },
        "moments: free norms": lambda: {
            f"{name}.{key}": array
            for name in ("quadratic form", "polynomial", "erf")
            for key, array in moments(FUNCTIONS[name], **function_overlaps(FUNCTIONS[name], scale=1.6)).items()
        },
    }


def theory_settings() -> Settings:
    def each(function: Callable[..., Arrays], cases: Mapping[str, tuple[Any, ...]], **options: Any) -> Arrays:
        found = {case: function(*arguments, **options) for case, arguments in cases.items()}
        return {f"{case}.{name}": array for case, arrays in found.items() for name, array in arrays.items()}

    rows = {f"{name} {ell}": (ell, name) for name in ALGORITHMS for ell in (1, 2, 3, 4)}
    axes = {"mu": np.linspace(-0.5, 3.5, 17), "delta": np.linspace(-2, 2.5, 19)}
    merged = {"target": "z1 + z1*z2 + z1*z2*z3", "activation": "he1(x) + he2(x) + he3(x)", "width": 2}
    unlearnable = {"target": "he2(z1) + he3(z2) + z1*z3**2", "activation": "square", "width": 2}
    skewed = {"target": "he3(z1) + 0.2*z1*z2**2", "gram": GRAM, "activation": "he3(x) + 0.001*he1(x)", "noise": 0.1}
    problems = {
        "he2": HE2,
        "he3": HE3,
        "committee": COMMITTEE,
        "staircase": merged,
        "unlearnable": unlearnable,
        **FUNCTIONS,
    }
    rules = {f"{name}, {rule}": ({**problems[name], "algorithm": rule},)
             for name in ("he2", "he3", "committee", "staircase", "erf", "relu") for rule in ALGORITHMS}  # fmt: skip
    return {
        "predict: he2": lambda: predict(HE2, 1000),
        "predict: he3 with noise, large dimension": lambda: predict({**HE3, "noise": 0.3}, 10**9, eta=0.3),
        "predict: staircase": lambda: predict(merged, 10**4),
        "predict: small signal of order one": lambda: predict(skewed, 500, algorithm=["spherical", "projected"]),
        "predict: unlearnable directions": lambda: predict(unlearnable, 100, prefactor=False),
        "predict: relu": lambda: predict(FUNCTIONS["relu"], 1000),
        "predict: signal of the wrong sign": lambda: predict({**HE2, "second_layer": [-1.0]}, 1000),
        "critical prefactors": lambda: each(critical_prefactor, rules),
        "critical prefactors at a dimension": lambda: each(critical_prefactor, rules, dim=10**4, eta=0.4, size=2.3),
        "exponents over the plane": lambda: each(plane, rows, **axes),
        "exponents over the plane at a dimension": lambda: each(plane, rows, **axes, log_dim=1000.0),
        "boundaries": lambda: each(lines, rows),
        "boundaries in a box": lambda: each(lines, rows, mu_range=(0.3, 1.7), delta_range=(-0.4, 1.1)),
        "optimal points": lambda: {
            **each(optimal_point, rows),
            **each(optimal_point, {f"one step {key}": row for key, row in rows.items() if row[1] != "projected"},
                   one_step=True),
        },
        "leaps": lambda: each(leaps, {
            "staircase": (merged["target"],),
            "product": ("z1*z2*z3 + he2(z4)",),
            "gram": ("he2(z1) + z1*z2**2", GRAM),
            "irrational": ("sqrt(2)*he3(z1) + z1*z2", GRAM),
            "links": ("relu(z1) + tanh(z2) + z1*z3",),
            "rotated": ("he3(z1 + z2) - he2(z1 - 2*z2) + he4(z3)",),
        }),
        "learnability": lambda: each(learnability, {name: (problem,) for name, problem in problems.items()}),
        "Hermite coefficients and forms": lambda: each(
            hermite, {f"{name} {order}": (problem, order) for name, problem, order in (
                ("polynomial", FUNCTIONS["polynomial"], 3), ("quadratic form", FUNCTIONS["quadratic form"], 2),
                ("relu", FUNCTIONS["relu mixed"], 2), ("erf", FUNCTIONS["erf"], 3), ("tanh", FUNCTIONS["tanh"], 1),
                ("skewed", skewed, 3))}
        ),
        "scaling": lambda: scaling([2, 1000, 10**9], [-1.0, 0.0, 0.5, 1.0, 1.9], [-1.0, 0.0, 0.3, 2.0], 1.7, 0.3),
    }  # fmt: skip
