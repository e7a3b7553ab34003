"""Finite data sets and trained networks: gradient diversity, batch saturation, epochs to a target.

The definitions are those of theory §7 and of two papers:

- "Chen et al.": Chen, Wang, Zhao, Koutris and Papailiopoulos, *The effect of network width on the performance of
  large-batch training*, NeurIPS 2018 (gradient diversity, width and depth);
- "the saturation paper": *SGD batch saturation for training wide neural networks* (critical batch size, h(b)).

Running a network needs the optional extra,
``pip install "hdsgd[networks]"`` (JAX, Equinox, Optax, scikit-learn); specifications, presets, figures and the theorem
checks do without it, and importing this package never imports JAX.
"""

from hdsgd.networks.specs import GPT, Data, FullyConnected, LeNet, Network, ResNet, solve_width
from hdsgd.networks.study_diversity import Diversity, diversity
from hdsgd.networks.study_epochs import Epochs, epochs, fixed_budget_family
from hdsgd.networks.study_saturation import Saturation, saturation
from hdsgd.networks.study_theorems import TheoremCheck, theorem_check

__all__ = [
    "GPT",
    "Data",
    "Diversity",
    "Epochs",
    "FullyConnected",
    "LeNet",
    "Network",
    "ResNet",
    "Saturation",
    "TheoremCheck",
    "diversity",
    "epochs",
    "fixed_budget_family",
    "saturation",
    "solve_width",
    "theorem_check",
]
