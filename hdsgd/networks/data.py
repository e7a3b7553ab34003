"""Data sets in memory: synthetic, scikit-learn's digits, OpenML by name, files from disk.  Imports no JAX."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import logging
import math
import os
import urllib.error
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.networks._extra import require
from hdsgd.networks.activations import ACTIVATIONS
from hdsgd.networks.specs import Data, FullyConnected
from hdsgd.seeds import child

__all__ = ["OPENML", "Loaded", "cache_folder", "load_data"]

logger = logging.getLogger("hdsgd")

#: Known OpenML sets: (name, version, shape of one image or None).  EMNIST: the balanced split (47 classes).
OPENML: dict[str, tuple[str, int, tuple[int, ...] | None]] = {
    "mnist": ("mnist_784", 1, (1, 28, 28)),
    "emnist": ("EMNIST_Balanced", 1, (1, 28, 28)),
    "cifar10": ("CIFAR_10", 1, (3, 32, 32)),
    "svhn": ("SVHN", 1, (3, 32, 32)),
    "gisette": ("gisette", 2, None),
}


class Loaded(NamedTuple):
    """Examples in memory.

    Attributes
    ----------
    x : ndarray, shape (n, ...)
        Inputs: float64 (n, d) or (n, channels, height, width), or whole numbers (n, context) of text.
    y : ndarray
        float64 (n, d_out) of real labels; int64 (n,) of classes; int64 (n, context) of next characters.
    d_out : int
        Outputs a network needs: number of labels, classes or characters.
    classes : bool
        Whether `y` holds class numbers.
    checksum : str
        sha256 of the examples as used, after selection and normalisation.
    source_checksum : str
        sha256 of the file (or of the arrays fetched); what ``Data.checksum`` is compared with.
    """

    x: NDArray[np.generic]
    y: NDArray[np.generic]
    d_out: int
    classes: bool
    checksum: str
    source_checksum: str

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    def targets(self) -> NDArray[np.float64]:
        """Labels of the square loss, shape (n, d_out): real labels, or one-hot rows."""
        if not self.classes:
            return np.asarray(self.y, dtype=np.float64)
        if self.y.ndim != 1:
            raise SpecificationError("text has no square loss; use the cross-entropy")
        return np.eye(self.d_out)[self.y.astype(np.int64)]


def load_data(spec: Data, seed: np.random.SeedSequence) -> Loaded:
    """Load or draw a data set.

    Parameters
    ----------
    spec : Data
    seed : SeedSequence
        Of the synthetic examples, their teacher and noise, and of the random subset.

    Raises
    ------
    SpecificationError
        If a file or package is missing, a set cannot be fetched (offline), the checksum differs, or there are fewer
        than ``n`` examples.
    """
    rng = np.random.default_rng(seed)
    if spec.source == "gaussian":
        x, y, classes = _gaussian(spec, seed)
        source = _checksum(x, y)
    else:
        x, y, classes, source = {"digits": _digits, "openml": _openml, "file": _file, "text": _text}[spec.source](spec)
    if spec.checksum and spec.checksum.lower() != source:
        raise SpecificationError(f"checksum of {spec.name or spec.source} is {source}, not {spec.checksum}")
    if spec.source != "gaussian":
        if spec.n is not None and spec.n > len(x):
            raise SpecificationError(f"{spec.name or spec.source} has {len(x)} examples; n = {spec.n} is too many")
        if spec.n is not None:
            chosen = np.sort(rng.choice(len(x), spec.n, replace=False))
            x, y = x[chosen], y[chosen]
        if spec.source != "text":
            x = _normalise(x.astype(np.float64), spec.normalise)
            y, classes = _labels(y, classes, spec)
    d_out = int(max(x.max(), y.max())) + 1 if spec.source == "text" else int(y.max()) + 1 if classes else y.shape[1]
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    return Loaded(x, y, d_out, classes, _checksum(x, y), source)


def _checksum(*arrays: NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(f"{a.dtype.str}{a.shape}".encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()


def _labels(y: NDArray[np.generic], classes: bool, spec: Data) -> tuple[NDArray[np.generic], bool]:
    wanted = spec.labels if spec.labels != "auto" else ("classes" if classes else "values")
    if wanted == "values":
        values = y.astype(np.float64)
        return values.reshape(len(y), -1), False
    if not classes:
        rounded = y.astype(np.float64)
        if y.ndim != 1 or not np.array_equal(rounded, np.round(rounded)):
            raise SpecificationError(f"labels of {spec.name} are real values; they cannot be taken as {wanted}")
        y = np.unique(rounded, return_inverse=True)[1]
    if wanted == "parity":
        return np.where(y.astype(np.int64) % 2 == 1, 1.0, -1.0)[:, None], False
    return y.astype(np.int64), True


def _normalise(x: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    if how in ("standardise", "centre"):
        x = x - (x.mean() if how == "standardise" else x.mean(axis=0))
        spread = float(x.std())
        return np.asarray(x / (spread if spread > 0 else 1.0))
    if how == "unit":
        norms = np.sqrt((x.reshape(len(x), -1) ** 2).mean(axis=1))
        norms = np.where(norms > 0, norms, 1.0)
        return np.asarray(x / norms.reshape(-1, *[1] * (x.ndim - 1)))
    return x


def teacher_forward(
    spec: FullyConnected, x: NDArray[np.float64], d_out: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Outputs (n, d_out) of a fully connected network with weights drawn from `rng`, on inputs (n, d)."""
    activation = ACTIVATIONS[spec.activation]
    sizes = [x.shape[1], *[spec.width] * spec.depth, d_out]
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        gain = spec.resolved_gain if i else 1.0
        scale = 1.0 if spec.parametrisation == "unit" else math.sqrt(gain / a)
        x = (activation.value(x, np) if i else x) @ (scale * rng.standard_normal((b, a))).T
    return x


def _gaussian(spec: Data, seed: np.random.SeedSequence) -> tuple[NDArray[np.generic], NDArray[np.generic], bool]:
    assert spec.n is not None
    assert spec.dim is not None
    x = np.random.default_rng(child(seed, 0)).standard_normal((spec.n, spec.dim))
    teacher = spec.teacher or FullyConnected(depth=0, activation="linear")
    y = teacher_forward(teacher, x, spec.outputs, np.random.default_rng(child(seed, 1)))
    if spec.noise:
        y = y + math.sqrt(spec.noise) * np.random.default_rng(child(seed, 2)).standard_normal(y.shape)
    return x, y, False


_Raw = tuple[NDArray[np.generic], NDArray[np.generic], bool, str]


def _digits(spec: Data) -> _Raw:
    require("sklearn")
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = np.asarray(x, dtype=np.float64).reshape(-1, 1, 8, 8)
    return images, y, True, _checksum(images, y)


def cache_folder() -> Path:
    """Where fetched sets are kept: ``$HDSGD_CACHE``, or ``hdsgd`` in the user's cache folder."""
    if "HDSGD_CACHE" in os.environ:
        return Path(os.environ["HDSGD_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hdsgd"


def _openml(spec: Data) -> _Raw:
    name, at, number = spec.name.partition("@")
    known = OPENML.get(name.lower())
    try:
        title, version, shape = known if known and not at else (name, int(number or 1), None)
    except ValueError:
        raise SpecificationError(f"OpenML name must be NAME or NAME@VERSION, not {spec.name!r}") from None
    path = cache_folder() / "openml" / f"{title}-{version}.npz"
    if path.exists():
        x, y = _read_cached(path)
    else:
        x, y = _fetch(title, version, path)
    if shape is not None and x.shape[1] == math.prod(shape):
        x = x.reshape(-1, *shape)
    # Class labels arrive as text.
    codes = np.unique(y, return_inverse=True)[1] if y.dtype.kind in "USO" else y
    return x, codes, y.dtype.kind in "USOiu", _checksum(x, codes)


def _read_cached(path: Path) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    with np.load(path, allow_pickle=False) as stored:
        x, y, written = stored["x"], stored["y"], str(stored["checksum"])
    if _checksum(x, y) != written:
        raise SpecificationError(f"cached file {str(path)!r} is damaged (checksum differs); delete it to fetch again")
    return x, y


def _fetch(title: str, version: int, path: Path) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    require("sklearn")
    from sklearn.datasets import fetch_openml

    logger.info("fetching %s (version %d) from OpenML", title, version)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every retry; what matters is the error below
            x, y = fetch_openml(
                title,
                version=version,
                return_X_y=True,
                as_frame=False,
                data_home=str(path.parent / "raw"),
                n_retries=1,
            )
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecificationError(
            f"{title} (version {version}) cannot be fetched from OpenML ({reason}); offline, give a file instead"
        ) from None
    x = np.asarray(x)
    x = x.astype(np.uint8) if np.array_equal(x, x.astype(np.uint8)) else x.astype(np.float32)
    y = np.asarray(y)
    y = y.astype(str) if y.dtype.kind == "O" else y
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.npz")
    np.savez_compressed(temporary, x=x, y=y, checksum=np.array(_checksum(x, y)))
    os.replace(temporary, path)
    return x, y


def _read_bytes(name: str) -> bytes:
    path = Path(name).expanduser()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SpecificationError(f"there is no file {name!r}") from None
    except OSError as error:
        raise SpecificationError(f"{name!r} cannot be read: {error.strerror}") from None


def _file(spec: Data) -> _Raw:
    content = _read_bytes(spec.name)
    digest = hashlib.sha256(content)
    lower = spec.name.lower().removesuffix(".gz")
    if lower.endswith(".npz"):
        x, y = _npz(spec.name)
    elif lower.endswith(".csv"):
        x, y = _csv(spec.name, content)
    elif "idx" in Path(lower).name:
        if not spec.label_file:
            raise SpecificationError("an IDX image file needs its labels as well (label_file)")
        labels = _read_bytes(spec.label_file)
        digest.update(labels)
        x, y = _idx(spec.name, content), _idx(spec.label_file, labels)
        if x.ndim == 3:
            x = x[:, None]
    else:
        raise SpecificationError(f"{spec.name!r} must end in .npz or .csv, or be an IDX file with 'idx' in its name")
    if x.ndim < 2 or len(x) != len(y) or not len(x):
        raise SpecificationError(f"{spec.name!r} holds inputs of shape {x.shape} and labels of shape {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise SpecificationError(f"{spec.name!r} holds numbers that are not finite")
    integral = y.ndim == 1 and np.array_equal(y, np.round(y)) and len(np.unique(y)) <= 1000
    return (
        x,
        np.unique(y, return_inverse=True)[1] if integral and spec.labels != "values" else y,
        integral,
        digest.hexdigest(),
    )


def _npz(name: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    try:
        with np.load(Path(name).expanduser(), allow_pickle=False) as stored:
            if not {"x", "y"} <= set(stored.files):
                raise SpecificationError(
                    f"{name!r} must hold arrays x and y; it holds {', '.join(stored.files) or 'none'}"
                )
            x, y = stored["x"], stored["y"]
    except (ValueError, OSError) as error:
        if isinstance(error, SpecificationError):
            raise
        raise SpecificationError(f"{name!r} is not an NPZ file of plain arrays: {error}") from None
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise SpecificationError(f"{name!r} must hold numbers; x is {x.dtype}, y is {y.dtype}")
    return x, y


def _csv(name: str, content: bytes) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Numbers, the label in the last column; a first line that is not numbers is a header."""
    try:
        lines = (gzip.decompress(content) if name.endswith(".gz") else content).decode().splitlines()
        lines = [line for line in lines if line.strip()]
        try:
            [float(cell) for cell in lines[0].split(",")]
        except ValueError:
            lines = lines[1:]
        table = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    except (ValueError, IndexError, UnicodeDecodeError, OSError) as error:
        raise SpecificationError(f"{name!r} is not a CSV table of numbers: {error}") from None
    if table.ndim != 2 or table.shape[1] < 2:
        raise SpecificationError(f"{name!r} must have at least one input column and the label in the last column")
    return table[:, :-1], table[:, -1]


_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _idx(name: str, content: bytes) -> NDArray[np.generic]:
    """The MNIST format: two zero bytes, type, number of dims, dims (big-endian), numbers."""
    try:
        raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError) as error:
        raise SpecificationError(f"{name!r} is not a whole gzip file: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise SpecificationError(f"{name!r} is not an IDX file")
    dtype, rank = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    dims = tuple(int(v) for v in np.frombuffer(raw[4 : 4 + 4 * rank], ">u4"))
    if len(dims) != rank or len(raw) - 4 - 4 * rank != math.prod(dims) * dtype.itemsize:
        raise SpecificationError(f"{name!r} is a truncated IDX file (or has bytes to spare)")
    return np.frombuffer(raw[4 + 4 * rank :], dtype).reshape(dims).astype(dtype.newbyteorder("="))


def _text(spec: Data) -> _Raw:
    """Windows of `context` characters, one after the other; labels are the next characters."""
    content = _read_bytes(spec.name)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SpecificationError(f"{spec.name!r} is not UTF-8 text: {error}") from None
    if len(text) < spec.context + 1:
        raise SpecificationError(f"{spec.name!r} has {len(text)} characters; one window needs {spec.context + 1}")
    vocabulary = {c: i for i, c in enumerate(sorted(set(text)))}
    codes = np.fromiter((vocabulary[c] for c in text), np.int64, len(text))
    count = (len(text) - 1) // spec.context
    x = codes[: count * spec.context].reshape(count, spec.context)
    y = codes[1 : count * spec.context + 1].reshape(count, spec.context)
    return x, y, True, hashlib.sha256(content).hexdigest()
