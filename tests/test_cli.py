"""The command line as a user meets it: summaries, files, one-line errors, interruption."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from command_line import call
from hdsgd_cli.commands import COMMANDS

from hdsgd import load

SIMULATE = ["simulate", "--dim", "30", "--batch", "10", "--lr", "0.05", "--steps", "5", "--replicas", "2"]
DIAGRAM = ["phase-diagram", "--dim", "40", "--mu", "0,1", "--delta", "0:1:2", "--replicas", "2", "--max-cost", "1e4"]


def hdsgd(*args, **options):
    return subprocess.run([sys.executable, "-m", "hdsgd_cli.main", *map(str, args)], capture_output=True, text=True,
                          timeout=120, **options)  # fmt: skip


def test_help_is_instant_and_lists_the_commands():
    done = hdsgd("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    loaded = subprocess.run(
        [sys.executable, "-c",
         "import sys\nfrom hdsgd_cli.main import main\n"
         "try: main(['--help'])\nexcept SystemExit: pass\n"
         "print([m for m in ('numpy', 'numba', 'xarray', 'matplotlib') if m in sys.modules], file=sys.stderr)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stderr.strip() == "[]", "help must not load what it does not need"


def test_importing_hdsgd_does_not_load_numba():
    code = (
        "import sys, hdsgd; hdsgd.Problem('he2', 'square'); "
        "assert not {'numba', 'matplotlib', 'xarray'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(capsys, command):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    assert "--" in out


def test_simulate(capsys, tmp_path):
    data, plot = tmp_path / "run.nc", tmp_path / "run.png"
    code, out, err = call(capsys, *SIMULATE, "-o", data, "--plot", plot, "--init-overlap", "0.1")
    assert code == 0, err
    assert len(out.splitlines()) <= 24
    assert "2 replicas" in out
    assert load(data)["M"].values[:, 0].ravel() == pytest.approx([0.1, 0.1])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(tmp_path)) == ["run.nc", "run.png"]


def test_phase_diagram(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *DIAGRAM)
    assert code == 0, err
    assert sorted(os.listdir(tmp_path)) == ["phase.nc", "phase.png"]
    data = load("phase.nc")
    assert dict(data.sizes) == {"algorithm": 3, "dim": 1, "mu": 2, "delta": 2, "replica": 2}
    assert all(name in out for name in ("projected", "correlation", "spherical"))
    code, _, err = call(capsys, *DIAGRAM)
    assert code == 2
    assert "exists" in err


def test_version(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert re.fullmatch(r"hdsgd \d+\.\d+\.\d+\S*\n", out)


WRONG = [
    ((), "Usage"),
    (("frobnicate",), "unknown command 'frobnicate'; choose from simulate"),
    ((*SIMULATE, "--frob"), "--frob"),
    ((*SIMULATE, "--target", "z1^2"), "'^' at column 3"),
    ((*SIMULATE, "--target", "__import__('os')"), "unknown function"),
    ((*SIMULATE, "--activation", "gelu"), "unknown name"),
    ((*SIMULATE, "--algorithm", "adam"), "choose from projected, correlation, spherical"),
    ((*SIMULATE, "--loss", "hinge"), "choose from square, correlation, adaptive"),
    ((*SIMULATE, "--engine", "gpu"), "choose from auto, exact, direct, direct32, reduced"),
    ((*SIMULATE, "--engine", "reduced", "--dim", "2"), "k + 2p = 3"),
    ((*SIMULATE, "--dim", "1"), "from 2"),
    ((*SIMULATE, "--dim", "ten"), "'ten' is not a whole number"),
    ((*SIMULATE, "--eta", "1.5"), "between 0 and 1"),
    ((*SIMULATE, "--eta", "nan"), "finite"),
    ((*SIMULATE, "--noise", "nan"), "finite"),
    ((*SIMULATE, "--lr", "nan"), "finite"),
    ((*SIMULATE, "--mu", "1"), "--mu has no effect with --batch: that is the batch size itself"),
    ((*SIMULATE, "--width", "2", "--second-layer", "1,x"), "comma-separated list of numbers"),
    ((*SIMULATE, "--width", "2", "--second-layer", "1,2,3"), "one weight per hidden unit: 2, not 3"),
    ((*SIMULATE, "--target", "z1*z2", "--gram", "1,2;2,1"), "positive semi-definite"),
    ((*SIMULATE, "--target", "z1*z2", "--gram", "1,2;2"), "different lengths"),
    ((*SIMULATE, "--init", "zero"), "choose from random, positive"),
    ((*SIMULATE, "--init-overlap", "2"), "between -1 and 1"),
    ((*SIMULATE, "--seed", "-1"), "at least 0"),
    ((*SIMULATE, "-o", "run.csv"), "must end in .nc or .zarr"),
    ((*SIMULATE, "-o", "no/such/run.nc"), "does not exist"),
    ((*SIMULATE, "-o", "."), "must end in .nc or .zarr"),
    ((*SIMULATE, "-o", ""), "output '' must end in .nc or .zarr"),
    ((*SIMULATE, "-o", ".nc"), "output '.nc' must end in .nc or .zarr, after a name"),
    ((*SIMULATE, "-o", "/proc/run.nc"), "cannot be written"),
    ((*SIMULATE, "-o", "a" * 300 + ".nc"), "File name too long"),
    ((*SIMULATE, "--points", "0"), "at least 1"),
    ((*SIMULATE, "--steps", "1e30"), "steps must be from 1 to 9000000000000000000"),
    ((*SIMULATE, "--spacing", "even"), "choose from linear, log"),
    ((*SIMULATE, "--init", "zero", "--steps", "0"), "choose from random, positive"),
    ((*SIMULATE, "--activation", "relu", "--width", "30", "--diversity", "-o", "run.nc"), "take too long"),
    (("ode", "--method", "Euler"), "choose from LSODA"),
    (("ode", "--regime", "fast"), "choose from auto, population flow"),
    (("ode", "--rtol", "nan"), "finite"),
    (("ode", "--points", "1e30"), "GB are free; save fewer points"),
    (("ode", "--points", "1e30", "--spacing", "log"), "GB are free; save fewer points"),
    (("ode", "--mean-map", "--steps", "1e30"), "steps must be from 1 to 9000000000000000000"),
    (("ode", "--mean-map", "--time", "nan"), "time must be finite"),
    (("ode", "--mean-map", "--time", "1e300", "--gamma0", "1"), "at most 9·10^18 can be counted"),
    (("compare", "--time", "1e308", "--gamma0", "1"), "at most 9·10^18 can be counted"),
    (("theory", "--eta", "1"), "eta must be between 0 and 1"),
    (("theory", "--noise", "1e308"), "exceeds double precision"),
    (("ode", "--mu", "1", "--delta", "0"), "no ODE limit"),
    (("compare", "--delta", "0", "--mu", "1"), "no ODE limit"),
    (("compare", "--batch", "3"), "No such option '--batch'"),
    ((*SIMULATE, "--plot", "run.gif"), "must end in .png"),
    (("simulate", "--mu", "9"), "at most 9·10^18"),
    (("simulate", "--delta", "0", "--gamma0", "big"), "neither a number nor 'auto'"),
    ((*DIAGRAM, "--mu", "0:2"), "neither start:stop:count"),
    ((*DIAGRAM, "--mu", "0:2:0"), "count"),
    ((*DIAGRAM, "--mu", "0,0"), "same value twice"),
    ((*DIAGRAM, "--delta", "0,inf"), "not finite"),
    ((*DIAGRAM, "--max-steps", "0"), "max_steps must be from 1"),
    ((*DIAGRAM, "--replicas", "1e12", "--quiet"), "larger than 2 GB; run fewer replicas"),
    ((*DIAGRAM, "--max-steps", "1e30"), "max_steps must be from 1 to"),
    ((*DIAGRAM, "--max-steps", "many"), "'many' is not a whole number or 'auto'"),
    ((*DIAGRAM, "--dims", "40,80"), "--dim has no effect with --dims"),
    ((*DIAGRAM, "--plot", "it.png", "--resume"), "no effect without --output"),
    ((*DIAGRAM, "--resume", "--overwrite"), "exclude each other"),
    ((*DIAGRAM, "-o", "phase.csv"), "must end in .nc or .zarr"),
    (("status", "none.nc"), "there is no 'none.nc', nor 'none.nc.partial' beside it"),
    (("export", "none.zarr", "a.nc"), "there is no 'none.zarr'"),
    (("status", ""), "'' is not the name of a file"),
    (("status", "."), "'.' is not the name of a file"),
    (("status", "/proc"), "'/proc' is a folder"),
    (("status", "a" * 300), "File name too long"),
    (("export", "", "a.nc"), "'' is not the name of a file"),
    ((*DIAGRAM, "--max-cost", "nan"), "finite"),
    ((*DIAGRAM, "--algorithm", "adam"), "choose from projected"),
    ((*DIAGRAM, "--target", "he3", "--activation", "square"), "square"),
    ((*DIAGRAM, "--plane", "mu-lambda"), "choose from mu-delta, mu-theta, mu-samples"),
    (("epochs", "--depth", "1,2"), "needs --depth and either"),
    (("saturation", "--preset", "big"), "choose from small"),
    (("saturation", "--preset", "no/such.json"), "cannot read 'no/such.json'"),
    (("saturation", "--data", "nosuch"), "unknown data source"),
    (("diversity", "--preset", "theorem1", "-o", "t.txt"), "must end in .nc or .zarr"),
]


@pytest.mark.parametrize(("args", "message"), WRONG)
def test_bad_input_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *args)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    if args:
        assert len(err.strip().splitlines()) == 1, err
    assert os.listdir(tmp_path) == []


def test_existing_output_is_left_alone(capsys, tmp_path):
    path = tmp_path / "run.nc"
    path.write_text("precious")
    code, _, err = call(capsys, *SIMULATE, "-o", path)
    assert code == 2
    assert "--overwrite" in err
    assert path.read_text() == "precious"
    assert call(capsys, *SIMULATE, "-o", path, "--overwrite")[0] == 0
    assert load(path).attrs["kind"] == "simulate"


def test_a_link_to_nowhere_is_refused_before_the_run(capsys, tmp_path):
    path = tmp_path / "run.nc"
    path.symlink_to(tmp_path / "gone.nc")
    code, _, err = call(capsys, *SIMULATE, "-o", path)
    assert code == 2
    assert "which does not exist" in err


def test_a_folder_without_permission(capsys, tmp_path, monkeypatch):
    import tempfile

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)  # what root is not refused
    code, _, err = call(capsys, *SIMULATE, "-o", tmp_path / "run.nc")
    assert code == 2
    assert "cannot be written: Permission denied" in err


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_a_seed_of_any_size(capsys, tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    code, _, err = call(capsys, *SIMULATE, "--seed", 2**100, "-o", path)
    assert code == 0, err
    assert str(2**100) in str(load(path).attrs)


def test_quiet_says_nothing(capsys, tmp_path, monkeypatch):
    """Not even the messages of the library."""
    _, _, err = call(capsys, *SIMULATE[:5], "--delta", "0", "--steps", "5", "--replicas", "2")
    assert "gamma0" in err
    code, out, err = call(capsys, *SIMULATE[:5], "--delta", "0", "--steps", "5", "--replicas", "2", "--quiet")
    assert (code, err) == (0, "")
    assert "2 replicas" in out


def test_narrow_terminal():
    done = hdsgd("phase-diagram", "--help", env={**os.environ, "COLUMNS": "60"})
    prose = [line for line in done.stdout.splitlines() if "hdsgd phase-diagram" not in line]
    assert done.returncode == 0
    assert max(map(len, prose)) <= 60


def test_output_into_a_closed_pipe():
    command = f"{sys.executable} -m hdsgd_cli.main simulate --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.compiled
@pytest.mark.parametrize(
    "args",
    [
        (
            "simulate",
            "--dim",
            "1000",
            "--batch",
            "1000000000",
            "--lr",
            "0.01",
            "--steps",
            "1000",
            "--engine",
            "exact",
            "-o",
            "run.nc",
        ),
        (
            "phase-diagram",
            "--dim",
            "1000",
            "--engine",
            "exact",
            "--max-cost",
            "1e12",
            "--mu",
            "1.5,2",
            "--delta",
            "1.5,1.4",
            "--plot",
            "it.png",
        ),
    ],
)
def test_interruption_leaves_nothing(start, tmp_path, args):
    process = start(*args, cwd=tmp_path)
    time.sleep(6)  # long enough to be inside a kernel; these runs would take hours
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 130
    assert "interrupted" in err
    assert "nothing was written" in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []
