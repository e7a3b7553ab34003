"""``hdsgd theory``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.base import Command, combine, option
from hdsgd_cli.options import OUTPUT, algorithms_option, dim_option, eta_option, take_target, target_options


@click.command("theory", cls=Command)
@combine(
    target_options(),
    algorithms_option,
    dim_option,
    eta_option(),
    option("--json", "as_json", is_flag=True, section=OUTPUT, help="Print everything as JSON, for machines."),
)
def command(algorithms: tuple[str, ...], dim: int, eta: float, as_json: bool, **options: Any) -> None:
    """Predict exponents, boundaries and optimal batch sizes of a problem; nothing is simulated.

    Prints what the student can learn of the target and in which leaps, where in the plane of batch sizes
    n_b = n0 d^mu and learning rates gamma = gamma0 d^-delta each algorithm recovers the target, and the batch size,
    learning rate, steps and samples of the fastest recovery at this dimension.

    A leap is a set of directions learnt together; its exponent is the order of the Hermite component that reveals
    them to a student who has made the leaps before.  A student sees only the orders that its activation has.

    \b
      hdsgd theory --target "z1 + z1*z2 + z1*z2*z3" --activation relu
      hdsgd theory --target he3 --activation he3 --dim 1e6 --json | python -m json.tool
    """
    import hdsgd

    prediction = hdsgd.predict(hdsgd.Problem(**take_target(options)), dim, algorithms or None, eta=eta)
    click.echo(prediction.to_json() if as_json else prediction.summary())
