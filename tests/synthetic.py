"""Phase diagrams of known exponents, without simulations."""

import json

import numpy as np
import xarray as xr

from hdsgd import Problem
from hdsgd.outcomes import OUTCOMES
from hdsgd.problem.constraints import ALGORITHMS
from hdsgd.theory.phases import exponent
from hdsgd.theory.prefactors import drift_time


def phase_diagram(
    ell=2, *, dims=(256, 512, 1024, 2048), mu=(0.0, 0.5, 1.0, 1.5, 2.0), delta=(-0.5, 0.0, 0.5, 1.0, 1.5),
    algorithms=tuple(ALGORITHMS), replicas=16, spread=0.4, patience=None, theta=None, prefactor=3.0, seed=0, n0=1.0,
    finite_size=True,
):  # fmt: skip
    """Log-normal times ``prefactor d^θ`` with the drift's finite-size factor, rounded up; theory's θ by default.

    Runs are censored at `patience` times the typical time; where theory does not recover, all are, at 1000 steps.
    """
    rng = np.random.default_rng(seed)
    d, mu, delta = np.array(dims, dtype=np.float64), np.array(mu), np.array(delta)
    c = max(ell, 2)
    shape = (len(algorithms), len(d), len(mu), len(delta))
    typical, n = np.empty(shape), d[:, None, None]
    for a, name in enumerate(algorithms):
        slope = exponent(mu[:, None], delta[None, :], ell, name) if theta is None else np.full(shape[2:], theta)
        factor = np.array([drift_time(ell, 1.0, int(value), 0.5) for value in d]) / d ** (c / 2 - 1)
        slow = (delta >= 1 - c / 2) if ell <= 2 else (delta > 1 - c / 2)
        typical[a] = prefactor * n**slope * (np.where(slow, factor[:, None, None], 1.0) if finite_size else 1.0)
    z = rng.standard_normal((*shape, replicas))
    t = np.ceil(typical[..., None] * np.exp(spread * z))
    allowed = np.where(np.isfinite(typical), np.ceil((patience or np.inf) * typical), 1000.0)
    recovered = np.isfinite(t) & (t <= allowed[..., None])
    time = np.where(recovered, t, np.minimum(allowed, 2.0**60)[..., None]).astype(np.int64)
    batch = np.maximum(1, np.round(n0 * d[:, None] ** mu)).astype(np.int64)
    problem = Problem(f"he{ell}", f"he{ell}").to_dict()
    rules = {
        rule.name: {"loss": rule.loss, "constraint": rule.constraint, "n0": n0, "gamma0": 1.0, "exponent": ell}
        for rule in map(ALGORITHMS.__getitem__, algorithms)
    }
    specification = {
        "dims": list(dims), "mu": mu.tolist(), "delta": delta.tolist(), "eta": 0.5, "algorithms": rules,
        "problem": problem,
    }  # fmt: skip
    cells = ("algorithm", "dim", "mu", "delta")
    return xr.Dataset(
        {
            "recovery_time": ((*cells, "replica"), time),
            "recovered": ((*cells, "replica"), recovered),
            "status": (
                (*cells, "replica"),
                np.where(recovered, OUTCOMES["recovered"], OUTCOMES["censored"]).astype(np.int8),
            ),
            "steps_allowed": (cells, np.minimum(allowed, 2.0**60).astype(np.int64)),
            "predicted_time": (cells, typical),
        },
        coords={
            "algorithm": list(algorithms),
            "dim": list(dims),
            "mu": mu,
            "delta": delta,
            "replica": np.arange(replicas),
            "batch": (("algorithm", "dim", "mu"), np.broadcast_to(batch, (len(algorithms), *batch.shape))),
            "lr": (
                ("algorithm", "dim", "delta"),
                np.broadcast_to(d[:, None] ** -delta, (len(algorithms), len(d), len(delta))),
            ),
        },
        attrs={"kind": "phase-diagram", "specification": json.dumps(specification, sort_keys=True)},
    )
