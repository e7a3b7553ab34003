"""Partial results of a training experiment, beside its output: a killed run resumes where it was, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.records import Record

__all__ = ["Checkpoints"]


class Checkpoints:
    """A folder of arrays, one file per run, written atomically.

    Parameters
    ----------
    folder : path or None
        None keeps nothing.
    specification : mapping
        What the runs depend on, as JSON values, the seed included.
    resume : bool
        Take up what the folder holds.
    overwrite : bool
        Throw away what the folder holds.

    Raises
    ------
    SpecificationError
        If the folder exists and neither was asked for, or it belongs to another specification (naming the
        differences).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        specification: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        mark = self.folder / "specification.json"
        if self.folder.exists():
            if not mark.exists() and any(self.folder.iterdir()):
                raise SpecificationError(f"{str(self.folder)!r} exists and holds no partial results; it is left alone")
            if resume and mark.exists():
                self._compare(json.loads(mark.read_text()), json.loads(json.dumps(specification)))
                return
            if not overwrite and not resume:
                raise SpecificationError(
                    f"{str(self.folder)!r} holds partial results; --resume continues them, --overwrite starts again"
                )
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir()
            mark.write_text(json.dumps(specification, sort_keys=True, indent=1))
        except OSError as error:
            raise SpecificationError(
                f"cannot write partial results to {str(self.folder)!r}: {error.strerror}"
            ) from None

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        if old == new:
            return
        changed = [
            f"{key}: {json.dumps(old.get(key))} there, {json.dumps(new.get(key))} now"
            for key in sorted(old | new)
            if old.get(key) != new.get(key)
        ]
        raise SpecificationError(f"{str(self.folder)!r} belongs to another specification ({'; '.join(changed)})")

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{Record.digest_of(key)[:32]}.npz"

    def read(self, key: str) -> dict[str, NDArray[Any]] | None:
        """What was last written under `key`, if anything (a file cut short by a crash counts as nothing)."""
        if self.folder is None or not self._path(key).exists():
            return None
        try:
            with np.load(self._path(key), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def write(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace what is stored under `key`."""
        if self.folder is None:
            return
        handle, name = tempfile.mkstemp(suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(name, self._path(key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Delete the folder: the result has been written."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
