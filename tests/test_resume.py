"""Studies on disk: whatever interrupts them, they go on, and end as if nothing had happened."""

import errno
import json
import os

import pytest
import xarray as xr
from command_line import call
from small_studies import OPTIONS, PROBLEM, count_written, run, same

from hdsgd import SpecificationError, load, save
from hdsgd.engines import reduced
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import Scaling, Store, Workers
from hdsgd.results.schema import _difference
from hdsgd.studies import log
from hdsgd.studies import store as store_module
from hdsgd.studies.locks import is_locked
from hdsgd.studies.store import StoreError, StudyStore, partial_folder, read_study
from hdsgd.sweeps import phase_diagrams


def interrupt_after(monkeypatch, cells, error):
    """Make the writing of a cell raise, once `cells` cells are written."""
    write, written = StudyStore.write, []

    def broken(*args):
        if len(written) >= cells:
            raise error
        written.append(args)
        write(*args)

    monkeypatch.setattr(StudyStore, "write", broken)


def half(monkeypatch, path, cells=5, threads=None, **options):
    """Leave a store with `cells` cells."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, cells, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            run(path, workers=Workers(threads), **options)


@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_a_stored_sweep_is_the_sweep(small, tmp_path, name):
    returned = run(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert same(returned, small)
    assert same(load(tmp_path / name), small)
    if name.endswith("zarr"):
        assert same(xr.open_zarr(tmp_path / name).load(), small), "without a warning and without hdsgd"


@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_resume(small, tmp_path, monkeypatch, name, caplog):
    path = tmp_path / name
    half(monkeypatch, path)
    assert os.listdir(tmp_path) == [partial_folder(path).name]
    for options, message in (
        ({}, "exists; --resume"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ):
        with pytest.raises(SpecificationError, match=message):
            run(path, **options)
    with pytest.raises(SpecificationError, match="unfinished study; `hdsgd export"):
        load(path)
    ran = []
    advance = reduced.ReducedRun.advance
    monkeypatch.setattr(reduced.ReducedRun, "advance", lambda self, *a, **k: (ran.append(1), advance(self, *a, **k))[1])
    with caplog.at_level("INFO", "hdsgd"):
        again = run(path, resume=True)
    assert "5 of 12 cells are done" in caplog.text
    assert len(ran) == 7 * 2, "finished cells are not run again"
    assert same(again, small)
    assert same(load(path), small)
    assert os.listdir(tmp_path) == [name]


def test_resume_where_nothing_or_everything_is(small, tmp_path, caplog):
    with caplog.at_level("INFO", "hdsgd"):
        for message in ("there is nothing to resume", "is complete: nothing is left to do"):
            for name in ("phase.nc", "phase.zarr"):
                assert same(run(tmp_path / name, resume=True), small)
                assert message in caplog.messages[-1]


def test_overwrite(small, tmp_path, monkeypatch):
    """Partial results are replaced at once, a file when its successor is complete."""
    for name in ("phase.nc", "phase.zarr"):
        path = tmp_path / name
        run(path, seed=7)
        half(monkeypatch, path, overwrite=True)
        with pytest.raises(SpecificationError, match=r"exists?; --resume"):
            run(path)
        assert load(path).attrs["seed"] == 7
        with pytest.raises(SpecificationError, match=rf"{name}.partial' and .*{name}' exist; --resume"):
            run(path)
        assert same(run(path, resume=True), small)
        assert same(load(path), small)


def test_another_specification_is_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "phase.zarr"
    half(monkeypatch, path)
    code, _, err = call(capsys, *OPTIONS, "-o", path, "--resume", "--seed", "1", "--mu", "0,1,2", "--target",
                        "2*he2(z1)", "--delta", "-0.5,0.5,0.75")  # fmt: skip
    assert code == 2
    lines = [line for line in err.splitlines() if ": " in line and " there, " in line]
    assert len(lines) == 6
    for text in (
        "seed: 0 there, 1 now",
        "mu: [0.0, 1.0] there, [0.0, 1.0, 2.0] now",
        'problem.target.expression: "he2(z1)" there, "2 * he2(z1)" now',
        "delta: [-0.5, 0.5, 1.0] there, [-0.5, 0.5, 0.75] now",
        "algorithms.projected.gamma0: ",
    ):
        assert text in err
    assert "Traceback" not in err
    assert count_written(partial_folder(path)) == 5, "it is left alone"


def test_long_grids_are_not_dumped():
    there = [0.1 * i for i in range(30)]
    assert _difference(there, [*there[:4], 7.0, *there[5:]]) == ("30 values each, number 5 is 0.4 there, 7.0 now")
    assert (
        _difference(there, there[:9]) == "30 values from 0.0 to 2.9000000000000004 there, 9 values from 0.0 to 0.8 now"
    )


def test_other_versions_are_told(small, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        others = {**json.loads(small.attrs["versions"]), "numpy": "1.0"}
        patch.setattr(phase_diagrams.PhaseDiagram, "versions", lambda self: others)
        half(monkeypatch, tmp_path / "phase.zarr")
    assert same(run(tmp_path / "phase.zarr", resume=True), small)
    assert "was begun with numpy 1.0 (here 2" in caplog.text


def test_numbers_of_the_plan_are_those_of_the_beginning(small, tmp_path, monkeypatch):
    """Prefactors found on another processor may differ in the last digit: the cells go on with those that they had."""
    path = tmp_path / "phase.nc"
    half(monkeypatch, path)
    make = phase_diagrams.make_plan
    monkeypatch.setattr(
        phase_diagrams, "make_plan", lambda *args: (plan := make(*args))._replace(gamma0=plan.gamma0 * (1 + 1e-13))
    )
    assert not same(run(tmp_path / "other.nc"), small), "negative control"
    assert same(run(path, resume=True), small)


@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_failed_cells_are_tried_again(small, tmp_path, monkeypatch, name, capsys):
    path = tmp_path / name
    advance = reduced.ReducedRun.advance

    def fail(self, *args, **options):
        if self.batch > 1 and self.dim == 60:
            raise FloatingPointError("no\ngood")
        advance(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(reduced.ReducedRun, "advance", fail)
        half(patch, path, cells=11, threads=1)
        _, out, _ = call(capsys, "status", path)
        assert "FloatingPointError: no good" in out
        failed = run(path, resume=True)
    bad = failed["status"] == OUTCOMES["failed"]
    assert bad.any()
    assert set(json.loads(failed.attrs["errors"]).values()) == {"FloatingPointError: no good"}
    assert same(load(path), failed)
    assert same(run(path, resume=True), small)
    assert same(load(path), small)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["phase.nc", "phase.zarr"])
def test_full_disk(small, tmp_path, monkeypatch, capsys, name):
    """Every write to the log may be the one that fails, halfway."""
    path, folder = tmp_path / name, partial_folder(tmp_path / name)
    write = os.write
    for room in (0, 1, 2, 5, 3):
        left = [room]

        def full(file, data, left=left):
            if bytes(data[:4]) not in (log.MARK, log.MAGIC[:4]):
                return write(file, data)
            if left[0] == 0:
                write(file, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
            return write(file, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            code, out, err = call(capsys, *OPTIONS, "-o", path, "--resume")
        assert code == 1
        assert out == ""
        assert err.splitlines()[-1].startswith("hdsgd: cannot write the result (No space left on device); ")
        assert "--resume" in err.splitlines()[-1]
        done = read_study(path).results.counts().done if folder.exists() else 0
        assert f"{done} of 12 cells are kept in {str(folder)!r}" in err
    assert 0 < done < 12
    assert same(run(path, resume=True), small)
    assert os.listdir(tmp_path) == [name]


def test_full_disk_at_the_end(small, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "save", full)
        with pytest.raises(StoreError, match="12 of 12 cells are kept"):
            run(tmp_path / "phase.nc")
    assert same(run(tmp_path / "phase.nc", resume=True), small)
    assert os.listdir(tmp_path) == ["phase.nc"]


def test_locked(small, tmp_path, monkeypatch, capsys):
    path = tmp_path / "phase.zarr"
    half(monkeypatch, path)
    holder = StudyStore(Store(path, resume=True), read_study(path).study)
    assert is_locked(partial_folder(path))
    assert "a process is working on it" in call(capsys, "status", path)[1]
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(SpecificationError, match="another process is working on"):
            run(path, **options)
    holder.close()
    assert not is_locked(partial_folder(path))
    assert "interrupted" in call(capsys, "status", path)[1]
    assert same(run(path, resume=True), small)


def test_status_and_export(small, tmp_path, monkeypatch, capsys):
    path = tmp_path / "phase.nc"
    half(monkeypatch, path, cells=5, threads=1)
    capsys.readouterr()
    code, out, err = call(capsys, "status", path)
    assert (code, err) == (0, "")
    assert f"{partial_folder(path)}: interrupted" in out
    assert "5 of 12 cells" in out
    assert "--resume" in out
    table = [line.split() for line in out.splitlines() if line.startswith("projected")]
    assert [row[1] for row in table] == ["40", "60"]
    assert [sum(int(row[i]) for row in table) for i in (2, 3, 4)] == [5, 7, 0]
    for name in ("done.nc", "done.zarr"):
        code, out, _ = call(capsys, "export", path, tmp_path / name)
        assert code == 0
        assert "5 of 12" in out
        part = load(tmp_path / name)
        pending = part["status"] == OUTCOMES["pending"]
        assert int(pending.sum()) == 7 * 2
        assert not part["recovered"].where(pending, False).any()
        assert not part["recovery_time"].where(pending, 0).any()
        for variable in ("recovery_time", "recovered", "status", "samples"):
            assert (part[variable] == small[variable]).where(~pending, True).all()
        code, _, err = call(capsys, "export", path, tmp_path / name)
        assert code == 2
        assert "--overwrite" in err
        assert call(capsys, "export", path, tmp_path / name, "--overwrite")[0] == 0
    # What was exported can be continued, too.
    assert same(run(tmp_path / "done.zarr", resume=True), small)
    assert same(run(tmp_path / "done.nc", resume=True), small)
    assert same(run(path, resume=True), small)
    assert "complete" in call(capsys, "status", path)[1]
    assert sorted(os.listdir(tmp_path)) == ["done.nc", "done.zarr", "phase.nc"]


def test_status_of_what_is_no_sweep(tmp_path, capsys):
    from hdsgd import simulate

    save(simulate(PROBLEM, dim=20, scaling=Scaling(batch=4, lr=0.05), steps=2, replicas=2), tmp_path / "run.nc")
    code, _, err = call(capsys, "status", tmp_path / "run.nc")
    assert code == 2
    assert "unknown study 'simulate'" in err


def test_resumed_command_draws_the_figure_again(tmp_path, capsys):
    output = ("-o", tmp_path / "phase.nc", "--plot", tmp_path / "phase.png")
    assert call(capsys, *OPTIONS, *output)[0] == 0
    (tmp_path / "phase.png").write_bytes(b"")
    code, out, err = call(capsys, *OPTIONS, *output, "--resume")
    assert code == 0
    assert "is complete" in err
    assert "12 cells" not in out
    assert (tmp_path / "phase.png").read_bytes().startswith(b"\x89PNG")


SEVERAL = {"algorithms": ["spherical", "projected", "correlation"], "dims": 40}


@pytest.fixture(scope="module")
def several():
    """Three algorithms; their order in JSON, by the alphabet, is not that of the result."""
    data = run(None, **SEVERAL)
    assert data["algorithm"].values.tolist() == ["projected", "correlation", "spherical"]
    return data


@pytest.mark.parametrize("names", [SEVERAL["algorithms"], SEVERAL["algorithms"][::-1]])
def test_cells_of_several_algorithms_stay_where_they_belong(several, tmp_path, monkeypatch, names, capsys):
    """Resumed, exported and read, in whatever order the algorithms are named."""
    path = tmp_path / "phase.nc"
    half(monkeypatch, path, cells=7, threads=1, **SEVERAL)
    assert call(capsys, "export", path, tmp_path / "part.nc")[0] == 0
    part = load(tmp_path / "part.nc")
    assert (part["algorithm"] == several["algorithm"]).all()
    done = part["status"] != OUTCOMES["pending"]
    assert int(done.sum()) == 7 * 2
    assert (part["recovery_time"] == several["recovery_time"]).where(done, True).all()
    assert same(run(path, resume=True, **{**SEVERAL, "algorithms": names}), several)
    assert same(load(path), several)
    assert call(capsys, "export", path, tmp_path / "whole.nc")[0] == 0
    assert load(tmp_path / "whole.nc").equals(several)


def test_a_file_with_its_algorithms_in_another_order(several, tmp_path):
    save(several.isel(algorithm=[2, 0, 1]), tmp_path / "phase.nc")
    found = read_study(tmp_path / "phase.nc")
    assert found.study.assemble(found.results).equals(several)
