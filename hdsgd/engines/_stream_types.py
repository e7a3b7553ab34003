# mypy: ignore-errors
"""Streams of random numbers as the kernels see them (`hdsgd.engines._normal_kernels`), and how they are seeded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Generators side by side: four AVX-512 registers of words, so that one hides the latency of another.
LANES = 32
SEED_WORDS = 4 * LANES
# Normals made at once and held by a stream: 4 KiB in double precision, which stays in the first-level cache.
BLOCK = 512


class Stream(NamedTuple):
    """State of one stream of standard normals in double precision; kernels change its arrays in place.

    Copies of the three arrays save the stream, and writing them back restores it exactly.

    Attributes
    ----------
    lanes : (4, LANES) ndarray of uint64
        Words 0-3 of each xoshiro256++ generator.
    buffer : (BLOCK,) ndarray of float64
        The block of normals being handed out.
    position : (1,) ndarray of int64
        Index of the next number in `buffer`; `BLOCK` when none is left.
    """

    lanes: np.ndarray
    buffer: np.ndarray
    position: np.ndarray


class Stream32(NamedTuple):
    """State of one stream of standard normals in single precision: as `Stream`, with a float32 buffer."""

    lanes: np.ndarray
    buffer: np.ndarray
    position: np.ndarray


def aligned_empty(n, dtype):
    """Uninitialised 1-d array at the start of a cache line, for state and for arrays filled by `normals`.

    SIMD loads and stores that straddle cache lines make the generator up to a quarter slower.

    Parameters
    ----------
    n : int
        Length.
    dtype : dtype
        Type of the elements.

    Returns
    -------
    (n,) ndarray
        The array, at an address divisible by 64.
    """
    size = n * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype)


def new_stream(seed_sequence):
    """Seed a stream of standard normals in double precision.

    Parameters
    ----------
    seed_sequence : numpy.random.SeedSequence
        Determines the whole state.  Streams of different children of one `SeedSequence` are independent.

    Returns
    -------
    Stream
        A stream with an empty buffer.
    """
    return Stream(*(array[0] for array in new_streams(seed_sequence.generate_state(SEED_WORDS, np.uint64)[None])))


def new_streams(words):
    """Seed several streams of standard normals in double precision, stored as one.

    Parameters
    ----------
    words : (n, SEED_WORDS) ndarray of uint64
        What the seed sequence of each stream generates.

    Returns
    -------
    Stream
        Arrays with an axis of length n in front: entry i is the stream that `new_stream` makes of seed i.
    """
    n = len(words)
    lanes, buffer = aligned_empty(words.size, np.uint64), aligned_empty(n * BLOCK, np.float64)
    lanes[:], buffer[:] = _valid(words).ravel(), 0.0
    return Stream(lanes.reshape(n, 4, LANES), buffer.reshape(n, BLOCK), np.full((n, 1), BLOCK, dtype=np.int64))


def new_stream32(seed_sequence):
    """Seed a stream of standard normals in single precision.

    Parameters
    ----------
    seed_sequence : numpy.random.SeedSequence
        As for `new_stream`.  The stream is made of the same random words as the double-precision stream of the same
        seed, so the two must not be used together.

    Returns
    -------
    Stream32
        A stream with an empty buffer.
    """
    stream, buffer = new_stream(seed_sequence), aligned_empty(BLOCK, np.float32)
    buffer[:] = 0.0
    return Stream32(stream.lanes, buffer, stream.position)


def _valid(words):
    """Words 0-3 of the generators, with none in the one state that xoshiro never leaves, all zeros."""
    lanes = words.reshape(len(words), 4, LANES)
    if lanes.any(axis=1).all():
        return lanes
    return np.where(lanes.any(axis=1, keepdims=True), lanes, np.uint64(1))
