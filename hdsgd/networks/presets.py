"""Ready specifications: small ones that run in a minute or two on two cores, and the papers' settings.

The papers do not print their step sizes (the saturation paper) or grids (Chen et al.); those here are choices.  Imports
no JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hdsgd.networks.specs import GPT, Data, FullyConnected, LeNet, ResNet, solve_width
from hdsgd.networks.study_diversity import Diversity
from hdsgd.networks.study_epochs import Epochs, fixed_budget_family
from hdsgd.networks.study_saturation import Saturation
from hdsgd.networks.study_theorems import TheoremCheck

__all__ = ["DIVERSITY", "EPOCHS", "SATURATION"]


def _grid(low: float, high: float, per_decade: int) -> tuple[float, ...]:
    """Step sizes from `low` to `high`, evenly spaced in the logarithm, to three digits."""
    import math

    count = round(math.log10(high / low) * per_decade)
    return tuple(float(f"{low * (high / low) ** (i / count):.3g}") for i in range(count + 1))


#: `hdsgd saturation --preset`.
SATURATION: dict[str, Callable[[], Saturation]] = {
    "small": lambda: Saturation(
        FullyConnected(3, 256, "tanh"), Data("digits", n=1024, normalise="centre"), steps=1000, lr_fraction=4.0
    ),
    "least-squares": lambda: Saturation(
        FullyConnected(0, 1, "linear"), Data("gaussian", n=128, dim=512), steps=2000, lr_fraction=1.0, dtype="float64",
        replicas=4,
    ),
    "small-theorem": lambda: Saturation(
        FullyConnected(3, 256, "tanh"), Data("digits", n=512, normalise="centre"), steps=500, stepsize="theorem"
    ),
    "mnist": lambda: Saturation(
        FullyConnected(3, 1000), Data("openml", "mnist"), steps=4_000, lr_fraction=4.0
    ),
    "svhn": lambda: Saturation(
        FullyConnected(3, 2000), Data("openml", "svhn"), steps=20_000, lr_fraction=4.0
    ),
    "svhn-100k": lambda: Saturation(
        FullyConnected(3, 2000), Data("openml", "svhn"), steps=100_000, lr_fraction=4.0
    ),
    "cifar10-12k": lambda: Saturation(
        ResNet((4, 4, 4), 16), Data("openml", "cifar10"), steps=12_000, lr_fraction=4.0, constants_from=256
    ),
    "cifar10-100k": lambda: Saturation(
        ResNet((4, 4, 4), 16), Data("openml", "cifar10"), steps=100_000, lr_fraction=4.0, constants_from=256
    ),
    "nanogpt": lambda: Saturation(
        GPT(), Data("text", "input.txt", context=256), steps=5_000, lr=0.05, loss="cross-entropy"
    ),
}  # fmt: skip

_DEPTHS = (1, 2, 4, 7, 10)
_BATCHES = tuple(2**k for k in range(5, 13))


def _family(budget: int, d_in: int, d_out: int, activation: str = "relu", depths: tuple[int, ...] = _DEPTHS) -> Any:
    return fixed_budget_family(budget, depths, d_in, d_out, FullyConnected(activation=activation))


#: `hdsgd epochs --preset`.  Families at the parameter budgets of Chen et al.'s Table 1.
EPOCHS: dict[str, Callable[[], Epochs]] = {
    "small": lambda: Epochs(
        _family(2048, 32, 1, "linear", (1, 2, 4, 8)), Data("gaussian", n=2048, dim=32),
        batches=(32, 64, 128, 256, 512, 1024), measure="loss", target=1e-6, relative=True, loss="square",
        rates=_grid(0.01, 1.0, 4), max_epochs=60, diversity_every=2, replicas=5,
    ),
    "digits": lambda: Epochs(
        _family(4096, 64, 10, depths=(1, 2, 4, 8)), Data("digits", n=1536), batches=(32, 64, 128, 256, 512),
        rates=_grid(0.01, 1.0, 3), max_epochs=80, diversity_every=5, replicas=5,
    ),
    "synthetic": lambda: Epochs(
        _family(16_000, 100, 1, "linear"),
        Data("gaussian", n=10_000, dim=100, teacher=FullyConnected(2, 100, "linear", "unit")),
        batches=_BATCHES, measure="loss", target=1e-12, relative=True, loss="square",
        dtype="float64", rates=_grid(0.001, 1.0, 4), max_epochs=200, replicas=5,
    ),
    "mnist": lambda: Epochs(
        _family(16_000, 784, 10), Data("openml", "mnist"), batches=_BATCHES, rates=_grid(0.001, 1.0, 4), max_epochs=300,
        replicas=5,
    ),
    "mnist-lenet": lambda: Epochs(
        tuple(LeNet(L, solve_width(405_000, L, 800, 10)) for L in _DEPTHS), Data("openml", "mnist"),
        batches=_BATCHES, target=0.98, rates=_grid(0.001, 1.0, 4), max_epochs=200, replicas=5,
    ),
    "emnist": lambda: Epochs(
        _family(16_000, 784, 47), Data("openml", "emnist"), batches=_BATCHES, target=0.65, rates=_grid(0.001, 1.0, 4),
        max_epochs=300, replicas=5,
    ),
    "gisette": lambda: Epochs(
        _family(262_000, 5000, 2), Data("openml", "gisette"), batches=_BATCHES, target=0.95, rates=_grid(0.001, 1.0, 4),
        max_epochs=300, replicas=5,
    ),
    "cifar10-resnet18": lambda: Epochs(
        (ResNet((1, 1, 1, 1), 97), ResNet((2, 2, 2, 2), 64), ResNet((3, 3, 3, 3), 51)), Data("openml", "cifar10"),
        batches=_BATCHES, target=0.95, rates=_grid(0.001, 1.0, 4), max_epochs=200, diversity_every=0, replicas=5,
    ),
    "cifar10-resnet34": lambda: Epochs(
        (ResNet((2, 3, 5, 2), 76), ResNet((3, 4, 6, 3), 64), ResNet((4, 5, 7, 4), 56)), Data("openml", "cifar10"),
        batches=_BATCHES, target=0.95, rates=_grid(0.001, 1.0, 4), max_epochs=200, diversity_every=0, replicas=5,
    ),
}  # fmt: skip

#: `hdsgd diversity --preset`: networks on data, or a theorem's Monte Carlo.
DIVERSITY: dict[str, Callable[[], Diversity | TheoremCheck]] = {
    "small": lambda: Diversity(
        tuple(FullyConnected(L, K, "linear", "unit") for L in (1, 2, 4) for K in (8, 24, 64)),
        Data("gaussian", n=256, dim=32), matched_teacher=True, replicas=8, dtype="float64", draws=32,
        batches=(1, 8, 64, 256), limit=1024,
    ),
    "digits": lambda: Diversity(
        tuple(FullyConnected(L, K, "tanh") for L in (1, 2, 4) for K in (8, 16, 32, 64)),
        Data("digits", n=512, normalise="centre", labels="parity"), replicas=4, dtype="float64",
        batches=(1, 4, 16, 64, 256, 512), draws=32,
    ),
    "theorem1": lambda: TheoremCheck(
        1, (2,), (2, 4, 8, 16, 32, 64, 128), (10, 40), (50.0, 500.0, float("inf")), draws=1000
    ),
    "theorem2": lambda: TheoremCheck(2, (2,), (2, 4, 8, 16, 32, 64, 128), (10, 20, 40), (400.0,), draws=40),
    "theorem3": lambda: TheoremCheck(
        3, (2, 3, 4, 6), (4, 8, 16, 32, 64), (20, 100), (float("inf"),), draws=2000
    ),
}  # fmt: skip
