"""Regression of logarithms of waiting times that are rounded to whole steps and partly censored, many lines at once.

The model is ``ln t = a + θ x + σ ε`` with standard normal ε.  A time is known to lie in an interval: one step wide
where the run was seen to end, without upper end where it was not (censored).  Each observation contributes the
probability of its interval to the likelihood: nothing is dropped, nothing counted as what it is not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lines", "fit_lines"]

Floats = NDArray[np.float64]

#: Intervals are at least this wide (in ``ln t``): below it rounding does not matter, and differences lose their digits.
LEAST_WIDTH = 1e-4
#: The spread is kept off zero, which times that all agree would allow, by adding this (squared) to the sum of squared
#: residuals: with 64 observations it acts like a spread of 0.0025, far below that of rounding in recoverable cells.
LEAST_SPREAD = 0.02
#: A censored observation's upper end: beyond anything, and a number.
FAR = 1e3
ITERATIONS = 60


class Lines(NamedTuple):
    """Fitted lines; arrays of shape (lines,), nan where there was nothing to fit.

    Attributes
    ----------
    slope, error : ndarray
        ``θ`` and its standard error (see `fit_lines`).
    spread : ndarray
        ``σ``.
    scatter : ndarray
        Score test of the line against free levels at each x: chi-square over its degrees of freedom, about 1 where
        a line describes the times; nan with fewer than three x.
    """

    slope: Floats
    error: Floats
    spread: Floats
    scatter: Floats


def fit_lines(x: Floats, low: Floats, high: Floats, used: NDArray[np.bool_]) -> Lines:
    """Maximum-likelihood lines through interval-censored logarithms of times.

    In the parameters ``τ = 1/σ``, ``α = (a, θ)/σ`` the likelihood is concave (Olsen, Econometrica 46, 1978; intervals:
    Pratt, JASA 76, 1981), so that Newton steps, halved where they overshoot, find its only maximum.

    The standard error is the larger of the one from the observed information and the sandwich, which does not assume
    normal ε or equal spread at all x, both with ``n/(n-3)`` for n observations; then enlarged, where the levels at
    different x scatter about the line more than chance explains, by the root of their chi-square over its degrees of
    freedom (what the Particle Data Group does to averages that disagree).  This makes it somewhat too large where the
    line is right: intervals of nominal 95 % cover 96 to 97 %.  Times that agree but for rounding leave the likelihood
    flat between hard edges: the error is then that of rounding errors common to all times at one x.

    Parameters
    ----------
    x : ndarray of shape (K,)
        Covariate, ``ln d``.
    low, high : ndarray of shape (lines, K, R)
        Outcomes of the intervals of ``ln t``; high = inf for censored times.
    used : ndarray of bool of shape (lines, K, R)
        Observations that count.  Lines with fewer than two x or four observations, or without any finite interval, are
        not fitted.

    Returns
    -------
    Lines
    """
    lines = len(low)
    n, points = used.sum(axis=(1, 2)), used.any(axis=2).sum(axis=1)
    fit = (n > 3) & (points > 1) & (used & np.isfinite(high)).any(axis=(1, 2))
    empty = np.full(lines, np.nan)
    out = Lines(empty, empty.copy(), empty.copy(), empty.copy())
    if fit.any():
        found = _fit(np.asarray(x, dtype=np.float64), low[fit], high[fit], used[fit])
        for values, new in zip(out, found, strict=True):
            values[fit] = new
    return out


def _fit(x: Floats, low: Floats, high: Floats, used: NDArray[np.bool_]) -> Lines:
    lines, K, R = low.shape
    weight = used.astype(np.float64)
    n = weight.sum(axis=(1, 2))
    # Centre and scale each line's x and y, so that the Newton matrix is well conditioned.
    X = np.broadcast_to(x[None, :, None], low.shape)
    centre = (weight * X).sum(axis=(1, 2)) / n
    X = X - centre[:, None, None]
    width = np.sqrt((weight * X**2).sum(axis=(1, 2)) / n)
    X = X / width[:, None, None]
    seen = np.isfinite(high)
    lower = np.where(used, low, 0.0)
    upper = np.where(used & seen, np.maximum(high, low + LEAST_WIDTH), lower + 1.0)
    middle = np.where(seen, (lower + upper) / 2, lower)
    level = (weight * middle).sum(axis=(1, 2)) / n
    lower, upper, middle = (values - level[:, None, None] for values in (lower, upper, middle))
    upper = np.where(used & ~seen, FAR, upper)
    # Start from least squares with censored times taken as ends.
    slope = (weight * X * middle).sum(axis=(1, 2)) / n
    residual = weight * (middle - slope[:, None, None] * X)
    spread = np.sqrt((residual**2).sum(axis=(1, 2)) / n + 0.01)
    parameters = np.stack([np.zeros(lines), slope / spread, 1 / spread], axis=1)
    flat = (lines, K * R)
    data = [values.reshape(flat) for values in (X, lower, upper, weight)]
    parameters = _maximise(parameters, *data)
    _, scores, information = _likelihood(parameters, *data)
    covariance = np.linalg.inv(information)
    outer = np.einsum("cin,cjn->cij", scores, scores)
    sandwich = covariance @ outer @ covariance
    tau, alpha = parameters[:, 2], parameters[:, 1]
    gradient = np.stack([np.zeros(lines), 1 / tau, -alpha / tau**2], axis=1)
    variance = np.maximum(*(np.einsum("ci,cij,cj->c", gradient, V, gradient) for V in (covariance, sandwich)))
    variance = _with_rounding(variance, 1 / tau, X, lower, upper, used, used & seen)
    scatter = _scatter(parameters, data, K, R)
    # A scatter that is not known (two x) is not there.
    inflation = np.fmax(scatter, 1.0)
    error = np.sqrt(variance * n / (n - 3) * inflation) / width
    return Lines(alpha / tau / width, error, 1 / tau, scatter)


def _with_rounding(
    variance: Floats,
    spread: Floats,
    X: Floats,
    lower: Floats,
    upper: Floats,
    used: NDArray[np.bool_],
    seen: NDArray[np.bool_],
) -> Floats:
    """Variance of the scaled slopes where rounding exceeds the spread.

    Between hard edges the curvature of the likelihood says little.  What does is the variance of a uniform error of a
    step, common to the times at one x; where times at one x differ they know more, and it is an upper bound.
    """
    n = used.sum(axis=(1, 2))
    step = np.where(seen, upper - lower, 0.0)
    rounding = (spread**2 + ((step * X).sum(axis=2) ** 2 / 12).sum(axis=1) / n) / n
    blunt = (used == seen).all(axis=(1, 2)) & (spread < step.sum(axis=(1, 2)) / n / 2)
    highest, lowest = lower.max(axis=2, where=used, initial=-FAR), lower.min(axis=2, where=used, initial=FAR)
    alike = (highest <= lowest).all(axis=1)
    return np.where(blunt, np.where(alike, rounding, np.minimum(variance, rounding)), variance)


def _maximise(parameters: Floats, X: Floats, lower: Floats, upper: Floats, weight: Floats) -> Floats:
    """Damped Newton iteration, for all lines that have not converged yet."""
    parameters = parameters.copy()
    active = np.arange(len(parameters))
    data = [X, lower, upper, weight]
    value, scores, information = _likelihood(parameters, *data)
    for _ in range(ITERATIONS):
        total = _gradient(parameters[active], scores)
        step = np.linalg.solve(information, total[..., None])[..., 0]
        decrement = np.einsum("ci,ci->c", step, total)
        keep = decrement > 1e-8
        if not keep.any():
            break
        active, step, value, decrement = active[keep], step[keep], value[keep], decrement[keep]
        data = [values[keep] for values in data]
        size = np.ones(len(active))
        # τ stays positive; the likelihood has to rise by a tenth of what the slope promises (Armijo).
        size = np.where(
            step[:, 2] < 0, np.minimum(1.0, -0.9 * parameters[active, 2] / np.minimum(step[:, 2], -1e-300)), 1.0
        )
        for _ in range(30):
            trial = parameters[active] + size[:, None] * step
            new, scores, information = _likelihood(trial, *data)
            short = new < value + 0.1 * size * decrement - 1e-9
            if not short.any():
                break
            size = np.where(short, size / 2, size)
        parameters[active], value = trial, new
    return parameters


def _gradient(parameters: Floats, scores: Floats) -> Floats:
    total: Floats = scores.sum(axis=2)
    total[:, 2] -= LEAST_SPREAD**2 * parameters[:, 2]
    return total


def _ends(parameters: Floats, X: Floats, lower: Floats, upper: Floats) -> tuple[Floats, Floats, Floats]:
    """Standardised ends of the intervals, and the logarithm of the normal probability between them."""
    from scipy.special import log_ndtr

    mean = parameters[:, :1] + parameters[:, 1:2] * X
    a, b = parameters[:, 2:] * lower - mean, parameters[:, 2:] * upper - mean
    # In the lower tail, where log_ndtr keeps its digits.
    flip = a + b > 0
    near, beyond = log_ndtr(np.where(flip, -a, b)), log_ndtr(np.where(flip, -b, a))
    return a, b, near + np.log(-np.expm1(np.minimum(beyond - near, -1e-15)))


def _likelihood(
    parameters: Floats, X: Floats, lower: Floats, upper: Floats, weight: Floats
) -> tuple[Floats, Floats, Floats]:
    """Penalised log-likelihood (lines,), score of each observation (lines, 3, n), negative Hessian (lines, 3, 3)."""
    a, b, log_p = _ends(parameters, X, lower, upper)
    pa, pb = (np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_p) for z in (a, b))
    tau = parameters[:, 2]
    value = (weight * log_p).sum(axis=1) - 0.5 * (LEAST_SPREAD * tau) ** 2
    first = weight * (pa - pb)  # with respect to the mean
    scores = np.stack([first, first * X, weight * (upper * pb - lower * pa)], axis=1)
    haa, hbb, hab = weight * (a * pa - pa**2), weight * (-b * pb - pb**2), weight * pa * pb
    mm = -(haa + hbb + 2 * hab)
    mt = lower * haa + upper * hbb + (lower + upper) * hab
    tt = -(lower**2 * haa + upper**2 * hbb + 2 * lower * upper * hab)
    entries = [[mm, mm * X, mt], [mm * X, mm * X**2, mt * X], [mt, mt * X, tt]]
    information = np.array([[entry.sum(axis=1) for entry in row] for row in entries]).transpose(2, 0, 1).copy()
    information[:, 2, 2] += LEAST_SPREAD**2
    # A ridge for lines along which the likelihood is flat (all times rounded to the same number of steps).
    information += 1e-9 * np.eye(3)
    return value, scores, information


def _scatter(parameters: Floats, data: list[Floats], K: int, R: int) -> Floats:
    """Chi-square over degrees of freedom of the score test for a level of its own at each x.

    The levels' scores s add up to nothing with the line's two columns, so that their statistic is ``Σ_k s_k²/I_k``.
    ``I_k`` is the larger of information and sum of squared scores, as for the slope's error.
    """
    _, scores, _ = _likelihood(parameters, *data)
    X, lower, upper, weight = data
    a, b, log_p = _ends(parameters, X, lower, upper)
    pa, pb = (np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_p) for z in (a, b))
    information = weight * (pb**2 + b * pb + pa**2 - a * pa - 2 * pa * pb)
    shape = (len(parameters), K, R)
    s = scores[:, 0].reshape(shape)
    I = np.maximum(information.reshape(shape).sum(axis=2), (s**2).sum(axis=2))
    there = weight.reshape(shape).any(axis=2)
    statistic = np.where(there, s.sum(axis=2) ** 2 / np.where(there, np.maximum(I, 1e-300), 1.0), 0.0).sum(axis=1)
    freedom = there.sum(axis=1) - 2
    result: Floats = np.where(freedom > 0, statistic / np.maximum(freedom, 1), np.nan)
    return result
