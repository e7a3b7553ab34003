"""Settings of `digests.py` that draw random numbers: runs, phase diagrams, seeds and starts."""

from __future__ import annotations

import numpy as np
from digest_adapters import (
    Arrays,
    chi_squares,
    fit_lines,
    initial_state,
    normals,
    phase_diagram,
    run,
    seeds,
    simulate,
)  # fmt: skip
from digest_problems import ADAPTIVE, ALGORITHMS, COMMITTEE, FUNCTIONS, GRAM, HE2, HE3, Settings


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
