"""What a result used of what users registered: named in its attribute ``extensions``, missed when it is loaded without.

A specification names losses, engines and the like as text.  Each kind of thing has one rule, in `_USED`, for where that
text stands.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hdsgd.errors import SpecificationError
from hdsgd.registry import REGISTRIES, load_plugins

__all__ = ["check_extensions", "extensions_of", "missing_extensions", "warn_missing"]

logger = logging.getLogger("hdsgd")


def _values(data: Any, key: str) -> Iterator[Any]:
    """Every value of a key, at whatever depth of JSON values."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            if name == key:
                yield value
            yield from _values(value, key)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _values(value, key)


def _texts(key: str) -> Callable[[Any], Iterator[str]]:
    return lambda specification: (value for value in _values(specification, key) if isinstance(value, str))


def _names_in_expressions(specification: Any) -> Iterator[str]:
    for key in ("expression", "activation"):
        for text in _texts(key)(specification):
            yield from re.findall(r"[^\W\d]\w*", text)


def _names_of_algorithms(specification: Any) -> Iterator[str]:
    for value in _values(specification, "algorithms"):
        yield from map(str, value)


#: Where the names of each kind of thing stand in a specification; for other kinds as values of the key of that name.
_USED: dict[str, Callable[[Any], Iterator[str]]] = {
    "activation": _names_in_expressions,
    "algorithm": _names_of_algorithms,
}


def extensions_of(specification: Mapping[str, Any], kind: str, variables: Iterable[str]) -> list[dict[str, str]]:
    """What of a result did not come with hdsgd.

    Parameters
    ----------
    specification : mapping
        JSON values.
    kind : str
        Of the result.
    variables : iterable of str
        Names of its variables.

    Returns
    -------
    list of dict
        ``kind`` and ``name`` of each entry of a registry, and the ``module`` that registered it; sorted.
    """
    names = {what: set(_USED.get(what, _texts(what))(specification)) for what in REGISTRIES}
    names["result kind"] = {kind}
    names["variable"] = set(variables)
    # A switch names the losses that it stands for, an algorithm its loss and constraint.
    for what, parts in (("algorithm", ("loss", "constraint")), ("loss", ("first", "then"))):
        for entry in [REGISTRIES[what][name] for name in names.get(what, ()) if name in REGISTRIES[what]]:
            for part in parts:
                if hasattr(entry, part):
                    names.setdefault(part if part in REGISTRIES else "loss", set()).add(getattr(entry, part))
    return [
        {"kind": what, "name": name, "module": REGISTRIES[what].module(name)}
        for what in sorted(REGISTRIES)
        for name in sorted(names.get(what, ()))
        if name in REGISTRIES[what] and not REGISTRIES[what].is_own(name)
    ]


def missing_extensions(attributes: Mapping[str, Any]) -> list[str]:
    """What a result used that nobody has registered here, each in words."""
    used = json.loads(attributes.get("extensions", "[]"))
    if used:
        load_plugins()
    return [
        f"{one['kind']} {one['name']!r} of the module {one['module']}"
        for one in used
        if one["kind"] not in REGISTRIES or one["name"] not in REGISTRIES[one["kind"]]
    ]


def warn_missing(attributes: Mapping[str, Any], name: str) -> None:
    """Log in one line what a loaded result used that is missing here."""
    if missing := missing_extensions(attributes):
        logger.warning("%s used %s, not registered here: what needs it will not work", name, "; ".join(missing))


def check_extensions(attributes: Mapping[str, Any]) -> None:
    """Raise `SpecificationError` if a result used something that nobody has registered here."""
    if missing := missing_extensions(attributes):
        raise SpecificationError(f"this result used {'; '.join(missing)}: import that module, or register it, first")
