"""Seeds addressed by what they are for, never by the order in which they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hdsgd.model import whole

__all__ = ["cell_seed", "child"]


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
    return np.random.SeedSequence(np.concatenate([address, words]).astype(np.uint32))
