"""What the cells of a study share in one process: data sets in memory and networks at their random start.

A cell is a specification and finds these by it, so that it runs the same on a thread and on another machine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.networks.specs import Data, Network
from hdsgd.seeds import cell_seed, child

__all__ = ["find_data", "find_objective", "sharing"]

#: Data sets and networks kept; those used last.
MOST = 64
_guard = threading.RLock()
_found: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


def _shared(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    with _guard:  # made once, whoever asks meanwhile
        if key not in _found:
            _found[key] = make()
            while len(_found) > MOST:
                _found.popitem(last=False)
        _found.move_to_end(key)
        return _found[key]


@contextmanager
def sharing() -> Iterator[None]:
    """Within this context things are kept; at its end they go."""
    try:
        yield
    finally:
        with _guard:
            _found.clear()


def find_data(data: Data, seed: int, checksum: str = "") -> Any:
    """The data set (`hdsgd.networks.data.Loaded`) of a study with this seed.

    Raises
    ------
    SpecificationError
        As `hdsgd.networks.data.load_data`; if its checksum is not the one given, as when a file differs between
        machines.
    """
    from hdsgd.networks.data import load_data

    key = ("data", data.to_json(), seed)
    loaded = _shared(key, lambda: load_data(data, child(np.random.SeedSequence(seed), 0)))
    if checksum and loaded.checksum != checksum:
        raise SpecificationError(f"the data are not those of the study: their checksum is {loaded.checksum}")
    return loaded


def find_objective(network: Network, data: Data, seed: int, replica: int, loss: str, dtype: str, checksum: str) -> Any:
    """The objective (`hdsgd.networks.objective.Objective`) of one replica at its random start."""
    from hdsgd.networks.objective import Objective

    def make() -> Any:
        start = child(cell_seed(seed, network.to_dict()), replica, 0)
        return Objective(network, find_data(data, seed, checksum), start, loss=loss, dtype=dtype)

    key = ("objective", network.to_json(), data.to_json(), seed, replica, loss, dtype)
    return _shared(key, make)
