"""Command-line options that several commands share, each defined once."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hdsgd.problem.model import Problem

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

MAX_GRID = 10_000


def combine(*decorators: Decorator) -> Decorator:
    """One decorator that applies several options, listed in the order in which --help shows them."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


class NumberList(click.ParamType):
    """Comma-separated numbers."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a comma-separated list of numbers", param, ctx)
        if not all(math.isfinite(number) for number in numbers):
            self.fail(f"{value!r} holds a number that is not finite", param, ctx)
        return numbers


class Grid(NumberList):
    """``start:stop:count`` (both ends included) or comma-separated numbers."""

    name = "start:stop:count|a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple) or ":" not in str(value):
            return super().convert(value, param, ctx)
        try:
            start, stop, count = str(value).split(":")
            low, high, n = float(start), float(stop), int(count)
        except ValueError:
            self.fail(f"{value!r} is neither start:stop:count nor a comma-separated list", param, ctx)
        if not (math.isfinite(low) and math.isfinite(high)):
            self.fail(f"{value!r} holds a number that is not finite", param, ctx)
        if not 1 <= n <= MAX_GRID:
            self.fail(f"the count of {value!r} must be from 1 to {MAX_GRID}", param, ctx)
        # Rounded so that 0:2:21 holds 0.3 and not 0.30000000000000004.
        return tuple(round(low + (high - low) * i / max(n - 1, 1), 12) for i in range(n))


class Matrix(click.ParamType):
    """Rows separated by semicolons, numbers by commas: ``1,0.5;0.5,1``."""

    name = "a,b;c,d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        rows = [NumberList().convert(row, param, ctx) for row in str(value).split(";")]
        if len({len(row) for row in rows}) > 1:
            self.fail(f"{value!r} has rows of different lengths", param, ctx)
        return tuple(rows)


class Whole(click.ParamType):
    """A whole number, also in the forms 1e9 and 10**9."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).replace("_", "")
        try:
            if "**" in text:
                base, power = (int(part) for part in text.split("**"))
                return base**power if 0 <= power <= 64 else self.fail(f"{value!r} is too large", param, ctx)
            return int(text)
        except ValueError:
            pass
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number == int(number)):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        return int(number)


class WholeList(Whole):
    """Comma-separated whole numbers."""

    name = "n,m,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(Whole.convert(self, part.strip(), param, ctx) for part in str(value).split(","))


class NumberOrAuto(click.ParamType):
    """A number, or the word auto."""

    name = "float|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)


def target_options(target: str = "he2", activation: str = "he2") -> Decorator:
    """What is learnt, by which network."""
    return combine(
        click.option("--target", default=target, show_default=True, metavar="EXPR",
                     help="Function of z1...zk: he3, 'z1 + z1*z2', 'relu(z1)'."),
        click.option("--gram", type=Matrix(), help="Gram matrix P of the teacher directions.  [default: identity]"),
        click.option("--activation", default=activation, show_default=True, metavar="EXPR",
                     help="Function of x: square, he3, 'x**2 - 1', relu, tanh, 'erf(x/sqrt(2))'."),
        click.option("--width", type=Whole(), default=1, show_default=True, help="Hidden units p."),
        click.option("--second-layer", type=NumberList(), help="The p weights of the second layer.  [default: ones]"),
        click.option("--noise", type=float, default=0.0, show_default=True, help="Variance of the label noise."),
    )  # fmt: skip


n0_option: Decorator = click.option(
    "--n0", type=float, default=1.0, show_default=True, help="Prefactor of the batch size."
)

gamma0_option: Decorator = click.option(
    "--gamma0",
    type=NumberOrAuto(),
    default="auto",
    show_default=True,
    help="Prefactor of the learning rate; auto: half the critical one.",
)

algorithm_option: Decorator = click.option(
    "--algorithm", default="projected", show_default=True, metavar="NAME", help="projected, correlation or spherical."
)

rule_options: Decorator = combine(
    click.option("--loss", metavar="NAME", help="square, correlation or adaptive; overrides that of --algorithm."),
    click.option("--constraint", metavar="NAME", help="projected, spherical or none; overrides that of --algorithm."),
    click.option("--switch-fraction", type=float, help="Adaptive loss: switch below this fraction of the first risk."),
    click.option("--switch-factor", type=float, help="Adaptive loss: factor of the learning rate at the switch."),
    click.option("--switch-decay", type=float, help="Adaptive loss: power of its decay after the switch."),
)


def initial_options(default: str = "random") -> Decorator:
    """Where the student starts."""
    automatic = "; auto: positive where an odd exponent needs it" if default == "auto" else ""
    return combine(
        click.option("--init", "init", default=default, show_default=True, metavar="LAW",
                     help=f"Initial rows: random, or positive (all overlaps > 0){automatic}."),
        click.option("--init-overlap", type=float, metavar="M0",
                     help="Start every row at this overlap with the first teacher direction."),
    )  # fmt: skip


def run_options(replicas: int = 8, engine: str = "exact") -> Decorator:
    """How often and with what to simulate."""
    return combine(
        click.option("--eta", type=float, default=0.5, show_default=True, help="Weak recovery is |M|_F >= eta."),
        click.option("--replicas", type=Whole(), default=replicas, show_default=True, help="Independent repetitions."),
        click.option("--engine", default=engine, show_default=True, metavar="NAME",
                     help="auto, exact, direct, direct32, reduced or moment."),
        click.option("--seed", type=Whole(), default=0, show_default=True, help="Fixes every random number."),
        click.option("--threads", type=Whole(), help="Threads; never changes a number.  [default: all cores]"),
    )  # fmt: skip


output_options: Decorator = combine(
    click.option("-o", "--output", metavar="FILE", help="Write the data: .nc (NetCDF) or .zarr."),
    click.option("--plot", metavar="FILE", help="Write a figure: .png, .pdf or .svg."),
    click.option("--overwrite", is_flag=True, help="Replace existing output."),
    click.option("--quiet", is_flag=True, help="No progress bar."),
)


def take_problem_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take what describes target, student, noise and the adaptive loss out of `options`, as arguments of `Problem`."""
    from hdsgd.problem.model import Student, Target

    names = ("switch_fraction", "switch_factor", "switch_decay")
    return {
        "target": Target(options.pop("target"), options.pop("gram")),
        "student": Student(options.pop("activation"), options.pop("width"), options.pop("second_layer")),
        "noise": options.pop("noise"),
        **{name: value for name in names if (value := options.pop(name)) is not None},
    }


def problem_from(options: dict[str, Any], algorithm: str) -> Problem:
    """Take the options of the problem out of `options` and build it."""
    from hdsgd.problem.model import Problem

    halves = {name: value for name in ("loss", "constraint") if (value := options.pop(name)) is not None}
    return Problem.from_algorithm(algorithm, **take_problem_options(options), **halves)


def problem_line(problem: dict[str, Any], *, with_rule: bool = True) -> str:
    """What is learnt by what and how, for a summary; `problem` as in a Dataset's specification."""
    student = problem["student"]
    rule = f"; {problem['loss']} loss, constraint {problem['constraint']}" if with_rule else ""
    return (
        f"problem {problem['target']['expression']} learnt by {student['activation']}, width {student['width']}, "
        f"noise {problem['noise']:g}{rule}"
    )


def initial_from(options: dict[str, Any]) -> Any:
    """Take the options of the start out of `options`; None for the law "auto"."""
    from hdsgd.problem.initial import Initial

    law, overlap = options.pop("init"), options.pop("init_overlap")
    if law == "auto":
        return None if overlap is None else Initial(overlap=overlap)
    return Initial(law, overlap)


def figure(dataset: Any, plane: str | None = None) -> Any:
    """The figure of a Dataset; Matplotlib is imported only when one is asked for."""
    from hdsgd.plotting.trajectories import figure_of

    return figure_of(dataset, plane)


class Outputs:
    """The output files of a command: checked before the computation, written after it."""

    def __init__(self, options: dict[str, Any]) -> None:
        from hdsgd.results.files import DATA_SUFFIXES, PLOT_SUFFIXES, check_output

        self.overwrite: bool = options.pop("overwrite")
        self.data: Path | None = None
        self.plot: Path | None = None
        output, plot = options.pop("output"), options.pop("plot")
        if output is not None:
            self.data = check_output(output, DATA_SUFFIXES, overwrite=self.overwrite)
        if plot is not None:
            self.plot = check_output(plot, PLOT_SUFFIXES, overwrite=self.overwrite)
        self.progress = not options.pop("quiet") and sys.stderr.isatty()

    def write(self, dataset: Any, draw: Callable[[Any], Any]) -> None:
        """Save the Dataset, and the figure that ``draw(dataset)`` returns, where they were asked for."""
        from hdsgd.results.files import save, save_figure

        if self.data is not None:
            click.echo(f"data    {save(dataset, self.data, overwrite=self.overwrite)}")
        if self.plot is not None:
            figure = draw(dataset)
            path = save_figure(lambda where: figure.savefig(where), self.plot, overwrite=self.overwrite)
            click.echo(f"figure  {path}")
