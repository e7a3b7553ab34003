"""Settings of `digests.py` for finite data sets and trained networks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from digest_adapters import (
    Arrays,
    network_bridge,
    network_diversity,
    network_epochs,
    network_saturation,
    network_theorem,
    network_widths,
)  # fmt: skip
from digest_problems import Settings


def network_settings() -> Settings:
    def dense(depth: int, width: int, activation: str, **options: Any) -> dict[str, Any]:
        return {"kind": "fully-connected", "depth": depth, "width": width, "activation": activation, **options}

    def characters() -> Arrays:
        text = "".join(chr(97 + n * n % 11) for n in range(12 * 17 + 1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "text.txt")
            path.write_text(text)
            return network_saturation({
                "network": {"kind": "gpt", "layers": 1, "heads": 2, "channels": 8, "context": 12},
                "data": {"source": "text", "name": str(path), "context": 12}, "steps": 4, "points": 2, "batches": [4],
                "lr": 0.05, "loss": "cross-entropy",
            })  # fmt: skip

    gaussian = {"source": "gaussian", "n": 48, "dim": 8}
    infinite, linear = float("inf"), {"parametrisation": "unit"}
    return {
        "networks: diversity, gaussian data": lambda: network_diversity({
            "networks": [dense(1, 6, "linear", **linear), dense(2, 4, "linear", **linear)], "data": gaussian,
            "matched_teacher": True, "replicas": 2, "dtype": "float64", "draws": 8, "batches": [1, 8, 48],
        }),
        "networks: diversity, digits": lambda: network_diversity({
            "networks": [dense(1, 8, "tanh")], "data": {"n": 64, "normalise": "centre", "labels": "parity"},
            "replicas": 2, "batches": [1, 16],
        }),
        "networks: diversity, few parameters, matrices too large": lambda: {
            f"{limit}.{name}": array
            for limit in (1000, 4)
            for name, array in network_diversity({
                "networks": [dense(0, 1, "linear")], "data": {**gaussian, "outputs": 2, "noise": 0.1},
                "dtype": "float64", "limit": limit, "replicas": 2, "batches": [4],
            }).items()
        },
        "networks: diversity, convolutions": lambda: network_diversity({
            "networks": [{"kind": "lenet", "width": 7, "channels": [2, 3]},
                         {"kind": "resnet", "blocks": [1, 1], "channels": 4}],
            "data": {"n": 24}, "replicas": 1, "batches": [8], "tangent": False, "loss": "cross-entropy",
        }),
        "networks: theorem 1": lambda: network_theorem(
            {"theorem": 1, "depths": [2], "widths": [2, 8], "dims": [10], "examples": [50.0, infinite], "draws": 200}
        ),
        "networks: theorem 2": lambda: network_theorem(
            {"theorem": 2, "depths": [2], "widths": [2, 8], "dims": [10], "examples": [100.0], "draws": 20,
             "activation": "softsign"}
        ),
        "networks: theorem 3": lambda: network_theorem(
            {"theorem": 3, "depths": [2, 4], "widths": [4, 16], "dims": [20], "examples": [infinite], "draws": 200}
        ),
        "networks: saturation, least squares": lambda: network_saturation({
            "network": dense(0, 1, "linear"), "data": {**gaussian, "dim": 64}, "steps": 60, "points": 6,
            "batches": [8], "lr_fraction": 1.0, "dtype": "float64", "replicas": 2,
        }),
        "networks: saturation, digits": lambda: network_saturation({
            "network": dense(2, 12, "tanh", parametrisation="ntk"), "data": {"n": 64, "normalise": "centre"},
            "steps": 30, "points": 3, "batches": [8], "stepsize": "theorem", "constants_from": 40,
        }),
        "networks: saturation, cross-entropy": lambda: network_saturation({
            "network": dense(1, 12, "relu", bias=True), "data": {"n": 64}, "steps": 30, "points": 3, "batches": [8],
            "lr": 0.05, "loss": "cross-entropy",
        }),
        "networks: saturation, characters": characters,
        "networks: epochs to a loss": lambda: network_epochs({
            "networks": [dense(1, 6, "linear"), dense(2, 5, "linear")], "data": gaussian, "batches": [8, 16],
            "measure": "loss", "target": 0.05, "relative": True, "loss": "square", "rates": [0.03, 0.1],
            "max_epochs": 12, "diversity_every": 4, "replicas": 2,
        }),
        "networks: epochs to an accuracy": lambda: network_epochs({
            "networks": [dense(1, 16, "relu")], "data": {"n": 128}, "batches": [16, 32], "target": 0.9,
            "rates": [0.05, 0.2], "max_epochs": 8, "epoch_budget": 6, "diversity_every": 2, "replicas": 1,
            "sampling": "replacement",
        }),
        "networks: widths of a budget": lambda: network_widths(16_000, [1, 2, 4, 7, 10], 784, 10),
        "networks: bridge": lambda: network_bridge(
            {"target": "he2", "activation": "he2", "width": 2, "noise": 0.1, "constraint": "spherical"}, dim=16, n=64,
            batch=8, lr=0.02, steps=30, save_points=5, replicas=2
        ),
    }  # fmt: skip
