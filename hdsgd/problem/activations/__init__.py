"""Functions of one variable that may stand in targets and students, a file each (`base` says what one is).

To add one: a record of `base.Activation`, registered in `ACTIVATIONS` (here, or from outside by `hdsgd.register`).
With value and slope alone the exact engines run; closed population moments are in `hdsgd.moments`, and without them
what needs moments says so.
"""

from __future__ import annotations

from hdsgd.problem.activations.base import Activation
from hdsgd.problem.activations.erf import erf
from hdsgd.problem.activations.relu import relu
from hdsgd.problem.activations.tanh import tanh
from hdsgd.registry import Registry

__all__ = ["ACTIVATIONS", "Activation"]

#: Every activation by name; `hdsgd.register` adds one of your own.
ACTIVATIONS: Registry[Activation] = Registry("activation", [relu, erf, tanh])
