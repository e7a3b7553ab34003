"""Partial results of a study: a folder ``FILE.partial`` of logs beside the file that is wanted, until that is written.

In the folder are a log for each process that wrote (`hdsgd.studies.log`), the states of cells in progress (a file each,
replaced as a whole) and a file to lock.  Coordinates and plan are not kept: they follow from the specification.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.policies import Store
from hdsgd.results.extensions import check_extensions
from hdsgd.results.files import DATA_SUFFIXES, as_path, check_output, load, partial_folder, read, remove_folder, save
from hdsgd.results.schema import specification_differences, version_differences
from hdsgd.studies import log
from hdsgd.studies.kinds import study_of
from hdsgd.studies.locks import busy, is_locked, lock
from hdsgd.studies.study import Counts, Results, StoreError, Study

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger("hdsgd")

__all__ = ["Found", "StoreError", "StudyStore", "check_store", "is_locked", "partial_folder", "read_study"]

_OURS = re.compile(r"lock|.*\.log|.*\.tmp|cell-\d+\.state")
_EARLIER = (
    "was written by an earlier version of hdsgd, which this one does not read: run again with --overwrite, or delete it"
)


def _of_earlier_versions(path: Path) -> list[Path]:
    """Partial results for `path` in the formats of earlier versions."""
    found = [place for place in [path.with_name(path.name + ".partial.zarr")] if (place / "zarr.json").exists()]
    if (partial_folder(path) / "specification.json").exists():
        found.append(partial_folder(path))
    if path.suffix == ".zarr":
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if "unfinished" in json.loads((path / "zarr.json").read_text()).get("attributes", {}):
                found.append(path)
    return found


def _check_folder(folder: Path) -> None:
    """Raise `SpecificationError` if a folder may hold something else than partial results."""
    if not folder.is_dir() or not all(_OURS.fullmatch(name) for name in os.listdir(folder)):
        raise SpecificationError(f"{str(folder)!r} exists and does not hold partial results alone; it is left as it is")


def check_store(store: Store) -> list[Path]:
    """Check, before a study starts, that its result can be written; what is there already, partial results first.

    Raises
    ------
    SpecificationError
        If something is there and neither ``resume`` nor ``overwrite`` is set, if it was written by an earlier version
        and is to be resumed, or as `hdsgd.results.files.check_output`.
    """
    path = check_output(store.path, DATA_SUFFIXES, overwrite=True)
    folder = partial_folder(path)
    old = _of_earlier_versions(path)
    if old and not store.overwrite:
        raise SpecificationError(f"{str(old[0])!r} {_EARLIER}")
    if folder.exists() and folder not in old:
        _check_folder(folder)
    there = list(dict.fromkeys([*(place for place in (folder, path) if place.exists()), *old]))
    if there and not (store.resume or store.overwrite):
        raise SpecificationError(
            f"{' and '.join(repr(str(place)) for place in there)} {'exists' if len(there) == 1 else 'exist'}; "
            "--resume (resume=True) continues an interrupted study, --overwrite (overwrite=True) starts again"
        )
    return there


def _logs(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """The logs of a folder in the order in which they were begun."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(".log"):
            yield folder / name, (folder / name).read_bytes()


def _headers(folder: Path) -> list[log.Header]:
    """The headers of the logs, damaged ones left out, each once."""
    headers = {header.digest: header for _, data in _logs(folder) if (header := log.read_header(data)[0]) is not None}
    return list(headers.values())


def read_results(folder: Path, study: Study, digest: bytes) -> Results:
    """The results in all logs of a folder that belong to the study with this digest."""
    results = study.blank()
    total = len(results.state)
    failures: dict[int, str] = {}
    for _, data in _logs(folder):
        for block in log.read_blocks(data, digest, log.read_header(data)[1]):
            inside = (block.cells >= 0) & (block.cells < total)
            cells = block.cells[inside]
            if block.kind == log.RESULT and block.payloads.shape[1] == study.row.itemsize:
                results.put(cells, np.ascontiguousarray(block.payloads[inside]).view(study.row)[:, 0])
            elif block.kind == log.ERROR:
                texts = (row.tobytes().decode(errors="replace") for row in block.payloads[inside])
                failures.update(zip(cells.tolist(), texts, strict=True))
    for cell, message in failures.items():
        results.fail(cell, message)
    return results


class Found(NamedTuple):
    """A study on disk.

    Attributes
    ----------
    place : Path
        The folder of partial results, or the file.
    study : Study
    results : Results
    finished : bool
        Whether its result has been written.
    """

    place: Path
    study: Study
    results: Results
    finished: bool


def read_study(path: str | os.PathLike[str]) -> Found:
    """The study whose result is at `path` or on its way there, also while a process works on it; changes nothing.

    Raises
    ------
    SpecificationError
        If there is none, or it cannot be read.
    """
    path = as_path(path)
    if path.suffix == ".partial" and path.suffixes[-2:-1] and path.suffixes[-2] in DATA_SUFFIXES:
        path = path.with_suffix("")
    folder = partial_folder(path)
    if old := _of_earlier_versions(path):
        raise SpecificationError(f"{str(old[0])!r} {_EARLIER}")
    if folder.exists():
        try:
            _check_folder(folder)
            headers = _headers(folder)
            if headers:
                study = study_of(headers[0].kind, headers[0].specification, headers[0].resolved)
                return Found(folder, study, read_results(folder, study, headers[0].digest), False)
            if folder.exists():
                raise SpecificationError(f"{str(folder)!r} holds no log that can be read; --resume starts again there")
        except FileNotFoundError:  # it has just been turned into the file asked for
            pass
    if not path.exists():
        raise SpecificationError(f"there is no {str(path)!r}, nor {folder.name!r} beside it")
    dataset = read(path)
    check_extensions(dataset.attrs)
    study = study_of(str(dataset.attrs.get("kind")), json.loads(dataset.attrs["specification"]))
    try:
        results = study.adopt(dataset)
    except SpecificationError:
        raise
    except (LookupError, ValueError) as error:
        raise SpecificationError(f"{str(path)!r} cannot be read as a {study.kind}: {error!r}") from None
    for key, message in json.loads(dataset.attrs.get("errors", "{}")).items():
        results.fail(int(np.ravel_multi_index(tuple(map(int, key.split(","))), study.shape)), message)
    return Found(path, study, results, True)


class StudyStore:
    """The partial results of one study, locked for this process until it is closed.

    Parameters
    ----------
    store : Store
    study : Study
        The study asked for.

    Attributes
    ----------
    study : Study
        The one to go on with: that which was begun, where there is one; its computed numbers may differ in the last
        digits from those computed here.
    results : Results
        What there is so far.
    begun : bool
        Whether there was something to continue.
    dataset : xarray.Dataset or None
        The result, if it is there and no cell is left to run.

    Raises
    ------
    SpecificationError
        If something is there and neither was asked for; if it belongs to another specification (one line for each
        difference); if another process works on it.
    StoreError
        If nothing can be written.
    """

    def __init__(self, store: Store, study: Study) -> None:
        there = check_store(store)
        self.target = Path(store.path)
        self.folder = partial_folder(self.target)
        self.study, self.results = study, study.blank()
        self.dataset: xr.Dataset | None = None
        self.begun = bool(store.resume and there)
        self._replace = self.target.exists()  # when the result is complete
        self._lock: int | None = None
        self._writer: log.Writer | None = None
        self._states: set[int] = set()
        try:
            if self.begun and self.folder.exists():
                self._lock = lock(self.folder)
                self._continue_folder()
            elif self.begun:
                self._continue_file()
            else:
                for place in there:
                    if place != self.target:
                        self._remove(place)
            if self.dataset is None:
                self._open()
        except BaseException:
            self.close()
            raise

    def _remove(self, folder: Path) -> None:
        """Remove partial results that are to be replaced, unless another process works on them."""
        held = lock(folder) if folder == self.folder and not (folder / "specification.json").exists() else None
        remove_folder(folder)
        if held is not None:
            os.close(held)

    def _check_same(self, place: Path, kind: str, specification: Mapping[str, Any]) -> None:
        differences = specification_differences(specification, self.study.specification)
        if kind != self.study.kind:
            differences = [f"kind: {kind} there, {self.study.kind} now"]
        if differences:
            text = f"{str(place)!r} holds another study; ask for that one, give another name, or replace it with "
            raise SpecificationError("\n  ".join([f"{text}--overwrite (overwrite=True)", *differences]))

    def _continue_folder(self) -> None:
        headers = _headers(self.folder)
        error: SpecificationError | None = None
        for header in headers:
            try:
                self._check_same(self.folder, header.kind, header.specification)
            except SpecificationError as other:
                error = error or other
                continue
            self.study = type(self.study)(header.specification, header.resolved)
            if others := version_differences(header.versions):
                logger.warning("%r was begun with %s: cells may differ in the last digits", str(self.folder), others)
            break
        else:
            if error is not None:
                raise error
        # With all headers damaged, the records of the study asked for are still known by their checksums.
        self.results = read_results(self.folder, self.study, self._digest())
        for name in os.listdir(self.folder):
            if name.endswith(".tmp"):
                (self.folder / name).unlink(missing_ok=True)
            elif name.endswith(".state"):
                self._states.add(int(name.removeprefix("cell-").removesuffix(".state")))

    def _continue_file(self) -> None:
        dataset = load(self.target)
        self._check_same(self.target, dataset.attrs["kind"], json.loads(dataset.attrs["specification"]))
        if others := version_differences(json.loads(dataset.attrs["versions"])):
            logger.warning("%r was made with %s: cells may differ in the last digits", str(self.target), others)
        self.results = self.study.adopt(dataset)
        if not self.results.undone().any():
            self.dataset = dataset

    def _digest(self) -> bytes:
        return log.identity_digest(self.study.kind, self.study.specification, self.study.resolved)

    def _open(self) -> None:
        """Make the folder, if it is not there, and a log in it with what is not in the other logs."""
        study = self.study
        header = log.Header(study.kind, study.specification, study.resolved, study.versions())
        with self.explained():
            new = not self.folder.exists()
            if new:
                try:
                    self.folder.mkdir()
                except FileExistsError:
                    raise SpecificationError(busy(self.folder)) from None
                self._lock = lock(self.folder)
            try:
                self._writer = log.Writer(self.folder, header)
                done = np.flatnonzero(~self.results.undone() & (study.costs().ravel() > 0)) if new else np.zeros(0, int)
                if len(done):
                    rows = self.results.table[done].view(np.uint8).reshape(len(done), study.row.itemsize)
                    self._writer.write_many(done, log.RESULT, rows)
            except OSError:
                if new:  # nothing is in it
                    self.close()
                    remove_folder(self.folder)
                raise

    def report(self) -> None:
        """Say where a study stands that was to be resumed."""
        done, failed, total = self.results.counts()
        if self.dataset is not None:
            logger.info("%r is complete: nothing is left to do", str(self.target))
        elif self.begun:
            again = f", {failed} that failed are tried again" if failed else ""
            logger.info("resuming %r: %d of %d cells are done%s", str(self.folder), done, total, again)
        else:
            logger.info("there is nothing to resume at %r; starting", str(self.target))

    def account(self) -> str:
        """What is kept and how to go on, for messages."""
        done, _, total = self.results.counts()
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
            if self.folder.exists() or not self.target.exists():
                raise StoreError(f"cannot write the result ({reason}); {self.account()}") from error
            raise StoreError(f"cannot write the result ({reason}); {str(self.target)!r} is left as it is") from error

    def write(self, cell: int, values: Mapping[str, Any] | str) -> None:
        """Keep, and enter, the outputs of a cell, or its message if it failed.

        Raises
        ------
        StoreError
            If it cannot be written, for example because the disk is full.
        """
        assert self._writer is not None
        with self.explained():
            if isinstance(values, str):
                self._writer.write(cell, log.ERROR, values.encode())
                self.results.fail(cell, values)
                return
            row = self.study.pack(values)
            self._writer.write(cell, log.RESULT, row.tobytes())
            self.results.put(np.array([cell]), row)
            if cell in self._states:
                self._writer.sync()  # the result first
                self._state_path(cell).unlink(missing_ok=True)
                self._states.discard(cell)

    def _state_path(self, cell: int) -> Path:
        return self.folder / f"cell-{cell}.state"

    def load_state(self, cell: int) -> dict[str, NDArray[Any]] | None:
        """The state of a cell in progress that was kept last; None if there is none, or it is damaged."""
        if cell not in self._states:
            return None
        try:
            data = self._state_path(cell).read_bytes()
        except OSError:
            return None
        for block in log.read_blocks(data, self._digest()):
            if block.kind == log.STATE and block.cells[0] == cell:
                return log.decode_arrays(block.payloads[0].tobytes())
        return None

    def save_state(self, cell: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state of a cell in progress.

        Raises
        ------
        StoreError
        """
        temporary = self.folder / f"cell-{cell}.tmp"
        with self.explained():
            try:
                with temporary.open("wb") as file:
                    seed = google_crc32c.value(self._digest())
                    file.write(log.frame(seed, cell, log.STATE, log.encode_arrays(arrays)))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self._state_path(cell))
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self._states.add(cell)

    def finish(self, dataset: xr.Dataset) -> None:
        """Write the complete Dataset, then remove what was partial.

        Raises
        ------
        StoreError
            If it cannot be written; the partial results stay.
        """
        with self.explained():
            save(dataset, self.target, overwrite=self._replace)
            self._close_log()
            remove_folder(self.folder)
        self.dataset = dataset

    def _close_log(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def close(self) -> None:
        """Force what was written to disk and release the lock."""
        try:
            with contextlib.suppress(OSError):  # a full disk has been reported already
                self._close_log()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def counts(self) -> Counts:
        """How many cells are done, how many failed, and how many there are."""
        return self.results.counts()
