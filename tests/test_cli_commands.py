"""Commands, losses and the like of one's own on the command line: by one call, or from an installed package."""

import subprocess
import sys

import click
import pytest
from command_line import call
from hdsgd_cli import register_command

from hdsgd.errors import SpecificationError


@click.command("hello")
@click.option("--name", default="you")
def hello(name):
    """Greet somebody.

    At length.
    """
    click.echo(f"hello {name}")


@pytest.mark.usefixtures("registered")
def test_a_command_of_ones_own(capsys):
    register_command("hello", hello, section="Mine")
    _, out, _ = call(capsys, "--help")
    assert "Mine:\n  hello  Greet somebody." in out
    assert call(capsys, "hello", "--name", "me") == (0, "hello me\n", "")
    with pytest.raises(SpecificationError, match="there is a command 'simulate' already"):
        register_command("simulate", hello)


PLUGIN = '''
import click, hdsgd_cli
from hdsgd.problem.losses import LOSSES, Loss

import hdsgd

hdsgd.register(hdsgd.Activation("half", "half of it", lambda x: 0.5 * x, lambda x: 0.5))
LOSSES.register(Loss("tenth", "a tenth of the output", error=lambda f, y: 0.1 * f - y))

@click.command("hello")
def hello():
    """Greet."""
    click.echo("hello from a plugin")

def register():
    hdsgd_cli.register_command("hello", hello)
'''


def install(folder, target):
    """A package with the entry point `target`, as pip would leave it."""
    (folder / "mine.py").write_text(PLUGIN)
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hdsgd.plugins]\nmine = {target}\n")


def run(folder, *args):
    code = f"import sys; sys.path.append({str(folder)!r}); from hdsgd_cli.main import main; main({list(args)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_plugin_is_loaded_when_a_name_is_unknown(tmp_path):
    install(tmp_path, "mine:register")
    done = run(tmp_path, "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from a plugin\n", "")
    # Its loss is known as well, so that only the dimension is wrong.
    done = run(tmp_path, "simulate", "--loss", "tenth", "--dim", "1")
    assert done.returncode == 2
    assert "dim must be" in done.stderr
    # So is its activation, in an expression and alone, and a result that used them is read without being told.
    start = f"import sys; sys.path.append({str(tmp_path)!r}); import hdsgd; path = {str(tmp_path / 'run.nc')!r}\n"
    for code in (
        "hdsgd.Target('z1 + 2*half(z2)')",
        "hdsgd.Student('half')",
        "run = hdsgd.simulate(hdsgd.Problem('he2', 'he2', loss='tenth'), dim=20, steps=1, replicas=1)\n"
        "hdsgd.save(run, path)",
        "hdsgd.add_diversity(hdsgd.load(path))",
    ):
        done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    # Where every name is known nothing is scanned.
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); from hdsgd_cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'mine', 'importlib.metadata', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_plugin_that_fails_is_named_and_left_out(tmp_path):
    install(tmp_path, "mine:no_such_function")
    done = run(tmp_path, "hello")
    assert done.returncode == 2
    assert "plugin 'mine' (mine:no_such_function) is left out: AttributeError" in done.stderr
    assert "unknown command 'hello'; choose from simulate" in done.stderr
    assert "Traceback" not in done.stderr
