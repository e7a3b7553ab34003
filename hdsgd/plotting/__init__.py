"""Pictures of Datasets, on Matplotlib axes: trajectories and phase diagrams.

Computes nothing but summaries.  The only package, with `hdsgd.networks`, that imports Matplotlib.
"""
