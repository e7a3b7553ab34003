"""Registries: one for each kind of thing that people add, in which entries are found by name."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any, Generic, Protocol, TypeVar

from hdsgd.errors import SpecificationError

__all__ = ["REGISTRIES", "Registry", "imported", "load_plugins", "register"]

logger = logging.getLogger("hdsgd")

#: Entry points of this group name modules, or functions without arguments, that register things when they are loaded.
PLUGINS = "hdsgd.plugins"


class Named(Protocol):
    """What an entry has: the name by which it is found, and one line that says what it is."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)
Registered = TypeVar("Registered")

#: Every registry by its kind ("loss", "constraint", ...).
REGISTRIES: dict[str, Registry[Any]] = {}

_plugins_loaded = False


def imported(place: Any) -> Any:
    """What an entry names as "module:name", imported now; anything but text is the thing itself.

    Examples
    --------
    >>> imported("math:factorial")(4)
    24
    """
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def load_plugins() -> None:
    """Load, once in a process, what installed packages offer under the entry point group ``hdsgd.plugins``.

    Reading the metadata of all installed packages takes a while, so that this is done only where a name is unknown.  A
    plugin that raises is named in a warning and left out.
    """
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    from importlib.metadata import entry_points

    for entry in entry_points(group=PLUGINS):
        try:
            found = entry.load()
            if callable(found):
                found()
        except Exception as error:
            logger.warning("plugin %r (%s) is left out: %s: %s", entry.name, entry.value, type(error).__name__, error)


class Registry(Generic[Entry]):
    """Entries of one kind, by name, in the order in which they were registered.

    Parameters
    ----------
    kind : str
        What the entries are, for messages: "loss", "engine".
    entries : iterable
        Those that the package itself brings.

    Examples
    --------
    >>> from hdsgd.problem.losses import LOSSES
    >>> LOSSES.names()
    ('square', 'correlation', 'adaptive')
    """

    def __init__(self, kind: str, entries: Iterable[Entry] = ()) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._modules: dict[str, str] = {}
        for entry in entries:
            self.register(entry)
        REGISTRIES[kind] = self

    def register(self, entry: Entry) -> Entry:
        """Add an entry of one's own; returns it, so that it can be used as a decorator of a class.

        Registering the same entry again is nothing, and the same class replaces it, so that a cell of a notebook can be
        run twice; another one under a name that is taken is refused.

        Raises
        ------
        SpecificationError
            If the name is taken, or is not a word.
        """
        given, entry = entry, self.entry_of(entry)
        name = entry.name
        if not isinstance(name, str) or not name or any(c.isspace() or c in ",;'\"" for c in name):
            raise SpecificationError(f"the name of a {self.kind} is one word, not {name!r}")
        if name in self._entries and not _same(self._entries[name], entry):
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise SpecificationError(f"there is {article} {self.kind} {name!r} already; choose another name")
        if name not in self._entries or isinstance(given, type):
            self._entries[name], self._modules[name] = entry, _caller()
        return given

    def entry_of(self, given: Any) -> Entry:
        """The entry that stands for what was given: the same, unless a registry knows better."""
        entry: Entry = given
        return entry

    def takes(self, entry: object) -> bool:
        """Whether this is what is registered here: of the type of an entry, or a class derived from the same base."""
        for known in self._entries.values():
            if isinstance(known, type):
                bases = {base for base in known.__mro__ if base.__module__.split(".")[0] == "hdsgd"}
                if isinstance(entry, type) and bases.intersection(entry.__mro__):
                    return True
            elif isinstance(entry, type(known)):
                return True
        return False

    def __getitem__(self, name: object) -> Entry:
        if isinstance(name, str) and name not in self._entries:
            load_plugins()
        if not isinstance(name, str) or name not in self._entries:
            raise SpecificationError(f"unknown {self.kind} {name!r}; choose from {', '.join(self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def knows(self, name: str) -> bool:
        """Whether there is an entry of this name, plugins included: they are loaded if it is not known otherwise."""
        if name not in self._entries:
            load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> tuple[Entry, ...]:
        """The entries themselves."""
        return tuple(self._entries.values())

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)

    def module(self, name: str) -> str:
        """The module that registered the entry of this name."""
        return self._modules[name]

    def is_own(self, name: str) -> bool:
        """Whether the package itself brought the entry of this name, and no user."""
        return self._modules[name].split(".")[0] == "hdsgd"


def register(entry: Registered) -> Registered:
    """Make something of your own known by its name: a loss, a constraint, an activation, an engine, a kind of result.

    Wherever hdsgd takes a name it can then be given, on the command line too, and error messages list it.  A result
    that used it says so in its attribute ``extensions``; it is registered again before such a result is worked with.

    Parameters
    ----------
    entry : Loss, Switch, Constraint, Algorithm, Activation, Variable, ResultKind or class
        Its type says what it is; an engine is a class derived from `hdsgd.engines.base.Run`.

    Returns
    -------
    entry
        The same, so that this can be used as a decorator of a class.

    Raises
    ------
    SpecificationError
        If it is none of these, its name is not one word, or the name is taken.

    Examples
    --------
    >>> import hdsgd
    >>> cubic = hdsgd.register(hdsgd.Loss("cubic", "(y - f)³/3", error=lambda f, y: (f - y) * abs(f - y)))
    >>> hdsgd.Problem("he2", "he2", loss="cubic").loss
    'cubic'
    """
    for registry in REGISTRIES.values():
        if registry.takes(entry):
            return registry.register(entry)
    kinds = ", ".join(REGISTRIES)
    raise SpecificationError(f"{entry!r} cannot be registered; it is none of: {kinds}")


def _caller() -> str:
    """The module that registers: the first one on the stack that is not part of how things are registered."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in ("hdsgd", __name__):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


def _same(one: Any, other: Any) -> bool:
    """Whether two entries are equal; functions and classes that are defined again by the same text are."""
    from dataclasses import fields, is_dataclass  # the command line starts without it

    if isinstance(one, type) and isinstance(other, type):
        return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        return one.__code__ == other.__code__ and _bound(one) == _bound(other)
    if is_dataclass(one) and type(one) is type(other):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def _bound(function: FunctionType) -> tuple[Any, ...]:
    """Values that a function has taken from around it."""
    return function.__defaults__, *(cell.cell_contents for cell in function.__closure__ or ())
