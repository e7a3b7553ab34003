"""SGD, saturation and epochs to a target: closed forms, digits, resuming, seeds, and the commands."""

import json
import math
import os
import pickle
import signal
import time

import numpy as np
import pytest

pytest.importorskip("jax", reason="networks need JAX: pip install 'hdsgd[networks]'")
pytest.importorskip("equinox", reason="networks need Equinox: pip install 'hdsgd[networks]'")
pytest.importorskip("optax", reason="networks need Optax: pip install 'hdsgd[networks]'")
pytest.importorskip("sklearn", reason="digits come with scikit-learn: pip install 'hdsgd[networks]'")

from hdsgd.errors import SpecificationError
from hdsgd.networks import (
    Data,
    Diversity,
    Epochs,
    FullyConnected,
    Saturation,
    TheoremCheck,
    diversity,
    epochs,
    saturation,
    theorem_check,
    training,
)
from hdsgd.networks.data import Loaded
from hdsgd.networks.objective import Objective
from hdsgd.networks.shared import find_data
from hdsgd.networks.statistics import tangent_statistics
from hdsgd.networks.study_epochs import EpochsStudy, largest_batch
from hdsgd.networks.study_saturation import exponent, predicted_exponent
from hdsgd.networks.training import batch_indices, sgd_block, train
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import Store, Workers
from hdsgd.results.files import load, save
from hdsgd.seeds import child
from hdsgd.studies import log
from hdsgd.studies.store import StudyStore, partial_folder, read_study
from hdsgd.studies.study import Context

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
    return spec, saturation(spec, seed=3, workers=Workers(2))


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
    one = saturation(Saturation(network, data, steps=20, batches=(2, 8), points=4), seed=3, workers=Workers(2))
    # Whatever other batches are run, and on however many threads.
    two = saturation(Saturation(network, data, steps=20, batches=(8,), points=4), seed=3, workers=Workers(1))
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


SMALL = {
    "saturation": Saturation(FullyConnected(1, 8), Data("digits", n=64), steps=40, batches=(4,), points=8),
    "epochs": Epochs((FullyConnected(1, 8), FullyConnected(2, 8)), Data("digits", n=64), batches=(16, 64), target=0.9,
                     rates=(0.1, 0.3), max_epochs=6, diversity_every=2, replicas=1),
    "diversity": Diversity((FullyConnected(1, 4), FullyConnected(2, 4)), Data("digits", n=32, labels="parity"),
                           batches=(1, 4), replicas=2),
    "theorem-check": TheoremCheck(3, (2, 3), (2, 4), (6,), draws=20),
}  # fmt: skip
RUN = {"saturation": saturation, "epochs": epochs, "diversity": diversity, "theorem-check": theorem_check}


#: With those of the test of phase diagrams more than thirty.
KILLS = 12


def same(one, other):
    return one.identical(other.assign_attrs(timings=one.attrs["timings"]))


def interrupt(monkeypatch, calls):
    """Interrupt the training after so many blocks."""
    original, left = training.sgd_block, [calls]

    def failing(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(training, "sgd_block", failing)


@pytest.mark.parametrize("kind", ["saturation", "epochs"])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, monkeypatch, kind):
    """Also in the middle of a training, whose weights are kept."""
    spec, run, path = SMALL[kind], RUN[kind], tmp_path / "x.nc"
    straight = run(spec, seed=2)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    for calls in (3, 4, 3):
        with monkeypatch.context() as patch:
            interrupt(patch, calls)
            with pytest.raises(KeyboardInterrupt, match=r"interrupted; \d of \d cells are kept in .*--resume"):
                run(spec, seed=2, store=Store(path, resume=True), workers=Workers(1))
        assert list(partial_folder(path).glob("cell-*.state"))
    with pytest.raises(SpecificationError, match="exists; --resume"):
        run(spec, seed=2, store=path)
    with pytest.raises(SpecificationError, match="seed: 2 there, 3 now"):
        run(spec, seed=3, store=Store(path, resume=True))
    resumed = run(spec, seed=2, store=Store(path, resume=True))
    assert same(resumed, straight)
    assert same(load(path), straight)
    assert os.listdir(tmp_path) == ["x.nc"]


@pytest.mark.parametrize("kind", SMALL)
def test_status_export_and_going_on(tmp_path, monkeypatch, kind):
    """Of a study that is half done: from its logs, and from what was exported."""
    import hdsgd_cli.export
    import hdsgd_cli.status
    from click.testing import CliRunner

    spec, run, path = SMALL[kind], RUN[kind], tmp_path / "x.nc"
    straight = run(spec, seed=2)
    write, written = StudyStore.write, []

    def broken(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StudyStore, "write", broken)
        with pytest.raises(KeyboardInterrupt):
            run(spec, seed=2, store=path)
    found = read_study(path)
    assert found.results.counts().done == 2
    told = CliRunner().invoke(hdsgd_cli.status.command, [str(path)])
    assert f"done    2 of {len(found.results.state)} cells" in told.output, told.output
    assert "interrupted" in told.output
    exported = CliRunner().invoke(hdsgd_cli.export.command, [str(path), str(tmp_path / "part.nc")])
    assert exported.exit_code == 0, exported.output
    part = load(tmp_path / "part.nc")
    assert int((part["status"] == OUTCOMES["pending"]).sum()) == len(found.results.state) - 2
    for place in (tmp_path / "part.nc", path):
        assert same(run(spec, seed=2, store=Store(place, resume=True)), straight)
        assert same(load(place), straight)
        assert "complete" in CliRunner().invoke(hdsgd_cli.status.command, [str(place)]).output
    assert sorted(os.listdir(tmp_path)) == ["part.nc", "x.nc"]


def test_a_failed_cell_does_not_stop_the_study(tmp_path, monkeypatch):
    spec = SMALL["epochs"]
    straight = epochs(spec, seed=2)
    original = training.sgd_block

    def failing(objective, params, lr, batch, *others):
        if batch == 64:
            raise FloatingPointError("no\ngood")
        return original(objective, params, lr, batch, *others)

    with monkeypatch.context() as patch:
        patch.setattr(training, "sgd_block", failing)
        data = epochs(spec, seed=2, store=tmp_path / "x.nc")
    assert (data["status"].sel(batch=64) == OUTCOMES["failed"]).all()
    assert data["epochs_to_target"].sel(batch=64).isnull().all()
    assert data["measure"].sel(batch=16).equals(straight["measure"].sel(batch=16))
    assert set(json.loads(data.attrs["errors"]).values()) == {"FloatingPointError: no good"}
    assert same(epochs(spec, seed=2, store=Store(tmp_path / "x.nc", resume=True)), straight)


def test_the_checksum_of_the_data_is_checked_where_a_cell_runs():
    with pytest.raises(SpecificationError, match="the data are not those of the study"):
        find_data(Data("digits", n=64), 2, "0" * 64)


def test_cells_travel(monkeypatch):
    """A cell is all that a worker needs, and small."""
    spec = SMALL["epochs"]
    straight = epochs(spec, seed=2)
    study = EpochsStudy(json.loads(straight.attrs["specification"]), {"parameters": [1, 1]})
    sent = pickle.dumps(study.cell((1, 0, 0)))
    assert len(sent) < 2000
    values = pickle.loads(sent).run(Context())
    for name, value in values.items():
        assert np.array_equal(value, straight[name].values[1, 0, 0], equal_nan=True), name


@pytest.mark.filterwarnings("ignore:os.fork")  # the fork starts another program at once
@pytest.mark.compiled
def test_killed_again_and_again(start, tmp_path):
    """SIGKILL at random moments: what is committed stays, and the end is the same."""
    arguments = ("saturation", "--n", 256, "--depth", 2, "--width", 64, "--steps", 800, "--replicas", 4,
                 "--batch", "2,4,8,16,32,64,128", "--lr", 0.05, "--quiet")  # fmt: skip
    spec = Saturation(
        FullyConnected(2, 64, "tanh"), Data("digits", n=256, normalise="centre"), steps=800, lr=0.05, replicas=4,
        batches=(2, 4, 8, 16, 32, 64, 128), lr_fraction=4.0,
    )  # fmt: skip
    path, random, kills = tmp_path / "x.nc", np.random.default_rng(1), 0

    def written():
        return sum(file.read_bytes().count(log.MARK) for file in partial_folder(path).glob("*.log"))

    while True:
        wanted = written() + random.integers(1, 3)
        process = start(*arguments, "-o", path, "--resume")
        while kills < KILLS and process.poll() is None and written() < wanted:
            time.sleep(0.002)
        if kills < KILLS and process.poll() is None:
            time.sleep(random.uniform(0, 0.02))
            process.kill()
        _, err = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert process.returncode == 0, err
    assert kills >= KILLS - 1, "it may have ended before the last signal came"
    assert same(load(path), saturation(spec, seed=0))


def test_micro_batches_change_rounding_only(monkeypatch):
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
    data = epochs(family, seed=1, workers=Workers(2))
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
    again = epochs(family, seed=1, workers=Workers(1), store=tmp_path / "p.nc")
    resumed = epochs(family, seed=1, workers=Workers(1), store=Store(tmp_path / "p.nc", resume=True))
    assert again.drop_attrs().equals(data.drop_attrs())
    assert resumed.drop_attrs().equals(data.drop_attrs())


def test_figures_and_files(digits, family, tmp_path):
    from hdsgd.networks.plots import figure_of

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
        "--target", 0.5, "--max-epochs", 5, "--replicas", 1, "-o", tmp_path / "e.nc", "--plot", tmp_path / "e.png",
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
    for arguments, message in (
        (("saturation", "--preset", "big"), "choose from small"),
        (("saturation", "--data", "nosuch"), "unknown data source"),
        (("saturation", "--data", "file:/nowhere.npz"), "there is no file"),
        (("epochs", "--depth", "1,2"), "needs --depth and either"),
        (("diversity", "--preset", "theorem1", "--data", "digits"), "takes no --data"),
    ):
        failed = run(*arguments, "-o", tmp_path / "no.nc")
        assert isinstance(failed.exception, SpecificationError), (arguments, failed.output)
        assert message in str(failed.exception)
        assert not (tmp_path / "no.nc").exists()
