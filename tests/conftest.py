"""Test configuration: tests marked `compiled` draw too many numbers for pure Python and need Numba's JIT."""

import contextlib
import math
import os
import signal
import subprocess
import sys

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


@pytest.fixture
def registries(monkeypatch):
    """What a test registers is known to this test alone."""
    from hdsgd.registry import REGISTRIES

    for registry in REGISTRIES.values():
        for name in ("_entries", "_modules"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


@pytest.fixture
def own(registries):
    """A loss with an error of its own, a constraint and an activation, registered from outside."""
    from hdsgd import Activation, Constraint, Loss, register

    register(Loss("quartic", "¼(y - f)⁴", error=lambda f, y: (f - y) ** 3))
    register(Loss("copy", "the square loss by its error", error=lambda f, y: f - y))
    register(Constraint("tangential", "gradient made tangent, rows as they are", tangential=True, normalised=False))
    register(
        Activation(
            "softplus", "log(1 + eˣ)",
            lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))), lambda x: 0.5 * (1.0 + math.tanh(0.5 * x)),
        )
    )  # fmt: skip


@pytest.fixture
def start():
    """Starts commands; those that a failing test leaves behind are ended."""
    with contextlib.ExitStack() as stack:

        def begin(*args, **options):
            process = subprocess.Popen(
                [sys.executable, "-m", "hdsgd_cli.main", *map(str, args)],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # Tests run in the background of a shell inherit that it ignores Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                **options,
            )
            stack.enter_context(process)  # waits for it and closes its pipes
            stack.callback(process.kill)
            return process

        yield begin
