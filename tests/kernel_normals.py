"""Numbers of the block generator in either precision, for the tests that compare and judge them."""

import numpy as np

from hdsgd.engines._normal_kernels import normals, normals32
from hdsgd.engines._stream_types import new_stream, new_stream32

PRECISIONS = {"float64": (new_stream, normals, np.float64), "float32": (new_stream32, normals32, np.float32)}


def draw(seed_sequence, n, precision="float64"):
    new, fill, dtype = PRECISIONS[precision]
    out = np.empty(n, dtype=dtype)
    fill(new(seed_sequence), out)
    return out
