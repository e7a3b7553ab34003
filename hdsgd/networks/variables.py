"""The variables of the network Datasets: the kind of registry that `hdsgd.results.schema` is, for other dims.

Imports no JAX.

It is a registry of its own because names that are scalars there (``batch``, ``lr``) are axes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from hdsgd.networks.studies import PROGRAMS
from hdsgd.registry import Registry
from hdsgd.results import schema as results
from hdsgd.results.schema import Variable

__all__ = ["VARIABLES", "finish"]

#: Meaning of every variable and coordinate of `diversity`, `theorem_check`, `saturation` and `epochs`.
VARIABLES: Registry[Variable] = Registry(
    "network variable",
    [
        # axes
        Variable("network", ("network",), "architecture, in words"),
        Variable("depth", ("depth",), "weight matrices L (theorem checks: one more than the hidden layers)"),
        Variable("width", ("width",), "units K of every hidden layer"),
        Variable("dim", ("dim",), "input dimension d"),
        Variable("examples", ("examples",), "number of examples n; inf: inputs integrated out exactly"),
        Variable("replica", ("replica",), "index of the independent repetition"),
        Variable("draw", ("draw",), "index of the Monte Carlo draw"),
        Variable("batch", ("batch",), "batch size b"),
        Variable("iteration", ("iteration",), "SGD steps taken"),
        Variable("epoch", ("epoch",), "passes over the data"),
        Variable("eigenvalue", ("eigenvalue",), "index of the eigenvalue, ascending"),
        Variable("candidate", ("candidate",), "step size of the tuning grid"),
        Variable("step", ("step",), "gradient steps taken (bridge)"),
        # networks of a family
        Variable("hidden_layers", ("network",), "hidden layers L"),
        Variable("units", ("network",), "units K of every hidden layer"),
        Variable("parameters", ("network",), "trained parameters"),
        # gradient statistics
        Variable("gradient_diversity", ("network", "replica"), "Delta_S = sum |g_i|² / |sum g_i|²"),
        Variable("batch_bound", ("network", "replica"), "B_S = n Delta_S"),
        Variable("noise_scale", ("network", "replica"), "tr Cov(g_i) / |grad L|² = B_S - 1"),
        Variable("mean_square_norm", ("network", "replica"), "mean of |g_i|², g_i the gradient of one example's loss"),
        Variable("max_square_norm", ("network", "replica"), "maximum of |g_i|²"),
        Variable("gradient_square_norm", ("network", "replica"), "|grad L|²"),
        Variable("loss", ("network", "replica"), "L, the mean loss of an example"),
        Variable("lemma_bound", ("network", "replica", "batch"), "Lemma 3.1: (1/b) mean |g_i|² + |grad L|²"),
        Variable("second_moment", ("network", "replica", "batch"), "E|g_S|², drawn without replacement, exact"),
        Variable(
            "second_moment_replacement", ("network", "replica", "batch"), "E|g_S|², drawn with replacement, exact"
        ),
        Variable(
            "second_moment_sampled", ("network", "replica", "batch"), "E|g_S|² from batches drawn without replacement"
        ),
        Variable("second_moment_error", ("network", "replica", "batch"), "standard error of second_moment_sampled"),
        # tangent kernel
        Variable(
            "gamma_max", ("network", "replica"), "max_i |J_i|²_op (max_i |grad f_i|²), the gamma that always holds"
        ),
        Variable("gamma_min", ("network", "replica"), "smallest valid gamma (NaN: matrices too large)"),
        Variable("mean_jacobian", ("network", "replica"), "mean of |J_i|²_F"),
        Variable("operator_norm", ("network", "replica"), "|grad F|_op, which carries 1/sqrt(n)"),
        Variable("critical_batch", ("network", "replica"), "b* = max_i |grad f_i|² / |grad F|²_op"),
        Variable("ntk_smallest", ("network", "replica"), "smallest eigenvalue of K = grad F grad F^T (NaN: too large)"),
        Variable("ntk_largest", ("network", "replica"), "largest eigenvalue of K"),
        Variable(
            "spectrum", ("network", "replica", "eigenvalue"), "eigenvalues of K, which carries 1/n (NaN: too large)"
        ),
        Variable("beta", ("network", "replica", "batch"), "beta = gamma_max/b + |grad F|²_op"),
        Variable(
            "complexity", ("network", "replica", "batch"), "beta/lambda_min(K): predicted iterations per factor e"
        ),
        # theorem checks
        Variable("numerator", ("depth", "width", "dim", "examples", "draw"), "(1/n) sum |grad f_i|² of one draw"),
        Variable("denominator", ("depth", "width", "dim", "examples", "draw"), "|(1/n) sum grad f_i|² of one draw"),
        Variable("ratio", ("depth", "width", "dim", "examples"), "ratio rho of the expectations, estimated"),
        Variable("ratio_low", ("depth", "width", "dim", "examples"), "lower end of the interval of rho"),
        Variable("ratio_high", ("depth", "width", "dim", "examples"), "upper end of the interval of rho"),
        Variable("ratio_exact", ("depth", "width", "dim", "examples"), "rho in closed form (linear networks)"),
        Variable(
            "bound", ("depth", "width", "dim", "examples"), "the theorem's right side, constants left out for 1 and 2"
        ),
        Variable(
            "diversity_bound", ("depth", "width", "dim", "examples", "draw"), "B_S of one draw (Theorem 2: its ratio)"
        ),
        # saturation
        Variable("loss_curve", ("batch", "replica", "iteration"), "L along training (NaN after a divergence)"),
        Variable("status", (), "how the run ended"),
        Variable("exponent", ("batch", "replica"), "h(b) = log(L(w_0)/L(w_T))/T"),
        Variable("exponent_predicted", ("batch", "replica"), "1/htilde(b) = (1/b)/h(1) + ((b-1)/b)/h(n)"),
        Variable("lr", ("batch",), "learning rate"),
        Variable("critical_batch_start", (), "b* at the initial weights of the first replica"),
        Variable("gamma_start", (), "max_i |J_i|²_op at the initial weights of the first replica"),
        Variable("operator_norm_start", (), "|grad F|_op at the initial weights of the first replica"),
        # epochs to a target
        Variable(
            "epochs_to_target", ("network", "batch", "replica"), "epochs until the target; the budget if censored"
        ),
        Variable(
            "iterations_to_target", ("network", "batch", "replica"), "iterations until the target, as epochs_to_target"
        ),
        Variable("reached", ("network", "batch", "replica"), "whether the target was reached"),
        Variable("tuned_lr", ("network", "batch", "replica"), "step size chosen on the grid after the tuning epochs"),
        Variable("tuning_loss", ("network", "batch", "replica", "candidate"), "loss after the tuning epochs"),
        Variable(
            "measure", ("network", "batch", "replica", "epoch"), "loss or accuracy along training (NaN once stopped)"
        ),
        Variable("diversity", ("network", "batch", "replica"), "B_S averaged along training"),
        Variable("diversity_start", ("network", "batch", "replica"), "B_S at the initial weights"),
        Variable(
            "largest_batch", ("network", "replica"), "largest batch that reaches the target within the epoch budget"
        ),
        # bridge
        Variable(
            "population_diversity", ("replica", "step"), "E|g_i|²/|E g_i|² of the Gaussian model, from the overlaps"
        ),
        Variable(
            "population_diversity_n",
            ("replica", "step"),
            "ratio of expectations for n examples, n B/(B + n - 1) with the population's B",
        ),
        Variable("empirical_diversity", ("replica", "step"), "B_S of the same weights on n fresh examples"),
        Variable("training_diversity", ("replica", "step"), "B_S of the same weights on the training examples"),
        Variable("overlap", ("replica", "step"), "|M|_F, the overlap with the teacher"),
    ],
)


def finish(
    dataset: xr.Dataset, kind: str, specification: Mapping[str, Any], seed: int, timings: Mapping[str, float]
) -> xr.Dataset:
    """`hdsgd.results.schema.finish` with the variables of networks and the versions of the optional packages."""
    return results.finish(dataset, kind, specification, seed, timings, variables=VARIABLES, programs=PROGRAMS)
