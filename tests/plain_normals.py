"""The sequences of `hdsgd.engines._normal_kernels` again, slowly and plainly: Python integers, NumPy functions."""

import numpy as np

MASK = 2**64 - 1


def rotl(word, count):
    """Rotate a word of 64 bits to the left."""
    return ((word << count) | (word >> (64 - count))) & MASK


def next_word(state):
    """Step xoshiro256++, a list of four words, and return its output (D. Blackman, S. Vigna, ACM TOMS 47, 2021)."""
    s0, s1, s2, s3 = state
    word = (rotl((s0 + s3) & MASK, 23) + s0) & MASK
    t = (s1 << 17) & MASK
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    s3 = rotl(s3, 45)
    state[:] = s0, s1, s2, s3
    return word


def seeded_lanes(seed_sequence, lanes):
    """One state of xoshiro256++ for each lane: word w of lane j is number w * lanes + j of the seed sequence."""
    words = seed_sequence.generate_state(4 * lanes, np.uint64).reshape(4, lanes)
    return [[int(word) for word in words[:, j]] for j in range(lanes)]


def words(states, pairs):
    """Pairs (a, b) of words: the lanes take turns, and each makes a, then b."""
    made = np.array([[next_word(states[i % len(states)]) for _ in range(2)] for i in range(pairs)], dtype=np.uint64)
    return made[:, 0], made[:, 1]


def words32(states, pairs):
    """Pairs (a, b) of the low and the high half of a word: the lanes take turns."""
    made = [next_word(states[i % len(states)]) for i in range(pairs)]
    return np.array([w & 0xFFFFFFFF for w in made]), np.array([w >> 32 for w in made])


def box_muller(u, angle, a_sign, b_sign):
    """Points at radius sqrt(-2 log u) and an angle in the first quadrant, reflected where a sign is 1."""
    radius = np.sqrt(-2 * np.log(u))
    return radius * np.cos(angle) * (-1.0) ** a_sign, radius * np.sin(angle) * (-1.0) ** b_sign


def transform(a, b):
    """Two normals from each pair of words."""
    u = 1 - (a >> np.uint64(12)) / 2.0**52
    angle = np.pi / 2 * ((b >> np.uint64(12)) / 2.0**52)
    return box_muller(u, angle, a & np.uint64(1), (a >> np.uint64(1)) & np.uint64(1))


def transform32(a, b):
    """Two normals from each pair of halves, where u is rounded to single precision."""
    u = (np.float32(a >> 1) + np.float32(0.5)).astype(np.float64) / 2.0**31
    angle = np.pi / 4 * (1 + (b | 1).astype(np.uint32).view(np.int32) / 2.0**31)
    return box_muller(u, angle, a & 1, b & 1)


def normals(seed_sequence, n, lanes, block):
    """The first n numbers of the double-precision stream."""
    states = seeded_lanes(seed_sequence, lanes)
    blocks = [np.concatenate(transform(*words(states, block // 2))) for _ in range(-(-n // block))]
    return np.concatenate(blocks)[:n]


def normals32(seed_sequence, n, lanes, block):
    """The first n numbers of the single-precision stream, computed in double precision."""
    states = seeded_lanes(seed_sequence, lanes)
    blocks = [np.concatenate(transform32(*words32(states, block // 2))) for _ in range(-(-n // block))]
    return np.concatenate(blocks)[:n]


def chi_square(numbers, df):
    """A chi-squared variate from an iterator of normals (G. Marsaglia, W. W. Tsang, ACM TOMS 26, 2000)."""
    a = df / 2
    if a < 1:
        n1, n2, _ = next(numbers), next(numbers), next(numbers)
        return chi_square(numbers, df + 2) * np.exp(-(n1**2 + n2**2) / 2 / a)
    d = a - 1 / 3
    while True:
        n1, n2, x = next(numbers), next(numbers), next(numbers)
        v = (1 + x / np.sqrt(9 * d)) ** 3
        if v > 0 and -(n1**2 + n2**2) / 2 < x**2 / 2 + d - d * v + d * np.log(v):
            return 2 * d * v
