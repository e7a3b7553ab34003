"""Tables of problems without closed moments: points and weights of a product rule over the span of all directions."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.moments._table_types import Floats, QuadratureTables
from hdsgd.problem._table_types import OWN, ErrorRule
from hdsgd.problem.activations import ACTIVATIONS
from hdsgd.problem.arrays import error_rule, tabulate
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem

__all__ = ["MAX_POINTS", "CoefficientSamples", "coefficient_samples", "has_closed_moments", "quadrature_tables"]

#: Most points of one evaluation of the moments.
MAX_POINTS = 200_000
#: Nodes for each direction: at most, and with fewer than that quadrature is refused.  Always even: then a kink or a
#: step at 0, as of relu, lies halfway between two nodes, where it does least harm.
MAX_NODES, MIN_NODES = 80, 6
#: Nodes for the label noise, where the error is no linear function of the label: at most.
MAX_NOISE_NODES = 16
#: Points whose weight is below this share of the largest are left out.
NEGLIGIBLE = 1e-30
#: Points that are evaluated together.
BLOCK = 512


def has_closed_moments(problem: Problem, loss: Loss | None) -> bool:
    """Whether error and functions are of the kinds whose moments have formulas of their own.

    Examples
    --------
    >>> from hdsgd.problem.losses import Loss
    >>> has_closed_moments(Problem("relu", "relu"), Loss("quartic", "¼(y - f)⁴", error=lambda f, y: (f - y) ** 3))
    False
    """
    links = (*problem.student.function.links, *problem.target.function.links)
    return (loss is None or loss.error is None) and all(ACTIVATIONS[link.name].code != OWN for link in links)


def _nodes(problem: Problem, own_error: bool) -> tuple[int, int]:
    """Nodes for each direction, and for the label noise."""
    directions = problem.p + problem.k

    def noise_nodes(nodes: int) -> int:
        if problem.noise == 0.0:
            return 1
        return min(nodes, MAX_NOISE_NODES) if own_error else 2  # two are exact for a square

    nodes = MAX_NODES
    while nodes > MIN_NODES and nodes**directions * noise_nodes(nodes) > MAX_POINTS:
        nodes -= 2
    count = nodes**directions * noise_nodes(nodes)
    if count > MAX_POINTS:
        raise SpecificationError(
            f"population moments by quadrature take at least {count:.1e} points for width {problem.p} and "
            f"{problem.k} directions of the target, at most {MAX_POINTS:.0e} are allowed; use fewer units or directions"
        )
    return nodes, noise_nodes(nodes)


@lru_cache(maxsize=16)
def _product_rule(directions: int, nodes: int, noise_nodes: int) -> tuple[Floats, Floats, Floats]:
    """Points (directions, n), standard normal label noise (n,) and weights (n,) of a product rule."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    xi, v = np.polynomial.hermite_e.hermegauss(noise_nodes)
    axes, weights = [x] * directions + [xi], [w / w.sum()] * directions + [v / v.sum()]
    grid = np.stack([values.ravel() for values in np.meshgrid(*axes, indexing="ij")])
    weight = np.prod([values.ravel() for values in np.meshgrid(*weights, indexing="ij")], axis=0)
    kept = weight > NEGLIGIBLE * weight.max()
    return grid[:-1, kept], grid[-1, kept], weight[kept]


def _blocks(values: Floats, fill: float | None = None) -> Floats:
    """The last axis cut into blocks, in front; the last block is filled up, with its last value by default."""
    missing = -values.shape[-1] % BLOCK
    edge = {"mode": "edge"} if fill is None else {"mode": "constant", "constant_values": fill}
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], **edge)
    return np.ascontiguousarray(np.moveaxis(padded.reshape(*values.shape[:-1], -1, BLOCK), -2, 0))


def quadrature_tables(problem: Problem, loss: Loss | None = None, *, coarse: bool = False) -> QuadratureTables:
    """Tables of any problem with few enough units and directions.

    Gauss-Hermite nodes in each direction of the span of the student's and the teacher's, as many as `MAX_POINTS`
    points allow; where the error is not linear in the label, also in the label noise.

    Parameters
    ----------
    problem : Problem
    loss : Loss, optional
        Whose gradient is meant; by default one whose error is ``f - y`` or ``-y``, which the kernels are told.
    coarse : bool
        Use three nodes in four: the difference is an estimate of the error.

    Raises
    ------
    SpecificationError
        If the points are too many, or a function of one's own cannot be compiled.

    Examples
    --------
    >>> from hdsgd import Problem
    >>> quadrature_tables(Problem("he2", "he2")).points.shape[1]
    1024
    """
    directions, own = problem.p + problem.k, loss is not None and loss.error is not None
    nodes, noise_nodes = _nodes(problem, own)
    if coarse:
        nodes, noise_nodes = 2 * (3 * nodes // 8), noise_nodes if noise_nodes < 4 else 2 * (3 * noise_nodes // 8)
    points, noise, weights = _product_rule(directions, nodes, noise_nodes)
    return QuadratureTables(
        problem=tabulate(problem),
        errors=error_rule(loss) if own and loss is not None else ErrorRule(True, 0),
        points=_blocks(points).reshape(-1, directions * BLOCK),
        radius=_blocks((points**2).sum(axis=0) - directions),
        noise=_blocks(-np.sqrt(problem.noise) * noise),
        weights=_blocks(weights, fill=0.0),
        approximate=True,
    )


class CoefficientSamples(NamedTuple):
    """Weighted points and the gradient coefficients there; from `coefficient_samples`."""

    c: Floats  # (p, n)
    u: Floats  # (p + k, n): the fields λ_j = u_j, and orthonormal coordinates of the teacher span
    weights: Floats  # (n,)


def coefficient_samples(problem: Problem, loss: Loss, *, coarse: bool = False) -> CoefficientSamples:
    """Gradient coefficients at independent unit rows without overlap (``Q = I``, ``M = 0``), as a weighted batch.

    Parameters
    ----------
    problem : Problem
    loss : Loss
        With an error of its own.
    coarse : bool
        As of `quadrature_tables`.

    Examples
    --------
    >>> from hdsgd import Problem
    >>> from hdsgd.problem.losses import Loss
    >>> square = Loss("copy", "½(y - f)²", error=lambda f, y: f - y)
    >>> c, u, weights = coefficient_samples(Problem("he2", "he2"), square)
    >>> round(float(c[0] ** 2 @ weights), 9)
    48.0
    """
    tables = quadrature_tables(problem, loss, coarse=coarse)
    from hdsgd.moments._quadrature_kernels import quadrature_coefficients

    p, r = problem.p, problem.p + problem.k
    omega = np.eye(r)
    omega[p:, p:] = problem.target.P
    out = np.empty((len(tables.points), p * BLOCK))
    quadrature_coefficients(tables, omega, out)
    c, u = (x.reshape(len(x), -1, BLOCK).swapaxes(0, 1).reshape(-1, x.shape[0] * BLOCK) for x in (out, tables.points))
    return CoefficientSamples(c, u, tables.weights.ravel())
