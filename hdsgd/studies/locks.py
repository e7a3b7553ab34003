"""One process at a time works on the partial results of a study; its lock ends with it, however that ends."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from hdsgd.errors import SpecificationError

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock
    fcntl = None  # type: ignore[assignment]

__all__ = ["busy", "is_locked", "lock"]


def busy(folder: Path) -> str:
    """What to tell who comes second."""
    return f"another process is working on {str(folder)!r}; wait until it has ended, or stop it"


def lock(folder: Path) -> int | None:
    """Lock a folder of partial results; the lock ends with the process, however that ends.

    Raises
    ------
    SpecificationError
        If another process holds the lock.
    """
    if fcntl is None:
        return None
    path = folder / "lock"
    for attempt in range(10):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks only what is open for writing
        except FileNotFoundError:  # the other process has just ended and removed it
            break
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            time.sleep(0.05 * (attempt < 9))  # `is_locked` of another process may hold it for a moment
            continue
        except OSError as error:
            if error.errno == errno.EINTR:
                os.close(file)
                continue
            return file  # a file system without locks: each process has a log of its own
        try:
            if os.path.samestat(os.stat(path), os.fstat(file)):
                return file
        except FileNotFoundError:
            pass
        os.close(file)
    raise SpecificationError(busy(folder))


def is_locked(folder: Path) -> bool:
    """Whether a process is working on the partial results."""
    if fcntl is None:
        return False
    try:
        file = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False
