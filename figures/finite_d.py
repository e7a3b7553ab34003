"""Corrections at finite d: the mean map tracks simulations at small d where the ODE does not; He2 learnt by He2.

Left: overlaps at d = 64.  Right: deviation of the replicas' mean from either theory against d, with fitted powers.
"""

from _data import FOLDER, made_by
from matplotlib.figure import Figure

from hdsgd.plotting.trajectories import plot_comparison, plot_deviations

COMMAND = (
    "hdsgd compare --target he2 --activation he2 --dims 64,256,1024,4096 --mu 0.5 --delta 0.75 --gamma0 0.1 "
    "--init-overlap 0.3 --time 3 --replicas 200 -o finite_d.nc"
)


def main() -> None:
    data = made_by(COMMAND)
    figure = Figure(figsize=(10, 3.3), layout="constrained", dpi=200)
    axes = figure.subplots(1, 3)
    for ax, d in zip(axes, (64, 1024), strict=False):
        plot_comparison(data, ax, dim=d)
    axes[0].set_ylabel(r"overlap $|m|$")
    axes[0].legend(frameon=False, fontsize="small")
    plot_deviations(data, axes[2])
    figure.savefig(FOLDER / "finite_d.png")


if __name__ == "__main__":
    main()
