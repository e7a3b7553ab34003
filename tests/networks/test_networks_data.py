"""Data sets: synthetic, digits, files, and the errors of all of them."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from hdsgd.errors import SpecificationError
from hdsgd.networks.data import load_data
from hdsgd.networks.specs import Data, FullyConnected

SEED = np.random.SeedSequence(1)


def test_gaussian_is_realisable_and_reproducible():
    teacher = FullyConnected(2, 5, "tanh", "unit")
    spec = Data("gaussian", n=50, dim=4, teacher=teacher)
    one, two = load_data(spec, SEED), load_data(spec, SEED)
    assert one.checksum == two.checksum
    assert one.x.shape == (50, 4)
    assert one.y.shape == (50, 1)
    assert not one.classes
    linear = load_data(Data("gaussian", n=50, dim=4), SEED)
    w = np.linalg.lstsq(linear.x, linear.y, rcond=None)[0]
    assert np.abs(linear.x @ w - linear.y).max() < 1e-12
    noisy = load_data(Data("gaussian", n=5000, dim=4, noise=0.25), SEED)
    w = np.linalg.lstsq(noisy.x, noisy.y, rcond=None)[0]
    assert np.var(noisy.x @ w - noisy.y) == pytest.approx(0.25, rel=0.1)


def test_digits():
    pytest.importorskip("sklearn", reason="digits come with scikit-learn: pip install 'hdsgd[networks]'")
    data = load_data(Data("digits"), SEED)
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.d_out == 10
    assert abs(data.x.mean()) < 1e-12
    assert data.x.std() == pytest.approx(1)
    assert data.targets().sum(axis=1).tolist() == [1.0] * 1797
    some = load_data(Data("digits", n=100, labels="parity", normalise="unit"), SEED)
    assert set(some.y.ravel()) == {-1.0, 1.0}
    assert np.allclose((some.x.reshape(100, -1) ** 2).sum(axis=1), 64)
    centred = load_data(Data("digits", normalise="centre"), SEED)
    assert np.abs(centred.x.mean(axis=0)).max() < 1e-12
    with pytest.raises(SpecificationError, match="n = 2000 is too many"):
        load_data(Data("digits", n=2000), SEED)


def test_files(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)).round(3), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    lines = [",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True)]
    (tmp_path / "a.csv").write_text("a,b,c,label\n" + "\n".join(lines) + "\n")
    images = rng.integers(0, 255, (6, 4, 5), dtype=np.uint8)
    idx = bytes([0, 0, 8, 3]) + struct.pack(">III", *images.shape) + images.tobytes()
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    (tmp_path / "labels-idx1-ubyte").write_bytes(
        bytes([0, 0, 8, 1]) + struct.pack(">I", 6) + y.astype(np.uint8).tobytes()
    )
    for name in ("a.npz", "a.csv"):
        data = load_data(Data("file", str(tmp_path / name), normalise="none"), SEED)
        assert np.array_equal(data.x, x)
        assert np.array_equal(data.y, y)
        assert data.classes
    pair = (str(tmp_path / "images-idx3-ubyte.gz"), str(tmp_path / "labels-idx1-ubyte"))
    data = load_data(Data("file", *pair, normalise="none"), SEED)
    assert np.array_equal(data.x[:, 0], images)
    assert np.array_equal(data.y, y)
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    load_data(Data("file", str(tmp_path / "a.npz"), checksum=digest), SEED)
    with pytest.raises(SpecificationError, match=f"checksum of .* is {digest}, not 00"):
        load_data(Data("file", str(tmp_path / "a.npz"), checksum="00"), SEED)


def test_broken_files(tmp_path):
    (tmp_path / "bad.csv").write_text("1,2\n3,x\n")
    (tmp_path / "short-idx3-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 60) + b"123")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name, message in (
        ("bad.csv", "not a CSV table"),
        ("none.csv", "there is no file"),
        ("bad.npz", "not an NPZ file"),
        ("other.npz", "must hold arrays x and y; it holds a"),
        ("table.xls", "there is no file"),
    ):
        with pytest.raises(SpecificationError, match=message) as caught:
            load_data(Data("file", str(tmp_path / name)), SEED)
        assert "\n" not in str(caught.value)
    with pytest.raises(SpecificationError, match="truncated"):
        load_data(Data("file", str(tmp_path / "short-idx3-ubyte"), label_file=str(tmp_path / "short-idx3-ubyte")), SEED)


def test_text(tmp_path):
    (tmp_path / "t.txt").write_text("abcab" * 20)
    data = load_data(Data("text", str(tmp_path / "t.txt"), context=8), SEED)
    assert data.x.shape == data.y.shape == (12, 8)
    assert np.array_equal(data.x[0, 1:], data.y[0, :-1])
    assert data.d_out == 3
    with pytest.raises(SpecificationError, match="one window needs"):
        load_data(Data("text", str(tmp_path / "t.txt"), context=100), SEED)


def test_openml_offline_and_cache(tmp_path, monkeypatch):
    sklearn_datasets = pytest.importorskip("sklearn.datasets", reason="pip install 'hdsgd[networks]'")
    import urllib.error

    monkeypatch.setenv("HDSGD_CACHE", str(tmp_path))
    calls = []

    def offline(name, **options):
        raise urllib.error.URLError("no route to host")

    def online(name, **options):
        calls.append(name)
        return np.arange(4 * 784, dtype=float).reshape(4, 784) % 256, np.array(["3", "1", "3", "2"], dtype=object)

    monkeypatch.setattr(sklearn_datasets, "fetch_openml", offline)
    with pytest.raises(SpecificationError, match=r"mnist_784 \(version 1\) cannot be fetched.*offline"):
        load_data(Data("openml", "mnist"), SEED)
    monkeypatch.setattr(sklearn_datasets, "fetch_openml", online)
    first = load_data(Data("openml", "mnist"), SEED)
    again = load_data(Data("openml", "mnist"), SEED)
    assert calls == ["mnist_784"]
    assert first.checksum == again.checksum
    assert first.x.shape == (4, 1, 28, 28)
    assert first.y.tolist() == [2, 0, 2, 1]
    stored = tmp_path / "openml" / "mnist_784-1.npz"
    with np.load(stored) as arrays:
        damaged = {**arrays, "x": arrays["x"] + 1}
    np.savez(stored, **damaged)
    with pytest.raises(SpecificationError, match="damaged"):
        load_data(Data("openml", "mnist"), SEED)
