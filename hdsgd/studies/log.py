"""The file format of partial results: an append-only log of checked records, one file for each writing process.

::

    header   magic (8) | format version (4) | length of the text (4) | sha256 of the identity (32) | text | CRC-32C (4)
    record   mark (4) | kind (4) | cell (8) | length (8) | CRC-32C of the 24 bytes before (4) | payload | CRC-32C (4)

Numbers are little-endian.  The text of the header is JSON: ``kind``, ``specification``, ``resolved`` and ``versions``
of the study; the sha256 is that of the first three (the identity).  The last CRC-32C of a record covers the sha256 of
the identity and everything after the mark.  Hence a record that was damaged, or that belongs to another study, is not
accepted; one that was copied elsewhere is still the result of its own cell.  After a damaged record reading goes on at
the next mark whose header is sound, so that exactly the record that was hit is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.records import Record

__all__ = [
    "ERROR",
    "RESULT",
    "STATE",
    "Block",
    "Header",
    "Writer",
    "decode_arrays",
    "encode_arrays",
    "frame",
    "identity_digest",
    "read_blocks",
    "read_header",
]

MAGIC, VERSION = b"HDSGDLOG", 1
_HEADER = struct.Struct("<8sII32s")
#: Kinds of records: the result of a cell, the message of a cell that failed, the state of one in progress.
RESULT, ERROR, STATE = 1, 2, 3
MARK = b"\xf5hd\xa7"
_RECORD = struct.Struct("<4sIQQ")
_CHECK = struct.Struct("<I")
#: Bytes of a record before its payload, and all but the payload.
HEAD = _RECORD.size + _CHECK.size
OVERHEAD = HEAD + _CHECK.size
#: Records of one size that are looked at together.
TOGETHER = 65536
#: Seconds between two times at which what was written is forced to disk.
SYNC_SECONDS = 1.0


class Header(NamedTuple):
    """What a log says of the study that its records belong to."""

    kind: str
    specification: dict[str, Any]
    resolved: dict[str, Any]
    versions: dict[str, str]

    @property
    def digest(self) -> bytes:
        """sha256 of the identity, which every record is checked with."""
        return identity_digest(self.kind, self.specification, self.resolved)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identity_digest(kind: str, specification: Mapping[str, Any], resolved: Mapping[str, Any]) -> bytes:
    """sha256 of all that the cells of a study depend on, 32 bytes."""
    return bytes.fromhex(
        Record.digest_of(_canonical({"kind": kind, "specification": specification, "resolved": resolved}))
    )


def encode_header(header: Header) -> bytes:
    text = _canonical(header._asdict()).encode()
    head = _HEADER.pack(MAGIC, VERSION, len(text), header.digest) + text
    return head + _CHECK.pack(google_crc32c.value(head))


def read_header(data: bytes) -> tuple[Header | None, int]:
    """The header of a log, and where its records begin; None and 0 if it is damaged.

    Raises
    ------
    SpecificationError
        If it was written by a later version of hdsgd.
    """
    if len(data) < _HEADER.size:
        return None, 0
    magic, version, length, digest = _HEADER.unpack_from(data)
    end = _HEADER.size + length
    if magic != MAGIC or len(data) < end + _CHECK.size:
        return None, 0
    if google_crc32c.value(data[:end]) != _CHECK.unpack_from(data, end)[0]:
        return None, 0
    if version != VERSION:
        raise SpecificationError(f"partial results of format {version} were written by a later version of hdsgd")
    header = Header(**json.loads(data[_HEADER.size : end]))
    return (header, end + _CHECK.size) if header.digest == digest else (None, 0)


def frame(digest_crc: int, cell: int, kind: int, payload: bytes) -> bytes:
    """One record; `digest_crc` is the CRC-32C of the digest of the identity."""
    head = _RECORD.pack(MARK, kind, cell, len(payload))
    body = head[len(MARK) :] + _CHECK.pack(google_crc32c.value(head)) + payload
    return MARK + body + _CHECK.pack(google_crc32c.extend(digest_crc, body))


class Block(NamedTuple):
    """Sound records of one kind and length."""

    kind: int
    cells: NDArray[np.int64]  # (n,)
    payloads: NDArray[np.uint8]  # (n, length)


def read_blocks(data: bytes, digest: bytes, start: int = 0) -> Iterator[Block]:
    """All sound records that belong to the study with this digest, in the order of the file.

    Parameters
    ----------
    data : bytes
        Content of a log; what is behind its last whole record is left out.
    digest : bytes
        From `Header.digest`.
    start : int
        Where the records begin; with a damaged header 0.
    """
    seed, position = google_crc32c.value(digest), start
    while 0 <= position <= len(data) - OVERHEAD:
        head = data[position : position + _RECORD.size]
        mark, kind, _, length = _RECORD.unpack(head)
        size = OVERHEAD + length
        sound = mark == MARK and _CHECK.unpack_from(data, position + _RECORD.size)[0] == google_crc32c.value(head)
        if not sound or position + size > len(data):
            position = data.find(MARK, position + 1)
            continue
        # Most likely many of the same kind and length follow: they are looked at together, up to the first that is
        # another or damaged.
        count = min((len(data) - position) // size, TOGETHER)
        frames = np.frombuffer(data, dtype=np.uint8, count=count * size, offset=position).reshape(count, size)
        alike = (frames[:, :8] == frames[0, :8]).all(axis=1) & (frames[:, 16:24] == frames[0, 16:24]).all(axis=1)
        count = count if alike.all() else int(np.argmin(alike))
        frames = frames[:count]
        first, width = position + len(MARK), size - len(MARK) - _CHECK.size
        extend, stop = google_crc32c.extend, first + count * size
        found = np.array([extend(seed, data[at : at + width]) for at in range(first, stop, size)], dtype=np.uint32)
        good = found == np.ascontiguousarray(frames[:, -4:]).view("<u4")[:, 0]
        count = count if good.all() else int(np.argmin(good))
        if count:
            cells = np.ascontiguousarray(frames[:count, 8:16]).view("<i8")[:, 0].astype(np.int64)
            yield Block(kind, cells, frames[:count, HEAD:-4])
        position += count * size
        if count < len(good):
            position = data.find(MARK, position + 1)


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays of numbers as bytes: the length of a JSON text, the text (name, dtype, shape of each), their bytes."""
    made = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # numpy makes contiguous what has no dims an array of one dim.
    head = json.dumps([(name, array.dtype.str, np.shape(arrays[name])) for name, array in made.items()]).encode()
    return b"".join([struct.pack("<I", len(head)), head, *(array.tobytes() for array in made.values())])


def decode_arrays(payload: bytes) -> dict[str, NDArray[Any]]:
    """Inverse of `encode_arrays`."""
    (length,) = struct.unpack_from("<I", payload)
    position, arrays = 4 + length, {}
    for name, dtype, shape in json.loads(payload[4:position]):
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(payload, dtype=dtype, count=count, offset=position).reshape(shape).copy()
        position += count * np.dtype(dtype).itemsize
    return arrays


class Writer:
    """Appends records to a log of its own.

    What was written is safe from the end of this process at once, and from the end of the machine within a second.

    Parameters
    ----------
    folder : Path
    header : Header

    Raises
    ------
    OSError
        If the disk is full, here or later; a record is then not in the log.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self._seed = google_crc32c.value(header.digest)
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None
        self._failed: OSError | None = None
        name = f"{time.time_ns():020d}-{hashlib.sha256(os.urandom(16)).hexdigest()[:8]}"
        path = folder / f"{name}.log"
        # It takes its name when its header is whole, so that readers find one in every log.
        temporary = folder / f"{name}.tmp"
        self._file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            self._append(encode_header(header))
            os.fsync(self._file)
            os.rename(temporary, path)
        except OSError:
            os.close(self._file)
            temporary.unlink(missing_ok=True)
            raise

    def _append(self, data: bytes) -> None:
        begin = os.lseek(self._file, 0, os.SEEK_CUR)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            # Readers would pass over half a record, but the next one is to follow the last whole one.
            os.ftruncate(self._file, begin)
            os.lseek(self._file, begin, os.SEEK_SET)
            raise

    def write(self, cell: int, kind: int, payload: bytes) -> None:
        """Append a record."""
        with self._guard:
            if self._failed is not None:
                raise self._failed
            self._append(frame(self._seed, cell, kind, payload))
            if self._timer is None:
                self._timer = threading.Timer(SYNC_SECONDS, self._sync)
                self._timer.daemon = True
                self._timer.start()

    def write_many(self, cells: NDArray[np.int64], kind: int, payloads: NDArray[np.uint8]) -> None:
        """Append a record for each cell; payloads are (n, length)."""
        rows = (
            frame(self._seed, cell, kind, row.tobytes()) for cell, row in zip(cells.tolist(), payloads, strict=True)
        )
        with self._guard:
            self._append(b"".join(rows))
            os.fsync(self._file)

    def sync(self) -> None:
        """Force what was written to disk now."""
        with self._guard:
            os.fsync(self._file)

    def _sync(self) -> None:
        with self._guard:
            self._timer = None
            try:
                os.fsync(self._file)
            except OSError as error:  # told when the next record is written
                self._failed = error

    def close(self) -> None:
        """Force what was written to disk."""
        timer = self._timer
        if timer is not None:
            timer.cancel()
            timer.join()
        with self._guard:
            self._timer = None
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
