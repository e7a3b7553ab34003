"""Functions of one's own inside kernels, called by address.

A kernel that took a compiled function as argument would be another kernel for each function, and compiled anew in each
process.  Instead a kernel gets a *handle*, an integer: the address of a small compiled function that applies the user's
scalar function to a block of numbers.  Only that small function is compiled when a problem is tabulated; the kernels
stay those on disk.  With Numba's JIT off a handle is a place in a table of functions of arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from numba import carray, cfunc, config, njit, types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.extending import intrinsic, overload

__all__ = ["NotCompiled", "add_function", "apply_error", "handle_of"]

_settings: Any = config
_intrinsic: Any = intrinsic  # whose type stubs do not know that the typing context is not passed

_lock = threading.Lock()
# Handles by function, and what they stand for, kept for the life of the process.
_handles: dict[Callable[..., Any], int] = {}
_kept: dict[int, Any] = {}


class NotCompiled(ValueError):
    """Numba cannot compile a function, or it does not return a number."""


def handle_of(function: Callable[..., float], on_arrays: Callable[..., Any], variables: int) -> int:
    """Handle of a scalar function for `add_function` (of one variable) or `apply_error` (of two).

    Parameters
    ----------
    function : callable
        In plain arithmetic and functions of `math`.
    on_arrays : callable
        The same for arrays, which is called where Numba's JIT is off.
    variables : {1, 2}

    Raises
    ------
    NotCompiled
    """
    with _lock:
        if function not in _handles:
            if _settings.DISABLE_JIT:
                handle, kept = len(_kept) + 1, on_arrays
            else:
                handle, kept = _block(function, variables)
            _handles[function], _kept[handle] = handle, kept
        return _handles[function]


def _block(function: Callable[..., float], variables: int) -> tuple[int, Any]:
    """Address and owner of the compiled block function."""
    number, pointer = types.float64, types.CPointer(types.float64)
    scalar = njit(error_model="numpy", nogil=True)(getattr(function, "py_func", function))
    try:
        scalar.compile((number,) * variables)
    except (NumbaError, TypeError) as error:
        reason = str(error).strip().splitlines()
        raise NotCompiled(reason[0] if reason else type(error).__name__) from error
    result = scalar.nopython_signatures[0].return_type
    if not isinstance(result, types.Integer | types.Float | types.Boolean):
        raise NotCompiled(f"it returns {result}, not a number")
    if variables == 1:

        @cfunc(types.void(number, number, pointer, pointer, types.int64))
        def block(scale, factor, x, out, n):  # type: ignore[no-untyped-def]
            xs, outs = carray(x, n), carray(out, n)
            for s in range(n):
                outs[s] += factor * scalar(scale * xs[s])

    else:

        @cfunc(types.void(pointer, pointer, pointer, types.int64))
        def block(f, y, out, n):  # type: ignore[no-untyped-def]
            fs, ys, outs = carray(f, n), carray(y, n), carray(out, n)
            for s in range(n):
                outs[s] = scalar(fs[s], ys[s])

    address: Any = block.address
    return address, block


def _call(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Code of a call of the block function at the address `arguments[0]`: numbers as they are, arrays by pointer."""
    values, length = [], None
    for kind, value in zip(signature.args[1:], arguments[1:], strict=True):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value)
            values.append(array.data)
            length = array.nitems
        else:
            values.append(value)
    values.append(length)
    function = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [value.type for value in values])
    builder.call(builder.inttoptr(arguments[0], function.as_pointer()), values)
    return context.get_dummy_value()


def _block_call(numbers: int, arrays: int) -> Any:
    """The signature of a call by address with so many numbers, then contiguous arrays of one length."""
    row = types.Array(types.float64, 1, "C")
    return types.void(types.int64, *(types.float64,) * numbers, *(row,) * arrays)


@_intrinsic
def _add_by_address(typing_context, handle, scale, factor, x, out):  # type: ignore[no-untyped-def]
    return _block_call(2, 2), _call


@_intrinsic
def _error_by_address(typing_context, handle, f, y, out):  # type: ignore[no-untyped-def]
    return _block_call(0, 3), _call


def add_function(handle: int, scale: float, factor: float, x: Any, out: Any) -> None:
    """out += factor φ(scale x) on a block, by the handle of φ."""
    out += factor * _kept[handle](scale * x)


@overload(add_function, inline="always")
def _add_function(handle, scale, factor, x, out):  # type: ignore[no-untyped-def]
    return lambda handle, scale, factor, x, out: _add_by_address(handle, scale, factor, x, out)


def apply_error(handle: int, f: Any, y: Any, out: Any) -> None:
    """out = e(f, y) on a block, by the handle of e; `out` may be one of the others."""
    out[:] = _kept[handle](f, y)


@overload(apply_error, inline="always")
def _apply_error(handle, f, y, out):  # type: ignore[no-untyped-def]
    return lambda handle, f, y, out: _error_by_address(handle, f, y, out)
