"""Seeds by address."""

import numpy as np
import pytest

from hdsgd.engines._stream_types import SEED_WORDS, new_stream, new_streams
from hdsgd.seeds import Children, cell_seed, child

CELL = cell_seed(3, {"dim": 10, "lr": 0.1})


@pytest.mark.parametrize("parent", [CELL, cell_seed(2**70, {}), child(CELL, 7), child(CELL, 0, 2**31)])
@pytest.mark.parametrize("addresses", [[(r, 1) for r in range(70)], [(2**32 - 1,), (0,)], [(0, 0, 0)]])
def test_children_together_are_what_they_are_alone(parent, addresses):
    children = Children(parent, addresses)
    assert len(list(children)) == len(children) == len(addresses)
    for words in (1, 2, 5, SEED_WORDS):
        alone = [np.random.SeedSequence(parent.entropy, spawn_key=(*parent.spawn_key, *a)) for a in addresses]
        expected = np.array([seed.generate_state(words, np.uint64) for seed in alone])
        assert np.array_equal(children.generate_state(words), expected)
        assert np.array_equal([seed.generate_state(words, np.uint64) for seed in children], expected)


def test_streams_together_are_what_they_are_alone():
    children = Children(CELL, [(r,) for r in range(5)])
    together = new_streams(children.generate_state(SEED_WORDS))
    for n, seed in enumerate(children):
        for array, alone in zip(together, new_stream(seed), strict=True):
            assert np.array_equal(array[n], alone)
        assert together.lanes[n].ctypes.data % 64 == together.buffer[n].ctypes.data % 64 == 0


def test_every_part_of_an_address_counts():
    words = {
        tuple(seed.generate_state(4).tolist())
        for seed in (
            CELL,
            cell_seed(4, {"dim": 10, "lr": 0.1}),
            cell_seed(3 + 2**32, {"dim": 10, "lr": 0.1}),
            cell_seed(3, {"dim": 10, "lr": 0.2}),
            child(CELL, 0),
            child(CELL, 1),
            child(CELL, 0, 0),
            child(CELL, 0, 1),
        )
    }
    assert len(words) == 8
    assert cell_seed(3, {"lr": 0.1, "dim": 10}).generate_state(1) == CELL.generate_state(1)
