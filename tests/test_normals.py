"""The block generator of standard normals: numbers of the plain version, one sequence whatever the calls, its state."""

import numpy as np
import plain_normals as plain
import pytest
from kernel_normals import PRECISIONS, draw

from hdsgd.engines import _normal_kernels as kernels
from hdsgd.engines._normal_kernels import chi_square, next_normal, normals
from hdsgd.engines._stream_types import BLOCK, LANES, Stream, new_stream, new_stream32

# ---------------------------------------------------------------------------------------------------------------------
# The same numbers as the plain version


def test_xoshiro_reference_values():
    """Outputs from the state (1, 2, 3, 4), as published with the reference implementation."""
    expected = [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
        9228616714210784205,
        9973669472204895162,
        14011001112246962877,
        12406186145184390807,
        15849039046786891736,
        10450023813501588000,
    ]
    state = [1, 2, 3, 4]
    assert [plain.next_word(state) for _ in range(10)] == expected

    lanes = np.repeat(np.array([[1], [2], [3], [4]], dtype=np.uint64), LANES, axis=1)
    first, second = np.empty((2, BLOCK // 2))
    kernels._fill_words(lanes, first, second)
    for j in (0, LANES - 1):
        made = np.stack([first[j::LANES], second[j::LANES]], axis=1).ravel().view(np.uint64)
        assert made[:10].tolist() == expected[: len(made)]


def test_words_equal_plain():
    sequence = np.random.SeedSequence(1)
    states = plain.seeded_lanes(sequence, LANES)
    stream = new_stream(sequence)
    for _ in range(2):
        first, second = np.empty((2, BLOCK // 2))
        kernels._fill_words(stream.lanes, first, second)
        a, b = plain.words(states, BLOCK // 2)
        np.testing.assert_array_equal(first.view(np.uint64), a)
        np.testing.assert_array_equal(second.view(np.uint64), b)
    np.testing.assert_array_equal(stream.lanes, np.array(states, dtype=np.uint64).T)


def test_words32_equal_plain():
    sequence = np.random.SeedSequence(2)
    states = plain.seeded_lanes(sequence, LANES)
    stream = new_stream32(sequence)
    first, second = np.empty((2, BLOCK // 2), dtype=np.float32)
    kernels._fill_words32(stream.lanes, first, second)
    a, b = plain.words32(states, BLOCK // 2)
    np.testing.assert_array_equal(first.view(np.uint32), a)
    np.testing.assert_array_equal(second.view(np.uint32), b)


@pytest.mark.parametrize("seed", [0, 1, 2**100])
def test_normals_equal_plain(seed):
    sequence = np.random.SeedSequence(seed)
    expected = plain.normals(sequence, 3 * BLOCK, LANES, BLOCK)
    np.testing.assert_allclose(draw(sequence, 3 * BLOCK), expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("seed", [0, 1, 2**100])
def test_normals32_equal_plain(seed):
    sequence = np.random.SeedSequence(seed)
    expected = plain.normals32(sequence, 3 * BLOCK, LANES, BLOCK)
    np.testing.assert_allclose(draw(sequence, 3 * BLOCK, "float32"), expected, rtol=4e-7, atol=4e-7)


def extreme_words():
    """Words whose high 52 bits are 0, 1, 2^k, 2^k - 1 and the complements, with all signs; u spans 1 to 2^-52."""
    high = [bits for k in range(52) for bits in (1 << k, (1 << k) - 1)]
    high = np.array(sorted({h ^ flip for h in high for flip in (0, 2**52 - 1)}), dtype=np.uint64)
    signs = np.arange(len(high), dtype=np.uint64) % np.uint64(4)
    return high << np.uint64(12) | signs


def test_transform_at_the_extremes():
    """Every scale of u and phi, the middle and both ends included."""
    words = np.resize(extreme_words(), BLOCK // 2)
    for shift in range(0, 200, 40):
        a, b = words, np.roll(words, shift)
        x, y = a.view(np.float64).copy(), b.view(np.float64).copy()
        kernels._transform(x, y)
        expected_x, expected_y = plain.transform(a, b)
        np.testing.assert_allclose(x, expected_x, rtol=1e-15, atol=2e-15)
        np.testing.assert_allclose(y, expected_y, rtol=1e-15, atol=2e-15)
        # The radius is accurate relative to itself, down to u = 1 - 2^-52.
        np.testing.assert_allclose(np.hypot(x, y), np.hypot(expected_x, expected_y), rtol=1e-15)
    assert np.hypot(x, y).max() == pytest.approx(np.sqrt(104 * np.log(2)))


def test_transform32_at_the_extremes():
    ends = [bits ^ flip for k in range(32) for bits in (1 << k, (1 << k) - 1) for flip in (0, 2**32 - 1)]
    words = np.resize(np.array(sorted(ends), dtype=np.uint32), BLOCK // 2)
    for shift in range(0, 120, 20):
        a, b = words, np.roll(words, shift)
        x, y = a.view(np.float32).copy(), b.view(np.float32).copy()
        kernels._transform32(x, y)
        expected_x, expected_y = plain.transform32(a.astype(np.int64), b.astype(np.int64))
        np.testing.assert_allclose(x, expected_x, rtol=5e-7, atol=5e-7)
        np.testing.assert_allclose(y, expected_y, rtol=5e-7, atol=5e-7)
    assert np.hypot(x, y).max() == pytest.approx(np.sqrt(64 * np.log(2)), rel=1e-6)


@pytest.mark.parametrize("df", [0.5, 1, 1.7, 2, 3, 10.5, 1000, 1e6])
def test_chi_square_equals_plain(df):
    sequence = np.random.SeedSequence(3)
    stream = new_stream(sequence)
    numbers = iter(draw(sequence, 2 * BLOCK))
    for _ in range(30):
        # The plain formula cancels about df^(1/2) in the acceptance test, without consequence for these numbers.
        assert chi_square(stream, df) == pytest.approx(plain.chi_square(numbers, df), rel=1e-13)


def test_chi_square_degenerate_arguments_return():
    stream = new_stream(np.random.SeedSequence(4))
    assert np.isnan(chi_square(stream, np.nan))


# ---------------------------------------------------------------------------------------------------------------------
# One sequence, whatever the calls; exact state


@pytest.mark.parametrize("precision", PRECISIONS)
def test_chunk_invariance(precision):
    new, fill, dtype = PRECISIONS[precision]
    sequence = np.random.SeedSequence(5)
    total = 5 * BLOCK
    whole = draw(sequence, total, precision)
    rng = np.random.default_rng(6)
    for longest in (7, BLOCK, 3 * BLOCK):
        stream, pieces, left = new(sequence), [], total
        while left:
            pieces.append(np.empty(min(left, rng.integers(0, longest + 1)), dtype=dtype))
            fill(stream, pieces[-1])
            left -= len(pieces[-1])
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_single_numbers_are_the_same_sequence():
    sequence = np.random.SeedSequence(7)
    whole = draw(sequence, 3 * BLOCK)
    stream, made = new_stream(sequence), []
    for n in (0, 1, BLOCK - 3, 5, 2):
        piece = np.empty(n)
        normals(stream, piece)
        made += [*piece, next_normal(stream), next_normal(stream)]
    np.testing.assert_array_equal(made, whole[: len(made)])


def test_chi_square_leaves_the_sequence_in_order():
    sequence = np.random.SeedSequence(8)
    whole = draw(sequence, 2 * BLOCK)
    stream = new_stream(sequence)
    piece = np.empty(BLOCK - 1)
    normals(stream, piece)
    chi_square(stream, 1e18)  # one trial across the end of a block
    assert next_normal(stream) == whole[BLOCK + 2]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("before", [0, 1, BLOCK, BLOCK + 17])
def test_state_saved_and_restored(precision, before):
    new, fill, dtype = PRECISIONS[precision]
    stream = new(np.random.SeedSequence(9))
    fill(stream, np.empty(before, dtype=dtype))
    saved = [array.copy() for array in stream]
    straight, restored, copied = np.empty((3, 2 * BLOCK + 1), dtype=dtype)
    fill(stream, straight)
    for array, old in zip(stream, saved, strict=True):
        array[...] = old
    fill(stream, restored)
    fill(type(stream)(*saved), copied)
    np.testing.assert_array_equal(restored, straight)
    np.testing.assert_array_equal(copied, straight)


def test_state_is_all_in_the_arrays():
    """Two streams advanced in turns do not disturb each other."""
    parent = np.random.SeedSequence(10)
    children = parent.spawn(2)
    alone = [draw(child, BLOCK + 60) for child in children]
    streams, turns = [new_stream(child) for child in children], [[], []]
    for _ in range(4):
        for stream, made in zip(streams, turns, strict=True):
            made.append(np.empty(BLOCK // 4 + 15))
            normals(stream, made[-1])
    for made, expected in zip(turns, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(made), expected)


def test_new_streams():
    children = np.random.SeedSequence(11).spawn(50)
    streams = [new_stream(child) for child in children] + [new_stream(np.random.SeedSequence(s)) for s in range(50)]
    lanes = np.concatenate([stream.lanes for stream in streams], axis=1)
    assert len(np.unique(lanes)) == lanes.size  # words are repeated with probability 4e-12
    for stream in streams:
        assert isinstance(stream, Stream)
        assert stream.lanes.shape == (4, LANES)
        assert stream.position[0] == BLOCK == len(stream.buffer)
        assert stream.lanes.ctypes.data % 64 == stream.buffer.ctypes.data % 64 == 0


def test_all_zero_lane_is_avoided():
    class Zeros:
        def generate_state(self, n, dtype):
            return np.zeros(n, dtype=dtype)

    assert new_stream(Zeros()).lanes.any(axis=0).all()
