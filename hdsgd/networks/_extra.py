"""The optional extra: what to install, and precision.  Nothing here imports JAX until it is needed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from hdsgd.errors import SpecificationError, choice

__all__ = ["DTYPES", "INSTALL", "precision", "require"]

INSTALL = 'pip install "hdsgd[networks]"'
DTYPES = ("float32", "float64")


def require(*modules: str) -> None:
    """Check that the optional packages are there, without importing them.

    Parameters
    ----------
    *modules : str
        Import names; JAX, Equinox and Optax by default.

    Raises
    ------
    SpecificationError
        If one is missing, with the command that installs all of them.
    """
    missing = [name for name in modules or ("jax", "equinox", "optax") if importlib.util.find_spec(name) is None]
    if missing:
        raise SpecificationError(f"networks need {', '.join(missing)}, which is not installed; run: {INSTALL}")


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Run JAX in this precision for the duration and in this thread; the process-wide setting is left alone."""
    choice("dtype", dtype, DTYPES)
    import jax

    name = "enable_x64"  # at the top level since JAX 0.8
    switch: Any = getattr(jax if hasattr(jax, name) else importlib.import_module("jax.experimental"), name)
    with switch(dtype == "float64"):
        yield
