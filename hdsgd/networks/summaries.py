"""Summaries of the studies of networks.  Imports no JAX."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hdsgd.networks.specs import network_title
from hdsgd.outcomes import OUTCOMES
from hdsgd.results.summaries import problem_line, seconds_of, specification_of

__all__ = [
    "summarise_bridge",
    "summarise_diversity",
    "summarise_epochs",
    "summarise_saturation",
    "summarise_theorem",
]


def summarise_diversity(dataset: xr.Dataset) -> str:
    """Batch-size constants of each network at random weights."""
    spec = specification_of(dataset)
    names = ["batch_bound", "gamma_max", "gamma_min", "operator_norm", "critical_batch", "ntk_smallest"]
    names = [name for name in names if name in dataset]
    heads = {"batch_bound": "B_S", "operator_norm": "|grad F|", "critical_batch": "b*", "ntk_smallest": "min eig K"}
    width = max(len(str(x)) for x in dataset["network"].values)
    lines = [
        f"run     {spec['data']['name'] or spec['data']['source']}, n = {spec['n']}, {spec['replicas']} replicas in "
        f"{seconds_of(dataset):.1f} s; medians over replicas",
        "",
        f"{'network':{width}} {'parameters':>11} " + " ".join(f"{heads.get(name, name):>11}" for name in names),
    ]
    for i, label in enumerate(dataset["network"].values):
        middle = [float(dataset[name][i].median()) for name in names]
        lines.append(
            f"{label!s:{width}} {int(dataset['parameters'][i]):11} " + " ".join(f"{value:11.4g}" for value in middle)
        )
    return "\n".join(lines)


def summarise_theorem(dataset: xr.Dataset) -> str:
    """A theorem's ratios and bounds."""
    spec = specification_of(dataset)
    lines = [
        f"Theorem {spec['theorem']}, {spec['draws']} draws per cell in {seconds_of(dataset):.1f} s; "
        f"interval {spec['confidence']:.0%}",
        "",
        f"{'L':>3} {'K':>5} {'d':>5} {'n':>7} {'ratio':>9} {'low':>9} {'high':>9} {'exact':>9} {'bound':>9} "
        f"{'ratio/bound':>12}",
    ]
    for index in np.ndindex(dataset["ratio"].shape):
        cell = dataset.isel(dict(zip(("depth", "width", "dim", "examples"), index, strict=True)))
        ratio, bound = float(cell["ratio"]), float(cell["bound"])
        lines.append(
            f"{int(cell['depth']):3} {int(cell['width']):5} {int(cell['dim']):5} {float(cell['examples']):7g} "
            f"{ratio:9.4g} "
            f"{float(cell['ratio_low']):9.4g} {float(cell['ratio_high']):9.4g} {float(cell['ratio_exact']):9.4g} "
            f"{bound:9.4g} {ratio / bound:12.3f}"
        )
    below = int((dataset["ratio_high"] < dataset["bound"]).sum())
    if spec["theorem"] == 3:
        lines += ["", f"the bound (4.1) fails in {below} of {dataset['ratio'].size} cells (interval wholly below it)"]
    return "\n".join(lines)


def summarise_saturation(dataset: xr.Dataset) -> str:
    """Loss and convergence exponent of each batch size."""
    spec = specification_of(dataset)
    h, predicted = dataset["exponent"].values, dataset["exponent_predicted"].values
    critical = float(dataset["critical_batch_start"])
    lines = [
        f"network {network_title(spec['network'])}; {spec['parameters']} parameters",
        f"run     n = {spec['n']}, {spec['steps']} iterations, {spec['replicas']} replicas in "
        f"{seconds_of(dataset):.1f} s",
        f"start   max|J_i|² = {float(dataset['gamma_start']):.4g}, "
        f"|grad F|² = {float(dataset['operator_norm_start']) ** 2:.4g}, "
        f"critical batch b* = {critical:.3g}",
        "",
        f"{'b':>7} {'lr':>10} {'L(w_T)':>10} {'h(b)':>10} {'predicted':>10} {'h/predicted':>12}",
    ]
    for i, b in enumerate(dataset["batch"].values):
        diverged = int((dataset["status"].values[i] == OUTCOMES["diverged"]).sum())
        last = dataset["loss_curve"].values[i, :, -1]
        row = [np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else np.nan for v in (last, h[i], predicted[i])]
        lines.append(
            f"{b:7} {float(dataset['lr'][i]):10.4g} {row[0]:10.4g} {row[1]:10.4g} {row[2]:10.4g} "
            f"{row[1] / row[2]:12.3f}" + (f"  diverged in {diverged} of {len(h[i])}" if diverged else "")
        )
    return "\n".join(lines)


def summarise_epochs(dataset: xr.Dataset) -> str:
    """Epochs to the target of each network and batch size."""
    spec = specification_of(dataset)
    mean = dataset["epochs_to_target"].mean("replica").values
    reached = dataset["reached"].all("replica").values
    best = dataset["largest_batch"].values
    diversity = dataset["diversity"].values
    width = max(len(str(x)) for x in dataset["network"].values)
    lines = [
        f"run     n = {spec['n']}, target {spec['measure']} {spec['target']:g}, {spec['replicas']} replicas in "
        f"{seconds_of(dataset):.1f} s",
        f"epochs  mean over replicas, > where some did not reach the target in {spec['max_epochs']}",
        "",
        f"{'network':{width}} " + " ".join(f"{'b=' + str(b):>8}" for b in dataset["batch"].values)
        + f" {'parameters':>11} {'largest b':>10} {'B_S':>8}",
    ]  # fmt: skip
    for i, name in enumerate(dataset["network"].values):
        cells = [f"{'' if ok else '>'}{value:.1f}" for value, ok in zip(mean[i], reached[i], strict=True)]
        largest = np.median(best[i][np.isfinite(best[i])]) if np.isfinite(best[i]).any() else np.nan
        seen = diversity[i][np.isfinite(diversity[i])]
        lines.append(
            f"{name!s:{width}} " + " ".join(f"{cell:>8}" for cell in cells)
            + f" {int(dataset['parameters'][i]):11} {largest:10.0f} {seen.mean() if len(seen) else np.nan:8.3g}"
        )  # fmt: skip
    return "\n".join(lines)


def summarise_bridge(dataset: xr.Dataset) -> str:
    """Gradient diversity by the formula and of the same weights on finitely many examples, at the first and last step.

    Medians over replicas.
    """
    spec = specification_of(dataset)
    lines = [
        problem_line(spec["problem"]),
        f"run     d = {spec['dim']}, n = {spec['n']}, batch {spec['batch']}, learning rate {spec['lr']:.6g}, "
        f"{spec['steps']} steps, {spec['replicas']} replicas in {seconds_of(dataset):.1f} s",
    ]
    for name, label in (
        ("population_diversity_n", "formula"),
        ("empirical_diversity", "fresh examples"),
        ("training_diversity", "training examples"),
    ):
        first, last = (float(dataset[name].isel(step=step).median()) for step in (0, -1))
        lines.append(f"B_S     {label}: {first:.4g} -> {last:.4g}")
    return "\n".join(lines)
