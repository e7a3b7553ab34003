"""The variables of the network Datasets: the kind of registry that `hdsgd.results.schema` is, for other dims.

Imports no JAX.

It is a registry of its own because names that are scalars there (``batch``, ``lr``) are axes here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from hdsgd.networks.studies import network_versions
from hdsgd.outcomes import OUTCOMES
from hdsgd.records import Record
from hdsgd.results.schema import Variable

__all__ = ["VARIABLES", "finish"]

#: Meaning of every variable and coordinate of `diversity`, `theorem_check`, `saturation` and `epochs`.
VARIABLES = {
    # axes
    "network": Variable(("network",), "architecture, in words"),
    "depth": Variable(("depth",), "weight matrices L (theorem checks: one more than the hidden layers)"),
    "width": Variable(("width",), "units K of every hidden layer"),
    "dim": Variable(("dim",), "input dimension d"),
    "examples": Variable(("examples",), "number of examples n; inf: inputs integrated out exactly"),
    "replica": Variable(("replica",), "index of the independent repetition"),
    "draw": Variable(("draw",), "index of the Monte Carlo draw"),
    "batch": Variable(("batch",), "batch size b"),
    "iteration": Variable(("iteration",), "SGD steps taken"),
    "epoch": Variable(("epoch",), "passes over the data"),
    "eigenvalue": Variable(("eigenvalue",), "index of the eigenvalue, ascending"),
    "candidate": Variable(("candidate",), "step size of the tuning grid"),
    "step": Variable(("step",), "gradient steps taken (bridge)"),
    # networks of a family
    "hidden_layers": Variable(("network",), "hidden layers L"),
    "units": Variable(("network",), "units K of every hidden layer"),
    "parameters": Variable(("network",), "trained parameters"),
    # gradient statistics
    "gradient_diversity": Variable(("network", "replica"), "Delta_S = sum |g_i|² / |sum g_i|²"),
    "batch_bound": Variable(("network", "replica"), "B_S = n Delta_S"),
    "noise_scale": Variable(("network", "replica"), "tr Cov(g_i) / |grad L|² = B_S - 1"),
    "mean_square_norm": Variable(("network", "replica"), "mean of |g_i|², g_i the gradient of one example's loss"),
    "max_square_norm": Variable(("network", "replica"), "maximum of |g_i|²"),
    "gradient_square_norm": Variable(("network", "replica"), "|grad L|²"),
    "loss": Variable(("network", "replica"), "L, the mean loss of an example"),
    "lemma_bound": Variable(("network", "replica", "batch"), "Lemma 3.1: (1/b) mean |g_i|² + |grad L|²"),
    "second_moment": Variable(("network", "replica", "batch"), "E|g_S|², drawn without replacement, exact"),
    "second_moment_replacement": Variable(("network", "replica", "batch"), "E|g_S|², drawn with replacement, exact"),
    "second_moment_sampled": Variable(
        ("network", "replica", "batch"), "E|g_S|² from batches drawn without replacement"
    ),
    "second_moment_error": Variable(("network", "replica", "batch"), "standard error of second_moment_sampled"),
    # tangent kernel
    "gamma_max": Variable(("network", "replica"), "max_i |J_i|²_op (max_i |grad f_i|²), the gamma that always holds"),
    "gamma_min": Variable(("network", "replica"), "smallest valid gamma (NaN: matrices too large)"),
    "mean_jacobian": Variable(("network", "replica"), "mean of |J_i|²_F"),
    "operator_norm": Variable(("network", "replica"), "|grad F|_op, which carries 1/sqrt(n)"),
    "critical_batch": Variable(("network", "replica"), "b* = max_i |grad f_i|² / |grad F|²_op"),
    "ntk_smallest": Variable(("network", "replica"), "smallest eigenvalue of K = grad F grad F^T (NaN: too large)"),
    "ntk_largest": Variable(("network", "replica"), "largest eigenvalue of K"),
    "spectrum": Variable(("network", "replica", "eigenvalue"), "eigenvalues of K, which carries 1/n (NaN: too large)"),
    "beta": Variable(("network", "replica", "batch"), "beta = gamma_max/b + |grad F|²_op"),
    "complexity": Variable(("network", "replica", "batch"), "beta/lambda_min(K): predicted iterations per factor e"),
    # theorem checks
    "numerator": Variable(("depth", "width", "dim", "examples", "draw"), "(1/n) sum |grad f_i|² of one draw"),
    "denominator": Variable(("depth", "width", "dim", "examples", "draw"), "|(1/n) sum grad f_i|² of one draw"),
    "ratio": Variable(("depth", "width", "dim", "examples"), "ratio rho of the expectations, estimated"),
    "ratio_low": Variable(("depth", "width", "dim", "examples"), "lower end of the interval of rho"),
    "ratio_high": Variable(("depth", "width", "dim", "examples"), "upper end of the interval of rho"),
    "ratio_exact": Variable(("depth", "width", "dim", "examples"), "rho in closed form (linear networks)"),
    "bound": Variable(
        ("depth", "width", "dim", "examples"), "the theorem's right side, constants left out for 1 and 2"
    ),
    "diversity_bound": Variable(
        ("depth", "width", "dim", "examples", "draw"), "B_S of one draw (Theorem 2: its ratio)"
    ),
    # saturation
    "loss_curve": Variable(("batch", "replica", "iteration"), "L along training (NaN after a divergence)"),
    "status": Variable(("batch", "replica"), "how the run ended"),
    "exponent": Variable(("batch", "replica"), "h(b) = log(L(w_0)/L(w_T))/T"),
    "exponent_predicted": Variable(("batch", "replica"), "1/htilde(b) = (1/b)/h(1) + ((b-1)/b)/h(n)"),
    "lr": Variable(("batch",), "step size eta"),
    "critical_batch_start": Variable((), "b* at the initial weights of the first replica"),
    "gamma_start": Variable((), "max_i |J_i|²_op at the initial weights of the first replica"),
    "operator_norm_start": Variable((), "|grad F|_op at the initial weights of the first replica"),
    # epochs to a target
    "epochs_to_target": Variable(("network", "batch", "replica"), "epochs until the target; the budget if censored"),
    "iterations_to_target": Variable(
        ("network", "batch", "replica"), "iterations until the target, as epochs_to_target"
    ),
    "reached": Variable(("network", "batch", "replica"), "whether the target was reached"),
    "tuned_lr": Variable(("network", "batch", "replica"), "step size chosen on the grid after the tuning epochs"),
    "tuning_loss": Variable(("network", "batch", "replica", "candidate"), "loss after the tuning epochs"),
    "measure": Variable(("network", "batch", "replica", "epoch"), "loss or accuracy along training (NaN once stopped)"),
    "diversity": Variable(("network", "batch", "replica"), "B_S averaged along training"),
    "diversity_start": Variable(("network", "batch", "replica"), "B_S at the initial weights"),
    "largest_batch": Variable(("network", "replica"), "largest batch that reaches the target within the epoch budget"),
    # bridge
    "population_diversity": Variable(("replica", "step"), "E|g_i|²/|E g_i|² of the Gaussian model, from the overlaps"),
    "population_diversity_n": Variable(
        ("replica", "step"),
        "ratio of expectations for n examples, n B/(B + n - 1) with the population's B",
    ),
    "empirical_diversity": Variable(("replica", "step"), "B_S of the same weights on n fresh examples"),
    "training_diversity": Variable(("replica", "step"), "B_S of the same weights on the training examples"),
    "overlap": Variable(("replica", "step"), "|M|_F, the overlap with the teacher"),
}

#: Datasets in which a name has other leading dims, and `status` one more.
_ALSO = {
    "status": (
        ("batch", "replica"),
        ("network", "batch", "replica"),
        ("network", "replica"),
        ("depth", "width", "dim", "examples"),
    )
}


def finish(
    dataset: xr.Dataset, kind: str, specification: Mapping[str, Any], seed: int, timings: Mapping[str, float]
) -> xr.Dataset:
    """Check the Dataset against the registry, describe its variables, and attach the specification.

    The attributes are those of `hdsgd.results.schema.finish`, with the versions of the optional packages.
    """
    for name in map(str, dataset.variables):
        dims = dataset[name].dims
        if dims not in _ALSO.get(name, (VARIABLES[name].dims,)):
            raise AssertionError(f"{name} has dims {dims}, registered are {VARIABLES[name].dims}")
        dataset[name].attrs["long_name"] = VARIABLES[name].meaning
    if "status" in dataset:
        dataset["status"].attrs["flag_values"] = np.array(list(OUTCOMES.values()), dtype=np.int8)
        dataset["status"].attrs["flag_meanings"] = " ".join(OUTCOMES)
    text = json.dumps(specification, sort_keys=True, separators=(",", ":"), allow_nan=False)
    dataset.attrs = {
        "title": f"hdsgd {kind}",
        "kind": kind,
        "specification": text,
        "digest": Record.digest_of(text),
        "seed": seed,
        "versions": json.dumps(network_versions(), sort_keys=True),
        "timings": json.dumps({key: round(value, 6) for key, value in timings.items()}, sort_keys=True),
    }
    return dataset
