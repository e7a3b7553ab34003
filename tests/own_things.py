"""A loss, a switch, a constraint and an activation as users add them, from outside the package."""

import math

from hdsgd import Activation, Constraint, Loss, Switch


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x):
    return 0.5 * (1.0 + math.tanh(0.5 * x))


SOFTPLUS = Activation("softplus", "log(1 + eˣ)", softplus, sigmoid)
QUARTIC = Loss("quartic", "¼(y - f)⁴", error=lambda f, y: (f - y) ** 3)
COPY = Loss("copy", "the square loss by its error", error=lambda f, y: f - y)
LATE = Switch("late", "correlation until the risk has fallen, then quartic", "correlation", "quartic")
TANGENTIAL = Constraint("tangential", "gradient made tangent, rows as they are", tangential=True, normalised=False)

OWN = (SOFTPLUS, QUARTIC, COPY, LATE, TANGENTIAL)
