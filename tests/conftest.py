"""Test configuration: tests marked `compiled` draw too many numbers for pure Python and need Numba's JIT."""

import os

import numpy as np
import pytest

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

if not JIT:
    # Kernels rely on unsigned integers wrapping around, which NumPy's scalars report and compiled code does not.
    np.seterr(over="ignore")


def pytest_collection_modifyitems(items):
    if not JIT:
        skip = pytest.mark.skip(reason="needs compiled kernels (Numba's JIT is off)")
        for item in items:
            if "compiled" in item.keywords:
                item.add_marker(skip)
