"""Small problems and overlaps that the settings of `digests.py` share, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from digest_adapters import Arrays

Settings = dict[str, Callable[[], Arrays]]

ALGORITHMS = ("projected", "correlation", "spherical")
CONSTRAINTS = ("projected", "spherical", "none")

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
