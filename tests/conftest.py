"""Test configuration: tests marked `compiled` draw too many numbers for pure Python and need Numba's JIT."""

import os

import pytest

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def pytest_configure(config):
    if not JIT:
        # Kernels rely on unsigned integers wrapping around and on infinities arising quietly in a divergence; NumPy's
        # scalars report both, compiled code does not.
        config.addinivalue_line("filterwarnings", r"ignore:(overflow|invalid value) encountered:RuntimeWarning")


def pytest_collection_modifyitems(items):
    if not JIT:
        skip = pytest.mark.skip(reason="needs compiled kernels (Numba's JIT is off)")
        for item in items:
            if "compiled" in item.keywords:
                item.add_marker(skip)
