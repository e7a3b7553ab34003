"""Data for the figures: made once by the command line given in the figure's script."""

import shlex
import subprocess
import sys
from pathlib import Path

import xarray as xr

import hdsgd

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"


def made_by(command: str) -> xr.Dataset:
    """The Dataset that ``command`` (with ``-o NAME`` last) writes, run first if the file is missing."""
    arguments = shlex.split(command)
    path = DATA / arguments[-1]
    if not path.exists():
        DATA.mkdir(exist_ok=True)
        print(f"+ {command}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "hdsgd_cli.main", *arguments[1:-1], str(path)], check=True)
    return hdsgd.load(path)
