"""The figures of the two papers on batch size for networks, from the small presets.

    python figures/networks_papers.py [folder]

Needs the extra, pip install "hdsgd[networks]"; about ten minutes on two cores.  Every number drawn is in the .nc file
beside the figure.
"""

import sys
from pathlib import Path

from hdsgd.networks import TheoremCheck, diversity, epochs, saturation, theorem_check
from hdsgd.networks.presets import DIVERSITY, EPOCHS, SATURATION
from hdsgd.plotting.figures import figure
from hdsgd.results.files import save

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
studies = [
    ("saturation", saturation, SATURATION, ("small", "small-theorem", "least-squares")),
    ("epochs", epochs, EPOCHS, ("small", "digits")),
    ("diversity", diversity, DIVERSITY, ("theorem1", "theorem2", "theorem3", "small", "digits")),
]
for name, run, presets, chosen in studies:
    for preset in chosen:
        spec = presets[preset]()
        dataset = theorem_check(spec) if isinstance(spec, TheoremCheck) else run(spec, progress=True)
        save(dataset, folder / f"{name}-{preset}.nc", overwrite=True)
        figure(dataset).savefig(folder / f"{name}-{preset}.png")
        print(folder / f"{name}-{preset}.png")
