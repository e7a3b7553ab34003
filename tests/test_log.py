"""The log of partial results: whatever happens to its bytes, a result is the right one or it is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from hdsgd import Initial, Problem, SpecificationError, load, phase_diagram, save
from hdsgd.policies import Plane, StopRule, Store, Workers
from hdsgd.studies import log
from hdsgd.studies.runner import enter
from hdsgd.studies.store import StudyStore, partial_folder, read_results, read_study
from hdsgd.sweeps.phase_diagrams import PhaseDiagram

CELLS = 12


def make_study(seed=0):
    """A phase diagram of 12 cells; its outcomes are made up."""
    rule = {"loss": "square", "constraint": "projected", "n0": 1.0, "gamma0": 0.25, "exponent": 2}
    specification = {
        "problem": Problem("he2", "he2").to_dict(), "algorithms": {"projected": rule}, "dims": [40, 60],
        "mu": [0.0, 1.0], "delta": [-0.5, 0.5, 1.0], "initial": Initial().to_dict(),
        "eta": 0.5, "replicas": 2, "max_steps": "auto", "max_cost": 1e7, "engine": "auto", "seed": seed,
    }  # fmt: skip
    return PhaseDiagram(specification, {"drift": {"projected": 4.0}})


def outcome(cell, seed=0):
    return {"recovery_time": [10**6 * seed + cell, 3 * cell], "status": [0, cell % 3]}


def fill(path, cells=range(CELLS), seed=0, fail=()):
    """A store with these cells, left as a process that was killed leaves it."""
    study = make_study(seed)
    store = StudyStore(Store(path, resume=True), study)
    for cell in cells:
        enter(study, store.results, cell, f"error of {cell}" if cell in fail else outcome(cell, seed), store)
    store.close()
    return partial_folder(path)


def one_log(folder):
    (path,) = folder.glob("*.log")
    return path


def cells_of(results):
    """Numbers of the cells that are done; each has its own outcome."""
    done = np.flatnonzero(results.state == 0).tolist()
    for cell in done:
        for name, value in outcome(cell).items():
            assert results.table[name][cell].tolist() == value
    return done


def read(folder, digest=None):
    study = make_study()
    digest = log.identity_digest(study.kind, study.specification, study.resolved)
    return cells_of(read_results(folder, study, digest))


def test_what_is_written_is_read(tmp_path):
    folder = fill(tmp_path / "x.nc", fail=[3, 7])
    found = read_study(tmp_path / "x.nc")
    assert cells_of(found.results) == [c for c in range(CELLS) if c not in (3, 7)]
    assert found.results.errors == {3: "error of 3", 7: "error of 7"}
    assert found.results.counts() == (10, 2, 12)
    assert found.study.specification == json.loads(json.dumps(make_study().specification))
    assert found.place == folder
    # A second process adds a log of its own, and the results of cells that had failed.
    fill(tmp_path / "x.nc", cells=[3])
    found = read_study(tmp_path / "x.nc")
    assert len(list(folder.glob("*.log"))) == 2
    assert found.results.counts() == (11, 1, 12)
    assert found.results.errors == {7: "error of 7"}


def test_every_byte_flipped_in_turn(tmp_path):
    """A flip in a record loses it alone; one in the header is noticed, and loses nothing on resuming."""
    path = one_log(fill(tmp_path / "x.nc", fail=[5]))
    content = path.read_bytes()
    start = log.read_header(content)[1]
    everything = [c for c in range(CELLS) if c != 5]
    sizes = [log.OVERHEAD + (10 if c == 5 else make_study().row.itemsize) for c in range(CELLS)]
    ends = start + np.cumsum(sizes)
    assert ends[-1] == len(content)
    for at in range(len(content)):
        for mask in (1, 0xFF):
            path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
            hit = int(np.searchsorted(ends, at, side="right")) if at >= start else None
            assert read(path.parent) == [c for c in everything if c != hit], at
            if at % 7:  # the whole way, too
                continue
            if at < start:
                with pytest.raises(SpecificationError, match="no log that can be read"):
                    read_study(tmp_path / "x.nc")
            else:
                assert cells_of(read_study(tmp_path / "x.nc").results) == [c for c in everything if c != hit]


def test_a_store_with_any_byte_flipped_is_continued(tmp_path, caplog):
    path = one_log(fill(tmp_path / "x.nc"))
    content = path.read_bytes()
    for at in range(0, len(content), 11):
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        store = StudyStore(Store(tmp_path / "x.nc", resume=True), make_study())
        missing = [c for c in range(CELLS) if c not in cells_of(store.results)]
        assert len(missing) <= (at >= log.read_header(content)[1])
        for cell in missing:
            enter(store.study, store.results, cell, outcome(cell), store)
        store.close()
        assert read(path.parent) == list(range(CELLS))
        for extra in set(path.parent.glob("*.log")) - {path}:
            extra.unlink()


def test_truncated_at_every_length(tmp_path):
    path = one_log(fill(tmp_path / "x.nc"))
    content = path.read_bytes()
    start = log.read_header(content)[1]
    size = log.OVERHEAD + make_study().row.itemsize
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert read(path.parent) == list(range(max(0, length - start) // size)), length


def test_records_copied_over_others(tmp_path):
    """A copy is still the result of its own cell, and the one that it replaces is missing; any place will do."""
    path = one_log(fill(tmp_path / "x.nc"))
    content = path.read_bytes()
    start, size = log.read_header(content)[1], log.OVERHEAD + make_study().row.itemsize
    record = content[start + 2 * size : start + 3 * size]
    for at in range(start, len(content) - size + 1):
        path.write_bytes(content[:at] + record + content[at + size :])
        first, rest = divmod(at - start, size)
        lost = {first} if not rest else {first, first + 1}
        assert read(path.parent) == [c for c in range(CELLS) if c not in lost - {2}], at
    # Without its own place in the record's checksum the payload of one cell would pass for another's.
    swapped = bytearray(content)
    swapped[start + log.HEAD : start + size - 4] = record[log.HEAD : -4]
    path.write_bytes(swapped)
    assert read(path.parent) == list(range(1, CELLS))


def test_records_of_another_study(tmp_path):
    """Neither its log in the folder nor its records between the others are taken for results."""
    path = one_log(fill(tmp_path / "x.nc"))
    other = one_log(fill(tmp_path / "y.nc", seed=1))
    content, foreign = path.read_bytes(), other.read_bytes()
    start = log.read_header(content)[1]
    path.write_bytes(content[:start] + foreign[start:])
    assert read(path.parent) == []
    path.write_bytes(content)
    (path.parent / "0.log").write_bytes(foreign)
    assert read(path.parent) == list(range(CELLS))
    store = StudyStore(Store(tmp_path / "x.nc", resume=True), make_study())
    assert cells_of(store.results) == list(range(CELLS))
    store.close()
    with pytest.raises(SpecificationError, match="seed: 1 there, 0 now"):
        StudyStore(Store(tmp_path / "y.nc", resume=True), make_study())


def test_a_payload_that_looks_like_records(tmp_path):
    """Marks, and whole records, inside a damaged payload are passed over unless they are sound."""
    digest = bytes(32)
    seed = google_crc32c.value(digest)
    inner = log.frame(seed + 1, 4, log.RESULT, b"inner")  # of another study
    frames = [log.frame(seed, i, log.RESULT, log.MARK * 3 + inner) for i in range(3)]
    damaged = bytearray(frames[1])
    damaged[20] ^= 1
    blocks = list(log.read_blocks(b"junk" + frames[0] + bytes(damaged) + frames[2], digest))
    assert [block.cells.tolist() for block in blocks] == [[0], [2]]


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.nc"
    with monkeypatch.context() as patch:
        patch.setattr(log, "VERSION", 2)
        fill(path)
    with pytest.raises(SpecificationError, match="later version of hdsgd"):
        read_study(path)


def test_arrays_return(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3)[:, ::2], "b": np.array(True), "c": np.zeros((0, 3), dtype=np.float32)}
    back = log.decode_arrays(log.encode_arrays(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
        assert back[name].shape == array.shape


def test_states_of_cells(tmp_path):
    study = make_study()
    store = StudyStore(Store(tmp_path / "x.nc"), study)
    state = {"w": np.arange(5.0)}
    assert store.load_state(3) is None
    store.save_state(3, state)
    store.save_state(3, {"w": state["w"] + 1})
    assert np.array_equal(store.load_state(3)["w"], state["w"] + 1)
    path = store.folder / "cell-3.state"
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        assert store.load_state(3) is None
        path.write_bytes(content[:at])
        assert store.load_state(3) is None
    (store.folder / "cell-4.state").write_bytes(content)  # another cell's
    store._states.add(4)
    assert store.load_state(4) is None
    path.write_bytes(content)
    store.close()
    store = StudyStore(Store(tmp_path / "x.nc", resume=True), study)
    assert np.array_equal(store.load_state(3)["w"], state["w"] + 1)
    store.write(3, outcome(3))
    assert not path.exists(), "the result has taken its place"
    store.close()


ANOTHER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_log import fill
fill(sys.argv[2])
"""


def test_two_processes_at_once(tmp_path):
    store = StudyStore(Store(tmp_path / "x.nc"), make_study())
    here = str(Path(__file__).parent)
    second = subprocess.run(
        [sys.executable, "-c", ANOTHER, here, tmp_path / "x.nc"], capture_output=True, text=True, check=False
    )
    assert "another process is working on" in second.stderr.splitlines()[-1]
    with pytest.raises(SpecificationError, match="another process is working on"):
        StudyStore(Store(tmp_path / "x.nc", overwrite=True), make_study())
    store.close()
    assert read(fill(tmp_path / "x.nc")) == list(range(CELLS))


def test_without_locks_each_process_has_its_log(tmp_path, monkeypatch):
    """On a file system without locks two processes may run the same cells: they write the same."""
    from hdsgd.studies import locks

    monkeypatch.setattr(locks, "fcntl", None)
    one = StudyStore(Store(tmp_path / "x.nc"), make_study())
    two = StudyStore(Store(tmp_path / "x.nc", resume=True), make_study())
    for cell in range(CELLS):
        for store in (one, two):
            if cell % 3 != (store is one):
                store.write(cell, outcome(cell))
    one.close()
    two.close()
    assert read(partial_folder(tmp_path / "x.nc")) == list(range(CELLS))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x.nc.partial.zarr/zarr.json"], "earlier version"),
        (["x.nc.partial/specification.json", "x.nc.partial/abc.npz"], "earlier version"),
        (["x.nc.partial/notes.txt"], "does not hold partial results alone"),
    ],
)
def test_folders_that_are_not_ours(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for options in ({}, {"resume": True}):
        with pytest.raises(SpecificationError, match=message) as error:
            StudyStore(Store(tmp_path / "x.nc", **options), make_study())
        assert "\n" not in str(error.value)
    with pytest.raises(SpecificationError, match=message):
        read_study(tmp_path / "x.nc")
    if "specification.json" in names[0]:
        with pytest.raises(SpecificationError, match=message):
            load(tmp_path / "x.nc")
    if message == "earlier version":
        StudyStore(Store(tmp_path / "x.nc", overwrite=True), make_study()).close()
        assert os.listdir(tmp_path) == ["x.nc.partial"]
    else:
        with pytest.raises(SpecificationError, match=message):
            StudyStore(Store(tmp_path / "x.nc", overwrite=True), make_study())


def test_an_unfinished_zarr_of_an_earlier_version(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text('{"attributes": {"unfinished": "yes"}}')
    for call in (read_study, lambda path: StudyStore(Store(path, resume=True), make_study())):
        with pytest.raises(SpecificationError, match="earlier version"):
            call(tmp_path / "x.zarr")


def test_synchronised_at_most_once_a_second(tmp_path, monkeypatch):
    calls = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append(file), sync(file)))
    store = StudyStore(Store(tmp_path / "x.nc"), make_study())
    before = len(calls)
    for _ in range(500):
        for cell in range(CELLS):
            store.write(cell, outcome(cell))
    assert len(calls) - before <= 5
    during = len(calls)
    store.close()
    assert len(calls) == during + 1, "and at the end"


def test_size(tmp_path):
    path = one_log(fill(tmp_path / "x.nc", cells=range(CELLS)))
    start = log.read_header(path.read_bytes())[1]
    assert (path.stat().st_size - start) / CELLS - make_study().row.itemsize <= 200


def test_a_finished_file_of_another_version(tmp_path):
    data = phase_diagram(
        Problem("he2", "he2"), dims=20, plane=Plane(mu=[0.0], delta=[0.5]), algorithms=["projected"], replicas=1,
        stop=StopRule(max_cost=100), workers=Workers(threads=1),
    )  # fmt: skip
    old = json.loads(data.attrs["specification"])
    old["max_work"] = old.pop("max_cost")
    data.attrs["specification"] = json.dumps(old)
    save(data, tmp_path / "x.nc")
    with pytest.raises(SpecificationError, match=r"written by another version of hdsgd: .* has no 'max_cost'"):
        read_study(tmp_path / "x.nc")
    assert load(tmp_path / "x.nc").equals(data)


def test_a_seed_beyond_64_bits(tmp_path):
    data = phase_diagram(
        Problem("he2", "he2"), dims=20, plane=Plane(mu=[0.0], delta=[0.5]), algorithms=["projected"], replicas=1,
        seed=2**70, stop=StopRule(max_cost=100), store=tmp_path / "x.nc", workers=Workers(threads=1),
    )  # fmt: skip
    assert load(tmp_path / "x.nc").attrs["seed"] == data.attrs["seed"] == str(2**70)
