"""Test configuration: tests marked `compiled` draw too many numbers for pure Python and need Numba's JIT."""

import contextlib
import importlib
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


#: Where registries are made: one that is not there yet could not be restored.
REGISTERING = (
    "hdsgd.engines", "hdsgd.networks.activations", "hdsgd.networks.variables", "hdsgd.problem.activations",
    "hdsgd.problem.constraints", "hdsgd.problem.losses", "hdsgd.problem.protocols", "hdsgd.results.kinds",
    "hdsgd.results.schema", "hdsgd.studies.kinds", "hdsgd.theory.rules", "hdsgd_cli.commands",
)  # fmt: skip


@pytest.fixture
def registered(monkeypatch):
    """Registers entries of any kind.  What a test registers, by this or otherwise, is known to this test alone."""
    for module in REGISTERING:
        importlib.import_module(module)
    from hdsgd import register
    from hdsgd.problem.arrays import tabulate
    from hdsgd.registry import REGISTRIES

    for registry in REGISTRIES.values():
        for name in ("_entries", "_modules"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

    def add(*entries):
        for entry in entries:
            register(entry)

    yield add
    tabulate.cache_clear()


@pytest.fixture
def own(registered):
    """The entries of `own_things`, registered from outside."""
    from own_things import OWN

    registered(*OWN)


@pytest.fixture(scope="session")
def small():
    """The phase diagram of `small_studies.SMALL`, never stored."""
    from small_studies import PROBLEM, SMALL

    from hdsgd import phase_diagram

    return phase_diagram(PROBLEM, **SMALL)


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
