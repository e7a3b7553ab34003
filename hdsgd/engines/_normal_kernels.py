"""Block generator of standard normals for the kernels (first version)."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from hdsgd._compile import kernel

LANES = 16
BLOCK = 512

# Only fused multiply-add is allowed here: reassociation would undo the exact steps, e.g. (x - 2^52) * c.
_exact = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})

_U = np.uint64
_R23, _R41, _S17, _R45, _R19 = _U(23), _U(41), _U(17), _U(45), _U(19)
_S12, _S52, _S63, _S62 = _U(12), _U(52), _U(63), _U(62)
_ONE_BITS = _U(0x3FF0000000000000)
_MANTISSA = _U(0x000FFFFFFFFFFFFF)
_SIGN = _U(0x8000000000000000)
_HALF_SQRT2_BITS = _U(0x3FE6A09E667F3BCD)
_OFFSET = _U(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
_MAGIC = _U(0x4330000000000000)
_MAGIC_VALUE = 4503599627370496.0 + 1023.0
_LN2 = 0.6931471805599453
_HALF_PI = 1.5707963267948966

# fdlibm e_log.c, k_sin.c, k_cos.c
_LG = (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
       1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01)
_SN = (-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
       2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10)
_CS = (4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
       -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11)


class Stream(NamedTuple):
    """State of one stream of standard normals."""

    lanes: np.ndarray
    buffer: np.ndarray
    position: np.ndarray


class Stream32(NamedTuple):
    """State of one single-precision stream."""

    lanes: np.ndarray
    buffer: np.ndarray
    position: np.ndarray


def _seeded_lanes(seed_sequence):
    lanes = seed_sequence.generate_state(4 * LANES, np.uint64).reshape(4, LANES)
    lanes[0, ~lanes.any(axis=0)] = 1
    return lanes


def new_stream(seed_sequence):
    """Seed a stream."""
    return Stream(_seeded_lanes(seed_sequence), np.zeros(BLOCK), np.array([BLOCK], dtype=np.int64))


@_exact
def _block(lanes, out):
    s0, s1, s2, s3 = lanes[0], lanes[1], lanes[2], lanes[3]
    words = out.view(np.uint64)
    for row in range(BLOCK // LANES):
        target = words[row * LANES : (row + 1) * LANES]
        for j in range(LANES):
            w0, w1, w2, w3 = s0[j], s1[j], s2[j], s3[j]
            x = w0 + w3
            target[j] = ((x << _R23) | (x >> _R41)) + w0
            t = w1 << _S17
            w2 ^= w0
            w3 ^= w1
            w1 ^= w2
            w0 ^= w3
            w2 ^= t
            s0[j] = w0
            s1[j] = w1
            s2[j] = w2
            s3[j] = (w3 << _R45) | (w3 >> _R19)
    first, second = words[: BLOCK // 2], words[BLOCK // 2 :]
    xs, ys = first.view(np.float64), second.view(np.float64)
    for i in range(BLOCK // 2):
        a, b = first[i], second[i]
        u = 2.0 - np.uint64((a >> _S12) | _ONE_BITS).view(np.float64)
        shifted = np.uint64(np.float64(u).view(np.uint64) + _OFFSET)
        e = np.uint64((shifted >> _S52) | _MAGIC).view(np.float64) - _MAGIC_VALUE
        m = np.uint64((shifted & _MANTISSA) + _HALF_SQRT2_BITS).view(np.float64)
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        r = z * (_LG[0] + z * (_LG[1] + z * (_LG[2] + z * (_LG[3] + z * (_LG[4] + z * (_LG[5] + z * _LG[6]))))))
        radius = np.sqrt(-(e * _LN2 + (2.0 * s + s * r)))
        phi = (np.uint64((b >> _S12) | _ONE_BITS).view(np.float64) - 1.5) * _HALF_PI
        z = phi * phi
        sine = phi + phi * z * (
            _SN[0] + z * (_SN[1] + z * (_SN[2] + z * (_SN[3] + z * (_SN[4] + z * _SN[5]))))
        )
        cosine = 1.0 - 0.5 * z + z * z * (
            _CS[0] + z * (_CS[1] + z * (_CS[2] + z * (_CS[3] + z * (_CS[4] + z * _CS[5]))))
        )
        x = np.float64(radius * (cosine - sine)).view(np.uint64)
        y = np.float64(radius * (cosine + sine)).view(np.uint64)
        xs[i] = np.uint64(x ^ (a << _S63)).view(np.float64)
        ys[i] = np.uint64(y ^ ((a << _S62) & _SIGN)).view(np.float64)


@kernel
def normals(stream, out):
    """Fill `out` with the next numbers of the stream."""
    n = len(out)
    position = stream.position[0]
    done = min(n, BLOCK - position)
    out[:done] = stream.buffer[position : position + done]
    position += done
    while n - done >= BLOCK:
        _block(stream.lanes, out[done : done + BLOCK])
        done += BLOCK
    if done < n:
        _block(stream.lanes, stream.buffer)
        position = n - done
        out[done:] = stream.buffer[:position]
    stream.position[0] = position


@kernel
def next_normal(stream):
    """Return the next number of the stream."""
    position = stream.position[0]
    if position == BLOCK:
        _block(stream.lanes, stream.buffer)
        position = 0
    stream.position[0] = position + 1
    return stream.buffer[position]


@kernel
def chi_square(stream, df):
    """Return a chi-squared variate with `df` degrees of freedom."""
    shape = 0.5 * df
    boost = 1.0
    if shape < 1.0:
        energy = 0.5 * (next_normal(stream) ** 2 + next_normal(stream) ** 2)
        boost = np.exp(-energy / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    while True:
        t = c * next_normal(stream)
        if t <= -1.0:
            continue
        if abs(t) < 0.03:
            h = 1/4 - t * (1/5 - t * (1/6 - t * (1/7 - t * (1/8 - t * (1/9 - t * (1/10 - t * (1/11 - t / 12)))))))
            bound = 3.0 * d * t**4 * h
        else:
            bound = -3.0 * d * (np.log1p(t) - t * (1.0 - t * (0.5 - t / 3.0)))
        energy = 0.5 * next_normal(stream) ** 2
        if energy <= bound:
            energy += 0.5 * next_normal(stream) ** 2
        if energy > bound:
            return 2.0 * boost * d * (1.0 + t) ** 3
