"""How hdsgd compiles its kernels: one decorator, one cache rule, one announcement.

Importing this module imports Numba (0.5 s), so only kernel files (``_*_kernels.py``) and the code that runs them
import it, and they are imported when a computation starts, not with ``import hdsgd``.  Together with `hdsgd._callbacks`
it is all of hdsgd that knows Numba.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import compiler, config, event
from numba.core.caching import IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.extending import overload

__all__ = [
    "announced_compilation",
    "digested_files",
    "exact",
    "exact_inlined",
    "inlined",
    "inner",
    "kernel",
    "overload",
    "plain_kernel",
]

logger = logging.getLogger("hdsgd")

# Not full fast-math: "nnan" and "ninf" would make isfinite(nan) true inside kernels.
_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def digested_files() -> list[Path]:
    """Every file whose content can change what a kernel computes: all that kernel files import, constants included.

    Kernel files (``_*_kernels.py``) therefore import of hdsgd nothing but each other, files of types and constants
    (``_*_types.py``), and the two files that know Numba.
    """
    folder = Path(__file__).parent
    found = [path for pattern in ("_*_kernels.py", "_*_types.py") for path in folder.rglob(pattern)]
    return sorted([*found, folder / "_callbacks.py", folder / "_compile.py"])


@cache
def _kernel_digest() -> str:
    """sha256 over the source of every kernel file and of what those import."""
    digest = hashlib.sha256()
    for path in digested_files():
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` with Numba: cached on disk, without the GIL, NumPy's division rules, NaN-safe fast math.

    Numba considers a cached kernel fresh as long as its *own* file is unchanged and would run stale code after a
    change in a callee's file, or fail to read its index after a change of types (an upgrade of hdsgd included).  The
    digest of all kernel files together is therefore part of the name, and the stamp, of each cached kernel.
    """
    return _compiled(function)


def plain_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, for functions that neither allocate nor return arrays: compiled without reference counting.

    Counting references to the arrays in a problem's tables took as long as the arithmetic of a small step, and longer
    to compile.
    """
    return _compiled(function, _nrt=False)


def inner(function: Callable[..., Any]) -> Any:
    """As `plain_kernel`, for functions that only kernels call: without the wrapper for calls from Python either."""
    return _compiled(function, _nrt=False, no_cpython_wrapper=True)


def inlined(function: Callable[..., Any]) -> Any:
    """Make `function` part of the kernel that calls it, before compilation.

    How plain kernels share code that returns a view; and, for a function with one caller, a tenth less to compile and
    no call in the loop.
    """
    return numba.njit(inline="always")(function)


# Functions that make random numbers may fuse multiply-adds and nothing else.  The flags of `kernel` would undo exact
# steps ((x - 2^52) c becomes x c - 2^52 c) and allow approximate float32 division and square root, whose digits depend
# on the processor.  They are compiled into the cached kernels that call them and need no cache of their own.
_EXACT: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def exact(function: Callable[..., Any]) -> Any:
    """Compile `function` so that it rounds as it is written, fused multiply-adds aside."""
    return numba.njit(**_EXACT)(function)


def exact_inlined(function: Callable[..., Any]) -> Any:
    """As `exact`, and part of whatever calls it."""
    return numba.njit(forceinline=True, **_EXACT)(function)


class _SelfContainedLibrary(JITCodeLibrary):
    """The code of one kernel, which runs its own copies of the functions that it calls and no others.

    Numba links a copy of each function that is called into the caller and optimises the two together.  What is left of
    the copy is a weak symbol: it gives way to a function of the same name that the process has loaded before, compiled
    by itself (always so in the process that compiles both) or with another caller.  Such versions were optimised
    differently and differ in last digits.  Here copies are local symbols of the machine code; for the kernels into
    which this one is linked they become again what Numba makes them.
    """

    def _finalize_final_module(self) -> None:
        copies = [function for function in self._final_module.functions if function.linkage.name == "linkonce_odr"]
        for function in copies:
            function.linkage = "internal"
        super()._finalize_final_module()  # which makes the machine code
        for function in copies:
            function.linkage = "linkonce_odr"


class _SelfContained(compiler.Compiler):
    """Numba's compiler, with libraries that are self-contained."""

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        self.state.library = _SelfContainedLibrary(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(func)


def _compiled(function: Callable[..., Any], **options: bool) -> Any:
    njit: Any = numba.njit  # its type stubs do not know all of its options
    compiled: Any = njit(
        cache=True,
        nogil=True,
        error_model="numpy",
        fastmath=_FASTMATH,
        no_cfunc_wrapper=True,
        pipeline_class=_SelfContained,
        **options,
    )(function)
    settings: Any = config
    if not settings.DISABLE_JIT:
        digest, cache_of = _kernel_digest(), compiled._cache
        cache_of._cache_file = IndexDataCacheFile(
            cache_path=cache_of.cache_path,
            filename_base=f"{cache_of._impl.filename_base}-{digest[:12]}",
            source_stamp=digest,
        )
    return compiled


class _Announcer(event.Listener):
    """Say once, when the first real compilation starts (loading from the disk cache starts none)."""

    def __init__(self) -> None:
        self.announced = False

    def on_start(self, event: Any) -> None:
        if not self.announced:
            self.announced = True
            logger.info("compiling kernels for this machine (once; later runs load them from the disk cache) ...")

    def on_end(self, event: Any) -> None:
        pass


_announcer = _Announcer()


@contextmanager
def announced_compilation() -> Iterator[None]:
    """Within this context the first kernel compilation of the process is announced through the ``hdsgd`` logger."""
    with event.install_listener("numba:compile", _announcer):
        yield
