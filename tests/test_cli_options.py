"""Options: one word for one thing, defaults as in Python, and none without effect."""

import dataclasses
import inspect
import shlex

import hdsgd_cli.options
import pytest
from command_line import call
from hdsgd_cli.base import Option
from hdsgd_cli.commands import COMMANDS
from hdsgd_cli.main import main

import hdsgd
from hdsgd.records import Record

SIMULATE = "simulate --dim 20 --steps 30 --replicas 2 --threads 1 --quiet --batch 2 --lr 0.1"
POWERS = "simulate --dim 20 --steps 30 --replicas 2 --threads 1 --quiet"
COMPARE = "compare --dims 20,40 --time 0.2 --replicas 2 --gamma0 0.1 --threads 1 --points 3"
ODE = "ode --dim 100 --mu 1 --delta 0.5 --gamma0 0.1 --init-overlap 0.1 --time 0.5 --points 3"
MAP = f"{ODE} --mean-map"
DIAGRAM = "phase-diagram --dim 20 --mu 0:1:2 --delta 0:1:2 --replicas 2 --max-cost 1e3 --threads 1 --quiet"
THEOREM = "diversity --preset theorem1 --draws 50 --threads 1"
DIVERSITY = "diversity --preset small --n 16 --depth 1 --width 4 --batch 2 --draws 20 --replicas 1 --threads 1"
SATURATION = "saturation --n 16 --steps 5 --depth 1 --width 4 --batch 4 --replicas 1 --threads 1"
EPOCHS = "epochs --n 32 --max-epochs 2 --batch 8 --depth 1 --width 4 --replicas 1 --threads 1 --rates 0.1"

#: A command, an option that would change nothing, and what the refusal must name besides that option.
NO_EFFECT = [
    (SIMULATE, "--gamma0 7", "--lr"),
    (SIMULATE, "--gamma0 auto", "--lr"),
    (SIMULATE, "--delta 0", "--lr"),
    (SIMULATE, "--n0 5", "--batch"),
    (SIMULATE, "--mu 1", "--batch"),
    (SIMULATE, "--diversity", "without --output"),
    (SIMULATE, "--overwrite", "without --output or --plot"),
    (SIMULATE, "--switch-decay 0", "loss square"),
    (SIMULATE, "--switch-factor 1", "(adaptive)"),
    (SIMULATE, "--switch-fraction 0.6", "loss square"),
    (f"{SIMULATE} --loss correlation", "--switch-fraction 0.5", "loss correlation"),
    (f"{SIMULATE} --init-overlap 0.2", "--init random", "--init-overlap"),
    (f"{SIMULATE} --loss correlation --constraint projected", "--algorithm spherical", "--loss and --constraint"),
    (COMPARE, "--eta 0.9", "--gamma0 0.1"),
    (COMPARE, "--dim 20", "--dims"),
    (COMPARE, "--switch-fraction 0.6", "loss square"),
    (COMPARE, "--overwrite", "without --output or --plot"),
    (f"{COMPARE} --init-overlap 0.1", "--init positive", "--init-overlap"),
    (ODE, "--diversity", "without --output"),
    (ODE, "--overwrite", "without --output or --plot"),
    (ODE, "--seed 3", "--init-overlap 0.1"),
    (ODE, "--switch-fraction 0.6", "loss square"),
    (ODE, "--steps 10", "--time"),
    (f"{ODE} --finite-d", "--regime 'noise dominated'", "--finite-d"),
    ("ode --width 2 --init-overlap 1", "--seed 3", "--init-overlap 1"),
    ("ode --batch 10 --lr 0.1", "--gamma0 0.1", "--lr"),
    (MAP, "--finite-d", "--mean-map"),
    (MAP, "--method RK45", "--mean-map"),
    (MAP, "--regime 'noise dominated'", "--mean-map"),
    (MAP, "--rtol 1e-3", "--mean-map"),
    (MAP, "--rtol nan", "--mean-map"),
    (f"{DIAGRAM} --algorithm spherical", "--algorithm spherical", "'spherical' is named 2 times"),
    (f"{DIAGRAM} --algorithm spherical", "--switch-fraction 0.6", "loss square"),
    (f"{DIAGRAM} --loss correlation --constraint none", "--algorithm projected", "--loss and --constraint"),
    (f"{DIAGRAM} --loss square --algorithm correlation", "--algorithm projected", "--loss"),
    (f"{DIAGRAM} --scheduler tcp://127.0.0.1:1", "--threads 2", "--scheduler"),
    (f"{DIAGRAM} -o it.nc", "--plane mu-samples", "--plot"),
    (DIAGRAM, "--dims 40,80", "--dim"),
    (f"{DIAGRAM} --plot it.png", "--resume", "without --output"),
    ("theory --algorithm projected --algorithm correlation", "--algorithm projected", "'projected' is named 2 times"),
    (THEOREM, "--checksum abc", "theorem1"),
    (THEOREM, "--label-file /nosuch", "theorem1"),
    (THEOREM, "--labels parity", "theorem1"),
    (THEOREM, "--limit 3", "theorem1"),
    (THEOREM, "--no-tangent", "theorem1"),
    (THEOREM, "--normalise none", "theorem1"),
    (THEOREM, "--data digits", "theorem1"),
    (THEOREM, "--batch 2", "theorem1"),
    (THEOREM, "--loss square", "theorem1"),
    (THEOREM, "--dtype float64", "theorem1"),
    (THEOREM, "--replicas 2", "theorem1"),
    (THEOREM, "--parametrisation ntk", "theorem1"),
    (THEOREM, "--activation tanh", "theorem1"),
    (f"{THEOREM} --plot it.png", "--resume", "without --output"),
    (f"{DIVERSITY} --data gaussian --dim 5", "--label-file /nosuch", "gaussian data"),
    (DIVERSITY, "--normalise none", "gaussian data"),
    (DIVERSITY, "--labels classes", "gaussian data"),
    (f"{DIVERSITY} --no-tangent", "--limit 5", "--no-tangent"),
    (f"{SATURATION} --plot it.png", "--resume", "without --output"),
    (SATURATION, "--label-file /nosuch", "digits data"),
    (f"{SATURATION} --data file:x.csv", "--label-file /nosuch", "x.csv"),
    (f"{SATURATION} --data text:x.txt", "--normalise none", "text data"),
    (f"{SATURATION} --lr 0.1", "--lr-fraction 0.5", "--lr"),
    (EPOCHS, "--label-file /nosuch", "gaussian data"),
    (EPOCHS, "--budget 100", "--width"),
]

#: Options that change nothing in their circumstances, but are what happens without them: these may stand.
HARMLESS = [
    (SIMULATE, "--init random"),
    (SIMULATE, "--spacing linear"),
    (f"{SIMULATE} --loss adaptive", "--switch-factor 1"),
    (POWERS, "--gamma0 auto"),
    (COMPARE, "--seed 0"),
    (MAP, "--quiet"),
]


@pytest.fixture
def _nothing_runs(monkeypatch):
    """Whatever would compute anything fails the test."""

    def never(*args, **options):
        pytest.fail("a refusal must come before the first step")

    for name in ("simulate", "compare", "integrate_ode", "mean_map", "phase_diagram", "predict"):
        monkeypatch.setattr(hdsgd, name, never)


@pytest.mark.usefixtures("_nothing_runs")
@pytest.mark.parametrize(("command", "option", "other"), NO_EFFECT)
def test_an_option_without_effect_is_refused(capsys, tmp_path, monkeypatch, command, option, other):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *shlex.split(f"{command} {option}"))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    names = {option.split()[0], other}
    if option.startswith(("--dims", "--steps", "--time")):  # of two that exclude each other either may be named first
        names = {name.split()[0] for name in names}
    assert all(name in err for name in names), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "option"), HARMLESS)
def test_what_happens_anyway_may_be_said(capsys, command, option):
    code, _, err = call(capsys, *shlex.split(f"{command} {option}"))
    assert code == 0, err


def flattened(function):
    """Defaults of a function by name, those of policies by the names of their fields."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        if default is inspect.Parameter.empty:
            continue
        if isinstance(default, Record):
            found |= {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
        else:
            found[name] = default
    return found


#: Commands and the Python functions behind them.
FUNCTIONS = {
    "simulate": "simulate",
    "compare": "compare",
    "ode": "integrate_ode",
    "phase-diagram": "phase_diagram",
    "theory": "predict",
}
#: Options whose Python counterpart has another name or form.
RENAMED = {"init": "initial"}
RENAMED_IN = {"theory": {"algorithms": "algorithm"}}
#: Options that only the command line has, or that stand for the absence of an argument in Python.
OWN = {
    "output", "plot", "overwrite", "quiet", "json", "as_json", "diversity", "mean_map", "finite_d", "plane", "resume",
    "scheduler", "init_overlap", "help",
}  # fmt: skip
#: Options of the problem, and where their default is in Python; what is learnt by what has none there.
OF_PROBLEM = {"noise": "Problem", "width": "Student", "second_layer": "Student", "gram": "Target",
              "switch_fraction": "Problem", "switch_factor": "Problem", "switch_decay": "Problem"}  # fmt: skip
EXAMPLES = {"target", "activation", "algorithm", "loss", "constraint"}


@pytest.mark.parametrize("command", FUNCTIONS)
def test_defaults_are_those_of_python(command):
    """Every default that an option shows is that of the Python function, policy or record behind it."""
    python = flattened(getattr(hdsgd, FUNCTIONS[command]))
    click_command = COMMANDS[command].load()
    values = click_command.make_context(command, []).params
    compared = set()
    for param in click_command.params:
        default = values[param.name]
        name = (RENAMED | RENAMED_IN.get(command, {})).get(param.name, param.name)
        if param.name in OWN | EXAMPLES:
            continue
        if name in OF_PROBLEM:
            kind = getattr(hdsgd, OF_PROBLEM[name])
            expected = next(f.default for f in dataclasses.fields(kind) if f.name == name)
        elif name in ("dim", "dims") and "dims" in python:
            continue  # below
        else:
            assert name in python, f"--{param.name} of {command} has no counterpart in Python"
            expected = python[name]
        if name == "initial" and default == "auto":
            default = None
        if param.name == "algorithms" and not default:
            continue  # all of the registry; below
        assert default == expected, f"--{param.name} of {command}: {default!r}, in Python {expected!r}"
        compared.add(name)
    assert {"eta"} <= compared


def passed(monkeypatch, capsys, command, *args):
    """The arguments with which a command calls the library."""
    got = {}

    class Stop(Exception):
        pass

    def record(*values, **options):
        signature = inspect.signature(original)
        got.update(signature.bind(*values, **options).arguments)
        raise Stop

    original = getattr(hdsgd, FUNCTIONS[command])
    monkeypatch.setattr(hdsgd, FUNCTIONS[command], record)
    with pytest.raises(Stop):
        main([command, *args])
    return got


@pytest.mark.parametrize("command", FUNCTIONS)
def test_a_command_without_options_passes_the_defaults_of_python(monkeypatch, tmp_path, capsys, command):
    monkeypatch.chdir(tmp_path)
    signature = inspect.signature(getattr(hdsgd, FUNCTIONS[command]))
    for name, value in passed(monkeypatch, capsys, command).items():
        default = signature.parameters[name].default
        if name in ("problem", "progress", "store"):
            continue
        if name == "dims":
            value, default = tuple(value), (default,) if isinstance(default, int) else tuple(default)
        if name == "algorithms" and value is not None:
            value = tuple(getattr(a, "name", a) for a in value)
            default = tuple(getattr(a, "name", a) for a in default)
        assert value == default, f"{command} passes {name} = {value!r}; the default of Python is {default!r}"


def test_the_end_of_an_ode(capsys):
    from hdsgd_cli.ode import TIME

    assert float(hdsgd.integrate_ode(hdsgd.Problem("he2", "he2"))["t"][-1]) == pytest.approx(TIME)


def all_options():
    for name in COMMANDS.names():
        for param in COMMANDS[name].load().params:
            if isinstance(param, Option):
                yield name, param


#: Types of values that are one number, or several, of the same kind.
FAMILIES = {"WholeList": "Whole", "WholeOrAuto": "Whole", "Grid": "number", "NumberList": "number",
            "NumberOrAuto": "number", "FloatParamType": "number"}  # fmt: skip


def test_one_word_has_one_kind_of_value():
    kinds = {}
    for command, param in all_options():
        kind = type(param.type).__name__
        kinds.setdefault(max(param.opts, key=len), {}).setdefault(FAMILIES.get(kind, kind), []).append(command)
    assert len(kinds) > 60
    assert not {word: found for word, found in kinds.items() if len(found) > 1}


def test_help_has_sections_and_names_from_registries(capsys):
    _, out, _ = call(capsys, "simulate", "--help")
    for title in ("Problem:", "Dimension, batch size and learning rate:", "Start:", "Run:", "Output:"):
        assert f"\n{title}\n" in out
    for names in ("projected, correlation or spherical", "square, correlation or adaptive"):
        assert names in " ".join(out.split())
    assert "[default: 0.6]" in " ".join(out.split())


def completed(monkeypatch, capsys, line):
    """What the shell is offered for the last word of a line."""
    words = line.split(" ")
    monkeypatch.setenv("_HDSGD_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    _, out, _ = call(capsys)
    return [text.partition(",")[2] for text in out.split()]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("hdsgd sim", ["simulate"]),
        ("hdsgd simulate --loss ", ["square", "correlation", "adaptive"]),
        ("hdsgd simulate --engine re", ["reduced"]),
        ("hdsgd simulate --constraint s", ["spherical"]),
        ("hdsgd phase-diagram --plane mu-s", ["mu-samples"]),
        ("hdsgd phase-diagram --init ", ["auto", "random", "positive"]),
        ("hdsgd simulate --switch-f", ["--switch-fraction", "--switch-factor"]),
    ],
)
def test_completion(monkeypatch, capsys, line, found):
    assert completed(monkeypatch, capsys, line) == found


def test_registered_names_are_choices(capsys, monkeypatch, registered):
    """A loss of one's own is offered and named like those of the package."""
    registered(hdsgd.Loss("tenth", "a tenth of the output", error=lambda f, y: 0.1 * f - y))
    _, out, _ = call(capsys, "simulate", "--help")
    assert "square, correlation, adaptive or tenth" in " ".join(out.split())
    assert completed(monkeypatch, capsys, "hdsgd simulate --loss t") == ["tenth"]
    monkeypatch.delenv("_HDSGD_COMPLETE")
    code, _, err = call(capsys, "simulate", "--loss", "hinge")
    assert code == 2
    assert "choose from square, correlation, adaptive, tenth" in err


def test_halves_of_an_algorithm():
    """A diagram with another loss names its rules by what they are, not by what they no longer are."""
    options = {"algorithms": (), "loss": "correlation", "constraint": None}
    rules = hdsgd_cli.options.take_algorithms(options)
    assert [(rule.name, rule.loss, rule.constraint) for rule in rules] == [
        ("correlation", "correlation", "projected"),
        ("correlation-spherical", "correlation", "spherical"),
    ]
    assert options == {}
