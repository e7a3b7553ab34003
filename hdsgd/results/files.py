"""Datasets in files: NetCDF (``.nc``) and Zarr (``.zarr``), written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hdsgd.checks import instance
from hdsgd.errors import SpecificationError
from hdsgd.results.extensions import warn_missing

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DATA_SUFFIXES", "PLOT_SUFFIXES", "as_path", "atomic_path", "check_output", "load", "save"]

DATA_SUFFIXES = (".nc", ".zarr")
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file or folder, which need not be there.

    Raises
    ------
    SpecificationError
        If it is no path, names nothing, or cannot be looked at.
    """
    try:
        found = Path(path)
    except TypeError:
        raise SpecificationError(f"a path is text or a pathlib.Path, not {path!r}") from None
    try:
        found.exists()
    except OSError as error:
        raise SpecificationError(f"{str(found)!r} cannot be opened: {error.strerror}") from None
    if not found.name:
        raise SpecificationError(f"{os.fspath(path)!r} is not the name of a file")
    return found


def partial_folder(path: Path) -> Path:
    """The folder in which the partial results for `path` are kept."""
    return path.with_name(path.name + ".partial")


def check_output(path: str | os.PathLike[str], suffixes: tuple[str, ...], *, overwrite: bool = False) -> Path:
    """Check, before a computation starts, that its result can be written to `path`.

    Raises
    ------
    SpecificationError
        If the suffix is not one of `suffixes`, the folder does not exist or is not writable, or the file exists and
        `overwrite` is not set.
    """
    if not isinstance(path, str | os.PathLike) or Path(path).suffix not in suffixes:
        given = os.fspath(path) if isinstance(path, os.PathLike) else path
        raise SpecificationError(f"output {given!r} must end in {' or '.join(suffixes)}, after a name")
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        raise SpecificationError(f"output folder {str(folder)!r} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecificationError(f"output folder {str(folder)!r} is not writable")
    if path.exists():
        if not overwrite:
            raise SpecificationError(f"output {str(path)!r} exists; give another name or --overwrite (overwrite=True)")
        if path.is_dir() != (path.suffix == ".zarr"):
            raise SpecificationError(f"output {str(path)!r} exists and is not a {path.suffix} file; it is left alone")
        if path.is_dir() and not ((path / "zarr.json").exists() or (path / ".zgroup").exists()):
            raise SpecificationError(f"output {str(path)!r} exists and is not a Zarr store; it is left alone")
    return path


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside `path` to write to; on success it takes the name, on failure it disappears.

    Raises
    ------
    SpecificationError
        If `path` has come into being meanwhile and `overwrite` is not set.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        if overwrite and path.is_dir():
            path.rename(folder / "replaced")
        meanwhile = f"output {str(path)!r} has come into being meanwhile; nothing was written"
        if overwrite or temporary.is_dir():
            if path.exists() and not overwrite:
                raise SpecificationError(meanwhile)
            os.replace(temporary, path)
        else:
            try:
                os.link(temporary, path)  # unlike replace, fails if the name is taken
            except FileExistsError:
                raise SpecificationError(
                    f"output {str(path)!r} has come into being meanwhile; nothing was written"
                ) from None
            except OSError:  # file systems without hard links
                os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def quiet_zarr() -> Iterator[None]:
    """Within this context Zarr does not warn that text and consolidated metadata may be extended in future formats."""
    with warnings.catch_warnings():
        for message in (".* does not have a Zarr V3 specification", "Consolidated metadata is currently not part"):
            warnings.filterwarnings("ignore", message=message)
        yield


def remove_folder(path: Path) -> None:
    """Remove a folder at once as others see it: it loses its name before its content."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent))
    try:
        path.rename(folder / path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(dataset: xr.Dataset, path: Path) -> None:
    if path.suffix == ".zarr":
        with quiet_zarr():
            dataset.to_zarr(path, mode="w", consolidated=True, zarr_format=3)
    else:
        try:
            dataset.to_netcdf(path, engine="h5netcdf")
        except RuntimeError as error:  # how HDF5 reports a full disk
            raise OSError(str(error)) from None
        with path.open("rb") as file:
            os.fsync(file.fileno())


def save(dataset: xr.Dataset, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a Dataset as NetCDF or Zarr, by the suffix of `path`; never over an existing file unless told to.

    Raises
    ------
    SpecificationError
        As `check_output`.

    Examples
    --------
    >>> import tempfile
    >>> import hdsgd
    >>> run = hdsgd.simulate(hdsgd.Problem("he2", "he2"), dim=100, steps=10, replicas=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = hdsgd.save(run, f"{folder}/run.nc")
    ...     again = hdsgd.load(path)
    >>> again.equals(run)
    True
    """
    import xarray as xr

    instance("what is saved", dataset, xr.Dataset)
    path = check_output(path, DATA_SUFFIXES, overwrite=overwrite)
    with atomic_path(path, overwrite=overwrite) as temporary:
        _write(dataset, temporary)
    return path


def save_figure(write: Callable[[Path], object], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a picture through ``write(path)`` with the same care as `save`."""
    path = check_output(path, PLOT_SUFFIXES, overwrite=overwrite)
    with atomic_path(path, overwrite=overwrite) as temporary:
        write(temporary)
    return path


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a Dataset written by `save` into memory.

    Raises
    ------
    SpecificationError
        If there is no such file, it is not a Dataset of hdsgd, or what is there is an unfinished study.

    Examples
    --------
    >>> import hdsgd
    >>> hdsgd.load("nothing.nc")
    Traceback (most recent call last):
    hdsgd.errors.SpecificationError: there is no file 'nothing.nc'
    """
    path = as_path(path)
    dataset = read(path)
    warn_missing(dataset.attrs, str(path))
    return dataset


def read(path: Path) -> xr.Dataset:
    """As `load`, without a word about what the result used that is not registered here."""
    import xarray as xr  # half a second, which a look at partial results does without

    partial = path if path.suffix == ".partial" else partial_folder(path)
    if partial.is_dir() and (partial == path or not path.exists()):
        if (partial / "specification.json").exists():
            raise SpecificationError(
                f"{str(partial)!r} is an unfinished study of an earlier version of hdsgd: run again, or delete it"
            )
        raise SpecificationError(
            f"{str(partial)!r} holds an unfinished study; "
            f"`hdsgd export {partial.with_suffix('')} FILE` writes what is done"
        )
    if not path.exists():
        raise SpecificationError(f"there is no file {str(path)!r}")
    if path.is_dir() and path.suffix != ".zarr":
        raise SpecificationError(f"{str(path)!r} is a folder, not a file .nc nor a folder .zarr")
    try:
        if path.suffix == ".zarr":
            opened = xr.open_zarr(path, consolidated=False, chunks=None)
        else:
            opened = xr.open_dataset(path, engine="h5netcdf")
        with opened as dataset:
            if "unfinished" in dataset.attrs:
                raise SpecificationError(
                    f"{str(path)!r} is an unfinished study of an earlier version of hdsgd: run again, or delete it"
                )
            dataset.load()
    except SpecificationError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise SpecificationError(f"{str(path)!r} cannot be read as a Dataset: {' '.join(str(error).split())}") from None
    if "specification" not in dataset.attrs:
        raise SpecificationError(f"{str(path)!r} is not a Dataset of hdsgd: it has no specification")
    return dataset
