"""SGD, saturation and epochs to a target: closed forms, digits, resuming, seeds, and the commands."""

import json
import math

import numpy as np
import pytest

pytest.importorskip("jax", reason="networks need JAX: pip install 'hdsgd[networks]'")
pytest.importorskip("equinox", reason="networks need Equinox: pip install 'hdsgd[networks]'")
pytest.importorskip("optax", reason="networks need Optax: pip install 'hdsgd[networks]'")
pytest.importorskip("sklearn", reason="digits come with scikit-learn: pip install 'hdsgd[networks]'")

from hdsgd.networks.checkpoints import Checkpoints

from hdsgd.errors import SpecificationError
from hdsgd.networks import Data, Epochs, FullyConnected, Saturation, epochs, saturation
from hdsgd.networks.data import Loaded
from hdsgd.networks.objective import Objective
from hdsgd.networks.statistics import tangent_statistics
from hdsgd.networks.study_epochs import largest_batch
from hdsgd.networks.study_saturation import exponent, predicted_exponent
from hdsgd.networks.training import batch_indices, sgd_block, train
from hdsgd.seeds import child

SEED = np.random.SeedSequence(11)
LINEAR = FullyConnected(0, 1, "linear")


def least_squares(x, seed=SEED):
    y = x @ np.random.default_rng(seed).standard_normal((x.shape[1], 1))
    return Objective(LINEAR, Loaded(x, y, 1, False, "", ""), child(seed, 0))


def mean_loss(objective, *, lr, batch, steps, runs, sampling="without-replacement"):
    """Mean over runs of L(w_T) from the same start, and its standard error."""
    ends = [
        train(
            objective, lr=lr, batch=batch, blocks=1, block_steps=steps, sampling=sampling, seed=child(SEED, 5, r)
        ).losses[-1]
        for r in range(runs)
    ]
    return np.mean(ends), np.std(ends, ddof=1) / math.sqrt(runs)


def test_one_step_is_the_batch_gradient():
    x = np.random.default_rng(0).standard_normal((9, 4))
    objective = least_squares(x)
    for sampling, batch in (("without-replacement", 4), ("replacement", 4), ("epochs", 4)):
        steps = 3  # one epoch of 4, 4 and 1
        index, weight = batch_indices(9, batch, steps, sampling, child(SEED, 1))
        w = np.asarray(objective.params.layers[0].weight)[0]
        for i, u in zip(index, [None] * steps if weight is None else weight, strict=True):
            u = np.full(batch, 1 / batch) if u is None else u
            w = w - 0.05 * (u * (x[i] @ w - np.asarray(objective.y)[i, 0])) @ x[i]
        got = sgd_block(objective, objective.params, 0.05, batch, steps, sampling, child(SEED, 1))
        assert np.allclose(np.asarray(got.layers[0].weight)[0], w, rtol=1e-12)


def test_batches():
    index, weight = batch_indices(10, 4, 6, "epochs", SEED)
    assert weight is not None
    for epoch in range(2):
        rows = slice(3 * epoch, 3 * epoch + 3)
        assert sorted(index[rows][weight[rows] > 0]) == list(range(10))
    assert np.allclose(weight.sum(axis=1), 1)
    index, _ = batch_indices(10, 4, 500, "without-replacement", SEED)
    assert all(len(set(row)) == 4 for row in index)
    counts = np.bincount(index.ravel(), minlength=10)
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200 * 0.6)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_orthogonal_design_has_a_closed_form(batch):
    """Rows √s e_i: coordinates decouple and ``E L_T = L_0 (1 - 2ηs/n + η²s²/(bn))^T``; γ = s, β = s/b + s/n, b* = n.

    Three means at 3.5 standard errors: false alarm 1.4e-3.
    """
    n, s, lr, steps = 16, 4.0, 0.2, 30
    objective = least_squares(math.sqrt(s) * np.eye(n))
    found = tangent_statistics(objective, batches=(batch,))
    assert found["gamma_max"] == pytest.approx(s)
    assert found["gamma_min"] == pytest.approx(s)
    assert found["critical_batch"] == pytest.approx(n)
    assert found["beta"][0] == pytest.approx(s / batch + s / n)
    start = objective.loss(objective.params)
    factor = 1 - 2 * lr * s / n + (lr * s) ** 2 / (batch * n)
    mean, error = mean_loss(objective, lr=lr, batch=batch, steps=steps, runs=100)
    assert abs(mean - start * factor**steps) < max(3.5 * error, 1e-12)
    # h(b) of the mean loss, to first order in the error.
    tolerance = max(3.5 * error / mean / steps, 1e-10)
    assert exponent(np.array([start, mean]), steps) == pytest.approx(-math.log(factor), abs=1.3 * tolerance)


def test_full_batch_gradient_descent_in_closed_form():
    x = np.random.default_rng(1).standard_normal((12, 5))
    objective = least_squares(x)
    values, vectors = np.linalg.eigh(x.T @ x / 12)
    target = np.linalg.lstsq(x, np.asarray(objective.y)[:, 0], rcond=None)[0]
    v = vectors.T @ (np.asarray(objective.params.layers[0].weight)[0] - target)
    run = train(objective, lr=0.1, batch=12, blocks=4, block_steps=5, sampling="without-replacement", seed=SEED)
    for k in range(5):
        assert run.losses[k] == pytest.approx(
            0.5 * np.sum(values * (v * (1 - 0.1 * values) ** (5 * k)) ** 2), rel=1e-10
        )


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_measured_rate_obeys_theorem_3_2(batch):
    """η = 1/(2β): E dist² contracts at least by 1 - (3/4) α/β a step (from equation 2.2 and quadratic growth).

    Theorem 2.1 has 4β/α iterations per factor e, three times weaker.  One mean at 3.5 standard errors each.
    """
    rng = np.random.default_rng(2)
    n, d = 20, 6
    x = rng.standard_normal((n, d)) * np.linspace(1, 2, d)
    objective = least_squares(x)
    gamma, beta = tangent_statistics(objective, batches=(batch,))["gamma_min"], None
    beta = gamma / batch + np.linalg.norm(x, 2) ** 2 / n
    alpha = np.linalg.eigvalsh(x.T @ x / n)[0]
    target = np.linalg.lstsq(x, np.asarray(objective.y)[:, 0], rcond=None)[0]
    steps, ends = 60, []
    start = np.sum((np.asarray(objective.params.layers[0].weight)[0] - target) ** 2)
    for r in range(100):
        w = sgd_block(
            objective, objective.params, 1 / (2 * beta), batch, steps, "without-replacement", child(SEED, 6, r)
        )
        ends.append(np.sum((np.asarray(w.layers[0].weight)[0] - target) ** 2))
    bound = start * (1 - 0.75 * alpha / beta) ** steps
    assert np.mean(ends) - 3.5 * np.std(ends) / 10 < bound
    # The second moment bound itself, E|g_S|² <= 2 β L, for random weights.
    for _ in range(50):
        v = rng.standard_normal(d)
        g = x * (x @ v)[:, None]
        mean_square, mean = (g**2).sum(axis=1).mean(), g.mean(axis=0) @ g.mean(axis=0)
        assert mean_square / batch * (n - batch) / (n - 1) + n * (batch - 1) / (
            batch * (n - 1)
        ) * mean <= beta * np.mean((x @ v) ** 2) * (1 + 1e-12)


def test_predicted_exponent():
    b = np.array([1, 4, 100])
    h = predicted_exponent(b, np.array([0.1, np.nan]), np.array([1.0, 1.0]))
    assert h[0, 0] == pytest.approx(0.1)
    assert h[1, 0] == pytest.approx(1 / (10 / 4 + 3 / 4))
    assert np.isnan(h[:, 1]).all()


@pytest.fixture(scope="module")
def digits():
    spec = Saturation(
        FullyConnected(3, 256, "tanh"), Data("digits", n=384, normalise="centre"), steps=240, batches=(2, 8, 64, 128),
        lr_fraction=4.0, points=10,
    )  # fmt: skip
    return spec, saturation(spec, seed=3, threads=2)


def test_digits_saturate_as_predicted(digits):
    """3×256 on digits: h(b) within 10 % of h̃(b) (3 % is typical), no gain beyond 8 b*, a clear one below b*."""
    _, data = digits
    h = dict(zip(data["batch"].values.tolist(), data["exponent"].values[:, 0], strict=True))
    ratio = data["exponent"] / data["exponent_predicted"]
    assert float(abs(ratio - 1).max()) < 0.1
    assert 2 < float(data["critical_batch_start"]) < 16
    assert h[384] / h[1] > 1.15
    assert abs(h[384] / h[128] - 1) < 0.02
    assert list(h.values())[:3] == sorted(list(h.values())[:3])
    assert (data["status"] == 0).all()


def test_same_seed_same_numbers():
    network, data = FullyConnected(3, 256, "tanh"), Data("digits", n=128)
    one = saturation(Saturation(network, data, steps=20, batches=(2, 8), points=4), seed=3, threads=2)
    # Whatever other batches are run, and on however many threads.
    two = saturation(Saturation(network, data, steps=20, batches=(8,), points=4), seed=3, threads=1)
    for b in (1, 8, 128):
        assert np.array_equal(one["loss_curve"].sel(batch=b), two["loss_curve"].sel(batch=b))
    other = saturation(Saturation(network, data, steps=4, batches=(8,), points=1), seed=4)
    assert float(other["loss_curve"][0, 0, 0]) != float(one["loss_curve"][0, 0, 0])


def test_divergence_is_reported(caplog):
    spec = Saturation(
        LINEAR, Data("gaussian", n=32, dim=8), steps=200, batches=(8,), lr_fraction=6.0, dtype="float64", points=5
    )
    with caplog.at_level("WARNING", logger="hdsgd"):
        data = saturation(spec, seed=1)
    assert data["status"].sel(batch=1).values.tolist() == [3]
    assert data["status"].sel(batch=32).values.tolist() == [0]
    assert np.isnan(data["exponent_predicted"]).all()
    assert "batch 1 with step size" in caplog.text


class Stop(Exception):
    pass


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, monkeypatch):
    import hdsgd.networks.training as training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    spec = Saturation(FullyConnected(1, 8), Data("digits", n=64), steps=40, batches=(4,), points=8)
    straight = saturation(spec, seed=2)
    folder = tmp_path / "x.partial"
    original, calls = training.sgd_block, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 13:
            raise Stop
        return original(*arguments)

    monkeypatch.setattr(training, "sgd_block", failing)
    with pytest.raises(Stop):
        saturation(spec, seed=2, partial=folder, threads=1)
    monkeypatch.setattr(training, "sgd_block", original)
    with pytest.raises(SpecificationError, match="--resume continues"):
        saturation(spec, seed=2, partial=folder)
    with pytest.raises(SpecificationError, match=r"another specification .*seed: 2 there, 3 now"):
        saturation(spec, seed=3, partial=folder, resume=True)
    resumed = saturation(spec, seed=2, partial=folder, resume=True)
    assert resumed.drop_attrs().equals(straight.drop_attrs())


def test_a_damaged_checkpoint_counts_as_none(tmp_path):
    kept = Checkpoints(tmp_path / "p", {"seed": 1})
    kept.write("a", {"v": np.arange(3)})
    assert kept.read("a")["v"].tolist() == [0, 1, 2]
    next((tmp_path / "p").glob("*.npz")).write_bytes(b"PK")
    assert kept.read("a") is None
    kept.remove()
    assert not (tmp_path / "p").exists()


def test_micro_batches_change_rounding_only(monkeypatch):
    import hdsgd.networks.training as training

    objective = least_squares(np.random.default_rng(5).standard_normal((20, 3)))
    whole = sgd_block(objective, objective.params, 0.1, 20, 3, "without-replacement", SEED)
    monkeypatch.setattr(training, "micro_batch", lambda objective: 6)
    parts = sgd_block(objective, objective.params, 0.1, 20, 3, "without-replacement", SEED)
    assert np.allclose(np.asarray(whole.layers[0].weight), np.asarray(parts.layers[0].weight), rtol=1e-12)


def test_largest_batch():
    taken = np.array([[[3.0], [9.0], [20.0]], [[30.0], [40.0], [50.0]]])
    best = largest_batch(np.array([8, 16, 32]), taken, taken < 45, 10)
    assert best[0, 0] == 16
    assert np.isnan(best[1, 0])


@pytest.fixture(scope="module")
def family():
    return Epochs(
        (FullyConnected(1, 24), FullyConnected(6, 12)), Data("digits", n=256), batches=(32, 128), target=0.9,
        rates=(0.05, 0.2, 0.8), max_epochs=40, diversity_every=10, replicas=2,
    )  # fmt: skip


def test_epochs(family, tmp_path):
    data = epochs(family, seed=1, threads=2)
    assert bool(data["reached"].sel(network="L=1, K=24").all())
    mean = data["epochs_to_target"].mean("replica")
    assert float(mean[0, 1]) >= float(mean[0, 0])  # a larger batch needs no fewer epochs
    assert (mean[1] > mean[0]).all()  # nor does a deep narrow network
    steps = data["iterations_to_target"] / data["epochs_to_target"]
    assert np.allclose(steps.isel(network=0, replica=0), [8, 2])
    curve = data["measure"].values[0, 0, 0]
    last = int(data["epochs_to_target"][0, 0, 0])
    assert curve[last] >= 0.9 > curve[last - 1]
    assert np.isnan(curve[last + 1 :]).all()
    best = data["tuning_loss"].argmin("candidate")
    assert np.array_equal(np.array(family.rates)[best], data["tuned_lr"])
    again = epochs(family, seed=1, threads=1, partial=tmp_path / "p")
    resumed = epochs(family, seed=1, threads=1, partial=tmp_path / "p", resume=True)
    assert again.drop_attrs().equals(data.drop_attrs())
    assert resumed.drop_attrs().equals(data.drop_attrs())


def test_figures_and_files(digits, family, tmp_path):
    from hdsgd import figure as figure_of
    from hdsgd.results.files import load, save

    dataset = digits[1]
    save(dataset, tmp_path / "s.nc")
    back = load(tmp_path / "s.nc")
    assert back.drop_attrs().equals(dataset.drop_attrs())
    assert Saturation.from_dict({k: v for k, v in json.loads(back.attrs["specification"]).items()
                                 if k in Saturation().to_dict()}).network == digits[0].network  # fmt: skip
    figure = figure_of(back)
    drawn = figure.axes[1].lines[0].get_ydata()
    assert np.allclose(drawn, dataset["exponent"].values[:, 0])


def run(*arguments):
    """The commands, through click."""
    import hdsgd_cli.diversity
    import hdsgd_cli.epochs
    import hdsgd_cli.saturation
    from click.testing import CliRunner

    module = {"diversity": hdsgd_cli.diversity, "saturation": hdsgd_cli.saturation, "epochs": hdsgd_cli.epochs}
    return CliRunner().invoke(module[arguments[0]].command, [str(a) for a in arguments[1:]])


def test_commands(tmp_path):
    out = [tmp_path / name for name in ("a.nc", "a.png")]
    done = run(
        "saturation", "--n", 64, "--depth", 1, "--width", 8, "--steps", 20, "--batch", "4", "--lr", 0.01,
        "-o", out[0], "--plot", out[1],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "h/predicted" in done.output
    assert all(p.exists() for p in out)
    assert not (tmp_path / "a.nc.partial").exists()
    again = run("saturation", "-o", out[0])
    assert isinstance(again.exception, SpecificationError)
    assert "exists" in str(again.exception)
    done = run(
        "epochs", "--preset", "digits", "--n", 128, "--budget", 1500, "--depth", "1,2", "--batch", "32,64",
        "--rates", "0.1,0.3",
        "--goal", 0.5, "--max-epochs", 5, "--replicas", 1, "-o", tmp_path / "e.nc", "--plot", tmp_path / "e.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    done = run(
        "diversity", "--data", "digits", "--n", 32, "--depth", 1, "--width", "4,8", "--activation", "tanh",
        "--replicas", 1, "--batch", "1,4", "--draws", 0, "--labels", "parity",
        "-o", tmp_path / "d.nc", "--plot", tmp_path / "d.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    done = run("diversity", "--preset", "theorem3", "--width", "4,8", "--draws", 50, "--plot", tmp_path / "t.png")
    assert done.exit_code == 0, done.output
    assert "bound (4.1) fails in 0" in done.output
    failed = run("saturation", "--data", "file:/nowhere.npz", "-o", tmp_path / "no.nc")
    assert isinstance(failed.exception, SpecificationError), failed.output
    assert "there is no file" in str(failed.exception)
    assert not (tmp_path / "no.nc").exists()
