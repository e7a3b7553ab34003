"""The block generator of standard normals, and chi-squared variates: normal as far as 1e7 draws can tell.

Each statistical test returns one p-value, a Bonferroni bound where it looks at several statistics, and fails below
ALPHA: a correct generator fails one in 1e6 of them over the choice of the seed, which is fixed.  Each comes with a
negative control: numbers that are slightly wrong, at the same sample size, must fail it.  HDSGD_NORMALS_DRAWS sets the
sample size (1e7; 1e8 takes a few minutes and 8 GB).
"""

import os

import numba
import numpy as np
import plain_normals as plain
import pytest
from kernel_normals import PRECISIONS, draw
from scipy import special, stats

from hdsgd.engines import _normal_kernels as kernels
from hdsgd.engines._normal_kernels import chi_square, next_normal
from hdsgd.engines._stream_types import BLOCK, LANES, new_stream

ALPHA = 1e-6
DRAWS = int(float(os.environ.get("HDSGD_NORMALS_DRAWS", "1e7"))) // BLOCK * BLOCK
# Deviation of the negative controls in units of the standard error of what they get wrong: at 1e8 draws a lag
# correlation of 1e-3.  The chance that a control passes a test at ALPHA (limit 5.2 with Bonferroni) is about 1e-6 too.
CONTROL = 10.0

CHUNK = 2**17  # long arrays are taken in pieces that fit the cache


# ---------------------------------------------------------------------------------------------------------------------
# Statistical tests: arrays -> p-value


def two_sided(z):
    """p-value of a list of standard-normal statistics: Bonferroni."""
    return min(1.0, len(z) * 2 * stats.norm.sf(np.max(np.abs(z))))


def moments_p(x):
    """Means of x, ..., x^8 against their exact values, in units of their exact standard errors."""
    expected = np.zeros(17)
    expected[0] = 1
    for k in range(2, 17, 2):
        expected[k] = (k - 1) * expected[k - 2]
    total = np.zeros(9)
    for chunk in np.array_split(x, len(x) // CHUNK + 1):
        power = np.ones_like(chunk)
        for k in range(1, 9):
            power *= chunk
            total[k] += power.sum()
    k = np.arange(1, 9)
    return two_sided((total[k] / len(x) - expected[k]) / np.sqrt((expected[2 * k] - expected[k] ** 2) / len(x)))


def kolmogorov_smirnov_p(sorted_x):
    n = len(sorted_x)
    distance = 0.0
    for start in range(0, n, CHUNK):
        cdf = special.ndtr(sorted_x[start : start + CHUNK])
        rank = np.arange(start, start + len(cdf))
        distance = max(distance, np.max(cdf - rank / n), np.max((rank + 1) / n - cdf))
    return special.kolmogorov(np.sqrt(n) * distance)


def anderson_darling_p(sorted_x):
    """Tail of the statistic: it is sum_j Z_j^2 / (j (j + 1)), and P(> a) ~ sqrt(3) erfc(sqrt(a)) (Zolotarev 1961)."""
    n = len(sorted_x)
    total = 0.0
    for start in range(0, n, CHUNK):
        low = sorted_x[start : start + CHUNK]
        high = sorted_x[::-1][start : start + CHUNK]
        weight = 2.0 * np.arange(start, start + len(low)) + 1
        total += np.dot(weight, np.log(special.ndtr(low) * special.ndtr(-high)))
    return min(1.0, np.sqrt(3) * special.erfc(np.sqrt(-n - total / n)))


def poisson_p(counts, expected):
    """Bonferroni bound of two-sided tests of counts, which are Poisson (binomial of rare events)."""
    p = [2 * min(stats.poisson.cdf(c, m), stats.poisson.sf(c - 1, m)) for c, m in zip(counts, expected, strict=True)]
    return min(1.0, len(p) * min(p))


def tails_p(x, limits=(3, 4, 5, 6)):
    """Numbers beyond each limit, on each side."""
    counts = [np.count_nonzero(side) for t in limits for side in (x > t, x < -t)]
    return poisson_p(counts, [len(x) * stats.norm.sf(t) for t in limits for _ in range(2)])


# Distances of numbers that share a lane, a pass over the lanes, a pair of words or a block, and of their neighbours.
_PERIODS = (LANES, 2 * LANES, BLOCK // 2, BLOCK, 2 * BLOCK)
LAGS = sorted({1, 2, 3, 4} | {period + step for period in _PERIODS for step in (-LANES, -1, 0, 1)} - {0})


def serial_p(x):
    """Correlations at LAGS; their standard error is n^(-1/2) for independent numbers of mean 0 and variance 1."""
    z = np.zeros(len(LAGS))
    for i, lag in enumerate(LAGS):
        z[i] = np.dot(x[:-lag], x[lag:]) / np.sqrt(len(x) - lag)
    return two_sided(z)


def squares(x):
    """Standardised squares, to find correlations of magnitudes."""
    return (x**2 - 1) / np.sqrt(2)


def pairs_p(x):
    """exp(-r^2/2) and angle of the pairs made together, on a 32 x 32 grid of equal cells: chi-squared.

    Where angle and radius are independent and uniform, the two numbers of a pair are jointly normal.
    """
    count = np.zeros((32, 32))
    blocks = x.reshape(-1, 2, BLOCK // 2)
    for chunk in np.array_split(blocks, len(blocks) // 1024 + 1):
        a, b = chunk[:, 0].ravel(), chunk[:, 1].ravel()
        i = np.minimum(np.exp(-(a**2 + b**2) / 2) * 32, 31).astype(int)
        j = np.minimum((np.arctan2(b, a) / (2 * np.pi) % 1) * 32, 31).astype(int)
        count += np.bincount(i * 32 + j, minlength=1024).reshape(32, 32)
    return stats.chisquare(count.ravel()).pvalue


def cross_p(streams):
    """Correlations between all pairs of streams, of the numbers and of their squares, in step and one step apart."""
    z = []
    for values in (streams, squares(streams)):
        for shift in (0, 1):
            n = values.shape[1] - shift
            product = values[:, :n] @ values[:, shift:].T
            different = ~np.eye(len(values), dtype=bool) if shift else np.triu(np.ones_like(product, dtype=bool), 1)
            z.append(product[different] / np.sqrt(n))
    return two_sided(np.concatenate(z))


# ---------------------------------------------------------------------------------------------------------------------
# ... on the generator and on slightly wrong ones


@pytest.fixture(scope="module", params=PRECISIONS)
def sample(request):
    return draw(np.random.SeedSequence(20261122), DRAWS, request.param).astype(np.float64)


@pytest.fixture(scope="module")
def sorted_sample(sample):
    return np.sort(sample)


def shifted(x):
    """The mean too large by CONTROL standard errors."""
    return x + CONTROL / np.sqrt(len(x))


def widened(x, errors=CONTROL):
    """The variance too large by a number of standard errors."""
    return x * np.sqrt(1 + errors * np.sqrt(2 / len(x)))


@pytest.mark.compiled
def test_moments(sample):
    assert moments_p(sample) > ALPHA
    assert moments_p(widened(sample)) < ALPHA
    assert moments_p(shifted(sample)) < ALPHA
    # x^4 too large by CONTROL standard errors, at mean 0 and variance 1: x + e He_3(x).
    e = CONTROL * np.sqrt(96 / len(sample)) / 24
    assert moments_p(sample * (1 + e * (sample**2 - 3))) < ALPHA


@pytest.mark.compiled
def test_kolmogorov_smirnov(sorted_sample):
    assert kolmogorov_smirnov_p(sorted_sample) > ALPHA
    assert kolmogorov_smirnov_p(shifted(sorted_sample)) < ALPHA


@pytest.mark.compiled
def test_anderson_darling(sorted_sample):
    assert anderson_darling_p(sorted_sample) > ALPHA
    assert anderson_darling_p(widened(sorted_sample, 2 * CONTROL)) < ALPHA


@pytest.mark.compiled
def test_tails(sample):
    assert tails_p(sample) > ALPHA
    assert tails_p(sample[np.abs(sample) < 4]) < ALPHA  # tails cut off at 4
    assert tails_p(sample * 1.02) < ALPHA


@pytest.mark.compiled
@pytest.mark.parametrize(("ones", "limits"), [(20, (5.3, 5.5, 6, 6.5)), (32, (6.7, 7, 7.5, 8))])
def test_far_tails(ones, limits):
    """Tails to 8 among pairs of radius > sqrt(2 ones log 2), forced by setting the high bits of their first word.

    They are 2^-ones of all pairs, so that the numbers beyond t are 2^ones times as frequent as among all numbers.
    """
    stream = new_stream(np.random.SeedSequence(12))
    blocks = 4000
    mask = np.uint64(plain.MASK - (plain.MASK >> ones))
    x = np.empty((blocks, 2, BLOCK // 2))
    for first, second in x:
        kernels._fill_words(stream.lanes, first, second)
        first.view(np.uint64)[...] |= mask
        kernels._transform(first, second)
    expected = [x.size * stats.norm.sf(t) * 2**ones for t in limits for _ in range(2)]
    assert min(expected) > 5

    def counts(y):
        return [np.count_nonzero(side) for t in limits for side in (y > t, y < -t)]

    assert poisson_p(counts(x), expected) > ALPHA
    assert poisson_p(counts(x[np.abs(x) < limits[2]]), expected) < ALPHA
    assert poisson_p(counts(x * 1.005), expected) < ALPHA


@pytest.mark.compiled
def test_serial_correlations(sample):
    assert serial_p(sample) > ALPHA
    for lag in (1, BLOCK // 2):
        wrong = sample.copy()
        wrong[lag:] += CONTROL / np.sqrt(len(sample)) * sample[:-lag]
        assert serial_p(wrong) < ALPHA


@pytest.mark.compiled
def test_serial_correlations_of_squares(sample):
    assert serial_p(squares(sample)) > ALPHA
    # A magnitude that follows the one before it: x_t (1 + e (x_(t-1)^2 - 1)) gives the correlation 2 e of squares.
    wrong = sample.copy()
    wrong[1:] *= 1 + CONTROL / np.sqrt(len(sample)) / 2 * (sample[:-1] ** 2 - 1)
    assert serial_p(squares(wrong)) < ALPHA


@pytest.mark.compiled
def test_pairs(sample):
    assert pairs_p(sample) > ALPHA
    # One of the two numbers is 6e-3 of the other too large, at 1e8 draws: noncentrality about 900 at a deviation of 45.
    wrong = sample.reshape(-1, 2, BLOCK // 2).copy()
    wrong[:, 1] += 60 / np.sqrt(len(sample)) * wrong[:, 0]
    assert pairs_p(wrong.ravel()) < ALPHA


@pytest.mark.compiled
@pytest.mark.parametrize("kinship", ["children", "neighbouring seeds"])
def test_cross_stream_correlations(kinship):
    if kinship == "children":
        sequences = np.random.SeedSequence(13).spawn(8)
    else:
        sequences = [np.random.SeedSequence(seed) for seed in range(8)]
    streams = np.stack([draw(sequence, DRAWS // 8) for sequence in sequences])
    assert cross_p(streams) > ALPHA
    streams[5] += CONTROL / np.sqrt(streams.shape[1]) * streams[2]
    assert cross_p(streams) < ALPHA


# ---------------------------------------------------------------------------------------------------------------------
# Chi-squared variates


@numba.njit
def chi_squares(stream, df, out):
    for i in range(len(out)):
        out[i] = chi_square(stream, df)


@numba.njit
def alternate(stream, df, out):
    for i in range(len(out)):
        out[i, 0] = chi_square(stream, df)
        out[i, 1] = next_normal(stream)


def draw_chi_squares(df, n):
    out = np.empty(n)
    chi_squares(new_stream(np.random.SeedSequence(14)), float(df), out)
    return out


@pytest.mark.compiled
@pytest.mark.parametrize("df", [0.3, 1, 1.5, 2, 3, 10, 1e3, 1e6, 1e9])
def test_chi_square_distribution(df):
    """Kolmogorov-Smirnov test at 4e5 draws.  Control: the distribution moved by 3 % of its standard deviation."""
    x = draw_chi_squares(df, 400_000)
    assert stats.kstest(x, stats.chi2(df).cdf).pvalue > ALPHA
    moved = x + 0.03 * np.sqrt(2 * df)
    assert stats.kstest(moved, stats.chi2(df).cdf).pvalue < ALPHA


@pytest.mark.compiled
@pytest.mark.parametrize("df", [1e12, 1e15, 1e18])
def test_chi_square_of_many_degrees_of_freedom(df):
    """Standardised to mean 0 and variance 1: the first moments of a normal (its skewness is below 3e-6)."""
    x = (draw_chi_squares(df, 400_000) - df) / np.sqrt(2 * df)
    assert moments_p(x) > ALPHA
    assert kolmogorov_smirnov_p(np.sort(x)) > ALPHA
    assert moments_p(widened(x)) < ALPHA


@pytest.mark.compiled
def test_chi_square_draws_are_independent_of_what_follows():
    """A variate and the number after it: rejection must not leave a trace in the stream."""
    stream, out = new_stream(np.random.SeedSequence(15)), np.empty((400_000, 2))
    alternate(stream, 3.0, out)
    u, v = stats.chi2(3).cdf(out[:, 0]), special.ndtr(out[:, 1])
    count = np.histogram2d(u, v, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(count.ravel()).pvalue > ALPHA
