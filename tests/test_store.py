"""Files: written whole or not at all, never over another without being told to."""

import os

import numpy as np
import pytest

from hdsgd import Problem, SpecificationError, load, save, simulate
from hdsgd.policies import Scaling
from hdsgd.results.files import atomic_path, check_output


@pytest.fixture(scope="module")
def data():
    return simulate(Problem("he2", "he2"), dim=20, scaling=Scaling(batch=4, lr=0.05), steps=2, replicas=2)


@pytest.mark.parametrize("name", ["run.nc", "run.zarr"])
def test_round_trip(data, tmp_path, name):
    path = save(data, tmp_path / name)
    again = load(path)
    for variable in data.variables:
        assert np.array_equal(again[variable].values, data[variable].values), variable
        assert again[variable].dtype == data[variable].dtype
    assert again.attrs["specification"] == data.attrs["specification"]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["run.nc", "run.zarr"])
def test_never_over_an_existing_file(data, tmp_path, name):
    path = save(data, tmp_path / name)
    with pytest.raises(SpecificationError, match="exists"):
        save(data, path)
    other = data.assign_attrs(seed=7)
    save(other, path, overwrite=True)
    assert load(path).attrs["seed"] == 7
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["run.nc", "run.zarr"])
def test_a_failed_write_leaves_nothing(data, tmp_path, name):
    broken = data.assign_attrs(bad={"a": {1, 2}})
    with pytest.raises((TypeError, ValueError)):
        save(broken, tmp_path / name)
    assert os.listdir(tmp_path) == []
    save(data, tmp_path / name)
    with pytest.raises((TypeError, ValueError)):
        save(broken, tmp_path / name, overwrite=True)
    assert load(tmp_path / name).attrs["seed"] == data.attrs["seed"]
    assert os.listdir(tmp_path) == [name]


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "run.nc"

    def write():
        with atomic_path(path, overwrite=False) as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(SpecificationError, match="meanwhile"):
        write()
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["run.nc"]


def test_refusals(data, tmp_path):
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "text.nc").write_text("hello")
    for path, message in (
        ("run.csv", "must end in .nc or .zarr"),
        ("missing/run.nc", "does not exist"),
        ("folder.nc", "is not a .nc file"),
        ("folder.zarr", "is not a Zarr store"),
    ):
        with pytest.raises(SpecificationError, match=message):
            check_output(tmp_path / path, (".nc", ".zarr"), overwrite=True)
    for path, message in (("none.nc", "no file"), ("text.nc", "cannot be read")):
        with pytest.raises(SpecificationError, match=message):
            load(tmp_path / path)
    foreign = data.drop_attrs(deep=False)
    foreign.to_netcdf(tmp_path / "foreign.nc", engine="h5netcdf")
    with pytest.raises(SpecificationError, match="no specification"):
        load(tmp_path / "foreign.nc")


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SpecificationError, match="not writable"):
        check_output(tmp_path / "run.nc", (".nc",))
