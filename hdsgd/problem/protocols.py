"""Training protocols: what one update does with its batch.  A record each.

They stand beside losses and constraints, not in a package of their own: like those a protocol is part of the rule of a
step, which a problem names and engines carry out.  Each engine says which protocols it can simulate
(`hdsgd.engines.base.Run.protocols`); one that needs kernels has them there.
"""

from __future__ import annotations

from dataclasses import dataclass

from hdsgd.registry import Registry

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """What one update does with its batch.

    Examples
    --------
    >>> PROTOCOLS["one-pass"].summary
    'every step draws a new batch and uses it once'
    """

    name: str
    summary: str


#: Every protocol by name; `hdsgd.register` adds one of your own.
PROTOCOLS: Registry[Protocol] = Registry(
    "protocol", [Protocol("one-pass", "every step draws a new batch and uses it once")]
)
