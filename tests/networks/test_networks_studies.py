"""Saturation, epochs to a target and their kin as studies: digits, seeds, resuming, files, and the commands."""

import json
import os
import pickle
import signal
import time

import needs_networks  # noqa: F401
import numpy as np
import pytest
from small_studies import same

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
from hdsgd.networks.shared import find_data
from hdsgd.networks.study_epochs import EpochsStudy
from hdsgd.outcomes import OUTCOMES
from hdsgd.policies import Store, Workers
from hdsgd.results.files import load, save
from hdsgd.studies import log
from hdsgd.studies.store import StudyStore, partial_folder, read_study
from hdsgd.studies.study import Context


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


SMALL = {
    "saturation": Saturation(FullyConnected(1, 8), Data("digits", n=64), steps=40, batches=(4,), points=8),
    "epochs": Epochs((FullyConnected(1, 8), FullyConnected(2, 8)), Data("digits", n=64), batches=(16, 64), target=0.9,
                     rates=(0.1, 0.3), max_epochs=6, diversity_every=2, replicas=1),
    "diversity": Diversity((FullyConnected(1, 4), FullyConnected(2, 4)), Data("digits", n=32, labels="parity"),
                           batches=(1, 4), replicas=2),
    "theorem-check": TheoremCheck(3, (2, 3), (2, 4), (6,), draws=20),
}  # fmt: skip
RUN = {"saturation": saturation, "epochs": epochs, "diversity": diversity, "theorem-check": theorem_check}


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


#: As in `tests/test_killed.py`; fewer, as each start takes seconds.
KILLS, LEAST = 8, 4


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
    print(f"{kills} kills")
    assert kills >= LEAST
    assert same(load(path), saturation(spec, seed=0))


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
    from hdsgd import figure as figure_of
    from hdsgd.results.files import load

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
