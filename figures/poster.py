"""The figures of the poster, from diagrams at several dimensions: times, exponents, samples; and a trajectory.

    python figures/poster.py            # all, about four minutes on two cores
    python figures/poster.py exponents_he2 stall

`exponents_he2.png`, `exponents_he3.png`: T over the (mu, delta) plane at the largest d, and measured beside predicted
exponents.  `time_batch.png`: smallest exponent over delta against mu, with the optimal points.  `samples.png`: n_b T at
the best delta, l = 2.  `stall.png`: the correlation loss learns where the square loss stalls (He3, d = 256, p = 4).
"""

import sys

from _data import FOLDER, made_by
from matplotlib.figure import Figure

import hdsgd

DIAGRAMS = {
    1: "hdsgd phase-diagram --target he1 --activation he1 --dims 1e3,1e4,1e5,1e6 --mu 0:2:21 --delta -0.75:1.5:19 "
    "--replicas 16 -o diagram_he1.nc",
    2: "hdsgd phase-diagram --target he2 --activation square --dims 1e3,1e5,1e7,1e9 --mu 0:2:21 --delta -1:1.5:21 "
    "--replicas 16 -o diagram_he2.nc",
    3: "hdsgd phase-diagram --target he3 --activation he3 --dims 1e3,1e4,1e5,1e6 --mu 0:3:19 --delta -1.5:2:22 "
    "--replicas 32 -o diagram_he3.nc",
}
# At l = 3, mu = 1.75 the projected square loss needs delta >= 0; the others learn down to delta = 1.5 - mu = -0.25.
RUN = (
    "hdsgd simulate --target he3 --activation he3 --width 4 --dim 256 --mu 1.75 --delta -0.25 --gamma0 0.8 "
    "--init positive --steps 60 --replicas 16 "
)
STALL = {
    "correlation loss": f"{RUN} --algorithm correlation -o stall_correlation.nc",
    "square loss, spherical": f"{RUN} --algorithm spherical -o stall_spherical.nc",
    "square loss, projected": f"{RUN} --algorithm projected -o stall_projected.nc",
}


def exponents(ell: int) -> None:
    hdsgd.figure(made_by(DIAGRAMS[ell])).savefig(FOLDER / f"exponents_he{ell}.png")


def time_batch() -> None:
    figure = Figure(figsize=(13, 3.8), layout="constrained", dpi=200)
    for ell, ax in zip(DIAGRAMS, figure.subplots(1, 3), strict=True):
        hdsgd.plot_best_exponents(made_by(DIAGRAMS[ell]), ax)
        ax.set_title(rf"$\ell$ = {ell}", fontsize="medium")
    figure.savefig(FOLDER / "time_batch.png")


def stall() -> None:
    figure = Figure(figsize=(11, 3.3), layout="constrained", dpi=200)
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (title, command) in zip(axes, STALL.items(), strict=True):
        hdsgd.plot_overlaps(made_by(command), ax)
        ax.set_title(title, fontsize="medium")
        ax.get_legend().remove()
    axes[-1].legend(frameon=False, loc="upper right")
    for ax in axes[1:]:
        ax.set_ylabel("")
    figure.savefig(FOLDER / "stall.png")


PICTURES = {
    "exponents_he2": lambda: exponents(2),
    "exponents_he3": lambda: exponents(3),
    "time_batch": time_batch,
    "samples": lambda: hdsgd.figure(made_by(DIAGRAMS[2]), plane="mu-samples").savefig(FOLDER / "samples.png"),
    "stall": stall,
}


def main() -> None:
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main()
