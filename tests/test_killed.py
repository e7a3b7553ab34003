"""Studies whose process is killed, at any moment or write, or finds the disk full: they end as if nothing had been."""

import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_studies import LONG, LONG_OPTIONS, PROBLEM, count_written, run, same

from hdsgd import load, phase_diagram
from hdsgd.studies.store import StudyStore, partial_folder


@pytest.fixture(scope="module")
def long():
    return phase_diagram(PROBLEM, **LONG)


def wait_for(process, folder, cells):
    """Wait until `cells` cells are in the store or the process has ended; whether it still runs."""
    while process.poll() is None and count_written(folder) < cells:
        time.sleep(0.002)
    return process.poll() is None


#: Two phase diagrams and a study of networks (`tests/networks/test_networks_studies.py`): more than thirty in all, if
#: none ends before it is killed; so few that it cannot be helped are asked for.
KILLS, LEAST = 13, 5


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_killed_again_and_again(long, start, tmp_path, name):
    """SIGKILL at random moments: what is committed stays, and the end is the same."""
    path, folder = tmp_path / name, partial_folder(tmp_path / name)
    random, kills = np.random.default_rng(1), 0
    while True:
        kept = count_written(folder)
        process = start(*LONG_OPTIONS, "-o", path, "--resume")
        if kills < KILLS and wait_for(process, folder, kept + random.integers(1, 3)):
            time.sleep(random.uniform(0, 0.02))
            process.kill()
        _, err = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
        assert count_written(folder) >= kept or path.exists(), "it may have ended before the signal came"
    assert process.returncode == 0, err
    print(f"{kills} kills")
    assert kills >= LEAST
    assert same(load(path), long)


@pytest.mark.compiled
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_a_second_process_locked_out(long, start, tmp_path, number):
    path, folder = tmp_path / "phase.nc", tmp_path / "phase.nc.partial"
    process = start(*LONG_OPTIONS, "-o", path)
    assert wait_for(process, folder, 5)
    process.send_signal(signal.SIGSTOP)  # so that it does not end while the others start
    second, status = start(*LONG_OPTIONS, "-o", path, "--resume"), start("status", path)
    out, err = status.communicate()
    assert status.returncode == 0, err
    assert "a process is working on it" in out
    _, err = second.communicate()
    assert second.returncode == 2
    assert err.splitlines()[-1].startswith("hdsgd: another process is working on ")
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate()
    assert process.returncode == 130
    message = err.splitlines()[-1]
    assert message.startswith("hdsgd: interrupted; ")
    assert f"of 50 cells are kept in {str(folder)!r}; the same command with --resume" in message
    written = count_written(folder)
    assert re.search(r"(\d+) of 50", message).group(1) in {str(written), str(written - 1)}, "one may not be counted yet"
    assert "Traceback" not in err
    process = start(*LONG_OPTIONS, "-o", path, "--resume")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert same(load(path), long)


#: Finish a study whose cells are all done, once for each write to the disk, which ends the process.  What is written
#: aside, under names that nobody reads, does not count.
KILLED_AT_EACH_WRITE = """
import importlib, itertools, os, signal, sys
for name in ("h5netcdf", "h5py", "distributed", "dask.array"):  # once, not after each fork
    importlib.import_module(name)
from hdsgd.policies import Store
from hdsgd.studies.runner import run_study
from hdsgd.studies.store import read_study

WRITES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"}

def finish(path, left):
    study = read_study(path).study
    def count(event, args):
        nonlocal left
        if event in WRITES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)):
            paths = [str(x).removeprefix(copies) for x in args[:2] if str(x).startswith(copies)]
            left -= any(".tmp" not in x for x in paths)
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    if left is not None:
        sys.addaudithook(count)
    run_study(study, store=Store(path, resume=True))

def forked(*args):  # reading a file starts threads, which do not survive a fork
    child = os.fork()
    if child == 0:
        try:
            finish(*args)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

copies = sys.argv[1]
for number in itertools.count():
    path = os.path.join(copies, str(number), sys.argv[2])
    os.mkdir(os.path.dirname(path))
    if os.system(f"cp -r {sys.argv[3]} {os.path.dirname(path)}"):
        raise SystemExit("not copied")
    code = forked(path, number)
    if code == 0:
        break
    if code != -signal.SIGKILL or forked(path, None) != 0:
        raise SystemExit(f"killed at write {number}: {code}")
print(number)
"""


@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_killed_at_each_write_of_the_end(small, tmp_path, monkeypatch, name):
    begun, copies = tmp_path / "begun", tmp_path / "copies"
    begun.mkdir()
    copies.mkdir()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StudyStore, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(begun / name)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_WRITE, copies, name, partial_folder(begun / name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    for copy in copies.iterdir():
        assert same(load(copy / name), small)
        assert not partial_folder(copy / name).exists()


FULL_DISK = """
set -u
mount -t tmpfs -o size=8k tmpfs "$1" || exit 77
cd "$1"; shift
"$@"; echo "code $?"
"$@" --resume; echo "code $?"
mount -o remount,size=20m "$OLDPWD/disk"
"$@" --resume; echo "code $?"
cp -r phase.* "$OLDPWD"
"""


@pytest.mark.compiled
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_a_disk_that_is_really_full(long, tmp_path, name):
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", FULL_DISK, "bash", tmp_path / "disk", sys.executable, "-m", "hdsgd_cli.main",
         *LONG_OPTIONS, "-o", name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting a file system is not permitted here")
    codes = [line for line in done.stdout.splitlines() if line.startswith("code")]
    assert codes == ["code 1", "code 1", "code 0"], done.stderr
    messages = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert len(messages) == 2, done.stderr
    assert all("of 50 cells are kept in" in line and "--resume" in line for line in messages)
    assert "Traceback" not in done.stderr
    assert same(load(tmp_path / name), long)
