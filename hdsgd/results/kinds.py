"""Kinds of results: for each what it holds, how it is summarised and how it is drawn.

A result names its kind in the attribute ``kind``.  The functions stand beside the study that makes the result and are
imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hdsgd.registry import Registry

__all__ = ["RESULT_KINDS", "ResultKind", "View"]


@dataclass(frozen=True)
class View:
    """One way to draw a kind of result.

    Parameters
    ----------
    name, summary : str
    draw : str or callable
        ``draw(dataset, figure)`` fills a Matplotlib figure; or where it is, as "module:function".
    """

    name: str
    summary: str
    draw: str | Callable[..., None]


@dataclass(frozen=True)
class ResultKind:
    """One kind of result.

    Parameters
    ----------
    name : str
        The attribute ``kind`` of such a Dataset.
    summary : str
        What it is, in one line.
    variables : tuple of str
        What such a Dataset must hold.
    summarise : str or callable
        ``summarise(dataset)`` returns text of one screen; or where it is, as "module:function".
    draw : str or callable, optional
        ``draw(dataset, figure)`` fills a Matplotlib figure; or where it is.  None if there are planes, or nothing to
        draw.
    planes : tuple of View
        Choices of what to draw, the first by default.

    Examples
    --------
    >>> RESULT_KINDS["simulate"].summary
    'replicas of a run'
    >>> [plane.name for plane in RESULT_KINDS["phase-diagram"].planes]
    ['mu-delta', 'mu-theta', 'mu-samples']
    """

    name: str
    summary: str
    variables: tuple[str, ...]
    summarise: str | Callable[..., str]
    draw: str | Callable[..., None] | None = None
    planes: tuple[View, ...] = ()


#: Every kind of result; `hdsgd.register` adds one of your own.
RESULT_KINDS: Registry[ResultKind] = Registry(
    "result kind",
    [
        ResultKind(
            "simulate", "replicas of a run", ("M", "Q", "risk", "recovery_time", "recovered", "status"),
            "hdsgd.simulation.summaries:summarise_run", "hdsgd.plotting.figures:draw_run",
        ),
        ResultKind(
            "ode", "integrated ODEs of the overlaps", ("M", "Q", "risk", "recovered", "status"),
            "hdsgd.dynamics.summaries:summarise_dynamics", "hdsgd.plotting.figures:draw_dynamics",
        ),
        ResultKind(
            "mean-map", "the mean of one step, iterated", ("M", "Q", "risk", "recovered", "status"),
            "hdsgd.dynamics.summaries:summarise_dynamics", "hdsgd.plotting.figures:draw_dynamics",
        ),
        ResultKind(
            "compare", "simulations beside ODE and mean map", ("M", "M_theory", "deviation", "rate"),
            "hdsgd.simulation.summaries:summarise_comparison", "hdsgd.plotting.figures:draw_comparison",
        ),
        ResultKind(
            "phase-diagram", "recovery times over batch size and learning rate",
            ("recovery_time", "recovered", "status"),
            "hdsgd.analysis.summaries:summarise_phase_diagram",
            planes=(
                View("mu-delta", "times, and exponents if there are several d", "hdsgd.plotting.planes:draw_times"),
                View("mu-theta", "smallest exponent over delta", "hdsgd.plotting.planes:draw_best_exponents"),
                View("mu-samples", "fewest samples over delta", "hdsgd.plotting.planes:draw_samples"),
            ),
        ),
        ResultKind(
            "diversity", "gradient diversity of networks", ("batch_bound",),
            "hdsgd.networks.summaries:summarise_diversity", "hdsgd.networks.plots:draw_diversity",
        ),
        ResultKind(
            "theorem-check", "a theorem's ratio beside its bound", ("ratio", "bound"),
            "hdsgd.networks.summaries:summarise_theorem", "hdsgd.networks.plots:draw_theorem",
        ),
        ResultKind(
            "saturation", "loss curves of a network for every batch size", ("loss_curve", "exponent", "status"),
            "hdsgd.networks.summaries:summarise_saturation", "hdsgd.networks.plots:draw_saturation",
        ),
        ResultKind(
            "epochs", "epochs to a target against batch size", ("epochs_to_target", "reached"),
            "hdsgd.networks.summaries:summarise_epochs", "hdsgd.networks.plots:draw_epochs",
        ),
        ResultKind(
            "bridge", "diversity of the Gaussian model beside finite data", ("population_diversity", "overlap"),
            "hdsgd.networks.summaries:summarise_bridge", "hdsgd.networks.plots:draw_bridge",
        ),
    ],
)  # fmt: skip
