"""Small studies that are stored, interrupted and resumed: phase diagrams, and the same for the command line."""

import numpy as np

from hdsgd import Problem, phase_diagram
from hdsgd.policies import Plane, StopRule, Store
from hdsgd.studies import log

PROBLEM = Problem("he2", "he2")
SMALL = {"dims": [40, 60], "plane": Plane([0.0, 1.0], [-0.5, 0.5, 1.0]), "algorithms": ["projected"], "replicas": 2,
         "stop": StopRule(max_cost=2e4), "engine": "reduced"}  # fmt: skip
#: As SMALL, for the command line.
OPTIONS = ["phase-diagram", "--target", "he2", "--activation", "he2", "--dims", "40,60", "--mu", "0,1", "--delta",
           "-0.5,0.5,1", "--algorithm", "projected", "--replicas", "2", "--max-cost", "2e4",
           "--engine", "reduced"]  # fmt: skip
#: Slow enough to be interrupted, on a busy machine too.
LONG = {"dims": [60], "plane": Plane([0.0, 0.5, 1.0, 1.3, 1.6], np.linspace(0.0, 1.35, 10).round(3).tolist()),
        "algorithms": ["projected"], "replicas": 8, "stop": StopRule(max_cost=1e6),
        "engine": "direct"}  # fmt: skip
LONG_OPTIONS = ["phase-diagram", "--target", "he2", "--activation", "he2", "--dims", "60", "--mu", "0,0.5,1,1.3,1.6",
                "--delta", "0:1.35:10", "--algorithm", "projected", "--replicas", "8", "--max-cost", "1e6",
                "--engine", "direct", "--threads", "2"]  # fmt: skip


def same(one, other):
    """Whether two Datasets are equal in everything but the time it took."""
    return one.identical(other.assign_attrs(timings=one.attrs["timings"]))


def count_written(folder):
    """How many records are in the logs of a store, by marks alone; the folder may come and go meanwhile."""
    try:
        return sum(path.read_bytes().count(log.MARK) for path in folder.glob("*.log"))
    except FileNotFoundError:
        return 0


def run(path, *, resume=False, overwrite=False, **options):
    """SMALL, stored if there is a path."""
    store = None if path is None else Store(path, resume, overwrite)
    return phase_diagram(PROBLEM, store=store, **{**SMALL, **options})
