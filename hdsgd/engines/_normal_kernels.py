"""Block generator of standard normals for the kernels, and the chi-squared variates made from them.

Bits: ``LANES`` independent xoshiro256++ generators [1]_ advanced side by side, one SIMD lane each.  Normals: the
Box-Muller transform [2]_ with polynomials instead of library calls.  Every loop below is plain Python that LLVM turns
into SIMD instructions; that needs loops over separate slices with a bare ``range`` index, and input and output slices
that are views of each other (or LLVM must assume that they overlap shifted, and falls back to scalar code).

xoshiro256++ has period 2^256 - 1, is 4-dimensionally equidistributed, and passes BigCrush (also bit-reversed) and
PractRand [1]_.  Lanes are seeded by hashing, so two of them overlap with probability about
(number of lanes)^2 x (words drawn) / 2^256.

References
----------
.. [1] D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47 (2021), 36.
.. [2] G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", Ann. Math. Stat. 29 (1958).
.. [3] G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000), 363.
.. [4] fdlibm, Sun Microsystems 1993: ``e_log.c``, ``k_sin.c``, ``k_cos.c``.
.. [5] Cephes, S. L. Moshier: ``single/logf.c``, ``single/sinf.c``.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from hdsgd._compile import kernel

# Generators side by side: at least two AVX-512 registers of words, to hide the latency of one.
LANES = 16
# Normals made at once and held in the buffer of a stream: 4 KiB in double precision, half of that in single.
BLOCK = 512

# The functions that make numbers may fuse multiply-adds and nothing else.  The flags of `kernel` would undo exact
# steps ((x - 2^52) * c becomes x * c - 2^52 * c) and allow approximate float32 division and square root, whose digits
# depend on the processor.  They are compiled into the cached kernels that call them, so need no cache of their own.
_exact = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})

# Shift counts and masks are uint64 (uint32) constants: uint64 with a signed integer would become float64.
_U64 = np.uint64
_17, _19, _23, _41, _45 = _U64(17), _U64(19), _U64(23), _U64(41), _U64(45)  # xoshiro256++ [1]
_12, _52, _62, _63 = _U64(12), _U64(52), _U64(62), _U64(63)
_SIGN = _U64(1 << 63)
_MANTISSA = _U64((1 << 52) - 1)
_ONE = _U64(0x3FF0000000000000)  # bits of 1.0
_SQRT_HALF = _U64(0x3FE6A09E667F3BCD)  # bits of sqrt(1/2)
_TWO_52 = _U64(0x4330000000000000)  # bits of 2^52: the mantissa of a double in [2^52, 2^53) is an integer
_TWO_52_AND_BIAS = 2.0**52 + 1023.0
_LN_2 = 0.6931471805599453
_HALF_PI = 1.5707963267948966

# log(1 + f) = 2 s + s R(s^2), s = f / (2 + f): coefficients of R [4]
_L1, _L2, _L3, _L4 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01
_L5, _L6, _L7 = 1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01
# sin x = x (1 + S(x^2)), cos x = 1 - x^2/2 + C(x^2) for |x| <= pi/4 [4]
_S1, _S2, _S3 = -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04
_S4, _S5, _S6 = 2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10
_C1, _C2, _C3 = 4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05
_C4, _C5, _C6 = -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11

# The same in single precision.
_U32, _F32 = np.uint32, np.float32
_1_32, _23_32, _30_32, _31_32 = _U32(1), _U32(23), _U32(30), _U32(31)
