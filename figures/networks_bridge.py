"""Gradient diversity of the Gaussian model beside the empirical one of the same network on finite data.

    python figures/networks_bridge.py [folder]

Writes bridge.nc and bridge.png; half a minute on one core.
"""

import sys
from pathlib import Path

from hdsgd.networks.bridge import bridge
from hdsgd.plotting.figures import figure
from hdsgd.problem.model import Problem, Student
from hdsgd.results.files import save

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
problem = Problem("he2", Student("he2", 2), noise=0.1)
dataset = bridge(problem, dim=128, n=4096, batch=64, lr=0.02, steps=300, replicas=8, progress=True)
save(dataset, folder / "bridge.nc", overwrite=True)
figure(dataset).savefig(folder / "bridge.png")
