"""Per-example gradients, Jacobian products, the NTK and the constants made of them, against loops and closed forms."""

import math

import numpy as np
import pytest
from needs_networks import jax

from hdsgd.networks import GPT, Data, FullyConnected, LeNet, ResNet
from hdsgd.networks._extra import precision
from hdsgd.networks.data import Loaded, load_data
from hdsgd.networks.objective import Objective, example_loss
from hdsgd.networks.statistics import (
    gradient_statistics,
    lemma_bound,
    moment_constants,
    operator_norm,
    second_moment,
    tangent_statistics,
)

SEED = np.random.SeedSequence(7)


def gaussian(n, d, seed=0, outputs=1):
    return load_data(Data("gaussian", n=n, dim=d, outputs=outputs), np.random.SeedSequence(seed))


def from_arrays(x, y):
    return Loaded(x, y, y.shape[1], False, "", "")


def flat(objective, params, direction=None, size=0.0):
    """Parameters as one vector, and back with a step along `direction`."""
    from jax.flatten_util import ravel_pytree

    with precision("float64"):
        vector, unflatten = ravel_pytree(params)
        return vector if direction is None else unflatten(vector + size * direction)


@pytest.fixture(scope="module")
def small():
    return Objective(FullyConnected(2, 6, "tanh"), gaussian(11, 5, outputs=2), SEED)


def test_example_gradients_against_finite_differences(small):
    direction = np.random.default_rng(0).standard_normal(small.size)
    gradients = small.example_gradients(small.params, np.arange(small.n))

    def losses(size):
        r = small.residuals(flat(small, small.params, direction, size))
        return 0.5 * (r**2).sum(axis=1)

    h = 1e-4
    difference = (8 * (losses(h) - losses(-h)) - (losses(2 * h) - losses(-2 * h))) / (12 * h)
    assert np.abs(gradients @ direction - difference).max() < 1e-9 * np.abs(difference).max()


def test_example_gradients_against_a_loop(small):
    import equinox as eqx
    from jax.flatten_util import ravel_pytree

    together = small.example_gradients(small.params, np.arange(small.n))
    with precision("float64"):
        gradient = jax.jit(jax.grad(lambda p, x, y: example_loss(eqx.combine(p, small.static), x, y, "square")))
        alone = [np.asarray(ravel_pytree(gradient(small.params, small.x[i], small.y[i]))[0]) for i in range(small.n)]
    assert np.abs(together - np.array(alone)).max() < 1e-13
    norms, mean, loss = small.gradient_moments(small.params)
    assert np.allclose(norms, (together**2).sum(axis=1), rtol=1e-12)
    assert np.allclose(mean, together.mean(axis=0), atol=1e-14)
    assert loss == pytest.approx(small.loss(small.params), rel=1e-13)
    assert loss == pytest.approx(0.5 * (small.residuals(small.params) ** 2).sum() / small.n, rel=1e-13)


def test_chunks_do_not_matter(small):
    for chunk, factored in ((1, True), (4, True), (4, False)):  # 4 does not divide 11
        other = Objective(small.network, small.data, SEED, chunk=chunk, factored=factored)
        for a, b in zip(small.gradient_moments(small.params), other.gradient_moments(other.params), strict=True):
            assert np.allclose(a, b, rtol=1e-12, atol=1e-15)
        assert np.allclose(small.ntk(small.params), other.ntk(other.params), rtol=1e-11, atol=1e-14)
        v = np.arange(22.0)
        assert np.allclose(small.ntk_product(small.params, v), other.ntk_product(other.params, v), rtol=1e-11)
        assert np.allclose(small.jacobian_grams(small.params), other.jacobian_grams(other.params), rtol=1e-11)


@pytest.mark.parametrize("activation", ["linear", "tanh", "softsign", "arctan", "relu"])
def test_factored_norms_are_those_of_the_gradients(activation):
    """The product form of dense layers against automatic differentiation by all parameters; chunked, with biases."""
    network = FullyConnected(2, 6, activation, "ntk", bias=True)
    one, two = (Objective(network, gaussian(11, 5, outputs=2), SEED, chunk=4, factored=f) for f in (True, False))
    for a, b in zip(one.gradient_moments(one.params), two.gradient_moments(two.params), strict=True):
        assert np.allclose(a, b, rtol=1e-11, atol=1e-14)
    assert np.allclose(one.jacobian_grams(one.params), two.jacobian_grams(two.params), rtol=1e-11)
    assert np.allclose(one.ntk(one.params), two.ntk(two.params), rtol=1e-10, atol=1e-13)


def test_ntk_from_the_jacobian(small):
    K = small.ntk(small.params)
    v = np.random.default_rng(1).standard_normal(len(K))
    assert np.allclose(K @ v, small.ntk_product(small.params, v), rtol=1e-11)
    assert operator_norm(small) ** 2 == pytest.approx(np.linalg.eigvalsh(K)[-1], rel=1e-9)
    # Jacobian by finite differences of the residuals, one parameter after the other.
    h = 1e-5
    columns = [
        (small.residuals(flat(small, small.params, e, h)) - small.residuals(flat(small, small.params, e, -h))).ravel()
        / (2 * h)
        for e in np.eye(small.size)
    ]
    J = np.array(columns).T
    assert np.allclose(K, J @ J.T / small.n, atol=1e-8)
    blocks = small.jacobian_grams(small.params)
    assert np.allclose(blocks, [J[2 * i : 2 * i + 2] @ J[2 * i : 2 * i + 2].T for i in range(small.n)], atol=1e-7)


def test_diversity_and_second_moments(small):
    G = small.example_gradients(small.params, np.arange(small.n))
    found = gradient_statistics(small, batches=(1, 3, 11), draws=400, seed=np.random.SeedSequence(3))
    assert found["gradient_diversity"] == pytest.approx((G**2).sum() / (G.sum(axis=0) ** 2).sum(), rel=1e-12)
    assert found["batch_bound"] == pytest.approx(small.n * found["gradient_diversity"])
    spread = ((G - G.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert found["noise_scale"] == pytest.approx(spread / found["gradient_square_norm"], rel=1e-10)
    # Five intervals of 3.9 standard errors: false alarm 5e-4 (b = n has no spread at all).
    error = np.maximum(found["second_moment_error"], 1e-12)
    assert (np.abs(found["second_moment_sampled"] - found["second_moment"]) < 3.9 * error).all()


def test_second_moment_by_enumeration():
    from itertools import combinations, product

    rng = np.random.default_rng(2)
    G = rng.standard_normal((5, 3)) + 0.5
    norms, mean = (G**2).sum(axis=1), G.mean(axis=0) @ G.mean(axis=0)
    for b in range(1, 6):
        subsets = [(G[list(s)].mean(axis=0) ** 2).sum() for s in combinations(range(5), b)]
        assert second_moment(norms, mean, b, replacement=False) == pytest.approx(np.mean(subsets), rel=1e-12)
        tuples = [(G[list(s)].mean(axis=0) ** 2).sum() for s in product(range(5), repeat=b)]
        assert second_moment(norms, mean, b, replacement=True) == pytest.approx(np.mean(tuples), rel=1e-12)
        assert max(np.mean(subsets), np.mean(tuples)) <= lemma_bound(norms, mean, b)


def test_lemma_holds_for_gradients_that_cancel():
    """Negative inner products, where the paper's proof bounds terms by larger probabilities, do no harm."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        G = rng.standard_normal((6, 2))
        G -= rng.uniform(0, 1.2) * G.mean(axis=0)
        norms, mean = (G**2).sum(axis=1), G.mean(axis=0) @ G.mean(axis=0)
        for b in range(1, 7):
            for replacement in (False, True):
                assert second_moment(norms, mean, b, replacement=replacement) <= lemma_bound(norms, mean, b) * (
                    1 + 1e-12
                )


@pytest.mark.parametrize(("n", "d"), [(40, 7), (7, 40)])
def test_linear_least_squares_constants(n, d):
    x = np.random.default_rng(4).standard_normal((n, d)) * np.geomspace(1, 3, n)[:, None]
    objective = Objective(FullyConnected(0, 1, "linear"), from_arrays(x, x @ np.ones((d, 1))), SEED)
    found = tangent_statistics(objective, batches=(1, 5))
    norms = (x**2).sum(axis=1)
    assert found["gamma_max"] == pytest.approx(norms.max(), rel=1e-10)
    assert found["operator_norm"] == pytest.approx(np.linalg.norm(x, 2) / math.sqrt(n), rel=1e-10)
    assert found["beta"][1] == pytest.approx(norms.max() / 5 + np.linalg.norm(x, 2) ** 2 / n, rel=1e-10)
    assert found["critical_batch"] == pytest.approx(norms.max() / (np.linalg.norm(x, 2) ** 2 / n), rel=1e-10)
    gamma = found["gamma_min"]
    if n > d:
        A, B = x.T @ x, (x * norms[:, None]).T @ x
        root = np.linalg.inv(np.linalg.cholesky(A))
        assert gamma == pytest.approx(np.linalg.eigvalsh(root @ B @ root.T)[-1], rel=1e-9)
        assert norms.mean() < gamma < norms.max()
        assert found["ntk_smallest"] == 0
        assert np.linalg.eigvalsh(gamma * (1 + 1e-9) * A - B)[0] > 0
        assert np.linalg.eigvalsh(gamma * (1 - 1e-3) * A - B)[0] < 0
    else:
        assert gamma == pytest.approx(norms.max(), rel=1e-9)
        smallest = np.linalg.eigvalsh(x @ x.T / n)[0]
        assert found["ntk_smallest"] == pytest.approx(smallest, rel=1e-8)
        assert found["complexity"][1] == pytest.approx(found["beta"][1] / smallest, rel=1e-8)


def test_smallest_gamma_is_the_same_both_ways():
    # Twenty outputs and fewer parameters: the pencil among parameters, and among outputs, by forcing each route.
    objective = Objective(FullyConnected(1, 4, "linear"), gaussian(20, 3), SEED)
    K = objective.ntk(objective.params)
    primal = moment_constants(objective)[1]
    objective.size, size = 10**9, objective.size
    try:
        dual = moment_constants(objective, ntk=K)[1]
    finally:
        objective.size = size
    assert primal == pytest.approx(dual, rel=1e-8)


def arc_cosine_ntk(x):
    """NTK of ``sqrt(1/K) Σ a_k relu(w_k·x/sqrt(d))`` at infinite width, (n, n), without the 1/n."""
    d = x.shape[1]
    norms = np.linalg.norm(x, axis=1)
    cosine = np.clip(x @ x.T / np.outer(norms, norms), -1, 1)
    angle = np.arccos(cosine)
    kappa0 = (np.pi - angle) / (2 * np.pi)
    kappa1 = (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    return np.outer(norms, norms) / d * kappa1 + x @ x.T / d * kappa0


def test_wide_relu_ntk_converges_to_its_limit():
    data = gaussian(6, 5, seed=3)
    limit = arc_cosine_ntk(data.x) / data.n
    widths, errors = (16, 64, 256, 1024), []
    for K in widths:
        runs = [Objective(FullyConnected(1, K, "relu", "ntk"), data, np.random.SeedSequence(s)) for s in range(24)]
        squares = [np.sum((run.ntk(run.params) - limit) ** 2) for run in runs]
        errors.append(math.sqrt(np.mean(squares)) / np.linalg.norm(limit))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4  # 1/sqrt(K); towards a wrong limit the errors would stop falling
    assert errors[-1] < 0.07


def test_parametrisations_are_the_same_function():
    data = gaussian(5, 4)
    standard, ntk, unit = (
        Objective(FullyConnected(2, 8, "linear", p), data, SEED) for p in ("standard", "ntk", "unit")
    )
    out = [o.residuals(o.params) + data.y for o in (standard, ntk, unit)]
    assert np.allclose(out[0], out[1], rtol=1e-6)
    assert np.allclose(out[2], out[1] * math.sqrt(4 * 8 * 8), rtol=1e-6)


def test_random_weights_agree_with_the_theorem():
    """B_S of the same architecture through JAX and in closed form over the weights (ratio of means, 3.3 s.e.)."""
    from hdsgd.networks.theorems import exact_ratio

    network, pairs = FullyConnected(1, 6, "linear", "unit"), []
    for s in range(150):
        data = load_data(Data("gaussian", n=30, dim=5, teacher=network), np.random.SeedSequence(s))
        found = gradient_statistics(Objective(network, data, np.random.SeedSequence(1000 + s)))
        pairs.append((found["mean_square_norm"], found["gradient_square_norm"]))
    top, bottom = np.array(pairs).T
    ratio = top.mean() / bottom.mean()
    error = (top - ratio * bottom).std() / math.sqrt(len(top)) / bottom.mean()
    assert abs(ratio - exact_ratio(5, [6], 30)) < 3.3 * error


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (FullyConnected(1, 3), 64 * 3 + 3 * 10),
        (LeNet(1, 7, (2, 3)), 2 * 26 + 3 * 51 + 12 * 7 + 7 + 70 + 10),
        (ResNet((1, 1), 4), 36 + 2 * (144 + 8) - 0 - 0 + 8 + 288 + 576 + 32 + 32 + 90),
    ],
)
def test_image_networks(network, count):
    data = load_data(Data("digits", n=8), SEED)
    objective = Objective(network, data, SEED, loss="cross-entropy")
    assert objective.size == count
    norms, mean, loss = objective.gradient_moments(objective.params)
    G = objective.example_gradients(objective.params, np.arange(8))
    assert np.allclose((G**2).sum(axis=1), norms, rtol=1e-10)
    assert np.allclose(G.mean(axis=0), mean, atol=1e-12)
    assert 1.5 < loss < 6


def test_paper_sizes_without_training():
    from hdsgd.networks.architectures import build, parameter_count

    with precision("float32"):
        sizes = [
            parameter_count(build(spec, shape, outputs, SEED, "float32"))
            for spec, shape, outputs in (
                (LeNet(), (1, 28, 28), 10),
                (ResNet((2, 2, 2, 2)), (3, 32, 32), 10),
                (GPT(), (256,), 65),
            )
        ]
    assert sizes[0] == 431_080  # Table 1 of Chen et al.: 431k
    assert sizes[1] == pytest.approx(11.17e6, rel=0.002)  # 11m
    assert sizes[2] == pytest.approx(10.7e6, rel=0.01)


def test_gpt_is_causal_and_starts_at_chance(tmp_path):
    (tmp_path / "t.txt").write_text("the quick brown fox jumps over the lazy dog. " * 4)
    data = load_data(Data("text", str(tmp_path / "t.txt"), context=12), SEED)
    objective = Objective(GPT(2, 2, 8, 12), data, SEED, loss="cross-entropy")
    assert objective.loss(objective.params) == pytest.approx(math.log(data.d_out), rel=0.01)
    import equinox as eqx

    with precision("float64"):
        run = jax.jit(lambda x: eqx.combine(objective.params, objective.static)(x))
        x = np.array(data.x[0])
        y = x.copy()
        y[7] = (y[7] + 1) % data.d_out
        a, b = np.asarray(run(x)), np.asarray(run(y))
    assert np.allclose(a[:7], b[:7], atol=1e-12)
    assert np.abs(a[7:] - b[7:]).max() > 1e-4
    found = gradient_statistics(objective, batches=(2,))
    assert found["second_moment"][0] <= found["lemma_bound"][0]
