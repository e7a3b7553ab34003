"""The two exact engines have the same law; the test that says so rejects a chain that is slightly wrong.

Every two-sample test here rejects at p < 1e-4.  There are at most 4 tests of each of the 11 comparisons: the chance
that any of them fails although the laws agree is below 0.5 % for a random seed, and seeds are fixed.  Recovery times
are integers, for which the Kolmogorov-Smirnov p-value is conservative.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from hdsgd.engines import _reduced_kernels as reduced_kernels
from hdsgd.engines.base import Law
from hdsgd.engines.direct import Direct32Run, DirectRun
from hdsgd.engines.reduced import ReducedRun
from hdsgd.parallel import Canceller, run_tasks
from hdsgd.problem.initial import Initial
from hdsgd.problem.model import Problem, Student

ALPHA = 1e-4


class Setting(NamedTuple):
    problem: Problem
    dim: int
    batch: int
    lr: float
    steps: int  # overlaps are compared after these
    most: int  # step limit of the recovery times


def he(q, algorithm, p=1, **options):
    target = options.pop("target", f"he{q}")
    return Problem.from_algorithm(algorithm, target, Student(f"he{q}", p), **options)


SETTINGS = {
    "he2 projected": Setting(he(2, "projected"), 48, 40, 0.06, 12, 300),
    "he2 correlation": Setting(he(2, "correlation"), 48, 40, 0.06, 12, 300),
    "he2 spherical": Setting(he(2, "spherical"), 48, 40, 0.06, 12, 300),
    "he2 online": Setting(he(2, "projected", noise=0.5), 16, 1, 0.005, 100, 1500),
    "he3 projected": Setting(he(3, "projected"), 24, 48, 0.012, 15, 400),
    "he3 correlation": Setting(he(3, "correlation"), 24, 48, 0.03, 15, 400),
    "he3 spherical": Setting(he(3, "spherical"), 24, 48, 0.012, 15, 400),
    "p = 3, k = 2": Setting(he(2, "projected", 3, target="he2(z1) + 0.5*he2(z2)"), 24, 16, 0.15, 10, 300),
    "p = 4, batch 2": Setting(he(2, "spherical", 4, target="z1*z2", noise=0.1), 24, 2, 0.1, 40, 600),
    "unconstrained": Setting(
        Problem("he2(z1) + z2", Student("x**2 + x", 2), loss="square", constraint="none"), 20, 20, 0.05, 10, 300
    ),
}


def sample(engine, setting, replicas, seed, wishart_dim=None):
    """Overlaps after some steps, and recovery times, of independent replicas."""
    first, norm, between, times = (np.empty(replicas) for _ in range(4))

    def one(i):
        seeds = np.random.SeedSequence([seed, i]).spawn(2)
        X = Initial().draw(setting.problem, setting.dim, np.random.default_rng(seeds[0]), 1)[0]
        run = engine(Law(setting.problem, setting.dim, setting.batch, setting.lr, eta=0.6), X, seeds[1])
        if wishart_dim is not None:
            run.dim = wishart_dim  # after the start, the chain uses d for the Wishart degrees of freedom only
        run.advance(setting.steps)
        M, Q, _ = run.overlaps()
        first[i], norm[i], between[i] = abs(M[0, 0]), np.linalg.norm(M), Q[0, -1]
        run.advance(setting.most - setting.steps, stop_at_recovery=True)
        times[i] = setting.most if run.recovery_step is None else run.recovery_step

    run_tasks([lambda i=i: one(i) for i in range(replicas)], 2, Canceller())
    observed = {"|M_11|": first, "|M|": norm, "T": times}
    if setting.problem.p > 1:  # of a single normalised row Q is 1, up to rounding
        observed["Q_1p"] = between
    return observed


def p_values(a, b):
    return {name: stats.ks_2samp(a[name], b[name]).pvalue for name in a}


@pytest.mark.compiled
@pytest.mark.parametrize("name", list(SETTINGS))
def test_direct_and_reduced_agree(name):
    setting = SETTINGS[name]
    direct, reduced = sample(DirectRun, setting, 1000, 1), sample(ReducedRun, setting, 4000, 2)
    recovered = np.mean(direct["T"] < setting.most)
    assert recovered > 0.2, f"the setting should recover often, for the times to say something ({recovered:.2f})"
    found = p_values(direct, reduced)
    assert min(found.values()) > ALPHA, found


@pytest.mark.compiled
def test_single_precision_has_the_same_law():
    setting = SETTINGS["he3 projected"]
    single, reduced = sample(Direct32Run, setting, 500, 3), sample(ReducedRun, setting, 4000, 2)
    assert min(p_values(single, reduced).values()) > ALPHA


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["he2 projected", "he3 projected", "p = 3, k = 2", "he2 online"])
def test_wrong_degrees_of_freedom_are_rejected(name):
    """Negative control: a chain whose Wishart matrix has 30 % too few degrees of freedom."""
    setting = SETTINGS[name]
    direct = sample(DirectRun, setting, 1000, 1)
    wrong = sample(ReducedRun, setting, 4000, 2, wishart_dim=int(0.7 * setting.dim))
    assert min(p_values(direct, wrong).values()) < ALPHA


@pytest.mark.parametrize("df", [3, 7])
def test_bartlett_factor_is_wishart(df):
    """Mean and covariance of S = A Aᵀ (11 z-scores beyond 5 have probability 6e-6); wrong df fails."""
    from hdsgd.engines._stream_types import new_stream

    count, p = 3000, 2
    stream = new_stream(np.random.SeedSequence(df))
    S = np.empty((count, p, p))
    A = np.empty((p, p))
    for i in range(count):
        reduced_kernels.bartlett(stream, df, A)
        S[i] = A @ A.T
    scores = []
    for expected_df in (df, df + 1):
        mean = expected_df * np.eye(p)
        variance = expected_df * (1 + np.eye(p))  # Var S_jl = df (1 + δ_jl)
        z = (S.mean(axis=0) - mean) / np.sqrt(variance / count)
        spread = (S.var(axis=0) / variance - 1) / np.sqrt(12 / count)  # generous: kurtosis of these entries is below 12
        scores.append(max(np.abs(z).max(), np.abs(spread).max()))
    assert scores[0] < 5 < scores[1]
