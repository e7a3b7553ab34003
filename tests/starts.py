"""Starts as tests want them: random rows in R^d with their overlaps, and given overlaps for some replicas."""

import math

import numpy as np

from hdsgd import Initial

START = Initial(M=[[0.2]], Q=[[1.0]])  # of one unit and one direction


def random_start(problem, seed, d=20, *, unit=True, collinear=False):
    """Rows W and the teacher in R^d, and their overlaps Q and M; unit norms or not, the last two collinear if asked."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((problem.p, d))
    if collinear:
        W[-1] = -0.7 * W[-2]
    W /= np.linalg.norm(W, axis=1)[:, None] if unit else math.sqrt(d)
    teacher = problem.target.gram_root @ np.linalg.qr(rng.standard_normal((d, d)))[0][: problem.k]
    return W, teacher, W @ W.T, W @ teacher.T


def begin(Q0, M0):
    """One explicit start for each replica."""
    Q0, M0 = np.asarray(Q0, dtype=float), np.asarray(M0, dtype=float)
    if Q0.ndim == M0.ndim == 2:
        return Initial(M=M0, Q=Q0)
    count = len(Q0) if Q0.ndim == 3 else len(M0)
    both = (np.broadcast_to(x, (count, *x.shape[-2:])) for x in (M0, Q0))
    return [Initial(M=m, Q=q) for m, q in zip(*both, strict=True)]
