"""The one kind of error a user of hdsgd causes and can mend."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["SpecificationError", "choice"]


class SpecificationError(ValueError):
    """A request that cannot be carried out as given.

    The message is one line that says what was given, what is allowed and why.  The command line prints it and exits
    with code 2.
    """


def choice(what: str, given: str, allowed: Iterable[str]) -> str:
    """Return `given` if it is one of `allowed`, else raise `SpecificationError` that names the choices."""
    allowed = tuple(allowed)
    if given not in allowed:
        raise SpecificationError(f"unknown {what} {given!r}; choose from {', '.join(allowed)}")
    return given
