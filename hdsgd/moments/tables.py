"""A problem as the arrays that the kernels of the population moments read: which kind of table it gets."""

from __future__ import annotations

from functools import lru_cache

from hdsgd.moments._table_types import ErfTables, LinkTables, PolynomialTables, QuadraticTables, QuadratureTables
from hdsgd.moments.links import link_tables
from hdsgd.moments.polynomial import is_quadratic, polynomial_tables, quadratic_tables
from hdsgd.moments.quadrature import has_closed_moments, quadrature_tables
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem

__all__ = ["MomentTables", "moment_tables"]

MomentTables = QuadraticTables | PolynomialTables | ErfTables | LinkTables | QuadratureTables


@lru_cache(maxsize=256)
def moment_tables(
    problem: Problem, loss: Loss | None = None, *, coarse: bool = False, general: bool = False
) -> MomentTables:
    """Arrays of a `Problem` for `hdsgd.moments._dispatch_kernels.moments` and `risk`.

    Parameters
    ----------
    problem : Problem
    loss : Loss, optional
        Whose gradient is meant; by default a loss whose error is ``f - y`` or ``-y``.
    coarse : bool
        Use fewer quadrature nodes, and two erfs fewer for tanh: the difference is an estimate of the error.
    general : bool
        Use the general formulas also where the problem is quadratic or a sum of erfs.

    Returns
    -------
    QuadraticTables, PolynomialTables, ErfTables, LinkTables or QuadratureTables
        The last for losses with an error of their own, and for activations registered from outside.

    Raises
    ------
    SpecificationError
        If the population moments of this problem are not supported (see `hdsgd.moments.population.population_moments`).

    Examples
    --------
    >>> from hdsgd import Problem
    >>> type(moment_tables(Problem("he2", "he2"))).__name__, type(moment_tables(Problem("relu", "he3"))).__name__
    ('QuadraticTables', 'LinkTables')
    """
    if not has_closed_moments(problem, loss):
        return quadrature_tables(problem, loss, coarse=coarse)
    if problem.student.function.links or problem.target.function.links:
        return link_tables(problem, coarse=coarse, general=general)
    if not general and is_quadratic(problem):
        return quadratic_tables(problem)
    return polynomial_tables(problem)
