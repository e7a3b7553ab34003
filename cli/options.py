"""Options that several commands share, each defined once.

The same option is the same word with the same meaning in every command, and its default is that of the Python function
or policy behind it.  A word names one quantity in the singular; where a command studies several values, it takes a list
(only dimensions have two words, ``--dim`` and ``--dims``, as in Python).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from hdsgd_cli.base import Decorator, Given, Idle, beside, combine, option, without
from hdsgd_cli.types import Matrix, Name, NumberList, NumberOrAuto, Whole, WholeList

from hdsgd.engines import ENGINES
from hdsgd.policies import DIM, ETA, REPLICAS, SEED, SPACINGS, SaveAt, Scaling
from hdsgd.problem.constraints import ALGORITHMS, CONSTRAINTS, Algorithm
from hdsgd.problem.losses import LOSSES, Switch, phases_of

if TYPE_CHECKING:
    from hdsgd.problem.initial import Initial
    from hdsgd.problem.model import Problem

PROBLEM, SCALING, START = "Problem", "Dimension, batch size and learning rate", "Start"
RUN, OUTPUT = "Run", "Output"


def _functions() -> list[str]:
    from hdsgd.problem.activations import ACTIVATIONS

    return ["square", "he3", *ACTIVATIONS]


def _distributions() -> list[str]:
    return ["random", "positive"]


def target_options(target: str = "he2", activation: str = "he2") -> Decorator:
    """What is learnt, by which network."""
    return combine(
        option("--target", default=target, metavar="EXPR", section=PROBLEM,
               help="Function of z1...zk: he3, 'z1 + z1*z2', 'relu(z1)'."),
        option("--gram", type=Matrix(), section=PROBLEM,
               help="Gram matrix P of the teacher directions.  [default: identity]"),
        option("--activation", default=activation, metavar="EXPR", section=PROBLEM,
               type=Name(_functions, find=lambda _: None),
               help="Function of x: {names}, 'x**2 - 1', 'erf(x/sqrt(2))'."),
        option("--width", type=Whole(), default=1, section=PROBLEM, help="Hidden units p."),
        option("--second-layer", type=NumberList(), section=PROBLEM,
               help="The p weights of the second layer.  [default: ones]"),
        option("--noise", type=float, default=0.0, section=PROBLEM, help="Variance of the label noise."),
    )  # fmt: skip


def _losses_in_use(given: Given) -> set[str]:
    """Names of the losses that the problem, or the problems, will have."""
    if given["loss"] is not None:
        return {given["loss"]}
    names = given["algorithms"] or ALGORITHMS if "algorithms" in given else [given["algorithm"]]
    return {ALGORITHMS[name].loss for name in names}


def _never_switches(given: Given) -> str | None:
    names = _losses_in_use(given)
    if any(len(phases_of(name)) > 1 for name in names):
        return None
    switches = " or ".join(entry.name for entry in LOSSES.values() if isinstance(entry, Switch))
    return f"with the loss {', '.join(sorted(names))}: it belongs to a loss that switches on the way ({switches})"


def _default_of_problem(name: str) -> Any:
    from dataclasses import fields

    from hdsgd.problem.model import Problem

    return next(f.default for f in fields(Problem) if f.name == name)


def _overruled(given: Given) -> str | None:
    loss, constraint = given["loss"], given["constraint"]
    if loss is not None and constraint is not None:
        return "with --loss and --constraint: they are all that an algorithm is"
    rules = [_with_halves(ALGORITHMS[name], loss, constraint) for name in given.get("algorithms", ())]
    if len(set(rules)) < len(rules):
        return f"more than once with {'--constraint' if loss is None else '--loss'}: what is left is the same"
    return None


def _with_halves(algorithm: Algorithm, loss: str | None, constraint: str | None) -> Algorithm:
    """The algorithm with another loss or constraint: one that has a name of its own, or one named by both."""
    loss, constraint = loss or algorithm.loss, constraint or algorithm.constraint
    for known in ALGORITHMS.values():
        if (known.loss, known.constraint) == (loss, constraint):
            return known
    return Algorithm(f"{loss}-{constraint}", f"{loss} loss, constraint {constraint}", loss, constraint)


def take_algorithms(options: dict[str, Any]) -> list[Algorithm]:
    """Take several algorithms out of `options`, each with the halves that were asked for."""
    names = options.pop("algorithms") or ALGORITHMS.names()
    loss, constraint = options.pop("loss"), options.pop("constraint")
    return list(dict.fromkeys(_with_halves(ALGORITHMS[name], loss, constraint) for name in names))


def algorithm_options(several: bool = False) -> Decorator:
    """The loss and what keeps the rows where they belong: by the name of an algorithm, or half by half."""
    name = Name(ALGORITHMS.names, ALGORITHMS.__getitem__)
    algorithm = (
        option("--algorithm", "algorithms", type=name, multiple=True, metavar="NAME", section=PROBLEM,
               callback=_distinct, idle=_overruled, help="{names}; may be repeated.  [default: all]")
        if several
        else option("--algorithm", type=name, default="projected", metavar="NAME", section=PROBLEM, idle=_overruled,
                    help="{names}.")
    )  # fmt: skip
    switch = {"type": float, "section": PROBLEM, "idle": _never_switches}
    return combine(
        algorithm,
        option("--loss", type=Name(LOSSES.names, LOSSES.__getitem__), metavar="NAME", section=PROBLEM,
               help="{names}; instead of the loss of --algorithm."),
        option("--constraint", type=Name(CONSTRAINTS.names, CONSTRAINTS.__getitem__), metavar="NAME", section=PROBLEM,
               help="{names}; instead of the constraint of --algorithm."),
        option("--switch-fraction", default=lambda: _default_of_problem("switch_fraction"), **switch,
               help="A loss that switches does so below this fraction of the first risk."),
        option("--switch-factor", default=lambda: _default_of_problem("switch_factor"), **switch,
               help="Factor of the learning rate at the switch."),
        option("--switch-decay", default=lambda: _default_of_problem("switch_decay"), **switch,
               help="Power of the decay of the learning rate after the switch."),
    )  # fmt: skip


def _distinct(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise click.BadParameter(f"{name!r} is named {names.count(name)} times; once is enough", ctx, param)
    return names


#: Several algorithms, without their halves.
algorithms_option: Decorator = option(
    "--algorithm", "algorithms", type=Name(ALGORITHMS.names, ALGORITHMS.__getitem__), multiple=True, metavar="NAME",
    section=PROBLEM, callback=_distinct, help="{names}; may be repeated.  [default: all]",
)  # fmt: skip

dim_option: Decorator = option(
    "--dim", type=Whole(), default=DIM, section=SCALING, help="Input dimension d (1e9 is fine)."
)


def dims_options(default: tuple[int, ...]) -> Decorator:
    """One dimension or several."""
    shown = ",".join(map(str, default))
    return combine(
        option("--dim", type=Whole(), section=SCALING, idle=beside("dims", why="that gives the dimensions"),
               help="Input dimension d; or, instead, several:"),
        option("--dims", type=WholeList(), default=default, section=SCALING,
               show_default=f"{shown}, unless --dim is given", help="Input dimensions d, as 1e3,1e4,1e5."),
    )  # fmt: skip


def take_dims(options: dict[str, Any]) -> tuple[int, ...]:
    """Take the dimensions out of `options`."""
    dim, dims = options.pop("dim"), options.pop("dims")
    return dims if dim is None else (dim,)


def scaling_options(default: Scaling) -> Decorator:
    """Batch size and learning rate, each as a number or as a power of d."""
    batch = beside("batch", why="that is the batch size itself")
    lr = beside("lr", why="that is the learning rate itself")
    return combine(
        option("--batch", type=Whole(), section=SCALING, help="Batch size n_b; or, instead, as a power of d:"),
        option("--mu", type=float, default=default.mu, section=SCALING, idle=batch,
               show_default=f"{default.mu:g}, unless --batch is given", help="Batch size n_b = n0 d^mu."),
        option("--n0", type=float, default=default.n0, section=SCALING, idle=batch,
               help="Prefactor of the batch size."),
        option("--lr", type=float, section=SCALING, help="Learning rate gamma; or, instead, as a power of d:"),
        option("--delta", type=float, default=default.delta, section=SCALING, idle=lr,
               show_default=f"{default.delta:g}, unless --lr is given", help="Learning rate gamma = gamma0 d^-delta."),
        gamma0_option(default.gamma0, idle=lr),
    )  # fmt: skip


def powers_options(default: Scaling) -> Decorator:
    """Batch size and learning rate as powers of d, for what is about several dimensions."""
    return combine(
        option("--mu", type=float, default=default.mu, section=SCALING, help="Batch size n_b = n0 d^mu."),
        option("--n0", type=float, default=default.n0, section=SCALING, help="Prefactor of the batch size."),
        option("--delta", type=float, default=default.delta, section=SCALING,
               help="Learning rate gamma = gamma0 d^-delta."),
        gamma0_option(default.gamma0),
    )  # fmt: skip


def gamma0_option(default: float | str, idle: Idle | tuple[Idle, ...] = ()) -> Decorator:
    return option("--gamma0", type=NumberOrAuto(), default=default, section=SCALING, idle=idle,
                  help="Prefactor of the learning rate; auto: half the critical one.")  # fmt: skip


def take_scaling(options: dict[str, Any]) -> Scaling:
    """Take batch size and learning rate out of `options`."""
    found = {name: options.pop(name, None) for name in ("mu", "delta", "n0", "gamma0", "batch", "lr")}
    for number, power in (("batch", "mu"), ("lr", "delta")):
        if found[number] is not None:
            found[power] = None
    return Scaling(**found)


def initial_options(default: str = "random") -> Decorator:
    """Where the student starts."""
    words, note = ((default,), "; auto: positive where an odd exponent needs it") if default == "auto" else ((), "")
    return combine(
        option("--init", "init", default=default, metavar="NAME", section=START,
               type=Name(_distributions, words=words),
               idle=beside("init_overlap", why="every row starts at that overlap"),
               help=f"Initial rows: random, or positive (all overlaps > 0){note}."),
        option("--init-overlap", type=float, metavar="M0", section=START,
               help="Start every row at this overlap with the first teacher direction."),
    )  # fmt: skip


def take_initial(options: dict[str, Any]) -> Initial | str | None:
    """Take the start out of `options`; None for "auto"."""
    from hdsgd.problem.initial import Initial

    name, overlap = options.pop("init"), options.pop("init_overlap")
    if overlap is not None:
        return Initial(overlap=overlap)
    return None if name == "auto" else str(name)


def time_option(default: float | None, shown: str | None = None) -> Decorator:
    return option("--time", type=float, default=default, section=RUN, show_default=shown or default is not None,
                  help="Where to end, in time of the ODE.")  # fmt: skip


def seed_option(idle: Idle | tuple[Idle, ...] = (), help: str = "Fixes every random number.") -> Decorator:
    return option("--seed", type=Whole(), default=SEED, section=RUN, idle=idle, help=help)


def eta_option(idle: Idle | tuple[Idle, ...] = ()) -> Decorator:
    return option("--eta", type=float, default=ETA, section=RUN, idle=idle, help="Weak recovery is |M|_F >= eta.")


def threads_option(idle: Idle | tuple[Idle, ...] = ()) -> Decorator:
    return option("--threads", type=Whole(), section=RUN, idle=idle,
                  help="Threads; never changes a number.  [default: all cores]")  # fmt: skip


def replicas_option(default: int | None = REPLICAS, idle: Idle | tuple[Idle, ...] = ()) -> Decorator:
    return option("--replicas", type=Whole(), default=default, section=RUN, idle=idle, help="Independent repetitions.")


def run_options(replicas: int = REPLICAS, engine: str = "exact") -> Decorator:
    """How often and with what to simulate."""
    return combine(
        replicas_option(replicas),
        option(
            "--engine",
            type=Name(ENGINES.names, ENGINES.__getitem__),
            default=engine,
            metavar="NAME",
            section=RUN,
            help="{names}.",
        ),
        seed_option(),
    )


def save_options(default: SaveAt) -> Decorator:
    """Which states to save."""
    return combine(
        points_option(default.points),
        option("--spacing", type=Name(lambda: SPACINGS), default=default.spacing, metavar="NAME", section=OUTPUT,
               help="How they are spread: {names}."),
    )  # fmt: skip


def points_option(default: Any) -> Decorator:
    return option("--points", type=Whole(), default=default, section=OUTPUT, help="States to save after the first.")


def take_save(options: dict[str, Any]) -> SaveAt:
    """Take the states to save out of `options`."""
    return SaveAt(options.pop("points"), options.pop("spacing"))


diversity_option: Decorator = option(
    "--diversity", is_flag=True, section=OUTPUT, idle=without("output", why="it is a variable of the data"),
    help="Add the population gradient diversity along the trajectory.",
)  # fmt: skip


def check_diversity(problem: Problem, dim: int) -> None:
    """Compute the diversity of one state, so that a problem without it is refused before anything is simulated."""
    from hdsgd.moments.population import gradient_diversity
    from hdsgd.problem.initial import draw_overlaps

    M, Q = draw_overlaps(problem, "random", dim, 0)
    gradient_diversity(problem, Q, M, dim, phases_of(problem.loss)[0].name)


def output_options(stem: str | None = None) -> Decorator:
    """What to write where; `stem` names the files that are written where none is asked for."""
    default = f"  [default: {stem}.nc and {stem}.png]" if stem else ""
    idle = () if stem else without("output", "plot", why="nothing is written")
    return combine(
        option("-o", "--output", type=click.Path(), metavar="FILE", section=OUTPUT,
               help=f"Write the data: .nc (NetCDF) or .zarr.{default}"),
        option("--plot", type=click.Path(), metavar="FILE", section=OUTPUT, help="Write a figure: .png, .pdf or .svg."),
        option("--overwrite", is_flag=True, section=OUTPUT, idle=idle, help="Replace existing output."),
        option("--quiet", is_flag=True, section=OUTPUT, help="No progress bar and no messages, errors excepted."),
    )  # fmt: skip


def take_target(options: dict[str, Any]) -> dict[str, Any]:
    """Take target, student and noise out of `options`, as arguments of `Problem`."""
    from hdsgd.problem.model import Student, Target

    return {
        "target": Target(options.pop("target"), options.pop("gram")),
        "student": Student(options.pop("activation"), options.pop("width"), options.pop("second_layer")),
        "noise": options.pop("noise"),
    }


def take_switch(options: dict[str, Any]) -> dict[str, Any]:
    """Take what describes a change of loss on the way out of `options`, as arguments of `Problem`."""
    return {name: options.pop(name) for name in ("switch_fraction", "switch_factor", "switch_decay")}


def take_problem(options: dict[str, Any]) -> Problem:
    """Take the options of the problem out of `options` and build it."""
    from hdsgd.problem.model import Problem

    halves = {name: value for name in ("loss", "constraint") if (value := options.pop(name)) is not None}
    return Problem.from_algorithm(options.pop("algorithm"), **take_target(options), **take_switch(options), **halves)
