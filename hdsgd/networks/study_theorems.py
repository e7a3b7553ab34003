"""Monte Carlo checks of Chen et al.'s theorems over grids of depths, widths, dimensions and numbers of examples."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError
from hdsgd.networks.studies import NetworkStudy, add_status
from hdsgd.networks.theorems import (
    bound_theorem3,
    exact_ratio,
    find_bounded_odd,
    linear_moments,
    ratio_of_means,
    scaling_theorem1,
    scaling_theorem2,
    two_layer_moments,
)
from hdsgd.networks.variables import finish
from hdsgd.policies import SEED, Store, Workers
from hdsgd.records import Record
from hdsgd.seeds import cell_seed
from hdsgd.studies.runner import check_before, run_study
from hdsgd.studies.study import Context, Index, Results

__all__ = ["TheoremCheck", "TheoremStudy", "theorem_check"]


@dataclass(frozen=True)
class TheoremCheck(Record):
    """Monte Carlo of Chen et al.'s Theorem 1, 2 or 3 over a grid.

    Parameters
    ----------
    theorem : {1, 2, 3}
        1: ``B_S`` of two-layer linear networks on n examples.  2: the ratio of expectations of two-layer networks with
        an odd activation.  3: the ratio of expectations of deep linear networks, against the bound (4.1).
    depths : tuple of int
        Weight matrices ``L`` (2 for Theorems 1 and 2).
    widths, dims : tuple of int
        ``K`` (all hidden layers) and ``d``.
    examples : tuple of float
        ``n``; infinity (as ``"inf"`` in JSON) integrates the inputs out exactly (linear networks).
    draws : int
    activation : {"tanh", "softsign", "arctan"}
        Of Theorem 2.
    confidence : float
        Of the intervals of the ratio.

    Raises
    ------
    SpecificationError
        If a number is out of range.
    """

    theorem: int = 3
    depths: tuple[int, ...] = (2, 3, 4, 6)
    widths: tuple[int, ...] = (4, 8, 16, 32, 64)
    dims: tuple[int, ...] = (20,)
    examples: tuple[float, ...] = (math.inf,)
    draws: int = 4000
    activation: str = "tanh"
    confidence: float = 0.99

    def __post_init__(self) -> None:
        object.__setattr__(self, "theorem", whole("theorem", self.theorem, low=1, high=3))
        if self.theorem < 3 and tuple(self.depths) != (2,):
            raise SpecificationError(f"Theorem {self.theorem} is about two weight matrices: depths must be (2,)")
        for name in ("depths", "widths", "dims"):
            numbers = sorted({whole(name, v, low=2) for v in getattr(self, name)})
            if not numbers:
                raise SpecificationError(f"{name} must not be empty")
            object.__setattr__(self, name, tuple(numbers))
        sizes = sorted({math.inf if float(n) == math.inf else whole("examples", n, low=2) for n in self.examples})
        if not sizes or (self.theorem == 2 and math.inf in sizes):
            raise SpecificationError("examples must be numbers, finite ones for Theorem 2")
        object.__setattr__(self, "examples", tuple(sizes))
        object.__setattr__(self, "draws", whole("draws", self.draws, low=2))
        find_bounded_odd(self.activation)
        object.__setattr__(self, "confidence", finite("confidence", self.confidence, low=0.5, high=0.999999))

    def to_dict(self) -> dict[str, Any]:
        # JSON knows no infinity.
        return {**super().to_dict(), "examples": ["inf" if math.isinf(n) else n for n in self.examples]}


def theorem_check(
    spec: TheoremCheck,
    *,
    seed: int = SEED,
    store: Store | str | os.PathLike[str] | None = None,
    workers: Workers = Workers(),
    progress: bool = False,
) -> xr.Dataset:
    """Monte Carlo of the two expectations (or of ``B_S``) at random weights, against the theorem.

    Parameters
    ----------
    spec : TheoremCheck
    seed : int
        A cell of the grid draws the same numbers in whatever grid it lies.
    store, workers, progress
        As in `hdsgd.phase_diagram`.

    Returns
    -------
    xarray.Dataset
        Dims ``depth, width, dim, examples, draw``: ``numerator``, ``denominator``, ``diversity_bound``, ``ratio`` with
        ``ratio_low`` and ``ratio_high``, ``ratio_exact`` (NaN for Theorem 2) and ``bound``.
    """
    started = time.perf_counter()
    check_before(store, workers)
    study = TheoremStudy({**spec.to_dict(), "seed": whole("seed", seed)})
    return run_study(study, store=store, workers=workers, progress=progress, started=started)


@dataclass(frozen=True)
class TheoremCell:
    """All draws of one depth, width, dimension and number of examples."""

    theorem: int
    depth: int
    width: int
    dim: int
    examples: float
    draws: int
    activation: str
    seed: int

    def run(self, context: Context) -> Mapping[str, Any]:
        """``numerator`` and ``denominator`` (draw,)."""
        L, K, d, n = self.depth, self.width, self.dim, self.examples
        # Theorems 1 and 3 draw the same numbers.
        address = {"theorem": 2 if self.theorem == 2 else 3, "L": L, "K": K, "d": d, "n": str(n)}
        rng = np.random.default_rng(cell_seed(self.seed, address))
        if self.theorem != 2:
            numerator, denominator = linear_moments(d, [K] * (L - 1), n, self.draws, rng)
            return {"numerator": numerator, "denominator": denominator}
        pairs = []
        for _ in range(self.draws):
            context.canceller.check()
            pairs.append(two_layer_moments(d, K, int(n), self.activation, rng))
        return dict(zip(("numerator", "denominator"), np.array(pairs).T, strict=True))


class TheoremStudy(NetworkStudy):
    """`theorem_check` as a study."""

    kind = "theorem-check"
    dims = ("depth", "width", "dim", "examples")
    record_type = TheoremCheck
    grouped = 2

    def _axis(self, dim: str) -> tuple[Any, ...]:
        spec = self.spec
        return {"depth": spec.depths, "width": spec.widths, "dim": spec.dims, "examples": spec.examples}[dim]

    def labels(self, dim: str) -> list[str]:
        """Values along a dim."""
        return [f"{value:g}" for value in self._axis(dim)]

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The two moments of every draw."""
        return {name: ("f8", (self.spec.draws,)) for name in ("numerator", "denominator")}

    def costs(self) -> NDArray[np.float64]:
        """Weights and inputs drawn."""
        L, K, d, n = np.ix_(*(np.array(self._axis(dim), dtype=np.float64) for dim in self.dims))
        costs = (d * K + (L - 2) * K**2 + np.where(np.isinf(n), 0, n) * (d + K)) * self.spec.draws
        return np.asarray(np.broadcast_to(costs, self.shape))

    def cell(self, index: Index) -> TheoremCell:
        """One place of the grid."""
        spec = self.spec
        L, K, d, n = (self._axis(dim)[i] for dim, i in zip(self.dims, index, strict=True))
        return TheoremCell(spec.theorem, L, K, d, n, spec.draws, spec.activation, self.specification["seed"])

    def assemble(self, results: Results) -> xr.Dataset:
        """The draws, their ratio with its interval, and the theorem's side."""
        spec = self.spec
        numerator, denominator = self.values(results, "numerator"), self.values(results, "denominator")
        ratio, low, high, exact, bound = np.full((5, *self.shape), np.nan)
        for index in np.ndindex(self.shape):
            L, K, d, n = (self._axis(dim)[i] for dim, i in zip(self.dims, index, strict=True))
            widths = [K] * (L - 1)
            if spec.theorem == 2:
                bound[index] = scaling_theorem2(d, K)
            else:
                exact[index] = exact_ratio(d, widths, n)
                bound[index] = scaling_theorem1(d, K, n) if spec.theorem == 1 else bound_theorem3(d, widths)
            ratio[index], low[index], high[index] = ratio_of_means(
                numerator[index], denominator[index], spec.confidence
            )
        dataset = xr.Dataset(
            {
                "numerator": ((*self.dims, "draw"), numerator),
                "denominator": ((*self.dims, "draw"), denominator),
                "diversity_bound": ((*self.dims, "draw"), numerator / denominator),
                "ratio": (self.dims, ratio),
                "ratio_low": (self.dims, low),
                "ratio_high": (self.dims, high),
                "ratio_exact": (self.dims, exact),
                "bound": (self.dims, bound),
            },
            coords={
                "depth": list(spec.depths),
                "width": list(spec.widths),
                "dim": list(spec.dims),
                "examples": np.array(spec.examples, dtype=np.float64),
                "draw": np.arange(spec.draws),
            },
        )
        return finish(add_status(dataset, self, results), self.kind, self.specification, self.specification["seed"], {})

    def describe(self) -> list[str]:
        """Theorem and draws."""
        spec = self.spec
        what = f", {spec.activation}" if spec.theorem == 2 else ""
        return [f"study   Theorem {spec.theorem}{what}; {spec.draws} draws, seed {self.specification['seed']}"]
