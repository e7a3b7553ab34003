"""The settings of `digests.py`, by name: small problems and plain values, given to adapters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from digest_adapters import (
    Arrays,
    chi_squares,
    compare,
    critical_prefactor,
    fit_lines,
    hermite,
    initial_state,
    leaps,
    learnability,
    lines,
    mean_map,
    moments,
    network_bridge,
    network_diversity,
    network_epochs,
    network_saturation,
    network_theorem,
    network_widths,
    normals,
    ode,
    optimal_point,
    phase_diagram,
    plane,
    predict,
    run,
    scaling,
    seeds,
    simulate,
    step_mean,
)  # fmt: skip

Settings = dict[str, Callable[[], Arrays]]

ALGORITHMS = ("projected", "correlation", "spherical")
CONSTRAINTS = ("projected", "spherical", "none")


# ---------------------------------------------------------------- problems and overlaps

HE2: dict[str, Any] = {"target": "he2", "activation": "he2"}
HE3: dict[str, Any] = {"target": "he3", "activation": "he3"}
GRAM = [[1.0, 0.3], [0.3, 0.8]]
#: Two directions, two units of different weight, noise: takes the general kernels.
COMMITTEE: dict[str, Any] = {
    "target": "he2(z1) + 0.5*z1*z2",
    "activation": "he2",
    "width": 2,
    "second_layer": [1.0, 0.8],
    "noise": 0.1,
}
ADAPTIVE = {"loss": "adaptive", "switch_fraction": 0.8, "switch_factor": 0.5, "switch_decay": 0.1}

#: One problem for each kind of function, which together take every way to the population moments.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "quadratic form": {
        "target": "z1*z2 + z1**2 - 0.2*z2**2 + 0.7", "gram": GRAM, "activation": "x**2 + 0.3", "width": 2,
        "second_layer": [1.3, 0.6], "noise": 0.4,
    },
    "polynomial": {
        "target": "z1 + z1*z2 + z1*z2*z3", "activation": "x**5/30 - 0.2*x**2 + 0.1*x", "width": 2, "noise": 0.1,
    },
    "he3": {"target": "he3(z1) + he2(z2) - 0.5", "activation": "he3", "width": 3, "second_layer": [1.0, 0.7, 1.3]},
    "relu": {"target": "relu(z1) + 0.3*z2", "activation": "relu", "width": 2},
    "relu mixed": {"target": "relu(z1) + 0.3*z2**2", "activation": "relu(0.7*x) + 0.1*x**2", "width": 2, "noise": 0.2},
    "erf": {
        "target": "erf(z1/sqrt(2)) + erf(z2/sqrt(2))", "gram": GRAM, "activation": "erf(x/sqrt(2))", "width": 3,
        "noise": 0.05,
    },
    "erf mixed": {"target": "erf(z1) + 0.2*he2(z1)", "activation": "erf(0.8*x) + 0.1*he3(x)"},
    "tanh": {"target": "tanh(2*z1) - 0.5*tanh(z2)", "activation": "tanh", "width": 2},
}  # fmt: skip


def overlaps(width: int, directions: int, gram: Any = None, *, count: int = 1, scale: float = 1.0) -> dict[str, Any]:
    """Overlaps of random vectors with a teacher; of rows of unit norm if `scale` is 1."""
    rng = np.random.default_rng(12)
    root = np.linalg.cholesky(np.eye(directions) if gram is None else np.array(gram))
    rows = rng.standard_normal((count, width, directions + width + 3))
    rows *= scale / np.linalg.norm(rows, axis=-1, keepdims=True)
    return {"Q": rows @ rows.transpose(0, 2, 1), "M": rows[..., :directions] @ root.T}


def start(*shape: Any, **options: Any) -> dict[str, Any]:
    """`overlaps` as the start of deterministic dynamics."""
    return {f"{name}0": array for name, array in overlaps(*shape, **options).items()}


def function_overlaps(problem: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """`overlaps` that fit a problem."""
    directions = max(n for n in range(1, 4) if f"z{n}" in problem["target"])
    return overlaps(problem.get("width", 1), directions, problem.get("gram"), **options)


# ---------------------------------------------------------------- settings


def simulation_settings() -> Settings:
    few = {"steps": 40, "save_points": 8, "replicas": 3}
    small = {"dim": 48, "batch": 60, "lr": 0.05, "initial": {"overlap": 0.3}, **few}
    large = {"dim": 10**4, "batch": 100, "lr": 8e-4, "steps": 4000, "save_points": 8, "replicas": 3}
    giant = {"dim": 10**6, "batch": 10**12, "lr": 0.05, **few, "steps": 200}
    links = {"dim": 30, "batch": 60, "lr": 0.1, **few, "steps": 200, "initial": "random"}
    free = {**COMMITTEE, "constraint": "none"}
    explicit = {"M": [[0.3, 0.1], [-0.2, 0.4]], "Q": [[1.0, 0.2], [0.2, 1.0]]}
    settings: Settings = {}
    for name in ALGORITHMS:
        rule = {"algorithm": name}
        for engine in ("direct", "direct32", "reduced"):
            settings[f"simulate: {engine}, {name}"] = lambda engine=engine, rule=rule: simulate(
                {**COMMITTEE, **rule}, engine=engine, **small
            )
        for engine in ("moment", "auto"):
            settings[f"simulate: {engine}, {name}"] = lambda engine=engine, rule=rule: simulate(
                {**HE2, **rule}, engine=engine, **large
            )
        settings[f"simulate: moment, several directions, {name}"] = lambda rule=rule: simulate(
            {**COMMITTEE, **rule}, engine="moment", diversity=True, **giant
        )
    for engine in ("direct", "direct32", "reduced", "moment"):
        settings[f"simulate: {engine}, unconstrained"] = lambda engine=engine: simulate(free, engine=engine, **small)
    for engine in ("direct", "reduced", "moment"):
        settings[f"simulate: {engine}, adaptive loss"] = lambda engine=engine: simulate(
            {**COMMITTEE, **ADAPTIVE}, engine=engine, **{**small, "initial": {"overlap": 0.5}, "steps": 80}
        )
    for name in ("he3", "polynomial", "relu mixed", "erf", "tanh"):
        settings[f"simulate: direct, {name}"] = lambda name=name: simulate(FUNCTIONS[name], engine="direct", **links)
        settings[f"simulate: reduced, {name}"] = lambda name=name: simulate(
            FUNCTIONS[name], engine="reduced", diversity=True, **links
        )
    for name in ("polynomial", "relu", "erf", "tanh"):
        settings[f"simulate: auto, {name}"] = lambda name=name: simulate(
            FUNCTIONS[name], engine="auto", **{**giant, "steps": 40, "save_points": 4, "replicas": 2}
        )
    settings |= {
        "simulate: direct in groups of samples": lambda: simulate(
            HE2, engine="direct", dim=2048, batch=4099, lr=0.2, steps=6, save_points=3, replicas=1,
            initial={"overlap": 0.2}
        ),
        "simulate: direct32 in groups of samples": lambda: simulate(
            HE3, engine="direct32", dim=2048, batch=4099, lr=0.02, steps=4, save_points=2, replicas=1,
            initial={"overlap": 0.2}
        ),
        "simulate: reduced, one unit at dimension 1e9": lambda: simulate(
            HE2, engine="exact", dim=10**9, batch=1000, lr=1e-5, initial={"overlap": 0.3}, **few
        ),
        "simulate: exact and auto at a small dimension": lambda: {
            f"{engine}.{name}": array
            for engine in ("exact", "auto")
            for name, array in simulate({**COMMITTEE, "width": 4, "second_layer": None}, engine=engine, dim=8, batch=20,
                                        lr=0.05, **few).items()
        },
        "simulate: divergence": lambda: simulate(
            {**HE3, "constraint": "none"}, engine="reduced", dim=30, batch=5, lr=10.0, **few
        ),
        "simulate: gram matrix, positive start": lambda: simulate(
            {**HE3, "target": "he3(z1) + he3(z2)", "gram": GRAM, "width": 2}, dim=200, mu=1, delta=0.8, gamma0=0.1,
            initial="positive", **few
        ),
        "simulate: explicit start, logarithmic saving": lambda: simulate(
            COMMITTEE, dim=100, batch=20, lr=0.01, initial=explicit, steps=1000, save_points=12, save_spacing="log",
            eta=0.7, replicas=2, seed=5
        ),
        "simulate: chosen steps, prefactors by themselves": lambda: simulate(
            HE2, dim=1000, mu=0.5, delta=0.6, n0=2.0, steps=100, save_points=[1, 7, 50], replicas=70, seed=2**70
        ),
    }  # fmt: skip
    return settings


def run_settings() -> Settings:
    options = {"dim": 60, "batch": 60, "lr": 0.05, "initial": {"overlap": 0.3}}
    return {
        **{
            f"run: {engine}, restored, adaptive loss": lambda engine=engine: run(
                {**COMMITTEE, **ADAPTIVE}, engine=engine, advances=[5, 20, 40], restored=True, **options
            )
            for engine in ("direct", "direct32", "reduced", "moment")
        },
        "run: cost of auto until recovery": lambda: run(
            HE2, engine="auto", dim=10**5, batch=1000, lr=5e-4, advances=[500, 10**6], stop_at_recovery=True, replica=3
        ),
        "run: bounded cost of moment": lambda: run(
            HE2, engine="moment", dim=10**5, batch=1000, lr=5e-4, advances=[10**6], max_cost=5000
        ),
    }


def diagram_settings() -> Settings:
    grid = {"mu": [0.0, 0.5, 1.0, 1.5], "delta": [-0.5, 0.0, 0.5, 1.0], "replicas": 4}
    several = {**grid, "dims": [1000, 10**4, 10**5]}
    small = {**grid, "dims": 60, "mu": [0.5, 1.5], "max_cost": 1e5}
    contrary = [[1.0, -1.0], [-1.0, 1.0]]
    return {
        "phase diagram: he2": lambda: phase_diagram(HE2, dims=1000, mu=np.linspace(0, 2, 9),
                                                    delta=np.linspace(-1, 1.5, 11), replicas=8),
        "phase diagram: he2, several dimensions": lambda: phase_diagram(HE2, **several),
        "phase diagram: he3, several dimensions": lambda: phase_diagram(
            HE3, **{**several, "dims": [100, 1000, 10**4], "mu": [1.0, 2.0, 2.5], "replicas": 8}, max_cost=1e6
        ),
        "phase diagram: he1, several dimensions": lambda: phase_diagram(
            {"target": "he1", "activation": "he1", "noise": 0.2}, **several
        ),
        "phase diagram: two directions, several dimensions": lambda: phase_diagram(
            {**COMMITTEE, "noise": 0.0}, **{**several, "dims": [500, 2000], "replicas": 3}, algorithms=["spherical"]
        ),
        **{
            f"phase diagram: {engine}": lambda engine=engine: phase_diagram(HE2, engine=engine, **small)
            for engine in ("direct", "direct32", "reduced", "moment", "exact")
        },
        "phase diagram: adaptive loss": lambda: phase_diagram(HE2, loss="adaptive", algorithms=["projected"], **small),
        "phase diagram: divergence without constraint": lambda: phase_diagram(
            HE2, dims=40, mu=[0.0, 1.0], delta=[-100.0, 0.5], algorithms=["projected"], constraint="none", n0=1.0,
            gamma0=1.0, replicas=3
        ),
        "phase diagram: cells over budget": lambda: phase_diagram(
            HE2, engine="reduced", **{**small, "dims": [40, 60], "max_cost": 2000}
        ),
        "phase diagram: runs cut short": lambda: phase_diagram(HE2, engine="auto", **{**several, "max_cost": 3000}),
        "phase diagram: failing cells": lambda: phase_diagram(
            {"target": "he3(z1) + 0.5*he3(z2)", "gram": contrary, "activation": "he3"}, dims=[50, 100], mu=[1.0],
            delta=[0.5], algorithms=["projected"], initial="positive", replicas=2
        ),
        "phase diagram: given steps and prefactors, overlap": lambda: phase_diagram(
            COMMITTEE, **{**grid, "dims": 300, "replicas": 66}, n0=0.5, gamma0=0.05, max_steps=50,
            initial={"overlap": 0.1}, eta=0.6, seed=9
        ),
        "phase diagram: relu": lambda: phase_diagram(
            {"target": "relu", "activation": "relu"}, **{**small, "dims": 1000, "max_cost": 3e6},
            algorithms=["correlation"]
        ),
        "phase diagram: erf": lambda: phase_diagram(FUNCTIONS["erf"], **{**small, "dims": 1000}),
    }  # fmt: skip


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


def seed_settings() -> Settings:
    problem = {**COMMITTEE, "gram": GRAM}
    explicit = {"M": [[0.3, 0.1], [-0.2, 0.4]]}
    laws = {"random": "random", "positive": "positive", "overlap": {"overlap": -0.4}, "explicit": explicit}

    def censored() -> Arrays:
        rng = np.random.default_rng(4)
        x, slopes = np.log([1e2, 1e3, 1e4]), np.linspace(0, 1.5, 12)
        times = np.ceil(np.exp(1 + slopes[:, None, None] * x[:, None] + 0.3 * rng.standard_normal((12, 3, 8))))
        spent = times > 1e4
        low = np.where(spent, np.log(1e4), np.log(np.maximum(times - 1, 0.5)))
        return fit_lines(x, low, np.where(spent, np.inf, np.log(times)), rng.random(times.shape) < 0.9)

    return {
        "seeds of cells and children": lambda: {
            f"{seed}.{name}": array
            for seed in (0, 7, 2**40, 2**200)
            for name, array in seeds(seed, {"dim": 10, "lr": 0.1, "problem": {"target": "he2"}},
                                     [(0, 1), (1, 0), (5, 1), (2**31, 3)], 9).items()
        },
        "normals in double precision": lambda: normals(1, [5, 100_000, 1, 40_000]),
        "normals in single precision": lambda: normals(2, [3, 100_000, 1, 40_000], single=True),
        "chi-squared variates": lambda: chi_squares(3, [0.5, 1.0, 1.7, 2.0, 10.5, 1e3, 1e6, 1e15], 200),
        "starts": lambda: {
            f"{name}.{key}": array
            for name, law in laws.items()
            for key, array in initial_state(problem, law, dim=50, seed=8, count=70).items()
        },
        "start at the smallest dimensions": lambda: {
            f"{dim}.{key}": array
            for dim in (3, 4)
            for key, array in initial_state({**problem, "width": 4, "second_layer": None}, "random", dim=dim, seed=1,
                                            count=3).items()
        },
        "lines through censored times": censored,
    }  # fmt: skip


def network_settings() -> Settings:
    def dense(depth: int, width: int, activation: str, **options: Any) -> dict[str, Any]:
        return {"kind": "fully-connected", "depth": depth, "width": width, "activation": activation, **options}

    def characters() -> Arrays:
        text = "".join(chr(97 + n * n % 11) for n in range(12 * 17 + 1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "text.txt")
            path.write_text(text)
            return network_saturation({
                "network": {"kind": "gpt", "layers": 1, "heads": 2, "channels": 8, "context": 12},
                "data": {"source": "text", "name": str(path), "context": 12}, "steps": 4, "points": 2, "batches": [4],
                "lr": 0.05, "loss": "cross-entropy",
            })  # fmt: skip

    gaussian = {"source": "gaussian", "n": 48, "dim": 8}
    infinite, linear = float("inf"), {"parametrisation": "unit"}
    return {
        "networks: diversity, gaussian data": lambda: network_diversity({
            "networks": [dense(1, 6, "linear", **linear), dense(2, 4, "linear", **linear)], "data": gaussian,
            "matched_teacher": True, "replicas": 2, "dtype": "float64", "draws": 8, "batches": [1, 8, 48],
        }),
        "networks: diversity, digits": lambda: network_diversity({
            "networks": [dense(1, 8, "tanh")], "data": {"n": 64, "normalise": "centre", "labels": "parity"},
            "replicas": 2, "batches": [1, 16],
        }),
        "networks: diversity, few parameters, matrices too large": lambda: {
            f"{limit}.{name}": array
            for limit in (1000, 4)
            for name, array in network_diversity({
                "networks": [dense(0, 1, "linear")], "data": {**gaussian, "outputs": 2, "noise": 0.1},
                "dtype": "float64", "limit": limit, "replicas": 2, "batches": [4],
            }).items()
        },
        "networks: diversity, convolutions": lambda: network_diversity({
            "networks": [{"kind": "lenet", "width": 7, "channels": [2, 3]},
                         {"kind": "resnet", "blocks": [1, 1], "channels": 4}],
            "data": {"n": 24}, "replicas": 1, "batches": [8], "tangent": False, "loss": "cross-entropy",
        }),
        "networks: theorem 1": lambda: network_theorem(
            {"theorem": 1, "depths": [2], "widths": [2, 8], "dims": [10], "examples": [50.0, infinite], "draws": 200}
        ),
        "networks: theorem 2": lambda: network_theorem(
            {"theorem": 2, "depths": [2], "widths": [2, 8], "dims": [10], "examples": [100.0], "draws": 20,
             "activation": "softsign"}
        ),
        "networks: theorem 3": lambda: network_theorem(
            {"theorem": 3, "depths": [2, 4], "widths": [4, 16], "dims": [20], "examples": [infinite], "draws": 200}
        ),
        "networks: saturation, least squares": lambda: network_saturation({
            "network": dense(0, 1, "linear"), "data": {**gaussian, "dim": 64}, "steps": 60, "points": 6,
            "batches": [8], "lr_fraction": 1.0, "dtype": "float64", "replicas": 2,
        }),
        "networks: saturation, digits": lambda: network_saturation({
            "network": dense(2, 12, "tanh", parametrisation="ntk"), "data": {"n": 64, "normalise": "centre"},
            "steps": 30, "points": 3, "batches": [8], "stepsize": "theorem", "constants_from": 40,
        }),
        "networks: saturation, cross-entropy": lambda: network_saturation({
            "network": dense(1, 12, "relu", bias=True), "data": {"n": 64}, "steps": 30, "points": 3, "batches": [8],
            "lr": 0.05, "loss": "cross-entropy",
        }),
        "networks: saturation, characters": characters,
        "networks: epochs to a loss": lambda: network_epochs({
            "networks": [dense(1, 6, "linear"), dense(2, 5, "linear")], "data": gaussian, "batches": [8, 16],
            "measure": "loss", "target": 0.05, "relative": True, "loss": "square", "rates": [0.03, 0.1],
            "max_epochs": 12, "diversity_every": 4, "replicas": 2,
        }),
        "networks: epochs to an accuracy": lambda: network_epochs({
            "networks": [dense(1, 16, "relu")], "data": {"n": 128}, "batches": [16, 32], "target": 0.9,
            "rates": [0.05, 0.2], "max_epochs": 8, "epoch_budget": 6, "diversity_every": 2, "replicas": 1,
            "sampling": "replacement",
        }),
        "networks: widths of a budget": lambda: network_widths(16_000, [1, 2, 4, 7, 10], 784, 10),
        "networks: bridge": lambda: network_bridge(
            {"target": "he2", "activation": "he2", "width": 2, "noise": 0.1, "constraint": "spherical"}, dim=16, n=64,
            batch=8, lr=0.02, steps=30, save_points=5, replicas=2
        ),
    }  # fmt: skip


def all_settings() -> Settings:
    groups = (
        simulation_settings(), run_settings(), diagram_settings(), dynamics_settings(), moment_settings(),
        theory_settings(), seed_settings(), network_settings(),
    )  # fmt: skip
    return {name: setting for group in groups for name, setting in group.items()}
