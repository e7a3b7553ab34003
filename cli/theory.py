"""``hdsgd theory``."""

from __future__ import annotations

from typing import Any

import click
from hdsgd_cli.options import Whole, target_options


@click.command("theory")
@target_options()
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    metavar="NAME",
    help="projected, correlation or spherical; may be repeated.  [default: all three]",
)
@click.option("--dim", type=Whole(), default=1000, show_default=True, help="Input dimension d (1e9 is fine).")
@click.option("--eta", type=float, default=0.5, show_default=True, help="Weak recovery is |M|_F >= eta.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for machines.")
def command(**options: Any) -> None:
    """Predict exponents, boundaries and optimal batch sizes of a problem; nothing is simulated.

    Prints what the student can learn of the target and in which leaps, where in the plane of batch sizes
    n_b = n0 d^mu and learning rates gamma = gamma0 d^-delta each algorithm recovers the target, and the batch size,
    learning rate, steps and samples of the fastest recovery at this dimension.

    A leap is a set of directions learnt together; its exponent is the order of the Hermite component that reveals
    them to a student who has made the leaps before.  A student sees only the orders that its activation has.

    \b
      hdsgd theory --target "z1 + z1*z2 + z1*z2*z3" --activation relu
      hdsgd theory --target he3 --activation he3 --dim 1e6 --json | python -m json.tool
    """  # fmt: skip
    from hdsgd.problem.model import Problem, Student, Target
    from hdsgd.theory.predictions import predict

    problem = Problem(
        Target(options["target"], options["gram"]),
        Student(options["activation"], options["width"], options["second_layer"]),
        noise=options["noise"],
    )
    prediction = predict(problem, options["dim"], options["algorithms"] or None, eta=options["eta"])
    click.echo(prediction.to_json() if options["as_json"] else prediction.summary())
