"""Deterministic dynamics of the overlaps: ODEs of the limit d to infinity (`ode`), mean map at finite d (`maps`).

What the two share, starts, saved times and the labelled Dataset, is in `common`.  May import problems, moments, theory
and the schema of results.
"""
