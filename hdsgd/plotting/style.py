"""One style for all pictures: colours, bands, sizes, titles; and the checks that every picture begins with.

Theory is drawn in black, what did not happen in grey; replicas are a median with a band.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hdsgd.errors import SpecificationError
from hdsgd.results.schema import notes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ALGORITHM_STYLES",
    "BAND",
    "GREY",
    "LEVELS",
    "check_holds",
    "describe_problem",
    "new_axes",
    "plot_band",
    "project_style",
]

GREY = "#8c8c8c"
#: Fill of cells that did not recover, their marks, and the hatch of those that say nothing.
PALE, MARK, HATCH = "#dcdcdc", "#707070", "#c0c0c0"
#: Colour map of sizes and times: more is darker.
LEVELS = "viridis_r"
#: Colours (Okabe and Ito's, distinct for every kind of colour vision) and markers of the algorithms.
ALGORITHM_STYLES = {"projected": ("#0072B2", "o"), "correlation": ("#D55E00", "s"), "spherical": ("#009E73", "^")}
#: Quantiles that bound the band of replicas: it holds 80 % of them.
BAND = (0.1, 0.9)

_SETTINGS: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 200}


@contextlib.contextmanager
def project_style() -> Iterator[None]:
    """Within this context Matplotlib draws in the style of this project."""
    from matplotlib import rc_context

    with rc_context(_SETTINGS):
        yield


def new_axes() -> Axes:
    """Axes of a new figure of pyplot, as a notebook shows it."""
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def check_holds(dataset: xr.Dataset, *names: str, dims: Sequence[str] = ()) -> None:
    """Raise `SpecificationError` if a Dataset lacks a variable or a dim to plot, or one holds no number at all."""
    if not isinstance(dataset, xr.Dataset):
        raise SpecificationError(f"what is plotted is an xarray Dataset, not {type(dataset).__name__}")
    missing = [name for name in names if name not in dataset]
    if missing:
        raise SpecificationError(
            f"this Dataset has no {', '.join(missing)} to plot; it holds "
            f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}"
        )
    if absent := [dim for dim in dims if dim not in dataset.dims]:
        raise SpecificationError(
            f"this Dataset has not the dimension {', '.join(absent)} that is plotted; it has "
            f"{', '.join(map(str, dataset.dims))}"
        )
    for name in names:
        values = dataset[name].values
        if not values.size or (values.dtype.kind == "f" and np.isnan(values).all()):
            why = "; ".join(notes_of(dataset))
            raise SpecificationError(
                f"there is no {name} to plot: {'no value' if not values.size else 'every value is NaN'}"
                + (f" ({why})" if why else "")
            )


def describe_problem(problem: Mapping[str, Any]) -> str:
    """A title for a problem given as JSON values."""
    width = problem["student"]["width"]
    return (
        f"{problem['target']['expression']} learnt by {problem['student']['activation']}"
        + (f", p = {width}" if width > 1 else "")
        + (f", noise {problem['noise']:g}" if problem["noise"] else "")
    )


def plot_band(ax: Axes, x: NDArray[Any], values: NDArray[np.float64], **style: Any) -> None:
    """Median over the first axis of `values` (replica, x) with a band that holds 80 % of the replicas."""
    shown = np.isfinite(values).any(axis=0)
    middle = np.nanmedian(values[:, shown], axis=0)
    (line,) = ax.plot(x[shown], middle, **style)
    if len(values) > 1:
        low, high = np.nanquantile(values[:, shown], BAND, axis=0)
        ax.fill_between(x[shown], low, high, color=line.get_color(), alpha=0.2, linewidth=0)
