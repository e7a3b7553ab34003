"""Distributions of the initial student, drawn as coordinates: exact for every d, at a cost that does not depend on d.

Coordinates ``X`` have shape (p, k + p): the first ``k`` columns are components along an orthonormal basis of the
teacher span (so ``M = X[:, :k] L_Pᵀ``), the last ``p`` a lower-triangular block along directions orthogonal to it
(so ``Q = X Xᵀ``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdsgd.checks import check_dim, finite
from hdsgd.errors import SpecificationError, choice
from hdsgd.policies import DIM, SEED
from hdsgd.problem.constraints import CONSTRAINTS
from hdsgd.problem.model import Problem, as_problem
from hdsgd.records import Record
from hdsgd.seeds import cell_seed

__all__ = ["Initial", "as_initial", "draw_overlaps", "overlaps_of"]

Floats = NDArray[np.float64]
DISTRIBUTIONS = ("random", "positive", "overlap", "explicit")
_MAX_REJECTIONS = 10_000


@dataclass(frozen=True)
class Initial(Record):
    """Initial condition of the student rows.

    Parameters
    ----------
    distribution : {"random", "positive", "overlap", "explicit"}
        Rows uniform on the unit sphere; the same conditioned on all overlaps being positive (odd exponents with a
        fixed second layer need it); overlap exactly `overlap` with the first teacher direction and uniform otherwise;
        or the given matrices.
    overlap : float, optional
        Of the distribution "overlap": ``M_j1`` of every row.  Giving it alone selects that one.
    M, Q : array_like of shape (p, k) and (p, p), optional
        Of the distribution "explicit".  Giving them alone selects that one; `Q` defaults to rows of unit norm that have
        nothing in common but their teacher components.

    Examples
    --------
    >>> Initial(overlap=0.3)
    Initial(distribution='overlap', overlap=0.3, M=None, Q=None)
    >>> Initial(M=[[0.5]]).distribution
    'explicit'
    """

    distribution: str = "random"
    overlap: float | None = None
    M: tuple[tuple[float, ...], ...] | None = None
    Q: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        choice("initial distribution", self.distribution, DISTRIBUTIONS)
        if self.overlap is not None:
            if self.distribution not in ("random", "overlap"):
                raise SpecificationError(f"an initial overlap does not go with the distribution {self.distribution!r}")
            object.__setattr__(self, "distribution", "overlap")
            object.__setattr__(self, "overlap", finite("initial overlap", self.overlap))
        elif self.distribution == "overlap":
            raise SpecificationError("the distribution 'overlap' needs the value of the overlap")
        if self.M is not None or self.Q is not None:
            if self.distribution not in ("random", "explicit") or self.M is None:
                raise SpecificationError("explicit initial overlaps are given as M, or as M and Q, and nothing else")
            object.__setattr__(self, "distribution", "explicit")
            for name in ("M", "Q"):
                if getattr(self, name) is not None:
                    object.__setattr__(self, name, _matrix(f"initial {name}", getattr(self, name)))
        elif self.distribution == "explicit":
            raise SpecificationError("the distribution 'explicit' needs M (and optionally Q)")

    def address(self) -> dict[str, Any]:
        """What seeds are derived from; as of a problem (`hdsgd.Problem.address`), never to change."""
        return {"law": self.distribution, "overlap": self.overlap, "M": self.M, "Q": self.Q}

    def check(self, problem: Problem, dim: int) -> None:
        """Raise `SpecificationError` if this distribution does not fit the problem or the dimension."""
        if dim <= problem.k:
            raise SpecificationError(f"dim must exceed the number of teacher directions k = {problem.k}, not {dim}")
        if self.distribution == "overlap" and self.overlap is not None:
            largest = float(problem.target.gram_root[0, 0])
            if abs(self.overlap) > largest:
                raise SpecificationError(
                    f"initial overlap must be between -{largest:g} and {largest:g} for unit rows, not {self.overlap:g}"
                )
        if self.distribution == "explicit":
            self._explicit(problem)

    def draw(self, problem: Problem, dim: int, rng: np.random.Generator, count: int) -> Floats:
        """Draw coordinates of independent students.

        Parameters
        ----------
        problem : Problem
        dim : int
            Input dimension ``d > k``.
        rng : numpy.random.Generator
        count : int

        Returns
        -------
        X : ndarray of shape (count, p, k + p)
            For the random distribution: ``G ~ N(0,1)^{p×k}`` beside the Bartlett root of ``Wishart_p(I, d - k)``, rows
            normalised (theory §1).
        """
        p, k = problem.p, problem.k
        if self.distribution == "explicit":
            return np.repeat(self._explicit(problem)[None], count, axis=0)
        X = np.zeros((count, p, k + p))
        X[..., :k] = rng.standard_normal((count, p, k))
        _wishart_roots(X[..., k:], dim - k, rng)
        if self.distribution == "overlap":
            m = float(self.overlap or 0.0) / problem.target.gram_root[0, 0]
            X[..., 0] = 0.0
            X *= math.sqrt(max(0.0, 1.0 - m * m)) / np.linalg.norm(X, axis=-1, keepdims=True)
            X[..., 0] = m
            return X
        if self.distribution == "positive":
            self._make_positive(X[..., :k], problem, rng)
        return np.asarray(X / np.linalg.norm(X, axis=-1, keepdims=True))

    @staticmethod
    def _make_positive(teacher: Floats, problem: Problem, rng: np.random.Generator) -> None:
        """Condition the teacher components on ``M > 0``: by reflection where the axes allow it, else by rejection."""
        root = problem.target.gram_root
        if np.array_equal(root, np.diag(np.diag(root))):
            np.abs(teacher, out=teacher)
            return
        for _ in range(_MAX_REJECTIONS):
            rejected = ~(teacher @ root.T > 0).all(axis=-1)
            if not rejected.any():
                return
            teacher[rejected] = rng.standard_normal((int(rejected.sum()), problem.k))
        raise SpecificationError("initial distribution 'positive': no row overlaps positively with all directions of P")

    def _explicit(self, problem: Problem) -> Floats:
        p, k = problem.p, problem.k
        M = np.array(self.M)
        if M.shape != (p, k):
            raise SpecificationError(f"initial M must be {p}×{k} (width × teacher directions), not {M.shape}")
        teacher = np.linalg.lstsq(problem.target.gram_root, M.T, rcond=None)[0].T
        if not np.allclose(teacher @ problem.target.gram_root.T, M, atol=1e-9):
            raise SpecificationError("initial M is not possible with this singular Gram matrix P")
        own = np.diag(1.0 - (teacher**2).sum(axis=1)) if self.Q is None else np.array(self.Q) - teacher @ teacher.T
        if own.shape != (p, p):
            raise SpecificationError(f"initial Q must be {p}×{p} (width × width), not {np.array(self.Q).shape}")
        if not np.array_equal(own, own.T):
            own = (own + own.T) / 2
            if not np.allclose(np.array(self.Q), np.array(self.Q).T, atol=1e-12):
                raise SpecificationError("initial Q must be symmetric")
        values, vectors = np.linalg.eigh(own)
        if values[0] < -1e-10:
            raise SpecificationError(
                "initial overlaps are not possible: [[Q, M], [Mᵀ, P]] must be positive semi-definite "
                f"(smallest eigenvalue of Q - M P⁻¹ Mᵀ: {values[0]:.3g})"
            )
        # The lower-triangular root from any root, by an LQ factorisation with a non-negative diagonal.
        upper = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T, mode="r")
        root: Floats = (np.asarray(upper) * np.where(np.diag(upper) < 0, -1.0, 1.0)[:, None]).T
        X = np.hstack([teacher, root])
        if CONSTRAINTS[problem.constraint].normalised and not np.allclose((X**2).sum(axis=1), 1.0, atol=1e-9):
            raise SpecificationError(
                f"initial rows must have unit norm (diagonal of Q equal to 1) for the constraint {problem.constraint!r}"
            )
        return X


def _matrix(what: str, value: ArrayLike | Sequence[Any]) -> tuple[tuple[float, ...], ...]:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(f"{what} must be a matrix of numbers, not {value!r}") from None
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise SpecificationError(f"{what} must be a matrix of finite numbers")
    return tuple(tuple(float(v) for v in row) for row in matrix)


def _wishart_roots(A: Floats, df: int, rng: np.random.Generator) -> None:
    """Fill the zeros `A` (count, p, p) with Bartlett roots of Wishart_p(I, df); beyond rank df the columns are zero."""
    for i in range(A.shape[-1]):
        A[:, i, : min(i, df)] = rng.standard_normal((len(A), min(i, df)))
        if i < df:
            A[:, i, i] = np.sqrt(rng.chisquare(df - i, size=len(A)))


def as_initial(initial: Initial | str) -> Initial:
    """An initial condition from itself or from the name of its distribution.

    Raises
    ------
    SpecificationError
        If it is neither, or there is no such distribution.
    """
    if isinstance(initial, str):
        return Initial(initial)
    if not isinstance(initial, Initial):
        raise SpecificationError(f"initial must be an Initial or the name of a distribution, not {initial!r}")
    return initial


def overlaps_of(X: Floats, problem: Problem) -> tuple[Floats, Floats]:
    """Overlaps ``M`` (p, k) and ``Q`` (p, p) of coordinates ``X`` (p, k + p)."""
    return X[:, : problem.k] @ problem.target.gram_root.T, X @ X.T


def draw_overlaps(
    problem: Problem, initial: Initial | str = "random", dim: int = DIM, seed: int = SEED
) -> tuple[Floats, Floats]:
    """One draw of initial overlaps, fixed by the seed: where deterministic dynamics may start.

    Parameters
    ----------
    problem : Problem
    initial : Initial or str
        Where the student starts, or the name of a distribution.
    dim : int
        Input dimension ``d``.
    seed : int

    Returns
    -------
    M : ndarray of shape (p, k)
    Q : ndarray of shape (p, p)
        Symmetric; the diagonal is exactly 1 where rows are normalised.

    Raises
    ------
    SpecificationError
        If the distribution does not fit the problem or the dimension.

    Examples
    --------
    >>> from hdsgd import Initial, Problem, draw_overlaps
    >>> M, Q = draw_overlaps(Problem("he2", "he2"), Initial(overlap=0.25), dim=100)
    >>> M.round(12).tolist(), Q.tolist()
    ([[0.25]], [[1.0]])
    """
    as_problem(problem)
    initial, dim = as_initial(initial), check_dim(dim)
    initial.check(problem, dim)
    address = cell_seed(seed, {"overlaps": problem.address(), "initial": initial.address(), "dim": dim})
    M, Q = overlaps_of(initial.draw(problem, dim, np.random.default_rng(address), 1)[0], problem)
    Q = (Q + Q.T) / 2
    if CONSTRAINTS[problem.constraint].normalised:
        np.fill_diagonal(Q, 1.0)
    return M, Q
