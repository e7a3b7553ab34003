"""Pictures of phase diagrams: what is drawn where, checked on the artists."""

import json

import numpy as np
import pytest
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.figure import Figure
from synthetic import phase_diagram

from hdsgd import SpecificationError, figure
from hdsgd.analysis.exponents import add_exponents, best_exponents, best_samples
from hdsgd.outcomes import OUTCOMES
from hdsgd.plotting.phase_diagrams import (
    plot_best_exponents,
    plot_exponents,
    plot_phase_diagram,
    plot_samples,
)
from hdsgd.results.kinds import RESULT_KINDS

PLANES = [plane.name for plane in RESULT_KINDS["phase-diagram"].planes]


@pytest.fixture(scope="module")
def data():
    return phase_diagram(3, dims=(128, 256, 512), mu=(0.0, 0.75, 1.5, 2.25, 3.0), delta=(-1.0, 0.0, 1.0, 2.0))


@pytest.fixture
def ax():
    return Figure().subplots()


def cells(ax):
    """Values of the coloured cells, (delta, mu), and their scale."""
    mesh = [artist for artist in ax.collections if isinstance(artist, QuadMesh)][-1]
    return np.ma.filled(mesh.get_array().astype(float), np.nan), mesh.get_clim()


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_times_at_one_dimension(data, ax):
    plot_phase_diagram(data, ax, algorithm="correlation", dim=128)
    values, (low, high) = cells(ax)
    panel = data.sel(algorithm="correlation", dim=128)
    recovered = panel["recovered"].all("replica").values
    middle = np.quantile(panel["recovery_time"].values, 0.5, axis=-1, method="inverted_cdf")
    np.testing.assert_allclose(values.T[recovered], np.log(middle[recovered]) / np.log(128))
    assert np.isnan(values.T[~recovered]).all()
    slowest = data.sel(dim=128)["recovery_time"].where(data.sel(dim=128)["recovered"]).max()
    assert (low, high) == (0, pytest.approx(np.log(float(slowest)) / np.log(128)))
    largest = plot_phase_diagram(data, Figure().subplots(), algorithm="correlation")
    same = plot_phase_diagram(data, Figure().subplots(), algorithm="correlation", dim=512)
    np.testing.assert_array_equal(cells(largest)[0], cells(same)[0])
    assert not np.array_equal(cells(largest)[0], values)


def test_measured_and_predicted_share_a_scale(data):
    measured = plot_exponents(data, Figure().subplots(), algorithm="spherical")
    predicted = plot_exponents(data, Figure().subplots(), algorithm="spherical", predicted=True)
    (values, scale), (theory, same) = cells(measured), cells(predicted)
    assert scale == same == (0, 2.5)
    np.testing.assert_array_equal(np.isfinite(values), np.isfinite(theory))
    assert np.nanmax(np.abs(values - theory)) < 0.5
    held = plot_exponents(add_exponents(data), Figure().subplots(), algorithm="spherical")
    np.testing.assert_array_equal(cells(held)[0], values)


def test_cells_are_marked(data, ax):
    data = data.sel(algorithm=["spherical"]).copy(deep=True)
    ends = ["over_budget", "pending", "diverged", "failed"]
    for j, status in enumerate(ends):
        where = {"mu": 4, "delta": j}
        data["recovered"][where] = False
        data["status"][where] = OUTCOMES[status]
        data["recovery_time"][where] = 0
    some = {"mu": 3, "delta": 3, "dim": 2}
    data["recovered"][some] = False
    data["status"][some] = OUTCOMES["censored"]
    plot_exponents(data, ax)
    assert np.isnan(cells(ax)[0][:, 4]).all()
    points = {line.get_marker(): list(zip(*line.get_data(), strict=True)) for line in ax.lines}
    assert points["x"] == [(3.0, 1.0)]
    assert len(points["P"]) == 1
    assert points["_"] == [(2.25, 2.0)]
    assert (0.0, 0.0) in points["."]
    (hatched,) = (artist for artist in ax.collections if isinstance(artist, PatchCollection))
    assert len(hatched.get_paths()) == 1
    found = texts(figure(data))
    assert {"diverged", "failed", "not run yet", "not recovered", "recovered at some $d$ only"} <= set(found)


def test_legend_shows_what_is_there(data):
    found = texts(figure(data.sel(algorithm=["projected"], dim=[512])))
    assert found == ["theory: recovery above / to the right", "not recovered"]


def test_best_exponents(data, ax):
    plot_best_exponents(data, ax)
    best = best_exponents(data)
    bars = {bar.get_label(): bar for bar in ax.containers}
    assert list(bars) == list(data["algorithm"].values)
    for name, bar in bars.items():
        np.testing.assert_array_equal(bar.lines[0].get_ydata(), best["theta"].sel(algorithm=name))
        np.testing.assert_allclose(bar.lines[0].get_xdata(), data["mu"], atol=0.1)
    stars = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "*")
    assert stars == [(1.5, 0.5), (2.0, 0.0), (3.0, 0.0)]
    notes = " ".join(text.get_text() for text in ax.texts)
    assert all(power in notes for power in ("d^{3/2}", "d^{2}", "d^{3}"))
    theory = {text.get_text() for text in ax.get_legend().get_texts() if text.get_text().startswith("theory")}
    assert theory == {"theory: projected", "theory: correlation, spherical"}
    one = plot_best_exponents(data.sel(dim=[512]), Figure().subplots())
    assert "log_d" in one.get_ylabel()
    assert "theta" in ax.get_ylabel()


def test_samples(data, ax):
    plot_samples(data, ax, algorithm="projected")
    best = best_samples(data).sel(algorithm="projected")
    lines = {line.get_label(): line for line in ax.lines}
    for d in (128, 256, 512):
        expected = np.log(best["samples_best"].sel(dim=d)) / np.log(d)
        np.testing.assert_allclose(lines[f"$d$ = {d}"].get_ydata(), expected)
    mu, samples = lines["theory"].get_data()
    np.testing.assert_allclose(samples[mu < 1.5], 2.0)
    np.testing.assert_allclose(samples[mu > 1.5], mu[mu > 1.5] + 0.5)


@pytest.mark.parametrize("plane", [None, *PLANES])
def test_figures(data, plane, tmp_path):
    """Every plane of every shape of Dataset: several dimensions or one, one algorithm, one cell, nothing recovered."""
    nothing = data.copy(deep=True)
    nothing["recovered"][...] = False
    nothing["status"][...] = OUTCOMES["pending"]
    no_theory = json.loads(data.attrs["specification"])
    for rule in no_theory["algorithms"].values():
        rule["constraint"] = "none"
    small = data.isel(algorithm=[0])
    for number, dataset in enumerate(
        [data, data.isel(dim=[1]), small, small.isel(mu=[2], delta=[2]), nothing, nothing.isel(dim=[0]),
         data.assign_attrs(specification=json.dumps(no_theory))]
    ):  # fmt: skip
        drawn = figure(dataset, plane)
        drawn.savefig(tmp_path / f"{number}.png", dpi=40)
        if plane in (None, "mu-delta"):
            panels = [axes for axes in drawn.axes if axes.get_xlim() and axes.collections and axes.get_subplotspec()]
            rows = 3 if dataset.sizes["dim"] > 1 else 1
            assert (
                len([axes for axes in panels if axes.get_label() != "<colorbar>"]) == rows * dataset.sizes["algorithm"]
            )


@pytest.mark.compiled
def test_a_measured_diagram(tmp_path):
    from hdsgd import Plane, Problem, StopRule, Workers
    from hdsgd.sweeps.phase_diagrams import phase_diagram as measure

    small = measure(Problem("he2", "he2"), dims=[32, 64], plane=Plane(mu=[0.0, 1.0, 2.0], delta=[0.0, 1.0]),
                    stop=StopRule(max_cost=1e5), replicas=4, workers=Workers(threads=1))  # fmt: skip
    held = add_exponents(small)
    assert (held["theta_kind"] == 0).any()
    assert held.attrs == small.attrs
    for plane in PLANES:
        figure(held, plane).savefig(tmp_path / f"{plane}.png", dpi=40)


def test_new_axes(data):
    import matplotlib.pyplot as plt

    one = data.sel(algorithm=["projected"])
    for plot in (plot_phase_diagram, plot_exponents, plot_best_exponents, plot_samples):
        axes = plot(one)
        assert axes.get_xlabel().startswith(r"$\mu$")
        plt.close(axes.figure)


def test_refusals(data):
    with pytest.raises(SpecificationError, match="say which algorithm"):
        plot_exponents(data)
    with pytest.raises(SpecificationError, match="has projected"):
        plot_samples(data, algorithm="adam")
    with pytest.raises(SpecificationError, match="has 128, 256, 512"):
        plot_phase_diagram(data, algorithm="projected", dim=100)
    with pytest.raises(SpecificationError, match="mu-theta"):
        figure(data, "mu-gamma")
    with pytest.raises(SpecificationError, match="drawn in one way"):
        figure(data.assign(M=0, Q=0, risk=0).assign_attrs(kind="simulate"), "mu-theta")
    with pytest.raises(SpecificationError, match="no status to plot"):
        plot_phase_diagram(data.drop_vars("status"), algorithm="projected")
