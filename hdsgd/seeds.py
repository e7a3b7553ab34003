"""Seeds addressed by what they are for, never by the order in which they are asked for."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.checks import whole

__all__ = ["Children", "cell_seed", "child"]

# Constants of the hash of `numpy.random.SeedSequence`: M. E. O'Neill, "Developing a seed_seq alternative" (2015).
_POOL, _SHIFT = 4, np.uint32(16)
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


def child(seed: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """The child of `seed` with the given address; asking twice gives the same child (unlike ``spawn``)."""
    return np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, *key))


def cell_seed(seed: int, specification: Mapping[str, Any]) -> np.random.SeedSequence:
    """Seed of everything that is run with one specification (problem, dimension, batch, learning rate, ...).

    The address is the digest of the specification, so a cell of a phase diagram draws the same numbers in whatever
    grid it lies, and `simulate` with its specification repeats it.

    Parameters
    ----------
    seed : int
        The user's seed, non-negative.
    specification : mapping
        JSON values.
    """
    text = json.dumps(specification, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # One array, which children are made from several times faster than from a long key.
    address = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
    number = whole("seed", seed)
    words = np.frombuffer(number.to_bytes(4 * max(1, -(-number.bit_length() // 32)), "little"), dtype="<u4")
    # The digest last, so that a long seed is not a short one with the address of a child.
    return np.random.SeedSequence(np.concatenate([words, address]).astype(np.uint32))


@dataclass(frozen=True)
class Children:
    """Several children of one seed: `child`, and what it would generate, for many addresses at once.

    Parameters
    ----------
    parent : numpy.random.SeedSequence
        From `cell_seed`, or a child of such.
    addresses : sequence of tuple of int
        All of one length, each number below 2^32.
    """

    parent: np.random.SeedSequence
    addresses: Sequence[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[np.random.SeedSequence]:
        return (child(self.parent, *address) for address in self.addresses)

    def generate_state(self, words: int) -> NDArray[np.uint64]:
        """``generate_state(words, np.uint64)`` of each, shape (len(self), words), several times sooner."""
        entropy = np.asarray(self.parent.entropy, dtype=np.uint32)
        # The parent's pool has taken up its own numbers, one hash for each word and each number of the pool; those of
        # the address follow.
        hashes = _POOL * (max(_POOL, len(entropy)) + len(self.parent.spawn_key))
        pool = [np.full(len(self), word, dtype=np.uint32) for word in self.parent.pool]
        constants = _powers(_INIT_A, _MULT_A, hashes + _POOL * len(self.addresses[0]) + 1)[hashes:]
        n = 0
        for number in np.array(self.addresses, dtype=np.uint32).T:
            for i in range(_POOL):
                mixed = _MIX_LEFT * pool[i] - _MIX_RIGHT * _hash(number, constants[n], constants[n + 1])
                pool[i] = mixed ^ (mixed >> _SHIFT)
                n += 1
        constants = _powers(_INIT_B, _MULT_B, 2 * words + 1)
        cycle = np.tile(np.array(pool, dtype=np.uint32).T, -(-2 * words // _POOL))[:, : 2 * words]
        state = _hash(cycle, constants[:-1], constants[1:])
        return np.ascontiguousarray(state).astype("<u4", copy=False).view("<u8").astype(np.uint64, copy=False)


def _hash(value: NDArray[np.uint32], before: Any, after: Any) -> NDArray[np.uint32]:
    value = (value ^ before) * after
    return np.asarray(value ^ (value >> _SHIFT))


@functools.lru_cache(maxsize=64)
def _powers(first: int, factor: int, count: int) -> NDArray[np.uint32]:
    """``first factor^n`` modulo 2^32 for n < count."""
    powers = [first]
    for _ in range(count - 1):
        powers.append(powers[-1] * factor % 2**32)
    return np.array(powers, dtype=np.uint32)
