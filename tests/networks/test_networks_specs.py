"""Specifications, the width solver, presets and the rule that nothing imports JAX before it is needed."""

import subprocess
import sys

import pytest

from hdsgd.errors import SpecificationError
from hdsgd.networks import GPT, Data, Epochs, FullyConnected, LeNet, Network, ResNet, Saturation, solve_width
from hdsgd.networks.presets import DIVERSITY, EPOCHS, SATURATION
from hdsgd.networks.specs import count_parameters


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize(("budget", "d_in", "d_out"), [(16_000, 784, 10), (262_000, 5000, 2), (2048, 32, 1)])
def test_width_solver_is_nearest(depth, budget, d_in, d_out):
    K = solve_width(budget, depth, d_in, d_out)
    here = abs(count_parameters(depth, K, d_in, d_out) - budget)
    for other in (K - 1, K + 1):
        assert other < 1 or here <= abs(count_parameters(depth, other, d_in, d_out) - budget)
    # The equation itself, solved by bisection.
    low, high = 0.0, float(budget)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if count_parameters(depth, middle, d_in, d_out) < budget else (low, middle)
    assert abs(K - low) < 1


def test_width_solver_refuses_the_impossible():
    with pytest.raises(SpecificationError, match="need at least"):
        solve_width(100, 3, 784, 10)


@pytest.mark.parametrize("network", [FullyConnected(3, 8, "tanh"), LeNet(), ResNet((3, 4, 6, 3)), GPT(2, 2, 8, 16)])
def test_networks_survive_json(network):
    import json

    assert Network.from_dict(json.loads(network.to_json())) == network
    assert network.digest == Network.from_dict(network.to_dict()).digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FullyConnected(activation="swish"), "unknown network activation 'swish'; choose from linear"),
        (lambda: FullyConnected(width=0), "width must be"),
        (lambda: Network.from_dict({"kind": "vgg"}), "choose from fully-connected, lenet, resnet, gpt"),
        (lambda: GPT(heads=5), "multiple of heads"),
        (lambda: Data("gaussian"), "need n and dim"),
        (lambda: Data("digits", dim=3), "belongs to gaussian"),
        (lambda: Data("openml"), "need a name"),
        (lambda: Saturation(loss="cross-entropy"), "give lr"),
        (lambda: Saturation(lr=0.1, stepsize="theorem"), "not both"),
        (lambda: Epochs(measure="perplexity"), "choose from loss, accuracy"),
        (lambda: Epochs(target=1.2), "target must be"),
    ],
)
def test_mistakes_get_one_line(make, message):
    with pytest.raises(SpecificationError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", [SATURATION, EPOCHS, DIVERSITY])
def test_presets_survive_json(table):
    for make in table.values():
        spec = make()
        again = type(spec).from_json(spec.to_json())
        assert again == spec
        assert again.digest == spec.digest


def test_paper_presets():
    mnist = SATURATION["mnist"]()
    assert (mnist.network.depth, mnist.network.width, mnist.steps) == (3, 1000, 4000)
    assert (SATURATION["svhn"]().network.width, SATURATION["svhn"]().steps) == (2000, 20_000)
    gpt = SATURATION["nanogpt"]().network
    assert (gpt.layers, gpt.heads, gpt.channels, gpt.context) == (6, 6, 384, 256)
    for name, budget, d_in, d_out in (("mnist", 16_000, 784, 10), ("gisette", 262_000, 5000, 2)):
        for x in EPOCHS[name]().networks:
            # One unit more or less is d_in + d_out weights and more.
            assert abs(count_parameters(x.depth, x.width, d_in, d_out) / budget - 1) < 0.05
        assert EPOCHS[name]().batches == tuple(2**k for k in range(5, 13))


def test_nothing_imports_jax():
    code = (
        "import sys, hdsgd, hdsgd.networks, hdsgd.networks.presets, hdsgd.networks.plots, hdsgd.networks.data; "
        "import hdsgd_cli.saturation, hdsgd_cli.epochs, hdsgd_cli.diversity; "
        "print([m for m in ('jax', 'equinox', 'optax', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_the_commands_say_what_to_install(monkeypatch):
    import importlib.util

    from hdsgd.networks import saturation

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "jax" else find(name, *a))
    with pytest.raises(SpecificationError, match=r'networks need jax.*pip install "hdsgd\[networks\]"'):
        saturation(Saturation())
