# mypy: ignore-errors
"""Block generator of standard normals for the kernels, and the chi-squared variates made from them.

Bits: `LANES` independent xoshiro256++ generators [1]_ advanced side by side.  Normals: the Box-Muller transform [2]_
with polynomials for the logarithm, sine and cosine.  The loops are plain Python that LLVM turns into SIMD code.  For
that they run over separate slices with a bare ``range`` index and write their results over their inputs: given an
output elsewhere in the same array LLVM assumes a shifted overlap and takes a scalar path.

xoshiro256++ has period 2^256 - 1 and shows no systematic failure in BigCrush, also bit-reversed, nor in the test of
Hamming-weight dependencies of [1]_.  The words of a stream, lanes interleaved, pass PractRand 0.95 to 32 GiB
(``benchmarks/normals.py --raw``).  The lanes are seeded by hashing: among n of them any two meet within t words with
probability about n^2 t / 2^256.

Saved states and seeds give the same numbers to the last bit whatever the width of the SIMD registers, on processors
with fused multiply-add; without it the last digit may differ.

References
----------
.. [1] D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47 (2021), 36.
.. [2] G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", Ann. Math. Stat. 29 (1958).
.. [3] G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000), 363.
.. [4] fdlibm, Sun Microsystems 1993: ``e_log.c``, ``k_sin.c``, ``k_cos.c``.
.. [5] Cephes, S. L. Moshier 1992: ``single/logf.c``, ``single/sinf.c``.
"""

from __future__ import annotations

import numpy as np

from hdsgd._compile import exact, exact_inlined, kernel
from hdsgd.engines._stream_types import BLOCK, LANES

# Shift counts and masks are unsigned constants: uint64 with a signed integer would become float64.
_U64 = np.uint64
_12, _17, _19, _23, _32, _41, _45, _52, _62, _63 = (_U64(n) for n in (12, 17, 19, 23, 32, 41, 45, 52, 62, 63))
_LOW_HALF = _U64((1 << 32) - 1)
_SIGN = _U64(1 << 63)
_MANTISSA = _U64((1 << 52) - 1)
_ONE = _U64(0x3FF0000000000000)  # bits of 1.0
_SQRT_HALF = _U64(0x3FE6A09E667F3BCD)  # bits of sqrt(1/2)
_TWO_52 = _U64(0x4330000000000000)  # bits of 2^52; the mantissa of the doubles from there to 2^53 is an integer
_TWO_52_AND_BIAS = 2.0**52 + 1023.0
_LN_2 = 0.6931471805599453
_HALF_PI = 1.5707963267948966
# log(1 + f) = 2 s + s (L1 s^2 + L2 s^4 + ...) with s = f / (2 + f), for sqrt(1/2) <= 1 + f <= sqrt(2) [4]
_L1, _L2, _L3 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01
_L4, _L5, _L6 = 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01
_L7 = 1.479819860510658591e-01
# sin x = x (1 + S1 x^2 + ...), cos x = 1 - x^2/2 + C1 x^4 + ..., for |x| <= pi/4 [4]
_S1, _S2, _S3 = -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04
_S4, _S5, _S6 = 2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10
_C1, _C2, _C3 = 4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05
_C4, _C5, _C6 = -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11

# The same in single precision.
_U32, _F32 = np.uint32, np.float32
_1_32, _23_32, _31_32 = _U32(1), _U32(23), _U32(31)
_MANTISSA_32 = _U32((1 << 23) - 1)
_ONE_32 = _U32(0x3F800000)
_SQRT_HALF_32 = _U32(0x3F3504F3)
_BIAS_32 = _F32(127 + 31)  # 31 because u is drawn as an integer and means u / 2^31
_UNIT_32, _HALF_32, _LN_2_32 = _F32(1.0), _F32(0.5), _F32(0.6931471805599453)
_ANGLE_32 = _F32(0.7853981633974483 / 2**31)  # pi/4 at 2^31
# log(1 + f) = f - f^2/2 + f^3 (P0 + P1 f + ...) for sqrt(1/2) <= 1 + f <= sqrt(2) [5]
_P0, _P1, _P2 = _F32(3.3333331174e-1), _F32(-2.4999993993e-1), _F32(2.0000714765e-1)
_P3, _P4, _P5 = _F32(-1.6668057665e-1), _F32(1.4249322787e-1), _F32(-1.2420140846e-1)
_P6, _P7, _P8 = _F32(1.1676998740e-1), _F32(-1.1514610310e-1), _F32(7.0376836292e-2)
# sin and cos as above [5]
_S1_32, _S2_32, _S3_32 = _F32(-1.6666654611e-1), _F32(8.3321608736e-3), _F32(-1.9515295891e-4)
_C1_32, _C2_32, _C3_32 = _F32(4.166664568298827e-2), _F32(-1.388731625493765e-3), _F32(2.443315711809948e-5)


# Indices below: j lane; visit, one pass over the lanes; i pair of normals, which are number i of the first and of the
# second half of a block.  Random words travel in the array that will hold the normals, as the bits of floats.


@exact_inlined
def _next_word(s0, s1, s2, s3):
    """One step of xoshiro256++ [1]: the output word and the next state."""
    word = s0 + s3
    word = ((word << _23) | (word >> _41)) + s0
    shifted = s1 << _17
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    return word, s0, s1, s2, (s3 << _45) | (s3 >> _19)


@exact_inlined
def _fill_words(lanes, first, second):
    """Fill two float64 arrays of length BLOCK / 2 with words: alternate words of each lane go to `first`, `second`."""
    row0, row1, row2, row3 = lanes[0], lanes[1], lanes[2], lanes[3]
    for visit in range(BLOCK // 2 // LANES):
        here, there = first[visit * LANES : (visit + 1) * LANES], second[visit * LANES : (visit + 1) * LANES]
        for j in range(LANES):
            # Two steps for each load and store of the state, which cost as much as a step.
            word, s0, s1, s2, s3 = _next_word(row0[j], row1[j], row2[j], row3[j])
            here[j] = _U64(word).view(np.float64)
            word, s0, s1, s2, s3 = _next_word(s0, s1, s2, s3)
            there[j] = _U64(word).view(np.float64)
            row0[j], row1[j], row2[j], row3[j] = s0, s1, s2, s3


@exact_inlined
def _fill_words32(lanes, first, second):
    """Fill two float32 arrays of length BLOCK / 2 with the low and the high halves of words."""
    row0, row1, row2, row3 = lanes[0], lanes[1], lanes[2], lanes[3]
    for visit in range(BLOCK // 2 // LANES):
        here, there = first[visit * LANES : (visit + 1) * LANES], second[visit * LANES : (visit + 1) * LANES]
        for j in range(LANES):
            word, s0, s1, s2, s3 = _next_word(row0[j], row1[j], row2[j], row3[j])
            here[j] = _U32(word & _LOW_HALF).view(np.float32)
            there[j] = _U32(word >> _32).view(np.float32)
            row0[j], row1[j], row2[j], row3[j] = s0, s1, s2, s3


@exact_inlined
def _transform(first, second):
    """Replace the words in two float64 arrays of length BLOCK / 2 by normals: Box-Muller on pairs of words.

    A pair (a, b) of words gives u in (0, 1] from the high bits of a, phi in [-pi/4, pi/4) from those of b, and two
    signs from the low bits of a.  The point at radius sqrt(-2 log u) and angle phi + pi/4 lies in the first quadrant,
    and the signs spread it over all four; its coordinates are sqrt(-log u) (cos phi -+ sin phi).
    The smallest u is 2^-52, so that the tails end at 8.49 (probability 2e-17).
    """
    for i in range(BLOCK // 2):
        a, b = np.float64(first[i]).view(np.uint64), np.float64(second[i]).view(np.uint64)
        # 52 random bits under the exponent of 1.0 are uniform in [1, 2).
        u = 2.0 - _U64((a >> _12) | _ONE).view(np.float64)
        # u = 2^e m with sqrt(1/2) <= m < sqrt(2), so that nothing cancels for u near 1: taking the bits of sqrt(1/2)
        # off those of u leaves e in the exponent field, and the bits of 1.0 are added to have e + 1023 > 0 there.
        scaled = _U64(np.float64(u).view(np.uint64) + (_ONE - _SQRT_HALF))
        m = _U64((scaled & _MANTISSA) + _SQRT_HALF).view(np.float64)
        # An integer put into the mantissa of 2^52 is converted by a subtraction; AVX2 has no instruction for it.
        e = _U64((scaled >> _52) | _TWO_52).view(np.float64) - _TWO_52_AND_BIAS
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        series = z * (_L1 + z * (_L2 + z * (_L3 + z * (_L4 + z * (_L5 + z * (_L6 + z * _L7))))))
        radius = np.sqrt(-(e * _LN_2 + ((s + s) + s * series)))
        phi = (_U64((b >> _12) | _ONE).view(np.float64) - 1.5) * _HALF_PI
        z = phi * phi
        sine = phi * (1.0 + z * (_S1 + z * (_S2 + z * (_S3 + z * (_S4 + z * (_S5 + z * _S6))))))
        cosine = 1.0 + z * (-0.5 + z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * _C6))))))
        x = np.float64(radius * (cosine - sine)).view(np.uint64)
        y = np.float64(radius * (cosine + sine)).view(np.uint64)
        first[i] = _U64(x ^ (a << _63)).view(np.float64)
        second[i] = _U64(y ^ ((a << _62) & _SIGN)).view(np.float64)


@exact_inlined
def _transform32(first, second):
    """Replace the halves of words in two float32 arrays of length BLOCK / 2 by normals; otherwise as `_transform`.

    Of the halves (a, b) of a word, the high 31 bits of a give u, all of b give phi, and the low bits are the signs.
    u is the middle of one of 2^31 cells, rounded to 24 bits, and at least 2^-32: the tails end at 6.66 (probability
    3e-11).  Near u = 1 log u has steps of 6e-8, so that the radii below 1e-3 are coarse and one in 3e7 is 0.
    """
    for i in range(BLOCK // 2):
        a, b = _F32(first[i]).view(np.uint32), _F32(second[i]).view(np.uint32)
        # Integers are converted as signed: AVX2 has no instruction for unsigned ones.
        u = _F32(_U32(a >> _1_32).view(np.int32)) + _HALF_32
        scaled = _U32(_F32(u).view(np.uint32) + (_ONE_32 - _SQRT_HALF_32))
        f = _U32((scaled & _MANTISSA_32) + _SQRT_HALF_32).view(np.float32) - _UNIT_32
        e = _F32(_U32(scaled >> _23_32).view(np.int32)) - _BIAS_32
        z = f * f
        series = _P4 + f * (_P5 + f * (_P6 + f * (_P7 + f * _P8)))
        series = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * series)))
        radius = np.sqrt(-(e * _LN_2_32 + (f + z * (f * series - _HALF_32))))
        phi = _F32(_U32(b | _1_32).view(np.int32)) * _ANGLE_32  # an odd integer: its sign is fair, and it is never 0
        z = phi * phi
        sine = phi * (_UNIT_32 + z * (_S1_32 + z * (_S2_32 + z * _S3_32)))
        cosine = _UNIT_32 + z * (-_HALF_32 + z * (_C1_32 + z * (_C2_32 + z * _C3_32)))
        x = _F32(radius * (cosine - sine)).view(np.uint32)
        y = _F32(radius * (cosine + sine)).view(np.uint32)
        first[i] = _U32(x ^ _U32(a << _31_32)).view(np.float32)
        second[i] = _U32(y ^ _U32(b << _31_32)).view(np.float32)


def _normal_block(lanes, block):
    """Fill `block`, (BLOCK,) of float64, with normals."""
    first, second = block[: BLOCK // 2], block[BLOCK // 2 :]
    _fill_words(lanes, first, second)
    _transform(first, second)


def _normal_block32(lanes, block):
    """Fill `block`, (BLOCK,) of float32, with normals."""
    first, second = block[: BLOCK // 2], block[BLOCK // 2 :]
    _fill_words32(lanes, first, second)
    _transform32(first, second)


# In loops over blocks a call, because AVX2 keeps the constants in its few registers only in a function of its own.
# In functions that run once per number inline, because Numba drops the reference counts of the stream's arrays only
# where it sees that nothing called can raise.
_fill_block = exact(_normal_block)
_fill_block32 = exact(_normal_block32)
_fill_block_inline = exact_inlined(_normal_block)


@exact
def _copy(source, target):
    for i in range(len(target)):
        target[i] = source[i]


@kernel
def normals(stream, out):
    """Fill an array with the next numbers of a stream; however they are divided into calls, the sequence is the same.

    Parameters
    ----------
    stream : Stream
        Advanced by ``len(out)`` numbers.
    out : (n,) ndarray of float64, contiguous
        Overwritten with independent standard normals.  Fastest for n a multiple of `BLOCK` and cache-line aligned
        arrays (`aligned_empty`).
    """
    n, position = len(out), stream.position[0]
    done = min(n, BLOCK - position)
    _copy(stream.buffer[position : position + done], out[:done])
    position += done
    while n - done >= BLOCK:
        _fill_block(stream.lanes, out[done : done + BLOCK])
        done += BLOCK
    if done < n:
        _fill_block(stream.lanes, stream.buffer)
        position = n - done
        _copy(stream.buffer[:position], out[done:])
    stream.position[0] = position


@kernel
def normals32(stream, out):
    """Fill an array with the next numbers of a single-precision stream; see `normals`.

    Parameters
    ----------
    stream : Stream32
        Advanced by ``len(out)`` numbers.
    out : (n,) ndarray of float32, contiguous
        Overwritten with independent standard normals, none of them beyond 6.66.
    """
    n, position = len(out), stream.position[0]
    done = min(n, BLOCK - position)
    _copy(stream.buffer[position : position + done], out[:done])
    position += done
    while n - done >= BLOCK:
        _fill_block32(stream.lanes, out[done : done + BLOCK])
        done += BLOCK
    if done < n:
        _fill_block32(stream.lanes, stream.buffer)
        position = n - done
        _copy(stream.buffer[:position], out[done:])
    stream.position[0] = position


@kernel
def next_normal(stream):
    """Return the next number of a stream.

    A call costs several times a number of `normals`: in a loop that runs long, draw a block and read from it.

    Parameters
    ----------
    stream : Stream
        Advanced by one number.

    Returns
    -------
    float
        A standard normal.
    """
    position = stream.position[0]
    if position == BLOCK:
        _fill_block_inline(stream.lanes, stream.buffer)
        position = 0
    stream.position[0] = position + 1
    return stream.buffer[position]


@exact_inlined
def _next_three(stream):
    position = stream.position[0]
    x = y = z = 0.0
    for _ in range(3):
        if position == BLOCK:
            _fill_block_inline(stream.lanes, stream.buffer)
            position = 0
        x, y, z = y, z, stream.buffer[position]
        position += 1
    stream.position[0] = position
    return x, y, z


@kernel
def chi_square(stream, df):
    r"""Return a chi-squared variate, exact up to rounding [3]_.

    With :math:`d = a - 1/3` and a normal :math:`x` a gamma variate of shape :math:`a \ge 1` is :math:`d (1 + t)^3`,
    :math:`t = x / \sqrt{9 d}`, if :math:`t > -1` and if a standard exponential :math:`E` exceeds

    .. math:: -x^2/2 - d (1 - (1 + t)^3 + 3 \log(1 + t)) = -3 d \, (\log(1 + t) - t + t^2/2 - t^3/3) \ge 0;

    otherwise try again.  :math:`E` is half the sum of two squared normals.  A variate of shape :math:`a < 1` is one of
    shape :math:`a + 1` times :math:`e^{-E/a}` with another :math:`E`.

    Parameters
    ----------
    stream : Stream
        Advanced by 3 numbers for each trial, and 3 for a shape below 1.  For large `df` nearly every trial succeeds.
    df : float
        Degrees of freedom, > 0 and at most about 1e18.

    Returns
    -------
    float
        The variate.
    """
    shape = 0.5 * df
    factor = 2.0
    below_1 = shape < 1.0
    if below_1:
        shape += 1.0
    d = shape - 1.0 / 3.0
    scale = 1.0 / np.sqrt(9.0 * d)
    while True:
        x, y, z = _next_three(stream)
        exponential = 0.5 * (x * x + y * y)
        if below_1:
            factor *= np.exp(-exponential / (shape - 1.0))
            below_1 = False
            continue
        t = scale * z
        if t <= -1.0:
            continue
        if abs(t) < 0.03:
            # The powers of t up to the third cancel: sum the series of the logarithm from the fourth on.
            bound = 1 / 7 - t * (1 / 8 - t * (1 / 9 - t * (1 / 10 - t * (1 / 11 - t * (1 / 12)))))
            bound = 3.0 * d * t**4 * (1 / 4 - t * (1 / 5 - t * (1 / 6 - t * bound)))
        else:
            bound = -3.0 * d * (np.log1p(t) - t * (1.0 - t * (1 / 2 - t * (1 / 3))))
        if exponential <= bound:
            continue
        return factor * d * (1.0 + t) ** 3
