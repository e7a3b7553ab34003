"""Sweeps on disk: a Zarr store that grows cell by cell, survives any interruption, and is continued.

Each cell is one chunk of ``recovery_time`` and one of ``status``, the latter written last: a cell is done if both can
be read and hold no pending value.  Chunks end in their CRC-32C (a codec of Zarr), so that one torn by a power cut is
pending, without the milliseconds that forcing each to disk would take.  Chunks are written and read here, as a write
through Zarr costs 1.5 ms and this 0.1 ms; everything else is left to Zarr and xarray.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from hdsgd.errors import SpecificationError
from hdsgd.outcomes import OUTCOMES
from hdsgd.results.files import (
    DATA_SUFFIXES,
    UNFINISHED,
    atomic_path,
    check_output,
    load,
    quiet_zarr,
    remove_folder,
    save,
)
from hdsgd.results.schema import describe, specification_differences, version_differences
from hdsgd.sweeps.cells import DIMS, PRIMARY, CellResult, Index, complete

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("hdsgd")

__all__ = ["StoreError", "SweepStore", "check_store", "count_cells", "is_locked", "partial_path", "read_sweep"]

#: What is stored of each cell, in the order of writing, and its type.
_CHUNKED: dict[str, np.dtype[Any]] = {"recovery_time": np.dtype("<i8"), "status": np.dtype("i1")}
_PENDING = OUTCOMES["pending"]
UNFINISHED_MARK = {UNFINISHED: "this sweep is in progress or was interrupted; see hdsgd status"}


class StoreError(OSError):
    """Results could not be written; the message says what is kept and how to go on."""


def partial_path(path: str | os.PathLike[str]) -> Path:
    """The store in which the results for `path` grow: a ``.zarr`` itself, else a folder beside the file."""
    path = Path(path)
    return path if path.suffix == ".zarr" else path.with_name(path.name + ".partial.zarr")


def check_store(path: str | os.PathLike[str], *, resume: bool, overwrite: bool) -> list[Path]:
    """Check, before a sweep starts, that `path` can take its result; what is there already, the store first.

    Raises
    ------
    SpecificationError
        If something is there and neither `resume` nor `overwrite` is set, or as `hdsgd.results.files.check_output`.
    """
    if resume and overwrite:
        raise SpecificationError("--resume and --overwrite exclude each other: one continues, the other starts again")
    places = dict.fromkeys((partial_path(path), Path(path)))
    check_output(path, DATA_SUFFIXES, overwrite=True)
    there = [check_output(place, DATA_SUFFIXES, overwrite=True) for place in places if place.exists()]
    if there and not (resume or overwrite):
        raise SpecificationError(
            f"{' and '.join(repr(str(place)) for place in there)} {'exists' if len(there) == 1 else 'exist'}; "
            "--resume (resume=True) continues an interrupted sweep, --overwrite (overwrite=True) starts again"
        )
    return there


def read_sweep(path: str | os.PathLike[str]) -> tuple[Path, xr.Dataset]:
    """The sweep whose result is at `path` or on its way there, and where it was found.

    Raises
    ------
    SpecificationError
        If there is none.
    """
    path = Path(path)
    for place in (partial_path(path), path):
        if not place.exists():
            continue
        try:
            dataset = _read_store(place) if _is_store(place) else load(place)
        except SpecificationError:
            raise
        except (OSError, ValueError, LookupError) as error:
            if not place.exists():  # it has just been turned into the file asked for
                continue
            raise SpecificationError(f"{str(place)!r} cannot be read as the store of a sweep: {error}") from None
        if "samples" not in dataset:
            raise SpecificationError(
                f"{str(place)!r} holds no sweep but a Dataset of the kind {dataset.attrs['kind']!r}"
            )
        return place, dataset
    beside = "" if path.suffix == ".zarr" else f", nor {partial_path(path).name!r} beside it"
    raise SpecificationError(f"there is no {str(path)!r}{beside}")


def count_cells(dataset: xr.Dataset) -> tuple[int, int, int]:
    """How many cells of a phase diagram are done, how many failed, and how many there are."""
    status = dataset["status"].transpose(*DIMS, "replica").values
    pending, failed = ((status == OUTCOMES[name]).any(axis=-1) for name in ("pending", "failed"))
    return int((~pending & ~failed).sum()), int(failed.sum()), int(pending.size)


class SweepStore:
    """The store of one sweep, locked for this process until it is closed.

    Parameters
    ----------
    path : path
        Where the Dataset is to end up: ``.zarr`` or ``.nc``.
    dataset : xarray.Dataset
        The sweep asked for, before its first cell.
    resume : bool
        Continue what is there.
    overwrite : bool
        Replace what is there.

    Attributes
    ----------
    dataset : xarray.Dataset
        What there is so far: the one given if the store is new.
    begun : bool
        Whether there was something to continue.
    finished : bool
        Whether the result is at `path` and no cell is left to run.

    Raises
    ------
    SpecificationError
        If something is there and neither was asked for; if it belongs to another specification (one line for each
        difference); if another process works on it.
    """

    def __init__(
        self, path: str | os.PathLike[str], dataset: xr.Dataset, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        there = check_store(path, resume=resume, overwrite=overwrite)
        self.target, self.folder = Path(path), partial_path(path)
        self.dataset, self.begun, self.finished = dataset, bool(resume and there), False
        self._replace = bool(there)  # the target, when the result is complete
        self._lock: IO[bytes] | None = _lock(self.folder) if self.folder.exists() else None
        self._errors_due, self._errors_new = 0.0, False
        try:
            if self.begun:
                self._take_up(dataset)
            else:
                self._create()
        except BaseException:
            self.close()
            raise

    def _take_up(self, asked: xr.Dataset) -> None:
        place, old = read_sweep(self.target)
        if differences := specification_differences(old, asked):
            text = f"{str(place)!r} holds another sweep; ask for that one, give another name, or replace it with "
            raise SpecificationError("\n  ".join([f"{text}--overwrite (overwrite=True)", *differences]))
        if others := version_differences(old):
            logger.warning("%r was begun with %s: cells may differ in the last digits", str(place), others)
        self.dataset = old
        done, _, total = count_cells(old)
        self.finished = done == total and UNFINISHED not in old.attrs
        if self.finished:
            return
        if not _is_store(self.folder):
            self._create()  # from a finished file with cells that failed, or an exported one
        elif UNFINISHED not in old.attrs:
            old.attrs |= UNFINISHED_MARK
            self._write_head(old.attrs)

    def _create(self) -> None:
        """Make the store with the cells that there are, and lock it before it takes its name."""
        self.dataset.attrs |= UNFINISHED_MARK
        with atomic_path(self.folder, overwrite=self.folder.exists()) as temporary:
            _create(self.dataset, temporary)
            self.close()
            self._lock = _lock(temporary)

    def report(self) -> None:
        """Say where a sweep stands that was to be resumed."""
        done, failed, total = count_cells(self.dataset)
        if self.finished:
            logger.info("%r is complete: nothing is left to do", str(self.target))
        elif self.begun:
            again = f", {failed} that failed are tried again" if failed else ""
            logger.info("resuming %r: %d of %d cells are done%s", str(self.folder), done, total, again)
        else:
            logger.info("there is nothing to resume at %r; starting", str(self.target))

    def kept(self) -> str:
        """What is kept and how to go on, for messages."""
        done, _, total = count_cells(self.dataset)
        return (
            f"{done} of {total} cells are kept in {str(self.folder)!r}; "
            "the same command with --resume (resume=True) goes on"
        )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Within this context a failure to write says what is kept.

        Raises
        ------
        StoreError
        """
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StoreError(f"cannot write the result ({reason}); {self.kept()}") from error

    def write(self, index: Index, result: CellResult, errors: Mapping[str, str]) -> None:
        """Keep the result of a cell, and the messages of all that failed.

        Raises
        ------
        StoreError
            If it cannot be written, for example because the disk is full.
        """
        with self.explained():
            _write_cell(self.folder, index, result.recovery_time, result.status)
            if result.message is not None:
                self.dataset.attrs["errors"] = json.dumps(errors, sort_keys=True)
                self._errors_new = True
            # All messages are written together: not more than once a second, and in the end.
            if self._errors_new and time.monotonic() > self._errors_due:
                self._write_head(self.dataset.attrs)

    def _write_head(self, attributes: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
        """Write the attributes, and the metadata of arrays that readers are to see from now on."""
        head = json.loads((self.folder / "zarr.json").read_text())
        head["attributes"] = dict(attributes)
        head["consolidated_metadata"]["metadata"] |= arrays or {}
        _replace(self.folder, "zarr.json", json.dumps(head, indent=2).encode(), sync=True)
        self._errors_due, self._errors_new = time.monotonic() + 1, False

    def finish(self, dataset: xr.Dataset) -> None:
        """Put the complete Dataset, which becomes `dataset`, where it belongs.

        Raises
        ------
        StoreError
            If it cannot be written; the store stays.
        """
        final = dataset.drop_attrs(deep=False).assign_attrs(
            {name: value for name, value in dataset.attrs.items() if name != UNFINISHED}
        )
        with self.explained():
            if self.folder == self.target:
                derived = dataset.drop_vars(PRIMARY).reset_coords(drop=True)
                self._write_head(final.attrs, _add_arrays(self.folder, derived.drop_vars(list(derived.coords))))
            else:
                save(final, self.target, overwrite=self._replace)
                remove_folder(self.folder)
        self.dataset = final
        self.finished = True

    def close(self) -> None:
        """Release the lock; messages not yet written are written."""
        if self._lock is None:
            return
        if self._errors_new and not self.finished:
            with contextlib.suppress(OSError):  # a full disk has been reported already
                self._write_head(self.dataset.attrs)
        self._lock.close()
        self._lock = None


def _create(dataset: xr.Dataset, folder: Path) -> None:
    """Write a store with the cells of `dataset` that are not pending."""
    others = [name for name in dataset.data_vars if name not in PRIMARY or name in _CHUNKED]
    with quiet_zarr():
        dataset.drop_vars(others).to_zarr(folder, mode="w", consolidated=False, zarr_format=3)
        group = zarr.open_group(folder, mode="r+")
        for name, dtype in _CHUNKED.items():
            shape = dataset[name].shape
            group.create_array(
                name,
                shape=shape,
                chunks=(*(1 for _ in DIMS), shape[-1]),
                dtype=dtype,
                fill_value=_PENDING,
                compressors=[Crc32cCodec()],
                chunk_key_encoding={"name": "default", "separator": "."},
                dimension_names=(*DIMS, "replica"),
                attributes={
                    key: value.tolist() if isinstance(value, np.ndarray) else value
                    for key, value in describe(name).items()
                },
            )
        zarr.consolidate_metadata(folder)
    _sync(folder)  # cells may be lost in a power cut, this must not
    status, recovery_time = dataset["status"].values, dataset["recovery_time"].values
    for index in np.ndindex(status.shape[:-1]):
        if (status[index] != _PENDING).all():
            _write_cell(folder, index, recovery_time[index], status[index])


def _add_arrays(folder: Path, dataset: xr.Dataset) -> dict[str, Any]:
    """Put arrays into a store; their metadata, without which in its head readers do not see them.

    Zarr would write the head several times meanwhile, once without the arrays that are there already.
    """
    aside = folder / "status" / "new.zarr"  # as in `_replace`
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with quiet_zarr():
            dataset.to_zarr(aside, mode="w", consolidated=True, zarr_format=3)
        _sync(aside)
        arrays: dict[str, Any] = json.loads((aside / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
        for name in arrays:
            if (folder / name).exists():
                (folder / name).rename(aside / f"old {name}")
            (aside / name).rename(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return arrays


def _sync(folder: Path) -> None:
    """Force all files of a folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _write_cell(folder: Path, index: Index, recovery_time: np.ndarray, status: np.ndarray) -> None:
    for (name, dtype), values in zip(_CHUNKED.items(), (recovery_time, status), strict=True):
        data = np.asarray(values, dtype=dtype).tobytes()
        _replace(folder, f"{name}/{_chunk_name(index)}", data + _checksum(data))


def _chunk_name(index: Index) -> str:
    return ".".join(map(str, ("c", *index, 0)))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def _replace(folder: Path, name: str, data: bytes, *, sync: bool = False) -> None:
    """Write a small file of a store so that readers see the old one or the new one."""
    # One temporary name is enough for one writer.  It lies where readers of Zarr do not look for arrays.
    temporary = folder / "status" / "new.tmp"
    try:
        temporary.write_bytes(data)
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _read_store(folder: Path) -> xr.Dataset:
    """What a store holds so far, also while a process writes to it.

    Cells that are missing or damaged have the status pending and a recovery time of 0; messages of cells that have not
    failed, which were tried again, are left out.
    """
    with xr.open_zarr(folder, consolidated=True, chunks=None, drop_variables=list(_CHUNKED)) as opened:
        dataset = opened.load()
    shape = tuple(dataset.sizes[name] for name in (*DIMS, "replica"))
    values = {name: np.full(shape, _PENDING, dtype=dtype) for name, dtype in _CHUNKED.items()}
    for index in np.ndindex(shape[:-1]):
        chunks = {name: _read_chunk(folder / name / _chunk_name(index), dtype) for name, dtype in _CHUNKED.items()}
        if all(
            chunk is not None and chunk.shape == shape[-1:] and (chunk != _PENDING).all() for chunk in chunks.values()
        ):
            for name, chunk in chunks.items():
                values[name][index] = chunk
    dataset = dataset.assign({name: ((*DIMS, "replica"), array, describe(name)) for name, array in values.items()})
    failed = {",".join(map(str, index)) for index in np.argwhere((values["status"] == OUTCOMES["failed"]).any(axis=-1))}
    errors = {key: text for key, text in json.loads(dataset.attrs["errors"]).items() if key in failed}
    return complete(dataset.assign_attrs(errors=json.dumps(errors, sort_keys=True)))


def _read_chunk(path: Path, dtype: np.dtype) -> np.ndarray | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    data = content[:-4]
    if not data or content[-4:] != _checksum(data) or len(data) % dtype.itemsize:
        return None
    return np.frombuffer(data, dtype=dtype)


def _is_store(folder: Path) -> bool:
    """Whether `folder` was made by `_create` (and not, say, by `save`)."""
    try:
        metadata = json.loads((folder / "status" / "zarr.json").read_text())
        return metadata["codecs"][-1]["name"] == "crc32c" and metadata["chunk_grid"]["configuration"]["chunk_shape"][
            :-1
        ] == [1] * len(DIMS)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _lock(folder: Path) -> IO[bytes] | None:
    """Lock a store; the lock ends with the process, however that ends.

    The file locked is one that stays as it is for the life of the store.

    Raises
    ------
    SpecificationError
        If another process holds the lock.
    """
    if fcntl is None or not _is_store(folder):
        return None
    file = (folder / "status" / "zarr.json").open("r+b")  # NFS locks only what is open for writing
    for attempt in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.05 * (attempt < 9))  # `is_locked` of another process may hold it for a moment
        except OSError:
            return file  # a file system without locks
    file.close()
    raise SpecificationError(f"another process is working on {str(folder)!r}; wait until it has ended, or stop it")


def is_locked(folder: Path) -> bool:
    """Whether a process is working on the store."""
    if fcntl is None or not _is_store(folder):
        return False
    with (folder / "status" / "zarr.json").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
