"""The three ODE regimes of the (mu, delta) plane: simulations (dots) on the lines of theory, He2 committee, p = k = 2.

Population flow (delta + mu > 1), Saad & Solla (= 1), noise dominated (< 1), where nothing is learnt.
"""

import json

import numpy as np
from _data import FOLDER, made_by
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PROBLEM = '--target "he2(z1) + he2(z2)" --activation he2 --width 2 --init-overlap 0.3 --dims 250,1000,4000,16000'
COMMANDS = {
    "population flow": f"hdsgd compare {PROBLEM} --mu 0.5 --delta 0.75 --gamma0 0.2 --time 4 -o population.nc",
    "Saad & Solla": f"hdsgd compare {PROBLEM} --mu 0.5 --delta 0.5 --gamma0 0.2 --time 4 -o saad_solla.nc",
    "noise dominated": f"hdsgd compare {PROBLEM} --mu 0.25 --delta 0.5 --gamma0 0.2 --time 1 -o noise.nc",
}


def main() -> None:
    figure = Figure(figsize=(10, 3.3), layout="constrained", dpi=200)
    axes = figure.subplots(1, 3)
    for ax, (regime, command) in zip(axes, COMMANDS.items(), strict=True):
        data = made_by(command)
        dims = data["dim"].values
        for i, d in enumerate(dims):
            panel = data.sel(dim=d)
            norm = np.sqrt((panel["M"].values ** 2).sum(axis=(2, 3)))
            t = panel["t"].values
            low, middle, high = np.quantile(norm, (0.1, 0.5, 0.9), axis=0)
            colour = f"C{i}"
            spread = (middle[1::4] - low[1::4], high[1::4] - middle[1::4])
            ax.errorbar(
                t[1::4], middle[1::4], spread, fmt="o", markersize=3, linewidth=0.8, color=colour, label=f"d = {d:,}"
            )
        ode = data["M_theory"].sel(theory="ode").isel(dim=-1).values
        ax.plot(data["t"].isel(dim=-1), np.sqrt((ode**2).sum(axis=(1, 2))), color="black", linewidth=1.5, label="ODE")
        spec = json.loads(data.attrs["specification"])
        ax.set_title(f"{regime}:  $\\mu$ = {spec['mu']:g}, $\\delta$ = {spec['delta']:g}", fontsize="medium")
        ax.set_xlabel("time of the ODE" + (r"  ($\gamma^2 d/n_b$ a step)" if regime.startswith("noise") else ""))
        ax.set_xlim(0, None)
        ax.set_ylim(0, 1.5)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel(r"overlap $\|M\|_F$")
    axes[0].legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(FOLDER / "regimes.png")


if __name__ == "__main__":
    main()
